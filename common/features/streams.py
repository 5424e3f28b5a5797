"""From a stream of resized frames to a stream of features, one vector a frame, in memory that does not grow.

Each stream takes frames in order with `push` and gives the rows that have become final; `finish` gives the rest. What
goes into one call of the network depends on `batch_size` only, never on how the frames arrive.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.features.batching import Batcher


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


class WindowStream:
    """Clip encoders: frame t's vector is that of the window with t at position `clip_len // 2`, edges replicated.

    With a stride the frames 0, n, 2n ... and the last one are evaluated, and the others interpolated linearly.
    """

    def __init__(self, batcher: Batcher, clip_len: int, stride: int):
        self.batcher, self.clip_len, self.stride = batcher, clip_len, stride
        self.frames: deque[Tensor] = deque()
        self.first = 0  # index of frames[0]
        self.count = 0
        self.next_centre = 0
        self.waiting: deque[int] = deque()  # centres whose features are not there yet
        self.last: tuple[int, np.ndarray] | None = None

    def push(self, frames: Tensor) -> np.ndarray:
        """See `FeatureStream`."""
        self.frames.extend(frames.unbind())
        self.count += len(frames)
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
        if last_evaluated < self.count - 1:
            rows.append(self._evaluate(self.count - 1))
        rows.append(self._interpolate(self.batcher.flush()))
        return _rows(rows)

    def _evaluate(self, centre: int) -> np.ndarray:
        indices = window_indices(centre, self.clip_len, self.count)
        self.waiting.append(centre)
        return self._interpolate(self.batcher.add([torch.stack([self.frames[i - self.first] for i in indices])]))

    def _forget(self, before: int) -> None:
        """Drop frames that no later window needs; the last one stays, it may be replicated."""
        while self.first < before and len(self.frames) > 1:
            self.frames.popleft()
            self.first += 1

    def _interpolate(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows up to the newest evaluated frame, given the features of the next waiting centres."""
        rows = []
        for batch in features:
            for feature in batch:
                centre = self.waiting.popleft()
                if self.last is not None:
                    before, start = self.last
                    shares = np.arange(1, centre - before, dtype=np.float32)[:, None] / (centre - before)
                    rows.append(start + shares * (feature - start))
                rows.append(feature[None])
                self.last = (centre, feature)
        return _rows(rows)


class TokenStream:
    """Clip encoders with features over time: half-overlapping clips once, each token serving the frames of its tubelet.

    Where clips overlap their features are blended with weights that fall towards a clip's ends. The last clip ends with
    the video; a video shorter than a clip is filled up with its last frame.
    """

    def __init__(self, batcher: Batcher, clip_len: int, tubelet: int):
        self.batcher, self.clip_len, self.tubelet = batcher, clip_len, tubelet
        self.hop = max(tubelet, clip_len // 2 // tubelet * tubelet)
        self.weights = blend_weights(clip_len)
        self.frames: deque[Tensor] = deque()
        self.first = 0  # index of frames[0]
        self.count = 0
        self.next_start = 0
        self.waiting: deque[int] = deque()  # starts of clips whose features are not there yet
        self.sums: deque[np.ndarray] = deque()  # weighted features of frames from `emitted` on
        self.totals: deque[float] = deque()
        self.emitted = 0

    def push(self, frames: Tensor) -> np.ndarray:
        """See `FeatureStream`."""
        self.frames.extend(frames.unbind())
        self.count += len(frames)
        rows = []
        while self.next_start + self.clip_len <= self.count:
            rows.append(self._evaluate(self.next_start))
            self.next_start += self.hop
            while self.first < self.next_start - self.hop:  # the last clip may start up to a hop earlier
                self.frames.popleft()
                self.first += 1
        return _rows(rows)

    def finish(self) -> np.ndarray:
        """See `FeatureStream`."""
        rows = []
        covered = self.next_start - self.hop + self.clip_len if self.next_start else 0
        if covered < self.count:
            rows.append(self._evaluate(max(0, self.count - self.clip_len)))
        rows.append(self._blend(self.batcher.flush()))
        rows.append(self._emit(self.count))
        return _rows(rows)

    def _evaluate(self, start: int) -> np.ndarray:
        indices = np.minimum(np.arange(start, start + self.clip_len), self.count - 1)
        self.waiting.append(start)
        return self._blend(self.batcher.add([torch.stack([self.frames[i - self.first] for i in indices])]))

    def _blend(self, features: list[np.ndarray]) -> np.ndarray:
        rows = []
        for batch in features:
            for tokens in batch:
                start = self.waiting.popleft()
                rows.append(self._emit(start))  # no later clip reaches back before this one
                self._accumulate(start, np.repeat(tokens, self.tubelet, axis=0))
        return _rows(rows)

    def _accumulate(self, start: int, features: np.ndarray) -> None:
        for position, (weight, feature) in enumerate(zip(self.weights, features, strict=True)):
            slot = start + position - self.emitted
            if slot == len(self.sums):
                self.sums.append(weight * feature)
                self.totals.append(weight)
            else:
                self.sums[slot] = self.sums[slot] + weight * feature
                self.totals[slot] += weight

    def _emit(self, until: int) -> np.ndarray:
        rows = []
        while self.emitted < until and self.sums:
            rows.append((self.sums.popleft() / self.totals.popleft())[None].astype(np.float32))
            self.emitted += 1
        return _rows(rows)


def _rows(parts: list[np.ndarray]) -> np.ndarray:
    kept = [part for part in parts if len(part)]
    return np.concatenate(kept) if kept else np.empty((0, 0), dtype=np.float32)


def window_indices(centre: int, clip_len: int, num_frames: int) -> np.ndarray:
    """Frames `(clip_len,)` of the window that has `centre` at position `clip_len // 2`; edge frames are repeated."""
    start = centre - clip_len // 2
    return np.clip(np.arange(start, start + clip_len), 0, num_frames - 1)


def blend_weights(clip_len: int) -> np.ndarray:
    """Weights `(clip_len,)` of a clip's frames where clips overlap: a triangle, highest in the middle."""
    position = np.arange(clip_len)
    return np.minimum(position + 1, clip_len - position).astype(np.float32)
