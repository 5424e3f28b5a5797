"""The encoder contract: uint8 frames in, one vector a frame out, frozen.

A family module under `common/encoders/` provides

    build(config: EncoderConfig, source: WeightSource) -> Encoder

and everything else (finding weights, device, precision, batching, files) is shared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import EncoderConfig, Preprocessing
from common.runtime import UserError
from common.weights import RANDOM, WeightSource, find_weights, load_strictly, randomise, read_state

Rename = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]

# `family:` in a config.yaml -> module
FAMILIES = {
    "resnet": "common.encoders.resnet",
    "efficientnet_lite": "common.encoders.efficientnet_lite",
    "color_histogram": "common.encoders.color_histogram",
}


class Encoder:
    """A frozen network that sees one frame at a time and gives one vector for it.

    `network` maps normalised pixels `(N, 3, size, size)` to features `(N, feature_dim)`.
    """

    window: dict | None = None
    """How many neighbouring frames a feature depends on; None = the frame alone."""

    def __init__(self, config: EncoderConfig, network: nn.Module, weights: WeightSource):
        self.config = config
        self.feature_dim = config.feature_dim
        self.preprocessing = config.preprocessing
        self.weights = weights
        self.network = network.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        self.precision = "fp32"

    def prepare(self, device: torch.device, precision: str) -> None:
        """Move to a device; `bf16` runs under autocast, in channels-last memory."""
        self.device, self.precision = device, precision
        self.network.to(device, memory_format=torch.channels_last)
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Features `(N, feature_dim)` float32 on the CPU, from preprocessed uint8 frames `(N, 3, size, size)`.

        Raises `UserError` when the network's width is not the `feature_dim` of the config.
        """
        pixels = frames.to(self.device, torch.float32).div_(255)
        pixels = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self.network(pixels)
        if features.shape != (len(frames), self.feature_dim):
            raise UserError(
                f"feature_dim: {self.feature_dim} in config.yaml, but the network gives {tuple(features.shape[1:])}"
            )
        return features.float().cpu()


def preprocess(image: Tensor, rule: Preprocessing) -> Tensor:
    """A decoded frame `(H, W, 3)` uint8 as `(3, size, size)` uint8, by antialiased resizing."""
    pixels = image.permute(2, 0, 1).unsqueeze(0)
    height, width = pixels.shape[2:]
    target = (rule.size, rule.size)
    if rule.crop == "center":
        short_side = rule.short_side or rule.size * 256 // 224
        scale = short_side / min(height, width)
        target = (max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    resized = F.interpolate(pixels, target, mode=rule.interpolation, antialias=True)[0]
    top, left = (resized.shape[1] - rule.size) // 2, (resized.shape[2] - rule.size) // 2
    return resized[:, top : top + rule.size, left : left + rule.size]


def load_network(
    network: nn.Module, config: EncoderConfig, source: WeightSource, rename: Rename | None = None
) -> nn.Module:
    """Fill `network` from `source`, strictly but for the prefixes that the config allows.

    `rename(state, network)` gives the state under this network's names where the file has others.
    """
    if source.is_random:
        randomise(network)
    elif source.path is not None:
        state = read_state(source.path)
        state = rename(state, network) if rename else state
        load_strictly(network, state, source.path, missing=config.allowed_missing, unexpected=config.allowed_unexpected)
    return network


def build_encoder(config: EncoderConfig, weights: str | None = None) -> Encoder:
    """The encoder that a config describes, with its own weights or those that `weights` names (`random` included).

    Raises `UserError` for an unknown family and for weights that are absent or do not fit.
    """
    if config.family not in FAMILIES:
        raise UserError(f"family: {config.family!r} is unknown; known: {', '.join(FAMILIES)}")
    spec = weights or config.weights
    if spec == RANDOM and weights is None:
        raise UserError("weights: random may only be asked for on the command line, so that no result hides it")
    source = find_weights(spec)
    try:
        family = importlib.import_module(FAMILIES[config.family])
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise UserError(
            f"family {config.family}: its library does not load ({error}); install torch and torchvision together: "
            "pip install -r requirements.txt -c constraints.txt"
        ) from error
    return family.build(config, source)
