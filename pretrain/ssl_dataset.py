"""Samples of self-supervised training: views of frames or clips, drawn by number and decoded straight from the videos.

Sample number k of a run (k = step * global batch + position in it) decides everything about the sample through
`common.base.runtime.generator(seed, "sample", k, attempt)`. There is no state to save: a run that is resumed at sample
k gets what an uninterrupted one gets, with any number of worker processes.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
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
from pretrain.video_data.sampling import BalancedSampling, SampleOrder

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 10
BATCHES_AHEAD = 2  # of each worker

Sample = dict[str, Any]
ViewRule = MultiCrop | VideoCrop | MultiScaleCrop


class VideoSamples(TorchDataset):
    """Clips of `clip_len` frames at `fps`, in random views by `rule`: those that the rule's type is for.

    Sample k is a dict of uint8 views, `number` (k) and `skipped`: the videos (`<corpus>/<video>`) that could not be
    read before one was drawn that could. After ten clips in a row it raises `UserError`.
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
    ):
        if clip_len < 1 or not fps > 0:
            raise ValueError(f"clip_len {clip_len} at fps {fps}: not a clip")
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

    def __getitem__(self, number: int) -> Sample:
        failures: dict[str, VideoError] = {}
        for attempt in range(FAILURES_IN_A_ROW):
            random = generator(self.seed, "sample", number, attempt)
            moment = self.sampling.draw(random, float(self.offsets[-1]))
            try:
                frames = self.reader.read(moment.video.path, moment.start_seconds + self.offsets)
            except VideoError as error:
                failures[f"{moment.corpus}/{moment.video.name}"] = error
                continue
            clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
            return self.views(clip, random) | {"number": torch.tensor(number), "skipped": list(failures)}
        raise UserError(
            f"sample {number}: {FAILURES_IN_A_ROW} clips in a row cannot be read, of {', '.join(failures)}; the last: "
            f"{failures.popitem()[1]}; look whether the disk with the videos is there"
        )


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
