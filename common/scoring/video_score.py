"""Counts of one video for every measure, taken once, whatever the protocol that later adds them up."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from common.dataset.phases import IGNORED
from common.dataset.segments import Segments, count_overlaps, edit_similarity, find_segments, legacy_last_end, without
from common.scoring.metrics import OVERLAP_PERCENTS, average_precision_per_class, calibration_bins, confusion_matrix

LastSegment = Literal["legacy", "fixed"]
CHANGE_SECONDS = 1.0  # on either side of a predicted change: there an encoder is sure of it or hesitates


class SegmentRule(NamedTuple):
    """The segments that count: with or without background; the last one a frame short (`legacy`) or whole (`fixed`)."""

    background: bool
    last_segment: LastSegment


@dataclass(frozen=True, eq=False)
class SegmentScore:
    """Edit similarity of 0 to 1, and counts `(overlaps, 3)` of true positives, false positives, false negatives."""

    edit: float
    overlap_counts: np.ndarray


class ProbabilityCounts(NamedTuple):
    """What is taken of a video's probabilities, so that their file is read once."""

    average_precision: np.ndarray
    """One-vs-rest `(num_classes,)`, NaN for an absent class."""
    calibration: np.ndarray
    """Bins `(NUM_BINS, 3)`."""
    of_segments: np.ndarray
    """Mean probability of its phase over each predicted segment `(segments,)`."""
    at_changes: np.ndarray
    """Mean highest probability within `CHANGE_SECONDS` of each predicted segment's start but the first
    `(segments - 1,)`."""
    mean_highest: float
    """Mean over the frames of the highest probability: 1 / num_classes where all phases are equally likely throughout."""


