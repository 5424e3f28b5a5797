"""SurgeNet: surgical self-supervised backbones.

Jaspers et al., Medical Image Analysis 2025; de Jong et al., MIDL 2026. The networks are timm's own. CAFormer,
ConvNeXt V2 and PVT v2 checkpoints are renamed by timm's `checkpoint_filter_fn`; the DINOv3 vision transformers of that
group have no register tokens, a bias on the keys and an epsilon of 1e-6, unlike Meta's, so timm's registered DINOv3
networks would leave parameters at random values.
"""

import importlib
from functools import partial
from typing import Any

import timm
from timm.models import metaformer
from torch import Tensor, nn

from common.encoders.base import ImageEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, read_network

PATCH_SIZE = 16
VIT_OPTIONS = {
    "num_reg_tokens": 0,
    "qkv_bias": True,
    "global_pool": "token",
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}
TINY_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
TINY_STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 32)}
# `architecture` -> timm's name and what differs from timm's defaults
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "caformer_s18": ("caformer_s18", {"depths": (3, 3, 9, 3), "dims": (64, 128, 320, 512)}),
    "convnextv2_tiny": ("convnextv2_tiny", {}),
    "pvt_v2_b2": ("pvt_v2_b2", {}),
    "vit_small_dinov3": ("vit_small_patch16_dinov3", VIT_OPTIONS),
    "vit_base_dinov3": ("vit_base_patch16_dinov3", VIT_OPTIONS),
    "vit_large_dinov3": ("vit_large_patch16_dinov3", VIT_OPTIONS),
    "tiny_caformer_s18": ("caformer_s18", TINY_STAGES),
    "tiny_convnextv2_tiny": ("convnextv2_tiny", TINY_STAGES),
    "tiny_pvt_v2_b2": ("pvt_v2_b2", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 2)}),
    "tiny_vit_base_dinov3": ("vit_base_patch16_dinov3", VIT_OPTIONS | TINY_VIT),
}
PRETRAINING_ONLY = ("mask_token", "rope_embed.periods")  # the positions' periods are a constant


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """A SurgeNet backbone: global average of the last stage, or the CLS token of a vision transformer.

    Raises `UserError` for an unknown architecture and for a side that a vision transformer cannot cut into patches.
    """
    name, options = choose_architecture(config, ARCHITECTURES)
    is_vit = name.startswith("vit_")
    if is_vit:
        check_grid(config, PATCH_SIZE)
    if name == "caformer_s18":
        network = _caformer(plain_relu=_has_plain_relu(source), **options)
    else:
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    rename = partial(_rename_vit if is_vit else _rename_by_timm, heads=config.allowed_unexpected)
    return ImageEncoder(config, load_network(network, config, source, rename), source)


def _has_plain_relu(source: WeightSource) -> bool:
    """Whether the weights are of a CAFormer with ReLU, which has no parameters, in the place of StarReLU.

    The authors' `metaformer.py` has both (`pretrained='SurgeNet'` and `'ImageNet'`); the file tells them apart.
    """
    if source.path is None:
        return False
    names = read_network(source.path, source.network, lazy=True).state
    return not any(".act.scale" in name for name in names)


def _caformer(*, plain_relu: bool, depths: tuple[int, ...], dims: tuple[int, ...]) -> nn.Module:
    """timm's CAFormer (Yu et al., TPAMI 2024) of any depth; its registered function fixes depth and activation."""
    convolution = _ReluSepConv if plain_relu else metaformer.SepConv
    return metaformer.MetaFormer(
        num_classes=0,
        depths=depths,
        dims=dims,
        token_mixers=[convolution] * 2 + [metaformer.Attention] * 2,
        mlp_act=nn.ReLU if plain_relu else metaformer.StarReLU,
        norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
    )


class _ReluSepConv(metaformer.SepConv):
    """timm's separable convolution with a ReLU inside."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options | {"act1_layer": nn.ReLU})


def _rename_by_timm(state: dict[str, Tensor], network: nn.Module, heads: tuple[str, ...]) -> dict[str, Tensor]:
    """The authors' names as timm's; listed heads are left out first, timm's function has no place for them.

    A file under timm's own names, which has a stem, keeps its `head.norm`: there it is the last norm of the body.
    """
    own = network.state_dict() if any(key.startswith("stem.") for key in state) else {}
    body = {key: value for key, value in state.items() if key in own or not key.startswith(heads)}
    return importlib.import_module(type(network).__module__).checkpoint_filter_fn(body, network)


def _rename_vit(state: dict[str, Tensor], network: nn.Module, heads: tuple[str, ...]) -> dict[str, Tensor]:
    """The release's names as timm's: the joint bias in three parts, of which timm keeps the keys' as a buffer."""
    renamed = {}
    for key, value in state.items():
        if key.startswith((*heads, *PRETRAINING_ONLY)):
            continue
        if key.endswith("attn.qkv.bias"):
            attention = key.removesuffix("qkv.bias")
            renamed[f"{attention}q_bias"], keys_bias, renamed[f"{attention}v_bias"] = value.chunk(3)
            if attention.removesuffix(".") in dict(network.named_modules()):
                network.get_submodule(attention.removesuffix(".")).k_bias.copy_(keys_bias)
        else:
            renamed[key] = value
    return renamed
