"""Four maps of an image encoder at the strides 4, 8, 16 and 32, for decoders that need to know where things are.

Of a network of four stages they are the last of each stride, raw: a norm that only its classifier has is left out. A vision
transformer has one stride: the grids of four of its blocks, at a quarter, half and three quarters of the way and the last,
are resized to the four strides, without parameters.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.runtime import UserError, first_line
from common.encoders.base import Encoder
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import MISFITS

STRIDES = (4, 8, 16, 32)
# normalised pixels, and places in the list of all maps (None: all of them) -> these maps, (N, C, h, w) each
_Take = Callable[[Tensor, Sequence[int] | None], list[Tensor]]


class StageMaps(nn.Module):
    """An encoder's network as one that gives four maps, the finest first; made by `open_stages`.

    `channels` are theirs, `are_grids` says whether they come from blocks of one stride.
    """

    def __init__(self, network: nn.Module, take: _Take, sides: tuple[int, int], title: str):
        super().__init__()
        self.network, self._take, self._sides = network, take, sides
        maps = self._all_maps(title)
        by_stride = [
            [place for place, found in enumerate(maps) if _size(found) == self._at(stride)] for stride in STRIDES
        ]
        self.are_grids = len(maps) > 1 and len({_size(found) for found in maps}) == 1
        if all(by_stride):
            self._places = [places[-1] for places in by_stride]
        elif self.are_grids:
            self._places = [math.ceil(len(maps) * part / len(STRIDES)) - 1 for part in range(1, len(STRIDES) + 1)]
        else:
            sizes = sorted({_size(found) for found in maps}, reverse=True)
            raise UserError(
                f"{title}: expected maps at the strides 4, 8, 16 and 32, or the blocks of a vision transformer; of a picture "
                f"of {sides[0]} x {sides[1]} pixels found {', '.join(f'{h} x {w}' for h, w in sizes) or 'no map'}; take "
                "another encoder"
            )
        self.channels = tuple(maps[place].shape[1] for place in self._places)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels `(N, 3, H, W)` -> `(N, C_i, H / s, W / s)` for s = 4, 8, 16, 32."""
        distinct = sorted(set(self._places))  # a network of two blocks gives each of them twice
        found = dict(zip(distinct, self._take(pixels, distinct), strict=True))
        maps = [found[place] for place in self._places]
        if not self.are_grids:
            return maps
        return [
            F.interpolate(grid, size=self._at(stride), mode="bilinear", align_corners=False)
            for stride, grid in zip(STRIDES, maps, strict=True)
        ]

    def _at(self, stride: int) -> tuple[int, int]:
        return self._sides[0] // stride, self._sides[1] // stride

    def _all_maps(self, title: str) -> list[Tensor]:
        first = next(self.network.parameters(), torch.zeros(()))
        pixels = torch.zeros(1, 3, *self._sides, dtype=first.dtype, device=first.device)
        try:
            with torch.no_grad():
                return self._take(pixels, None)
        except MISFITS as error:
            raise UserError(
                f"{title}: does not take pictures of {self._sides[0]} x {self._sides[1]} pixels ({first_line(error)}); give "
                "another size, or another encoder"
            ) from error


def require_single_frames(config: EncoderConfig) -> None:
    """Raise `UserError` for an encoder of clips; its config says so, before weights are fetched."""
    if config.clip_len is not None:
        raise UserError(
            f"{config.title}: expected an encoder of single frames, found one of clips, which has no maps of one picture; take "
            "another"
        )


def open_stages(encoder: Encoder, sides: tuple[int, int]) -> StageMaps:
    """The four maps of an encoder for pictures of `sides` (height, width), multiples of 32; its network stays frozen.

    Raises `UserError` for an encoder of clips, a network without such maps, and sides that it cannot cut into patches.
    """
    title = encoder.config.title
    require_single_frames(encoder.config)
    network = encoder.network
    backbone = getattr(network, "backbone", network)
    usual = encoder.preprocessing.size
    if hasattr(backbone, "forward_intermediates"):
        if hasattr(backbone, "num_prefix_tokens"):  # stages' first convolutions are called patches too, but overlap
            _check_patches(title, getattr(getattr(backbone, "patch_embed", None), "patch_size", None), sides)
        if sides != (usual, usual) and hasattr(backbone, "set_input_size"):
            backbone.set_input_size(img_size=sides)  # its positions, from the loaded ones
        take: _Take = _TimmMaps(backbone)
    elif hasattr(backbone, "config") and hasattr(backbone.config, "model_type"):
        patch = getattr(backbone.config, "patch_size", None)
        _check_patches(title, patch, sides)
        take = _TransformersMaps(backbone, patch, sides)
    else:
        take = _WatchedMaps(network, sides)
    return StageMaps(network.eval(), take, sides, title).requires_grad_(False)


