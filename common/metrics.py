"""Measures of one video's prediction, and of a set of videos: frame level, segment level, per class. No torch.

A measure that is not defined (no segment, no probabilities, a class that is neither true nor predicted) is NaN here and
is shown as `n/a`; it never becomes 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from common.segments import SegmentCounts, count_overlaps, edit_similarity, find_segments, legacy_last_end

OVERLAP_PERCENTS = (10, 25, 50)

# key in files -> name in tables; every table and chart keeps this order
MEASURES = {
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "edit": "Edit",
    "pr_auc": "PR-AUC",
    "f1@10": "F1@10",
    "f1@25": "F1@25",
    "f1@50": "F1@50",
    "miou": "mIoU",
}


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Frame counts `(num_classes, num_classes)`: row = true phase, column = predicted phase."""
    pairs = np.asarray(true) * num_classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient, NaN where the denominator is 0."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def accuracy(confusion: np.ndarray) -> float:
    """Share of frames whose phase is right."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.sum() else float("nan")


def f1_per_class(confusion: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN) of each class `(num_classes,)`; NaN for a class neither true nor predicted."""
    return _ratio(2.0 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def jaccard_per_class(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class `(num_classes,)`; NaN for a class neither true nor predicted."""
    hits = np.diag(confusion).astype(float)
    return _ratio(hits, confusion.sum(0) + confusion.sum(1) - hits)


def average_precision_per_class(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """One-vs-rest average precision of each class `(num_classes,)`; NaN for a class without a true frame.

    `true` is `(T,)`, `probabilities` `(T, num_classes)`. The step-wise sum over recall of scikit-learn.
    """
    from sklearn.metrics import average_precision_score

    result = np.full(probabilities.shape[1], np.nan)
    for class_id in np.unique(true):
        result[class_id] = average_precision_score(true == class_id, probabilities[:, class_id])
    return result


def segmental_f1(counts: Iterable[SegmentCounts]) -> float:
    """F1 of segment counts added up over videos; NaN when there is no segment at all."""
    hits, false_positives, false_negatives = np.array([(0, 0, 0), *counts]).sum(axis=0).tolist()
    total = 2 * hits + false_positives + false_negatives
    return 2 * hits / total if total else float("nan")


@dataclass(frozen=True)
class VideoScore:
    """What one video contributes to every table: frame measures, edit, and segment counts per overlap percent."""

    num_frames: int
    accuracy: float
    f1_macro: float
    edit: float
    pr_auc: float
    miou: float
    confusion: np.ndarray = field(repr=False)
    overlap_counts: dict[int, SegmentCounts]


def score_video(
    true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, num_classes: int
) -> VideoScore:
    """Score one video: `true` and `predicted` `(T,)` phase ids, `probabilities` `(T, num_classes)` or None.

    Frame measures are macro means over the classes that are true or predicted in this video, PR-AUC over those that
    are true (MedVisBonn/SICS155_challenge `evaluation.py`; its PR-AUC fails where a class is absent). Segment counts
    keep the background and end the last segment one frame early (sj-li/MS-TCN2 `eval.py`).
    """
    confusion = confusion_matrix(true, predicted, num_classes)
    true_segments, predicted_segments = find_segments(true), find_segments(predicted)
    ends = (legacy_last_end(predicted_segments), legacy_last_end(true_segments))
    no_probabilities = probabilities is None
    return VideoScore(
        num_frames=len(true),
        accuracy=accuracy(confusion),
        f1_macro=mean_of_defined(f1_per_class(confusion)),
        edit=edit_similarity(predicted_segments, true_segments),
        pr_auc=float("nan") if no_probabilities else mean_of_defined(average_precision_per_class(true, probabilities)),
        miou=mean_of_defined(jaccard_per_class(confusion)),
        confusion=confusion,
        overlap_counts={percent: count_overlaps(*ends, percent / 100) for percent in OVERLAP_PERCENTS},
    )


def challenge_summary(videos: Iterable[VideoScore]) -> dict[str, float]:
    """The measures of `MEASURES` over a set of videos, as fractions of 1.

    Means over videos, but F1@k from segment counts added up over videos. PR-AUC is NaN unless every video has one:
    a mean over fewer videos would not be comparable.
    """
    scores = list(videos)
    summary = {}
    for key in MEASURES:
        if key.startswith("f1@"):
            percent = int(key.removeprefix("f1@"))
            summary[key] = segmental_f1(score.overlap_counts[percent] for score in scores)
        else:
            summary[key] = float(np.mean([getattr(score, key) for score in scores])) if scores else float("nan")
    return summary
