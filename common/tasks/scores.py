"""Answers of a probe to measures: each class's, their means with intervals, each unit's where there are too few for an interval.

Several splits of a list are scored each for itself, and a measure is the mean over them. Intervals draw units (patients or
recordings where these are known, else videos or clips), never frames; of fewer than five units there is none, and each is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from common.scoring.intervals import Interval, interval_of_counts
from common.scoring.metrics import calibration_bins, calibration_error, mean_of_defined
from common.scoring.task_measures import (
    CLIP_MEASURES,
    Ranking,
    average_precision_of_counts,
    average_precisions,
    balanced_accuracies,
    clip_confusion,
    largest_share,
    mean_of_classes,
    presence_calibration,
    rank_frames,
    roc_area_of_counts,
)
from common.tasks.summary import TaskMeasure

LEAST_UNITS = 5  # for an interval
DRAWS = 1000
POOLED, VIDEO_WISE, ROC_AREA = "mean AP, pooled frames", "mean AP, video-wise", "mean ROC area"
BALANCED, CALIBRATION = "balanced accuracy", "calibration error"
TOP1, MACRO_F1 = "top-1", "macro F1"
LARGEST = "share of the largest class"
# what `measure` of dataset.yaml may say, by task: the measure that a table of several data sets shows; the first is the default
HEADLINES: dict[str, dict[str, str]] = {
    "multilabel": {"pooled_ap": POOLED, "video_ap": VIDEO_WISE, "roc_area": ROC_AREA},
    "clips": {"top1": TOP1, "macro_f1": MACRO_F1},
}


@dataclass(frozen=True, eq=False)
class Answers:
    """What a probe says of the test part of a split: a row for each labelled frame, or for each clip.

    `truth` is `(n, num_classes)` 0, 1 or NaN of several classes, `(n,)` class numbers of one; `logits` `(n, num_classes)`;
    `names` `(n,)` the video or clip of each row; `thresholds` `(num_classes,)` the share of positives in training.
    """

    truth: np.ndarray
    logits: np.ndarray
    names: np.ndarray
    thresholds: np.ndarray

    @property
    def presence(self) -> np.ndarray:
        """Probability of each class `(n, num_classes)`, each for itself."""
        return 1 / (1 + np.exp(-self.logits))

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of each class `(n, num_classes)` of which there is one."""
        raised = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Scores:
    """Measures by title, each class's values by title, and each unit's headline values where there is no interval."""

    measures: dict[str, TaskMeasure]
    per_class: dict[str, list[float]]
    per_unit: dict[str, dict[str, float]]
    num_units: int


@dataclass(frozen=True, eq=False)
class _Units:
    """What a bootstrap draws: the units of all splits, and of each split the number of each row's unit and of its units."""

    names: list[str]
    of_rows: list[np.ndarray]
    of_splits: list[np.ndarray]

    @property
    def are_enough(self) -> bool:
        return len(self.names) >= LEAST_UNITS


def _units(splits: Sequence[Answers], groups: Mapping[str, str]) -> _Units:
    """Units of rows: the group of a video or clip, or itself; numbers of a split's rows are among its own units."""
    names: dict[str, int] = {}
    of_rows, of_splits = [], []
    for answers in splits:
        unit_of = {name: groups.get(name, name) for name in dict.fromkeys(answers.names.tolist())}
        own = {unit: place for place, unit in enumerate(dict.fromkeys(unit_of.values()))}
        of_rows.append(np.array([own[unit_of[name]] for name in answers.names.tolist()], dtype=int))
        of_splits.append(np.array([names.setdefault(unit, len(names)) for unit in own], dtype=int))
    return _Units(list(names), of_rows, of_splits)


def score_presence(splits: Sequence[Answers], groups: Mapping[str, str], *, with_intervals: bool = True) -> Scores:
    """Measures of several classes that a frame may have: average precision pooled and video-wise, ROC area, calibration."""
    units = _units(splits, groups)
    is_drawn = with_intervals and units.are_enough
    rankings = [_rankings(answers, rows) for answers, rows in zip(splits, units.of_rows, strict=True)]
    pooled = [partial(_of_rankings, of_split, average_precision_of_counts) for of_split in rankings]
    areas = [partial(_of_rankings, of_split, roc_area_of_counts) for of_split in rankings]
    by_video = [_by_video(answers, rows) for answers, rows in zip(splits, units.of_rows, strict=True)]
    measures: dict[str, TaskMeasure] = {}
    per_class = {"positives": sum(np.nansum(each.truth, axis=0) for each in splits).tolist()}
    for title, of_splits in (
        (POOLED, pooled),
        (VIDEO_WISE, [partial(_mean_over_videos, *of_split) for of_split in by_video]),
        (ROC_AREA, areas),
    ):
        values, mean = mean_of_classes(
            of_splits, units.of_splits, len(units.names), draws=DRAWS, with_interval=is_drawn
        )
        per_class[title] = values.tolist()
        bounds = mean.interval
        measures[title] = TaskMeasure.of_numbers(bounds.estimate, bounds.low, bounds.high, mean.classes, mean.of)
    further = {
        BALANCED: [balanced_accuracies(each.truth, each.presence, each.thresholds) for each in splits],
        CALIBRATION: [presence_calibration(each.truth, each.presence) for each in splits],
    }
    for title, of_splits in further.items():
        values = mean_of_defined(np.stack(of_splits), axis=0)
        per_class[title] = values.tolist()
        num_defined = int(np.isfinite(values).sum())
        measures[title] = TaskMeasure.of_numbers(float(mean_of_defined(values)), classes=num_defined, of=len(values))
    per_unit = {} if units.are_enough or not with_intervals else _presence_of_units(splits, units)
    return Scores(measures, per_class, per_unit, len(units.names))


