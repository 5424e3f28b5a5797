"""A pool of processes that decode videos and do nothing else: they import no torch, and end with their parent.

Frames cross in memory that a process shares with its parent: two halves, of which one is filled while the other is read.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

import numpy as np

from common.base.children import end_with_parent, leave_signals_to_parent
from common.base.runtime import UserError
from common.video.decode import DecodingRecord
from common.video.probe import VideoError
from common.video.timeline import Frame

HALF_BYTES = 16 << 20  # of shared memory: six frames of 720p; a frame that is larger crosses in the pipe
BATCH_FRAMES = 64


SampledFrame = tuple[int, Frame, bool]
"""Number, picture and time of a decoded frame, and whether it gets a feature; one that is not kept has no pixels."""

SampledFrames = Callable[[Path], Iterator[SampledFrame | DecodingRecord]]
"""Decodes a video; last comes the record. A function that processes can be given, from a module without torch."""


class DecoderPool:
    """Up to `num_processes` processes, each of which decodes one video after the other by `sampled_frames`.

    A process that dies (a decoder's segmentation fault) costs the video that it was decoding, and is replaced.
    """

    def __init__(self, sampled_frames: SampledFrames, num_processes: int):
        self.sampled_frames, self.num_processes = sampled_frames, num_processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        while self._workers:
            self._workers.pop().end()

    def decode(
        self, videos: Iterable[tuple[str, Path]]
    ) -> Iterator[tuple[str, SampledFrame | DecodingRecord | VideoError]]:
        """Frames of named `videos`, several of them by turns, each in its order; the next is asked for when one ends.

        Raises what is wrong with all of them, such as a decoder that is not installed.
        """
        waiting = iter(videos)
        busy: dict[Connection, tuple[_Worker, str, Path]] = {}
        idle: list[_Worker] = []
        while True:
            while len(busy) < self.num_processes and (video := next(waiting, None)):
                name, path = video
                worker = idle.pop() if idle else self._start()
                if not worker.begin(path):  # it died of something else than this video
                    self._workers.remove(worker)
                    worker.end()
                    worker = self._start()
                    worker.begin(path)
                busy[worker.connection] = worker, name, path
            if not busy:
                return
            for connection in wait(list(busy)):
                worker, name, path = busy[connection]
                try:
                    batch = worker.receive()
                except (EOFError, OSError):  # the other end of the pipe has gone
                    self._workers.remove(worker)
                    batch = [VideoError(path, f"the decoder process died, exit code {worker.end()}")]
                    del busy[connection]
                else:
                    if not isinstance(batch[-1], tuple):  # the end of its video
                        idle.append(busy.pop(connection)[0])
                for item in batch:
                    if isinstance(item, Exception) and not isinstance(item, VideoError):
                        raise item
                    yield name, item

    def _start(self) -> _Worker:
        worker = _Worker(self.sampled_frames)
        self._workers.append(worker)
        return worker


@dataclass(frozen=True)
class _Stored:
    """A frame whose picture is in the shared memory, behind that of the frame before it."""

    index: int
    seconds: float
    wanted: bool
    shape: tuple[int, ...]


class _Worker:
    """One process of the pool, as its parent sees it."""

    def __init__(self, sampled_frames: SampledFrames):
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads can copy a held lock
        # of all shared memory this has no name, so that nothing is left whoever is killed
        memory = RawArray(ctypes.c_uint8, 2 * HALF_BYTES)
        self.halves = np.frombuffer(memory, np.uint8).reshape(2, HALF_BYTES)
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, memory, sampled_frames), daemon=True)
        self.process.start()
        other_end.close()  # so that the end of the process is the end of the pipe

    def begin(self, path: Path) -> bool:
        """Let the process decode a video; whether it is there to do so."""
        try:
            self.connection.send(path)
        except OSError:
            return False
        return True

    def receive(self) -> list[SampledFrame | DecodingRecord | Exception]:
        """The next frames; the record or an error is the last of a video. Raises `EOFError` or `OSError` for a death."""
        half, batch = self.connection.recv()
        offset = 0
        for position, item in enumerate(batch):
            if isinstance(item, _Stored):
                end = offset + math.prod(item.shape)
                image = self.halves[half, offset:end].reshape(item.shape).copy()
                batch[position] = item.index, Frame(image, item.seconds), item.wanted
                offset = end
        self.connection.send(None)  # this half may be filled again
        return batch

    def end(self) -> int:
        """Kill the process and return its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def _serve(connection: Connection, memory: ctypes.Array, sampled_frames: SampledFrames) -> None:
    """Body of a process: videos to decode come in, batches of their frames go out."""
    leave_signals_to_parent()
    end_with_parent()
    sender = _Sender(connection, np.frombuffer(memory, np.uint8).reshape(2, HALF_BYTES))
    while True:
        path = sender.next_video()
        try:
            for item in sampled_frames(path):
                sender.add(item)
        except (UserError, OSError) as error:
            sender.add(error)
        sender.send()


class _Sender:
    """A worker's end of the pipe: frames go into the half that its parent has read."""

    def __init__(self, connection: Connection, halves: np.ndarray):
        self.connection, self.halves = connection, halves
        self.half, self.offset, self.num_free = 0, 0, len(halves)
        self.batch: list[object] = []

    def next_video(self) -> Path:
        """Wait for the next video; the pipe ends with the parent."""
        while (message := self.connection.recv()) is None:
            self.num_free += 1
        return message

    def add(self, item: SampledFrame | DecodingRecord | Exception) -> None:
        """Put a frame, the record or an error into the batch, which goes when it is full."""
        if isinstance(item, tuple):
            index, frame, wanted = item
            size = frame.image.size
            if self.batch and (len(self.batch) == BATCH_FRAMES or self.offset + size > HALF_BYTES):
                self.send()
            if size <= HALF_BYTES:
                self.halves[self.half, self.offset : self.offset + size] = frame.image.reshape(-1)
                item = _Stored(index, frame.seconds, wanted, frame.image.shape)
            self.offset += size  # of one that crosses in the pipe too, so that few of them are under way
        self.batch.append(item)

    def send(self) -> None:
        """Send the batch, and wait until the other half is free."""
        self.connection.send((self.half, self.batch))
        self.batch, self.offset, self.half = [], 0, 1 - self.half
        self.num_free -= 1
        while not self.num_free:
            self.connection.recv()
            self.num_free += 1
