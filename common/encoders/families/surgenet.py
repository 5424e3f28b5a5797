"""SurgeNet: surgical self-supervised backbones.

Jaspers et al., Medical Image Analysis 2025; de Jong et al., MIDL 2026. The networks are timm's own. CAFormer,
ConvNeXt V2, PVT v2, DINOv1 and DINOv2 checkpoints are renamed by timm's `checkpoint_filter_fn`; the DINOv3 vision
transformers of that group have no register tokens, a bias on the keys and an epsilon of 1e-6, unlike Meta's, so timm's
registered DINOv3 networks would leave parameters at random values. Two networks depend on the file: a CAFormer has ReLU
or StarReLU, a DINOv2 has the registers that its file holds.
"""

import logging
import re
from functools import partial
from typing import Any

import timm
from timm.models import metaformer
from torch import Tensor, nn

from common.encoders.base import ImageEncoder, check_grid, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource, read_network, renamed_by_library

log = logging.getLogger(__name__)

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
    "vit_small_dinov1": ("vit_small_patch16_224", {}),
    "vit_base_dinov1": ("vit_base_patch16_224", {}),
    "vit_small_dinov2": ("vit_small_patch14_reg4_dinov2", {}),
    "vit_base_dinov2": ("vit_base_patch14_reg4_dinov2", {}),
    "vit_large_dinov2": ("vit_large_patch14_reg4_dinov2", {}),
    "vit_small_dinov3": ("vit_small_patch16_dinov3", VIT_OPTIONS),
    "vit_base_dinov3": ("vit_base_patch16_dinov3", VIT_OPTIONS),
    "vit_large_dinov3": ("vit_large_patch16_dinov3", VIT_OPTIONS),
    "tiny_caformer_s18": ("caformer_s18", TINY_STAGES),
    "tiny_convnextv2_tiny": ("convnextv2_tiny", TINY_STAGES),
    "tiny_pvt_v2_b2": ("pvt_v2_b2", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 2)}),
    "tiny_vit_base_dinov1": ("vit_base_patch16_224", TINY_VIT),
    "tiny_vit_base_dinov2": ("vit_base_patch14_reg4_dinov2", TINY_VIT | {"patch_size": 16, "init_values": 1.0}),
    "tiny_vit_base_dinov3": ("vit_base_patch16_dinov3", VIT_OPTIONS | TINY_VIT),
}
PRETRAINING_ONLY = ("mask_token", "rope_embed.periods")  # the positions' periods are a constant
REGISTERS = "register_tokens", "reg_token"  # by their authors, by timm


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """A SurgeNet backbone: global average of the last stage, or the CLS token of a vision transformer.

    Raises `UserError` for an unknown architecture and for a side that a vision transformer cannot cut into patches.
    """
    name, options = choose_architecture(config, ARCHITECTURES)
    rename = partial(_rename_by_timm, heads=config.allowed_unexpected)
    if name == "caformer_s18":
        network = _caformer(plain_relu=_has_plain_relu(source), **options)
    elif name.startswith("vit_"):
        check_grid(config, options.get("patch_size") or int(re.search(r"patch(\d+)", name)[1]))
        if "dinov3" in name:
            rename = partial(_rename_dinov3, heads=config.allowed_unexpected)
        else:  # positions for each patch, while those of DINOv3 are rotary
            options = options | {"img_size": config.preprocessing.size}
        network = timm.create_model(_with_its_registers(name, source), num_classes=0, **options)
    else:
        network = timm.create_model(name, num_classes=0, **options)
    return ImageEncoder(config, load_network(network, config, source, rename), source)


def _with_its_registers(name: str, source: WeightSource) -> str:
    """timm's name of a DINOv2 with register tokens, or of the one without where the file holds none.

    The authors' script (`SurgeNetDINO:segmentation_finetuning/models/vit.py`) builds it without, and drops theirs.
    """
    if "_reg4" not in name or source.path is None:
        return name
    names = read_network(source.path, source.network, uses_values=False).state
    if not any(key in names for key in REGISTERS):
        return name.replace("_reg4", "")
    if not source.is_unread:
        log.info(
            "%s: holds register tokens, which are used; the authors' script leaves them out and gives other features",
            source.path,
        )
    return name


def _has_plain_relu(source: WeightSource) -> bool:
    """Whether the weights are of a CAFormer with ReLU, which has no parameters, in the place of StarReLU.

    The authors' `metaformer.py` has both (`pretrained='SurgeNet'` and `'ImageNet'`); the file tells them apart.
    """
    if source.path is None:
        return False
    names = read_network(source.path, source.network, uses_values=False).state
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
    if REGISTERS[0] in body:
        body.setdefault("mask_token", body[REGISTERS[0]])  # by this name, which timm drops, it knows DINOv2
    return renamed_by_library(body, network)


def _rename_dinov3(state: dict[str, Tensor], network: nn.Module, heads: tuple[str, ...]) -> dict[str, Tensor]:
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
