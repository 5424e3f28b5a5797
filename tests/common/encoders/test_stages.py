"""Four maps of an encoder: strides, blocks of vision transformers, other sizes, what has none."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.stages import open_stages
from common.encoders.weights.load import WeightSource, randomise


@pytest.fixture
def encoder_of(checkout):
    def build(folder: str, **changes) -> ImageEncoder:
        config = replace(read_encoder_config(checkout / "models" / folder / "config.yaml"), **changes)
        return build_encoder(config, "random" if config.family != "color_histogram" else None)

    return build


def maps_of(stages, sides, seed=0) -> list[torch.Tensor]:
    with torch.no_grad():
        return stages(torch.randn(1, 3, *sides, generator=torch.Generator().manual_seed(seed)))


TINY = {"SurgeNet-ConvNeXtV2-T": "tiny_convnextv2_tiny", "SurgeNet-PVTv2-B2": "tiny_pvt_v2_b2"}


@pytest.mark.parametrize("folder", [*TINY, "SurgeNet-CAFormer-S18", "EfficientNet-Lite0", "Base"])
@pytest.mark.parametrize("sides", [(64, 96), (128, 128)])
def test_networks_of_four_stages_give_them(folder, sides, encoder_of):
    stages = open_stages(encoder_of(folder, **({"architecture": TINY[folder]} if folder in TINY else {})), sides)
    maps = maps_of(stages, sides)
    assert [tuple(found.shape) for found in maps] == [
        (1, channels, sides[0] // stride, sides[1] // stride)
        for channels, stride in zip(stages.channels, (4, 8, 16, 32), strict=True)
    ]
    assert not stages.are_grids
    assert not any(parameter.requires_grad for parameter in stages.parameters())
    assert not any(module.training for module in stages.modules() if module is not stages)


def test_maps_of_a_resnet_are_the_outputs_of_its_stages(encoder_of):
    encoder = encoder_of("Base")
    network = encoder.network
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = open_stages(encoder, (64, 64))
    with torch.no_grad():
        expected = [network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(pixels)))))]
        for layer in (network.layer2, network.layer3, network.layer4):
            expected.append(layer(expected[-1]))
        found = stages(pixels)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_vision_transformer_gives_a_quarter_half_three_quarters_and_the_last(encoder_of):
    """Twelve blocks: those numbered 3, 6, 9 and 12 (from 1), tokens of patches alone, raw."""
    config = {"architecture": "vit_tiny_patch16_224", "feature_dim": 192}
    encoder = encoder_of("PL-Stitch", **config)
    backbone = encoder.network.backbone
    outputs = []
    for number in (2, 5, 8, 11):
        backbone.blocks[number].register_forward_hook(lambda *call: outputs.append(call[2]))
    stages = open_stages(encoder, (224, 224))
    outputs.clear()
    maps = maps_of(stages, (224, 224))
    assert stages.are_grids
    for found, tokens, side in zip(maps, outputs, (56, 28, 14, 7), strict=True):
        grid = tokens[:, 1:].transpose(1, 2).reshape(1, 192, 14, 14)
        resized = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, resized)


@pytest.mark.parametrize("folder", ["DinoV3-Tiny", "SurgeNet-DINOv1-ViT-B"])
def test_a_vision_transformer_takes_other_sizes_than_its_own(folder, encoder_of):
    tiny = {"architecture": "tiny_vit_base_dinov1", "feature_dim": 48} if folder.startswith("Surge") else {}
    stages = open_stages(encoder_of(folder, **tiny), (64, 128))
    assert [found.shape[2:] for found in maps_of(stages, (64, 128))] == [(16, 32), (8, 16), (4, 8), (2, 4)]
    assert not any(parameter.requires_grad for parameter in stages.parameters())


def test_sides_that_cut_patches_are_named(encoder_of):
    with pytest.raises(UserError, match=r"whole patches of 14 pixels, found 256; .*224, 448"):
        open_stages(encoder_of("DinoV2-ViT-S14"), (256, 256))


def test_an_encoder_of_clips_and_one_without_maps_are_refused(encoder_of):
    with pytest.raises(UserError, match="expected an encoder of single frames, found one of clips"):
        open_stages(encoder_of("V-JEPA2-Tiny"), (64, 64))
    with pytest.raises(UserError, match="found no map"):
        open_stages(encoder_of("ColorHistogram"), (64, 64))


def test_hidden_states_of_transformers_are_maps_too(checkout):
    """A ConvNeXt of that library, and a vision transformer with a CLS token."""
    from transformers import ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model

    from common.encoders.families.transformers import TransformersFeatures

    config = read_encoder_config(checkout / "models" / "DinoV3-Tiny" / "config.yaml")
    convnext = ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))
    plain = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=64, patch_size=16)
    )
    for network, pooling, channels in ((convnext, "average", (8, 16, 24, 32)), (plain, "cls", (16,) * 4)):
        randomise(network)
        encoder = ImageEncoder(config, TransformersFeatures(network, pooling, 1), WeightSource("random"))
        stages = open_stages(encoder, (64, 96))
        assert stages.channels == channels
        assert [found.shape[2:] for found in maps_of(stages, (64, 96))] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_a_network_of_other_strides_is_told(checkout):
    config = read_encoder_config(checkout / "models" / "EfficientNet-Lite0" / "config.yaml")
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(4, 4, 1), nn.Flatten())
    encoder = ImageEncoder(config, network, WeightSource("random"))
    with pytest.raises(
        UserError, match=r"EfficientNet-Lite0: expected maps at the strides .* found 16 x 16; take another"
    ):
        open_stages(encoder, (64, 64))
