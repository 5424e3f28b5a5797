"""Timelines: the decoded frames that have a feature vector, and the vector that stands for each frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

CONSTANT_RATE_TOLERANCE_SECONDS = 2e-3  # containers round timestamps to a millisecond
EQUALLY_NEAR_SECONDS = 1e-9  # far above the rounding of a float time, far below any frame's duration


class Timed(Protocol):
    """Anything with a presentation time."""

    seconds: float


TimedT = TypeVar("TimedT", bound=Timed)


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
    """Whether a grid point lies at or before `reach`, and the first grid point after it."""
    first = grid_point
    while start + grid_point / fps <= reach + EQUALLY_NEAR_SECONDS:
        grid_point += 1
    return grid_point > first, grid_point


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

    def every_nth(self, step: int) -> Timeline:
        """The same video with every `step`-th feature kept."""
        return Timeline(self.seconds, self.sampled[::step])

    def nearest_sample(self, num_labels: int) -> np.ndarray:
        """For each of `num_labels` label frames, the position in `sampled` of the feature nearest in time.

        `(num_labels,)`; of two equally near the earlier. Labels past the last decoded frame take its feature.
        """
        label_seconds = self.seconds[np.minimum(np.arange(num_labels), self.num_frames - 1)]
        times = self.seconds[self.sampled]
        # the samples on both sides of each label, clipped so that both exist; of a single sample they are the same
        right = np.clip(np.searchsorted(times, label_seconds), 1, max(len(times) - 1, 1))
        left = right - 1
        right = np.minimum(right, len(times) - 1)
        # strictly nearer by more than rounding, so that of two equally near the earlier wins on every machine
        nearer_right = times[right] - label_seconds < label_seconds - times[left] - EQUALLY_NEAR_SECONDS
        return np.where(nearer_right, right, left)

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
        """Inverse of `to_json`, up to its rounding."""
        times, count = record["timestamps"], record["num_frames"]
        if times["policy"] == "constant":
            seconds = times["start"] + np.arange(count) / times["fps"]
        else:
            seconds = np.array(times["seconds"])
        indices = record["frame_indices"]
        return cls(seconds, np.arange(count) if indices is None else np.array(indices))
