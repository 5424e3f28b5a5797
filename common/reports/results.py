"""Find finished runs and score them again from their prediction files."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import nfc, visible
from common.base.paths import label_paths
from common.base.runtime import UserError, read_json
from common.dataset.description import read_phases, require_supported
from common.dataset.kfold import folds_hash, read_folds
from common.scoring.folder import score_folder
from common.scoring.further_measures import further_summary, per_phase
from common.scoring.protocols import CHALLENGE, Protocol, summary_value, video_values
from common.scoring.video_score import VideoScore

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SplitResult:
    """One scored split: its `run.json` and the scores of its videos by name."""

    record: dict[str, Any]
    scores: dict[str, VideoScore]

    @cached_property
    def _values(self) -> dict[tuple[str, Protocol], float]:
        return {}

    def value(self, measure: str, protocol: Protocol) -> float:
        """A measure over the split's videos, as a fraction of 1."""
        key = measure, protocol
        if key not in self._values:  # PR-AUC over pooled frames takes seconds, and tables, charts and tests ask again
            self._values[key] = summary_value(list(self.scores.values()), measure, protocol)
        return self._values[key]


@dataclass(frozen=True, eq=False)
class EncoderResult:
    """One row of a comparison: an encoder's splits under one run name."""

    model: paths.Model
    run: str | None
    splits: list[SplitResult]

    @property
    def record(self) -> dict[str, Any]:
        """The record of the first split, for what all of them share."""
        return self.splits[0].record

    @property
    def name(self) -> str:
        """The folder's name, with the run where it has one, and marked when its weights are random."""
        marks = [self.run] if self.run else []
        marks += ["random weights"] if self.record["features"]["random_weights"] else []
        return self.model.name + (f" ({', '.join(marks)})" if marks else "")

    @property
    def background(self) -> str | None:
        """The phase that counts as background; None where the data set has none."""
        background = next(iter(self.splits[0].scores.values())).background
        return None if background is None else self.record["phases"][background]

    def values(self, measure: str, protocol: Protocol = CHALLENGE) -> np.ndarray:
        """A measure of every split, `(num_splits,)`, as fractions of 1."""
        return np.array([split.value(measure, protocol) for split in self.splits])

    def mean(self, measure: str, protocol: Protocol = CHALLENGE) -> float:
        """Mean over splits."""
        return float(self.values(measure, protocol).mean())

    def std(self, measure: str, protocol: Protocol = CHALLENGE) -> float:
        """Standard deviation over splits (ddof 1); NaN for a single one."""
        values = self.values(measure, protocol)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    @cached_property
    def scores(self) -> dict[str, VideoScore]:
        """The scores of every video of every split, by name.

        With folds, each video is scored by a head that never saw it.
        """
        return {name: score for split in self.splits for name, score in split.scores.items()}

    @cached_property
    def _video_values(self) -> dict[Protocol, dict[str, dict[str, float]]]:
        return {}

    def video_values(self, protocol: Protocol = CHALLENGE) -> dict[str, dict[str, float]]:
        """Every measure of every video (video -> measure -> fraction of 1); NaN where undefined."""
        if protocol not in self._video_values:
            self._video_values[protocol] = {name: video_values(score, protocol) for name, score in self.scores.items()}
        return self._video_values[protocol]

    @cached_property
    def confusion(self) -> np.ndarray:
        """Frame counts over all videos of all splits, `(num_classes, num_classes)`, rows = truth."""
        return sum(score.confusion for score in self.scores.values())

    @cached_property
    def confusion_percents(self) -> np.ndarray:
        """The share of each true phase's frames (row) that is predicted as each phase (column); NaN without a frame."""
        frames = self.confusion.sum(axis=1, keepdims=True)
        undefined = np.full(self.confusion.shape, np.nan)
        return np.divide(100.0 * self.confusion, frames, out=undefined, where=frames > 0)

    @cached_property
    def phase_scores(self) -> dict[str, np.ndarray]:
        """`per_phase` over all videos: measure of a phase -> `(num_classes,)`."""
        return per_phase(list(self.scores.values()))

    @cached_property
    def further(self) -> dict[str, float]:
        """`further_summary` over all videos: the measures beside the eight."""
        return further_summary(list(self.scores.values()))


def read_split(folder: Path, dataset: paths.Dataset) -> SplitResult:
    """Score one split's folder from its prediction files.

    Raises `UserError` when a prediction is missing, or the labels of a video are gone.
    """
    require_supported(dataset, "scoring")
    record = read_json(folder / paths.RUN_RECORD)
    mapping = read_phases(dataset)
    if record["phases"] != list(mapping.names):
        raise UserError(f"{folder}: predicted with other phases than {dataset.mapping} has now; predict again")
    # a video may be in both parts: it is scored against the labels of the part that this run predicted
    labels = label_paths(dataset.ground_truth_val if record["split"] == "val" else dataset.ground_truth)
    videos = [nfc(name) for name in record["videos"]]
    gone = [name for name in videos if name not in labels]
    if gone:
        raise UserError(
            f"{folder}: predictions for videos that have no labels in {dataset.root}: {', '.join(gone[:5])}"
        )
    chosen = {name: labels[name] for name in videos}
    fps = {nfc(name): rate for name, rate in record["fps"].items()}
    return SplitResult(record, score_folder(chosen, folder, mapping, folder, fps=fps))


