"""V-JEPA 2 (Assran et al., 2025) of transformers, and V-JEPA 2.1: the encoder alone, never its predictor.

V-JEPA 2.1 (`facebookresearch/vjepa2:app/vjepa_2_1/models`, March 2026) is the same transformer, which sees pictures too:
a vector that says "video" is added to the tokens, and the angles of the rotary positions are interleaved, on a grid of
rows and columns that is always 16 wide. transformers does not have it: its three changed parts are subclasses here.
"""

import logging
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VJEPA2Config, VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Embeddings, VJEPA2RopeAttention

from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, check_grid, check_width, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start, split_joint

log = logging.getLogger(__name__)

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32}
GIANT = {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11}
GIGANTIC = {"hidden_size": 1664, "num_hidden_layers": 48, "num_attention_heads": 26, "mlp_ratio": 64 / 13}
TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    # the usual predictor is larger than all the rest
    "pred_hidden_size": 24,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 2,
}
# `architecture` -> what differs from transformers' defaults, which are ViT-L's; a weight folder's config.json wins
ARCHITECTURES: dict[str, dict[str, Any]] = {"vjepa2-vitl": {}, "vjepa2-vith": HUGE, "vjepa2-vitg": GIANT, "tiny": TINY}
ARCHITECTURES_2_1: dict[str, dict[str, Any]] = {
    "vjepa2.1-vitb": BASE,
    "vjepa2.1-vitl": {},
    "vjepa2.1-vitg": GIANT,
    "vjepa2.1-vitgigantic": GIGANTIC,
    "tiny-2.1": TINY,
}
SIDE_OF_2_1 = 16  # rows and columns that the rotary positions of 2.1 span, whatever the size of the picture
META_TO_TRANSFORMERS = {
    "patch_embed.proj.": "encoder.embeddings.patch_embeddings.proj.",
    "blocks.": "encoder.layer.",
    "norm.": "encoder.layernorm.",
    # of 2.1, whose last norm is the fourth of those that it trains with
    "patch_embed_img.proj.": "encoder.embeddings.image_patch_embeddings.",
    "video_mod_embed": "encoder.embeddings.video_modality",
    "img_mod_embed": "encoder.embeddings.image_modality",
    "norms_block.3.": "encoder.layernorm.",
    "norms_block.": "encoder.norms_within.",
}
ENCODER_PARTS = ("embeddings.", "layer.", "layernorm.")  # of transformers
POSITIONS = "pos_embed"  # Meta's files still hold those of an earlier network
# ... but these many are V-JEPA 1's, of 16 frames of 224 and 384 pixels, which it cannot do without
POSITIONS_OF_VJEPA1 = (8 * 14 * 14, 8 * 24 * 24)


class VJEPA2Features(nn.Module):
    """Spatiotemporal tokens pooled to one vector a clip, or to one for each pair of frames.

    The predictor is let go: the same as `VJEPA2Model(..., skip_predictor=True)` without its memory.
    """

    def __init__(self, config: VJEPA2Config, *, is_2_1: bool = False):
        super().__init__()
        # through the whole model, which chooses the memory-saving attention (8192 tokens a clip)
        self.encoder = VJEPA2Model(config).encoder
        if is_2_1:
            _make_2_1(self.encoder)
        self.tubelet = config.tubelet_size

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> mean over all tokens `(N, feature_dim)`."""
        return self.encoder(clips).last_hidden_state.mean(dim=1)

    def tokens(self, clips: Tensor) -> Tensor:
        """Normalised clips -> mean over space `(N, T // tubelet, feature_dim)`."""
        # tokens are ordered time, row, column: the first axis that unflattens is the time
        states = self.encoder(clips).last_hidden_state
        return states.unflatten(1, (clips.shape[1] // self.tubelet, -1)).mean(dim=2)


class VideoEmbeddings(VJEPA2Embeddings):
    """Patches of V-JEPA 2.1: marked as video. The parts for single pictures are there because its files hold them."""

    def __init__(self, config: VJEPA2Config):
        super().__init__(config, config.hidden_size)
        patch, width = config.patch_size, config.hidden_size
        self.video_modality = nn.Parameter(torch.zeros(1, 1, width))
        self.image_modality = nn.Parameter(torch.zeros(1, 1, width))
        cube = (1, patch, patch)
        self.image_patch_embeddings = nn.Conv3d(config.in_chans, width, kernel_size=cube, stride=cube)

    def forward(self, pixel_values_videos: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> tokens `(N, tokens, hidden_size)`."""
        return super().forward(pixel_values_videos) + self.video_modality


