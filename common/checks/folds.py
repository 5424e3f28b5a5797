"""Folds: patients in two of them, folds of other videos or changed by hand, label files that are not the fold's."""

from collections.abc import Iterator

from common.base import paths
from common.base.entries import list_labels
from common.base.runtime import UserError, read_json
from common.base.wording import listed, naming
from common.checks.findings import Finding
from common.dataset.kfold import fold_numbers, folds_hash, how_to_remake, read_bundle, read_folds, read_patients

KIND = "folds"
VALIDATION = "groundTruth_val"


def patient_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """Patients who are in two test folds, or in training and validation; a `patients.csv` that cannot be read."""
    try:
        patients = read_patients(dataset.patients)
    except (UserError, UnicodeDecodeError) as error:
        yield Finding("error", KIND, naming(dataset.patients, error), "write its columns as video,patient")
        return
    places: dict[str, dict[str, list[str]]] = {}
    for place, names in _places(dataset):
        for video in names:
            if video in patients:
                places.setdefault(patients[video], {}).setdefault(place, []).append(video)
    for patient, found in places.items():
        validation = found.pop(VALIDATION, [])
        if len(found) > 1:
            where = "; ".join(f"{place}: {listed(names)}" for place, names in found.items())
            message = f"patient {patient} is in {len(found)} test folds ({where})"
            yield Finding("error", KIND, message, how_to_remake(dataset, "N"))
        own = [video for video in list_labels(dataset.ground_truth).first if patients.get(video) == patient]
        train = [video for video in own if video not in validation]  # one in both parts is a finding of the copies
        if validation and train:
            message = (
                f"patient {patient} is in groundTruth/ ({listed(train)}) and groundTruth_val/ ({listed(validation)})"
            )
            yield Finding("error", KIND, message, "move all videos of this patient into one of the two")


def _places(dataset: paths.Dataset) -> Iterator[tuple[str, list[str]]]:
    """Every readable test fold, and the validation part, with its videos."""
    for number in fold_numbers(dataset):
        try:
            yield f"fold {number}", read_bundle(dataset.bundle("test", number))
        except UserError:  # `fold_findings` says so
            continue
    yield VALIDATION, list(list_labels(dataset.ground_truth_val).first)


def checked_folds(dataset: paths.Dataset) -> list[list[str]]:
    """The verified test folds; empty where none were made.

    Raises `UserError` when they are unsound, or not made by this project.
    """
    try:
        return read_folds(dataset) if fold_numbers(dataset) else []
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{dataset.splits}: not folds of generate_k_folds.py ({error!r})") from error


def fold_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """Folds that are unsound or of another state of the data set; none where none were made."""
    if not fold_numbers(dataset):
        return
    try:
        folds = checked_folds(dataset)
    except UserError as error:
        yield Finding("error", KIND, str(error), "make the folds again; runs with these cannot be compared")
        return
    remake = how_to_remake(dataset, len(folds))
    if not dataset.folds_record.is_file():
        message = f"{dataset.folds_record}: missing, so the folds are not ours or were cut short"
        yield Finding("note", KIND, message, remake)
    elif read_json(dataset.folds_record).get("hash") != folds_hash(folds):
        message = f"{dataset.folds_record}: the folds were changed after it was written (its hash is not theirs)"
        yield Finding("warning", KIND, message, remake)
    for number, fold in enumerate(folds, 1):
        yield from _stale_copies(dataset, number, fold, remake)


def _stale_copies(dataset: paths.Dataset, number: int, fold: list[str], remake: str) -> Iterator[Finding]:
    """Label files of `groundTruth_split_<k>/` that are not those of the fold."""
    folder = dataset.ground_truth_split(number)
    there, originals = list_labels(folder).first, list_labels(dataset.ground_truth).first
    strays = sorted(there.keys() ^ set(fold))
    if strays:
        yield Finding("warning", KIND, f"{folder}: does not hold test fold {number}: {listed(strays)}", remake)
    for video in sorted(there.keys() & set(fold)):
        if there[video].is_file() and there[video].read_bytes() != originals[video].read_bytes():
            message = f"{video}: {there[video]} is an old copy of {originals[video]}"
            yield Finding("warning", KIND, message, remake, video=video)
