"""Labelled clips of the annotated cataract data sets, for Stage 2 and for the kNN probe.

A clip is labelled with the class of the frame at its position `clip_len // 2`, as encoders see their windows; a model
of single frames takes `clip_len` 1. Training clips are a pure function of the seed and of the sample's number, so that
any number of workers and any restart give the same ones. Validation clips are a fixed grid.
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from common.base import paths
from common.base.entries import nfc, on_disk
from common.base.files import misfit, read_json
from common.base.runtime import UserError, generator
from common.dataset.description import read_description, read_phases
from common.dataset.phases import IGNORED, read_labels
from common.dataset.segments import Segments, find_segments, without
from common.video.label_grid import LabelGrid
from common.video.preprocess import Preprocessing, resize
from common.video.probe import VideoError
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.video_data.augment import LabelledView, labelled_view

log = logging.getLogger(__name__)

Split = Literal["train", "validation"]
# of the record of an import, what Stage 2 takes from it (`common.base.files.misfit`)
IMPORTED = {"release": str, "videos": {str: {"fps": float, "stratum": str}}}
EXCLUDED = -1  # frames that are not learned from


class FrameReader(Protocol):
    """Reads frames by time, such as `pretrain.video_data.clips.ClipReader`."""

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        """The decoded frames `(T, H, W, 3)` uint8 nearest to the times `(T,)`."""


@dataclass(frozen=True, eq=False)
class SegmentedVideo:
    """A video with its runs of classes; `stratum` is what the split spreads over both sides (a surgeon)."""

    name: str
    path: Path
    fps: float
    num_frames: int
    stratum: str
    segments: Segments

    def class_at(self, frame: int) -> int:
        """The class of a frame, -1 for one that is not learned from."""
        return int(self.segments.labels[np.searchsorted(self.segments.ends, frame, side="right")])


class LabelledFrame(NamedTuple):
    """A labelled frame: what a clip is made around."""

    video: int
    frame: int
    label: int


def read_labelled_videos(dataset: paths.Dataset, classes: PhaseClasses) -> list[SegmentedVideo]:
    """The annotated videos of an imported data set, by name.

    Raises `UserError` for a data set that no importer wrote, a video without a file, and phases without a class.
    """
    record = dataset.import_record
    if not record.is_file():
        raise UserError(f"{record}: no such file; import the data set with pretrain/<data set>/import_annotations.py")
    manifest = read_json(record, "import the data set again")
    if wrong := misfit(manifest, IMPORTED):
        raise UserError(f"{record}: not the record of an import ({wrong}); import the data set again")
    mapping = read_phases(dataset)
    files = paths.find_videos(dataset.videos)
    entries = {nfc(name): entry for name, entry in manifest["videos"].items()}
    missing = sorted(entries.keys() - files.keys())
    if missing:
        raise UserError(
            f"{dataset.videos}: {len(missing)} annotated videos have no file: {', '.join(missing[:8])}; "
            "import the data set again without --annotations_only"
        )
    found = [classes.class_of(manifest["release"], phase) for phase in mapping.names]
    class_of = np.array([EXCLUDED if index is None else index for index in found])
    description = read_description(dataset)
    grid = LabelGrid(description.label_fps, description.label_every)
    videos = []
    for name, entry in sorted(entries.items()):
        phase_ids = _of_frames(read_labels(on_disk(dataset.ground_truth / f"{name}.txt"), mapping), grid, entry["fps"])
        labels = np.where(phase_ids == IGNORED, EXCLUDED, class_of[np.maximum(phase_ids, 0)])
        title, segments = f"{dataset.name}/{name}", find_segments(labels)
        videos.append(SegmentedVideo(title, files[name], entry["fps"], len(labels), entry["stratum"], segments))
    return videos


def _of_frames(phase_ids: np.ndarray, grid: LabelGrid, fps: float) -> np.ndarray:
    """The label nearest to each frame of a video at `fps`, `(num_frames,)`, of labels on a `grid` of their own."""
    if grid.is_every_frame:
        return phase_ids
    period = fps / grid.rate(fps)  # frames from a label to the next
    frames = np.arange(math.ceil(len(phase_ids) * period))
    return phase_ids[np.minimum(np.rint(frames / period).astype(int), len(phase_ids) - 1)]


def choose_validation(videos: Sequence[SegmentedVideo], share: float) -> set[str]:
    """Names of the videos that validate: about `share` of them and of each stratum, chosen by names alone.

    Raises `UserError` when either side would be empty.
    """

    def order(video: SegmentedVideo) -> tuple[str, str]:
        return video.stratum, hashlib.sha256(video.name.encode()).hexdigest()

    # every 1/share-th of a list that is sorted by stratum takes the same share of each
    steps = np.floor(np.arange(len(videos) + 1) * share + 1e-9)
    chosen = {video.name for video, step in zip(sorted(videos, key=order), np.diff(steps), strict=True) if step}
    if not 0 < len(chosen) < len(videos):
        raise UserError(f"validation share {share:g} of {len(videos)} videos leaves one side without a video")
    return chosen


class LabelledClips(TorchDataset):
    """Clips with their class: `{"clip": (T, 3, size, size) uint8, "label": int, "video": "<data set>/<video>"}`.

    Split `train` takes any sample number from 0 on: each class present is equally likely, then each frame of that
    class. Split `validation` holds one clip for each point of a grid of `grid_seconds` that has a class. `len()` is the
    number of grid points on either side, so an epoch of training sees as many clips as its videos have grid points.

    Pixels are resized by the encoder's own rule; training clips by `view`, where there is one, drawn by the sample's number.
    `common.video.preprocess.normalise` makes them floats on the device.
    Times are frame number / fps: videos start at 0 and run at a constant rate, as those of both releases do.
    """

    def __init__(
        self,
        datasets: Sequence[paths.Dataset],
        classes: PhaseClasses,
        split: Split,
        *,
        reader: FrameReader,
        preprocessing: Preprocessing,
        clip_len: int = 1,
        fps: float = 4.0,
        seed: int = 42,
        validation_share: float = 0.2,
        grid_seconds: float = 5.0,
        view: LabelledView | None = None,
    ):
        self.split, self.reader, self.preprocessing, self.seed = split, reader, preprocessing, seed
        self.view = view if split == "train" else None
        self.offsets = (np.arange(clip_len) - clip_len // 2) / fps
        self.videos: list[SegmentedVideo] = []
        for dataset in datasets:
            found = read_labelled_videos(dataset, classes)
            validation = choose_validation(found, validation_share)
            self.videos += [video for video in found if (video.name in validation) == (split == "validation")]
        self.grid = [moment for index in range(len(self.videos)) for moment in self._grid_of(index, grid_seconds)]
        self.spans = self._spans_by_class()
        if not self.grid or not self.spans:
            raise UserError(f"{split} split: no labelled clip in {len(self.videos)} videos")
        lacking = [name for label, name in enumerate(classes.names) if label not in self.spans]
        if lacking:
            log.warning("%s split: no frame of %s", split, ", ".join(lacking))

    def __len__(self) -> int:
        return len(self.grid)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Sample `number`.

        Raises `UserError` naming a video that cannot be decoded; a `VideoError` would lose its type on the way out of a
        worker process.
        """
        place = self.grid[number] if self.split == "validation" else self.draw(number)
        video = self.videos[place.video]
        try:
            return {"clip": self._clip(video, place.frame, number), "label": place.label, "video": video.name}
        except VideoError as error:
            raise UserError(str(error)) from error

    def draw(self, number: int) -> LabelledFrame:
        """The labelled frame of training sample `number`."""
        random = generator(self.seed, "labelled clip", number)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=random))

        label = list(self.spans)[below(len(self.spans))]
        spans = self.spans[label]
        ends = np.cumsum(spans[:, 2] - spans[:, 1])
        position = below(int(ends[-1]))  # among all frames of the class, laid end to end
        chosen = int(np.searchsorted(ends, position, side="right"))
        video, _, end = spans[chosen].tolist()
        return LabelledFrame(video, end - int(ends[chosen] - position), label)

    def _clip(self, video: SegmentedVideo, frame: int, number: int) -> torch.Tensor:
        seconds = np.clip(frame / video.fps + self.offsets, 0, (video.num_frames - 1) / video.fps)
        frames = torch.from_numpy(self.reader.read(video.path, seconds))
        if self.view is None:
            return resize(frames, self.preprocessing)
        return labelled_view(frames.permute(0, 3, 1, 2), self.view, generator(self.seed, "labelled view", number))

    def _grid_of(self, index: int, grid_seconds: float) -> Iterator[LabelledFrame]:
        video = self.videos[index]
        step = grid_seconds * video.fps
        for frame in np.arange(step / 2, video.num_frames, step).astype(int).tolist():
            label = video.class_at(frame)
            if label != EXCLUDED:
                yield LabelledFrame(index, frame, label)

    def _spans_by_class(self) -> dict[int, np.ndarray]:
        """Class -> its segments `(n, 3)`: video, first frame, end."""
        spans: dict[int, list[tuple[int, int, int]]] = {}
        for index, video in enumerate(self.videos):
            for label, start, end in without(video.segments, EXCLUDED):
                spans.setdefault(label, []).append((index, start, end))
        return {label: np.array(spans[label]) for label in sorted(spans)}
