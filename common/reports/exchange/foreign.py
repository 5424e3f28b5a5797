"""Predictions that were made elsewhere as a row of the tables: a text file a video, probabilities beside it if there are any.

The same videos, labels and statistics as for every other row; of what stands behind the row nothing is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.entries import on_disk, reason_against_folder
from common.base.files import misfit
from common.base.runtime import UserError, listed, shown
from common.dataset.description import read_phases
from common.dataset.phases import PhaseMapping, read_labels, read_predictions
from common.dataset.split_lists import SplitLists, open_splits
from common.reports.results import VALIDATION, Collection, EncoderResult, SplitResult, scored_labels
from common.scoring.folder import score_folder

# of a row's record, as bundles keep it
SHAPE = {
    "made_elsewhere": str, "synthetic": bool, "split": str, "phases": [str], "videos": [str], "fps": {str: float | None},
    "config": {"splits?": str, "causal": bool}, "unreached_labels": {str: int}, "folds_hash?": str, "num_train_videos?": int,
    "features": {"random_weights": bool}, "versions": {str: str}, "git": dict,
}  # fmt: skip


def checked_foreign(record: Any, where: object) -> dict[str, Any]:
    """The record of a foreign row. Raises `UserError` naming `where` for another."""
    if wrong := misfit(record, SHAPE):
        raise UserError(f"{where}: not the record of predictions made elsewhere ({wrong})")
    return record


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """`NAME=DIR` of the command line as name -> folder.

    Raises `UserError` for other words, a name that no row can have, one given twice, and a folder that is not there.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--with_predictions {word}: expected NAME=DIR, such as TeCNO=../tecno/predictions")
        if reason := reason_against_folder(name):
            raise UserError(f"--with_predictions {word}: {shown(name)} cannot be the name of a row ({reason})")
        if name in folders:
            raise UserError(f"--with_predictions: {name} is given twice; give each row a name of its own")
        if not Path(folder).is_dir():
            raise UserError(f"--with_predictions {word}: no such folder: {folder}")
        folders[name] = Path(folder)
    return folders


def with_foreign(
    found: Collection,
    folders: Mapping[str, Path],
    dataset: paths.Dataset,
    split_names: Sequence[str],
    splits: str | None = None,
) -> Collection:
    """The rows of `found` and one of each folder, the best accuracy first.

    Raises `UserError` naming file and reason where a folder lacks a scored video or one's length is not that of its labels.
    """
    if not folders:
        return found
    rows = [read_foreign(name, folder, dataset, split_names, splits, found.results) for name, folder in folders.items()]
    results = sorted([*found.results, *rows], key=lambda result: -result.mean("accuracy"))
    return replace(found, results=results)


def read_foreign(
    name: str,
    folder: Path,
    dataset: paths.Dataset,
    split_names: Sequence[str],
    splits: str | None = None,
    beside: Sequence[EncoderResult] = (),
) -> EncoderResult:
    """One row from `folder/<video>.txt`, or from `folder/split_<k>/<video>.txt` where each split has predictions of its own.

    `beside`: rows of this project, from which frame rates and labels past a video's end are taken.
    """
    mapping = read_phases(dataset)
    lists = None if list(split_names) == [VALIDATION] else open_splits(dataset, splits)
    parts = {split: folder / f"split_{split}" for split in split_names}
    if not any(part.is_dir() for part in parts.values()):
        if lists is not None and lists.tests_overlap and len(split_names) > 1:
            raise UserError(
                f"{folder}: {lists.name} tests videos in several splits: expected predictions of each in split_1/, split_2/ "
                "and so on, found none of these folders"
            )
        parts = dict.fromkeys(split_names, folder)
    known = {split.record["split"]: split.record for result in beside for split in result.splits}
    read = []
    for split, part in parts.items():
        labels = scored_labels(dataset, split, lists)
        _require_predictions(name, part, labels, mapping)
        record = _record(name, dataset, mapping, split, list(labels), lists)
        own = known.get(split, {"fps": {}, "unreached_labels": {}})
        scores = score_folder(labels, part, mapping, part, fps=own["fps"], unreached=own["unreached_labels"])
        for score in scores.values():
            _ = score.average_precision  # damaged probabilities are found here
        record["fps"] = {video: score.fps for video, score in scores.items()}
        read.append(SplitResult(record, scores))
    model = paths.Model(paths.comparison_results() / "made_elsewhere" / name)
    return EncoderResult(model, None, read, len(lists) if lists is not None and len(read) > 1 else None)


def _require_predictions(name: str, folder: Path, labels: Mapping[str, Path], mapping: PhaseMapping) -> None:
    """Raise `UserError` that names every video that lacks a prediction or has one of another length."""
    missing = [video for video in labels if not on_disk(folder / f"{video}.txt").is_file()]
    if missing:
        raise UserError(
            f"{name}: {folder} lacks predictions of {listed(missing)}: expected a file <video>.txt of each of the "
            f"{len(labels)} scored videos, one phase a label"
        )
    wrong = []
    for video, path in labels.items():
        found = len(read_predictions(on_disk(folder / f"{video}.txt"), mapping))
        if found != (wanted := len(read_labels(path, mapping))):
            wrong.append(f"{video} ({found} instead of {wanted})")
    if wrong:
        raise UserError(
            f"{name}: {folder} has other lengths than the labels of {listed(wrong)}: expected one phase a label; write "
            "predictions at the rate of the labels"
        )


def _record(
    name: str, dataset: paths.Dataset, mapping: PhaseMapping, split: str, videos: list[str], lists: SplitLists | None
) -> dict[str, Any]:
    """What a `run.json` would say of such a split: mostly that it is unknown."""
    return {
        "made_elsewhere": name,
        "synthetic": dataset.is_synthetic,
        "split": split,
        "seed": None,
        "phases": list(mapping.names),
        "config": {"splits": lists and lists.name, "variant": None, "run": None, "features_dim": None, "causal": False},
        "videos": videos,
        "unreached_labels": {},
        "folds_hash": lists and lists.hash,
        "num_train_videos": lists and len(lists.videos("train", int(split))),
        "features": {"identity": None, "random_weights": False, "num_parameters": None},
        "train_seconds": None,
        "history": None,
        "versions": {},
        "git": {"commit": None, "dirty": None},
    }
