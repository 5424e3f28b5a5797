"""The loop that every `extract_features.py` calls: videos in, feature files and sidecars out."""

from __future__ import annotations

import argparse
import datetime
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common import paths
from common.config import ExtractionConfig, read_encoder_config
from common.features import FeatureWriter, is_finished
from common.options import add_options, resolve
from common.phases import label_paths
from common.prefetch import prefetch
from common.runtime import UserError, describe_os_error, git_state, keep_freed_memory, progress, select_device, versions
from common.video import VideoError, decode, decoder_version, probe
from common.windows import Timeline, sample_at_fps

if TYPE_CHECKING:
    import torch

    from common.encoder import Encoder

log = logging.getLogger(__name__)

CPU_BATCH_SIZE = 16  # fixed: another batch size changes features in the last digits
GPU_BATCH_SIZE = 64
PREFETCHED_BATCHES = 3


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


def main(argv: list[str] | None = None, *, model: str | None = None) -> int:
    """Entry point; `model` names the folder whose script was started. Returns the exit code of `Summary`."""
    parser = argparse.ArgumentParser(description="Extract one feature vector per video frame with a frozen encoder.")
    if model is None:
        parser.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    add_options(parser, ExtractionConfig)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 ... (default: the best there is)")
    parser.add_argument("--force", action="store_true", help="extract again what is finished")
    given = vars(parser.parse_args(argv))
    config = resolve(ExtractionConfig, given)
    folder = paths.model(model or given["model"])
    return extract(folder, config, device=given["device"], force=given["force"]).exit_code


def extract(model: paths.Model, config: ExtractionConfig, *, device: str = "auto", force: bool = False) -> Summary:
    """Extract every video of a data set that is not finished; one bad video does not stop the others.

    Raises `UserError` for what concerns the whole run (weights, device, disk, features made in another way).
    """
    from common.encoder import build_encoder  # torch and a model library: only where a network runs

    keep_freed_memory()
    dataset = paths.dataset(config.dataset)
    videos = _find_videos(dataset, config)
    encoder = build_encoder(read_encoder_config(model.config), config.weights)
    identity = _identity(model.name, encoder, config)
    folder = dataset.features(model.name, config.variant)
    finished = {name for name in videos if not force and is_finished(folder / f"{name}.npy", identity)}
    summary = Summary(skipped=sorted(finished))
    todo = {name: path for name, path in videos.items() if name not in finished}
    if todo:
        encoder.prepare(select_device(device), config.precision)
        _VideoLoop(encoder, config, identity).run(todo, folder, summary)
    if not config.videos:
        summary.failed |= _labels_without_video(dataset, videos)
    summary.log(folder)
    return summary


def _find_videos(dataset: paths.Dataset, config: ExtractionConfig) -> dict[str, Path]:
    folder = Path(config.videos).resolve() if config.videos else dataset.videos
    videos = paths.find_videos(folder)
    if not videos:
        raise UserError(f"{folder}: no video files here (looked for {', '.join(paths.VIDEO_SUFFIXES)})")
    return videos


def _labels_without_video(dataset: paths.Dataset, videos: dict[str, Path]) -> dict[str, str]:
    labels = label_paths(dataset.ground_truth) | label_paths(dataset.ground_truth_val)
    reason = "{}: a ground truth without a video of this name in {}; add the video or remove the labels"
    return {name: reason.format(path, dataset.videos) for name, path in labels.items() if name not in videos}


def _identity(encoder_name: str, encoder: Encoder, config: ExtractionConfig) -> dict[str, Any]:
    """The part of a sidecar that decides whether features may be used again (`features.IDENTITY`)."""
    return {
        "encoder": encoder_name,
        "weights": encoder.weights.to_json(),
        "pooling": encoder.config.pooling,
        "window": encoder.window,
        "preprocessing": encoder.config.preprocessing.to_json(),
        "sampling": {"fps": config.fps},
        "dtype": config.dtype,
        "decoder": config.decoder,
    }


class _VideoLoop:
    """Decoding and resizing in a background thread, the encoder and the writer in this one; batches stay in a video."""

    def __init__(self, encoder: Encoder, config: ExtractionConfig, identity: dict[str, Any]):
        self.encoder, self.config = encoder, config
        self.batch_size = config.batch_size or (CPU_BATCH_SIZE if encoder.device.type == "cpu" else GPU_BATCH_SIZE)
        self.record = identity | {
            "title": encoder.config.title,
            "licence": encoder.config.licence,
            "num_parameters": encoder.num_parameters,
            "precision": config.precision,
            "batch_size": self.batch_size,
            "device": str(encoder.device),
            "decoder_version": decoder_version(config.decoder),
            "versions": versions(),
            "git": git_state(paths.CHECKOUT),
        }

    def run(self, videos: dict[str, Path], folder: Path, summary: Summary) -> None:
        """Extract `videos` into `folder`; a video that cannot be read goes into the summary, a full disk ends the run."""
        with progress(total=_promised_frames(videos), description=self.record["encoder"], unit="frames") as bar:
            for name, path in videos.items():
                bar.set_postfix_str(name)
                try:
                    self._extract(path, folder / f"{name}.npy", bar)
                    summary.done.append(name)
                except VideoError as error:
                    summary.failed[name] = str(error)
                except OSError as error:
                    raise UserError(f"{folder / name}.npy: {describe_os_error(error)}") from error

    def _extract(self, path: Path, target: Path, bar) -> None:
        started = time.monotonic()
        seconds: list[float] = []
        sampled: list[int] = []
        with FeatureWriter(target, self.encoder.feature_dim, self.config.dtype) as writer:
            for pixels in prefetch(self._batches(path, seconds, sampled), PREFETCHED_BATCHES):
                writer.append(self.encoder.encode(pixels).numpy())
                bar.update(len(pixels))
            timeline = Timeline(np.array(seconds), np.array(sampled))
            finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            facts = {"video": path.name, "timeline": timeline.to_json(), "finished": finished}
            writer.finish(self.record | facts | {"seconds": round(time.monotonic() - started, 3)})

    def _batches(self, path: Path, seconds: list[float], sampled: list[int]) -> Iterator[torch.Tensor]:
        """Preprocessed batches `(N, 3, size, size)` uint8.

        Fills `seconds` with the time of every decoded frame and `sampled` with the indices of those in the batches.
        """
        import torch

        from common.encoder import preprocess

        batch = []
        for index, frame, chosen in sample_at_fps(decode(path, self.config.decoder), self.config.fps):
            seconds.append(frame.seconds)
            if not chosen:
                continue
            sampled.append(index)
            batch.append(preprocess(torch.from_numpy(frame.image), self.encoder.preprocessing))
            if len(batch) == self.batch_size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)


def _promised_frames(videos: dict[str, Path]) -> int | None:
    """Frames that the headers promise, for the progress bar only; None when no header says."""
    total = 0
    for path in videos.values():
        try:
            total += probe(path).header_frames or 0
        except VideoError:
            continue  # reported when its turn comes
    return total or None
