"""Timelines: times of decoded frames, the frames that have a feature vector, and the vector that stands for each frame.

Containers, writers and joined recordings leave times that step back, repeat, are absurd or absent. They are made strictly
increasing here, once (`strictly_increasing`): what samples, plots, scores or writes by time relies on it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from common.base.files import misfit
from common.base.runtime import UserError

CONSTANT_RATE_TOLERANCE_SECONDS = 2e-3  # containers round timestamps to a millisecond
EQUALLY_NEAR_SECONDS = 1e-9  # far above the rounding of a float time, far below any frame's duration
SHORTEST_STEP_SECONDS = 1e-4  # a nearer time counts as the same: no camera films ten thousand frames a second
LONGEST_STEP_SECONDS, LONGEST_STEP_FRAMES = 10.0, 100  # a step over both is no pause but a damaged time
LATEST_START_SECONDS = 3e8  # ten years: a clock that starts later holds garbage
PLAUSIBLE_FPS = (0.01, 999.0)  # from 1000 on it is the clock's ticks: those of Matroska are milliseconds
MOST_FRAMES = 1 << 31  # of a video: two years of a camera
# the shape of a timeline in a sidecar
RECORD = {
    "num_frames": int, "frame_indices?": [int],
    "timestamps": {"policy": str, "start?": float, "fps?": float, "seconds?": [float]},
}  # fmt: skip
DEFAULT_FPS = 25.0  # of most cameras: where nothing tells


class Timed(Protocol):
    """Anything with a presentation time."""

    seconds: float


class Shown(Timed, Protocol):
    """A frame whose time can be mended."""

    def at(self, seconds: float | None) -> Self:
        """The same, shown at another time."""


TimedT = TypeVar("TimedT", bound=Timed)
ShownT = TypeVar("ShownT", bound=Shown)


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: `image` `(H, W, 3)` uint8 RGB, full range, upright; `seconds` its presentation time.

    A decoder gives the time as the file has it, None or not finite where it has none; `strictly_increasing` mends it.
    """

    image: np.ndarray
    seconds: float | None

    def at(self, seconds: float | None) -> Frame:
        """The same picture at another time."""
        return Frame(self.image, seconds)


def strictly_increasing(frames: Iterable[ShownT], fps: float | None, mended: Counter[str]) -> Iterator[ShownT]:
    """The same frames in the same order, each shown after the one before it; `mended` counts what was changed, by kind.

    Times that are right stay. One that is missing, repeated, steps back or is absurd (further than
    `LONGEST_STEP_SECONDS` and `LONGEST_STEP_FRAMES` periods away) goes on from the frame before at the stream's rate
    `fps`. Where the next time fits the clock so far, only this frame was wrong; else the clock itself has changed (a
    joined recording) and the following times are moved along with it. Holds one frame back.
    """
    clock = _Clock(fps, mended)
    held: ShownT | None = None

    def placed(frame: ShownT, following: float | None) -> ShownT:
        return frame.at(clock.place(frame.seconds, following))

    try:
        for frame in frames:
            if held is not None:
                yield placed(held, frame.seconds)
            held = frame
    except UserError:  # a video that fails gives all the frames that came before
        if held is not None:
            yield placed(held, None)
        raise
    if held is not None:
        yield placed(held, None)


def _mended(seconds: np.ndarray) -> np.ndarray:
    """Times `(num_frames,)` of a record that an earlier version wrote: strictly increasing."""
    steps = np.diff(seconds)
    is_good = (steps >= SHORTEST_STEP_SECONDS) & (steps <= LONGEST_STEP_SECONDS)
    if is_good.all():
        return seconds
    clock = _Clock(1 / float(np.median(steps[is_good])) if is_good.any() else None, Counter())
    return np.array([clock.place(time, following) for time, following in pairwise([*seconds.tolist(), None])])


def is_plausible_fps(fps: float | None) -> bool:
    """Whether a camera or an export can have this rate; headers of some writers hold the clock's ticks instead."""
    return fps is not None and PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1]