class InterleavedRopeAttention(VJEPA2RopeAttention):
    """Attention of V-JEPA 2.1: neighbouring values share an angle; rows and columns are counted on a grid of 16.

    `app/vjepa_2_1/models/utils/modules.py`: `RoPEAttention` with `interpolate_rope`.
    """

    def get_position_ids(self, x: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Time, row and column of every token; rows and columns as fractions of a grid of 16."""
        times, rows, columns = super().get_position_ids(x, masks)
        scale = (SIDE_OF_2_1 - 1) / max(1, self.grid_size - 1)  # of one row there is the first alone
        return times, rows * scale, columns * scale

    def apply_rotary_embeddings(self, qk: Tensor, pos_ids: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Queries or keys `(N, heads, tokens, head size)`, a part of each vector turned by each position."""
        parts = qk.split([self.d_dim, self.h_dim, self.w_dim, qk.shape[-1] - 3 * self.d_dim], dim=-1)
        turned = [_turned(part, positions) for part, positions in zip(parts[:3], pos_ids, strict=True)]
        return torch.cat([*turned, parts[3]], dim=-1)


def _turned(values: Tensor, positions: Tensor) -> Tensor:
    """Pairs of neighbouring values turned by an angle each, position / 10000^(2 i / width) of the i-th pair."""
    width = values.shape[-1]
    steps = torch.arange(0, width, 2, device=values.device) / width
    angles = (positions.unsqueeze(-1) / 10000**steps).float()
    cosine, sine = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    first, second = values.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1).flatten(-2)


def _make_2_1(encoder: nn.Module) -> None:
    """Put the parts of V-JEPA 2.1 into transformers' encoder of V-JEPA 2."""
    config = encoder.config
    encoder.embeddings = VideoEmbeddings(config)
    for layer in encoder.layer:
        layer.attention = InterleavedRopeAttention(config, config.hidden_size, config.num_attention_heads)
    # of three layers further down, which the training predicts too; here because its files hold them
    encoder.norms_within = nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(3))


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """V-JEPA 2 for clips of `clip_len` frames of `size` x `size` pixels.

    Raises `UserError` for an unknown architecture, an odd window, weights of another width or of V-JEPA 1, and a size that
    is not the weights' own: positions are counted from `crop_size`, and another input would be accepted silently with
    wrong rows and columns.
    """
    with source.config_errors():
        hf_config = _network_config(config, source)
    size = config.preprocessing.size
    check_grid(config, hf_config.patch_size, hf_config.tubelet_size)
    if size != hf_config.crop_size:
        raise UserError(
            f"{config.title}: size {size}, but these weights are for {hf_config.crop_size} x {hf_config.crop_size}"
        )
    with source.config_errors(), torch.device("meta") if source.path is not None else nullcontext():
        network = VJEPA2Features(hf_config, is_2_1=config.architecture in ARCHITECTURES_2_1)
    return ClipEncoder(config, load_network(network, config, source, partial(_rename, source=source)), source)


def _network_config(config: EncoderConfig, source: WeightSource) -> VJEPA2Config:
    """The network's configuration: of the weight folder where it has one, else of the table."""
    stored = source.folder_config
    if stored is None:
        sizes = choose_architecture(config, ARCHITECTURES | ARCHITECTURES_2_1)
        return VJEPA2Config(crop_size=config.preprocessing.size, **sizes)
    if stored.get("model_type") != VJEPA2Config.model_type:
        raise UserError(f"{source.path}: expected V-JEPA 2 weights, found model_type {stored.get('model_type')!r}")
    hf_config = VJEPA2Config.from_dict(stored)
    check_width(hf_config.hidden_size, config, source)
    return hf_config


def _rename(state: dict[str, Tensor], network: nn.Module, source: WeightSource) -> dict[str, Tensor]:
    """transformers' names of a state under transformers' or Meta's, with or without `encoder.` before all of them.

    Raises `UserError` for positions of V-JEPA 1.
    """
    if "patch_embed.proj.weight" not in state:
        names = {key: key.removeprefix("vjepa2.") for key in state}
        return {
            f"encoder.{name}" if name.startswith(ENCODER_PARTS) else name: state[key] for key, name in names.items()
        }
    renamed = {}
    for key, value in state.items():
        name = rename_start(key, META_TO_TRANSFORMERS)
        if key == POSITIONS:
            _refuse_positions_of_vjepa1(value, source)
            log.info("%s: left out %s: the positions of V-JEPA 2 are rotary and no part of it", source.path, POSITIONS)
        elif ".attn.qkv." in name:
            renamed |= split_joint(name, value, "attention.query", "attention.key", "attention.value")
        else:
            renamed[name.replace(".attn.proj.", ".attention.proj.")] = value
    return renamed


def _refuse_positions_of_vjepa1(positions: Tensor, source: WeightSource) -> None:
    """Raise `UserError` where a file, whose names do not tell, has as many positions as V-JEPA 1 has tokens."""
    num_rows = positions.shape[-2] if positions.ndim > 1 else 0
    if num_rows in POSITIONS_OF_VJEPA1:
        raise UserError(
            f"{source.path}: expected weights of V-JEPA 2, found {POSITIONS} of {num_rows} rows, which are V-JEPA 1's and "
            "which it needs; use a folder of family vjepa1, such as --model V-JEPA1-ViT-L"
        )
