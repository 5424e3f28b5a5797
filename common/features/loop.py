"""Videos through an encoder into feature files."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.base import paths
from common.base.runtime import UserError, describe_os_error, git_state, progress, versions, write_json
from common.encoders.base import ClipEncoder, Encoder
from common.features.batching import Batcher, choose_batch_size
from common.features.config import ExtractionConfig
from common.features.decode_ahead import Chunk, DecodePlan, decode_in_processes, decode_in_thread
from common.features.files import FeatureWriter
from common.features.streams import FeatureStream, FrameStream, TokenStream, WindowStream
from common.video.decode import decoder_version
from common.video.preprocess import resize
from common.video.probe import VideoError, estimate_frames
from common.video.timeline import Timeline

CHUNK_FRAMES = 32  # that a clip encoder gets at once


class _VideoJob:
    """One video on its way to its feature file: decoded frames in, rows to the writer."""

    def __init__(self, path: Path, target: Path, stream: FeatureStream, writer: FeatureWriter):
        self.path, self.target, self.stream, self.writer = path, target, stream, writer
        self.started = time.monotonic()
        self.seconds: list[float] = []
        self.sampled: list[int] = []

    def feed(self, frames: torch.Tensor, chunk: Chunk) -> None:
        """Take a chunk, whose frames are `(n, 3, size, size)` by now."""
        self.seconds += chunk.seconds
        self.sampled += chunk.sampled
        self._write(self.stream.push(frames))

    def finish(self, record: dict[str, Any]) -> None:
        """Write the last rows and publish the pair of files."""
        self._write(self.stream.finish())
        timeline = Timeline(np.array(self.seconds), np.array(self.sampled))
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = {
            "video": self.path.name,
            "video_bytes": self.path.stat().st_size,
            "timeline": timeline.to_json(),
            "finished": finished,
        }
        self.writer.finish(record | facts | {"seconds": round(time.monotonic() - self.started, 3)})

    def _write(self, rows: np.ndarray) -> None:
        if len(rows):
            self.writer.append(rows)


class ExtractionLoop:
    """Decoding ahead in the background, the encoder and the writers here; batches never cross videos."""

    def __init__(self, encoder: Encoder, config: ExtractionConfig, identity: dict[str, Any]):
        self.encoder, self.config = encoder, config
        rule = encoder.preprocessing
        self.on_gpu = encoder.device.type == "cuda"
        is_clip = isinstance(encoder, ClipEncoder)
        shape = (encoder.clip_len, 3, rule.size, rule.size) if is_clip else (3, rule.size, rule.size)
        self.encode = encoder.encode_tokens if config.mode == "tokens" else encoder.encode
        self.batch_size = config.batch_size or choose_batch_size(self.encode, shape, encoder.device)
        self.plan = DecodePlan(
            decoder=config.decoder,
            fps=config.fps,
            chunk_frames=CHUNK_FRAMES if is_clip else self.batch_size,
            rule=None if self.on_gpu else rule,
            pin_memory=self.on_gpu,
        )
        self.record = identity | {
            "title": encoder.config.title,
            "licence": encoder.config.licence,
            "num_parameters": encoder.num_parameters,
            "precision": encoder.precision,
            "batch_size": self.batch_size,
            "device": str(encoder.device),
            "decoder_version": decoder_version(config.decoder),
            "num_threads": torch.get_num_threads(),
            "versions": versions(),
            "git": git_state(paths.CHECKOUT),
        }

    def run(self, videos: dict[str, Path], folder: Path, summary: Summary) -> None:
        """Extract `videos` into `folder`; a bad video goes into the summary, a full disk ends the run."""
        if self.config.num_decoders > 1:
            events = decode_in_processes(videos, self.plan, self.config.num_decoders)
        else:
            events = decode_in_thread(videos, self.plan)
        jobs: dict[str, _VideoJob] = {}
        with (
            contextlib.ExitStack() as open_writers,
            contextlib.closing(events),
            progress(
                total=sum(estimate_frames(videos).values()), description=self.record["encoder"], unit="frames"
            ) as bar,
        ):
            for name, event in events:
                try:
                    if name not in jobs:
                        jobs[name] = self._job(videos[name], folder / f"{name}.npy", open_writers)
                    if isinstance(event, Chunk):
                        jobs[name].feed(self._resized(event), event)
                        bar.update(len(event.frames))
                    else:
                        self._end(name, jobs.pop(name), event, summary)
                except OSError as error:
                    raise UserError(f"{folder / name}.npy: {describe_os_error(error)}") from error

    def _job(self, path: Path, target: Path, open_writers: contextlib.ExitStack) -> _VideoJob:
        writer = open_writers.enter_context(FeatureWriter(target, self.encoder.feature_dim, self.config.dtype))
        return _VideoJob(path, target, self._stream(), writer)

    def _stream(self) -> FeatureStream:
        batcher = Batcher(self.encode, self.batch_size)
        if not isinstance(self.encoder, ClipEncoder):
            return FrameStream(batcher)
        if self.config.mode == "tokens":
            return TokenStream(batcher, self.encoder.clip_len, self.encoder.tubelet)
        return WindowStream(batcher, self.encoder.clip_len, self.config.stride)

    def _resized(self, chunk: Chunk) -> torch.Tensor:
        """A chunk's frames as `(n, 3, size, size)`; on a GPU they cross as they were decoded and are resized there."""
        if not self.on_gpu or not len(chunk.frames):
            return chunk.frames
        return resize(chunk.frames.to(self.encoder.device, non_blocking=True), self.encoder.preprocessing)

    def _end(self, name: str, job: _VideoJob, error: VideoError | None, summary: Summary) -> None:
        """Publish a video's features, or note why there are none; the quarantine list is kept up to date."""
        if error is None:
            job.finish(self.record)
            summary.done.append(name)
        else:
            job.writer.discard()
            summary.failed[name] = str(error)
        update_quarantine(job.target.parent, name, error)


log = logging.getLogger(__name__)

QUARANTINE = "quarantine"


@dataclass
class Summary:
    """What became of each video."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 = all there, 1 = some failed, 3 = all failed."""
        if not self.failed:
            return 0
        return 1 if self.done or self.skipped else 3

    def log(self, folder: Path) -> None:
        """Say what was done, and every failure with its reason."""
        counts = f"{len(self.done)} extracted, {len(self.skipped)} already there, {len(self.failed)} failed"
        log.info("%s: %s", folder, counts)
        for name, reason in self.failed.items():
            log.error("  %s: %s", name, reason)


def update_quarantine(folder: Path, name: str, error: VideoError | None) -> None:
    """Note in `quarantine/<video>.json` why a video has no features; remove the note of one that has them now.

    A file for each video: the tasks of a job array write at the same time.
    """
    path = folder / QUARANTINE / f"{name}.json"
    if error is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"video": str(error.path), "reason": error.reason, "frames_given": error.frames_given})