def _check_patches(title: str, patch: object, sides: tuple[int, int]) -> None:
    edges = patch if isinstance(patch, tuple | list) else (patch, patch)
    for side, edge in zip(sides, edges, strict=True):
        if isinstance(edge, int) and side % edge:
            raise UserError(
                f"{title}: expected a size in whole patches of {edge} pixels, found {side}; give a multiple of both {edge} and "
                "32 (224, 448 and 672 are multiples of 14 and of 16 too)"
            )


def _size(found: Tensor) -> tuple[int, int]:
    return found.shape[-2], found.shape[-1]


class _TimmMaps:
    """timm's own way to what lies between: the outputs of stages or blocks, prefix tokens left out."""

    def __init__(self, backbone: nn.Module):
        self.backbone = backbone

    def __call__(self, pixels: Tensor, places: Sequence[int] | None) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            pixels, indices=places and list(places), norm=False, stop_early=True, intermediates_only=True
        )


class _TransformersMaps:
    """Hidden states of a network of transformers, after each block or stage; prefix tokens left out."""

    def __init__(self, backbone: nn.Module, patch: int | None, sides: tuple[int, int]):
        self.backbone, self.patch, self.sides = backbone, patch, sides
        self.options = {"output_hidden_states": True}
        if "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters:
            self.options["interpolate_pos_encoding"] = True

    def __call__(self, pixels: Tensor, places: Sequence[int] | None) -> list[Tensor]:
        output = self.backbone(pixel_values=pixels, **self.options)
        # Swin and the like have their maps as such beside the tokens; the first state is what the first block sees
        states = getattr(output, "reshaped_hidden_states", None) or output.hidden_states
        states = list(states)[1:] if states[0].ndim == 3 else list(states)
        return [self._as_map(states[place]) for place in (range(len(states)) if places is None else places)]

    def _as_map(self, state: Tensor) -> Tensor:
        if state.ndim == 4:
            return state
        height, width = (side // self.patch for side in self.sides)
        patches = state[:, state.shape[1] - height * width :]
        return patches.transpose(1, 2).reshape(len(state), -1, height, width)


class _WatchedMaps:
    """Maps of a network that offers no way to them: what its modules give out at each stride, by watching them.

    Of each stride the outermost modules count, and of these the one that ends last: a stage, not a layer in a block.
    """

    def __init__(self, network: nn.Module, sides: tuple[int, int]):
        self.network, self.wanted = network, [(sides[0] // stride, sides[1] // stride) for stride in STRIDES]
        self.chosen: list[nn.Module] = []

    def __call__(self, pixels: Tensor, places: Sequence[int] | None) -> list[Tensor]:
        if places is None:
            self._choose(pixels)
        outputs = dict(self._run(pixels, self.chosen)) if self.chosen else {}
        found = [_channels_first(outputs[module], self.wanted) for module in self.chosen]
        return found if places is None else [found[place] for place in places]

    def _run(self, pixels: Tensor, modules: Sequence[nn.Module]) -> list[tuple[nn.Module, Tensor]]:
        """The outputs of modules in the order in which these end."""
        ended: list[tuple[nn.Module, Tensor]] = []
        handles = [
            module.register_forward_hook(lambda module, _, output: ended.append((module, output))) for module in modules
        ]
        try:
            self.network(pixels)
        finally:
            for handle in handles:
                handle.remove()
        return ended

    def _choose(self, pixels: Tensor) -> None:
        names = {module: name for name, module in self.network.named_modules() if name}
        ended = self._run(pixels, list(names))
        times = Counter(module for module, _ in ended)  # one that is used again gives maps of several strides
        self.chosen = []
        for size in self.wanted:
            found = [
                module for module, output in ended if times[module] == 1 and _channels_first(output, [size]) is not None
            ]
            outermost = min((names[module].count(".") for module in found), default=0)
            self.chosen.extend([module for module in found if names[module].count(".") == outermost][-1:])


def _channels_first(output: object, sizes: Sequence[tuple[int, int]]) -> Tensor | None:
    """A map of one of the sizes as `(N, C, h, w)`, also one that has its channels last (Swin); None: it is no such map."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    if _size(output) in sizes:
        return output
    return output.permute(0, 3, 1, 2) if tuple(output.shape[1:3]) in sizes else None
