"""Features and labels of a split -> padded batches with targets and masks."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from common.base.runtime import UserError, counted, generator, prefetch
from common.dataset.phases import IGNORED, LENGTH_TOLERANCE, PhaseMapping, allowed_difference, length_ratio, read_labels
from common.features.files import FeatureFile, open_features
from common.video.label_grid import EVERY_FRAME, LabelGrid
from common.video.timeline import Timeline, nearest_in_time

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the free memory may hold features; larger sets stay memory-mapped
DEVICE_SHARE = 0.9  # of a GPU's free memory, likewise; larger sets are sent to it batch by batch
STEP_BYTES = 2e9  # of it that stay free for the steps: those of the published head on 15,000 frames take 1.2e9
PREFETCHED_BATCHES = 2
CPU = torch.device("cpu")
STATISTICS_ROWS = 1024  # that are float64 at a time


@dataclass(eq=False)
class VideoFeatures:
    """One video as the head sees it: its features, which frames they stand for, and its labels (None: unlabelled).

    `rows` `(T, feature_dim)` is a view of the feature file; `label_frames` `(n,)` the decoded frame of each label that
    the video reaches; `target` `(T,)` the phase at each feature's frame, `IGNORED` where none counts; `num_labels` the
    rows of a prediction: one a label, or without labels `n`; `feature_stride` what was said of features without a
    sidecar; `label_fps` labels a second, None where unknown.
    """

    name: str
    source: FeatureFile
    rows: np.ndarray
    timeline: Timeline
    label_frames: np.ndarray
    num_labels: int
    target: np.ndarray | None = None
    feature_stride: float = 1
    label_fps: float | None = None

    def rows_of_labels(self, *, causal: bool = False) -> np.ndarray:
        """For each of the `num_labels` rows of a prediction, the position in `rows` of the feature that stands for it.

        `(num_labels,)`: see `Timeline.nearest_sample`; labels beyond the video's end take its last.
        """
        reached = self.timeline.nearest_sample(self.label_frames[: self.num_labels], causal=causal)
        return np.pad(reached, (0, self.num_labels - len(reached)), mode="edge")

    @property
    def features_per_second(self) -> float | None:
        """Mean rate of `rows`; None where it is not known."""
        timeline = self.timeline
        span = float(timeline.seconds[timeline.sampled[-1]] - timeline.seconds[timeline.sampled[0]])
        per_second = (len(timeline.sampled) - 1) / span if span > 0 else None
        if self.source.sidecar is None:  # whose times are counted in labels
            return per_second and self.label_fps and per_second * self.label_fps
        return per_second

    @property
    def damage(self) -> str | None:
        """Why the video counts as damaged, where its features were made all the same."""
        return ((self.source.sidecar or {}).get("decoding") or {}).get("damage")

    @property
    def look_ahead_seconds(self) -> float:
        """Seconds after a frame that its feature may depend on: 0 for single frames and for features from elsewhere."""
        times = self.source.timeline.seconds[self.source.timeline.sampled]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        return look_ahead_of((self.source.sidecar or {}).get("window"), step)


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded videos: `features` `(B, feature_dim, T)`, `target` `(B, T)`, `mask` `(B, 1, T)`.

    Targets are `IGNORED` in padding and where no label counts; the mask is of padding alone.

    `mask` is None where there is no padding.
    """

    names: tuple[str, ...]
    features: Tensor
    target: Tensor
    mask: Tensor | None


def look_ahead_of(window: Mapping[str, Any] | None, step: float) -> float:
    """Seconds after a frame that a feature made with a `window` (a sidecar's) may depend on; `step`: from one feature to the next."""
    if not window or window.get("between") == "held":
        return 0.0  # single frames, and windows that end with their frame
    spacing = step if window.get("spacing") is None else window["spacing"]
    if window.get("mode") == "tokens":  # the first frame of a clip sees all others; its grid point may be after it
        return round((window["clip_len"] - 1) * spacing + (0.0 if spacing == step else spacing / 2), 3)
    # the frames after the centre; between two windows, features lean on the later one
    after = window["clip_len"] - 1 - window["clip_len"] // 2
    return round(after * spacing + (window.get("stride", 1) - 1) * step, 3)


