"""Encoders ready to run, made frames, and the rule of the reference features (`golden/README.md`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.encoders.base import Encoder, build_encoder
from common.encoders.config import EncoderConfig, read_encoder_config


@dataclass(frozen=True)
class Golden:
    """What the authors' code answers, by the names in `surgical_encoders.json`."""

    cases: dict
    features: dict[str, np.ndarray]

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """The parameters of a case by the stated rule."""
        return fill_by_rule(self.cases[name]["keys"])


@pytest.fixture(scope="session")
def golden(reference_data: Path) -> Golden:
    """The reference features of the surgical encoders."""
    folder = reference_data / "golden"
    with np.load(folder / "surgical_encoders.npz") as arrays:
        return Golden(json.loads((folder / "surgical_encoders.json").read_text()), dict(arrays))


@pytest.fixture(scope="session")
def ruled_state() -> Callable[..., dict[str, torch.Tensor]]:
    """`ruled_state([(name, shape), ...])`: see `fill_by_rule`."""
    return fill_by_rule


@pytest.fixture(scope="session")
def ruled_input() -> Callable[..., torch.Tensor]:
    """`ruled_input(shape)`: `x = cos(0.0013 n + floor(n / (H W)))` over the flattened index n."""

    def make(shape: tuple[int, ...]) -> torch.Tensor:
        n = np.arange(math.prod(shape), dtype=np.float64)
        return torch.from_numpy(np.cos(0.0013 * n + n // math.prod(shape[-2:])).reshape(shape).astype(np.float32))

    return make


def fill_by_rule(keys: list[tuple[str, list[int]]]) -> dict[str, torch.Tensor]:
    """`s = sin(0.7 n + i)` for the i-th key; scales of norms around 1, biases small, others by their fan in."""
    state = {}
    for index, (key, shape) in enumerate(keys):
        values = np.sin(0.7 * np.arange(math.prod(shape), dtype=np.float64) + index)
        if len(shape) == 1:
            values = 0.1 * values + (1 if key.endswith("weight") else 0)
        else:
            values = values / math.sqrt(math.prod(shape[1:]))
        state[key] = torch.from_numpy(values.reshape(shape).astype(np.float32))
    return state


@pytest.fixture(scope="session")
def model_config(checkout: Path) -> Callable[..., EncoderConfig]:
    """`model_config(folder, size=...)`: a model folder's configuration, with changes to its preprocessing."""

    def read(folder: str, **preprocessing) -> EncoderConfig:
        config = read_encoder_config(checkout / "models" / folder / "config.yaml")
        return replace(config, preprocessing=replace(config.preprocessing, **preprocessing))

    return read


@pytest.fixture(scope="session")
def ready() -> Callable[..., Encoder]:
    """`ready(config, weights=None, precision="fp32")`: the encoder on the CPU."""

    def build(config: EncoderConfig, weights: str | None = None, precision: str = "fp32") -> Encoder:
        encoder = build_encoder(config, weights)
        encoder.prepare(torch.device("cpu"), precision)
        return encoder

    return build


@pytest.fixture(scope="session")
def frames() -> Callable[[int, int], torch.Tensor]:
    """`frames(count, size)`: smooth random frames `(count, 3, size, size)` uint8."""

    def make(count: int, size: int) -> torch.Tensor:
        coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(0))
        return (255 * F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)).round().byte()

    return make
