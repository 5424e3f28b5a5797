"""Masks of V-JEPA 2 and VideoMAE: which tokens of a clip are context, and which are to be predicted.

Tokens are numbered by time, row, column of a grid `(T, H, W)`. A mask is a pure function of (seed, step, number of the
sample), but that blocks are cut to the shortest of the samples that one process draws together, as published: no process
waits for another, and their number changes nothing. A resumed run draws the same again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from common.base.runtime import UserError, generator
from pretrain.objectives.masks_image import whole_share

Grid = tuple[int, int, int]
Targets = Literal["blocks", "complement"]
MOST_DRAWS = 100  # the released long-range blocks leave no context in about 1 of 80 draws


class TokenMasks(NamedTuple):
    """Places of tokens, ascending: `context` `(B, K)` is what the encoder sees, `target` `(B, M)` what is predicted."""

    context: Tensor
    target: Tensor

    def to(self, device: torch.device) -> TokenMasks:
        """The same places on another device."""
        return TokenMasks(self.context.to(device), self.target.to(device))


@dataclass(frozen=True)
class Tube:
    """The same share of places hidden in every tubelet of a clip (VideoMAE, Tong et al., NeurIPS 2022)."""

    mask_ratio: float = 0.9
    name: str = "tube"

    def draw(self, grid: Grid, *, seed: int, step: int, samples: Sequence[int]) -> TokenMasks:
        """Exactly `int(mask_ratio * H * W)` hidden places a tubelet, the same at all times; the rest is context.

        Raises `UserError` when that is none: the loss would be a mean of nothing.
        """
        num_places = grid[1] * grid[2]
        num_hidden = whole_share(self.mask_ratio, num_places)
        if not num_hidden:
            raise UserError(
                f"mask {self.name}: a ratio of {self.mask_ratio} hides none of {num_places} places of a frame; use a larger "
                "ratio or crop"
            )
        visible = torch.ones(len(samples), num_places, dtype=torch.bool)
        for row, sample in zip(visible, samples, strict=True):
            order = torch.randperm(num_places, generator=generator(seed, "mask", step, "tube", sample))
            row[order[:num_hidden]] = False
        visible = visible.repeat(1, grid[0])  # a tube: tokens are numbered by time first
        return TokenMasks(_places(visible), _places(~visible))


@dataclass(frozen=True)
class Multiblock:
    """Blocks of tokens hidden from the encoder (V-JEPA, Bardes et al., 2024; V-JEPA 2, Assran et al., 2025).

    Without `mask_ratio` as released (`vjepa2:src/masks/multiseq_multiblock3d.py`). No released configuration hides a
    fixed share; a ratio of 0.9 here means that at most a tenth of all tokens is context: of those outside the blocks a
    random choice for each sample, which covers the whole clip, where the released `max_keep` takes the first in order.
    """

    name: str
    num_blocks: int
    spatial_scale: float
    """Area of a block as a share of the frame's."""
    temporal_scale: float = 1.0
    """Length of a block as a share of the clip's."""
    aspect: tuple[float, float] = (0.75, 1.5)
    """Range of a block's height over width."""
    mask_ratio: float | None = None
    """Smallest share of tokens that are no context."""
    targets: Targets = "blocks"
    """Tokens to predict: those in the blocks, or the whole complement of the context."""

    def draw(self, grid: Grid, *, seed: int, step: int, samples: Sequence[int]) -> TokenMasks:
        """Masks of the samples of one process; all, in all processes, have one block size, drawn from (seed, step).

        Contexts are cut to the length of the batch's shortest, and so are targets: the first in the order of tokens
        stay, so that the latest in time are neither context nor target. Under `complement` all that is no context is
        a target; under a mask ratio what stays of a context is drawn, not the first.

        Raises `UserError` when no token is left as context.
        """
        # one size for the whole batch, so that lengths differ only where blocks overlap
        size = self.block_size(grid, generator(seed, "mask", step, self.name, "size"))
        draws = [generator(seed, "mask", step, self.name, sample) for sample in samples]
        outside = torch.stack([self._outside_blocks(grid, size, own) for own in draws])
        lengths = torch.stack([chosen.sum(dim=1).min() for chosen in (outside, ~outside)])
        # a batch is one tensor: every sample is cut to the length of the shortest
        num_context, num_target = lengths.tolist()
        context = self._context(outside, num_context, draws)
        target = ~context if self.targets == "complement" else _first(~outside, num_target)
        return TokenMasks(_places(context), _places(target))

    def block_size(self, grid: Grid, draws: torch.Generator) -> Grid:
        """Tubelets, rows and columns of a block, by an aspect uniform in its range, at most the grid's."""
        times, rows, columns = grid
        low, high = self.aspect
        aspect = low + (high - low) * torch.rand((), generator=draws).item()
        area = int(self.spatial_scale * rows * columns)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        length = int(times * self.temporal_scale)
        return max(length, 1), min(max(height, 1), rows), min(max(width, 1), columns)

    def _outside_blocks(self, grid: Grid, size: Grid, draws: torch.Generator) -> Tensor:
        """True `(N,)` outside of blocks at random places, drawn again while they cover everything."""
        for _ in range(MOST_DRAWS):
            outside = torch.ones(grid, dtype=torch.bool)
            for _ in range(self.num_blocks):
                starts = [int(torch.randint(g - s + 1, (), generator=draws)) for g, s in zip(grid, size, strict=True)]
                outside[tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))] = False
            if outside.any():
                return outside.flatten()
        raise UserError(
            f"mask {self.name}: {self.num_blocks} blocks of {size} tokens leave no context in a clip of {grid} tokens "
            "(time, rows, columns); use a larger crop or smaller blocks"
        )

    def _context(self, outside: Tensor, count: int, draws: Sequence[torch.Generator]) -> Tensor:
        """`count` tokens of each row of `outside` `(B, N)`: the first, under a ratio random ones within its share."""
        if self.mask_ratio is None:
            return _first(outside, count)
        num_tokens = outside.shape[1]
        count = min(count, whole_share(1 - self.mask_ratio, num_tokens))
        if not count:
            raise UserError(f"mask {self.name}: a ratio of {self.mask_ratio} leaves no context of {num_tokens} tokens")
        context = torch.zeros_like(outside)
        for row, mask, own in zip(context, outside, draws, strict=True):
            places = mask.nonzero().squeeze(1)
            # one draw for each place outside, whatever `count`: the same context tokens come first at any batch size
            row[places[torch.randperm(len(places), generator=own)[:count]]] = True
        return context


