"""Video MAE (Tong et al., NeurIPS 2022) of transformers, also for Video MAE v2, SurgVISTA and SurgRec-MAE: the same ViT.

The feature is the final norm of the mean of all tokens, as in the authors' fine-tuning code
(`SurgVISTA:downstream/model/unifiedmodel.py` and `OpenGVLab/VideoMAEv2:models/modeling_finetune.py`, both with
`use_mean_pooling`; `extract_tad_feature.py` of the latter extracts it), so that SurgVISTA's own pooling is this one. SurgVISTA counts positions along time, row and column apart
(`unified_base_st`, its `get_3d_sincos_pos_embed`), Video MAE along one line of tokens: the architecture says which. A
checkpoint that holds its positions overrules it, and so does a folder of `pretrain/`, whose config.json says it.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel
from transformers.models.videomae.modeling_videomae import VideoMAESelfAttention

from common.base.runtime import UserError, shown
from common.encoders.base import ClipEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start, split_joint

EPSILON = 1e-6
TUBELET = 2
SPACE_TIME = "space_time_positions"  # of the config.json that `pretrain/` writes


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer, and whether positions are counted along time, row and column apart."""

    width: int
    layers: int
    heads: int
    space_time_positions: bool = False
    patch_size: int = 16
    mlp_width: int | None = None
    """None: four times the width."""


ARCHITECTURES = {
    "videomae-vitb": Architecture(768, 12, 12),
    "videomae-vitl": Architecture(1024, 24, 16),
    "videomae-vith": Architecture(1280, 32, 16),
    "videomae-vitg14": Architecture(1408, 40, 16, patch_size=14, mlp_width=6144),  # of Video MAE v2
    "surgvista-vitb": Architecture(768, 12, 12, space_time_positions=True),
    "tiny": Architecture(96, 3, 4),
    "tiny-14": Architecture(96, 3, 4, patch_size=14, mlp_width=160),
    "tiny-surgvista": Architecture(96, 3, 4, space_time_positions=True),
}
# within a block: the authors' names -> transformers'
BLOCK_NAMES = {
    "attn.proj.": "attention.output.dense.",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
}
NETWORK_NAMES = {
    "patch_embed.proj.": "backbone.embeddings.patch_embeddings.projection.",
    "blocks.": "backbone.encoder.layer.",
    "fc_norm.": "fc_norm.",  # `norm.` is another: pretraining's, before the decoder
}