class KeptAsRuns:
    """A field of phases `(T,)` that is kept as runs: of ten thousand frames a hundred numbers, in memory and in pickles.

    An array of them is made anew at each use.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object | None, owner: type | None = None) -> np.ndarray:
        if instance is None:  # a dataclass asks for the default in this way: there is none
            raise AttributeError(self._name)
        return np.repeat(*vars(instance)[self._name])

    def __set__(self, instance: object, phases: np.ndarray) -> None:
        runs = find_segments(phases)
        vars(instance)[self._name] = runs.labels, runs.ends - runs.starts


@dataclass(frozen=True, eq=False, repr=False)
class VideoScore:
    """One scored video; `true` and `predicted` are phase ids `(T,)`, `fps` labels a second where known.

    `true` is `IGNORED` where a label does not count. Such frames are in no frame measure, and cut segments of truth and
    prediction alike.
    """

    true: KeptAsRuns = KeptAsRuns()
    predicted: KeptAsRuns = KeptAsRuns()
    num_classes: int
    background: int | None = None
    fps: float | None = None
    load_probabilities: Callable[[], np.ndarray] | None = None
    """Reads `(T, num_classes)`; a function, because a thousand videos of probabilities do not fit into memory."""

    @property
    def num_frames(self) -> int:
        return len(self.true)

    @property
    def counts(self) -> np.ndarray:
        """Whether the label of each frame counts, `(T,)`."""
        return self.true != IGNORED

    @property
    def is_wrong(self) -> np.ndarray:
        """Whether each frame counts and its prediction is another phase, `(T,)`."""
        true = self.true
        return (true != IGNORED) & (true != self.predicted)

    @property
    def accuracy(self) -> float:
        """Share of the frames that count whose phase is correct; NaN without any."""
        counts = self.counts
        return 1 - self.is_wrong.sum() / counts.sum() if counts.any() else float("nan")

    @cached_property
    def confusion(self) -> np.ndarray:
        """Frame counts `(num_classes, num_classes)`, rows = truth."""
        counts = self.counts
        return confusion_matrix(self.true[counts], self.predicted[counts], self.num_classes)

    @cached_property
    def segments(self) -> tuple[Segments, Segments]:
        """Predicted and true segments, background included; none joins over frames that do not count."""
        cut = np.where(self.counts, self.predicted, IGNORED)
        return without(find_segments(cut), IGNORED), without(find_segments(self.true), IGNORED)

    @cached_property
    def _segment_scores(self) -> dict[SegmentRule, SegmentScore]:
        return {}

    def segment_score(self, rule: SegmentRule) -> SegmentScore:
        """Edit and overlap counts under a rule."""
        known = self._segment_scores
        if rule not in known:
            known[rule] = _score_segments(self.segments, rule, self.background, self.num_frames)
        return known[rule]

    @cached_property
    def efforts(self) -> dict[Hashable, Any]:
        """What `effort.video_effort` has found, by its rule."""
        return {}

    @cached_property
    def boundary_seconds(self) -> np.ndarray:
        """Distance of every true phase change to its prediction, in seconds; NaN where missed or fps is unknown."""
        return boundary_distances(*self.segments) / (self.fps or np.nan)

    @cached_property
    def from_probabilities(self) -> ProbabilityCounts | None:
        """All that is taken of the probabilities; None without them."""
        return None if self.load_probabilities is None else self._count(self.load_probabilities())

    def probabilities_that_count(self) -> np.ndarray:
        """Read those of the frames that count `(frames, num_classes)`; the video's own counts are taken on the way."""
        probabilities = self.load_probabilities()
        if "from_probabilities" not in vars(self):
            vars(self)["from_probabilities"] = self._count(probabilities)
        counts = self.counts
        return probabilities if counts.all() else probabilities[counts]

    def _count(self, probabilities: np.ndarray) -> ProbabilityCounts:
        counts = self.counts
        true, counted = (self.true, probabilities) if counts.all() else (self.true[counts], probabilities[counts])
        segments, highest = self.segments[0], probabilities.max(axis=1)
        own = probabilities[np.arange(len(probabilities)), self.predicted]
        reach = max(1, round(CHANGE_SECONDS * (self.fps or 1)))
        starts = segments.starts[1:]
        around = np.maximum(starts - reach, 0), np.minimum(starts + reach, len(probabilities))
        return ProbabilityCounts(
            average_precision_per_class(true, counted),
            calibration_bins(true, counted),
            _means(own, segments.starts, segments.ends),  # segments may leave gaps, where labels do not count
            _means(highest, *around),
            float(highest.mean(dtype=float)),
        )

    @property
    def average_precision(self) -> np.ndarray | None:
        """One-vs-rest average precision `(num_classes,)`, NaN for an absent class; None without probabilities."""
        return None if self.from_probabilities is None else self.from_probabilities.average_precision

    @property
    def calibration(self) -> np.ndarray | None:
        """Calibration bins `(NUM_BINS, 3)`; None without probabilities."""
        return None if self.from_probabilities is None else self.from_probabilities.calibration

    def count(self, rules: Sequence[SegmentRule]) -> None:
        """Take every count now: before the score goes to another process, or in the one that has the time."""
        _ = self.confusion, self.boundary_seconds, self.from_probabilities
        for rule in rules:
            self.segment_score(rule)


def _means(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mean of `values` `(T,)` from each start to before its end."""
    summed = np.concatenate(([0.0], np.cumsum(values, dtype=float)))
    return (summed[ends] - summed[starts]) / (ends - starts)


def _score_segments(
    segments: tuple[Segments, Segments], rule: SegmentRule, background: int | None, num_frames: int
) -> SegmentScore:
    # before the background goes: the video's last segment is meant, which is none of these where its end does not count
    if rule.last_segment == "legacy" and all(len(each) and each.ends[-1] == num_frames for each in segments):
        segments = tuple(legacy_last_end(each) for each in segments)
    if not rule.background:
        segments = tuple(without(each, background) for each in segments)
    thresholds = [percent / 100 for percent in OVERLAP_PERCENTS]
    return SegmentScore(edit_similarity(*segments), count_overlaps(*segments, thresholds))


def boundary_distances(predicted: Segments, true: Segments) -> np.ndarray:
    """For each true change into a phase, frames to the nearest predicted start of that phase; NaN where it has none.

    A start of the video is no change, nor is one after frames that do not count. Labels made to the second make distances below one second meaningless.
    """
    follows = [later for earlier, later in pairwise(true) if earlier[2] == later[1]]
    distances = np.full(len(follows), np.nan)
    for index, (label, start, _) in enumerate(follows):
        starts = predicted.starts[predicted.labels == label]
        if starts.size:
            distances[index] = np.abs(starts - start).min()
    return distances
