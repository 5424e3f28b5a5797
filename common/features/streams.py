"""From a stream of resized frames to a stream of features in batches, one vector a frame, in memory that does not grow.

Each stream takes frames in order with `push` and gives the rows that have become final; `finish` gives the rest. What
goes into one call of the network depends on `batch_size` only, never on how the frames arrive.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.base.runtime import UserError

log = logging.getLogger(__name__)

# fixed on a CPU: another batch size changes features in the last digits
CPU_FRAMES, CPU_CLIPS = 16, 1
MOST_FRAMES, MOST_CLIPS = 256, 32
MEMORY_SHARE = 0.6  # of a GPU's free memory


class FeatureStream(Protocol):
    """Frames `(n, 3, size, size)` uint8 in, feature rows `(m, feature_dim)` float32 out."""

    def push(self, frames: Tensor) -> np.ndarray:
        """Take the next frames; returns the rows that are final now, in order."""

    def finish(self) -> np.ndarray:
        """No more frames; returns the remaining rows."""


class FrameStream:
    """Image encoders: a frame's vector depends on the frame alone."""

    def __init__(self, batcher: Batcher):
        self.batcher = batcher

    def push(self, frames: Tensor) -> np.ndarray:
        """See `FeatureStream`."""
        return _rows(self.batcher.add(frames.unbind()))

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        return _rows(self.batcher.flush())


class _ClipStream:
    """Buffer of both streams below: frames that a later clip may need, and clips whose features are on their way."""

    def __init__(self, batcher: Batcher, clip_len: int):
        self.batcher, self.clip_len = batcher, clip_len
        self.frames: deque[Tensor] = deque()
        self.first = 0  # index of frames[0]
        self.count = 0  # frames taken so far
        self.waiting: deque[int] = deque()  # centres of clips whose features are not there yet

    def _take(self, frames: Tensor) -> None:
        self.frames.extend(frames.unbind())
        self.count += len(frames)

    def _forget(self, before: int) -> None:
        """Drop frames that no later clip needs; the last one stays, it may be replicated."""
        while self.first < before and len(self.frames) > 1:
            self.frames.popleft()
            self.first += 1

    def _evaluate(self, centre: int) -> np.ndarray:
        """Send the clip around `centre` off; returns the rows that became final, of this one or of clips before it."""
        indices = window_indices(centre, self.clip_len, self.count)
        self.waiting.append(centre)
        return self._receive(self.batcher.add([torch.stack([self.frames[i - self.first] for i in indices])]))

    def _receive(self, batches: list[np.ndarray]) -> np.ndarray:
        """Rows that became final by the features of the next waiting clips."""
        return _rows([self._finalise(self.waiting.popleft(), features) for batch in batches for features in batch])

    def _finalise(self, centre: int, features: np.ndarray) -> np.ndarray:
        """Rows that became final by the features of the clip around `centre`."""
        raise NotImplementedError


