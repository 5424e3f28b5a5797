"""Any image network of timm (Wightman, `pytorch-image-models`) without its classifier.

The name may have a tag behind a point, `vit_small_patch14_reg4_dinov2.lvd142m`: it says which weights of the network are
meant, and with which size, mean and deviation they were trained. Files under the names of the authors are renamed by the
network's own `checkpoint_filter_fn`, which also fits positions to another size of the picture.
"""

import difflib
import inspect
import math
from functools import cache
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, check_grid, check_pooling, load_network, pooled_parts
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import MISFITS, STEP_COUNTER, WeightSource, renamed_by_library

# TensorFlow-padded networks whose circulating conversions have other names than timm's, in the same order
IN_ORDER = "tf_efficientnet_lite"
# networks that timm pools by the mean of the patches, and their authors by the CLS token
CLS_BY_AUTHORS = "dinov3"


class TimmFeatures(nn.Module):
    """One vector an image, by the network's own pooling or out of its tokens after the final norm.

    `pooling`: `cls`, `mean` (of the patches alone), `cls+mean` (side by side, twice as wide), `map` (attention pooling
    with learned weights) or, of networks without tokens, `average`.
    """

    def __init__(self, backbone: nn.Module, pooling: str):
        super().__init__()
        self.backbone, self.pooling = backbone, pooling

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `(N, 3, H, W)` -> `(N, feature_dim)`."""
        if self.pooling in ("average", "map"):
            return self.backbone(pixels)
        tokens, first_patch = self.backbone.forward_features(pixels), self.backbone.num_prefix_tokens
        # networks that norm what they have pooled have no norm before
        return torch.cat(
            [self.backbone.fc_norm(part) for part in pooled_parts(tokens, self.pooling, first_patch)], dim=1
        )


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """The network named by `architecture`, for pictures of the config's size.

    Raises `UserError` when timm has no such network, and for a size or a pooling that it does not have.
    """
    check_pooling(config, _poolings(config.architecture))
    backbone = _backbone(config)
    rename = _in_order if config.architecture.startswith(IN_ORDER) else renamed_by_library
    backbone = load_network(backbone, config, source, rename)
    if config.architecture.startswith(IN_ORDER):
        backbone.reset_classifier(0)
    # networks without tokens stay themselves, as their features were always made
    network = backbone if config.pooling == "average" else TimmFeatures(backbone, config.pooling)
    return ImageEncoder(config, network, source, feature_dim=config.pooled_dim)


@cache
def timm_facts(name: str) -> dict[str, Any]:
    """What timm says of a network and of the weights that its tag means, as entries of a `config.yaml`.

    Raises `UserError` when timm has no such network.
    """
    network, release, poolings = _on_meta(name), get_pretrained_cfg(name), _poolings(name)
    size = release.input_size[-1]
    licence = release.license or "not stated by timm"
    return {
        "title": name,
        "feature_dim": getattr(network, "head_hidden_size", network.num_features),
        "pooling": poolings[0],
        "poolings": list(poolings),
        "weights": f"hub:{release.hf_hub_id}" if release.hf_hub_id else "local",
        "weights_megabytes": math.ceil(sum(value.numel() for value in network.parameters()) * 4 / 1e6),
        "licence": f"{licence} (timm)",
        "access": None if release.hf_hub_id else "timm publishes no weights of it on the hub; pass --weights FILE",
        "preprocessing": {
            "size": size,
            "short_side": math.floor(size / release.crop_pct),
            "interpolation": release.interpolation if release.interpolation in ("bilinear", "bicubic") else "bicubic",
            "mean": list(release.mean),
            "std": list(release.std),
        },
    }


@cache
def _on_meta(name: str) -> nn.Module:
    """The network of a name without memory for its weights. Raises `UserError` when timm has no such network."""
    _refuse_unknown(name)
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=0)


def _refuse_unknown(name: str) -> None:
    bare, _, tag = name.partition(".")
    if timm.is_model(bare) and (not tag or name in timm.list_pretrained(f"{bare}.*")):
        return
    known = timm.list_pretrained(f"{bare}.*") if timm.is_model(bare) else timm.list_models()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    raise UserError(f"timm {timm.__version__} has no network {name!r}; near: {', '.join(near) or 'none'}")


def _poolings(name: str) -> tuple[str, ...]:
    """Ways from a network's output to one vector, the usual one first."""
    network = _on_meta(name)
    if not (hasattr(network, "num_prefix_tokens") and hasattr(network, "fc_norm")):
        return ("average",)
    has_cls = getattr(network, "cls_token", None) is not None
    by_token = ("cls", "mean", "cls+mean") if has_cls else ("mean",)
    if network.global_pool == "map":
        return ("map", *by_token)
    if network.global_pool == "avg" and has_cls and CLS_BY_AUTHORS not in name:
        return ("mean", "cls", "cls+mean")
    return by_token


def _backbone(config: EncoderConfig) -> nn.Module:
    """The network for pictures of the config's size, whose positions depend on it."""
    network, size = _on_meta(config.architecture), config.preprocessing.size
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch:
        check_grid(config, patch[0])
    options: dict[str, Any] = {} if config.architecture.startswith(IN_ORDER) else {"num_classes": 0}
    usual = get_pretrained_cfg(config.architecture).input_size[-1]
    if size != usual and "img_size" in inspect.signature(type(network)).parameters:
        options["img_size"] = size
    try:
        return timm.create_model(config.architecture, pretrained=False, **options)
    except MISFITS as error:
        raise UserError(
            f"{config.title}: size {size} does not suit this network ({error}); usual is {usual}"
        ) from error


def _in_order(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights under timm's names: other implementations name the same layers differently, in the same order.

    A file whose order does not fit keeps its names, and strict loading then reports it. Files without batch norm's
    counters of training steps are as good.
    """
    own = network.state_dict()
    if not any(key.endswith(STEP_COUNTER) for key in state):
        own = {key: value for key, value in own.items() if not key.endswith(STEP_COUNTER)}
    same_order = len(own) == len(state) and all(
        theirs.rpartition(".")[2] == ours.rpartition(".")[2] and state[theirs].shape == own[ours].shape
        for theirs, ours in zip(state, own, strict=True)
    )
    return dict(zip(own, state.values(), strict=True)) if same_order else state
