"""The encoder contract: uint8 frames or clips in, one vector each out, frozen.

A family module in `common/encoders/families/` provides

    build(config: EncoderConfig, source: WeightSource) -> Encoder

and everything else (finding weights, device, precision, batching, windows, files) is shared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.base.runtime import UserError
from common.encoders.config import EncoderConfig
from common.encoders.weights.adapters import apply_adapter
from common.encoders.weights.source import WeightSource
from common.encoders.weights.tensors import load_strictly, randomise, read_state
from common.video.preprocess import normalise

Rename = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]


class Encoder:
    """A frozen network and what is needed to run it; `ImageEncoder` and `ClipEncoder` say what it sees."""

    memory_format = torch.channels_last

    def __init__(
        self, config: EncoderConfig, network: nn.Module, weights: WeightSource, feature_dim: int | None = None
    ):
        self.config = config
        self.feature_dim = feature_dim or config.feature_dim
        self.preprocessing = config.preprocessing
        self.weights = weights
        self.network = network.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        self.precision = "fp32"

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def prepare(self, device: torch.device, precision: str = "fp32", *, compiled: bool = False) -> None:
        """Move to a device in the fastest memory order. `bf16` runs under autocast, but for the config's `fp32_modules`."""
        self.device, self.precision = device, precision
        self.network.to(device, memory_format=self.memory_format)
        if precision == "bf16":
            for name in self.config.fp32_modules:
                _keep_in_fp32(self.network.get_submodule(name), device)
        if compiled:
            self.network.compile()

    @torch.inference_mode()
    def _run(self, pixels: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Normalise uint8 pixels on the device and run the network (or another of its functions); float32, on the CPU."""
        inputs = normalise(pixels.to(self.device, non_blocking=True), self.preprocessing)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = (forward or self.network)(self._arrange(inputs))
        if features.shape[-1] != self.feature_dim:
            raise UserError(
                f"{self.config.title}: feature_dim {self.feature_dim} in config.yaml, but the network gives "
                f"{features.shape[-1]}; put the right number there"
            )
        return features.float().cpu()

    def _arrange(self, inputs: Tensor) -> Tensor:
        """Normalised pixels as the network takes them."""
        raise NotImplementedError


class ImageEncoder(Encoder):
    """Sees one frame: `network` maps `(N, 3, size, size)` to `(N, feature_dim)`."""

    def encode(self, frames: Tensor) -> Tensor:
        """Features `(N, feature_dim)` float32 on the CPU, from resized uint8 frames `(N, 3, size, size)`."""
        return self._run(frames)

    def _arrange(self, inputs: Tensor) -> Tensor:
        return inputs.contiguous(memory_format=self.memory_format)


class ClipEncoder(Encoder):
    """Sees a clip: `network` maps `(N, clip_len, 3, size, size)` to `(N, feature_dim)`.

    A network that can also give features over time has a method `tokens` to `(N, clip_len // tubelet, feature_dim)`
    and an attribute `tubelet`, its frames a token.
    """

    memory_format = torch.preserve_format

    @property
    def clip_len(self) -> int:
        return self.config.clip_len

    @property
    def tubelet(self) -> int | None:
        """Frames a token; None when the network gives no features over time."""
        return getattr(self.network, "tubelet", None)

    def encode(self, clips: Tensor) -> Tensor:
        """Features `(N, feature_dim)` float32 on the CPU, from resized uint8 clips `(N, clip_len, 3, size, size)`."""
        return self._run(clips)

    def encode_tokens(self, clips: Tensor) -> Tensor:
        """Spatially pooled features over time `(N, clip_len // tubelet, feature_dim)` of uint8 clips."""
        return self._run(clips, self.network.tokens)

    def _arrange(self, inputs: Tensor) -> Tensor:
        return inputs


def _keep_in_fp32(module: nn.Module, device: torch.device) -> None:
    forward = module.forward

    def in_fp32(*inputs: Tensor, **options) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return forward(*(value.float() if isinstance(value, Tensor) else value for value in inputs), **options)

    module.forward = in_fp32


def load_network(
    network: nn.Module, config: EncoderConfig, source: WeightSource, rename: Rename | None = None
) -> nn.Module:
    """Fill `network` from `source`, strictly but for the prefixes that the config allows, and merge its adapter.

    `rename(state, network)` gives the state under this network's names where the file has others.
    """
    if source.is_random:
        randomise(network)
    elif source.path is not None:
        state = read_state(source.path, heads=config.allowed_unexpected)
        state = rename(state, network) if rename else state
        load_strictly(network, state, source.path, missing=config.allowed_missing, unexpected=config.allowed_unexpected)
    return apply_adapter(network, source.adapter.path.parent) if source.adapter else network


def check_width(width: int, config: EncoderConfig, source: WeightSource) -> None:
    """Raise `UserError` when a weight folder's own `config.json` is of another size of the model."""
    if width != config.feature_dim:
        raise UserError(
            f"{source.path}: features of {width} values, but {config.title} has {config.feature_dim}; "
            "these weights are of another size of the model"
        )
