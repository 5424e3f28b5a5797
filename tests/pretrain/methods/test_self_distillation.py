"""What DINO and DINOv3 share: options, heads, groups of parameters, schedules, features."""

from dataclasses import replace

import pytest
import torch

from common.base.runtime import UserError
from pretrain.methods.options import DINOv3Options, SelfDistillationOptions
from pretrain.methods.self_distillation import TINY_HEAD, frame_views, head_size, set_drop_path
from pretrain.objectives.heads import DINO_7B, HeadSize
from pretrain.objectives.parameter_groups import check_groups
from pretrain.ssl_config import find_model
from tests.pretrain.methods.crops import OPTIONS, crops_of, dino_options, method_of, options

# options


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", float("nan"), "greater than 0"),
        ("layer_decay", -0.1, "greater than 0"),
        ("temperature", 0.0, "greater than 0"),
        ("start_temperature", 0.0, "greater than 0"),
        ("num_local", 0, "greater than 0"),
        ("local_size", -16, "greater than 0"),
        ("prototypes", 0, "greater than 0"),
        ("head_hidden", 0, "greater than 0"),
        ("head_bottleneck", 0, "greater than 0"),
        ("final_learning_rate", -1.0, "not be negative"),
        ("weight_decay", -1.0, "not be negative"),
        ("final_weight_decay", -1.0, "not be negative"),
        ("clip_norm", -1.0, "not be negative"),
        ("freeze_backbone_epochs", -1.0, "not be negative"),
        ("freeze_prototypes_epochs", -1.0, "not be negative"),
        ("momentum", 1.1, "between 0 and 1"),
        ("final_momentum", -0.1, "between 0 and 1"),
        ("warmup", 2.0, "between 0 and 1"),
        ("temperature_warmup", -0.1, "between 0 and 1"),
        ("drop_path", 1.0, "at least 0 and below 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name, value, message):
    with pytest.raises(UserError, match=f"{name} must.*{message}, found {value}"):
        SelfDistillationOptions(**{name: value})


@pytest.mark.parametrize(
    ("crop_size", "expected"),
    [(None, (64, 32)), (224, (224, 96)), (256, (256, 112)), (336, (336, 144)), (16, (16, 16))],
)
def test_local_crops_are_as_large_as_published_in_proportion(crop_size, expected):
    rule = frame_views(options(crop_size=crop_size, num_local=5), find_model("dinov3-tiny"))
    assert (rule.global_size, rule.local_size, rule.num_local) == (*expected, 5)


def test_sides_that_are_no_patches_are_refused_for_vision_transformers():
    model = find_model("dinov3-tiny")
    with pytest.raises(UserError, match=r"--crop_size 100: dinov3-tiny takes multiples of 16 pixels"):
        frame_views(options(crop_size=100), model)
    with pytest.raises(UserError, match=r"--local_size 40: dinov3-tiny"):
        frame_views(options(local_size=40), model)
    assert frame_views(dino_options(crop_size=100), find_model("caformer-tiny")).global_size == 100


def test_heads_are_as_published_unless_options_say_otherwise():
    plain = DINOv3Options()
    assert head_size(plain, find_model("dinov3-l")) == HeadSize(2048, 256, 65536)
    assert head_size(plain, find_model("dinov3-7b"), DINO_7B) == DINO_7B == HeadSize(8192, 512, 262144)
    assert head_size(plain, find_model("dinov3-tiny"), DINO_7B) == TINY_HEAD
    given = DINOv3Options(prototypes=7, head_hidden=5, head_bottleneck=3)
    assert head_size(given, find_model("dinov3-7b"), DINO_7B) == HeadSize(5, 3, 7)


def test_a_backbone_that_would_never_learn_is_an_error():
    message = r"frozen for 10 steps \(2 epochs\) of 10; give --freeze_backbone_epochs less"
    with pytest.raises(UserError, match=message):
        method_of(options(freeze_backbone_epochs=2.0))
    method_of(options(freeze_backbone_epochs=1.8))


# parameters and schedules


def test_every_trained_parameter_is_in_one_group_with_its_rate():
    method = method_of(options(layer_decay=0.5, freeze_backbone_epochs=1.0, freeze_prototypes_epochs=0.4))
    groups = method.parameter_groups()
    check_groups(groups, method.student)
    found = {id(parameter): group for group in groups for parameter in group.parameters}

    def of(name):
        group = found[id(method.student.get_parameter(name))]
        return group.lr_scale, group.decays, group.clip, group.frozen_until

    # two blocks: embeddings 0, blocks 1 and 2, norm 3
    assert of("backbone.embeddings.cls_token") == (0.125, True, "backbone", 5)
    assert of("backbone.embeddings.patch_embeddings.weight") == pytest.approx((0.125 * 0.2, True, "backbone", 5))
    assert of("backbone.model.layer.0.layer_scale1.lambda1") == (0.25, False, "backbone", 5)
    assert of("backbone.model.layer.1.mlp.up_proj.weight") == (0.5, True, "backbone", 5)
    assert of("backbone.norm.weight") == (1.0, False, "backbone", 5)
    for role in ("dino_head", "ibot_head"):
        assert of(f"{role}.mlp.0.weight") == (1.0, True, role, 0)
        assert of(f"{role}.prototypes.weight") == (1.0, True, role, 2)


def test_groups_come_in_the_same_order_every_time():
    names = [[group.name for group in method_of(options()).parameter_groups()] for _ in range(2)]
    assert names[0] == names[1]


def test_schedules_follow_the_square_root_of_the_batch():
    given = options(
        learning_rate=1e-4, final_learning_rate=1e-6, batch_size=32, accumulate=8, warmup=0.2,
        weight_decay=0.04, final_weight_decay=0.4, momentum=0.99, final_momentum=1.0,
    )  # fmt: skip
    found = method_of(given).schedules(10)
    assert found.learning_rate(0) == 0
    assert found.learning_rate(1) == pytest.approx(1e-4)
    assert found.learning_rate(2) == pytest.approx(2e-4)  # of 256 frames
    assert found.learning_rate(9) == pytest.approx(2e-6)
    assert (found.weight_decay(0), found.weight_decay(9)) == pytest.approx((0.04, 0.4))
    assert (found.momentum(0), found.momentum(9)) == pytest.approx((0.99, 1.0))
    assert (found.clip_norm, found.betas) == (3.0, (0.9, 0.999))


def test_without_end_values_decay_and_momentum_stay_and_0_does_not_clip():
    found = method_of(options(clip_norm=0.0)).schedules(10)
    assert {found.weight_decay(step) for step in range(10)} == {0.04}
    assert {found.momentum(step) for step in range(10)} == {0.999}
    assert found.clip_norm is None


def test_the_teacher_s_temperature_rises_over_its_share_of_the_training():
    method = method_of(options(temperature_warmup=0.4))
    assert [method.temperature(step) for step in (0, 2, 4, 9)] == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_heads_start_from_the_seed_and_differ_from_each_other():
    one, same, other = (method_of(options(seed=seed)).student for seed in (1, 1, 2))
    first = "dino_head.mlp.0.weight"
    assert torch.equal(one.get_parameter(first), same.get_parameter(first))
    assert not torch.equal(one.get_parameter(first), other.get_parameter(first))
    assert not torch.equal(one.get_parameter(first), one.get_parameter("ibot_head.mlp.0.weight"))


@pytest.mark.parametrize("given", [OPTIONS, dino_options()], ids=["dinov3", "dino"])
def test_drop_path_is_that_of_every_block_of_the_student_alone(given):
    method = method_of(replace(given, drop_path=0.5))
    pixels = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for networks, differ in ((method.student, True), (method.teacher, False)):
        torch.manual_seed(0)
        one = networks["backbone"](pixels)
        other = networks["backbone"](pixels)
        one, other = (value if given.recipe == "dino" else value.last_hidden_state for value in (one, other))
        assert torch.equal(one, other) != differ
    set_drop_path(method.student["backbone"], 0.0)
    assert not [part for part in method.student.modules() if type(part).__name__ == "DropPath"]


# features


@pytest.mark.parametrize("given", [OPTIONS, dino_options()], ids=["dinov3", "dino"])
def test_features_are_the_teacher_s_of_the_first_global_crop(given):
    method, batch = method_of(given), crops_of(0, 3)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
        found = method.features(batch)
        pixels = (
            batch["global_crops"][:, 0] / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        ) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        network = method.exported()
        expected = network(pixels) if given.recipe == "dino" else network(pixels).pooler_output
    assert network is method.teacher["backbone"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    probe = {"clip": batch["global_crops"][:, :1]}
    assert torch.equal(method.features(probe), found)
