"""One encoder over a data set's videos: what is to be done, what identifies it, and the loop that does it.

Frames are decoded ahead in the background (`decode_ahead`), become rows in batches (`streams`) and are appended to
feature files (`files`); a bad video ends in the summary and in quarantine, the others are extracted.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.base import paths
from common.base.files import video_bytes, video_fingerprint, write_json
from common.base.runtime import (
    UserError,
    choose_precision,
    describe_os_error,
    git_state,
    keep_freed_memory,
    progress,
    select_device,
    versions,
)
from common.encoders.base import ClipEncoder, Encoder, build_encoder, with_values
from common.encoders.config import read_encoder_config
from common.features.config import CENTRE, END, ExtractionConfig, on_label_grid, variant_of, with_options
from common.features.decode_ahead import Chunk, DecodePlan, decode_in_processes, decode_in_thread
from common.features.files import FeatureWriter, is_extracted
from common.features.streams import (
    Batcher,
    FeatureStream,
    FrameStream,
    SpacedTokenStream,
    TokenStream,
    Window,
    WindowStream,
    choose_batch_size,
)
from common.video.decode import DecodingRecord, decoder_version
from common.video.preprocess import resize
from common.video.probe import VideoError, estimate_frames
from common.video.timeline import Timeline

log = logging.getLogger(__name__)

CHUNK_FRAMES = 32  # that a clip encoder gets at once
STATE_RATE = "write `frames_fps: N` (images a second) into its dataset.yaml; predict_video also has --frames_fps"


def extract(model: paths.Model, config: ExtractionConfig, *, device: str = "auto", force: bool = False) -> Summary:
    """Extract every video of a data set that is not finished; one bad video does not stop the others.

    Raises `UserError` for what concerns the whole run (weights, device, disk, features made in another way).
    """
    # here: what one who reads on from frames to features need not open
    from common.base.failures import noting_failure
    from common.dataset.description import read_description

    keep_freed_memory()
    dataset = paths.dataset(config.dataset)
    description = read_description(dataset)
    config = on_label_grid(config, description)
    if description.features_of is not None:
        raise UserError(
            f"{dataset.description}: its features are those of {description.features_of}; extract that one: --dataset "
            f"{description.features_of}"
        )
    video_folder = Path(config.videos).resolve() if config.videos else dataset.videos
    all_videos = videos = paths.require_videos(video_folder)
    if config.shard is not None:
        from common.features.shards import own_share

        videos = own_share(videos, config.shard)
    published = read_encoder_config(model.config)
    folder = dataset.features(model.name, variant_of(published, config))
    with noting_failure(folder):
        encoder = build_encoder(with_options(published, config), config.weights, config.window, unread=True)
    if config.mode == "tokens" and encoder.tubelet is None:
        raise UserError(f"--mode tokens: {encoder.config.title} gives no features over time; use --mode window")
    if config.mode == "tokens" and encoder.config.anchor == "end":
        raise UserError("--mode tokens: a token sees frames after its own, so --anchor end is for --mode window alone")
    identity = identity_of(model.name, encoder, config)
    has_images = any(os.path.isdir(path) for path in videos.values())
    frames_fps = description.frames_fps if has_images else None

    def is_finished(name: str) -> bool:
        return not force and is_extracted(folder / f"{name}.npy", identity, videos[name], frames_fps=frames_fps)

    finished = set(filter(is_finished, videos))
    summary = Summary(skipped=sorted(finished))
    todo = {name: path for name, path in videos.items() if name not in finished}
    if todo:
        target = select_device(device)
        with noting_failure(folder):
            encoder = with_values(encoder)
            encoder.prepare(target, choose_precision(config.precision, target), compiled=config.compile)
            ExtractionLoop(encoder, config, identity, frames_fps=frames_fps).run(todo, folder, summary, is_finished)
    if not config.videos:
        # of all videos, not of this share: every task of an array says what no task can do
        labels = paths.label_paths(dataset.ground_truth) | paths.label_paths(dataset.ground_truth_val)
        advice = f"a ground truth without a video of this name in {dataset.videos}; add the video or remove the labels"
        summary.failed |= {name: f"{path}: {advice}" for name, path in labels.items() if name not in all_videos}
    summary.log(folder)
    return summary


def identity_of(encoder_name: str, encoder: Encoder, config: ExtractionConfig) -> dict[str, Any]:
    """The part of a sidecar that decides whether features may be used again (`files.IDENTITY`)."""
    window = None  # the frames that a feature depends on; None = the frame alone
    if isinstance(encoder, ClipEncoder):
        window = {"clip_len": encoder.clip_len, "dilation": 1, "padding": "edge frames repeated", "mode": config.mode}
        window |= {"spacing": encoder.config.clip_spacing}  # None: neighbouring (sampled) frames
        if config.mode == "tokens":
            window |= {"tubelet": encoder.tubelet, "overlap": "half a clip, triangular weights"}
        else:
            is_centred = encoder.config.anchor == "centre"
            window |= {"stride": config.stride, "anchor": CENTRE if is_centred else END}
            window |= {"between": "linear" if is_centred else "held"}
    return {
        "encoder": encoder_name,
        "weights": encoder.weights.to_json(),
        "pooling": encoder.config.pooling,
        "window": window,
        "preprocessing": encoder.config.preprocessing.to_json(),
        "sampling": {"fps": config.fps} | ({"every": config.every} if config.every not in (None, 1) else {}),
        "dtype": config.dtype,
        "decoder": config.decoder,
    }


@dataclass
class Summary:
    """The outcome for each video."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: dict[str, str] = field(default_factory=dict)
    """What another process is extracting, and which."""

    @property
    def exit_code(self) -> int:
        """0 = all there, 1 = some failed, 3 = all failed."""
        if not self.failed:
            return 0
        return 1 if self.done or self.skipped or self.busy else 3

    def log(self, folder: Path) -> None:
        """Say what was done, and every failure with its reason."""
        counts = f"{len(self.done)} extracted, {len(self.skipped)} already there, {len(self.failed)} failed"
        log.info("%s: %s", folder, counts + (f", {len(self.busy)} left to another process" if self.busy else ""))
        for reason in self.busy.values():
            log.info("  skipped: %s", reason)
        for name, reason in self.failed.items():
            log.error("  %s: %s", name, reason)


