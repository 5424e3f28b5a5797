"""Orders of phases that one video alone has: what is usual is learned from the cohort, nothing about surgery is assumed.

A cohort too small to say what is usual gives no finding: `MIN_OTHERS` other videos must agree. By the rule of
succession (Laplace 1814) the next video then differs with a chance of at most 1 / (MIN_OTHERS + 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.base.wording import listed, place, seconds_of
from common.checks.findings import Finding
from common.dataset.phases import PhaseMapping
from common.dataset.segments import Segments, find_segments

KIND = "order"
MIN_OTHERS = 20
START, END = "the start", "the end"
ADVICE = "watch this place: a wrong name or a rare course; correct the labels, or leave them if they are right"


@dataclass(frozen=True)
class Course:
    """The segments of one video and its frame rate (None: unknown)."""

    video: str
    segments: Segments
    fps: float | None

    def finding(self, severity: str, segment: int, text: str) -> Finding:
        """A finding at the start of a segment."""
        frame = int(self.segments.starts[segment])
        message = f"{self.video}, {place(frame, self.fps)}: {text}"
        return Finding(
            severity, KIND, message, ADVICE, video=self.video, frame=frame, seconds=seconds_of(frame, self.fps)
        )


def order_findings(
    labels: Mapping[str, np.ndarray], fps: Mapping[str, float | None], mapping: PhaseMapping
) -> Iterator[Finding]:
    """Orders, middle backgrounds (warnings) and transitions (notes) that one video alone has.

    `labels`: phase ids `(T,)` by video. Transitions of a video with a warning are not named: they come of the same fault.
    """
    courses = [Course(video, find_segments(ids), fps[video]) for video, ids in labels.items()]
    warned = set()
    for check in (_lone_orders, _lone_backgrounds):
        for course, segment, text in check(courses, mapping):
            warned.add(course.video)
            yield course.finding("warning", segment, text)
    for course, segment, text in _lone_transitions(courses, mapping):
        if course.video not in warned:
            yield course.finding("note", min(segment, len(course.segments) - 1), text)


def _lone_orders(courses: list[Course], mapping: PhaseMapping) -> Iterator[tuple[Course, int, str]]:
    """Phases that stand before others that they follow, without exception, in all other videos with both."""
    first, last = _first_and_last(courses, mapping.num_classes)
    present = first >= 0
    together = present.astype(int).T @ present.astype(int) - 1
    precedes = present[:, :, None] & present[:, None, :] & (first[:, :, None] < last[:, None, :])
    precedes[:, np.arange(mapping.num_classes), np.arange(mapping.num_classes)] = False
    lone = precedes & (precedes.sum(axis=0) == 1) & (together >= MIN_OTHERS)
    for index in np.flatnonzero(lone.any(axis=(1, 2))):
        pairs = {(int(early), int(late)) for early, late in np.argwhere(lone[index])}
        while pairs:
            side, culprit = _culprit(pairs)
            explained = {pair for pair in pairs if pair[side] == culprit}
            pairs -= explained
            partners = sorted((pair[1 - side] for pair in explained), key=lambda phase: int(first[index, phase]))
            names = listed([mapping.names[phase] for phase in partners])
            others = min(int(together[pair]) for pair in explained)
            word, usual, where = ("before", "after", first) if side == 0 else ("after", "before", last)
            text = f"{mapping.names[culprit]} {word} {names}: only here, {others} others have it {usual}"
            yield courses[index], int(where[index, culprit]), text


def _first_and_last(courses: list[Course], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first and of the last segment of every phase `(videos, phases)`, -1 where it does not occur."""
    first, last = (np.full((len(courses), num_classes), -1) for _ in range(2))
    for row, course in enumerate(courses):
        order = np.arange(len(course.segments))
        last[row, course.segments.labels] = order
        first[row, course.segments.labels[::-1]] = order[::-1]
    return first, last


def _culprit(pairs: set[tuple[int, int]]) -> tuple[int, int]:
    """The `(side, phase)` whose place explains most of the (early, late) pairs: side 0 came too early, 1 too late."""
    sides = Counter((side, pair[side]) for pair in pairs for side in (0, 1))
    return max(sorted(sides), key=lambda key: (sides[key], -key[0]))


def _lone_backgrounds(courses: list[Course], mapping: PhaseMapping) -> Iterator[tuple[Course, int, str]]:
    """Background between two phases in a video, where all the others have it at their ends only."""
    background = mapping.ids.get("background")
    having = [course for course in courses if background is not None and background in course.segments.labels]
    inside = [(course, np.flatnonzero(course.segments.labels[1:-1] == background) + 1) for course in having]
    inside = [(course, found) for course, found in inside if found.size]
    if len(inside) == 1 and len(having) > MIN_OTHERS:
        course, found = inside[0]
        text = f"background between phases: only here, {len(having) - 1} others have it at the ends only"
        yield from ((course, segment, text) for segment in found.tolist())


def _lone_transitions(courses: list[Course], mapping: PhaseMapping) -> Iterator[tuple[Course, int, str]]:
    """Changes of phase that one video alone has, where new ones are not to be expected.

    The chance of an unseen transition is the share of those seen once (Good, Biometrika 1953): a phase with a second
    lone follower is one after which much can come, and the like for what comes before a phase. Nor does a transition
    count that only leaves phases out: in most other videos the one comes before the other too.
    """
    names = (*mapping.names, START, END)
    start, end = mapping.num_classes, mapping.num_classes + 1
    orders = [[start, *course.segments.labels.tolist(), end] for course in courses]
    videos = Counter(step for order in orders for step in set(pairwise(order)))
    lone = [step for step, count in videos.items() if count == 1]
    lone_from, lone_into = Counter(early for early, _ in lone), Counter(late for _, late in lone)
    having = Counter(phase for order in orders for phase in set(order))
    usual = _usual_orders(courses, mapping.num_classes)
    for course, order in zip(courses, orders, strict=True):
        named = -2
        for segment, (early, late) in enumerate(pairwise(order)):
            alone = videos[early, late] == lone_from[early] == lone_into[late] == 1
            often = min(having[early], having[late]) > MIN_OTHERS
            if alone and often and (early, late) not in usual and segment != named + 1:  # a segment has two sides
                named = segment
                text = f"{names[early]} is followed by {names[late]}: only here, in none of {having[early] - 1} others"
                yield course, segment, text


def _usual_orders(courses: list[Course], num_classes: int) -> set[tuple[int, int]]:
    """Pairs of phases of which the one begins before the other in most videos that have both."""
    first, _ = _first_and_last(courses, num_classes)
    present = first >= 0
    together = present.astype(int).T @ present.astype(int)
    earlier = (present[:, :, None] & present[:, None, :] & (first[:, :, None] < first[:, None, :])).sum(axis=0)
    return set(map(tuple, np.argwhere(2 * earlier > together).tolist()))
