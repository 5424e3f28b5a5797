"""DINOv3 vision transformers (Simeoni et al., 2025), by transformers or, the ungated way, by timm.

Weights come under three sets of names: transformers', timm's and Meta's own. The network of transformers reads all
three, that of timm the latter two.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding

from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, check_grid, check_width, choose_architecture, load_network, pooled_parts
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, rename_start, split_joint

PATCH_SIZE = 16
NUM_REGISTERS = 4
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
SWIGLU = GATED | {"query_bias": False, "value_bias": False}
# `architecture` -> timm's name, (width, layers, heads, width of the MLP), what else transformers must know
ARCHITECTURES: dict[str, tuple[str, tuple[int, int, int, int], dict[str, Any]]] = {
    "vits16": ("vit_small_patch16_dinov3", (384, 12, 6, 1536), {}),
    "vitb16": ("vit_base_patch16_dinov3", (768, 12, 12, 3072), {}),
    "vitl16": ("vit_large_patch16_dinov3", (1024, 24, 16, 4096), {}),
    "vits16plus": ("vit_small_plus_patch16_dinov3", (384, 12, 6, 1536), GATED),
    "vith16plus": ("vit_huge_plus_patch16_dinov3", (1280, 32, 20, 5120), GATED),
    "vit7b16": ("vit_7b_patch16_dinov3", (4096, 40, 32, 8192), SWIGLU),
    "tiny": ("vit_base_patch16_dinov3_qkvb", (48, 2, 3, 192), {}),
    "tiny_plus": ("vit_small_plus_patch16_dinov3_qkvb", (48, 2, 3, 192), GATED),
    "tiny_7b": ("vit_7b_patch16_dinov3", (64, 2, 2, 128), SWIGLU),
}
# statistics of the satellite images of SAT-493M, which its weights expect
SATELLITE, SATELLITE_MEAN, SATELLITE_STD = "sat493m", (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)

META_TO_TIMM = {
    "storage_tokens": "reg_token",
    "ls1.gamma": "gamma_1",
    "ls2.gamma": "gamma_2",
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}
# constants, and parts of Meta's training that no feature depends on
META_ONLY = (".periods", ".bias_mask", "mask_token", "local_cls_norm.weight", "local_cls_norm.bias")
TIMM_TO_TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj.": "embeddings.patch_embeddings.",
    "attn.proj.": "attention.o_proj.",
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
    "mlp.fc1_g.": "mlp.gate_proj.",
    "mlp.fc1_x.": "mlp.up_proj.",
    "mlp.fc1.": "mlp.up_proj.",
    "mlp.fc2.": "mlp.down_proj.",
}


class DINOv3Features(nn.Module):
    """One vector an image out of the tokens after the final norm, which both libraries order CLS, registers, patches.

    `pooling`: `cls`, `mean` (of the patches alone) or `cls+mean` (side by side, twice as wide).
    """

    def __init__(self, backbone: nn.Module, pooling: str, num_registers: int):
        super().__init__()
        self.backbone, self.pooling, self.first_patch = backbone, pooling, 1 + num_registers

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `(N, 3, H, W)` -> `(N, feature_dim)`."""
        if isinstance(self.backbone, DINOv3ViTModel):
            tokens = self.backbone(pixels).last_hidden_state
        else:
            tokens = self.backbone.forward_features(pixels)
        return torch.cat(pooled_parts(tokens, self.pooling, self.first_patch), dim=1)


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """DINOv3 by the config's `library`, pooled by its `pooling`; satellite weights get their own mean and std.

    Raises `UserError` for an unknown architecture and for a side that is not a whole number of patches, which the
    network would silently cut off.
    """
    check_grid(config, PATCH_SIZE)
    choose_architecture(config, ARCHITECTURES)
    if SATELLITE in source.source.lower().replace("-", ""):
        rule = replace(config.preprocessing, mean=SATELLITE_MEAN, std=SATELLITE_STD)
        config = replace(config, preprocessing=rule)
    if config.library == "timm":
        backbone, num_registers = _timm_backbone(config), NUM_REGISTERS
        backbone = load_network(backbone, config, source, _to_timm)
    else:
        backbone, num_registers = _transformers_backbone(config, source)
    network = DINOv3Features(backbone, config.pooling, num_registers)
    return ImageEncoder(config, network, source, feature_dim=config.pooled_dim)