class _Clock:
    """The time of the last frame, and what has to be added to a file's times to go on from it."""

    def __init__(self, fps: float | None, mended: Counter[str]):
        self.period = 1 / (fps if is_plausible_fps(fps) else DEFAULT_FPS)
        self.mended = mended
        self.longest_step = max(LONGEST_STEP_SECONDS, LONGEST_STEP_FRAMES * self.period)
        self.last: float | None = None
        self.offset = 0.0
        self.former: float | None = None  # the offset before the last change: a stray group of frames returns to it

    def place(self, raw: float | None, following: float | None) -> float:
        """The time of a frame whose file says `raw`, before one whose file says `following`."""
        raw, following = (time if time is not None and math.isfinite(time) else None for time in (raw, following))
        if self.last is None:
            self.last = self._start(raw)
            return self.last
        step = self._step(raw, self.offset)
        if self.former is not None and raw is not None:
            other = self._step(raw, self.former)
            if self._is_good(other) and (
                not self._is_good(step) or abs(other - self.period) < abs(step - self.period) - EQUALLY_NEAR_SECONDS
            ):
                self.offset, self.former, step = self.former, self.offset, other
        if not self._is_good(step):
            self.mended[self._kind(step)] += 1
            ahead = self._step(following, self.offset)
            if self._is_good(ahead):  # the clock is right: this frame finds its place before the next
                step = min(self.period, ahead / 2)
            else:
                step = self.period
                if raw is not None:
                    self.former, self.offset = self.offset, self.last + step - raw
        self.last += step
        return self.last

    def _start(self, raw: float | None) -> float:
        if raw is None:
            self.mended["missing"] += 1
        elif abs(raw) > LATEST_START_SECONDS:
            self.mended["absurd"] += 1
            self.offset = -raw
        else:
            return raw
        return 0.0

    def _step(self, raw: float | None, offset: float) -> float | None:
        return None if raw is None else raw + offset - self.last

    def _is_good(self, step: float | None) -> bool:
        return step is not None and SHORTEST_STEP_SECONDS <= step <= self.longest_step

    def _kind(self, step: float | None) -> str:
        if step is None:
            return "missing"
        if abs(step) > self.longest_step:
            return "absurd"
        return "step back" if step < -SHORTEST_STEP_SECONDS else "repeated"


def sample_at_fps(frames: Iterable[TimedT], fps: float | None) -> Iterator[tuple[int, TimedT, bool]]:
    """Yield `(index, frame, chosen)` for every frame: chosen = nearest in time to a point of the grid k / fps.

    The grid starts at the first frame. Of two equally near frames the earlier is taken, and none is taken twice, so a
    grid finer than the video gives every frame once. Without `fps` every frame is chosen.
    """
    held: tuple[int, TimedT] | None = None
    grid_point, start, gap = 0, 0.0, 0.0
    for index, frame in enumerate(frames):
        if fps is None:
            yield index, frame, True
            continue
        # a frame is judged when the next one is there: it is nearest to what lies before the middle between the two
        if held is None:
            start = frame.seconds
        else:
            gap = frame.seconds - held[1].seconds
            reach = (held[1].seconds + frame.seconds) / 2
            chosen, grid_point = _pass_grid(grid_point, start, fps, reach)
            yield *held, chosen
        held = (index, frame)
    if held is not None:
        # after the last frame there is no middle: it stands for half of the gap before it
        yield *held, _pass_grid(grid_point, start, fps, held[1].seconds + gap / 2)[0]


def _pass_grid(grid_point: int, start: float, fps: float, reach: float) -> tuple[bool, int]:
    """Whether a grid point lies at or before `reach`, and the first grid point after it.

    Computed, not counted: a gap between two frames may hold any number of grid points.
    """

    def is_reached(point: int) -> bool:
        return start + point / fps <= reach + EQUALLY_NEAR_SECONDS

    after = max(grid_point, math.floor((reach - start) * fps))
    # the division rounds: the first point that is not reached is at most one step away
    while is_reached(after):
        after += 1
    while after > grid_point and not is_reached(after - 1):
        after -= 1
    return after > grid_point, after


