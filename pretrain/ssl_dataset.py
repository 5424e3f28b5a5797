"""Samples of self-supervised training: views of frames or clips, drawn by number and decoded straight from the videos.

Sample number k of a run (k = step * global batch + position in it) decides everything about the sample through
`common.base.runtime.generator(seed, "sample", k, attempt)`. There is no state to save: a run that is resumed at sample
k gets what an uninterrupted one gets, with any number of worker processes.

Where reading is slow, neighbours help: samples k to k + n - 1, k a multiple of n, are taken near one place, which is drawn
by `generator(seed, "place", k / n, attempt)`, and those of a batch are decoded in one go. What a sample is does not depend
on how batches cut the numbers.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from common.base.children import end_with_parent, leave_signals_to_parent
from common.base.runtime import UserError, generator
from common.video.probe import VideoError
from pretrain.video_data.augment import MultiCrop, MultiScaleCrop, VideoCrop, crop_clip, multi_crop, multi_scale_crop
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.sampling import BalancedSampling, Moment, SampleOrder

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 10
BATCHES_AHEAD = 2  # of each worker

Sample = dict[str, Any]
ViewRule = MultiCrop | VideoCrop | MultiScaleCrop


class VideoSamples(TorchDataset):
    """Clips of `clip_len` frames at `fps`, in random views by `rule`: those that the rule's type is for.

    Sample k is a dict of uint8 views, `number` (k) and `skipped`: the videos (`<corpus>/<video>`) that could not be
    read before one was drawn that could. After ten clips in a row it raises `UserError`.

    With `samples_per_seek` above 1 so many samples are neighbours within `neighbour_seconds`.
    """

    def __init__(
        self,
        sampling: BalancedSampling,
        rule: ViewRule,
        *,
        seed: int,
        clip_len: int = 1,
        fps: float = 4.0,
        open_videos: int = 8,
        samples_per_seek: int = 1,
        neighbour_seconds: float = 8.0,
    ):
        if clip_len < 1 or not fps > 0:
            raise ValueError(f"clip_len {clip_len} at fps {fps}: not a clip")
        self.samples_per_seek, self.neighbour_seconds = samples_per_seek, neighbour_seconds
        self.sampling, self.rule, self.seed = sampling, rule, seed
        self.offsets = np.arange(clip_len) / fps
        self.reader = ClipReader(open_videos)

    def views(self, clip: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Random views of a clip `(T, 3, H, W)` uint8.

        For DINO `global_crops`, `local_crops` and perhaps `gram_crops` of its one frame; for V-JEPA 2 `clip`
        `(T, 3, size, size)`; for Video MAE `clip` and perhaps `teacher_frames`.
        """
        if isinstance(self.rule, MultiCrop):
            return multi_crop(clip[0], self.rule, random)
        if isinstance(self.rule, VideoCrop):
            return {"clip": crop_clip(clip, self.rule, random)}
        return multi_scale_crop(clip, self.rule, random)

    def draw(self, number: int, attempt: int = 0) -> tuple[Moment, torch.Generator]:
        """Where sample `number` is taken at this attempt, and the generator that draws its views next."""
        random, clip_seconds = generator(self.seed, "sample", number, attempt), float(self.offsets[-1])
        if self.samples_per_seek == 1:
            return self.sampling.draw(random, clip_seconds), random
        near = generator(self.seed, "place", number // self.samples_per_seek, attempt)
        spread = self.neighbour_seconds
        return self.sampling.draw(random, clip_seconds, near=near, spread_seconds=spread), random

    def __getitem__(self, number: int) -> Sample:
        failures: dict[str, VideoError] = {}
        for attempt in range(FAILURES_IN_A_ROW):
            moment, random = self.draw(number, attempt)
            try:
                frames = self.reader.read(moment.video.path, moment.start_seconds + self.offsets)
            except VideoError as error:
                failures[f"{moment.corpus}/{moment.video.name}"] = error
                continue
            return self._sample(number, frames, random, list(failures))
        raise UserError(
            f"sample {number}: {FAILURES_IN_A_ROW} clips in a row cannot be read, of {', '.join(failures)}; the last: "
            f"{failures.popitem()[1]}; look whether the disk with the videos is there"
        )

    def __getitems__(self, numbers: Sequence[int]) -> list[Sample]:
        """The samples of a batch: a `DataLoader` asks for them all at once. Neighbours are read in one go."""
        batch: list[Sample] = []
        for _, neighbours in itertools.groupby(numbers, lambda number: number // self.samples_per_seek):
            batch += self._neighbours(list(neighbours))
        return batch

    def _neighbours(self, numbers: list[int]) -> list[Sample]:
        """Samples near one place of one video."""
        if len(numbers) == 1:
            return [self[numbers[0]]]
        drawn = [self.draw(number) for number in numbers]
        times = [moment.start_seconds + self.offsets for moment, _ in drawn]
        try:
            frames = self.reader.read(drawn[0][0].video.path, np.concatenate(times))
        except VideoError:  # perhaps only one of them meets the damage: a sample does not depend on its neighbours
            return [self[number] for number in numbers]
        clips = np.split(frames, len(numbers))
        return [
            self._sample(number, clip, random, [])
            for number, clip, (_, random) in zip(numbers, clips, drawn, strict=True)
        ]

    def _sample(self, number: int, frames: np.ndarray, random: torch.Generator, skipped: list[str]) -> Sample:
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        return self.views(clip, random) | {"number": torch.tensor(number), "skipped": skipped}


class SampleLoader(DataLoader):
    """Batches of tensors `(B, ...)` in the order of `SampleOrder`; `skipped` counts videos that could not be read."""

    skipped: Counter[str]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Raises `UserError` when samples cannot be read, or when a worker process dies."""
        for batch in checked_batches(super().__iter__()):
            self._count(batch.pop("skipped"))
            yield batch

    def _count(self, skipped: list[str]) -> None:
        for video in skipped:
            if video not in self.skipped:
                log.warning("%s: a clip of it cannot be read and is left out; further ones are only counted", video)
            self.skipped[video] += 1


def checked_batches(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass on the batches of a `DataLoader`; what goes wrong in its worker processes becomes a `UserError`."""
    try:
        yield from batches
    except UserError as error:  # raised in a worker, its traceback wrapped into the message
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch has no class of its own for this
            raise
        raise UserError(
            f"a process that reads videos died ({error}): out of memory, a full /dev/shm, or a damaged video that took "
            "the decoder down; resume with fewer --num_workers, or find the video with --num_workers 0"
        ) from error


def loader(
    dataset: VideoSamples, order: SampleOrder, batch_size: int, *, num_workers: int = 4, pin_memory: bool = False
) -> SampleLoader:
    """Batches of `batch_size` samples in `order`, read ahead by `num_workers` processes (0: by this one, when asked).

    `batch_size` divides what `order` takes of a step. `pin_memory` is for CUDA.
    """
    ahead: dict[str, Any] = {}
    if num_workers:
        ahead = in_processes(num_workers) | {"prefetch_factor": BATCHES_AHEAD, "persistent_workers": True}
    made = SampleLoader(dataset, batch_size, sampler=order, collate_fn=stack_samples, pin_memory=pin_memory, **ahead)
    made.skipped = Counter()
    return made


def in_processes(num_workers: int) -> dict[str, Any]:
    """What a `DataLoader` needs to read by processes that end with this one, and leave signals to it (0: by none)."""
    if not num_workers:
        return {}
    return {"num_workers": num_workers, "multiprocessing_context": "spawn", "worker_init_fn": _begin_reading}


def _begin_reading(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # processes share the cores, as torch's own threads do there
    leave_signals_to_parent()
    end_with_parent()  # at once: torch's own processes look every 5 s, and not while they decode


def stack_samples(samples: list[Sample]) -> dict[str, Any]:
    """A batch of samples: tensors stacked, skipped videos listed."""
    batch = {
        name: torch.utils.data.default_collate([sample[name] for sample in samples])
        for name in samples[0]
        if name != "skipped"
    }
    return batch | {"skipped": [video for sample in samples for video in sample["skipped"]]}
