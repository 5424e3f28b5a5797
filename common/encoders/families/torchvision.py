"""Any classifier of torchvision without its last layer, such as a ResNet (He et al., CVPR 2016) or a ConvNeXt."""

import math
from functools import cache
from typing import Any

import torch
import torchvision.models
from torch import nn

from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource

# change their input by what their weights were trained with, which a file of weights does not say
OTHER_INPUT = ("googlenet", "inception_v3")


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """The network named by `architecture`: what its last linear layer would see (`resnet50`: 2048-d).

    Raises `UserError` when torchvision has no such image network.
    """
    network, _, _ = _body(config.architecture)
    return ImageEncoder(config, load_network(network, config, source), source)


@cache
def torchvision_facts(name: str) -> dict[str, Any]:
    """What torchvision says of a network and its default weights, as entries of a `config.yaml`.

    Raises `UserError` when torchvision has no such image network.
    """
    with torch.device("meta"):
        network, head, width = _body(name)
    release = torchvision.models.get_model_weights(name).DEFAULT
    rule = release.transforms()
    return {
        "title": name,
        "feature_dim": width,
        "weights": f"torchvision:{type(release).__name__}.{release.name}",
        "weights_megabytes": math.ceil(sum(value.numel() for value in network.parameters()) * 4 / 1e6),
        "licence": "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research",
        "allowed_unexpected": [f"{head}."],
        "preprocessing": {
            "size": rule.crop_size[0],
            "short_side": rule.resize_size[0],
            "interpolation": rule.interpolation.value,
            "mean": list(rule.mean),
            "std": list(rule.std),
        },
    }


def _body(name: str) -> tuple[nn.Module, str, int]:
    """A network without its last linear layer, the name of that layer, and the width of what it would see."""
    known = [known for known in torchvision.models.list_models(module=torchvision.models) if known not in OTHER_INPUT]
    if name not in known:
        raise UserError(f"torchvision has no image network {name!r} to use here; known: {', '.join(known)}")
    network = torchvision.models.get_model(name, weights=None)
    layers = [(key, module) for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(f"torchvision's {name} does not end in a linear layer: take another network")
    head, last = layers[-1]
    network.set_submodule(head, nn.Identity())
    return network, head, last.in_features
