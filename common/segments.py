"""Runs of equal labels: find them, compare two sequences of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

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


class SegmentCounts(NamedTuple):
    """True positives, false positives and false negatives of a set of segments."""

    true_positives: int
    false_positives: int
    false_negatives: int


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


def edit_similarity(predicted: Segments, true: Segments) -> float:
    """1 - Levenshtein distance of the two label orders / the longer one's length; 1 when both are empty."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(predicted.labels.tolist(), true.labels.tolist())


def count_overlaps(predicted: Segments, true: Segments, threshold: float) -> SegmentCounts:
    """Segments matched at an intersection over union of at least `threshold` (Lea et al., CVPR 2017, F1@k).

    As in the MS-TCN evaluation: predictions in order of time, each compared with its one best segment of the same
    label, which can be matched once.
    """
    if not len(true):
        return SegmentCounts(0, len(predicted), 0)
    matched = np.zeros(len(true), dtype=bool)
    for label, start, end in predicted:
        intersection = np.minimum(end, true.ends) - np.maximum(start, true.starts)
        union = np.maximum(end, true.ends) - np.minimum(start, true.starts)
        iou = np.where(true.labels == label, intersection / np.maximum(union, 1), 0.0)
        best = int(iou.argmax())
        if iou[best] >= threshold:
            matched[best] = True
    hits = int(matched.sum())
    return SegmentCounts(hits, len(predicted) - hits, len(true) - hits)