class ExtractionLoop:
    """Decoding ahead in the background, the encoder and the writers here; batches never cross videos.

    So a video's features do not depend on which others are extracted with it.
    """

    def __init__(
        self, encoder: Encoder, config: ExtractionConfig, identity: dict[str, Any], *, frames_fps: float | None = None
    ):
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
            every=config.every or 1,
            chunk_frames=CHUNK_FRAMES if is_clip else self.batch_size,
            rule=None if self.on_gpu else rule,
            pin_memory=self.on_gpu,
            accept_damaged=config.accept_damaged,
            frames_fps=frames_fps,
            keep_all=encoder.config.clip_spacing is not None,
        )
        self.record = identity | {
            "title": encoder.config.title,
            "licence": encoder.config.licence,
            "recipe": encoder.config.recipe if is_clip else None,
            "num_parameters": encoder.num_parameters,
            "precision": encoder.precision,
            "batch_size": self.batch_size,
            "device": str(encoder.device),
            "decoder_version": decoder_version(config.decoder),
            "num_threads": torch.get_num_threads(),
            "versions": versions(),
            "git": git_state(paths.CHECKOUT),
        }

    def run(
        self,
        videos: dict[str, Path],
        folder: Path,
        summary: Summary,
        is_finished: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Extract `videos` into `folder`; a bad video goes into the summary, a full disk ends the run.

        One that another process is extracting is left to it, and one that `is_finished` by the time of its turn stays.
        """
        if self.config.fps is not None and self.plan.frames_fps is None:
            reason = f"--fps {self.config.fps:g}: it is unknown how many images a second these are"
            for name in [name for name, path in videos.items() if os.path.isdir(path)]:
                _quarantine(name, VideoError(videos[name], reason, advice=STATE_RATE), folder, summary)
            videos = {name: path for name, path in videos.items() if name not in summary.failed}
        jobs: dict[str, _VideoJob] = {}
        claimed = self._claimed(videos, folder, jobs, summary, is_finished)
        if self.config.num_decoders > 1:
            events = decode_in_processes(claimed, self.plan, min(self.config.num_decoders, len(videos)))
        else:
            events = decode_in_thread(claimed, self.plan)
        expected = sum(estimate_frames(videos).values())
        # whatever ends the loop, an interruption too: writers leave no file half written, decoders no process behind
        with (
            _discarding(jobs),
            contextlib.closing(events),
            progress(total=expected, description=self.record["encoder"], unit="frames") as bar,
        ):
            for name, event in events:
                try:
                    if isinstance(event, Chunk):
                        jobs[name].feed(self._resized(event), event)
                        bar.update(len(event.frames))
                    else:
                        self._end(name, jobs.pop(name), event, summary)
                except OSError as error:
                    raise _not_written(folder / f"{name}.npy", error) from error

    def _claimed(
        self,
        videos: dict[str, Path],
        folder: Path,
        jobs: dict[str, _VideoJob],
        summary: Summary,
        is_finished: Callable[[str], bool],
    ) -> Iterator[tuple[str, Path]]:
        """Each video when its turn comes and its feature file is this process's to write; its job is in `jobs` then."""
        from common.base.locks import Held

        for name, path in videos.items():
            features = folder / f"{name}.npy"
            try:
                writer = FeatureWriter(features, self.encoder.feature_dim, self.config.dtype)
            except Held as error:
                summary.busy[name] = str(error)
                continue
            except OSError as error:
                raise _not_written(features, error) from error
            jobs[name] = _VideoJob(path, self.stream(), writer)
            if is_finished(name):  # by another process, since this one began
                jobs.pop(name).writer.discard()
                summary.skipped.append(name)
                continue
            yield name, path

    def stream(self, batch_size: int | None = None) -> FeatureStream:
        """What makes feature rows of one video's frames, so many in one call of the network (default: those of the extraction)."""
        batcher = Batcher(self.encode, batch_size or self.batch_size)
        if not isinstance(self.encoder, ClipEncoder):
            return FrameStream(batcher)
        clip_len, spacing = self.encoder.clip_len, self.encoder.config.clip_spacing
        if self.config.mode == "window":
            return WindowStream(batcher, Window(clip_len, spacing, self.encoder.config.anchor), self.config.stride)
        if spacing is None:
            return TokenStream(batcher, clip_len, self.encoder.tubelet)
        return SpacedTokenStream(batcher, clip_len, self.encoder.tubelet, spacing)

    def _resized(self, chunk: Chunk) -> torch.Tensor:
        """A chunk's frames as `(n, 3, size, size)`; on a GPU they cross as they were decoded and are resized there."""
        if not self.on_gpu or not len(chunk.frames):
            return chunk.frames
        return resize(chunk.frames.to(self.encoder.device, non_blocking=True), self.encoder.preprocessing)

    def _end(self, name: str, job: _VideoJob, end: VideoError | DecodingRecord, summary: Summary) -> None:
        """Publish a video's features, or note why there are none."""
        folder = job.writer.path.parent
        if isinstance(end, DecodingRecord):
            job.finish(self.record, end, self.plan.frames_fps)
            summary.done.append(name)
            paths.quarantine_note(folder, name).unlink(missing_ok=True)
            return
        job.writer.discard()
        _quarantine(name, end, folder, summary)


def _quarantine(name: str, error: VideoError, folder: Path, summary: Summary) -> None:
    """Note why a video has no features in `folder`.

    A note for each video, because the tasks of a job array write at the same time; it goes when there are features.
    """
    summary.failed[name] = str(error)
    content = {"video": str(error.path), "reason": error.reason, "frames_given": error.frames_given}
    write_json(paths.quarantine_note(folder, name), content | {"frames_promised": error.promised})


def _not_written(features: Path, error: OSError) -> UserError:
    return UserError(f"{features}: {describe_os_error(error)}")


@contextlib.contextmanager
def _discarding(jobs: dict[str, _VideoJob]) -> Iterator[None]:
    """Give up at the end what is not finished."""
    try:
        yield
    finally:
        for job in jobs.values():
            job.writer.discard()


class _VideoJob:
    """One video on its way to its feature file: decoded frames in, rows to the writer."""

    def __init__(self, path: Path, stream: FeatureStream, writer: FeatureWriter):
        self.path, self.stream, self.writer = path, stream, writer
        self.started = time.monotonic()
        self.seconds: list[float] = []
        self.sampled: list[int] = []

    def feed(self, frames: torch.Tensor, chunk: Chunk) -> None:
        """Take a chunk, whose frames are `(n, 3, size, size)` by now."""
        self.seconds += chunk.seconds
        self.sampled += chunk.sampled
        self.writer.append(self.stream.push(frames, chunk.frame_seconds, chunk.wanted))

    def finish(self, record: dict[str, Any], decoding: DecodingRecord, frames_fps: float | None) -> None:
        """Write the last rows and publish the pair of files."""
        self.writer.append(self.stream.finish())
        timeline = Timeline(np.array(self.seconds), np.array(self.sampled))
        is_folder = self.path.is_dir()
        facts = {
            "video": self.path.name,
            "video_bytes": video_bytes(self.path),
            "fingerprint": video_fingerprint(self.path),
            "frames_fps": frames_fps if is_folder else None,
            "decoding": decoding.to_json(),
            "timeline": timeline.to_json(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        self.writer.finish(record | facts)