def _timm_backbone(config: EncoderConfig) -> nn.Module:
    name, (width, layers, heads, _), _ = ARCHITECTURES[config.architecture]
    sizes = {"embed_dim": width, "depth": layers, "num_heads": heads}
    return timm.create_model(name, pretrained=False, num_classes=0, global_pool="token", **sizes)


def _transformers_backbone(config: EncoderConfig, source: WeightSource) -> tuple[nn.Module, int]:
    """The loaded network and its number of registers; a folder of transformers' own says what network it is for."""
    on_disk = source.path is not None
    with source.config_errors():
        hf_config = _transformers_config(config, source)
        with torch.device("meta") if on_disk else nullcontext():
            backbone = DINOv3ViTModel(hf_config)
    if on_disk:  # the positions' frequencies are no part of the weights
        backbone.rope_embeddings = DINOv3ViTRopePositionEmbedding(hf_config)
    rename = partial(_to_transformers, width=hf_config.hidden_size)
    return load_network(backbone, config, source, rename), hf_config.num_register_tokens


def _transformers_config(config: EncoderConfig, source: WeightSource) -> DINOv3ViTConfig:
    stored = source.folder_config
    if stored and stored.get("model_type") == DINOv3ViTConfig.model_type:
        hf_config = DINOv3ViTConfig.from_dict(stored)
        check_width(hf_config.hidden_size, config, source)
        return hf_config
    _, (width, layers, heads, mlp_width), others = ARCHITECTURES[config.architecture]
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return DINOv3ViTConfig(intermediate_size=mlp_width, num_register_tokens=NUM_REGISTERS, **sizes, **others)


def _to_timm(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """timm's names of a state under timm's or Meta's.

    Meta's joint bias of queries, keys and values is masked to zero for the keys; networks whose biases were all trained
    to zero have none in timm. A bias that is not zero keeps its name, and strict loading reports it.
    """
    if "embeddings.cls_token" in state:
        raise UserError("these weights are under transformers' names: leave `library: timm` out of config.yaml")
    own, renamed = network.state_dict(), {}
    for key, value in state.items():
        if key.endswith(META_ONLY):
            continue
        name = _replace_all(key, META_TO_TIMM)
        if not name.endswith("attn.qkv.bias"):
            renamed[name] = value
            continue
        queries, _, values = value.chunk(3)
        for part, bias in (("q_bias", queries), ("v_bias", values)):
            target = name.replace("qkv.bias", part)
            if target in own or bias.any():
                renamed[target] = bias
    return renamed


def _to_transformers(state: dict[str, Tensor], network: nn.Module, width: int) -> dict[str, Tensor]:
    """transformers' names of a state under transformers', timm's or Meta's."""
    # on disk the layers are `layer.N`, in memory (of recent releases) `model.layer.N`
    layers = "model.layer." if any(key.startswith("model.layer.") for key in network.state_dict()) else "layer."
    if "embeddings.cls_token" in state:
        return {rename_start(key, {"layer.": layers}): value for key, value in state.items()}
    renamed = {"embeddings.mask_token": torch.zeros(1, 1, width)}  # of pretraining; timm does not keep it
    for key, value in _to_timm(state, network).items():
        name = rename_start(_replace_all(key, TIMM_TO_TRANSFORMERS), {"blocks.": layers})
        if name.endswith("attn.qkv.weight"):
            renamed |= split_joint(name, value, "attention.q_proj", "attention.k_proj", "attention.v_proj")
        else:
            renamed[name] = value
    for name, own in network.state_dict().items():
        if name.endswith(("q_proj.bias", "v_proj.bias")) and name not in renamed:
            renamed[name] = torch.zeros(own.shape)  # timm leaves zero biases out
    return renamed


def _replace_all(name: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name
