"""The contract, on every folder under models/: tiny random networks built by the same code, full sizes on paper."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.base.files import sha256_of_file
from common.base.runtime import UserError
from common.encoders.base import ClipEncoder, Encoder, build_encoder, with_values
from common.encoders.config import FAMILIES, EncoderConfig, load_family, read_encoder_config
from common.encoders.contract import CONTRACT, breaches, noise
from common.encoders.weights.load import NONE, WeightSource
from common.features.config import ExtractionConfig
from common.features.extract import identity_of
from common.new_encoder import NOT_LOOKED_UP

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
    "SurgRec-JEPA": (1024, 224, 16),
}
# parameters at full size, without classifiers and predictors
PARAMETERS = {
    "Base": 23_508_032,
    "DinoV2-ViT-S14": 22_057_344 - (1369 - 256) * 384,  # 16 x 16 patches instead of 37 x 37
    "DinoV2-ViT-B14": 86_582_016 - (1369 - 256) * 768,
    "DinoV2-ViT-L14": 304_370_688 - (1369 - 256) * 1024,
    "DinoV2-ViT-g14": 1_136_483_840 - (1369 - 256) * 1536,
    "DinoV3-ConvNeXt-T": 27_820_128,
    "DinoV3-ConvNeXt-S": 49_454_688,
    "DinoV3-ConvNeXt-B": 87_566_464,
    "DinoV3-ConvNeXt-L": 196_230_336,
    "DinoV3-ViT-S16": 21_596_544,
    "DinoV3-ViT-S16plus": 28_692_864,
    "DinoV3-ViT-B16": 85_660_416,
    "DinoV3-ViT-L16": 303_129_600,
    "DinoV3-ViT-H16plus": 840_592_640,
    "DinoV3-ViT-7B16": 6_716_035_072,
    "CLIP-ViT-B16": 85_799_424,
    "SigLIP2-ViT-B16": 92_884_224,
    "PE-Core-ViT-B16": 92_886_528,
    "PE-Spatial-ViT-B16": 86_433_792,
    "EndoViT": 85_798_656,
    "GastroNet-ViT-S16": 21_665_664,
    "SelfSupSurg-ResNet50": 23_508_032,
    "LemonFM": 196_230_336,
    "PL-Stitch": 85_798_656,
    "V-JEPA1-ViT-L": 305_490_944,
    "V-JEPA1-ViT-H": 633_655_040,
    "V-JEPA1-ViT-H-384": 637_546_240,
    "SurgRec-JEPA": 305_490_944,
    "V-JEPA2-ViT-L": 303_885_312,
    "V-JEPA2-ViT-H": 631_648_000,
    "V-JEPA2-ViT-g16-384": 1_012_173_952,
    "V-JEPA2.1-ViT-B": 86_833_152,
    "V-JEPA2.1-ViT-L": 304_680_960,
    "V-JEPA2.1-ViT-g": 1_013_267_968,
    "V-JEPA2.1-ViT-gigantic": 1_845_216_768,
    "SurgMotion-L": 303_885_312,
    "SurgMotion-G": 1_012_173_952,
    "SurgeNet-CAFormer-S18": 23_237_936,
    "SurgeNet-ConvNeXtV2-T": 27_866_496,
    "SurgeNet-PVTv2-B2": 24_849_856,
    "MetaFormerFPN": 23_237_936,
    "ConvNextFPN": 27_866_496,
    "PVTV2FPN": 24_849_856,
    "SurgeNet-DINOv1-ViT-B": 85_798_656,
    "SurgeNet-DINOv2-ViT-B": 85_972_992,
    "SurgeNet-DINOv3-ViT-B": 85_656_576,
    "SurgVISTA-ViT-B": 86_227_200,
    "Endo-FM": 121_258_752,
    "SurgRec-MAE": 86_225_664 + 1_536,
    "VideoMAE2-ViT-B": 86_225_664 + 1_536,
    "VideoMAE2-ViT-L": 303_858_688 + 2_048,
    "VideoMAE2-ViT-H": 631_604_480 + 2_560,
    "VideoMAE2-ViT-g": 1_011_607_936 + 2_816,
}
# a family's small network: architecture (`{}`: the config's own), features, input size, frames of a window
TINY = {
    "torchvision": ("resnet18", 512, 64, None),
    "timm": ("{}", None, 64, None),  # None: the width of the config's own
    "color_histogram": ("{}", None, 64, None),
    "i3d": ("tiny", 128, 64, 16),
    "dinov3": ("tiny", 48, 64, None),
    "vjepa1": ("tiny", 48, 32, 8),
    "vjepa2": ("tiny", 48, 32, 8),
    "videomae": ("tiny", 96, 32, 8),
    "timesformer": ("tiny", 48, 32, 8),
    "surgenet": ("tiny_{}", {f"tiny_vit_base_dinov{version}": 48 for version in (1, 2, 3)}, 64, None),
}
# ... where one of its architectures has layers that the others do not, by the beginning of its name
TINY_OF_ARCHITECTURE = {
    "vit7b16": ("tiny_7b", 64),
    "vits16plus": ("tiny_plus", 48),
    "vith16plus": ("tiny_plus", 48),
    "vjepa2.1": ("tiny-2.1", 48),
    "surgvista-vitb": ("tiny-surgvista", 96),
    "vit_base_patch16_siglip": ("test_vit3.r160_in1k", 96),  # both pooled by attention
    "vit_pe_core": ("vit_pe_core_tiny_patch16_384.fb", 192),
    "vit_": ("test_vit.r160_in1k", 64),
    "convnext_large": ("convnext_tiny", 768),
    "convnext_": ("test_convnext.r160_in1k", 64),
}
CUT_INTO_PATCHES = ("dinov3", "vjepa1", "vjepa2", "videomae", "timesformer")


def tiny(folder: str) -> EncoderConfig:
    """A folder's configuration with its family's small network."""
    config = CONFIGS[folder]
    architecture, feature_dim, size, clip_len = TINY[config.family]
    if config.family not in ("surgenet", "i3d"):
        special = (small for start, small in TINY_OF_ARCHITECTURE.items() if config.architecture.startswith(start))
        architecture, feature_dim = next(special, (architecture, feature_dim))
    architecture = architecture.format(config.architecture)
    feature_dim = config.feature_dim if feature_dim is None else feature_dim
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
    path = MODELS / folder / "config.yaml"
    config, text = CONFIGS[folder], path.read_text()
    assert text.startswith("# "), f"{path}: begin with a comment that says in a line what this encoder is"
    assert config.family in FAMILIES
    assert config.licence, f"{path}: add `licence:`, that of the weights, and where it was read"
    assert config.ledger is not None, (
        f"{path}: add `ledger: {{state: ..., checked: YYYY-MM, source: ...}}` on the weights"
    )
    assert config.ledger.checked >= "2026-11", f"{path}: `ledger: checked:` is a month, such as 2026-11"
    assert NOT_LOOKED_UP not in config.ledger.source, (
        f"{path}: `ledger: source:` says that the licence is not looked up: read it, and say where and what it asks for"
    )
    is_gated = config.ledger.state == "gated"
    assert is_gated == bool(config.substitute), f"{path}: gated weights, and they alone, name a `substitute:` folder"
    assert not is_gated or CONFIGS[config.substitute].ledger.state == "public", f"{path}: the substitute is not public"
    has_size = config.weights == NONE or config.weights_megabytes
    assert has_size, f"{path}: add `weights_megabytes:`, the size of the download; `doctor` plans with it"
    needs_access = config.weights.startswith(("pretrain:", "local", "hub:facebook/dinov3"))
    assert config.access or not needs_access, f"{path}: add `access:`, a sentence on how one gets these weights"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_extractor_is_the_same(folder):
    path = MODELS / folder / "extract_features.py"
    same = path.read_text() == (MODELS / "Base" / "extract_features.py").read_text()
    assert same, f"{path}: copy models/Base/extract_features.py; what differs between encoders is in config.yaml"


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name.endswith("CataractFT")])
def test_a_cataractft_folder_differs_from_its_base_by_its_weights_alone(folder):
    """And by what is said about them: whose window it is among it, since Stage 1 and 2 train with one of their own."""
    config = CONFIGS[folder]
    base_name = folder.removesuffix("-CataractFT") + ("16-384" if "ViT-g-" in folder else "")
    about = {"title": "", "weights": "", "named_weights": {}, "licence": "", "access": None, "recipe": "study"}
    about |= {"domain": "general", "ledger": None, "substitute": None}
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


def test_what_the_features_are_is_known_before_any_weights_are_read(encoder, tmp_path):
    """The rest of the record is that of the network with values; its weights are the file's."""
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, file)  # of no network: whoever reads it fails
    unread = build_encoder(encoder.config, str(file), unread=True)
    config = ExtractionConfig(dataset="any")
    found, expected = (identity_of("any", each, config) for each in (unread, encoder))
    assert found | {"weights": None} == expected | {"weights": None}
    assert unread.feature_dim == encoder.feature_dim
    assert unread.weights.sha256 == sha256_of_file(file)
    if encoder.config.weights != NONE:
        with pytest.raises(UserError, match="these weights are not for"):
            with_values(unread)