class WindowStream(_ClipStream):
    """Clip encoders: frame t's vector is that of the window with t at position `clip_len // 2`, edges replicated.

    With a stride the frames 0, n, 2n ... and the last one are evaluated, and the others interpolated linearly.
    """

    def __init__(self, batcher: Batcher, clip_len: int, stride: int):
        super().__init__(batcher, clip_len)
        self.stride = stride
        self.next_centre = 0
        self.last: tuple[int, np.ndarray] | None = None  # the newest evaluated frame and its features

    def push(self, frames: Tensor) -> np.ndarray:
        """See `FeatureStream`."""
        self._take(frames)
        reach = self.clip_len - 1 - self.clip_len // 2  # frames after the centre
        rows = []
        while self.next_centre + reach < self.count:
            rows.append(self._evaluate(self.next_centre))
            # not next_centre's window: the video may end before it, and then its last frame is evaluated
            self._forget(self.next_centre + 1 - self.clip_len // 2)
            self.next_centre += self.stride
        return _rows(rows)

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        rows = []
        while self.next_centre < self.count:
            rows.append(self._evaluate(self.next_centre))
            self.next_centre += self.stride
        last_evaluated = self.next_centre - self.stride
        if last_evaluated < self.count - 1:  # else the frames after it would have nothing to interpolate to
            rows.append(self._evaluate(self.count - 1))
        rows.append(self._receive(self.batcher.flush()))
        return _rows(rows)

    def _finalise(self, centre: int, features: np.ndarray) -> np.ndarray:
        """The evaluated frame's row, after those between the evaluated frame before and it."""
        rows = [features[None]]
        if self.last is not None:
            before, start = self.last
            # shares 1/n ... (n-1)/n of the way; none with a stride of 1
            shares = np.arange(1, centre - before, dtype=np.float32)[:, None] / (centre - before)
            rows.insert(0, start + shares * (features - start))
        self.last = (centre, features)
        return _rows(rows)


class TokenStream(_ClipStream):
    """Clip encoders with features over time: half-overlapping clips once, each token serving the frames of its tubelet.

    Where clips overlap their features are blended with weights that fall towards a clip's ends. The last clip ends with
    the video; a video shorter than a clip is filled up with its last frame.
    """

    def __init__(self, batcher: Batcher, clip_len: int, tubelet: int):
        super().__init__(batcher, clip_len)
        self.tubelet = tubelet
        # clips but the last begin where tubelets do, so that a frame is in the same pair in both clips that see it
        self.hop = max(tubelet, clip_len // 2 // tubelet * tubelet)
        self.weights = blend_weights(clip_len)
        self.next_start = 0
        self.sums: deque[np.ndarray] = deque()  # weighted features of frames from `emitted` on
        self.totals: deque[float] = deque()  # and the sums of their weights
        self.emitted = 0

    def push(self, frames: Tensor) -> np.ndarray:
        """See `FeatureStream`."""
        self._take(frames)
        rows = []
        while self.next_start + self.clip_len <= self.count:
            rows.append(self._evaluate(self.next_start + self.clip_len // 2))
            self._forget(self.next_start)  # not what only this clip sees: the last clip may start up to a hop earlier
            self.next_start += self.hop
        return _rows(rows)

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        rows = []
        covered = self.next_start - self.hop + self.clip_len if self.next_start else 0
        if covered < self.count:
            rows.append(self._evaluate(max(0, self.count - self.clip_len) + self.clip_len // 2))
        rows.append(self._receive(self.batcher.flush()))
        rows.append(self._emit(self.count))
        return _rows(rows)

    def _finalise(self, centre: int, features: np.ndarray) -> np.ndarray:
        """Rows before the clip, to which no later one reaches back; its tokens are added to the frames after them."""
        start = centre - self.clip_len // 2
        rows = self._emit(start)
        for position, weight in enumerate(self.weights):
            slot, weighted = start + position - self.emitted, weight * features[position // self.tubelet]
            if slot == len(self.sums):
                self.sums.append(weighted)
                self.totals.append(weight)
            else:
                self.sums[slot] = self.sums[slot] + weighted
                self.totals[slot] += weight
        return rows

    def _emit(self, until: int) -> np.ndarray:
        rows = []
        while self.emitted < until and self.sums:
            rows.append((self.sums.popleft() / self.totals.popleft())[None].astype(np.float32))
            self.emitted += 1
        return _rows(rows)


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    kept = [part for part in parts if len(part)]  # an empty part does not know the width of the others
    return np.concatenate(kept) if kept else np.empty((0, 0), dtype=np.float32)


def window_indices(centre: int, clip_len: int, num_frames: int) -> np.ndarray:
    """Frames `(clip_len,)` of the window that has `centre` at position `clip_len // 2`; edge frames are repeated."""
    start = centre - clip_len // 2
    return np.clip(np.arange(start, start + clip_len), 0, num_frames - 1)


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
