"""TimeSformer (Bertasius et al., ICML 2021) of transformers, with attention over time and space apart, for Endo-FM.

The feature is the CLS token after the last norm, as in the authors' own evaluation (`Endo-FM:eval_finetune.py`). Positions
of another size, and times of another length, take those of the nearest.
"""

from typing import Any

from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerModel

from common.encoders.base import ClipEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start

# `architecture` -> what differs from transformers' defaults, which are Endo-FM's: ViT-B, 8 frames of 224 pixels
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "timesformer-vitb": {},
    "tiny": {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "image_size": 32,
    },
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
    sizes = TimesformerConfig(**choose_architecture(config, ARCHITECTURES))
    check_grid(config, sizes.patch_size)
    return ClipEncoder(config, load_network(TimesformerFeatures(sizes), config, source, _rename), source)


def _rename(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """transformers' names of a state under the authors'; other names stay."""
    renamed = {}
    for key, value in state.items():
        name = rename_start(key, NETWORK_NAMES)
        if key.startswith("blocks."):
            _, number, part = key.split(".", 2)
            name = f"{NETWORK_NAMES['blocks.']}{number}.{rename_start(part, BLOCK_NAMES)}"
        renamed[name] = value
    return renamed
