"""Images and masks -> batches of pixels, stretched to one size, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.runtime import generator, prefetch
from common.dataset.masks import MaskedImage, read_colour_image
from common.tasks.segmentation.experiment import Segmentation

READERS = 4  # threads that decode images: Pillow leaves Python's lock alone meanwhile


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """`pixels` `(N, 3, H, W)` uint8 and, to learn from, `masks` `(N, H, W)` uint8 of the same size."""

    images: list[MaskedImage]
    pixels: Tensor
    masks: Tensor | None = None


def stretched(image: np.ndarray, sides: tuple[int, int], interpolation: str) -> Tensor:
    """An image `(h, w, 3)` uint8 as `(3, H, W)` uint8, antialiased, without regard to its shape."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return F.interpolate(pixels, sides, mode=interpolation, antialias=True)[0]


def stretched_mask(ids: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """A mask of ids `(h, w)` at another size `(H, W)`: each pixel takes the one at its centre, never a mixture."""
    rows, columns = (
        ((np.arange(side) + 0.5) * own / side).astype(np.int64) for side, own in zip(sides, ids.shape, strict=True)
    )
    return ids[np.ix_(rows, columns)]


class ImageBatches:
    """Batches of a list of images; `with_masks` also what is true of them."""

    def __init__(self, segmentation: Segmentation, images: Sequence[MaskedImage], *, with_masks: bool):
        self.segmentation, self.images, self.with_masks = segmentation, list(images), with_masks
        self.size = segmentation.config.batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def in_order(self) -> Iterator[ImageBatch]:
        """All images as they are listed."""
        return prefetch(self._read_all(range(len(self.images))))

    def epoch(self, number: int) -> Iterator[ImageBatch]:
        """All images in the order of an epoch (from 0), whatever came before."""
        source = generator(self.segmentation.config.seed, "images", number)
        return prefetch(self._read_all(torch.randperm(len(self.images), generator=source).tolist()))

    def _read_all(self, order: Sequence[int]) -> Iterator[ImageBatch]:
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(order), self.size):
                images = [self.images[place] for place in order[start : start + self.size]]
                pixels, masks = zip(*pool.map(self._read, images), strict=True)
                yield ImageBatch(images, torch.stack(pixels), torch.stack(masks) if self.with_masks else None)

    def _read(self, image: MaskedImage) -> tuple[Tensor, Tensor | None]:
        sides, rule = self.segmentation.config.sides, self.segmentation.encoder.preprocessing
        pixels = stretched(read_colour_image(image.image), sides, rule.interpolation)
        if not self.with_masks:
            return pixels, None
        return pixels, torch.from_numpy(stretched_mask(self.segmentation.truth(image), sides))