def run_names(model: paths.Model, dataset: paths.Dataset) -> list[str | None]:
    """The runs of a model on a data set: None for the default one, then the named ones."""
    root = model.results(dataset.name)
    default: list[str | None] = [None] if visible(root, f"split_*/{paths.RUN_RECORD}") else []
    return default + sorted({path.parents[1].name for path in visible(root, f"*/split_*/{paths.RUN_RECORD}")})


def finished_splits(
    model: paths.Model, dataset: paths.Dataset, run: str | None, names: Iterable[str | int]
) -> dict[str, Path]:
    """The folders of those of a run's splits that are finished, by the split's name."""
    folders = {str(name): model.split_results(dataset.name, name, run) for name in names}
    return {name: folder for name, folder in folders.items() if (folder / paths.RUN_RECORD).is_file()}


def _is_of_other_folds(folder: Path, dataset: paths.Dataset) -> bool:
    return read_json(folder / paths.RUN_RECORD)["folds_hash"] != folds_hash(read_folds(dataset))


def collect_folds(
    model: paths.Model, dataset: paths.Dataset, num_folds: int, *, run: str | None = None
) -> EncoderResult:
    """All folds of one encoder's run.

    Raises `UserError` when a fold is missing or was made on other folds than the data set has now.
    """
    names = [str(k) for k in range(1, num_folds + 1)]
    folders = finished_splits(model, dataset, run, names)
    command = f"python -m common.run_k_folds --dataset {dataset.name} --model {model.name} --folds {num_folds}"
    missing = [name for name in names if name not in folders]
    if missing:
        raise UserError(
            f"{model.name}: no finished run of fold {', '.join(missing)} in {model.results(dataset.name, run)}; "
            f"run: {command}"
        )
    stale = [name for name, folder in folders.items() if _is_of_other_folds(folder, dataset)]
    if stale:
        raise UserError(
            f"{model.name}: fold {', '.join(stale)} was run on other folds than {dataset.splits} has now; run "
            f"{command} --force"
        )
    return EncoderResult(model, run, [read_split(folder, dataset) for folder in folders.values()])


def collect_all(dataset: paths.Dataset, num_folds: int) -> list[EncoderResult]:
    """Every encoder's every run that has all folds, best accuracy first; the others are named in a warning.

    Raises `UserError` when there is none.
    """
    results = []
    for model in paths.all_models():
        for run in run_names(model, dataset):
            try:
                results.append(collect_folds(model, dataset, num_folds, run=run))
            except UserError as error:
                log.warning("left out: %s", error)
    return _ranked(results, dataset)


def collect_split(dataset: paths.Dataset, split: str) -> list[EncoderResult]:
    """Every encoder's every run of one split, best accuracy first.

    Raises `UserError` when there is none.
    """
    results = []
    for model in paths.all_models():
        for run in run_names(model, dataset):
            for folder in finished_splits(model, dataset, run, [split]).values():
                results.append(EncoderResult(model, run, [read_split(folder, dataset)]))
    return _ranked(results, dataset)


def _ranked(results: list[EncoderResult], dataset: paths.Dataset) -> list[EncoderResult]:
    if not results:
        raise UserError(
            f"no finished runs on {dataset.name}; run for an encoder: "
            f"python -m common.run_k_folds --dataset {dataset.name} --model MODEL"
        )
    return sorted(results, key=lambda result: -result.mean("accuracy"))


def collect_one(model: paths.Model, dataset: paths.Dataset, split: str, *, run: str | None = None) -> EncoderResult:
    """One split of one encoder's run.

    Raises `UserError` when it is not finished.
    """
    folders = finished_splits(model, dataset, run, [split])
    if not folders:
        raise UserError(
            f"{model.split_results(dataset.name, split, run)}: no finished run; run: "
            f"python -m common.run_k_folds --model {model.name} --dataset {dataset.name}"
        )
    return EncoderResult(model, run, [read_split(folders[split], dataset)])


def collect_runs(model: paths.Model, dataset: paths.Dataset, split: str | None = None) -> list[EncoderResult]:
    """Every run of one encoder, those with most splits first: one split's, or every finished fold's.

    Folds other than the data set has now are left out with a warning. Raises `UserError` when nothing is finished.
    """
    names = [split] if split else range(1, len(read_folds(dataset)) + 1)
    results = []
    for run in run_names(model, dataset):
        splits = []
        for folder in finished_splits(model, dataset, run, names).values():
            if split != "val" and _is_of_other_folds(folder, dataset):
                log.warning("left out: %s was run on other folds than %s has now; run it again", folder, dataset.splits)
            else:
                splits.append(read_split(folder, dataset))
        if splits:
            results.append(EncoderResult(model, run, splits))
    if not results:
        words = f"--dataset {dataset.name} --model {model.name}"
        command = (
            f"common.train {words} --split {split}, then --action predict" if split else f"common.run_k_folds {words}"
        )
        wanted = f"split {split}" if split else "any fold"
        raise UserError(f"{model.results(dataset.name)}: no finished run of {wanted}; run: python -m {command}")
    return sorted(results, key=lambda result: -len(result.splits))
