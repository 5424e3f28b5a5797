"""Masks of iBOT: which patches of the global crops are hidden from the student.

Shares are exact in each batch of each process, as published: every GPU masks half of its own crops and hides as many
patches as any other. A mask is a pure function of (seed, number of the batch's first sample in the run, crop): a resumed
run draws it again.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from common.base.runtime import generator

MIN_AREA = 4  # patches of a rectangle
TRIES = 10  # for each rectangle
LOWEST_ASPECT = 0.3


@dataclass(frozen=True)
class PatchMasking:
    """Shares of crops and patches that are hidden; the defaults are those of iBOT, DINOv2 and DINOv3."""

    crop_share: float = 0.5
    """Share of the global crops that are masked at all."""
    lowest_ratio: float = 0.1
    highest_ratio: float = 0.5
    """Shares of hidden patches, spread evenly over the masked crops."""


def patch_masks(
    grid: tuple[int, int], num_crops: int, *, seed: int, first: int, masking: PatchMasking | None = None
) -> Tensor:
    """Masks `(num_crops, H * W)`, True where hidden, of a process's batch that begins with sample `first` of the run.

    The number of hidden patches is exact: see `masked_counts`.
    """
    counts = masked_counts(grid[0] * grid[1], num_crops, seed=seed, first=first, masking=masking)
    draws = [generator(seed, "mask", first, "patches", crop) for crop in range(num_crops)]
    return torch.stack([block_mask(grid, count, own) for count, own in zip(counts, draws, strict=True)]).flatten(1)


def masked_counts(
    num_patches: int, num_crops: int, *, seed: int, first: int, masking: PatchMasking | None = None
) -> list[int]:
    """Number of hidden patches of each crop of a process's batch that begins with sample `first` of the run.

    Of the n masked crops the i-th hides a share of patches that is the upper edge of the i-th of n equal parts of
    [lowest, highest], rounded down; then crops are shuffled (`dinov3:dinov3/data/collate.py`).
    """
    masking = masking or PatchMasking()
    num_masked = whole_share(masking.crop_share, num_crops)
    width = masking.highest_ratio - masking.lowest_ratio
    ratios = [masking.lowest_ratio + width * (i + 1) / num_masked for i in range(num_masked)]
    counts = [whole_share(ratio, num_patches) for ratio in ratios] + [0] * (num_crops - num_masked)
    # so far the first crops are the masked ones, in order of their shares
    order = torch.randperm(num_crops, generator=generator(seed, "mask", first, "counts"))
    return [counts[place] for place in order.tolist()]


def block_mask(grid: tuple[int, int], count: int, draws: torch.Generator) -> Tensor:
    """Mask `(H, W)` of exactly `count` patches: rectangles that may overlap, then single patches (BEiT, algorithm 1).

    BEiT is Bao et al., ICLR 2022. A rectangle's area is uniform between 4 patches and what is left, at most half the
    grid; its aspect is log-uniform between 0.3 and its inverse; its sides are smaller than the grid's. What no
    rectangle fits into is drawn patch by patch.
    """
    mask = torch.zeros(grid, dtype=torch.bool)
    left = count
    while left > 0:
        rectangle = draw_rectangle(mask, min(left, mask.numel() / 2), draws)
        if rectangle is None:
            break
        mask[rectangle] = True
        left = count - int(mask.sum())  # rectangles overlap: their areas do not add up
    visible = (~mask).flatten().nonzero().squeeze(1)
    chosen = torch.randperm(len(visible), generator=draws)[: max(left, 0)]
    mask.view(-1)[visible[chosen]] = True
    return mask


def draw_rectangle(mask: Tensor, most: float, draws: torch.Generator) -> tuple[slice, slice] | None:
    """A place that hides between 1 and `most` further patches; None when ten tries find none."""
    height, width = mask.shape
    smallest = min(MIN_AREA, most)
    # all draws at once, so that how many tries it takes does not shift the draws of the next rectangle
    for area_draw, aspect_draw, top_draw, left_draw in torch.rand(TRIES, 4, generator=draws).tolist():
        area = smallest + area_draw * (most - smallest)
        aspect = LOWEST_ASPECT ** (1 - 2 * aspect_draw)  # log-uniform from the lowest to its inverse
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows >= height or columns >= width:
            continue
        top, left = int(top_draw * (height - rows + 1)), int(left_draw * (width - columns + 1))
        place = slice(top, top + rows), slice(left, left + columns)
        if 0 < int((~mask[place]).sum()) <= most:
            return place
    return None


def masked_places(masks: Tensor) -> Tensor:
    """Places `(M,)` of hidden patches in the flattened batch of patches, ascending; `masks` `(C, N)`."""
    return masks.flatten().nonzero().squeeze(1)


def patch_weights(masks: Tensor) -> Tensor:
    """Masks `(C, N)` -> one over the hidden patches of the same crop `(M,)`, in the order of `masked_places`."""
    counts = masks.sum(dim=1, keepdim=True).clamp(min=1)
    return (1 / counts).expand_as(masks)[masks]


def whole_share(share: float, count: int) -> int:
    """`share` of `count` things, rounded down, where 0.29 of 100 is 29 although its binary product lies below."""
    return int(share * count + 1e-6)
