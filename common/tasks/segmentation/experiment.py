"""One encoder, one split, one seed of a segmentation: what is learned from, what is predicted, and where it goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.content import known_sha256
from common.base.entries import on_disk
from common.base.files import sha256_of_json
from common.base.runtime import UserError, listed, progress
from common.dataset.description import require_task
from common.dataset.kfold import nested_subset
from common.dataset.masks import (
    MASK_SUFFIX,
    MOST_CLASSES,
    UNLABELLED_PIXEL,
    MaskedImage,
    masked_images,
    read_mask,
    require_sizes,
)
from common.dataset.patients import check_patients
from common.dataset.phases import read_mapping
from common.dataset.split_lists import Part, SplitLists, open_splits, resolve_name
from common.encoders.config import EncoderConfig, read_encoder_config
from common.tasks.segmentation.config import FLOOR, SegmentConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentation:
    """A resolved `SegmentConfig` with the files that belong to it; make one with `load_segmentation`."""

    config: SegmentConfig
    dataset: paths.Dataset
    model: paths.Model
    encoder: EncoderConfig
    classes: tuple[str, ...]
    background: int | None
    """The class that counts as background, where the data set has one."""
    ignored: tuple[int, ...]
    """Classes that nobody learns from or is scored on."""
    images: dict[str, list[MaskedImage]]
    """All images of the data set by group."""
    splits: SplitLists
    part: Part = "test"
    """The list that is predicted and scored: `val`, where a named list has one, for a look before the test."""

    @property
    def checkpoint(self) -> Path:
        return self.model.segmentation_checkpoint(self.dataset.name, self.config.split, self.config.run_name)

    @property
    def results(self) -> Path:
        return self._below(self.config.run_name)

    @property
    def floor(self) -> Path:
        """Where the most frequent class of each pixel is predicted, for all runs of this list and share of the groups."""
        bare = SegmentConfig(splits=self.config.splits, train_fraction=self.config.train_fraction)
        return self._below("-".join(filter(None, [bare.run_name, FLOOR])))

    def _below(self, run: str | None) -> Path:
        folder = self.model.split_results(self.dataset.name, self.config.split, run)
        return folder if self.part == "test" else folder / f"part_{self.part}"

    @property
    def train_groups(self) -> list[str]:
        """The groups that are learned from, of the chosen share of them."""
        return nested_subset(self.splits.videos("train", int(self.config.split)), self.config.train_fraction)

    @cached_property
    def train_images(self) -> list[MaskedImage]:
        return self.of_groups(self.train_groups)

    @cached_property
    def test_images(self) -> list[MaskedImage]:
        return self.of_groups(self.splits.videos(self.part, int(self.config.split)))

    def of_groups(self, groups: Sequence[str]) -> list[MaskedImage]:
        """The images of groups. Raises `UserError` for a group that is listed and has none."""
        if lacking := [group for group in groups if group not in self.images]:
            raise UserError(
                f"{self.dataset.split_list(self.config.splits)}: expected images of every group of split "
                f"{self.config.split}, found none of {listed(lacking)} in {self.dataset.images}; add them, or another list"
            )
        return [image for group in groups for image in self.images[group]]

    def of_split(self, number: int) -> Segmentation:
        """The same run of another split."""
        return replace(self, config=replace(self.config, split=str(number)))

    @property
    def recorded_config(self) -> dict[str, Any]:
        return asdict(self.config)

    def truth(self, image: MaskedImage) -> np.ndarray:
        """The mask of an image `(H, W)` uint8, `UNLABELLED_PIXEL` where a class does not count. Raises `UserError`."""
        ids = read_mask(image.mask, self.classes)
        return np.where(np.isin(ids, self.ignored), np.uint8(UNLABELLED_PIXEL), ids) if self.ignored else ids

    def inputs_hash(self, images: Sequence[MaskedImage]) -> str:
        """Identity of images and masks: SHA-256 over the content of every file, and the classes."""
        read = progress(images, description="hashes", unit="images")
        of_files = {image.key: [known_sha256(image.image), known_sha256(image.mask)] for image in read}
        return sha256_of_json([list(self.classes), list(self.ignored), of_files])

    def count_pixels(self) -> np.ndarray:
        """Pixels of each class `(C,)` in the training masks; these and the test masks are all read and checked by it.

        Raises `UserError` where no pixel counts; a class without any is named in a warning.
        """
        counts = np.zeros(UNLABELLED_PIXEL + 1, dtype=np.int64)
        num_train = len(self.train_images)
        masks = progress([*self.train_images, *self.test_images], description="masks", unit="masks")
        for place, image in enumerate(masks):
            ids = self.truth(image)  # a damaged test mask shows now, not after hours of training
            if place < num_train:
                counts += np.bincount(ids.ravel(), minlength=len(counts))
        counts = counts[: len(self.classes)]
        if not counts.any():
            raise UserError(
                f"{self.dataset.masks}: expected pixels with a class in training masks, found none; check them"
            )
        unseen = [name for place, name in enumerate(self.classes) if not counts[place] and place not in self.ignored]
        if unseen:
            log.warning("split %s: no training pixel of %s: never predicted", self.config.split, listed(unseen))
        return counts


def load_segmentation(config: SegmentConfig, *, part: Part = "test") -> Segmentation:
    """Resolve a configuration: model, data set, classes, images, split.

    Raises `UserError` when one of them does not exist, the data set's task is another, or a mask has another size than its
    image.
    """
    dataset, model = paths.dataset(config.dataset), paths.model(config.model)
    description = require_task(dataset, "segmentation")
    mapping = replace(read_mapping(dataset.mapping), background=description.background)
    if mapping.num_classes > MOST_CLASSES:
        raise UserError(f"{dataset.mapping}: expected at most {MOST_CLASSES} classes, found {mapping.num_classes}")
    inside = dataset.root.parent == (paths.repository_root() / "data").resolve()
    config = replace(config, splits=config.splits and resolve_name(dataset, config.splits))
    resolved = replace(
        config, dataset=dataset.name if inside else str(dataset.root), model=model.name, run=config.run_name
    )
    found = Segmentation(
        resolved,
        dataset,
        model,
        read_encoder_config(model.config).with_weights(config.weights),
        mapping.names,
        mapping.background_id,
        tuple(mapping.ids[name] for name in description.ignored if name in mapping.ids),
        masked_images(dataset),
        open_splits(dataset, config.splits),
        part,
    )
    for shared in check_patients(dataset, found.splits, [int(config.split)]):
        log.warning("%s", shared)
    require_sizes(progress([*found.train_images, *found.test_images], description="sizes", unit="masks"))
    return found


def predicted_masks(folder: Path, images: Sequence[MaskedImage]) -> dict[str, Path]:
    """The predicted mask of each image in a folder, by its key. Raises `UserError` naming those that are missing."""
    found = {image.key: on_disk(folder / f"{image.key}{MASK_SUFFIX}") for image in images}
    if missing := [str(path) for path in found.values() if not path.is_file()]:
        raise UserError(
            f"{folder}: expected a mask <group>/<image>{MASK_SUFFIX} for each of {len(images)} images, found none for "
            f"{len(missing)} ({missing[0]}, ...); predict them all"
        )
    return found
