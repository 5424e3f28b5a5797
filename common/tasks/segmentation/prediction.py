"""Predicted masks of a split's test images, and those of a floor that looks at no picture; each with its record."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base import paths
from common.base.entries import visible
from common.base.files import write_json
from common.base.locks import hold
from common.base.runtime import (
    device_name,
    git_state,
    keep_freed_memory,
    peak_memory_bytes,
    progress,
    select_device,
    versions,
)
from common.dataset.masks import MASK_SUFFIX, UNLABELLED_PIXEL, MaskedImage, image_size, write_mask
from common.tasks.segmentation.batches import ImageBatches, stretched_mask
from common.tasks.segmentation.experiment import Segmentation
from common.tasks.segmentation.network import (
    TASK,
    SegmentationCheckpoint,
    SegmentationNetwork,
    authors_count,
    load_segmentation_network,
    read_segmentation_file,
)

FORMAT = 1


def predict_masks(segmentation: Segmentation, *, device: str = "auto", checkpoint: Path | None = None) -> Path:
    """Predict the images of a split, and the floor beside; returns the folder, which its record completes.

    A mask has the size of its image: scores are resized to it before the class is chosen. Raises `UserError` when there is
    no checkpoint, or it does not fit.
    """
    keep_freed_memory()
    path, target = checkpoint or segmentation.checkpoint, select_device(device)
    network, encoder = load_segmentation_network(
        path, segmentation.encoder, segmentation.config, len(segmentation.classes)
    )
    encoder.prepare(target, network.precision)
    network.to(target)
    trained = read_segmentation_file(path)
    learned: dict[str, Any] = {
        "weights": encoder.weights.to_json(),
        "random_weights": encoder.weights.is_random,
        "num_parameters": network.count_parameters(),
        "authors_network": authors_count(network),
        "device": device_name(target),
        "precision": network.precision,
    }
    if isinstance(trained, SegmentationCheckpoint):
        learned |= {
            "train_inputs_hash": trained.inputs_hash,
            "history": trained.history,
            "train_seconds": round(sum(entry["seconds"] for entry in trained.history), 3),
            "config": trained.config,
        }
    with hold(segmentation.results):
        _write_run(segmentation, segmentation.results, _predictions(segmentation, network, target), learned)
    with hold(segmentation.floor):
        floor = _most_frequent(segmentation)
        _write_run(segmentation, segmentation.floor, floor, {"floor": "most frequent class of each pixel"})
    return segmentation.results


def _write_run(
    segmentation: Segmentation, folder: Path, masks: Iterable[tuple[MaskedImage, np.ndarray]], learned: dict[str, Any]
) -> None:
    started = time.monotonic()
    record = folder / paths.SEGMENTATION_RECORD
    # the record goes first: a folder without one is not finished, so that what a kill leaves is never taken for a run
    record.unlink(missing_ok=True)
    for earlier in visible(folder, f"*/*{MASK_SUFFIX}"):
        earlier.unlink()
    images = segmentation.test_images
    split = segmentation.config.split
    for image, ids in progress(masks, total=len(images), description=f"predict split {split}", unit="images"):
        write_mask(folder / f"{image.key}{MASK_SUFFIX}", ids)
    said = {
        "format": FORMAT,
        "task": TASK,
        "dataset": segmentation.dataset.name,
        "synthetic": segmentation.dataset.is_synthetic,
        "model": segmentation.model.name,
        "title": segmentation.encoder.title,
        "split": split,
        "run": segmentation.config.run_name,
        "config": segmentation.recorded_config,
        "classes": list(segmentation.classes),
        "splits_hash": segmentation.splits.hash,
        "test_inputs_hash": segmentation.inputs_hash(images),
        "images": [image.key for image in images],
        "train_groups": segmentation.train_groups,
    }
    said |= learned | {
        "predict_seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": peak_memory_bytes(),
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "git": git_state(paths.CHECKOUT),
    }
    write_json(record, said)


def _predictions(
    segmentation: Segmentation, network: SegmentationNetwork, device: torch.device
) -> Iterable[tuple[MaskedImage, np.ndarray]]:
    for batch in ImageBatches(segmentation, segmentation.test_images, with_masks=False).in_order():
        with torch.inference_mode():
            scores = network(batch.pixels.to(device))
            for image, of_image in zip(batch.images, scores, strict=True):
                yield image, chosen_classes(of_image, image_size(image.image))


def chosen_classes(scores: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The most probable class of each pixel `(H, W)` uint8 at another size than that of the scores `(C, h, w)`."""
    resized = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    return resized.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _most_frequent(segmentation: Segmentation) -> Iterable[tuple[MaskedImage, np.ndarray]]:
    """The class that each place has most often in the training masks, at the size of the network's pictures."""
    sides, num_classes = segmentation.config.sides, len(segmentation.classes)
    counts = np.zeros((num_classes, *sides), dtype=np.int32)
    rows, columns = np.indices(sides)
    for image in progress(segmentation.train_images, description="floor", unit="masks"):
        ids = stretched_mask(segmentation.truth(image), sides)
        labelled = ids != UNLABELLED_PIXEL
        counts[ids[labelled], rows[labelled], columns[labelled]] += 1
    usual = counts.argmax(axis=0)
    # a place that no training mask has labelled takes the most frequent class of all
    usual[counts.sum(axis=0) == 0] = counts.sum(axis=(1, 2)).argmax()
    for image in segmentation.test_images:
        yield image, stretched_mask(usual.astype(np.uint8), image_size(image.image))
