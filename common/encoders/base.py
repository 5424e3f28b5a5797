"""The encoder contract: uint8 frames or clips in, one vector each out, frozen.

A family module in `common/encoders/families/` provides

    build(config: EncoderConfig, source: WeightSource) -> Encoder

and everything else (finding weights, device, precision, batching, windows, files) is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from common.base.runtime import UserError
from common.encoders.config import EncoderConfig, WindowChoice, load_family
from common.video.preprocess import normalise

if TYPE_CHECKING:
    from common.encoders.weights.load import WeightSource

Rename = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]
ArchitectureT = TypeVar("ArchitectureT")


class Encoder:
    """A frozen network and what is needed to run it; `ImageEncoder` and `ClipEncoder` say what it sees."""

    memory_format = torch.channels_last  # convolutions run several times as fast, on a CPU and on tensor cores

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
        """Move to a device in the fastest memory order.

        `bf16` runs under autocast, but for the config's `fp32_modules`.
        """
        self.device, self.precision = device, precision
        self.network.to(device, memory_format=self.memory_format)
        if precision == "bf16":
            for name in self.config.fp32_modules:
                _keep_in_fp32(self.network.get_submodule(name), device)
        if compiled:
            self.network.compile()

    @torch.inference_mode()
    def _run(self, pixels: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Normalise uint8 pixels on the device and run the network, or another of its functions.

        float32 features on the CPU. Raises `UserError` when they have not `feature_dim` values.
        """
        inputs = normalise(pixels.to(self.device, non_blocking=True), self.preprocessing)
        inputs = inputs.to(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = (forward or self.network)(inputs)
        if features.shape[-1] != self.feature_dim:
            raise UserError(
                f"{self.config.title}: feature_dim {self.feature_dim} in config.yaml, but the network gives "
                f"{features.shape[-1]}; put the correct number there"
            )
        return features.float().cpu()


class ImageEncoder(Encoder):
    """Sees one frame: `network` maps `(N, 3, size, size)` to `(N, feature_dim)`."""

    def encode(self, frames: Tensor) -> Tensor:
        """Features `(N, feature_dim)` float32 on the CPU, from resized uint8 frames `(N, 3, size, size)`."""
        return self._run(frames)


class ClipEncoder(Encoder):
    """Sees a clip: `network` maps `(N, clip_len, 3, size, size)` to `(N, feature_dim)`.

    A network that can also give features over time has a method `tokens` to `(N, clip_len // tubelet, feature_dim)`
    and an attribute `tubelet`, its frames a token.
    """

    memory_format = torch.preserve_format  # clips have an axis more; I3D orders its own

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


def _keep_in_fp32(module: nn.Module, device: torch.device) -> None:
    """Let a submodule leave autocast: its inputs, of bf16 from the layer before, become float32 again."""
    forward = module.forward

    def in_fp32(*inputs: Tensor, **options) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return forward(*(value.float() if isinstance(value, Tensor) else value for value in inputs), **options)

    module.forward = in_fp32


def load_network(
    network: nn.Module, config: EncoderConfig, source: WeightSource, rename: Rename | None = None
) -> nn.Module:
    """Fill `network` from `source`, strictly but for the prefixes that the config allows, and merge its adapter.

    `rename(state, network)` gives the state under this network's names where the file has others: of the file's tensors
    or parts of them, so that messages can name them as the file does.
    Raises `UserError` naming the file when its weights are damaged or not for this network.
    """
    # here: whoever comes to this module for the contract finds no weights
    from common.encoders.weights.load import keys_in_the_file, load_strictly, randomise, read_network

    if source.is_unread:
        return network
    if source.is_random:
        # in the record, because features of before are other ones
        if randomise(network):
            source.found["branch_scales"] = 1.0
    elif source.path is not None:
        read = read_network(source.path, source.network, heads=config.allowed_unexpected)
        state = rename(dict(read.state), network) if rename else read.state
        load_strictly(
            network,
            state,
            source.path,
            missing=config.allowed_missing,
            unexpected=config.allowed_unexpected,
            file_keys=keys_in_the_file(state, read),
            stays_in_file=source.stays_in_file,
        )
    return merge_adapter(network, config, source)


def merge_adapter(network: nn.Module, config: EncoderConfig, source: WeightSource) -> nn.Module:
    """`network` with the adapter of its weights merged into it; as it is where there is none."""
    if source.adapter is None:
        return network
    from common.encoders.weights.adapters import apply_adapter

    return apply_adapter(network, source.adapter.path.parent, config.allowed_unexpected)


def check_pooling(config: EncoderConfig, offered: Sequence[str]) -> None:
    """Raise `UserError` for a pooling that a network does not have, listing those `offered`."""
    if config.pooling not in offered:
        raise UserError(f"{config.title}: pooling {config.pooling!r} is unknown; known: {', '.join(offered)}")


def pooled_parts(tokens: Tensor, pooling: str, first_patch: int) -> list[Tensor]:
    """The vectors `(N, width)` that `cls`, `mean` (of the patches alone) or `cls+mean` puts side by side.

    `tokens` `(N, tokens, width)` have CLS in front, if any, and patches from `first_patch` on.
    """
    parts = {"cls": lambda: tokens[:, 0], "mean": lambda: tokens[:, first_patch:].mean(dim=1)}
    return [parts[name]() for name in pooling.split("+")]


def check_width(width: int, config: EncoderConfig, source: WeightSource) -> None:
    """Raise `UserError` when a weight folder's own `config.json` is of another size of the model."""
    if width != config.feature_dim:
        raise UserError(
            f"{source.path}: features of {width} values, but {config.title} has {config.feature_dim}; "
            "these weights are of another size of the model"
        )


def choose_architecture(config: EncoderConfig, known: Mapping[str, ArchitectureT]) -> ArchitectureT:
    """Entry of the config's `architecture` in a family's table. Raises `UserError` that lists the known ones."""
    if config.architecture not in known:
        raise UserError(f"architecture {config.architecture!r} is unknown; known: {', '.join(known)}")
    return known[config.architecture]


def check_grid(config: EncoderConfig, patch_size: int, tubelet: int = 1) -> None:
    """Raise `UserError` where input is no whole number of tokens: a transformer would silently cut the rest off.

    `patch_size` pixels a side, `tubelet` frames.
    """
    size = config.preprocessing.size
    if size % patch_size:
        raise UserError(f"{config.title}: size {size} is not a multiple of {patch_size} pixels")
    if tubelet > 1 and config.clip_len % tubelet:
        raise UserError(f"--clip_len {config.clip_len}: {config.title} takes frames in pairs; give an even number")


def build_encoder(
    config: EncoderConfig, weights: str | None = None, window: WindowChoice | None = None, *, unread: bool = False
) -> Encoder:
    """The encoder that a config describes, with its own weights or those that `weights` names (`random` included).

    `window`: what is asked of a clip encoder's window. None: nothing but what the config says, whatever the weights say.
    `unread` leaves the weights in their file, and the network on the meta device, until `with_values`: enough to know
    what the features are. Random weights are drawn all the same: what is recorded of them depends on the values.

    Raises `UserError` for an unknown family and for weights that are absent or do not fit.
    """
    from common.encoders.weights.find import choose_weights
    from common.encoders.weights.load import RANDOM

    config = config.with_weights(weights)
    family = load_family(config.family)
    if config.weights == RANDOM:
        raise UserError("weights: random may only be asked for on the command line, so that no result hides it")
    source = choose_weights(config, weights)
    if window is not None:
        from common.encoders.weights.adapters import trained_window

        config = config.with_window(window, trained_window(source))
    if not unread or source.is_random:
        return family.build(config, source)
    with torch.device("meta"):
        return family.build(config, replace(source, is_unread=True))


def with_values(encoder: Encoder) -> Encoder:
    """The encoder with the values of its weights, where `build_encoder` left them `unread`; else itself.

    Raises `UserError` for weights that do not fit.
    """
    if not encoder.weights.is_unread:
        return encoder
    return load_family(encoder.config.family).build(encoder.config, replace(encoder.weights, is_unread=False))
