"""A model's config.yaml: networks of a library in a few lines, named weights, forms of earlier versions."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from common.base.runtime import UserError
from common.encoders.config import TrainedWindow, WindowChoice, encoder_config, read_encoder_config

SMALL = "vit_small_patch14_reg4_dinov2.lvd142m"
BASE = "vit_base_patch14_reg4_dinov2.lvd142m"


def config_of(text: str):
    return encoder_config(yaml.safe_load(text), "config.yaml")


# --- networks of a library ----------------------------------------------------------------------------------------


def test_two_lines_are_a_model(tmp_path):
    """Everything else is what timm says of the network and of the weights that its tag means."""
    (tmp_path / "config.yaml").write_text(f"family: timm\ntimm: {SMALL}\n")
    config = read_encoder_config(tmp_path / "config.yaml")
    assert (config.architecture, config.title, config.feature_dim, config.pooling) == (SMALL, SMALL, 384, "cls")
    assert (config.weights, config.licence) == (f"hub:timm/{SMALL}", "apache-2.0 (timm)")
    assert (config.preprocessing.size, config.preprocessing.interpolation) == (518, "bicubic")


def test_what_the_file_says_wins_over_the_library():
    config = config_of(f"{{family: timm, timm: {SMALL}, title: T, licence: L, preprocessing: {{size: 224}}}}")
    assert (config.title, config.licence, config.preprocessing.size) == ("T", "L", 224)
    assert config.preprocessing.mean == (0.485, 0.456, 0.406)


def test_the_librarys_crop_keeps_its_share_at_another_size():
    """timm's 0.9 of a SigLIP picture: 248 at 224 pixels."""
    name = "vit_base_patch16_siglip_224.v2_webli"
    assert config_of(f"{{family: timm, timm: {name}}}").preprocessing.short_side == 248
    assert config_of(f"{{family: timm, timm: {name}, preprocessing: {{size: 448}}}}").preprocessing.short_side == 496


def test_a_config_that_says_everything_loads_no_library(checkout, monkeypatch):
    monkeypatch.setattr("common.encoders.config.load_family", lambda name: pytest.fail("loaded"))
    for folder in ("Base", "EfficientNet-Lite0"):
        config = read_encoder_config(checkout / "models" / folder / "config.yaml")
        assert config.preprocessing.interpolation == "bilinear"


@pytest.mark.parametrize(("former", "now"), [("resnet", "torchvision"), ("efficientnet_lite", "timm")])
def test_configs_of_earlier_versions_are_read(checkout, former, now):
    folder = "Base" if former == "resnet" else "EfficientNet-Lite0"
    values = yaml.safe_load((checkout / "models" / folder / "config.yaml").read_text())
    earlier = values | {"family": former, "architecture": values[now]}
    del earlier[now]
    assert encoder_config(earlier, "old") == encoder_config(values, "new")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{family: timm, title: T}", "missing key 'timm', the name of the network in timm"),
        ("{family: timm, timm: vit_smal}", "timm .* has no network 'vit_smal'; near: .*vit_"),
        (f"{{family: timm, timm: {SMALL}x}}", f"has no network '{SMALL}x'; near: {SMALL}"),
        ("{family: torchvision, torchvision: resnet51}", "torchvision has no image network 'resnet51'"),
        ("{family: timm, timm: [a]}", "missing key 'timm'"),
        ("{family: resnext, title: T}", "missing key"),
        (f"{{family: tim, timm: {SMALL}}}", "family 'tim' is unknown; did you mean 'timm'"),
        (f"{{family: timm, timm: {SMALL}, torchvision: resnet50}}", "unknown key 'torchvision'"),
    ],
)
def test_what_is_no_network_is_named(text, complaint):
    with pytest.raises(UserError, match=complaint):
        config_of(text)


# --- named weights ------------------------------------------------------------------------------------------------

NAMED = f"""
family: timm
timm: {SMALL}
sha256: abc
named_weights:
  base: {{timm: {BASE}}}
  large-pictures: {{weights: "hub:someone/large", preprocessing: {{size: 448}}, licence: MIT}}
  plain: hub:someone/plain
"""


def test_named_weights_bring_architecture_width_and_size():
    config = config_of(NAMED)
    base, large = config.with_weights("base"), config.with_weights("large-pictures")
    assert (base.architecture, base.feature_dim, base.weights) == (BASE, 768, f"hub:timm/{BASE}")
    assert (large.feature_dim, large.preprocessing.size, large.licence) == (384, 448, "MIT")
    assert config.with_weights("plain") == replace(config, weights="hub:someone/plain", sha256=None)


