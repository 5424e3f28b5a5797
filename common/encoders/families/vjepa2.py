"""V-JEPA 2 (Assran et al., 2025) of transformers: the encoder alone, never its predictor."""

import logging
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VJEPA2Config, VJEPA2Model

from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, check_grid, check_width, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start, split_joint

log = logging.getLogger(__name__)

GIANT = {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11}
# `architecture` -> what differs from transformers' defaults, which are ViT-L's; a weight folder's config.json wins
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vjepa2-vitl": {},
    "vjepa2-vitg": GIANT,
    "tiny": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3},
}
META_TO_TRANSFORMERS = {
    "patch_embed.proj.": "encoder.embeddings.patch_embeddings.proj.",
    "blocks.": "encoder.layer.",
    "norm.": "encoder.layernorm.",
}
ENCODER_PARTS = ("embeddings.", "layer.", "layernorm.")  # of transformers
POSITIONS = "pos_embed"  # Meta's files still hold those of an earlier network


class VJEPA2Features(nn.Module):
    """Spatiotemporal tokens pooled to one vector a clip, or to one for each pair of frames.

    The predictor is let go: the same as `VJEPA2Model(..., skip_predictor=True)` without its memory.
    """

    def __init__(self, config: VJEPA2Config):
        super().__init__()
        # through the whole model, which chooses the memory-saving attention (8192 tokens a clip)
        self.encoder = VJEPA2Model(config).encoder
        self.tubelet = config.tubelet_size

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> mean over all tokens `(N, feature_dim)`."""
        return self.encoder(clips).last_hidden_state.mean(dim=1)

    def tokens(self, clips: Tensor) -> Tensor:
        """Normalised clips -> mean over space `(N, T // tubelet, feature_dim)`."""
        # tokens are ordered time, row, column: the first axis that unflattens is the time
        states = self.encoder(clips).last_hidden_state
        return states.unflatten(1, (clips.shape[1] // self.tubelet, -1)).mean(dim=2)


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """V-JEPA 2 for clips of `clip_len` frames of `size` x `size` pixels.

    Raises `UserError` for an unknown architecture, an odd window, weights of another width, and a size that is not the
    weights' own: positions are counted from `crop_size`, and another input would be accepted silently with wrong rows
    and columns.
    """
    hf_config = _network_config(config, source)
    size = config.preprocessing.size
    check_grid(config, hf_config.patch_size, hf_config.tubelet_size)
    if size != hf_config.crop_size:
        raise UserError(
            f"{config.title}: size {size}, but these weights are for {hf_config.crop_size} x {hf_config.crop_size}"
        )
    with torch.device("meta") if source.path is not None else nullcontext():
        network = VJEPA2Features(hf_config)
    return ClipEncoder(config, load_network(network, config, source, _rename), source)


def _network_config(config: EncoderConfig, source: WeightSource) -> VJEPA2Config:
    """The network's configuration: of the weight folder where it has one, else of the table."""
    stored = source.folder_config
    if stored is None:
        return VJEPA2Config(crop_size=config.preprocessing.size, **choose_architecture(config, ARCHITECTURES))
    if stored.get("model_type") != VJEPA2Config.model_type:
        raise UserError(f"{source.path}: expected V-JEPA 2 weights, found model_type {stored.get('model_type')!r}")
    hf_config = VJEPA2Config.from_dict(stored)
    check_width(hf_config.hidden_size, config, source)
    return hf_config


def _rename(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """transformers' names of a state under transformers' or Meta's, with or without `encoder.` before all of them."""
    if "patch_embed.proj.weight" not in state:
        names = {key: key.removeprefix("vjepa2.") for key in state}
        return {
            f"encoder.{name}" if name.startswith(ENCODER_PARTS) else name: state[key] for key, name in names.items()
        }
    renamed = {}
    for key, value in state.items():
        name = rename_start(key, META_TO_TRANSFORMERS)
        if key == POSITIONS:
            log.info("%s is left out: the positions of V-JEPA 2 are rotary and no part of its weights", POSITIONS)
        elif ".attn.qkv." in name:
            renamed |= split_joint(name, value, "attention.query", "attention.key", "attention.value")
        else:
            renamed[name.replace(".attn.proj.", ".attention.proj.")] = value
    return renamed
