"""Colour histograms: equal to numpy's, by hand, blind to places."""

import numpy as np
import pytest
import torch

from common.encoders.base import Encoder


@pytest.fixture(scope="module")
def histogram(model_config, ready) -> Encoder:
    return ready(model_config("ColorHistogram"))


def test_histogram_equals_numpys(histogram, frames):
    pixels = frames(3, 112)
    expected = [
        [16 * np.histogram(channel / np.float32(255), bins=16, range=(0, 1))[0] / channel.size for channel in frame]
        for frame in pixels.numpy()
    ]
    assert histogram.encode(pixels).numpy() == pytest.approx(np.array(expected).reshape(3, 48), abs=1e-5)


def test_a_bin_of_an_even_distribution_is_1(histogram, frames):
    sums = histogram.encode(frames(3, 112)).view(3, 3, 16).sum(dim=2)
    assert torch.allclose(sums, torch.full((3, 3), 16.0))


def test_histogram_of_one_colour_by_hand(histogram):
    pixels = torch.tensor([0, 255, 128], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 112, 112)
    feature = histogram.encode(pixels)[0]
    assert feature.nonzero().flatten().tolist() == [0, 16 + 15, 32 + 8]


def test_histogram_has_no_parameters_and_needs_no_weights(histogram):
    assert histogram.num_parameters == 0
    assert histogram.weights.to_json() == {"source": "none", "file": None, "sha256": None}


def test_histogram_is_blind_to_where_the_colours_are(histogram, frames):
    pixels = frames(1, 112)
    shuffled = pixels.flatten(2)[:, :, torch.randperm(112 * 112)].view_as(pixels)
    assert torch.equal(histogram.encode(pixels), histogram.encode(shuffled))
