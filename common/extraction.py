"""The loop that every `extract_features.py` calls: videos in, feature files and sidecars out."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common import paths
from common.config import ExtractionConfig, read_encoder_config
from common.encoder import ClipEncoder, Encoder, build_encoder, with_options
from common.extraction_loop import ExtractionLoop
from common.extraction_summary import Summary
from common.features import is_finished
from common.options import add_options, resolve
from common.phases import label_paths
from common.runtime import UserError, keep_freed_memory, select_device
from common.shards import assign_videos, parse_shard, shard_from_environment

log = logging.getLogger(__name__)


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
    if config.shard is None and (own := shard_from_environment()):
        config = replace(config, shard=f"{own[0]}/{own[1]}")
    folder = paths.model(model or given["model"])
    return extract(folder, config, device=given["device"], force=given["force"]).exit_code


def extract(model: paths.Model, config: ExtractionConfig, *, device: str = "auto", force: bool = False) -> Summary:
    """Extract every video of a data set that is not finished; one bad video does not stop the others.

    Raises `UserError` for what concerns the whole run (weights, device, disk, features made in another way).
    """
    keep_freed_memory()
    dataset = paths.dataset(config.dataset)
    videos = _find_videos(dataset, config)
    all_videos, videos = videos, _own_share(videos, config.shard)
    encoder = build_encoder(with_options(read_encoder_config(model.config), config), config.weights)
    if config.mode == "tokens" and encoder.tubelet is None:
        raise UserError(f"--mode tokens: {encoder.config.title} gives no features over time; use --mode window")
    identity = _identity(model.name, encoder, config)
    folder = dataset.features(model.name, config.variant)
    finished = {
        name
        for name, path in videos.items()
        if not force and is_finished(folder / f"{name}.npy", identity, path.stat().st_size)
    }
    summary = Summary(skipped=sorted(finished))
    todo = {name: path for name, path in videos.items() if name not in finished}
    if todo:
        target = select_device(device)
        encoder.prepare(target, choose_precision(config.precision, target), compiled=config.compile)
        ExtractionLoop(encoder, config, identity).run(todo, folder, summary)
    if not config.videos:
        summary.failed |= _labels_without_video(dataset, all_videos)
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
        "window": _window(encoder, config),
        "preprocessing": encoder.config.preprocessing.to_json(),
        "sampling": {"fps": config.fps},
        "dtype": config.dtype,
        "decoder": config.decoder,
    }


def _window(encoder: Encoder, config: ExtractionConfig) -> dict[str, Any] | None:
    """How many neighbouring (sampled) frames a feature depends on; None = the frame alone."""
    if not isinstance(encoder, ClipEncoder):
        return None
    common = {"clip_len": encoder.clip_len, "dilation": 1, "padding": "edge frames repeated", "mode": config.mode}
    if config.mode == "tokens":
        return common | {"tubelet": encoder.tubelet, "overlap": "half a clip, triangular weights"}
    return common | {"stride": config.stride, "anchor": "clip_len // 2", "between": "linear"}


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU that computes in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _own_share(videos: dict[str, Path], shard: str | None) -> dict[str, Path]:
    """The videos of share `i/n`, balanced by frames; all of them without a shard."""
    if shard is None:
        return videos
    index, count = parse_shard(shard)
    names = assign_videos(videos, count)[index - 1]
    log.info("shard %d of %d: %d of %d videos", index, count, len(names), len(videos))
    return {name: videos[name] for name in names}
