"""Unusual orders of phases: what is usual is learned from the other videos, nothing about surgery is assumed.

`PhaseOrders` counts who has what; the findings of an audit and the case sheets of the page are read off its counts.

A cohort too small to say what is usual gives no finding: `MIN_OTHERS` other videos must agree. By the rule of
succession (Laplace 1814) the next video then differs with a chance of at most 1 / (MIN_OTHERS + 2).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from common.base.runtime import listed
from common.base.wording import place, seconds_of
from common.checks.findings import Finding
from common.dataset.phases import IGNORED, PhaseMapping
from common.dataset.segments import Segments, find_segments, without

KIND = "order"
MIN_OTHERS = 20
START, END = "the start", "the end"
ADVICE = "watch this place: a wrong name or a rare course; change the labels, or leave them if they are correct"


@dataclass(frozen=True, eq=False)
class PhaseOrders:
    """The orders of phases in a set of videos: the true segments of each, counted in arrays over videos."""

    segments: Sequence[Segments]
    num_classes: int

    @cached_property
    def counts(self) -> np.ndarray:
        """Segments of each phase `(videos, num_classes)`."""
        return np.stack([np.bincount(order.labels, minlength=self.num_classes) for order in self.segments])

    @cached_property
    def first_and_last(self) -> tuple[np.ndarray, np.ndarray]:
        """Place of the first and of the last segment of every phase `(videos, num_classes)`, -1 where it is absent."""
        first, last = (np.full((len(self.segments), self.num_classes), -1) for _ in range(2))
        for row, order in enumerate(self.segments):
            places = np.arange(len(order))
            last[row, order.labels] = places  # of places assigned to one phase the last one stays ...
            first[row, order.labels[::-1]] = places[::-1]  # ... so backwards it is the first
        return first, last

    def steps(self, order: Segments) -> list[tuple[int, int]]:
        """Each phase of an order with the one before it: the start of a video is `num_classes`, its end one more."""
        return list(pairwise([self.num_classes, *order.labels.tolist(), self.num_classes + 1]))

    @cached_property
    def changes(self) -> np.ndarray:
        """Whether a video goes from a phase (row) to another (column): `(videos, num_classes + 2, num_classes + 2)`."""
        size = self.num_classes + 2
        seen = np.zeros((len(self.segments), size, size), dtype=bool)
        for row, order in enumerate(self.segments):
            for step in self.steps(order):
                seen[row][step] = True
        return seen

    @cached_property
    def num_with_change(self) -> np.ndarray:
        """Videos with each change `(num_classes + 2, num_classes + 2)`: counted once, every video is held against it."""
        return self.changes.sum(axis=0)

    def unseen_changes(self, order: Segments, own_place: int) -> list[tuple[int, int, int]]:
        """Changes in `order` that no video has but the one at `own_place`: segment, phase before it, its phase.

        Segment 0 changes from the start of the video; one more than there are segments, to its end.
        """
        elsewhere = self.num_with_change - self.changes[own_place]
        return [(segment, *step) for segment, step in enumerate(self.steps(order)) if not elsewhere[step]]


def order_findings(
    labels: Mapping[str, np.ndarray], fps: Mapping[str, float | None], mapping: PhaseMapping
) -> Iterator[Finding]:
    """Orders, middle backgrounds (warnings) and transitions (notes) that one video alone has.

    `labels`: phase ids `(T,)` by video. Transitions of a video with a warning are not named: their fault is the same.
    """
    cut = {video: without(find_segments(ids), IGNORED) for video, ids in labels.items()}
    segments = {video: order for video, order in cut.items() if len(order)}  # others have no label that counts
    if not segments:
        return
    videos = list(segments)
    orders = PhaseOrders(list(segments.values()), mapping.num_classes)

    def finding(severity: str, row: int, segment: int, text: str) -> Finding:
        video, frame = videos[row], int(orders.segments[row].starts[segment])
        message, seconds = f"{video}, {place(frame, fps[video])}: {text}", seconds_of(frame, fps[video])
        return Finding(severity, KIND, message, ADVICE, video=video, frame=frame, seconds=seconds)

    warned = set()
    for check in (_lone_orders, _lone_backgrounds):
        for row, segment, text in check(orders, mapping):
            warned.add(row)
            yield finding("warning", row, segment, text)
    for row, segment, text in _lone_transitions(orders, mapping):
        if row not in warned:  # at the end of a video its last segment is the place to look at
            yield finding("note", row, min(segment, len(orders.segments[row]) - 1), text)


def _lone_orders(orders: PhaseOrders, mapping: PhaseMapping) -> Iterator[tuple[int, int, str]]:
    """Phases that stand before others that they follow, without exception, in all other videos with both."""
    first, last = orders.first_and_last
    present = first >= 0
    together = present.astype(int).T @ present.astype(int) - 1  # other videos with both phases
    # (videos, early, late): some segment of the one begins before some segment of the other
    precedes = present[:, :, None] & present[:, None, :] & (first[:, :, None] < last[:, None, :])
    precedes[:, np.arange(mapping.num_classes), np.arange(mapping.num_classes)] = False
    lone = precedes & (precedes.sum(axis=0) == 1) & (together >= MIN_OTHERS)
    for row in np.flatnonzero(lone.any(axis=(1, 2))).tolist():
        pairs = {(int(early), int(late)) for early, late in np.argwhere(lone[row])}
        while pairs:  # one misplaced phase is in many pairs: name it once, then look at what it leaves unexplained
            side, culprit = _culprit(pairs)
            explained = {pair for pair in pairs if pair[side] == culprit}
            pairs -= explained
            partners = sorted((pair[1 - side] for pair in explained), key=lambda phase: int(first[row, phase]))
            names = listed([mapping.names[phase] for phase in partners])
            others = min(int(together[pair]) for pair in explained)
            word, usual, where = ("before", "after", first) if side == 0 else ("after", "before", last)
            text = f"{mapping.names[culprit]} {word} {names}: only here, {others} others have it {usual}"
            yield row, int(where[row, culprit]), text


def _culprit(pairs: set[tuple[int, int]]) -> tuple[int, int]:
    """The `(side, phase)` whose place explains most of the (early, late) pairs: side 0 came too early, 1 too late."""
    sides = Counter((side, pair[side]) for pair in pairs for side in (0, 1))
    return max(sorted(sides), key=lambda key: (sides[key], -key[0]))


def _lone_backgrounds(orders: PhaseOrders, mapping: PhaseMapping) -> Iterator[tuple[int, int, str]]:
    """Background between two phases in a video, where all the others have it at their ends only."""
    background = mapping.background_id
    if background is None:
        return
    inside = [np.flatnonzero(order.labels[1:-1] == background) + 1 for order in orders.segments]
    rows = [row for row, found in enumerate(inside) if found.size]
    others = np.count_nonzero(orders.counts[:, background]) - 1
    if len(rows) == 1 and others >= MIN_OTHERS:
        text = f"{mapping.background} between phases: only here, {others} others have it at the ends only"
        yield from ((rows[0], segment, text) for segment in inside[rows[0]].tolist())


def _lone_transitions(orders: PhaseOrders, mapping: PhaseMapping) -> Iterator[tuple[int, int, str]]:
    """Changes of phase that one video alone has, where new ones are not to be expected.

    The chance of an unseen transition is the share of those seen once (Good, Biometrika 1953): a phase with a second
    lone follower is one after which much can come, and the like for what comes before a phase. Nor does a transition
    count that only leaves phases out: in most other videos the one comes before the other too.
    """
    names = (*mapping.names, START, END)
    num_videos = len(orders.segments)
    lone = orders.num_with_change == 1
    having = np.array([*np.count_nonzero(orders.counts, axis=0), num_videos, num_videos])
    often = having > MIN_OTHERS
    # (before, after): the only lone change from the one and the only one into the other, both in many videos
    odd = lone & (lone.sum(axis=1, keepdims=True) == 1) & (lone.sum(axis=0) == 1) & often[:, None] & often
    first, _ = orders.first_and_last
    present = first >= 0
    together = present.astype(int).T @ present.astype(int)
    earlier = (present[:, :, None] & present[:, None, :] & (first[:, :, None] < first[:, None, :])).sum(axis=0)
    odd[:-2, :-2] &= 2 * earlier <= together  # not where most videos with both begin the one before the other
    for row, order in enumerate(orders.segments):
        named = -2
        for segment, before, phase in orders.unseen_changes(order, row):
            if odd[before, phase] and segment != named + 1:  # a segment has two sides
                named = segment
                others = having[before] - 1
                text = f"{names[before]} is followed by {names[phase]}: only here, in none of {others} others"
                yield row, segment, text
