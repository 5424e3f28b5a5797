"""What a person has to do to a prediction until it is right, in operations and minutes; and to label from nothing.

Segments tile the video on both sides. An alignment matches some predicted segments to true ones, in order. It costs
`delete` for each predicted segment that is not matched (its span goes to a neighbour), `insert` for each such true one
(placing its boundaries included), `relabel` for each matched pair of different phases, and `move` for each boundary
between two true neighbours that are both matched, unless a predicted boundary from the end of the first's segment to the
start of the second's lies within the tolerance. The effort is that of the cheapest alignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from common.base.options import check_ranges, option
from common.dataset.segments import Segments, find_segments
from common.scoring.video_score import VideoScore

TIME_SAVED = "time_saved"  # the key of what `saving` gives
OPERATIONS = ("delete", "insert", "relabel", "move")
SCALES = {"half": 0.5, "as stated": 1.0, "double": 2.0}  # of the costs: nobody has measured them
LONGEST = 86_400  # seconds an operation, or of tolerance
ROUNDING = 1e-9  # of a tolerance in frames, which comes from seconds


@dataclass(frozen=True)
class EffortRule:
    """What an operation costs, and when a boundary is right. The seconds are assumptions: no published figure exists."""

    delete_seconds: float = option(3.0, group="output", unit="seconds", minimum=0, maximum=LONGEST)
    """Correction: removing a segment (assumption)."""
    insert_seconds: float = option(10.0, group="output", unit="seconds", minimum=0, maximum=LONGEST)
    """Correction: adding a segment with its boundaries, also when labelling from nothing (assumption)."""
    relabel_seconds: float = option(4.0, group="output", unit="seconds", minimum=0, maximum=LONGEST)
    """Correction: another phase for a segment (assumption)."""
    move_seconds: float = option(6.0, group="output", unit="seconds", minimum=0, maximum=LONGEST)
    """Correction: moving a boundary (assumption)."""
    tolerance_seconds: float = option(1.0, group="output", unit="seconds", minimum=0, maximum=LONGEST)
    """Correction: how far a boundary may be off."""
    boundaries: Literal["shared", "separate"] = option("shared", group="output")
    """Correction: 'separate' where neighbours have no common boundary (BORIS, VIA): a move counts twice."""
    speed: float = option(1.0, group="output", above=0, maximum=1000)
    """Correction: at how many times its speed the video is watched, with and without a prediction (assumption)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def costs(self) -> dict[str, float]:
        """Seconds of each of `OPERATIONS`."""
        return {kind: getattr(self, f"{kind}_seconds") for kind in OPERATIONS}

    def scaled(self, factor: float) -> EffortRule:
        """The same with operations that cost so many times as much: the cheapest alignment stays the cheapest."""
        return replace(self, **{f"{kind}_seconds": factor * cost for kind, cost in self.costs.items()})

    @property
    def sentence(self) -> str:
        """The assumptions in words, for below a table."""
        twice = (
            ", a move counted twice, as neighbours have separate boundaries" if self.boundaries == "separate" else ""
        )
        listed = ", ".join(f"{kind} {cost:g} s" for kind, cost in self.costs.items())
        near = f"within {self.tolerance_seconds:g} s" if self.tolerance_seconds else "on its very frame"
        return (
            f"Assumed, not measured: {listed}{twice}; a boundary {near} is right; on both sides the video "
            f"is watched once at {self.speed:g} times its speed. Labelling from nothing is one insert a segment."
        )


DEFAULT_EFFORT = EffortRule()


@dataclass(frozen=True)
class VideoEffort:
    """Operations on one video; times in seconds."""

    counts: dict[str, int]
    """Of each of `OPERATIONS`, to correct the prediction."""
    num_segments: int
    """True ones: the inserts of labelling from nothing."""
    video_seconds: float

    def seconds(self, rule: EffortRule) -> float:
        """To watch the video and correct its prediction."""
        return self.video_seconds / rule.speed + effort_of(self.counts, rule.costs)

    def seconds_from_nothing(self, rule: EffortRule) -> float:
        """To watch the video and label it without a prediction."""
        return self.video_seconds / rule.speed + rule.insert_seconds * self.num_segments


def effort_of(counts: Mapping[str, int], costs: Mapping[str, float]) -> float:
    """What counted operations cost."""
    return math.fsum(counts[kind] * costs[kind] for kind in OPERATIONS)


