"""The checks of the contract can fail: an encoder broken in one way is named by one check."""

from dataclasses import replace

import pytest
from torch import nn

from common.encoders import contract
from common.encoders.base import ClipEncoder, ImageEncoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.load import WeightSource


class Means(nn.Module):
    """Channel means, broken in one way."""

    tubelet = 2

    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls, self.inner = how, 0, nn.Linear(3, 3)

    def forward(self, pixels):
        """`(N, [T,] 3, H, W)` -> `(N, 3)`."""
        self.calls += 1
        means = pixels.mean(dim=(-2, -1))
        means = means.mean(dim=1) if means.ndim == 3 else means
        broken = {
            "": means,
            "width": means[:, :2],
            "not finite": means / 0,
            "constant": means * 0,
            "batch": means - means.mean(dim=0) + means.std(dim=0, correction=0),
            "memory": means + self.calls,
            "raises": None,
        }
        if self.how == "raises":
            raise RuntimeError("no picture")
        return broken[self.how]

    def tokens(self, clips):
        """`(N, T, 3, H, W)` -> a mean a frame, where a mean a pair of frames is promised."""
        return clips.mean(dim=(-2, -1))


def encoder(checkout, how: str, folder: str = "Base", kind: type = ImageEncoder):
    config = read_encoder_config(checkout / "models" / folder / "config.yaml")
    rule = replace(config.preprocessing, size=8)
    return kind(replace(config, feature_dim=3, preprocessing=rule), Means(how), WeightSource("none"))


def test_a_sound_encoder_breaks_nothing(checkout):
    assert contract.breaches(encoder(checkout, "")) == []


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("width", "feature_dim 3 in config.yaml, but the network gives 2"),
        ("not finite", "some features are not finite"),
        ("constant", "two different inputs give the same features"),
        ("batch", "features depend on the batch"),
        ("memory", "the same input gives other features"),
        ("raises", "RuntimeError: no picture"),
    ],
)
def test_a_broken_encoder_is_named(checkout, how, complaint):
    assert any(complaint in said for said in contract.breaches(encoder(checkout, how)))


def test_a_network_that_learns_or_trains_is_named(checkout):
    learning = encoder(checkout, "")
    learning.network.inner.weight.requires_grad_(True)
    assert contract.breaches(learning) == ["a parameter asks for gradients"]
    training = encoder(checkout, "")
    training.network.inner.train()
    assert contract.breaches(training) == ["a part of the network is in training mode"]


def test_tokens_are_one_a_tubelet(checkout):
    clips = encoder(checkout, "", "I3D", ClipEncoder)
    assert contract.breaches(clips) == ["tokens of 2 clips are (2, 16, 3), expected (2, 8, 3)"]


@pytest.mark.parametrize(("how", "said"), [("", []), ("width", ["features of 2 inputs are (2, 2), not (2, 3)"])])
def test_without_weights_the_width_is_checked(checkout, how, said):
    on_meta = encoder(checkout, how)
    on_meta.network.to("meta")
    assert contract.breaches(on_meta) == said
