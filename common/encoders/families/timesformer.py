"""TimeSformer (Bertasius et al., ICML 2021) of transformers, with attention over time and space apart, for Endo-FM.

The feature is the CLS token after the last norm, as in the authors' own evaluation (`Endo-FM:eval_finetune.py`). Positions
of another size, and times of another length, take those of the nearest.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerModel

from common.encoders.base import ClipEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start

# `architecture` -> what differs from transformers' defaults, which are Endo-FM's: ViT-B, 8 frames of 224 pixels
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "timesformer-vitb": {},
    "tiny": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192},
}
# the authors' names -> transformers'
NETWORK_NAMES = {
    "cls_token": "backbone.embeddings.cls_token",
    "pos_embed": "backbone.embeddings.position_embeddings",
    "time_embed": "backbone.embeddings.time_embeddings",
    "patch_embed.proj.": "backbone.embeddings.patch_embeddings.projection.",
    "blocks.": "backbone.encoder.layer.",
    "norm.": "backbone.layernorm.",
}
BLOCK_NAMES = {
    "temporal_attn.qkv.": "temporal_attention.attention.qkv.",
    "temporal_attn.proj.": "temporal_attention.output.dense.",
    "temporal_norm1.": "temporal_layernorm.",
    "temporal_fc.": "temporal_dense.",
    "attn.qkv.": "attention.attention.qkv.",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
}


class TimesformerFeatures(nn.Module):
    """The CLS token of a clip; it gives no features over time."""

    def __init__(self, config: TimesformerConfig):
        super().__init__()
        self.backbone = TimesformerModel(config)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> `(N, feature_dim)`."""
        return self.backbone(clips).last_hidden_state[:, 0]


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """A TimeSformer for clips of `clip_len` frames of `size` x `size` pixels.

    Raises `UserError` for an unknown architecture and a side that is not a whole number of patches.
    """
    sizes = TimesformerConfig(
        image_size=config.preprocessing.size, num_frames=config.clip_len, **choose_architecture(config, ARCHITECTURES)
    )
    check_grid(config, sizes.patch_size)
    return ClipEncoder(config, load_network(TimesformerFeatures(sizes), config, source, _rename), source)


def _rename(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """transformers' names of a state under the authors', its positions at the network's size; other names stay."""
    embeddings = network.backbone.embeddings
    renamed = {}
    for key, value in state.items():
        name = rename_start(key, NETWORK_NAMES)
        if key.startswith("blocks.") and key.count(".") > 1:
            _, number, part = key.split(".", 2)
            name = f"{NETWORK_NAMES['blocks.']}{number}.{rename_start(part, BLOCK_NAMES)}"
        elif key == "time_embed" and value.ndim == 3:
            value = _nearest(value, (embeddings.time_embeddings.shape[1],))
        elif key == "pos_embed" and value.ndim == 3 and value.shape[1] > 1:
            value = _at_size(value, math.isqrt(embeddings.position_embeddings.shape[1] - 1))
        renamed[name] = value
    return renamed


def _at_size(positions: Tensor, side: int) -> Tensor:
    """Positions `(1, 1 + patches, width)` of the CLS token and of `side` x `side` patches; no square stays as it is."""
    old = math.isqrt(positions.shape[1] - 1)
    if old == side or old**2 != positions.shape[1] - 1:
        return positions
    patches = _nearest(positions[:, 1:].unflatten(1, (old, old)), (side, side))
    return torch.cat([positions[:, :1], patches.flatten(1, 2)], dim=1)


def _nearest(positions: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Positions `(1, *old sizes, width)` of another number of times, or of rows and columns."""
    if tuple(positions.shape[1:-1]) == sizes:
        return positions
    return F.interpolate(positions.movedim(-1, 1), size=sizes, mode="nearest").movedim(1, -1)