def correction_effort(
    predicted: Segments,
    true: Segments,
    costs: Mapping[str, float],
    *,
    tolerance_frames: float,
    boundaries: Literal["shared", "separate"] = "shared",
) -> dict[str, int]:
    """Counts of `OPERATIONS` of a cheapest alignment of segments that tile the same frames, O(predicted x true).

    `costs` are those of each operation, in any unit; boundaries up to `tolerance_frames` apart are equal. Among
    alignments of the same cost one is taken. With `boundaries` separate, a move counts twice.
    """
    ends, reach = predicted.ends[:-1], tolerance_frames * (1 + ROUNDING)
    times = 2 if boundaries == "separate" else 1
    # Entry i of a row: the cheapest alignments of the first i predicted segments with the true ones so far, of which the last
    # one is matched to the i-th predicted segment, or is not matched (to begin with: there is none).
    matched = _Row.of(np.full(len(predicted) + 1, np.inf))
    unmatched = _Row.of(np.append(0.0, matched.costs[1:])).then_delete(costs["delete"])
    for number, (label, start) in enumerate(zip(true.labels, true.starts, strict=True)):
        # the next pair to be matched: nothing to move where the true neighbour before it is not matched
        best = unmatched
        if number:
            followed = matched.then_delete(costs["delete"])
            best = best.or_better(followed.plus("move", costs["move"], times))
            first = int(np.searchsorted(ends, start - reach, side="left"))
            last = int(np.searchsorted(ends, start + reach, side="right")) - 1
            if first <= last:
                # boundary b lies behind b + 1 segments; those from the neighbour's match up to segment i - 1, and before
                # segment i, are looked at: one of them is `first` ... `last`
                close = matched.only(0, last + 1).then_delete(costs["delete"]).only(first + 1, len(predicted))
                best = best.or_better(close)
        either = matched.or_better(unmatched) if number else unmatched
        is_other = np.append(False, predicted.labels != label).astype(int)
        matched = best.next_segment().plus("relabel", costs["relabel"], is_other)
        unmatched = either.then_delete(costs["delete"]).plus("insert", costs["insert"], 1)
    found = matched.or_better(unmatched).then_delete(costs["delete"])
    return dict(zip(OPERATIONS, found.counts[-1].tolist(), strict=True))


class _Row(NamedTuple):
    """Costs `(predicted + 1,)`, infinite where there is no such alignment, and counts of operations `(predicted + 1, 4)`."""

    costs: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, costs: np.ndarray) -> _Row:
        """Alignments without an operation yet."""
        return cls(costs, np.zeros((len(costs), len(OPERATIONS)), dtype=np.int64))

    def plus(self, kind: str, cost: float, times: int | np.ndarray) -> _Row:
        """The same after an operation so many times."""
        counts = self.counts.copy()
        counts[:, OPERATIONS.index(kind)] += times
        return _Row(self.costs + cost * times, counts)

    def or_better(self, other: _Row) -> _Row:
        """The cheaper of two, entry by entry; of equal ones the first."""
        is_better = other.costs < self.costs
        return _Row(
            np.where(is_better, other.costs, self.costs), np.where(is_better[:, None], other.counts, self.counts)
        )

    def then_delete(self, cost: float) -> _Row:
        """Each entry, or an earlier one and the predicted segments since then deleted, whichever is cheaper."""
        places = np.arange(len(self.costs))
        relative = self.costs - cost * places
        # the place of the running minimum, with which the counts come
        source = np.maximum.accumulate(np.where(relative == np.minimum.accumulate(relative), places, 0))
        deleted = places - source
        return _Row(self.costs[source], self.counts[source]).plus("delete", cost, deleted)

    def only(self, first: int, last: int) -> _Row:
        """Without the entries outside `first` to `last`, both included."""
        costs = np.full(len(self.costs), np.inf)
        costs[first : last + 1] = self.costs[first : last + 1]
        return _Row(costs, self.counts)

    def next_segment(self) -> _Row:
        """Each entry with one predicted segment more."""
        costs, counts = np.roll(self.costs, 1), np.roll(self.counts, 1, axis=0)
        costs[0] = np.inf
        return _Row(costs, counts)


def video_effort(score: VideoScore, rule: EffortRule) -> VideoEffort | None:
    """The effort of one video; None where it is not known how many labels a second has.

    Parts between frames that do not count are corrected each for itself: nobody labels the gap.
    """
    if rule not in score.efforts:  # tables, charts and tests ask again
        score.efforts[rule] = _count_effort(score, rule) if score.fps else None
    return score.efforts[rule]


def _count_effort(score: VideoScore, rule: EffortRule) -> VideoEffort:
    counts = dict.fromkeys(OPERATIONS, 0)
    for predicted, true in _parts(score):
        found = correction_effort(
            predicted, true, rule.costs, tolerance_frames=rule.tolerance_seconds * score.fps, boundaries=rule.boundaries
        )
        counts = {kind: counts[kind] + found[kind] for kind in OPERATIONS}
    return VideoEffort(counts, len(score.segments[1]), score.num_frames / score.fps)


def _parts(score: VideoScore) -> Iterator[tuple[Segments, Segments]]:
    """Predicted and true segments of each stretch of frames that count."""
    for counts, start, end in find_segments(score.counts):
        if counts:
            yield tuple(_within(segments, start, end) for segments in score.segments)


def _within(segments: Segments, start: int, end: int) -> Segments:
    """The segments that begin in a stretch; none goes beyond it."""
    inside = (segments.starts >= start) & (segments.starts < end)
    return Segments(segments.labels[inside], segments.starts[inside], segments.ends[inside])


class Saving(NamedTuple):
    """Seconds of a set of videos with a prediction and from nothing, and the share saved; negative where it costs more."""

    with_prediction: float
    from_nothing: float
    share: float


def saving(efforts: Sequence[VideoEffort], rule: EffortRule) -> Saving:
    """What predictions save over a set of videos together."""
    sums = effort_sums(efforts, rule).sum(axis=0)
    return Saving(*sums.tolist(), float(share_saved(sums)))


def effort_sums(efforts: Sequence[VideoEffort], rule: EffortRule) -> np.ndarray:
    """Seconds of each video with its prediction and from nothing `(videos, 2)`, whose sums `share_saved` takes."""
    return np.array([(each.seconds(rule), each.seconds_from_nothing(rule)) for each in efforts]).reshape(-1, 2)


def share_saved(sums: np.ndarray) -> np.ndarray:
    """The share of the labelling time saved `(...)`, of summed seconds `(..., 2)`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - sums[..., 0] / sums[..., 1]