def open_video(
    path: Path,
    feature_dim: int,
    *,
    grid: LabelGrid = EVERY_FRAME,
    sample_rate: int = 1,
    feature_stride: float = 1,
    num_labels: int | None = None,
) -> VideoFeatures:
    """Open one video's features, every `sample_rate`-th of them, without labels.

    Where labels have a `grid` of their own, the features that stand for a label are taken, whatever else there is, so
    that a head learns the same from features of all frames and of labelled ones alone. Features without a sidecar stand for every `feature_stride`-th frame, from the first; how many frames follow the
    last of these is not known, so as many are taken as `num_labels` has.

    Raises `UserError` for unsuitable files, and for a stride of features whose sidecar says which frames they are of.
    """
    file = open_features(path, feature_dim)
    timeline = file.timeline
    if file.sidecar is None and feature_stride != 1:
        sampled = np.rint(np.arange(timeline.num_frames) * feature_stride).astype(np.int64)
        fewest, most = int(sampled[-1]) + 1, math.ceil(timeline.num_frames * feature_stride)
        num_frames = most if num_labels is None else min(max(num_labels, fewest), most)
        timeline = Timeline(np.arange(num_frames, dtype=float), sampled)
    elif feature_stride != 1:
        raise UserError(
            f"{path}: its sidecar says which frames the features are of, so --feature_stride {feature_stride:g} is not "
            "for them; leave it out"
        )
    rate = grid.rate(timeline.fps if file.sidecar else None)
    if file.sidecar is None:  # what such features are of is said in labels, not in frames
        grid = EVERY_FRAME
    label_frames, rows = grid.frames(timeline.seconds), file.array.T
    if not grid.is_every_frame:
        standing = np.unique(timeline.nearest_sample(label_frames))
        if len(standing) < len(rows):  # else all of them, which need no copy
            timeline, rows = timeline.keeping(standing), rows[standing]
    timeline, rows = timeline.keeping(slice(None, None, sample_rate)), rows[::sample_rate]
    return VideoFeatures(
        path.stem, file, rows, timeline, label_frames, len(label_frames), feature_stride=feature_stride, label_fps=rate
    )


def open_split(
    features: Path,
    labels: dict[str, Path],
    mapping: PhaseMapping,
    *,
    feature_dim: int,
    grid: LabelGrid = EVERY_FRAME,
    sample_rate: int = 1,
    feature_strides: Mapping[str, float] | None = None,
    length_tolerance: int = LENGTH_TOLERANCE,
) -> list[VideoFeatures]:
    """Open features and labels of the videos in `labels` (name -> label file), in that order.

    A video whose counts differ by at most `allowed_difference(frames, length_tolerance)` is trimmed at the end, and one
    warning lists all such videos; no file is changed. `grid`, `feature_strides` (by video; absent: 1): see `open_video`.

    Raises `UserError` for missing or unsuitable files, and for a larger difference with both counts and the fps.
    """
    videos, trimmed, unequal = [], [], []
    for name, label_path in labels.items():
        phase_ids = read_labels(label_path, mapping)
        stride = (feature_strides or {}).get(name, 1)
        video = open_video(
            features / f"{name}.npy",
            feature_dim,
            grid=grid,
            sample_rate=sample_rate,
            feature_stride=stride,
            num_labels=len(phase_ids),
        )
        reached = len(video.label_frames)
        difference = len(phase_ids) - reached
        if abs(difference) > allowed_difference(reached, length_tolerance):
            unequal.append(_length_error(video, label_path, len(phase_ids), grid, length_tolerance))
        elif difference:
            what = "frames" if grid.is_every_frame else "labels that a frame reaches"
            trimmed.append(f"{name} ({reached} {what}, {len(phase_ids)} labels)")
        # Features at the sampled frames only: each learns the label of its own frame, or of the nearest one that has a
        # label. Frames without a label are trimmed; labels without a frame get their row at prediction (`num_labels`).
        video.num_labels = len(phase_ids)
        video.target = phase_ids[_labels_of(video, min(len(phase_ids), reached))]
        videos.append(video)
    if unequal:
        more = f" (and {counted(len(unequal) - 1, 'other video')} like this)" if len(unequal) > 1 else ""
        raise UserError(unequal[0] + more)
    if trimmed:
        log.warning("features and labels differ in length, trimmed at the end for training: %s", ", ".join(trimmed))
    return videos


