"""The contract, on every folder under models/: tiny random networks built by the same code, full sizes on paper."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, Encoder, build_encoder
from common.encoders.config import FAMILIES, EncoderConfig, read_encoder_config
from common.encoders.contract import CONTRACT, noise
from common.encoders.weights.load import NONE, WeightSource

MODELS = Path(__file__).resolve().parents[1] / "models"
CONFIGS = {path.parent.name: read_encoder_config(path) for path in sorted(MODELS.glob("*/config.yaml"))}
FOLDERS = list(CONFIGS)
# what the table promises: features of a frame, input size, frames of a window
PROMISED = {
    "Base": (2048, 224, None),
    "I3D": (2048, 224, 16),
    "DinoV3-ViT-B16": (768, 224, None),
    "DinoV3-ViT-L16": (1024, 224, None),
    "DinoV3-ViT-7B16": (4096, 224, None),
    "DinoV3-ViT-B16-CataractFT": (768, 224, None),
    "DinoV3-ViT-L16-CataractFT": (1024, 224, None),
    "DinoV3-ViT-7B16-CataractFT": (4096, 224, None),
    "V-JEPA2-ViT-L": (1024, 256, 64),
    "V-JEPA2-ViT-g16-384": (1408, 384, 64),
    "V-JEPA2-ViT-L-CataractFT": (1024, 256, 64),
    "V-JEPA2-ViT-g-CataractFT": (1408, 384, 64),
    "SurgeNet-CAFormer-S18": (512, 224, None),
    "SurgeNet-ConvNeXtV2-T": (768, 224, None),
    "SurgeNet-PVTv2-B2": (512, 224, None),
    "SurgeNet-DINOv3-ViT-B": (768, 336, None),
    "SurgVISTA-ViT-B": (768, 224, 16),
    "SurgRec-MAE": (768, 224, 16),
    "SurgRec-JEPA": (1024, 256, 64),
}
# millions of parameters at full size, without classifiers and predictors
MILLIONS = {
    "Base": 23.508,
    "DinoV3-ViT-B16": 85.66,
    "DinoV3-ViT-L16": 303.13,
    "DinoV3-ViT-7B16": 6716.04,
    "V-JEPA2-ViT-L": 303.9,
    "V-JEPA2-ViT-g16-384": 1012.2,
    "SurgeNet-CAFormer-S18": 23.238,
    "SurgeNet-ConvNeXtV2-T": 27.866,
    "SurgeNet-PVTv2-B2": 24.85,
    "SurgVISTA-ViT-B": 86.23,
    "SurgRec-JEPA": 303.9,
}
# a family's small network: architecture (`{}`: the config's own), features, input size, frames of a window
TINY = {
    "torchvision": ("resnet18", 512, 64, None),
    "timm": ("{}", 1280, 64, None),
    "color_histogram": ("{}", 48, 64, None),
    "i3d": ("tiny", 128, 64, 16),
    "dinov3": ("tiny", 48, 64, None),
    "vjepa2": ("tiny", 48, 32, 8),
    "videomae": ("tiny", 96, 32, 8),
    "surgenet": ("tiny_{}", {"tiny_vit_base_dinov3": 48}, 64, None),
}
# ... where one of its architectures has layers that the others do not
TINY_OF_ARCHITECTURE = {"vit7b16": ("tiny_7b", 64), "surgvista-vitb": ("tiny-surgvista", 96)}
CUT_INTO_PATCHES = ("dinov3", "vjepa2", "videomae")


def tiny(folder: str) -> EncoderConfig:
    """A folder's configuration with its family's small network."""
    config = CONFIGS[folder]
    architecture, feature_dim, size, clip_len = TINY[config.family]
    architecture, feature_dim = TINY_OF_ARCHITECTURE.get(config.architecture, (architecture, feature_dim))
    architecture = architecture.format(config.architecture)
    if isinstance(feature_dim, dict):
        feature_dim = feature_dim.get(architecture, 32)
    rule = replace(config.preprocessing, size=size)
    changed = replace(config, architecture=architecture, feature_dim=feature_dim, preprocessing=rule)
    return replace(changed, clip_len=clip_len and min(clip_len, config.clip_len))


@pytest.fixture(scope="module", params=FOLDERS)
def encoder(request) -> Encoder:
    weights = None if CONFIGS[request.param].weights == NONE else "random"
    built = build_encoder(tiny(request.param), weights)
    built.prepare(torch.device("cpu"))
    return built


def test_every_row_of_the_table_has_its_folder():
    found = {
        name: (config.feature_dim, config.preprocessing.size, config.clip_len)
        for name, config in CONFIGS.items()
        if name in PROMISED
    }
    assert found == PROMISED


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_is_under_which_licence_and_how_large(folder):
    config, text = CONFIGS[folder], (MODELS / folder / "config.yaml").read_text()
    assert text.startswith("# ")
    assert config.family in FAMILIES
    assert config.licence
    assert config.weights == NONE or config.weights_megabytes
    assert config.access or not config.weights.startswith(("pretrain:", "local", "hub:facebook/dinov3"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_extractor_is_the_same(folder):
    script = (MODELS / folder / "extract_features.py").read_text()
    assert script == (MODELS / "Base" / "extract_features.py").read_text()


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name.endswith("CataractFT")])
def test_a_cataractft_folder_differs_from_its_base_by_its_weights_alone(folder):
    """And by what is said about them: whose window it is among it, since Stage 1 and 2 train with one of their own."""
    config = CONFIGS[folder]
    base_name = folder.removesuffix("-CataractFT") + ("16-384" if "ViT-g-" in folder else "")
    about = {"title": "", "weights": "", "named_weights": {}, "licence": "", "access": None, "recipe": "study"}
    assert replace(config, **about) == replace(CONFIGS[base_name], **about)


# --- the contract -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_every_encoder_keeps_the_contract(encoder, check):
    assert check(encoder) is None


def test_building_twice_gives_the_same_network(encoder):
    torch.manual_seed(99)
    again = build_encoder(encoder.config, encoder.weights.source)
    pairs = zip(again.network.state_dict().values(), encoder.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_clip_longer_or_shorter_than_the_configs_is_encoded(encoder):
    if not isinstance(encoder, ClipEncoder):
        pytest.skip("sees single frames")
    for clip_len in (encoder.clip_len // 2, encoder.clip_len + 2):
        other = build_encoder(replace(encoder.config, clip_len=clip_len), "random")
        assert other.encode(noise(other, 1)).shape == (1, encoder.feature_dim)


@pytest.mark.parametrize("folder", FOLDERS)
def test_sides_that_patches_do_not_fill_are_refused(folder):
    config = tiny(folder)
    if config.family not in CUT_INTO_PATCHES and "dinov3" not in config.architecture:
        pytest.skip("takes any size")
    for size in (1, 15, 100):
        rule = replace(config.preprocessing, size=size)
        with pytest.raises(UserError, match=f"size {size} is not a multiple of 16 pixels"):
            build_encoder(replace(config, preprocessing=rule), "random")


@pytest.mark.parametrize("folder", MILLIONS)
def test_full_size_parameter_counts(folder):
    """On the meta device: no memory, no weights."""
    config = CONFIGS[folder]
    with torch.device("meta"):
        network = importlib.import_module(f"common.encoders.families.{config.family}").build(
            config, WeightSource("none")
        )
    assert network.num_parameters / 1e6 == pytest.approx(MILLIONS[folder], abs=0.05, rel=1e-5)


def test_resnet50_has_25_6_million_with_its_classifier():
    with torch.device("meta"):
        count = (
            importlib.import_module("common.encoders.families.torchvision")
            .build(CONFIGS["Base"], WeightSource("none"))
            .num_parameters
        )
    assert (count + 2048 * 1000 + 1000) / 1e6 == pytest.approx(25.557, abs=0.001)
