"""Measures of tasks other than phases: which classes a frame has (multilabel), and the one class of a clip. No torch.

A measure of a class that has nothing to be measured on is NaN here and is shown as `n/a`; scikit-learn says 0 for a class
without a positive, and torchmetrics' mean counts that. Measures of draws take how often each unit (video) is drawn, so that a
bootstrap ranks the frames once: a ranking does not change when a video is counted twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.scoring.intervals import Interval, interval_of_counts
from common.scoring.metrics import accuracy, balanced_accuracy, confusion_matrix, f1_per_class, mean_of_defined

MOST_CELLS = 4_000_000  # draws times frames that are in memory at a time
NUM_BINS = 15  # of the calibration error, as for phases


@dataclass(frozen=True, eq=False)
class Ranking:
    """The labelled frames of one class by falling score: `is_positive` and `unit` `(n,)`, and the last frame of each threshold.

    Equal scores are one threshold: `ends` `(thresholds,)` are the positions of the last frames above each.
    """

    is_positive: np.ndarray
    unit: np.ndarray
    ends: np.ndarray


def rank_frames(truth: np.ndarray, scores: np.ndarray, units: np.ndarray) -> Ranking:
    """Rank one class's frames; `truth` `(n,)` is 0, 1 or NaN (left out), `units` `(n,)` the number of each frame's unit."""
    labelled = ~np.isnan(truth)
    truth, scores, units = truth[labelled], scores[labelled], np.asarray(units)[labelled]
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else np.empty(0, int)
    return Ranking(truth[order] == 1, units[order], ends)


def average_precision_of_counts(ranking: Ranking, counts: np.ndarray) -> np.ndarray:
    """Average precision `(draws,)` of units counted `(draws, units)` times: precision summed over the steps of recall.

    As scikit-learn's `average_precision_score`; NaN without a positive.
    """

    def precision(found: np.ndarray, above: np.ndarray) -> np.ndarray:
        steps = np.diff(found, axis=1, prepend=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            at_each = np.where(above > 0, found / above, 0.0)  # a threshold that only frames of no drawn unit reach
            return (steps * at_each).sum(axis=1) / found[:, -1]

    return _of_counts(ranking, counts, precision)


def roc_area_of_counts(ranking: Ranking, counts: np.ndarray) -> np.ndarray:
    """Area under the ROC curve `(draws,)`: the share of pairs of a positive and a negative in which the positive scores higher.

    Equal scores count half. NaN without a positive, and without a negative.
    """

    def area(found: np.ndarray, above: np.ndarray) -> np.ndarray:
        positives, negatives = (np.diff(each, axis=1, prepend=0) for each in (found, above - found))
        pairs = found[:, -1] * (above - found)[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (negatives * (found - positives / 2)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)

    return _of_counts(ranking, counts, area)


def _of_counts(
    ranking: Ranking, counts: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """`measure(positives above each threshold, frames above it)`, both `(draws, thresholds)`, of every draw `(draws,)`."""
    result = np.full(len(counts), np.nan)
    if not ranking.is_positive.any():
        return result
    chunk = max(1, MOST_CELLS // len(ranking.unit))
    for start in range(0, len(counts), chunk):
        weights = counts[start : start + chunk][:, ranking.unit].astype(float)
        above = np.cumsum(weights, axis=1)[:, ranking.ends]
        found = np.cumsum(weights * ranking.is_positive, axis=1)[:, ranking.ends]
        result[start : start + chunk] = measure(found, above)
    return result


def average_precisions(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class `(num_classes,)`; truth `(n, num_classes)` 0, 1 or NaN, NaN without a positive."""
    return _once(truth, scores, average_precision_of_counts)


