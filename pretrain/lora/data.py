"""The data of Stage 2: which annotated data sets, their clips in batches, and the record of the videos."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from common.base import paths
from common.base.files import cached_fingerprint, video_bytes
from common.base.runtime import UserError, progress
from common.dataset.description import features_owner
from common.video.preprocess import Preprocessing
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.lora.labelled_videos import SegmentedVideo, read_labelled_videos
from pretrain.lora.options import FinetuneOptions
from pretrain.ssl_dataset import checked_batches, in_processes
from pretrain.video_data.augment import LabelledView
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import Corpus, check_packed, excluded_fingerprints
from pretrain.video_data.packed import is_shard, read_packed_corpus, read_shard
from pretrain.video_data.video_index import VideoEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clips:
    """Both sides of the labelled videos, and the names of their classes."""

    train: LabelledClips
    validation: LabelledClips
    class_names: tuple[str, ...]

    @property
    def videos(self) -> list[SegmentedVideo]:
        """All videos: those of the validation decide too what is learned."""
        return self.train.videos + self.validation.videos


def chosen_datasets(names: Sequence[str], known: Sequence[str]) -> list[paths.Dataset]:
    """The data sets called `names`, or without names those of `known` that are there.

    Raises `UserError` that says how to import them when there are none.
    """
    if names:
        return [paths.dataset(name) for name in names]
    folders = [paths.repository_root() / "data" / name for name in known]
    found = [paths.Dataset(folder) for folder in folders if folder.is_dir()]
    if not found:
        raise UserError(
            f"no annotated data set: none of {', '.join(known)} is under {folders[0].parent}. Get a release "
            "(pretrain/README.md says where), then run python pretrain/cataracts1k/import_annotations.py FOLDER or "
            "python pretrain/cataract101/import_annotations.py FOLDER; or name others by --datasets, and their phases by --classes"
        )
    return found


def read_clips(options: FinetuneOptions, classes: PhaseClasses, preprocessing: Preprocessing) -> Clips:
    """The labelled clips that the options (completed) ask for.

    Raises `UserError` for data sets that are not there, not imported or too small to be split.
    """
    datasets = chosen_datasets(options.datasets, tuple(classes.datasets))
    settings: dict[str, Any] = {"preprocessing": preprocessing} | {
        name: getattr(options, name) for name in ("clip_len", "fps", "seed", "validation_share", "grid_seconds")
    }
    view = None
    if options.crop_scale < 1 or options.flip_share or options.colour:
        scale = (options.crop_scale, 1.0)
        view = LabelledView(preprocessing.size, scale, flip_chance=options.flip_share, colour=options.colour)
    packed = [Path(folder).expanduser() for folder in options.packed]
    check_labelled_packs(datasets, packed, fps=options.fps if options.clip_len > 1 else None, size=preprocessing.size)
    settings |= {
        "view": view,
        "packed": packed,
        "left_out": excluded_videos(datasets, classes, options.exclude, packed),
    }
    train, validation = (
        LabelledClips(datasets, classes, split, reader=ClipReader(), **settings) for split in ("train", "validation")
    )
    return Clips(train, validation, classes.names)


def check_labelled_packs(
    datasets: Sequence[paths.Dataset], packed: Sequence[Path], *, fps: float | None, size: int
) -> None:
    """Hold packed folders against the clips that are read from them (`corpora.check_packed`).

    Raises `UserError` for a folder that is not packed, or of none of the data sets.
    """
    names = {name for dataset in datasets for name in (dataset.name, features_owner(dataset).name)}
    for folder in packed:
        corpus = read_packed_corpus(folder)
        if corpus.name not in names:
            raise UserError(
                f"--packed {folder}: expected videos of {', '.join(sorted(names))}, found those of {corpus.name}; leave the folder out"
            )
        if first := next(iter(corpus.shards().values()), None):
            check_packed([Corpus(corpus.name, (read_shard(first).entry,))], fps=fps, crop_size=size)


def excluded_videos(
    datasets: Sequence[paths.Dataset], classes: PhaseClasses, exclude: Sequence[str], packed: Sequence[Path]
) -> set[str]:
    """The labelled videos (`<data set>/<video>`) whose content `exclude` names (`corpora.excluded_fingerprints`)."""
    if not exclude:
        return set()
    videos = [video for dataset in datasets for video in read_labelled_videos(dataset, classes, packed)]
    entries = {video.name: entry_of(video) for video in progress(videos, description="fingerprints", unit="video")}
    fingerprints = excluded_fingerprints(exclude, {entry.size_bytes for entry in entries.values()})
    left_out = {name for name, entry in entries.items() if entry.fingerprint in fingerprints}
    log.info("--exclude: %d of %d labelled videos left out", len(left_out), len(videos))
    return left_out


def entry_of(video: SegmentedVideo) -> VideoEntry:
    """What is recorded of a labelled video: of a packed one what its shard says."""
    name = video.name.partition("/")[2]
    if is_shard(video.path):
        return replace(read_shard(video.path).entry, name=name)
    return VideoEntry(
        path=video.path,
        name=name,
        duration_seconds=video.num_frames / video.fps,
        fps=video.fps,
        num_frames=video.num_frames,
        size_bytes=video_bytes(video.path),
        fingerprint=cached_fingerprint(video.path),
    )


def seen_corpora(clips: Clips) -> list[Corpus]:
    """The videos of both sides with their fingerprints, by data set, for `corpora.write_manifest`."""
    entries: dict[str, list[VideoEntry]] = {}
    for video in progress(clips.videos, description="fingerprints", unit="video"):
        entries.setdefault(video.name.partition("/")[0], []).append(entry_of(video))
    return [Corpus(name, tuple(videos)) for name, videos in entries.items()]


def read_batches(
    clips: LabelledClips, numbers: Sequence[int], batch_size: int, *, num_workers: int = 0, pin_memory: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Batches `{"clip": (B, T, 3, size, size) uint8, "label": (B,), "video": [...]}` of samples `numbers`.

    Raises `UserError` naming the video that cannot be decoded, and when a worker process dies.
    """
    ahead = in_processes(num_workers)
    loader = DataLoader(clips, batch_size, sampler=numbers, pin_memory=pin_memory, **ahead)
    return checked_batches(loader)
