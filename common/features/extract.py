"""One encoder over a data set's videos: what is to be done, what identifies it, and the loop that does it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.paths import label_paths
from common.base.runtime import UserError, choose_precision, keep_freed_memory, select_device
from common.encoders.base import ClipEncoder, Encoder, build_encoder
from common.encoders.config import read_encoder_config
from common.features.config import ExtractionConfig, with_options
from common.features.files import is_extracted
from common.features.loop import ExtractionLoop, Summary
from common.features.shards import assign_videos, parse_shard

log = logging.getLogger(__name__)


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
        if not force and is_extracted(folder / f"{name}.npy", identity, path.stat().st_size)
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


def _own_share(videos: dict[str, Path], shard: str | None) -> dict[str, Path]:
    """The videos of share `i/n`, balanced by frames; all of them without a shard."""
    if shard is None:
        return videos
    index, count = parse_shard(shard)
    names = assign_videos(videos, count)[index - 1]
    log.info("shard %d of %d: %d of %d videos", index, count, len(names), len(videos))
    return {name: videos[name] for name in names}