def nearest_in_time(seconds: np.ndarray, points: np.ndarray) -> np.ndarray:
    """For each of the `points` `(n,)` the position in the rising times `seconds` `(T,)` that is nearest to it.

    Of two equally near the earlier; before the first it is the first, after the last the last.
    """
    # those on both sides of each point, clipped so that both exist; of a single time they are the same
    right = np.clip(np.searchsorted(seconds, points), 1, max(len(seconds) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(seconds) - 1)
    # strictly nearer by more than rounding, so that of two equally near the earlier wins on every machine
    nearer_right = seconds[right] - points < points - seconds[left] - EQUALLY_NEAR_SECONDS
    return np.where(nearer_right, right, left)


def frame_edges(seconds: np.ndarray) -> np.ndarray:
    """Seconds at which each frame starts, and at which the last ends, `(T + 1,)`, of the rising `seconds` `(T,)`.

    A video does not say how long its last frame is shown: it counts as long as the median of the others.
    """
    last = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    return np.append(seconds, seconds[-1] + last)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Presentation times of a video's decoded frames, and the frames that have a feature vector."""

    seconds: np.ndarray
    """`(num_frames,)` float64."""
    sampled: np.ndarray
    """`(T,)` indices of decoded frames, ascending."""

    @property
    def num_frames(self) -> int:
        return len(self.seconds)

    @property
    def fps(self) -> float | None:
        """Mean frame rate of the decoded frames; None for a single frame."""
        span = float(self.seconds[-1] - self.seconds[0])
        return (self.num_frames - 1) / span if span > 0 else None

    @classmethod
    def every_frame(cls, num_frames: int, fps: float = 1.0) -> Timeline:
        """The timeline of features that come without one: a vector for each frame at a constant rate."""
        return cls(np.arange(num_frames) / fps, np.arange(num_frames))

    def keeping(self, kept: slice | np.ndarray) -> Timeline:
        """The same video with some of its features kept."""
        return Timeline(self.seconds, self.sampled[kept])

    def nearest_sample(self, frames: np.ndarray, *, causal: bool = False) -> np.ndarray:
        """For each of the decoded `frames` `(n,)`, the position in `sampled` of the feature that stands for it.

        `(n,)`: the nearest in time, of two equally near the earlier; `causal`: the last one at or before it (before the
        first, the first). Frames past the last decoded one take that frame's feature.
        """
        frames = np.minimum(frames, self.num_frames - 1)
        if len(self.sampled) == self.num_frames:
            return frames  # every frame has a feature of its own
        if causal:
            return np.maximum(np.searchsorted(self.sampled, frames, side="right") - 1, 0)
        return nearest_in_time(self.seconds[self.sampled], self.seconds[frames])

    def to_json(self) -> dict[str, Any]:
        """The timeline for a sidecar: constant rates as two numbers, others as a list of seconds."""
        constant = self._constant_rate()
        times = constant or {"policy": "listed", "seconds": [round(float(time), 6) for time in self.seconds]}
        every = len(self.sampled) == self.num_frames
        return {
            "num_frames": self.num_frames,
            "fps": self.fps,
            "timestamps": times,
            "frame_indices": None if every else self.sampled.tolist(),
        }

    def _constant_rate(self) -> dict[str, Any] | None:
        start, fps = float(self.seconds[0]), self.fps or 1.0
        expected = start + np.arange(self.num_frames) / fps
        if np.abs(self.seconds - expected).max() > CONSTANT_RATE_TOLERANCE_SECONDS:
            return None
        return {"policy": "constant", "start": start, "fps": fps}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Timeline:
        """Inverse of `to_json`, up to its rounding. Raises `UserError` for what is no timeline."""
        if wrong := misfit(record, RECORD):
            raise UserError(f"not a timeline ({wrong})")
        times, count, indices = record["timestamps"], record["num_frames"], record.get("frame_indices")
        is_constant = times["policy"] == "constant"
        fps, listed_seconds = times.get("fps"), times.get("seconds")
        if not 0 < count <= MOST_FRAMES or (not fps or fps <= 0 if is_constant else len(listed_seconds or ()) != count):
            raise UserError(
                f"not a timeline ({count} frames, {'at' if is_constant else 'with'} other times than these)"
            )
        seconds = (
            (times.get("start") or 0.0) + np.arange(count) / fps if is_constant else _mended(np.array(listed_seconds))
        )
        sampled = np.arange(count) if indices is None else np.array(indices, dtype=object)
        if not (len(sampled) and sampled[0] >= 0 and sampled[-1] < count and (np.diff(sampled) > 0).all()):
            raise UserError(f"not a timeline (the frames with a feature are not some of its {count}, in order)")
        return cls(seconds, sampled.astype(np.int64))
