"""Counts of one video for every measure, taken once, whatever the protocol that later adds them up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from common.dataset.segments import Segments, count_overlaps, edit_similarity, find_segments, legacy_last_end, without
from common.scoring.metrics import OVERLAP_PERCENTS, average_precision_per_class, calibration_bins, confusion_matrix

LastSegment = Literal["legacy", "fixed"]


class SegmentRule(NamedTuple):
    """The segments that count: with or without background; the last one a frame short (`legacy`) or whole (`fixed`)."""

    background: bool
    last_segment: LastSegment


@dataclass(frozen=True, eq=False)
class SegmentScore:
    """Edit similarity of 0 to 1, and counts `(overlaps, 3)` of true positives, false positives, false negatives."""

    edit: float
    overlap_counts: np.ndarray


@dataclass(frozen=True, eq=False)
class VideoScore:
    """One scored video; `true` and `predicted` are phase ids `(T,)`, `fps` frames a second where known."""

    true: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    num_classes: int
    background: int | None = None
    fps: float | None = None
    load_probabilities: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    """Reads `(T, num_classes)`; a function, because a thousand videos of probabilities do not fit into memory."""

    @property
    def num_frames(self) -> int:
        return len(self.true)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Frame counts `(num_classes, num_classes)`, rows = truth."""
        return confusion_matrix(self.true, self.predicted, self.num_classes)

    @cached_property
    def segments(self) -> tuple[Segments, Segments]:
        """Predicted and true segments, background included."""
        return find_segments(self.predicted), find_segments(self.true)

    @cached_property
    def _segment_scores(self) -> dict[SegmentRule, SegmentScore]:
        return {}

    def segment_score(self, rule: SegmentRule) -> SegmentScore:
        """Edit and overlap counts under a rule."""
        known = self._segment_scores
        if rule not in known:
            known[rule] = _score_segments(self.segments, rule, self.background)
        return known[rule]

    @cached_property
    def boundary_seconds(self) -> np.ndarray:
        """Distance of every true phase change to its prediction, in seconds; NaN where missed or fps is unknown."""
        return boundary_distances(*self.segments) / (self.fps or np.nan)

    @cached_property
    def _from_probabilities(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.load_probabilities is None:
            return None
        probabilities = self.load_probabilities()
        return average_precision_per_class(self.true, probabilities), calibration_bins(self.true, probabilities)

    @property
    def average_precision(self) -> np.ndarray | None:
        """One-vs-rest average precision `(num_classes,)`, NaN for an absent class; None without probabilities."""
        return None if self._from_probabilities is None else self._from_probabilities[0]

    @property
    def calibration(self) -> np.ndarray | None:
        """Calibration bins `(NUM_BINS, 3)`; None without probabilities."""
        return None if self._from_probabilities is None else self._from_probabilities[1]


def _score_segments(segments: tuple[Segments, Segments], rule: SegmentRule, background: int | None) -> SegmentScore:
    if rule.last_segment == "legacy":  # before the background goes, so that the video's last segment is meant
        segments = tuple(legacy_last_end(each) for each in segments)
    if not rule.background:
        segments = tuple(without(each, background) for each in segments)
    thresholds = [percent / 100 for percent in OVERLAP_PERCENTS]
    return SegmentScore(edit_similarity(*segments), count_overlaps(*segments, thresholds))


def boundary_distances(predicted: Segments, true: Segments) -> np.ndarray:
    """For each true change into a phase, frames to the nearest predicted start of that phase; NaN where it has none.

    A start of the video is no change. Labels made to the second make distances below one second meaningless.
    """
    distances = np.full(max(len(true) - 1, 0), np.nan)
    for index, (label, start, _) in enumerate(list(true)[1:]):
        starts = predicted.starts[predicted.labels == label]
        if starts.size:
            distances[index] = np.abs(starts - start).min()
    return distances
