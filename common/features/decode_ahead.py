"""Videos to chunks of frames, decoded ahead of the encoder: in a thread, or in several processes.

Chunks of one video come in order; those of several videos may alternate. Memory is bounded by the chunks ahead.
"""

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from common.base.runtime import UserError, prefetch
from common.video.decode import Decoding, DecodingRecord
from common.video.preprocess import Preprocessing, resize
from common.video.probe import VideoError
from common.video.timeline import sample_at_fps

CHUNKS_AHEAD = 3
CHUNK_BYTES = 64 << 20  # of frames as they were decoded: 24 of 720p; a chunk of resized ones is smaller by far


@dataclass(frozen=True)
class DecodePlan:
    """Settings of decoding: `rule` None leaves frames as they are (a GPU resizes them).

    `fps` says which frames get a feature; `keep_all` keeps the others too, for windows whose frames lie apart in time.

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


Event = tuple[str, Chunk | VideoError | DecodingRecord]
"""A video's name with its next chunk, the error that ended it, or at its end what came out of it."""


def chunks(path: Path, plan: DecodePlan) -> Iterator[Chunk | DecodingRecord]:
    """Decode, sample and (on a CPU) resize one video; last comes the record of its decoding.

    Raises `VideoError` where decoding fails, after the chunks before it.
    """
    decoding = Decoding(path, plan.decoder, accept_damaged=plan.accept_damaged, frames_fps=plan.frames_fps)
    images: list[Tensor] = []
    frame_seconds: list[float] = []
    wanted: list[bool] = []
    seconds: list[float] = []
    sampled: list[int] = []
    collected = (frame_seconds, wanted, seconds, sampled)

    def chunk() -> Chunk:
        frames = torch.cat(images) if plan.rule else torch.stack(images)
        result = Chunk(frames.pin_memory() if plan.pin_memory else frames, *(values.copy() for values in collected))
        for values in (images, *collected):
            values.clear()
        return result

    for index, frame, chosen in sample_at_fps(decoding, plan.fps):
        image = torch.from_numpy(frame.image)
        if images and not plan.rule and image.shape != images[-1].shape:
            yield chunk()  # the picture changes its size in mid-video: one stack holds one size
        seconds.append(frame.seconds)
        if chosen:
            sampled.append(index)
        elif not plan.keep_all:
            continue
        frame_seconds.append(frame.seconds)
        wanted.append(chosen)
        images.append(resize(image[None], plan.rule) if plan.rule else image)
        if len(images) == plan.chunk_frames or len(images) * images[-1].nbytes >= CHUNK_BYTES:
            yield chunk()
    if images:
        yield chunk()
    elif seconds:
        yield Chunk(torch.empty(0), seconds=seconds)
    yield decoding.record


def decode_in_thread(videos: dict[str, Path], plan: DecodePlan) -> Iterator[Event]:
    """Decode videos one after the other in a background thread of this process."""
    for name, path in videos.items():
        try:
            for chunk in prefetch(chunks(path, plan), CHUNKS_AHEAD):
                yield name, chunk
        except VideoError as error:
            yield name, error


def decode_in_processes(videos: dict[str, Path], plan: DecodePlan, num_processes: int) -> Iterator[Event]:
    """Decode `num_processes` videos at a time, each in a process of its own.

    A process that dies (a decoder's segmentation fault) costs its video only. Raises what is wrong with all of them,
    such as a decoder that is not installed.
    """
    context = torch.multiprocessing.get_context("spawn")
    plan = replace(plan, pin_memory=False)  # pinning would start CUDA in every process
    waiting = list(videos.items())
    running: dict[str, tuple] = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_processes:
                name, path = waiting.pop(0)
                events = context.Queue(CHUNKS_AHEAD)
                received = context.Event()
                process = context.Process(target=_send_chunks, args=(path, plan, events, received), daemon=True)
                process.start()
                running[name] = (process, events, received)
            for name in list(running):
                process, events, received = running[name]
                event = _receive(videos[name], process, events)
                if event is _NOTHING_YET:
                    continue
                if not isinstance(event, Chunk):
                    received.set()  # now it may end: nothing of it is in the queue any more
                    running.pop(name)
                    process.join()
                if isinstance(event, Exception) and not isinstance(event, VideoError):
                    raise event
                yield name, event
    finally:
        for process, *_ in running.values():
            process.kill()
            process.join()


_NOTHING_YET = object()
PATIENCE_SECONDS = 0.02


def _receive(path: Path, process, events) -> object:
    """The next event of one process; `_NOTHING_YET` when it has none, an error when it died."""
    alive = process.is_alive()  # asked first: what a process put just before its end is still there for `get`
    try:
        return events.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        if alive:
            return _NOTHING_YET
    except (ConnectionError, EOFError, FileNotFoundError):  # a tensor whose memory went with its process
        process.join()
    return VideoError(path, f"the decoder process died, exit code {process.exitcode}")


def _send_chunks(path: Path, plan: DecodePlan, events, received) -> None:
    """Body of a decoder process: chunks, then the record of the decoding or the error that ended it."""
    torch.set_num_threads(1)  # there are several processes, and the encoder needs the cores
    try:
        for chunk in chunks(path, plan):
            events.put(chunk)
    except (UserError, OSError) as error:
        events.put(error)
    received.wait()  # tensors in the queue live in this process's shared memory
