"""Image teachers: patches of every kind of network in the order of the student's tokens, and what cannot be one."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.base.paths import model as model_folder
from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.load import WeightSource
from pretrain.methods.image_teacher import ImageTeacher, load_image_teacher, require_grid

MEAN, STD = (torch.tensor(value).view(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class Colours(nn.Module):
    """Features that can be told by eye: the mean colours of squares of 16 pixels."""

    def forward_features(self, pixels):
        return F.avg_pool2d(pixels, 16)


def untrained(folder: str, **changes) -> ImageTeacher:
    config = replace(read_encoder_config(model_folder(folder).config), **changes)
    return ImageTeacher(build_encoder(config, "random"))


def frames(count: int = 3, size: int = 64) -> torch.Tensor:
    shape = (2, count, 3, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images / 255 - MEAN) / STD


def test_features_come_by_time_row_and_column():
    config = read_encoder_config(model_folder("DinoV3-ViT-B16").config)
    teacher = ImageTeacher(ImageEncoder(config, Colours(), WeightSource("random"), feature_dim=3))
    shown = frames()
    found = teacher(shown)
    assert found.shape == (2, 3 * 16, 3)
    time, row, column = 2, 1, 3
    square = normalised(shown)[1, time, :, 16:32, 48:64]
    torch.testing.assert_close(found[1, time * 16 + row * 4 + column], square.mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)


def test_dinov3_is_seen_without_its_five_other_tokens():
    teacher = untrained("DinoV3-ViT-B16", architecture="tiny", feature_dim=48)
    shown = frames(count=1)
    expected = teacher.encoder.network.backbone(normalised(shown[:, 0])).last_hidden_state[:, 5:]
    torch.testing.assert_close(teacher(shown), expected)
    assert not teacher(shown).requires_grad


def test_dinov3_of_timm_is_seen_without_them_too():
    teacher = untrained("DinoV3-ViT-B16", architecture="tiny", feature_dim=48, library="timm")
    shown = frames(count=1)
    expected = teacher.encoder.network.backbone.forward_features(normalised(shown[:, 0]))[:, 5:]
    torch.testing.assert_close(teacher(shown), expected)


@pytest.mark.parametrize(
    ("folder", "architecture", "width", "num_sides"),
    [
        ("SurgeNet-DINOv3-ViT-B", "tiny_vit_base_dinov3", 48, 4),
        ("SurgeNet-CAFormer-S18", "tiny_caformer_s18", 32, 4),
        ("SurgeNet-ConvNeXtV2-T", "tiny_convnextv2_tiny", 32, 2),
        ("SurgeNet-PVTv2-B2", "tiny_pvt_v2_b2", 32, 2),
    ],
)
def test_every_surgenet_shows_patches_or_places(folder, architecture, width, num_sides):
    """In 64 pixels; the last stage of the tiny CAFormer does not halve its map."""
    teacher = untrained(folder, architecture=architecture, feature_dim=width)
    assert teacher(frames()).shape == (2, 3 * num_sides**2, width)
    assert require_grid(teacher, 64, num_sides) == width


def test_the_pictures_place_decides_the_token():
    """A change in one corner moves that corner's features most."""
    teacher = untrained("SurgeNet-ConvNeXtV2-T", architecture="tiny_convnextv2_tiny", feature_dim=32)
    one, other = frames(count=1, size=128), frames(count=1, size=128)
    other[..., 96:, :32] = 255 - other[..., 96:, :32]  # bottom left
    moved = (teacher(one) - teacher(other)).norm(dim=2)
    assert moved.argmax(dim=1).tolist() == [12, 12]


@pytest.mark.parametrize(
    ("folder", "changes", "size", "right"),
    [
        ("SurgeNet-ConvNeXtV2-T", {"architecture": "tiny_convnextv2_tiny", "feature_dim": 32}, 64, 128),
        ("SurgeNet-PVTv2-B2", {"architecture": "tiny_pvt_v2_b2", "feature_dim": 32}, 112, 128),
        ("DinoV3-ViT-B16", {"architecture": "tiny", "feature_dim": 48}, 72, 64),
    ],
)
def test_other_patches_than_the_student_s_are_refused(folder, changes, size, right):
    """The second has 4 x 4 places too, but larger ones at the borders; the third would not see the last 8 pixels."""
    teacher = untrained(folder, **changes)
    message = rf"has patches of {right // 4} pixels, .* of {size} pixels do not show the 4 x 4 .*; give --teacher_size {right}"
    with pytest.raises(UserError, match=message):
        require_grid(teacher, size, 4)
    assert require_grid(teacher, right, 4) == changes["feature_dim"]


@pytest.fixture
def tiny_folder(workspace):
    """A model folder under models/ with a tiny DINOv3."""
    folder = workspace / "models" / "Tiny"
    shutil.copytree(workspace / "models" / "DinoV3-ViT-B16", folder)
    text = (folder / "config.yaml").read_text().replace("architecture: vitb16", "architecture: tiny")
    (folder / "config.yaml").write_text(text.replace("feature_dim: 768", "feature_dim: 48"))
    return folder


def test_a_teacher_is_named_or_lies_in_a_folder_or_is_a_file(tiny_folder):
    names = ("Tiny", str(tiny_folder), str(tiny_folder / "config.yaml"))
    found = [load_image_teacher(name, "random")(frames()) for name in names]
    assert found[0].shape == (2, 3 * 16, 48)
    assert all(torch.equal(each, found[0]) for each in found[1:])


def test_a_teacher_has_weights_of_its_own(tiny_folder, tmp_path):
    network = load_image_teacher("Tiny", "random").encoder.network.backbone
    with torch.no_grad():
        network.norm.bias.add_(1)
    network.save_pretrained(tmp_path / "export")
    found = load_image_teacher("Tiny", str(tmp_path / "export"))(frames())
    torch.testing.assert_close(found, ImageTeacher(load_image_teacher("Tiny", "random").encoder)(frames()) + 1)


@pytest.mark.parametrize(
    ("folder", "architecture"), [("ColorHistogram", None), ("SurgRec-MAE", "tiny"), ("V-JEPA2-ViT-L", "tiny")]
)
def test_encoders_without_an_image_s_patches_are_refused(workspace, folder, architecture):
    file = workspace / "models" / folder / "config.yaml"
    if architecture:
        text = re.sub("architecture: .*", f"architecture: {architecture}", file.read_text())
        file.write_text(text)
    with pytest.raises(
        UserError, match=f"--image_teacher {folder}: .* no features of an image's patches; take a DINOv3"
    ):
        load_image_teacher(folder, "random")


def test_unknown_teachers_are_refused(workspace, tmp_path):
    with pytest.raises(UserError, match="DinoV3-ViT-B16"):
        load_image_teacher("DinoV4")
    with pytest.raises(UserError, match=r"no config\.yaml in this folder; .* by --image_teacher_weights"):
        load_image_teacher(str(tmp_path))
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such configuration file"):
        load_image_teacher("nowhere.yaml")
