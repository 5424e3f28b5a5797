"""An encoder from its folder's config: the family's module by name, and the weights that were asked for."""

from __future__ import annotations

import importlib

from common.base.runtime import UserError
from common.encoders.base import Encoder
from common.encoders.config import EncoderConfig
from common.encoders.weights.find import choose_weights
from common.encoders.weights.source import RANDOM

# `family:` in a config.yaml -> module
FAMILIES = {
    "resnet": "common.encoders.families.resnet",
    "efficientnet_lite": "common.encoders.families.efficientnet_lite",
    "color_histogram": "common.encoders.families.color_histogram",
    "i3d": "common.encoders.families.i3d",
    "dinov3": "common.encoders.families.dinov3",
    "vjepa2": "common.encoders.families.vjepa2",
    "surgenet": "common.encoders.families.surgenet",
    "videomae": "common.encoders.families.videomae",
}


def build_encoder(config: EncoderConfig, weights: str | None = None) -> Encoder:
    """The encoder that a config describes, with its own weights or those that `weights` names (`random` included).

    Raises `UserError` for an unknown family and for weights that are absent or do not fit.
    """
    if config.family not in FAMILIES:
        raise UserError(f"family: {config.family!r} is unknown; known: {', '.join(FAMILIES)}")
    if config.weights == RANDOM:
        raise UserError("weights: random may only be asked for on the command line, so that no result hides it")
    source = choose_weights(config, weights)
    try:
        family = importlib.import_module(FAMILIES[config.family])
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise UserError(
            f"family {config.family}: its library does not load ({error}); install torch and torchvision together: "
            "pip install -r requirements.txt -c constraints.txt"
        ) from error
    return family.build(config, source)
