"""From a stream of resized frames to a stream of features in batches, one vector a frame, in memory that does not grow.

Each stream takes frames in order with `push` and gives the rows that have become final; `finish` gives the rest. What
goes into one call of the network depends on `batch_size` only, never on how the frames arrive.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from common.base.runtime import UserError
from common.video.timeline import EQUALLY_NEAR_SECONDS, nearest_in_time

log = logging.getLogger(__name__)

# fixed on a CPU: another batch size changes features in the last digits
CPU_FRAMES, CPU_CLIPS = 16, 1
MOST_FRAMES, MOST_CLIPS = 256, 32
MEMORY_SHARE = 0.6  # of a GPU's free memory


class FeatureStream(Protocol):
    """Frames `(n, 3, size, size)` uint8 in, feature rows `(m, feature_dim)` float32 out."""

    def push(self, frames: Tensor, seconds: Sequence[float], wanted: Sequence[bool]) -> np.ndarray:
        """Take the next frames with their times, strictly increasing; a row is for each that is `wanted`.

        Returns the rows that are final now, in order.
        """

    def finish(self) -> np.ndarray:
        """No more frames; returns the remaining rows."""


@dataclass(frozen=True)
class Window:
    """The frames that a clip encoder sees for frame t: `clip_len` of them, `spacing` seconds apart.

    t is in the middle (position `clip_len // 2`, anchor centre) or the last (anchor end). Without `spacing` they are t's
    neighbours, whatever their times.
    """

    clip_len: int
    spacing: float | None = None
    anchor: Literal["centre", "end"] = "centre"

    @property
    def position(self) -> int:
        """Where t is in the window, from 0."""
        return self.clip_len // 2 if self.anchor == "centre" else self.clip_len - 1

    def indices(self, frame: int, seconds: np.ndarray) -> np.ndarray:
        """Frames `(clip_len,)` of the window of `frame`, out of those shown at `seconds` `(T,)`; edges are repeated."""
        steps = np.arange(self.clip_len) - self.position
        if self.spacing is None:
            return np.clip(frame + steps, 0, len(seconds) - 1)
        return nearest_in_time(seconds, seconds[frame] + steps * self.spacing)

    def is_complete(self, frame: int, seconds: Sequence[float]) -> bool:
        """Whether no frame after those at `seconds` can be in the window of `frame`."""
        after = self.clip_len - 1 - self.position
        if self.spacing is None:
            return frame + after < len(seconds)
        return seconds[frame] + after * self.spacing <= seconds[-1]

    def first_needed(self, frame: int, seconds: Sequence[float]) -> int:
        """The first frame that the window of `frame`, or of one after it, can hold."""
        if self.spacing is None:
            return max(0, frame - self.position)
        return max(0, bisect_right(seconds, seconds[frame] - self.position * self.spacing) - 1)


class FrameStream:
    """Image encoders: a frame's vector depends on the frame alone."""

    def __init__(self, batcher: Batcher):
        self.batcher = batcher

    def push(self, frames: Tensor, seconds: Sequence[float], wanted: Sequence[bool]) -> np.ndarray:
        """See `FeatureStream`."""
        return _rows(self.batcher.add([frame for frame, is_wanted in zip(frames, wanted, strict=True) if is_wanted]))

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        return _rows(self.batcher.flush())