def _rankings(answers: Answers, units: np.ndarray) -> list[Ranking]:
    return [rank_frames(*columns, units) for columns in zip(answers.truth.T, answers.logits.T, strict=True)]


def _of_rankings(rankings: Sequence[Ranking], measure, counts: np.ndarray) -> np.ndarray:
    return np.stack([measure(ranking, counts) for ranking in rankings], axis=1)


def _by_video(answers: Answers, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precisions of each video `(videos, num_classes)`, NaN where it has no positive, and its unit `(videos,)`."""
    values, unit_of = [], []
    for name in dict.fromkeys(answers.names.tolist()):
        own = answers.names == name
        values.append(average_precisions(answers.truth[own], answers.logits[own]))
        unit_of.append(rows[own][0])
    return np.stack(values), np.array(unit_of)


def _mean_over_videos(values: np.ndarray, unit_of: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of each class over the drawn videos that have it `(draws, num_classes)`."""
    weights = counts[:, unit_of].astype(float)
    with np.errstate(invalid="ignore"):
        return (weights @ np.nan_to_num(values)) / (weights @ np.isfinite(values))


def _presence_of_units(splits: Sequence[Answers], units: _Units) -> dict[str, dict[str, float]]:
    """The mean average precision of each unit for itself."""
    found: dict[str, list[float]] = {name: [] for name in units.names}
    for answers, rows, of_split in zip(splits, units.of_rows, units.of_splits, strict=True):
        for place, unit in enumerate(of_split):
            own = rows == place
            found[units.names[unit]].append(
                float(mean_of_defined(average_precisions(answers.truth[own], answers.logits[own])))
            )
    return {name: {"mean AP": float(mean_of_defined(np.array(values)))} for name, values in found.items()}


def score_clips(splits: Sequence[Answers], groups: Mapping[str, str], *, with_intervals: bool = True) -> Scores:
    """Measures of clips, each of one class: top-1, macro F1 over the classes in truth, and the share of the largest class."""
    units = _units(splits, groups)
    num_classes = splits[0].logits.shape[1]
    counted = [
        clip_confusion(answers.truth, answers.logits.argmax(axis=1), rows, len(of_split), num_classes)
        for answers, rows, of_split in zip(splits, units.of_rows, units.of_splits, strict=True)
    ]
    measures: dict[str, TaskMeasure] = {}
    for title, measure in CLIP_MEASURES.items():

        def of_counts(counts: np.ndarray, measure=measure) -> np.ndarray:
            values = [
                measure(np.tensordot(counts[:, of_split], confusion, axes=1))
                for of_split, confusion in zip(units.of_splits, counted, strict=True)
            ]
            return mean_of_defined(np.stack(values), axis=0)

        if with_intervals and units.are_enough:
            bounds = interval_of_counts(len(units.names), of_counts, draws=DRAWS)
        else:
            bounds = Interval(float(of_counts(np.ones((1, len(units.names))))[0]), float("nan"), float("nan"))
        in_truth = sum(confusion.sum(0) for confusion in counted).sum(-1) > 0
        of_classes = (None, None) if title == TOP1 else (int(in_truth.sum()), num_classes)
        measures[title] = TaskMeasure.of_numbers(bounds.estimate, bounds.low, bounds.high, *of_classes)
    errors = [float(calibration_error(calibration_bins(each.truth, each.probabilities))) for each in splits]
    measures[CALIBRATION] = TaskMeasure.of_numbers(float(np.mean(errors)))
    shares = [float(largest_share(confusion.sum(axis=0))) for confusion in counted]
    measures[LARGEST] = TaskMeasure.of_numbers(float(np.mean(shares)))
    joined = sum(confusion.sum(axis=0) for confusion in counted)
    with np.errstate(invalid="ignore"):
        recalls = np.diagonal(joined) / joined.sum(axis=1)
    per_class = {"clips": joined.sum(axis=1).tolist(), "correct": recalls.tolist()}
    per_unit = {}
    if with_intervals and not units.are_enough:
        of_units: dict[str, list[float]] = {name: [] for name in units.names}
        for of_split, confusion in zip(units.of_splits, counted, strict=True):
            for place, unit in enumerate(of_split):
                of_units[units.names[unit]].append(float(CLIP_MEASURES[TOP1](confusion[place])))
        per_unit = {name: {TOP1: float(np.mean(values))} for name, values in of_units.items()}
    return Scores(measures, per_class, per_unit, len(units.names))
