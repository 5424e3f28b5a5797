"""The data of Stage 2: which annotated data sets, their clips in batches, and the record of the videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from common.base import paths
from common.base.files import cached_fingerprint
from common.base.runtime import UserError, progress
from common.video.preprocess import Preprocessing
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.lora.labelled_clips import LabelledClips, SegmentedVideo
from pretrain.lora.options import FinetuneOptions
from pretrain.ssl_dataset import checked_batches, in_processes
from pretrain.video_data.augment import LabelledView
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.video_index import VideoEntry


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
            "python pretrain/cataract101/import_annotations.py FOLDER"
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
    settings["view"] = view
    train, validation = (
        LabelledClips(datasets, classes, split, reader=ClipReader(), **settings) for split in ("train", "validation")
    )
    return Clips(train, validation, classes.names)


def seen_corpora(clips: Clips) -> list[Corpus]:
    """The videos of both sides with their fingerprints, by data set, for `corpora.write_manifest`."""
    entries: dict[str, list[VideoEntry]] = {}
    for video in progress(clips.videos, description="fingerprints", unit="video"):
        corpus, _, name = video.name.partition("/")
        entry = VideoEntry(
            path=video.path,
            name=name,
            duration_seconds=video.num_frames / video.fps,
            fps=video.fps,
            num_frames=video.num_frames,
            size_bytes=video.path.stat().st_size,
            fingerprint=cached_fingerprint(video.path),
        )
        entries.setdefault(corpus, []).append(entry)
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