class WindowStream:
    """Clip encoders: a frame's vector is that of its `window`.

    With a stride the wanted frames 0, n, 2n ... and the last one are evaluated. Those between are interpolated linearly;
    where windows end with their frame the value before is held, since a later one is not known yet.
    """

    def __init__(self, batcher: Batcher, window: Window, stride: int = 1):
        self.batcher, self.window, self.stride = batcher, window, stride
        # frames that a later window may hold, and their times; frames are numbered from the first of these
        self.frames: deque[Tensor] = deque()
        self.seconds: list[float] = []
        self.num_wanted = 0  # so far; a wanted frame's row has its number
        self.targets: deque[tuple[int, int]] = deque()  # rows to be evaluated, with their frames
        self.skipped: tuple[int, int] | None = None  # the newest wanted one, where it is not among the targets
        self.waiting: deque[int] = deque()  # rows of clips whose features are on their way
        self.last: tuple[int, np.ndarray] | None = None  # the newest evaluated row and its features

    def push(self, frames: Tensor, seconds: Sequence[float], wanted: Sequence[bool]) -> np.ndarray:
        """See `FeatureStream`."""
        for frame, time, is_wanted in zip(frames, seconds, wanted, strict=True):
            self.frames.append(frame)
            self.seconds.append(time)
            if is_wanted:
                target = self.num_wanted, len(self.frames) - 1
                self.num_wanted += 1
                if target[0] % self.stride:
                    self.skipped = target
                else:
                    self.targets.append(target)
                    self.skipped = None
        rows, times = [], np.array(self.seconds)
        while self.targets and self.window.is_complete(self.targets[0][1], self.seconds):
            rows.append(self._evaluate(*self.targets.popleft(), times))
        self._forget()
        return _rows(rows)

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        if self.skipped is not None:  # else the rows after the last evaluated one would have nothing to interpolate to
            self.targets.append(self.skipped)
        times = np.array(self.seconds)
        rows = [self._evaluate(*target, times) for target in self.targets]
        rows.append(self._receive(self.batcher.flush()))
        return _rows(rows)

    def _forget(self) -> None:
        """Drop the frames that no later window holds; the newest one stays, it may be repeated."""
        if not self.frames:
            return
        # the next window; where none waits, that of the wanted frame skipped last, if the video ends here, else of the
        # frame that comes next
        _, oldest = self.targets[0] if self.targets else self.skipped or (None, len(self.frames) - 1)
        first = self.window.first_needed(oldest, self.seconds)
        for _ in range(first):
            self.frames.popleft()
        del self.seconds[:first]
        self.targets = deque((row, frame - first) for row, frame in self.targets)
        self.skipped = self.skipped and (self.skipped[0], self.skipped[1] - first)

    def _evaluate(self, row: int, frame: int, seconds: np.ndarray) -> np.ndarray:
        """Send a frame's clip off; returns the rows that became final, of this one or of clips before it."""
        indices = self.window.indices(frame, seconds)
        self.waiting.append(row)
        return self._receive(self.batcher.add([torch.stack([self.frames[index] for index in indices])]))

    def _receive(self, batches: list[np.ndarray]) -> np.ndarray:
        """The rows of the next waiting clips, each after those between the evaluated row before and it."""
        parts = []
        for features in (features for batch in batches for features in batch):
            row = self.waiting.popleft()
            if self.last is not None:
                before, start = self.last
                # shares 1/n ... (n-1)/n of the way; none with a stride of 1
                shares = np.arange(1, row - before, dtype=np.float32)[:, None] / (row - before)
                if self.window.anchor == "end":
                    shares[:] = 0
                parts.append(start + shares * (features - start))
            parts.append(features[None])
            self.last = (row, features)
        return _rows(parts)