def test_a_clip_longer_or_shorter_than_the_configs_is_encoded(encoder):
    if not isinstance(encoder, ClipEncoder):
        pytest.skip("sees single frames")
    for clip_len in (encoder.clip_len // 2, encoder.clip_len + 2):
        other = build_encoder(replace(encoder.config, clip_len=clip_len), "random")
        assert other.encode(noise(other, 1)).shape == (1, encoder.feature_dim)


@pytest.mark.parametrize("folder", FOLDERS)
def test_sides_that_patches_do_not_fill_are_refused(folder):
    config = tiny(folder)
    if config.family not in CUT_INTO_PATCHES and "vit_" not in config.architecture:
        pytest.skip("takes any size")
    for size in (1, 15, 100):
        rule = replace(config.preprocessing, size=size)
        with pytest.raises(UserError, match=f"size {size} is not a multiple of 16 pixels"):
            build_encoder(replace(config, preprocessing=rule), "random")


@pytest.mark.slow
@pytest.mark.parametrize("folder", PARAMETERS)
def test_full_size_parameter_counts(folder):
    """On the meta device: no memory, no weights."""
    config = CONFIGS[folder]
    with torch.device("meta"):
        encoder = load_family(config.family).build(config, WeightSource("none"))
    assert encoder.num_parameters == PARAMETERS[folder]
    assert breaches(encoder) == []


OTHER_NETWORKS = [
    (folder, name)
    for folder, config in CONFIGS.items()
    for name in config.named_weights
    if replace(config.with_weights(name), weights="", licence="")
    != replace(config, weights="", licence="", ledger=None)
]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name"), OTHER_NETWORKS)
def test_named_weights_of_another_network_have_its_width(folder, name):
    config = CONFIGS[folder].with_weights(name)
    with torch.device("meta"):
        assert breaches(load_family(config.family).build(config, WeightSource("none"))) == []


def test_resnet50_has_25_6_million_with_its_classifier():
    with torch.device("meta"):
        count = load_family("torchvision").build(CONFIGS["Base"], WeightSource("none")).num_parameters
    assert (count + 2048 * 1000 + 1000) / 1e6 == pytest.approx(25.557, abs=0.001)