class VideoMAEFeatures(nn.Module):
    """Tokens pooled over space and time, or over space alone, then normalised."""

    def __init__(self, backbone: VideoMAEModel):
        super().__init__()
        self.backbone = backbone
        self.fc_norm = nn.LayerNorm(backbone.config.hidden_size, eps=EPSILON)
        self.tubelet = backbone.config.tubelet_size

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> `(N, feature_dim)`."""
        return self.fc_norm(self.backbone(clips).last_hidden_state.mean(dim=1))

    def tokens(self, clips: Tensor) -> Tensor:
        """Normalised clips -> mean over space, normalised: `(N, T // tubelet, feature_dim)`."""
        states = self.backbone(clips).last_hidden_state
        return self.fc_norm(states.unflatten(1, (clips.shape[1] // self.tubelet, -1)).mean(dim=2))


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """A Video MAE encoder for clips of `clip_len` frames of `size` x `size` pixels.

    Weights without the final norm (of pretraining) leave it at scale 1 and offset 0, as the authors' code does.
    Raises `UserError` for an unknown architecture, an odd window, and a side that is not a whole number of patches.
    """
    size = config.preprocessing.size
    architecture = choose_architecture(config, ARCHITECTURES)
    check_grid(config, architecture.patch_size, TUBELET)
    hf_config = VideoMAEConfig(
        image_size=size,
        num_frames=config.clip_len,
        patch_size=architecture.patch_size,
        tubelet_size=TUBELET,
        hidden_size=architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.mlp_width or 4 * architecture.width,
        layer_norm_eps=EPSILON,
        use_mean_pooling=True,
    )
    with torch.device("meta") if source.path is not None else nullcontext():
        backbone = VideoMAEModel(hf_config)
    drop_key_biases(backbone)
    network = VideoMAEFeatures(backbone)  # its norm has values, because files of pretraining bring none
    if _has_space_time_positions(architecture, source):
        sides, times = size // architecture.patch_size, config.clip_len // TUBELET
        backbone.embeddings.position_embeddings = space_time_positions(architecture.width, sides, times)
    return ClipEncoder(config, load_network(network, config, source, _rename), source)


def drop_key_biases(network: nn.Module) -> None:
    """Leave a Video MAE of transformers without the biases of its keys: 5.17 has them, 5.23 and the authors have none.

    They add the same number to all scores of a query, which the softmax takes away again: no output depends on them.
    """
    for module in network.modules():
        if isinstance(module, VideoMAESelfAttention):
            module.key.bias = None


def library_name(key: str) -> str | None:
    """The name in a Video MAE of transformers of a key of its files; None: a bias of the keys, see `drop_key_biases`.

    Published files, and those that 5.23 writes, have the authors' names of the other two biases.
    """
    if key.endswith(".attention.attention.key.bias"):
        return None
    return key.replace(".attention.q_bias", ".attention.query.bias").replace(
        ".attention.v_bias", ".attention.value.bias"
    )


def _has_space_time_positions(architecture: Architecture, source: WeightSource) -> bool:
    stored = (source.folder_config or {}).get(SPACE_TIME, architecture.space_time_positions)
    if not isinstance(stored, bool):
        raise UserError(f"{source.path}/config.json: {SPACE_TIME}: expected true or false, found {shown(stored)}")
    return stored


def space_time_positions(width: int, num_sides: int, num_times: int) -> Tensor:
    """Sine and cosine positions `(1, num_times * num_sides^2, width)` in the order time, row, column.

    A quarter of the width is for the time, three eighths each for column and row
    (`SurgVISTA:downstream/model/unifiedmodel.py`, `get_3d_sincos_pos_embed`).
    """
    times, sides = torch.arange(num_times), torch.arange(num_sides)
    for_time, for_side = _sine_cosine(width // 4, times), _sine_cosine(width // 8 * 3, sides)
    shape = (num_times, num_sides, num_sides, -1)
    parts = [
        for_time[:, None, None].expand(shape),
        for_side[None, None, :].expand(shape),  # column first
        for_side[None, :, None].expand(shape),
    ]
    return torch.cat(parts, dim=-1).reshape(1, -1, width)


def _sine_cosine(width: int, positions: Tensor) -> Tensor:
    """`(len(positions), width)`: sines, then cosines, of wavelengths growing geometrically to 10000."""
    frequencies = 10000 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions[:, None].double() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _rename(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """This network's names of a state under the authors' or transformers' names; positions go straight into it."""
    state = {key.removeprefix("videomae."): value for key, value in state.items()}
    positions = state.pop("pos_embed", None)
    if positions is not None:
        _set_positions(network, positions)
    if any(key.startswith("encoder.blocks.") for key in state):
        state = {key.removeprefix("encoder."): value for key, value in state.items()}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(("embeddings.", "encoder.layer.")):
            renamed[f"backbone.{key}"] = value
        else:
            renamed |= _from_authors(key, value)
    return {name: value for key, value in renamed.items() if (name := library_name(key)) is not None}


def _from_authors(key: str, value: Tensor) -> dict[str, Tensor]:
    name = rename_start(key, NETWORK_NAMES)
    if not key.startswith(tuple(NETWORK_NAMES)):  # the decoder's blocks keep their names, as messages then show them
        return {key: value}
    for old, new in BLOCK_NAMES.items():
        name = name.replace(f".{old}", f".{new}")
    if "attn.qkv." not in name:
        return {name: value}
    return split_joint(name, value, *(f"attention.attention.{part}" for part in ("query", "key", "value")))


def _set_positions(network: VideoMAEFeatures, positions: Tensor) -> None:
    embeddings = network.backbone.embeddings
    expected, found = tuple(embeddings.position_embeddings.shape), tuple(positions.shape)
    if expected != found:
        raise UserError(
            f"these weights have positions for {found[1]} tokens, not {expected[1]}: use their own --clip_len and size"
        )
    embeddings.position_embeddings = positions.float()
