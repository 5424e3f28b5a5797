"""Which frames a head is fed with: of a file those that the prediction of the whole video takes, of a live source a grid in time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic

from common.video.label_grid import EVERY_FRAME, LabelGrid
from common.video.timeline import EQUALLY_NEAR_SECONDS, TimedT, sample_at_fps


@dataclass(frozen=True)
class Choice(Generic[TimedT]):
    """A frame that has been judged: whether extraction samples it, and whether the head is fed with it.

    `point` is its place among what the head is fed with, from 0; those that are skipped had no frame in time.
    """

    frame: TimedT
    is_sampled: bool
    point: int | None


@dataclass(frozen=True)
class Rule:
    """How the training's features were chosen: sampled at `fps` or `every`, of these those that stand for labels on a `grid`, of
    these every `sample_rate`-th."""

    fps: float | None = None
    every: int = 1
    grid: LabelGrid = EVERY_FRAME
    sample_rate: int = 1

    def of_file(self, frames: Iterable[TimedT]) -> Iterator[Choice[TimedT]]:
        """Every frame of a file, judged as `open_video` does when all of its features are there."""
        number = 0
        for frame, is_sampled, stands in self._standing(self._sampled(frames)):
            point = None
            if stands:
                point = number // self.sample_rate if number % self.sample_rate == 0 else None
                number += 1
            yield Choice(frame, is_sampled, point)

    def _sampled(self, frames: Iterable[TimedT]) -> Iterator[tuple[TimedT, bool, bool]]:
        """Each frame, whether it is sampled, and whether it carries a label."""

        def labelled() -> Iterator[tuple[TimedT, bool]]:
            for index, frame, is_chosen in sample_at_fps(frames, self.grid.label_fps):
                yield frame, is_chosen and index % (self.grid.label_every or 1) == 0

        if self.fps == self.grid.label_fps:  # most often: features are those of the labelled frames
            for index, (frame, is_labelled) in enumerate(labelled()):
                is_chosen = is_labelled if self.fps else True
                yield frame, is_chosen and index % self.every == 0, is_labelled
            return
        pairs = labelled()
        labels: list[bool] = []

        def alone() -> Iterator[TimedT]:
            for frame, is_labelled in pairs:
                labels.append(is_labelled)
                yield frame

        for index, frame, is_chosen in sample_at_fps(alone(), self.fps):
            yield frame, is_chosen and index % self.every == 0, labels.pop(0)

    def _standing(self, judged: Iterable[tuple[TimedT, bool, bool]]) -> Iterator[tuple[TimedT, bool, bool]]:
        """Each frame, whether it is sampled, and whether it stands for a label: the sampled frame nearest to one, of equally near
        ones the earlier."""
        if self.grid.is_every_frame:
            yield from ((frame, is_sampled, is_sampled) for frame, is_sampled, _ in judged)
            return
        held: list[
            tuple[TimedT, bool]
        ] = []  # from the newest sampled frame on, which is judged when the next one is there
        stands, labels = False, []  # whether that one does; times of the labels since
        for frame, is_sampled, is_labelled in judged:
            next_stands = is_sampled and is_labelled
            if is_sampled and held:
                for seconds in labels:
                    is_nearer = frame.seconds - seconds < seconds - held[0][0].seconds - EQUALLY_NEAR_SECONDS
                    is_nearer = is_nearer or not held[0][1]
                    next_stands, stands = next_stands or is_nearer, stands or not is_nearer
                yield from ((each, sampled, sampled and stands) for each, sampled in held)
                held, stands, labels = [], False, []
            held.append((frame, is_sampled))
            if is_sampled:
                stands = next_stands
            elif is_labelled:
                labels.append(frame.seconds)
        yield from ((each, sampled, sampled and (stands or bool(labels))) for each, sampled in held)

    def of_live(self, frames: Iterable[TimedT], rate: float | None) -> Iterator[Choice[TimedT]]:
        """Every frame of a camera or stream; the head is fed at points `1 / rate` seconds apart, from the first frame on.

        A frame is for its nearest point, the first one that comes of several; points that none is nearest to are skipped. Without a
        `rate` the source's own is taken.
        """
        start, number = None, 0
        newest = newest_sample = -1
        for index, frame in enumerate(frames):
            start = frame.seconds if start is None else start
            sample = _nearest_point(frame.seconds - start, self.fps) if self.fps else index // self.every
            is_sampled = sample > newest_sample and (self.fps is not None or index % self.every == 0)
            newest_sample = max(newest_sample, sample)
            point = None
            if is_sampled:
                here = _nearest_point(frame.seconds - start, rate) if rate else number // self.sample_rate
                number += 1
                if here > newest:
                    point = newest = here
            yield Choice(frame, is_sampled, point)


def _nearest_point(seconds: float, rate: float) -> int:
    return math.floor(seconds * rate + 0.5 + EQUALLY_NEAR_SECONDS)
