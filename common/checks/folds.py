"""Folds: patients in two of them, folds of other videos or changed by hand, label files that are not the fold's."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import is_readable_file, list_labels
from common.base.files import read_json
from common.base.runtime import UserError, counted, listed, shortened
from common.checks.findings import Finding
from common.dataset.kfold import fold_numbers, folds_hash, how_to_remake, read_bundle, read_folds
from common.dataset.patients import pieces_of_recordings, read_patients, shared_patients
from common.dataset.phases import IGNORED, PhaseMapping
from common.dataset.split_lists import open_splits

KIND = "folds"
VALIDATION = "groundTruth_val"


def patient_findings(dataset: paths.Dataset, splits: Collection[str] | None = None) -> Iterator[Finding]:
    """Patients who are in two test folds, or in training and validation; a `patients.csv` that cannot be read.

    With `splits` (numbers of folds, `val`) only patients on both sides of one of them.
    """
    try:
        patients = read_patients(dataset)
    except UserError as error:
        if str(dataset.patients) not in str(error):
            return  # labels or a description that cannot be read: a finding of the files
        yield Finding(
            "error",
            KIND,
            str(error),
            "correct its lines (columns video,patient): until then patients are not kept in one fold",
        )
        return
    places: dict[str, dict[str, list[str]]] = {}
    for place, names in _places(dataset):
        for video in names:
            if video in patients:
                places.setdefault(patients[video], {}).setdefault(place, []).append(video)
    for patient, found in places.items():
        validation = found.pop(VALIDATION, [])
        if len(found) > 1 and (splits is None or any(f"fold {split}" in found for split in splits)):
            where = "; ".join(f"{place}: {listed(names)}" for place, names in found.items())
            message = f"patient {shortened(patient)} is in {len(found)} test folds ({where})"
            yield Finding("error", KIND, message, how_to_remake(dataset, "N"))
        own = [video for video in list_labels(dataset.ground_truth).first if patients.get(video) == patient]
        train = [video for video in own if video not in validation]  # one in both parts is a finding of the copies
        if validation and train and (splits is None or "val" in splits):
            parts = f"groundTruth/ ({listed(train)}) and groundTruth_val/ ({listed(validation)})"
            message = f"patient {shortened(patient)} is in {parts}"
            yield Finding("error", KIND, message, "move all videos of this patient into one of the two")


def piece_findings(dataset: paths.Dataset, videos: Collection[str]) -> Iterator[Finding]:
    """Videos that look like pieces of one recording, which `patients.csv` does not name."""
    try:
        pieces = pieces_of_recordings(sorted(videos), read_patients(dataset))
    except UserError:  # a finding of the patients
        return
    if pieces:
        count, recordings = sum(map(len, pieces.values())), counted(len(pieces), "recording")
        yield Finding(
            "warning",
            KIND,
            f"{count} videos look like pieces of {recordings} ({listed(list(pieces))}): they are not independent, and "
            "intervals and tests over them are too sure",
            f"state it in {dataset.patients} (columns video,patient; one name a recording) to group them",
        )


def _places(dataset: paths.Dataset) -> Iterator[tuple[str, list[str]]]:
    """Every readable test fold, and the validation part, with its videos."""
    for number in fold_numbers(dataset):
        try:
            yield f"fold {number}", read_bundle(dataset.bundle("test", number))
        except UserError:  # `fold_findings` says so
            continue
    yield VALIDATION, list(list_labels(dataset.ground_truth_val).first)


def list_findings(dataset: paths.Dataset, name: str, splits: Collection[str] | None = None) -> Iterator[Finding]:
    """A named list that is unsound, and patients who are learned from and tested in one of its splits (or of `splits`)."""
    try:
        lists = open_splits(dataset, name)
        shared = {number: shared_patients(dataset, lists, number) for number in range(1, len(lists) + 1)}
    except UserError as error:
        yield Finding("error", KIND, str(error), "runs on this list are refused until it is put right")
        return
    for number, patients in shared.items():
        if patients and (splits is None or str(number) in splits):
            message = f"list {name}, split {number}: learned from and tested: {patients}"
            yield Finding("warning", KIND, message, "say so where its numbers are shown, or choose another list")


def checked_folds(dataset: paths.Dataset) -> list[list[str]]:
    """The verified test folds; empty where none were made.

    Raises `UserError` when they are unsound, or not made by this project.
    """
    return read_folds(dataset) if fold_numbers(dataset) else []


def untrained_findings(
    folds: Sequence[Sequence[str]], labels: Mapping[str, np.ndarray], mapping: PhaseMapping
) -> Iterator[Finding]:
    """Phases that no training frame of a fold has, so that its head can never predict them; `labels`: ids by video."""
    frames = {video: np.bincount(ids[ids != IGNORED], minlength=mapping.num_classes) for video, ids in labels.items()}
    none = np.zeros(mapping.num_classes, dtype=int)
    everywhere = sum(frames.values(), start=none)
    if absent := [mapping.names[phase] for phase in np.flatnonzero(everywhere == 0)]:
        yield Finding(
            "note", KIND, f"no video has a frame of {listed(absent)}", "take it out of mapping.txt, or leave it"
        )
    for number, test in enumerate(folds, 1):
        tested = sum((frames[video] for video in test), start=none)
        if lone := [mapping.names[phase] for phase in np.flatnonzero((everywhere > 0) & (everywhere == tested))]:
            message = f"fold {number}: no training frame of {listed(lone)}: all are in its test videos"
            yield Finding(
                "warning", KIND, message, "its head cannot predict this; make fewer folds, or label more videos"
            )


def fold_findings(dataset: paths.Dataset, labels: Mapping[str, np.ndarray], mapping: PhaseMapping) -> Iterator[Finding]:
    """Folds that are unsound, of another state of the data set, or without a phase to learn; none where none were made.

    `labels`: phase ids `(T,)` by video, of all that can be read.
    """
    if not fold_numbers(dataset):
        return
    try:
        folds = checked_folds(dataset)
    except UserError as error:
        message, _, advice = str(error).rpartition("; ")
        yield Finding("error", KIND, message, f"{advice}; runs with these folds cannot be compared")
        return
    remake = how_to_remake(dataset, len(folds))
    if not dataset.folds_record.is_file():
        message = f"{dataset.folds_record}: missing, so these folds were not made by generate_k_folds.py"
        yield Finding("note", KIND, message, f"leave them, or {remake}")
    elif read_json(dataset.folds_record).get("hash") != folds_hash(folds):
        message = f"{dataset.folds_record}: the folds were changed after it was written (its hash is not theirs)"
        yield Finding("warning", KIND, message, f"leave them, or {remake}")
    originals = list_labels(dataset.ground_truth).first
    for number, fold in enumerate(folds, 1):
        if dataset.ground_truth_split(number).is_dir() or dataset.folds_record.is_file():
            yield from _stale_copies(dataset.ground_truth_split(number), originals, number, fold, remake)
    videos = [video for fold in folds for video in fold]
    if all(video in labels for video in videos):
        yield from untrained_findings(folds, {video: labels[video] for video in videos}, mapping)


def _stale_copies(
    folder: Path, originals: Mapping[str, Path], number: int, fold: list[str], remake: str
) -> Iterator[Finding]:
    """Label files of `groundTruth_split_<k>/` that are not those of the fold; `originals`: those of `groundTruth/`."""
    there = list_labels(folder).first
    strays = sorted(there.keys() ^ set(fold))
    if strays:
        yield Finding("warning", KIND, f"{folder}: does not hold test fold {number}: {listed(strays)}", remake)
    for video in sorted(there.keys() & set(fold)):
        copy, original = there[video], originals[video]
        # one that can't be read is a finding of the label files themselves
        if is_readable_file(copy) and is_readable_file(original) and copy.read_bytes() != original.read_bytes():
            message = f"{video}: {copy} is an old copy of {original}"
            yield Finding("warning", KIND, message, remake, video=video)