class TokenStream:
    """Clip encoders with features over time: half-overlapping clips once, each token serving the frames of its tubelet.

    Where clips overlap their features are blended with weights that fall towards a clip's ends. The last clip ends with
    the video; a video shorter than a clip is filled up with its last frame.
    """

    def __init__(self, batcher: Batcher, clip_len: int, tubelet: int):
        self.batcher, self.clip_len, self.tubelet = batcher, clip_len, tubelet
        # clips but the last begin where tubelets do, so that a frame is in the same pair in both clips that see it
        self.hop = max(tubelet, clip_len // 2 // tubelet * tubelet)
        self.weights = blend_weights(clip_len)
        self.frames: deque[Tensor] = deque()  # that a later clip may need
        self.first = 0  # index of frames[0]
        self.count = 0  # frames taken so far
        self.next_start = 0
        self.waiting: deque[int] = deque()  # starts of clips whose features are on their way
        self.sums: deque[np.ndarray] = deque()  # weighted features of frames from `emitted` on
        self.totals: deque[float] = deque()  # and the sums of their weights
        self.emitted = 0

    def push(self, frames: Tensor, seconds: Sequence[float] = (), wanted: Sequence[bool] = ()) -> np.ndarray:
        """See `FeatureStream`; neighbours are taken whatever their times, and a row is for every frame."""
        self.frames.extend(frames.unbind())
        self.count += len(frames)
        rows = []
        while self.next_start + self.clip_len <= self.count:
            rows.append(self._evaluate(self.next_start))
            # not what only this clip sees: the last clip may start up to a hop earlier
            while self.first < self.next_start and len(self.frames) > 1:
                self.frames.popleft()
                self.first += 1
            self.next_start += self.hop
        return _rows(rows)

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        rows = []
        covered = self.next_start - self.hop + self.clip_len if self.next_start else 0
        if covered < self.count:
            rows.append(self._evaluate(max(0, self.count - self.clip_len)))
        rows.append(self._receive(self.batcher.flush()))
        rows.append(self._emit(self.count))
        return _rows(rows)

    def _evaluate(self, start: int) -> np.ndarray:
        """Send the clip that begins at `start` off; returns the rows that became final."""
        indices = np.minimum(np.arange(start, start + self.clip_len), self.count - 1) - self.first
        self.waiting.append(start)
        return self._receive(self.batcher.add([torch.stack([self.frames[index] for index in indices])]))

    def _receive(self, batches: list[np.ndarray]) -> np.ndarray:
        """Add the next waiting clips' tokens to their frames; returns the rows to which no later clip reaches back."""
        rows = []
        for features in (features for batch in batches for features in batch):
            start = self.waiting.popleft()
            rows.append(self._emit(start))
            for position, weight in enumerate(self.weights):
                slot, weighted = start + position - self.emitted, weight * features[position // self.tubelet]
                if slot == len(self.sums):
                    self.sums.append(weighted)
                    self.totals.append(weight)
                else:
                    self.sums[slot] = self.sums[slot] + weighted
                    self.totals[slot] += weight
        return _rows(rows)

    def _emit(self, until: int) -> np.ndarray:
        rows = []
        while self.emitted < until and self.sums:
            rows.append((self.sums.popleft() / self.totals.popleft())[None].astype(np.float32))
            self.emitted += 1
        return _rows(rows)


class SpacedTokenStream:
    """`TokenStream` over frames `spacing` seconds apart: those nearest to a grid that starts at the first frame.

    A wanted frame takes the blended tokens of its nearest grid point. Of two equally near the earlier, both times.
    """

    def __init__(self, batcher: Batcher, clip_len: int, tubelet: int, spacing: float):
        self.tokens, self.spacing = TokenStream(batcher, clip_len, tubelet), spacing
        self.start: float | None = None
        self.num_points = 0  # of the grid, whose frames are decided
        self.newest: tuple[Tensor, float] | None = None
        self.rows: deque[np.ndarray] = deque()  # of the grid's points from `first_row` on
        self.first_row = 0
        self.waiting: deque[int] = deque()  # points of wanted frames whose rows are on their way

    def push(self, frames: Tensor, seconds: Sequence[float], wanted: Sequence[bool]) -> np.ndarray:
        """See `FeatureStream`."""
        sampled = []
        for frame, time, is_wanted in zip(frames, seconds, wanted, strict=True):
            if self.newest is None:
                self.start, self.newest = time, (frame, time)
            while (point := self.start + self.num_points * self.spacing) <= time:
                before, earlier = self.newest
                sampled.append(before if point - earlier <= time - point + EQUALLY_NEAR_SECONDS else frame)
                self.num_points += 1
            self.newest = (frame, time)
            if is_wanted:
                self.waiting.append(self._point_of(time))
        return self._emit(self.tokens.push(torch.stack(sampled)) if sampled else _rows([]))

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        parts = []
        if self.newest is not None:
            last, time = self.newest
            while self.num_points <= self._point_of(time):  # one that is nearest to the last frame, and after it
                parts.append(self.tokens.push(last[None]))
                self.num_points += 1
        parts.append(self.tokens.finish())
        return self._emit(_rows(parts))

    def _point_of(self, time: float) -> int:
        return max(0, math.ceil((time - self.start - EQUALLY_NEAR_SECONDS) / self.spacing - 0.5))

    def _emit(self, rows: np.ndarray) -> np.ndarray:
        """Take rows of the grid; returns those of the wanted frames that have theirs now."""
        self.rows.extend(rows)
        ready = []
        while self.waiting and self.waiting[0] < self.first_row + len(self.rows):
            point = self.waiting.popleft()
            while self.first_row < point:  # frames come in order: no later one takes an earlier point
                self.rows.popleft()
                self.first_row += 1
            ready.append(self.rows[0][None])
        return _rows(ready)


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    kept = [part for part in parts if len(part)]  # an empty part does not know the width of the others
    return np.concatenate(kept) if kept else np.empty((0, 0), dtype=np.float32)


def blend_weights(clip_len: int) -> np.ndarray:
    """Weights `(clip_len,)` of a clip's frames where clips overlap: a triangle, highest in the middle."""
    position = np.arange(clip_len)
    return np.minimum(position + 1, clip_len - position).astype(np.float32)


class Batcher:
    """Collects items into batches of a fixed size for `encode`; halves the size when a GPU runs out of memory."""

    def __init__(self, encode: Callable[[Tensor], Tensor], batch_size: int):
        self.encode, self.batch_size = encode, batch_size
        self.items: list[Tensor] = []

    def add(self, items: Sequence[Tensor]) -> list[np.ndarray]:
        """Take items; returns the outputs of the batches that became full, in order."""
        self.items.extend(items)
        return self._outputs(flush=False)

    def flush(self) -> list[np.ndarray]:
        """The outputs of what is left."""
        return self._outputs(flush=True)

    def _outputs(self, *, flush: bool) -> list[np.ndarray]:
        outputs = []
        while self.items and (flush or len(self.items) >= self.batch_size):
            outputs.append(self._encode(self.items[: self.batch_size]))
            self.items = self.items[len(outputs[-1]) :]  # by what came back: the size may have been halved meanwhile
        return outputs

    def _encode(self, items: list[Tensor]) -> np.ndarray:
        """Outputs of the first items: all of them, or as many as fit into memory."""
        while True:
            try:
                return self.encode(torch.stack(items[: self.batch_size])).numpy()
            except torch.OutOfMemoryError as error:
                if self.batch_size == 1:
                    raise UserError(
                        "the GPU is out of memory with a batch of 1; use a smaller encoder or --precision bf16"
                    ) from error
                self.batch_size //= 2
                torch.cuda.empty_cache()
                log.warning("GPU out of memory: batch size halved to %d", self.batch_size)


def choose_batch_size(encode: Callable[[Tensor], Tensor], item_shape: tuple[int, ...], device: torch.device) -> int:
    """A batch size for items `item_shape`: fixed on a CPU; on a GPU a power of two that fits its free memory.

    The memory of one item is measured as the difference that a second item makes: the network's own is in both.
    """
    is_clip = len(item_shape) == 4
    if device.type != "cuda":
        return CPU_CLIPS if is_clip else CPU_FRAMES
    peaks = []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        encode(torch.zeros(count, *item_shape, dtype=torch.uint8))
        peaks.append(torch.cuda.max_memory_allocated(device))
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(MEMORY_SHARE * free / max(1, peaks[1] - peaks[0]))
    # the largest power of two that is not above it
    return 2 ** max(0, min(fitting, MOST_CLIPS if is_clip else MOST_FRAMES).bit_length() - 1)
