"""The encoder contract: families found, options applied, widths checked, precision per module."""

from dataclasses import replace

import pytest
import torch

from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, ImageEncoder, build_encoder
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.load import WeightSource
from common.features.config import ExtractionConfig, with_options

CPU = torch.device("cpu")


@pytest.fixture
def config_of(checkout):
    return lambda folder: read_encoder_config(checkout / "models" / folder / "config.yaml")


class ChannelMeans(torch.nn.Module):
    """Gives its input back, averaged over rows and columns."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 3, bias=False)
        self.inner.weight.data = torch.eye(3)

    def forward(self, pixels):
        """`(N, [T,] 3, H, W)` -> `(N, 3)`."""
        means = pixels.mean(dim=(-2, -1))
        return self.inner(means.mean(dim=1) if means.ndim == 3 else means)


def small(config: EncoderConfig, **changes) -> EncoderConfig:
    rule = replace(config.preprocessing, size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return replace(config, feature_dim=3, preprocessing=rule, **changes)


def test_networks_see_normalised_pixels_and_answers_are_float32(config_of):
    encoder = ImageEncoder(small(config_of("Base")), ChannelMeans(), WeightSource("none"))
    pixels = torch.tensor([255, 102, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    features = encoder.encode(pixels)
    assert (features.shape, features.dtype, features.device) == ((2, 3), torch.float32, CPU)
    assert features[0].tolist() == pytest.approx([0.5 / 0.2, 0.0, -0.3 / 0.4], abs=1e-5)


def test_clip_encoders_see_windows(config_of):
    encoder = ClipEncoder(small(config_of("I3D"), clip_len=4), ChannelMeans(), WeightSource("none"))
    clip = torch.tensor([0, 85, 170, 255], dtype=torch.uint8).view(1, 4, 1, 1, 1).expand(1, 4, 3, 8, 8)
    assert encoder.encode(clip)[0].tolist() == pytest.approx([0.0, 0.1 / 0.3, 0.2 / 0.4], abs=1e-5)
    assert (encoder.clip_len, encoder.tubelet) == (4, None)


def test_a_network_is_frozen_by_its_encoder(config_of):
    network = ChannelMeans().train()
    encoder = ImageEncoder(small(config_of("Base")), network, WeightSource("none"))
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert encoder.num_parameters == 9


def test_feature_dim_that_the_network_does_not_have_is_an_error(config_of):
    encoder = ImageEncoder(replace(small(config_of("Base")), feature_dim=4), ChannelMeans(), WeightSource("none"))
    with pytest.raises(UserError, match=r"feature_dim 4 in config\.yaml, but the network gives 3"):
        encoder.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(("kept", "expected"), [((), torch.bfloat16), (("inner",), torch.float32)])
def test_named_modules_keep_fp32_under_bf16(config_of, kept, expected):
    network, seen = ChannelMeans(), []
    network.inner.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    encoder = ImageEncoder(small(config_of("Base"), fp32_modules=kept), network, WeightSource("none"))
    encoder.prepare(CPU, "bf16")
    assert encoder.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).dtype == torch.float32
    assert seen == [expected]


# --- building -----------------------------------------------------------------------------------------------------


def test_unknown_family_lists_the_known_ones(config_of):
    with pytest.raises(UserError, match="family: 'resnext' is unknown; known: timm, torchvision, "):
        build_encoder(replace(config_of("Base"), family="resnext"))


def test_random_weights_in_a_config_are_refused(config_of):
    with pytest.raises(UserError, match="random may only be asked for on the command line"):
        build_encoder(replace(config_of("Base"), weights="random"))


def test_a_library_that_does_not_load_says_what_to_install(config_of, monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(UserError, match=r"nms does not exist\); install torch and torchvision together: pip install"):
        build_encoder(config_of("Base"), "random")


def test_weights_of_another_network_are_refused(config_of, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    config = replace(config_of("Base"), architecture="resnet18", feature_dim=512)
    with pytest.raises(UserError, match=r"w\.pth: these weights are not for this network"):
        build_encoder(config, str(tmp_path / "w.pth"))


# --- options of an extraction -------------------------------------------------------------------------------------


def test_options_change_pooling_and_crop(config_of):
    chosen = with_options(config_of("DinoV3-ViT-B16"), ExtractionConfig(pooling="cls+mean", crop="center"))
    assert (chosen.pooling, chosen.preprocessing.crop) == ("cls+mean", "center")


def test_without_options_a_configuration_stays_as_it_is(config_of):
    for folder in ("DinoV3-ViT-B16", "V-JEPA2-ViT-L", "Base"):
        assert with_options(config_of(folder), ExtractionConfig()) == config_of(folder)


@pytest.mark.parametrize(
    ("folder", "options", "complaint"),
    [
        ("DinoV3-ViT-B16", {"pooling": "max"}, r"--pooling max: DINOv3 ViT-B has cls, mean, cls\+mean"),
        ("Base", {"pooling": "cls"}, "--pooling cls: ResNet-50 has average only"),
        ("Base", {"stride": 2}, "ResNet-50 sees single frames"),
        ("Base", {"mode": "tokens"}, "ResNet-50 sees single frames"),
    ],
)
def test_options_that_an_encoder_does_not_have_are_refused(config_of, folder, options, complaint):
    with pytest.raises(UserError, match=complaint):
        with_options(config_of(folder), ExtractionConfig(**options))
