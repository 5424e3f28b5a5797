"""Labelled clips of the annotated cataract data sets, for Stage 2 and for the kNN probe.

A clip is labelled with the class of the frame at its position `clip_len // 2`, as encoders see their windows; a model
of single frames takes `clip_len` 1. Training clips are a pure function of the seed and of the sample's number, so that
any number of workers and any restart give the same ones. Validation clips are a fixed grid.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from common.base import paths
from common.base.runtime import UserError, generator
from common.dataset.segments import without
from common.video.preprocess import Preprocessing, resize
from common.video.probe import VideoError
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.lora.labelled_videos import EXCLUDED, SegmentedVideo, choose_validation, read_labelled_videos
from pretrain.video_data.augment import LabelledView, labelled_view

log = logging.getLogger(__name__)

Split = Literal["train", "validation"]


class FrameReader(Protocol):
    """Reads frames by time, such as `pretrain.video_data.clips.ClipReader`."""

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        """The decoded frames `(T, H, W, 3)` uint8 nearest to the times `(T,)`."""


class LabelledFrame(NamedTuple):
    """A labelled frame: what a clip is made around."""

    video: int
    frame: int
    label: int


class LabelledClips(TorchDataset):
    """Clips with their class: `{"clip": (T, 3, size, size) uint8, "label": int, "video": "<data set>/<video>"}`.

    Split `train` takes any sample number from 0 on: each class present is equally likely, then each frame of that
    class. Split `validation` holds one clip for each point of a grid of `grid_seconds` that has a class. `len()` is the
    number of grid points on either side, so an epoch of training sees as many clips as its videos have grid points.

    Pixels are resized by the encoder's own rule; training clips by `view`, where there is one, drawn by the sample's number.
    `common.video.preprocess.normalise` makes them floats on the device.
    Of `packed` folders those of the data sets are read in place of their videos. The videos `left_out` (<data set>/<video>) are
    on neither side.
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
        packed: Sequence[Path] = (),
        left_out: Collection[str] = (),
    ):
        self.split, self.reader, self.preprocessing, self.seed = split, reader, preprocessing, seed
        self.view = view if split == "train" else None
        self.offsets = (np.arange(clip_len) - clip_len // 2) / fps
        self.videos: list[SegmentedVideo] = []
        for dataset in datasets:
            found = [video for video in read_labelled_videos(dataset, classes, packed) if video.name not in left_out]
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
        ends = video.seconds_at(0), video.seconds_at(video.num_frames - 1)
        seconds = np.clip(video.seconds_at(frame) + self.offsets, *ends)
        frames = torch.from_numpy(self.reader.read(video.path, seconds))
        if self.view is None:
            return resize(frames, self.preprocessing)
        return labelled_view(frames.permute(0, 3, 1, 2), self.view, generator(self.seed, "labelled view", number))

    def _grid_of(self, index: int, grid_seconds: float) -> Iterator[LabelledFrame]:
        video = self.videos[index]
        for frame in video.grid(grid_seconds):
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