@pytest.mark.parametrize(
    "spec", ["base", "base::teacher", "base=/my/own.pth::teacher", f"hub:timm/{BASE}", f"hub:timm/{BASE}::teacher"]
)
def test_named_weights_are_known_by_name_and_address(spec):
    config = config_of(NAMED)
    assert config.with_weights(spec) == config.with_weights("base")
    assert config.with_weights("base").with_weights(spec) == config.with_weights("base")


@pytest.mark.parametrize("spec", [None, "random", "/some/file.pth", f"hub:timm/{SMALL}"])
def test_other_weights_change_nothing(spec):
    assert config_of(NAMED).with_weights(spec) == config_of(NAMED)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{licence: MIT}", r"named_weights, x: expected an address, or a mapping with `weights: ADDRESS`"),
        ("3", "named_weights, x: expected an address"),
        ("{weights: a, sizes: 3}", "named_weights, x: unknown key 'sizes'"),
        ("{weights: a, feature_dim: wide}", "named_weights, x, feature_dim: expected int"),
    ],
)
def test_named_weights_are_checked_when_they_are_read(entry, complaint):
    with pytest.raises(UserError, match=complaint):
        config_of(f"{{family: timm, timm: {SMALL}, named_weights: {{x: {entry}}}}}")


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip_config(checkout):
    """V-JEPA 2: windows of 64 neighbours in the study, 0.25 s apart as published."""
    return read_encoder_config(checkout / "models/V-JEPA2-ViT-L/config.yaml")


TRAINED = TrainedWindow(16, 0.25, Path("export/provenance.json"))


def window_of(config, trained=None, **asked):
    config = config.with_window(WindowChoice(**asked), trained)
    return config.clip_len, config.clip_spacing, config.anchor, config.recipe


def test_windows_are_the_studys_unless_somebody_asks(clip_config):
    assert window_of(clip_config) == (64, None, "centre", "study")
    assert window_of(clip_config, recipe="study") == (64, None, "centre", "study")
    assert window_of(clip_config, recipe="published") == (64, 0.25, "centre", "published")
    assert window_of(clip_config, recipe="published", clip_len=16) == (16, 0.25, "centre", "own")
    assert window_of(clip_config, clip_spacing=1.0, anchor="end") == (64, 1.0, "end", "own")


def test_what_surgvista_was_trained_on_ends_with_its_frame(checkout):
    config = read_encoder_config(checkout / "models/SurgVISTA-ViT-B/config.yaml")
    assert window_of(config, recipe="published") == (16, 4.0, "end", "published")


def test_a_cataractft_folder_has_the_window_that_its_weights_were_trained_with(checkout):
    config = read_encoder_config(checkout / "models/V-JEPA2-ViT-L-CataractFT/config.yaml")
    assert window_of(config, TRAINED) == (16, 0.25, "centre", "weights")
    assert window_of(config, TRAINED, recipe="study") == (64, None, "centre", "study")
    assert window_of(config, TRAINED, clip_len=8) == (8, 0.25, "centre", "own")
    assert window_of(config) == (64, None, "centre", "study")  # made before weights said it


def test_elsewhere_weights_of_another_window_are_an_error_that_names_both(clip_config):
    complaint = (
        r"export/provenance\.json: .* clips of 16 frames 0\.25 s apart, but V-JEPA2 ViT-L has windows of 64 neighbouring "
        r"frames; give --clip_len 16 --clip_spacing 0\.25, or --recipe study"
    )
    with pytest.raises(UserError, match=complaint):
        window_of(clip_config, TRAINED)
    assert window_of(clip_config, TRAINED, recipe="study")[:2] == (64, None)
    assert window_of(clip_config, TRAINED, clip_len=16, clip_spacing=0.25)[:2] == (16, 0.25)


@pytest.mark.parametrize("asked", [{"clip_len": 16}, {"clip_spacing": 0.25}, {"anchor": "end"}, {"recipe": "study"}])
def test_single_frames_have_no_window(checkout, asked):
    with pytest.raises(UserError, match="ResNet-50 sees single frames; use --fps to sample"):
        window_of(read_encoder_config(checkout / "models/Base/config.yaml"), **asked)
