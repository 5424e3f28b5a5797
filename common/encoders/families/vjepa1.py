"""V-JEPA (Bardes et al., 2024), the first one: timm's blocks on tubes of two frames, with positions out of the file.

V-JEPA 2 has the same names but for `pos_embed`, and rotary positions in every attention instead: the two are told apart
by that, and by the model's config. Blocks as in `facebookresearch/jepa:src/models/vision_transformer.py`: full bias of
queries, keys and values, exact GELU, epsilon 1e-6.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource

PATCH_SIZE, TUBELET = 16, 2
POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Sizes:
    """Sizes of the transformer, and the clips whose positions its files hold."""

    width: int
    layers: int
    heads: int = 16
    size: int = 224
    num_frames: int = 16


ARCHITECTURES = {
    "vjepa1-vitl": Sizes(1024, 24),
    "vjepa1-vith": Sizes(1280, 32),
    "vjepa1-vith-384": Sizes(1280, 32, size=384),
    "tiny": Sizes(48, 2, heads=3, size=32, num_frames=8),
}


class VJEPA1Features(nn.Module):
    """Spatiotemporal tokens pooled to one vector a clip, or to one for each pair of frames."""

    tubelet = TUBELET

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, sides = sizes.width, sizes.size // PATCH_SIZE
        # times, rows and columns of the positions
        self.grid = sizes.num_frames // TUBELET, sides, sides
        norm = partial(nn.LayerNorm, eps=1e-6)
        cube = (TUBELET, PATCH_SIZE, PATCH_SIZE)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, kernel_size=cube, stride=cube)})
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * sides**2, width))
        self.blocks = nn.ModuleList(
            Block(width, sizes.heads, qkv_bias=True, norm_layer=norm) for _ in range(sizes.layers)
        )
        self.norm = norm(width)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> mean over all tokens `(N, feature_dim)`."""
        return self.states(clips).mean(dim=1)

    def tokens(self, clips: Tensor) -> Tensor:
        """Normalised clips -> mean over space `(N, T // 2, feature_dim)`."""
        return self.states(clips).unflatten(1, (clips.shape[1] // TUBELET, -1)).mean(dim=2)

    def states(self, clips: Tensor) -> Tensor:
        """Normalised clips -> tokens after the last norm, in the order time, row, column: `(N, tokens, feature_dim)`."""
        patches = self.patch_embed["proj"](clips.transpose(1, 2))
        states = patches.flatten(2).transpose(1, 2) + self.positions(tuple(patches.shape[2:]))
        for block in self.blocks:
            states = block(states)
        return self.norm(states)

    def positions(self, grid: tuple[int, int, int]) -> Tensor:
        """Positions `(1, tokens, feature_dim)` of a grid of times, rows and columns; interpolated as the authors do."""
        if grid == self.grid:
            return self.pos_embed
        volume = self.pos_embed.unflatten(1, self.grid).movedim(-1, 1)
        return F.interpolate(volume, size=grid, mode="trilinear").flatten(2).transpose(1, 2)


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """V-JEPA 1 for clips of `clip_len` frames of `size` x `size` pixels.

    Raises `UserError` for an unknown architecture, an odd window, a size that is no whole number of patches, and for
    weights without positions.
    """
    sizes = choose_architecture(config, ARCHITECTURES)
    check_grid(config, PATCH_SIZE, TUBELET)
    with torch.device("meta") if source.path is not None else nullcontext():
        network = VJEPA1Features(sizes)
    return ClipEncoder(config, load_network(network, config, source, partial(_with_positions, source=source)), source)


def _with_positions(state: dict[str, Tensor], network: nn.Module, source: WeightSource) -> dict[str, Tensor]:
    """The state as it is. Raises `UserError` when it has no positions, as V-JEPA 2's."""
    if "blocks.0.attn.qkv.weight" in state and POSITIONS not in state:
        raise UserError(
            f"{source.path}: expected V-JEPA 1 weights with their positions ({POSITIONS}), found none: these are of V-JEPA "
            "2, whose positions are rotary; use a folder of family vjepa2, such as --model V-JEPA2-ViT-L"
        )
    return state
