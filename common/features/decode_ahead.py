"""Videos to chunks of frames, decoded ahead of the encoder: in a thread, or in several processes.

Chunks of one video come in order; those of several videos may alternate. Memory is bounded by the chunks ahead.

The processes decode only, and read this module for it: torch is imported by what makes chunks, in the parent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.base.runtime import describe_os_error, prefetch
from common.video.decode import Decoding, DecodingRecord
from common.video.preprocess import Preprocessing, resize
from common.video.probe import VideoError
from common.video.timeline import Frame, sample_at_fps

if TYPE_CHECKING:
    from torch import Tensor

CHUNKS_AHEAD = 3
NO_IMAGE = np.empty((0, 0, 3), np.uint8)  # of a frame that is not kept
CHUNK_BYTES = 64 << 20  # of frames as they were decoded: 24 of 720p; a chunk of resized ones is smaller by far


@dataclass(frozen=True)
class DecodePlan:
    """Settings of decoding: `rule` None leaves frames as they are (a GPU resizes them).

    `fps` or `every` says which frames get a feature; `keep_all` keeps the others too, for windows whose frames lie apart in time.

    A chunk has at most `chunk_frames`, fewer where they would be over `CHUNK_BYTES` or change their size.
    `frames_fps` is the rate of folders of images, where it is known.
    """

    decoder: str
    fps: float | None
    chunk_frames: int
    rule: Preprocessing | None
    pin_memory: bool = False
    accept_damaged: bool = False
    frames_fps: float | None = None
    keep_all: bool = False
    every: int = 1


@dataclass(eq=False)
class Chunk:
    """Consecutive frames of those that are kept: `(n, 3, size, size)` resized or `(n, H, W, 3)` decoded, uint8.

    `frame_seconds` are their times, `wanted` those of them that get a feature. `seconds` are the times of all frames decoded
    since the chunk before, kept or not, and `sampled` the indices of those that get a feature.
    """

    frames: Tensor
    frame_seconds: list[float] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)


Videos = Iterable[tuple[str, Path]]
"""Names and paths; the next is asked for when its turn comes, so that whoever gives them may claim it first."""

Event = tuple[str, Chunk | VideoError | DecodingRecord]
"""A video's name with its next chunk, the error that ended it, or at its end what came out of it."""


def sampled_frames(path: Path, plan: DecodePlan) -> Iterator[tuple[int, Frame, bool] | DecodingRecord]:
    """Decode and sample one video: `(index, frame, wanted)` of every frame, its image only where it is kept.

    Last comes the record of the decoding. Raises `VideoError` where decoding fails, after the frames before it.
    """
    decoding = Decoding(path, plan.decoder, accept_damaged=plan.accept_damaged, frames_fps=plan.frames_fps)
    try:
        for index, frame, is_chosen in sample_at_fps(decoding, plan.fps):
            wanted = is_chosen and index % plan.every == 0
            yield index, frame if wanted or plan.keep_all else Frame(NO_IMAGE, frame.seconds), wanted
    except OSError as error:  # it has vanished, or its disk has
        raise VideoError(path, describe_os_error(error), decoding.record.decoded) from error
    yield decoding.record


class _Collector:
    """Decoded frames of one video to chunks."""

    def __init__(self, plan: DecodePlan):
        self.plan = plan
        self.images: list[Tensor] = []
        self.frame_seconds: list[float] = []
        self.wanted: list[bool] = []
        self.seconds: list[float] = []
        self.sampled: list[int] = []

    def add(self, index: int, frame: Frame, wanted: bool) -> Iterator[Chunk]:
        """Take a frame, and give the chunks that it ends."""
        import torch

        image, rule = torch.from_numpy(frame.image), self.plan.rule
        if self.images and image.numel() and not rule and image.shape != self.images[-1].shape:
            yield self._chunk()  # the picture changes its size in mid-video: one stack holds one size
        self.seconds.append(frame.seconds)
        if wanted:
            self.sampled.append(index)
        if not image.numel():
            return
        self.frame_seconds.append(frame.seconds)
        self.wanted.append(wanted)
        self.images.append(resize(image[None], rule) if rule else image)
        if len(self.images) == self.plan.chunk_frames or len(self.images) * self.images[-1].nbytes >= CHUNK_BYTES:
            yield self._chunk()

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, which may hold times alone."""
        if self.seconds:
            yield self._chunk()

    def _chunk(self) -> Chunk:
        import torch

        join = torch.cat if self.plan.rule else torch.stack
        frames = join(self.images) if self.images else torch.empty(0)
        if self.plan.pin_memory and self.images:
            frames = frames.pin_memory()
        collected = (self.frame_seconds, self.wanted, self.seconds, self.sampled)
        chunk = Chunk(frames, *(values.copy() for values in collected))
        for values in (self.images, *collected):
            values.clear()
        return chunk


def chunks(path: Path, plan: DecodePlan) -> Iterator[Chunk | DecodingRecord]:
    """Decode, sample and (on a CPU) resize one video; last comes the record of its decoding.

    Raises `VideoError` where decoding fails, after the chunks before it.
    """
    collector = _Collector(plan)
    for item in sampled_frames(path, plan):
        if isinstance(item, DecodingRecord):
            yield from collector.rest()
            yield item
        else:
            yield from collector.add(*item)


def decode_in_thread(videos: Videos, plan: DecodePlan) -> Iterator[Event]:
    """Decode videos one after the other in a background thread of this process."""
    for name, path in videos:
        try:
            for chunk in prefetch(chunks(path, plan), CHUNKS_AHEAD):
                yield name, chunk
        except VideoError as error:
            yield name, error


def decode_in_processes(videos: Videos, plan: DecodePlan, num_processes: int) -> Iterator[Event]:
    """Decode `num_processes` videos at a time, each in a process; a background thread of this one makes the chunks.

    A process that dies (a decoder's segmentation fault) costs its video only. Raises what is wrong with all of them,
    such as a decoder that is not installed.
    """
    from common.features.decoder_pool import DecoderPool  # here: most extractions decode in this process

    with DecoderPool(partial(sampled_frames, plan=plan), num_processes) as pool:
        yield from prefetch(_events(pool.decode(videos), plan), CHUNKS_AHEAD)


def _events(decoded: Iterable[tuple[str, object]], plan: DecodePlan) -> Iterator[Event]:
    """Frames of several videos by turns to their chunks, and the outcome of each."""
    collectors: defaultdict[str, _Collector] = defaultdict(partial(_Collector, plan))
    for name, item in decoded:
        collector = collectors[name]
        if isinstance(item, tuple):
            yield from ((name, chunk) for chunk in collector.add(*item))
            continue
        if isinstance(item, DecodingRecord):
            yield from ((name, chunk) for chunk in collector.rest())
        yield name, item
        del collectors[name]