def roc_areas(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class `(num_classes,)`; NaN where all labelled frames are of one kind."""
    return _once(truth, scores, roc_area_of_counts)


def _once(truth: np.ndarray, scores: np.ndarray, measure: Callable[[Ranking, np.ndarray], np.ndarray]) -> np.ndarray:
    units, once = np.zeros(len(truth), dtype=int), np.ones((1, 1))
    return np.array([measure(rank_frames(*columns, units), once)[0] for columns in zip(truth.T, scores.T, strict=True)])


def balanced_accuracies(truth: np.ndarray, scores: np.ndarray, thresholds: np.ndarray | float = 0.5) -> np.ndarray:
    """Mean of the recalls of both answers, of each class `(num_classes,)`: present from `thresholds` on.

    NaN for a class whose labelled frames are of one kind.
    """
    answered = scores >= thresholds
    recalls = []
    for kind in (0, 1):
        is_kind = truth == kind
        with np.errstate(invalid="ignore"):
            recalls.append((is_kind & (answered == kind)).sum(axis=0) / is_kind.sum(axis=0))
    return (recalls[0] + recalls[1]) / 2


def presence_calibration(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Expected calibration error of each class `(num_classes,)`: how far the probability of presence is from its share.

    Bins of equal width of the probability, closed above, as for phases (Guo et al., ICML 2017). NaN without a labelled frame.
    """
    errors = np.full(truth.shape[1], np.nan)
    for place, (of_class, likely) in enumerate(zip(truth.T, probabilities.T, strict=True)):
        labelled = ~np.isnan(of_class)
        if not labelled.any():
            continue
        bins = np.clip(np.ceil(likely[labelled] * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
        gaps = np.bincount(bins, weights=likely[labelled] - of_class[labelled], minlength=NUM_BINS)
        errors[place] = np.abs(gaps).sum() / labelled.sum()
    return errors


def unweighted_logits(logits: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """Logits of a model that was fitted with `weight` on each positive, as without: p = q / (q + w (1 - q)) of probabilities."""
    return logits - np.log(weight)


@dataclass(frozen=True)
class MeanOfClasses:
    """A mean over those of `of` classes in which the measure is defined, with its 95 % interval (NaN: none)."""

    interval: Interval
    classes: int
    of: int


def mean_of_classes(
    per_split: Sequence[Callable[[np.ndarray], np.ndarray]],
    units_of: Sequence[np.ndarray],
    num_units: int,
    *,
    draws: int,
    with_interval: bool = True,
) -> tuple[np.ndarray, MeanOfClasses]:
    """A measure over several splits: each class's value `(num_classes,)`, and the mean over classes with its interval.

    `per_split[k]` gives the values `(draws, num_classes)` of split k for counts `(draws, its units)`, `units_of[k]` the number
    of each of its units among all `num_units`. In a draw every split's measure is taken of its drawn units, then the mean over
    splits: a video that several splits test is one unit.
    """

    def of_splits(counts: np.ndarray) -> np.ndarray:
        values = [measure(counts[:, units]) for measure, units in zip(per_split, units_of, strict=True)]
        return mean_of_defined(np.stack(values), axis=0)

    per_class = of_splits(np.ones((1, num_units)))[0]
    mean = float(mean_of_defined(per_class))

    def statistic(counts: np.ndarray) -> np.ndarray:
        return mean_of_defined(of_splits(counts))

    interval = Interval(mean, float("nan"), float("nan"))
    if with_interval and np.isfinite(mean):
        interval = interval_of_counts(num_units, statistic, draws=draws)
    return per_class, MeanOfClasses(interval, int(np.isfinite(per_class).sum()), len(per_class))


def clip_confusion(
    truth: np.ndarray, predicted: np.ndarray, units: np.ndarray, num_units: int, num_classes: int
) -> np.ndarray:
    """Clips of each unit `(num_units, num_classes, num_classes)`: row = true class, column = predicted class."""
    of_units = [
        confusion_matrix(truth[units == unit], predicted[units == unit], num_classes) for unit in range(num_units)
    ]
    return np.stack(of_units) if of_units else np.zeros((0, num_classes, num_classes))


def macro_f1_of_truth(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that have a true clip `(...)`, of counts `(..., num_classes, num_classes)`."""
    return mean_of_defined(np.where(confusion.sum(-1) > 0, f1_per_class(confusion), np.nan))


def largest_share(confusion: np.ndarray) -> np.ndarray:
    """Share of the most frequent true class `(...)`: what one answer for every clip gets right at most."""
    of_classes = confusion.sum(-1)
    with np.errstate(invalid="ignore"):
        return of_classes.max(-1) / of_classes.sum(-1)


CLIP_MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "top-1": accuracy,
    "macro F1": macro_f1_of_truth,
    "balanced accuracy": balanced_accuracy,
}
