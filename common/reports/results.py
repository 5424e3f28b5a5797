"""Find finished runs and score them again from their prediction files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.paths import label_paths
from common.base.runtime import UserError, read_json
from common.dataset.kfold import folds_hash, read_folds
from common.dataset.phases import PhaseMapping, read_mapping
from common.scoring.folder import score_folder
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE, Protocol, summary_value, video_values
from common.scoring.video_score import VideoScore

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SplitResult:
    """One scored split: its `run.json` and the scores of its videos by name."""

    folder: Path
    record: dict[str, Any]
    scores: dict[str, VideoScore]

    @cached_property
    def _values(self) -> dict[tuple[str, Protocol], float]:
        return {}

    def value(self, measure: str, protocol: Protocol) -> float:
        """A measure over the split's videos, as a fraction of 1."""
        key = measure, protocol
        if key not in self._values:
            self._values[key] = summary_value(list(self.scores.values()), measure, protocol)
        return self._values[key]

    def summary(self, protocol: Protocol) -> dict[str, float]:
        """Every measure over the split's videos, as fractions of 1."""
        return {measure: self.value(measure, protocol) for measure in MEASURES}


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
        """The scores of every video of every split, by name: with folds, each video is scored by a head that never saw it."""
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


def read_split(folder: Path, dataset: paths.Dataset, mapping: PhaseMapping) -> SplitResult:
    """Score one split's folder from its prediction files.

    Raises `UserError` when a prediction is missing, or the labels of a video are gone.
    """
    record = read_json(folder / "run.json")
    if record["phases"] != list(mapping.names):
        raise UserError(f"{folder}: predicted with other phases than {dataset.mapping} has now; predict again")
    labels = label_paths(dataset.ground_truth) | label_paths(dataset.ground_truth_val)
    gone = [name for name in record["videos"] if name not in labels]
    if gone:
        raise UserError(
            f"{folder}: predictions for videos that have no labels in {dataset.root}: {', '.join(gone[:5])}"
        )
    chosen = {name: labels[name] for name in record["videos"]}
    return SplitResult(folder, record, score_folder(chosen, folder, mapping, folder, fps=record["fps"]))


def run_names(model: paths.Model, dataset: paths.Dataset) -> list[str | None]:
    """The runs of a model on a data set: None for the default one, then the named ones."""
    root = model.results(dataset.name)
    named = sorted({path.parents[1].name for path in root.glob("*/split_*/run.json")}) if root.is_dir() else []
    default: list[str | None] = [None] if list(root.glob("split_*/run.json")) else []
    return default + named


def collect_folds(
    model: paths.Model, dataset: paths.Dataset, num_folds: int, *, run: str | None = None
) -> EncoderResult:
    """All folds of one encoder's run.

    Raises `UserError` when a fold is missing or was made on other folds than the data set has now.
    """
    folders = {k: model.split_results(dataset.name, k, run) for k in range(1, num_folds + 1)}
    missing = [str(k) for k, folder in folders.items() if not (folder / "run.json").is_file()]
    if missing:
        raise UserError(
            f"{model.name}: no finished run of fold {', '.join(missing)} in {model.results(dataset.name, run)}; "
            f"run: python -m common.run_k_folds --dataset {dataset.name} --model {model.name} --folds {num_folds}"
        )
    current = folds_hash(read_folds(dataset))
    stale = [str(k) for k, folder in folders.items() if read_json(folder / "run.json")["folds_hash"] != current]
    if stale:
        raise UserError(
            f"{model.name}: fold {', '.join(stale)} was run on other folds than {dataset.splits} has now; run "
            f"python -m common.run_k_folds --dataset {dataset.name} --model {model.name} --folds {num_folds} --force"
        )
    mapping = read_mapping(dataset.mapping)
    return EncoderResult(model, run, [read_split(folder, dataset, mapping) for folder in folders.values()])


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
    mapping = read_mapping(dataset.mapping)
    results = []
    for model in paths.all_models():
        for run in run_names(model, dataset):
            folder = model.split_results(dataset.name, split, run)
            if (folder / "run.json").is_file():
                results.append(EncoderResult(model, run, [read_split(folder, dataset, mapping)]))
    return _ranked(results, dataset)


def _ranked(results: list[EncoderResult], dataset: paths.Dataset) -> list[EncoderResult]:
    if not results:
        raise UserError(
            f"no finished runs on {dataset.name}; run for an encoder: "
            f"python -m common.run_k_folds --dataset {dataset.name} --model MODEL"
        )
    return sorted(results, key=lambda result: -result.mean("accuracy"))