def _labels_of(video: VideoFeatures, num_labels: int) -> np.ndarray:
    """The label of each feature, `(T,)`, of the first `num_labels`; features beyond the last label have none."""
    frames, seconds = video.label_frames[:num_labels], video.timeline.seconds
    sampled = video.timeline.sampled[video.timeline.sampled <= frames[-1]]
    return nearest_in_time(seconds[frames], seconds[sampled])


def _length_error(
    video: VideoFeatures, label_path: Path, num_labels: int, grid: LabelGrid, length_tolerance: int
) -> str:
    """What is wrong with features and labels of two lengths: both counts, the fps, their ratio, and what to do."""
    num_frames, sidecar = len(video.label_frames), video.source.sidecar
    rate = f" at {video.timeline.fps:.3f} fps" if sidecar and video.timeline.fps else ""
    ratio = length_ratio(num_labels, num_frames)
    if ratio and num_labels > num_frames and sidecar is None:
        advice = f"If these features are of every n-th frame, n = {ratio[0]}, add --feature_stride {ratio[0]}"
    else:
        expected = "one label a decoded frame is needed" if grid.is_every_frame else f"dataset.yaml says {grid}"
        advice = f"Labels at another frame rate, features of another video, or a video cut short: {expected}"
    what = "decoded frames" if grid.is_every_frame else "labels that a frame reaches"
    allowed = counted(allowed_difference(num_frames, length_tolerance), "frame")
    return (
        f"{video.name}: {num_frames} {what}{rate} in {video.source.path}, but {num_labels} labels in "
        f"{label_path}{f' ({ratio[1]})' if ratio else ''}; they may differ by {allowed} (--length_tolerance "
        f"{length_tolerance}, and at most 1 % of a video). {advice}"
    )


