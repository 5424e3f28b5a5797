"""Runs of equal labels: find them, compare two sequences of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Segments:
    """Runs of equal labels in a sequence: run i holds `labels[i]` on frames `starts[i]` to `ends[i] - 1`."""

    labels: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return self.labels.size

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.labels.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True)


def find_segments(labels: np.ndarray) -> Segments:
    """Segments of a label sequence `(T,)`, in order; an empty sequence has none."""
    labels = np.asarray(labels)
    if labels.size == 0:
        empty = np.empty(0, dtype=np.int64)
        return Segments(labels, empty, empty)
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    starts = np.concatenate(([0], changes))
    ends = np.concatenate((changes, [labels.size]))
    return Segments(labels[starts], starts, ends)


def legacy_last_end(segments: Segments) -> Segments:
    """The same segments with the last one ending a frame early, as the MS-TCN evaluation code counts it."""
    ends = segments.ends.copy()
    ends[-1:] -= 1
    return replace(segments, ends=ends)


def without(segments: Segments, label: int | None) -> Segments:
    """The segments that do not hold `label`; all of them for None."""
    kept = segments.labels != label if label is not None else np.ones(len(segments), dtype=bool)
    return Segments(segments.labels[kept], segments.starts[kept], segments.ends[kept])


def edit_similarity(predicted: Segments, true: Segments) -> float:
    """1 - Levenshtein distance of the two label orders / the longer one's length; NaN when both are empty."""
    from rapidfuzz.distance import Levenshtein

    if not len(predicted) and not len(true):
        return float("nan")
    return Levenshtein.normalized_similarity(predicted.labels.tolist(), true.labels.tolist())


def count_overlaps(predicted: Segments, true: Segments, thresholds: Sequence[float]) -> np.ndarray:
    """Segments matched at an intersection over union of at least each threshold (Lea et al., CVPR 2017, F1@k).

    Returns `(thresholds, 3)`: true positives, false positives, false negatives. As in the MS-TCN evaluation, a
    prediction is compared with its one best segment of the same label, which can be matched once.
    """
    hits = np.zeros(len(thresholds), dtype=np.int64)
    # every predicted segment (rows) against every true one (columns); a legacy last segment may be empty, hence the 1
    if len(true) and len(predicted):
        intersection = np.minimum(predicted.ends[:, None], true.ends) - np.maximum(
            predicted.starts[:, None], true.starts
        )
        union = np.maximum(predicted.ends[:, None], true.ends) - np.minimum(predicted.starts[:, None], true.starts)
        iou = np.where(predicted.labels[:, None] == true.labels, intersection / np.maximum(union, 1), 0.0)
        best = iou.argmax(axis=1)  # of equal ones the first, as in the original
        reached = iou[np.arange(len(predicted)), best]
        # a true segment that several predictions reach is matched once: the others are false positives
        hits[:] = [len(np.unique(best[reached >= threshold])) for threshold in thresholds]
    return np.stack([hits, len(predicted) - hits, len(true) - hits], axis=1)
