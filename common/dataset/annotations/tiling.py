"""Phases in time to labels of frames: each time becomes the nearest frame start, small gaps and overlaps are closed.

`edges` `(T + 1,)` are the times at which the T decoded frames of a video start, and at which its last one ends, by its
own timestamps. "The first frame at or after a time" would be wrong wherever times are rounded: at 30000/1001 frames a
second and three decimals it moves nearly half of all boundaries by a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.base.runtime import UserError
from common.dataset.importing.label_tables import PhaseInterval

SNAP_SECONDS = 0.2  # a gap or an overlap up to this is a slip of the hand
ROUNDING_SECONDS = 1e-6  # of differences of times with three decimals


def nearest_edges(edges: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The frame that starts nearest to each time; the number of frames for the end. Of two equally near the earlier."""
    after = np.clip(np.searchsorted(edges, seconds), 1, len(edges) - 1)
    is_nearer_before = seconds - edges[after - 1] <= edges[after] - seconds + ROUNDING_SECONDS
    return np.where(is_nearer_before, after - 1, after)


@dataclass(frozen=True)
class Tiling:
    """The phases of a video on its frames: segments `(first frame, frame after the last, phase)` and the gaps between.

    `num_closed_gaps` and `num_closed_overlaps` say what was closed, `notes` what else was changed.
    """

    num_frames: int
    segments: tuple[tuple[int, int, str], ...]
    gaps: tuple[tuple[int, int], ...]
    num_closed_gaps: int
    num_closed_overlaps: int
    notes: tuple[str, ...]

    def labels(self, gap: str) -> list[str]:
        """A label for each frame, `(T,)`; `gap` where there is no segment."""
        labels = [gap] * self.num_frames
        for start, end, phase in self.segments:
            labels[start:end] = [phase] * (end - start)
        return labels


def tile(
    intervals: Sequence[PhaseInterval],
    edges: np.ndarray,
    *,
    snap_seconds: float = SNAP_SECONDS,
    any_overlap: bool = False,
) -> Tiling:
    """Lay the intervals of a video, in order of time, upon its frames.

    A gap or an overlap up to `snap_seconds` is closed at its middle, the ends of the video are reached over as much.
    Raises `UserError` naming both segments of a larger overlap, unless with `any_overlap` it is closed too, and what lies
    outside of the video.
    """
    notes: list[str] = []
    bounds = [_inside(interval, edges, snap_seconds, notes) for interval in intervals]
    num_gaps = num_overlaps = 0
    longest = 0  # the interval that reaches furthest of those before
    for index in range(1, len(bounds)):
        before, after = bounds[longest], bounds[index]
        distance = intervals[index].start - intervals[longest].end
        if distance < -snap_seconds - ROUNDING_SECONDS and not any_overlap:
            raise UserError(_overlap(intervals[longest], intervals[index]))
        if before[1] != after[0] and distance <= snap_seconds + ROUNDING_SECONDS:
            start, end = nearest_edges(edges, np.array([before[1], after[0]]))
            middle = (before[1] + after[0]) / 2
            num_gaps += bool(start < end)
            num_overlaps += bool(start > end)
            before[1] = after[0] = middle
        if after[1] >= bounds[longest][1]:
            longest = index
    if bounds and bounds[0][0] - edges[0] <= snap_seconds + ROUNDING_SECONDS:
        num_gaps += int(nearest_edges(edges, np.array(bounds[0][:1]))[0] > 0)
        bounds[0][0] = float(edges[0])
    if bounds and edges[-1] - bounds[longest][1] <= snap_seconds + ROUNDING_SECONDS:
        num_gaps += int(nearest_edges(edges, np.array(bounds[longest][1:]))[0] < len(edges) - 1)
        bounds[longest][1] = float(edges[-1])
    segments = []
    for interval, (start, end) in zip(intervals, nearest_edges(edges, np.array(bounds).reshape(-1, 2)), strict=True):
        if start < end:
            segments.append((int(start), int(end), interval.phase))
        else:
            notes.append(f"{_named(interval)}: shorter than a frame, left out")
    ends = [0, *(end for _, end, _ in segments)]
    starts = [*(start for start, _, _ in segments), len(edges) - 1]
    gaps = tuple((end, start) for end, start in zip(ends, starts, strict=True) if end < start)
    return Tiling(len(edges) - 1, tuple(segments), gaps, num_gaps, num_overlaps, tuple(notes))


def _inside(interval: PhaseInterval, edges: np.ndarray, snap_seconds: float, notes: list[str]) -> list[float]:
    """Start and end of an interval within the video; more than a slip of the hand that is cut off is noted."""
    first, last = float(edges[0]), float(edges[-1])
    if interval.start >= last or interval.end <= min(first, 0.0):
        raise UserError(
            f"{_named(interval)}: lies outside of the video, which lasts from {first:.3f} to {last:.3f} s; annotate the "
            "video that the file names, or take the segment out"
        )
    if interval.end - last > snap_seconds:
        notes.append(f"{_named(interval)}: ends {interval.end - last:.3f} s after the end of the video, cut there")
    if min(first, 0.0) - interval.start > snap_seconds:
        notes.append(f"{_named(interval)}: starts {first - interval.start:.3f} s before the video, cut there")
    return [max(interval.start, first), min(max(interval.end, first), last)]


def _overlap(one: PhaseInterval, other: PhaseInterval) -> str:
    return (
        f"{other.where}: overlap from {other.start:.3f} to {min(one.end, other.end):.3f} s of {one.phase} "
        f"({one.start:.3f} to {one.end:.3f} s, {one.where}) and {other.phase} ({other.start:.3f} to {other.end:.3f} s); a "
        "moment has one phase: end the one where the other starts"
    )


def _named(interval: PhaseInterval) -> str:
    return f"{interval.where}: {interval.phase} ({interval.start:.3f} to {interval.end:.3f} s)"