class BatchGenerator:
    """Batches of a training set, in a new order each epoch; the next one is prepared while the current one trains.

    Features are read once and kept as `dtype`: on `device` where it is a GPU that has room for them, else in memory where they
    fit, else mapped. bfloat16 is for a training whose first step rounds them to it anyway: half the memory, and rounded once. The
    order depends on seed and epoch only.
    """

    def __init__(
        self,
        videos: Sequence[VideoFeatures],
        batch_size: int,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ):
        self.videos, self.batch_size, self.seed = list(videos), batch_size, seed
        self.dtype, self.device = dtype, device
        self._checked: set[str] = set()
        self._kept: dict[str, Tensor] = {}
        needed = sum(video.rows.shape[0] * video.rows.shape[1] * dtype.itemsize for video in self.videos)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        self.on_device = needed <= min(DEVICE_SHARE * free, free - STEP_BYTES)
        self.in_memory = self.on_device or needed <= MEMORY_SHARE * psutil.virtual_memory().available
        if device.type == "cuda" and not self.on_device:
            log.info(
                "%.1f GB of features are more than fits into the GPU beside the training: sent to it in each step",
                needed / 1e9,
            )

    def __len__(self) -> int:
        return -(-len(self.videos) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch (from 0).

        Raises `UserError` naming the video when a feature is not finite.
        """
        order = torch.randperm(len(self.videos), generator=generator(self.seed, "order", epoch)).tolist()
        chunks = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        videos = ([self.videos[index] for index in chunk] for chunk in chunks)
        return prefetch((self._batch(each) for each in videos), PREFETCHED_BATCHES)

    def _batch(self, videos: Sequence[VideoFeatures]) -> Batch:
        batch = pad_batch([(video.name, self._rows(video), video.target) for video in videos])
        if self.device.type != "cuda":
            return batch
        # pinned, it is copied while the GPU computes
        parts = {name: getattr(batch, name) for name in ("features", "target", "mask")}
        return replace(
            batch, **{name: part.pin_memory() for name, part in parts.items() if part is not None and part.is_cpu}
        )

    def _rows(self, video: VideoFeatures) -> Tensor:
        rows = self._kept.get(video.name)
        if rows is None:
            rows = read_rows(video, check=video.name not in self._checked)
            rows = rows[: len(video.target)].to(self.dtype)  # features beyond the last label are trimmed
            self._checked.add(video.name)
            if self.in_memory:
                self._kept[video.name] = rows = rows.to(self.device) if self.on_device else rows
        return rows


def read_rows(video: VideoFeatures, *, check: bool = True) -> Tensor:
    """A video's features `(T, feature_dim)` float32 in memory, checked to be finite.

    Raises `UserError` naming the video and the first bad frame.
    """
    # torch wants memory that may be written to; a map of a file is read-only, and is copied by this
    rows = torch.from_numpy(np.require(video.rows, np.float32, ["C", "W"]))
    if check and not torch.isfinite(rows).all():
        frame = int((~torch.isfinite(rows)).any(dim=1).nonzero()[0])
        raise UserError(
            f"{video.source.path}: feature of frame {frame} of {video.name} is NaN or infinite; extract it again"
        )
    return rows


def feature_statistics(videos: Sequence[VideoFeatures]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (ddof 0) of each feature dimension over the labelled part of the videos, `(feature_dim,)`.

    One pass in float64, by the pairwise update of Chan, Golub and LeVeque (Am. Stat. 37, 1983), which unlike a sum of
    squares loses no digits where the mean is large. The deviation of a dimension that does not vary is 1.

    Raises `UserError` naming the video when a feature is not finite.
    """
    count, mean, squares = 0, 0.0, 0.0
    for video in videos:
        features = read_rows(video)[: len(video.target)].numpy()
        for start in range(0, len(features), STATISTICS_ROWS):
            rows = features[start : start + STATISTICS_ROWS].astype(np.float64)
            own, total = rows.mean(axis=0), count + len(rows)
            squares += ((rows - own) ** 2).sum(axis=0) + (own - mean) ** 2 * (count * len(rows) / total)
            mean += (own - mean) * (len(rows) / total)
            count = total
    # what is left of equal values is the rounding of their mean
    is_constant = squares <= count * (np.finfo(np.float64).eps * count * np.abs(mean)) ** 2
    deviation = np.where(is_constant, 1.0, np.sqrt(squares / count))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def pad_batch(videos: Sequence[tuple[str, Tensor, np.ndarray]]) -> Batch:
    """Pad `(name, rows (T, feature_dim), target (T,))` to the longest of them.

    `features` keeps rows contiguous in memory (channels last), the order in which the head reads them without a copy.
    """
    lengths = [len(rows) for _, rows, _ in videos]
    names = tuple(name for name, _, _ in videos)
    targets = [torch.from_numpy(target) for _, _, target in videos]
    # Rows are stacked as (B, T, feature_dim), and only the view is turned to (B, feature_dim, T): the memory stays in
    # the order of the file. A single video is not copied at all.
    if len(set(lengths)) == 1:
        features = torch.stack([rows for _, rows, _ in videos]) if len(videos) > 1 else videos[0][1].unsqueeze(0)
        return Batch(names, features.transpose(1, 2), torch.stack(targets), None)
    pad = torch.nn.utils.rnn.pad_sequence
    features = pad([rows for _, rows, _ in videos], batch_first=True).transpose(1, 2)
    target = pad(targets, batch_first=True, padding_value=IGNORED)
    mask = torch.arange(target.shape[1]) < torch.tensor(lengths)[:, None]
    return Batch(names, features, target, mask.unsqueeze(1).float())