SHORT_RANGE = Multiblock("short", num_blocks=8, spatial_scale=0.15)
LONG_RANGE = Multiblock("long", num_blocks=2, spatial_scale=0.7)


def masking(
    strategy: str, *, mask_ratio: float | None = None, targets: Targets = "blocks"
) -> tuple[Multiblock | Tube, ...]:
    """The families of masks of one step: `multiblock`, short- and long-range blocks, or `tube` (ratio 0.9 by default).

    Raises `UserError` for another strategy, and for a ratio that is not between 0 and 1.
    """
    if mask_ratio is not None and not 0 < mask_ratio < 1:
        raise UserError(f"a mask ratio lies between 0 and 1, found {mask_ratio}")
    if strategy == "tube":
        return (Tube() if mask_ratio is None else Tube(mask_ratio),)
    if strategy != "multiblock":
        raise UserError(f"mask {strategy!r} is unknown; known: multiblock, tube")
    return tuple(replace(family, mask_ratio=mask_ratio, targets=targets) for family in (SHORT_RANGE, LONG_RANGE))


def _first(chosen: Tensor, count: int) -> Tensor:
    """The first `count` True of each row `(B, N)`."""
    return chosen & (chosen.cumsum(dim=1) <= count)


def _places(chosen: Tensor) -> Tensor:
    """Places `(B, K)` of the True of each row `(B, N)`, the same number in all rows."""
    return chosen.nonzero()[:, 1].view(len(chosen), int(chosen[0].sum()))
