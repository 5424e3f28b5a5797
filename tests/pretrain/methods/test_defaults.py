"""What trainings take where nothing is said: the published values of each model and recipe, and the same in `--help`."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from common.base.options import help_texts
from pretrain.methods import defaults
from pretrain.methods.dino import Dino
from pretrain.methods.options import DINOv3Options, VideoMAEOptions, VJEPA2Options
from pretrain.methods.self_distillation import frame_views
from pretrain.objectives.heads import HeadSize, PrototypeHead
from pretrain.objectives.parameter_groups import backbone_groups
from pretrain.ssl_config import MODELS, TrainingOptions, find_model
from tests.pretrain.methods.crops import dino_options, method_of, options


def completed(cls: type[TrainingOptions], model: str, **given) -> TrainingOptions:
    return cls(model=model, **given).completed(on_gpu=True, world_size=8)


def dinov3(model: str, **given) -> DINOv3Options:
    return completed(DINOv3Options, model, **given)


# the models


def test_seven_billion_parameters_are_trained_as_published():
    """`dinov3_vit7b16_gram_anchor.yaml`: optim, schedules, crops, student, and 16 images a GPU."""
    found = dinov3("dinov3-7b")
    assert (found.layer_decay, found.clip_norm, found.beta2, found.drop_path) == (0.98, 30.0, 0.99, 0.4)
    assert (found.learning_rate, found.final_learning_rate) == (3e-5, 3e-5)
    assert (found.momentum, found.final_momentum) == (0.999, None)
    assert (found.weight_decay, found.final_weight_decay) == (0.04, None)
    assert (found.start_temperature, found.temperature, found.temperature_warmup) == (0.04, 0.07, 0.1)
    assert (found.flip_chance, found.koleo_neighbours, found.blur) == (0.0, 16, "reference")
    rule = frame_views(found, find_model("dinov3-7b"))
    assert (rule.global_size, rule.local_size, rule.gram_size) == (256, 112, 512)


def test_without_a_gram_loss_seven_billion_take_the_rate_of_their_pretraining():
    found = dinov3("dinov3-7b", gram_weight=0.0)
    assert (found.learning_rate, found.final_learning_rate) == (5e-5, 5e-5)
    found = dinov3("dinov3-7b", learning_rate=1e-5)
    assert (found.learning_rate, found.final_learning_rate) == (1e-5, 1e-5)


@pytest.mark.slow
def test_the_first_of_forty_blocks_learns_at_nearly_half_the_rate():
    """.446 of it, where the decay of ViT-L would leave .0148."""
    network = nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(1, 1) for _ in range(40))})

    def first(decay: float) -> float:
        return backbone_groups(network, layer_decay=decay)[0].lr_scale

    assert first(dinov3("dinov3-7b").layer_decay) == pytest.approx(0.446, abs=5e-4)
    assert first(dinov3("dinov3-l").layer_decay) == pytest.approx(0.0148, abs=5e-5)


@pytest.mark.parametrize("model", ["dinov3-b", "dinov3-l"])
def test_smaller_networks_keep_theirs(model):
    found = dinov3(model)
    assert (found.layer_decay, found.clip_norm, found.beta2, found.drop_path) == (0.9, 3.0, 0.999, 0.0)
    assert (found.learning_rate, found.final_learning_rate, found.momentum) == (1e-4, 1e-6, 0.999)
    assert (found.flip_chance, found.koleo_neighbours, found.crop_boundary, found.blur) == (0.5, 1, 0.32, "reference")


def test_dino_has_the_settings_of_its_own_code():
    """The arguments' defaults of `dino:main_dino.py`, also on a network of DINOv3."""
    for model in ("caformer-s18", "dinov3-l"):
        found = dinov3(model, recipe="dino")
        assert (found.weight_decay, found.final_weight_decay) == (0.04, 0.4)
        assert (found.momentum, found.final_momentum) == (0.996, 1.0)
        assert (found.start_temperature, found.temperature) == (0.04, 0.04)
        assert (found.learning_rate, found.final_learning_rate, found.warmup) == (5e-4, 1e-6, 0.1)
        assert (found.clip_norm, found.drop_path, found.layer_decay, found.blur) == (3.0, 0.1, 1.0, "paper")
        rule = frame_views(found, find_model(model))
        assert (rule.global_scale, rule.local_scale, rule.num_local) == ((0.4, 1.0), (0.05, 0.4), 8)


@pytest.mark.parametrize(
    ("model", "teacher", "expected"),
    [
        ("videomae-b", None, (7.5, 0.9, 1e-5, 0.05, 0.0)),
        ("videomae-b", "DinoV3-ViT-L16", (0.25, 0.85, 1e-4, 0.2, 0.1)),
        ("surgvista-b", None, (0.25, 0.85, 1e-4, 0.2, 0.1)),
    ],
)
def test_video_mae_and_surgvista_are_apart(model, teacher, expected):
    """A clip of SurgVISTA spans a minute, 4 s from frame to frame; one of Video MAE two seconds."""
    found = completed(VideoMAEOptions, model, image_teacher=teacher)
    assert (found.fps, found.mask_ratio, found.final_learning_rate, found.warmup, found.drop_path) == expected
    assert found.seconds_per_sample(find_model(model)) == 16 / expected[0]


def test_what_is_given_stays():
    found = dinov3("dinov3-7b", drop_path=0.0, clip_norm=0.0, flip_chance=0.5, koleo_neighbours=4)
    assert (found.drop_path, found.clip_norm, found.flip_chance, found.koleo_neighbours) == (0.0, 0.0, 0.5, 4)
    assert completed(VideoMAEOptions, "surgvista-b", fps=1.0, warmup=0.0).warmup == 0.0


@pytest.mark.parametrize("model", [entry for entry in MODELS if entry.family != "vjepa2"], ids=lambda entry: entry.name)
def test_completing_twice_changes_nothing_and_leaves_nothing_open(model):
    cls = VideoMAEOptions if model.family == "videomae" else DINOv3Options
    found = completed(cls, model.name)
    assert found.completed(on_gpu=True, world_size=8) == found
    assert [name for name in found.defaults_of(model) if getattr(found, name) is None] == []


# --help


TABLES = {
    "7B": (DINOv3Options, defaults.DINOV3_7B),
    "ViT-L": (DINOv3Options, defaults.DINOV3),
    "dino": (DINOv3Options, defaults.DINO),
    "Video MAE": (VideoMAEOptions, defaults.VIDEOMAE),
    "SurgVISTA": (VideoMAEOptions, defaults.SURGVISTA),
}


@pytest.mark.parametrize("name", TABLES)
def test_help_names_every_default_of_a_table(name):
    cls, table = TABLES[name]
    texts = help_texts(cls)
    unsaid = {key: value for key, value in table.items() if str(value) not in texts[key]}
    # of the 7B network the end is where it begins
    assert unsaid.keys() == ({"final_learning_rate"} if name == "7B" else set())


SOURCES = ("DINO", "V-JEPA 2", "Video MAE", "SurgVISTA", "this project")


@pytest.mark.parametrize("cls", [DINOv3Options, VJEPA2Options, VideoMAEOptions])
def test_help_names_the_source_of_every_setting_of_a_recipe(cls):
    shared = set(help_texts(TrainingOptions))
    # those that choose a recipe, a weight's place or another option's scale
    choices = {"recipe", "image_teacher", "image_teacher_weights"}
    own = {name: text for name, text in help_texts(cls).items() if name not in shared | choices}
    assert {name for name, text in own.items() if not any(source in text for source in SOURCES)} == set()


# what DINO does otherwise


def test_dino_s_prototypes_are_those_of_torch_s_weight_norm():
    head = PrototypeHead(6, HeadSize(8, 4, 5), unit_prototypes=True, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.prototypes.weight.mul_(torch.arange(1.0, 6)[:, None])
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5, bias=False), dim=0)
    with torch.no_grad():
        normed.parametrizations.weight.original1.copy_(head.prototypes.weight)
        normed.parametrizations.weight.original0.fill_(1)
    features = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    expected = normed(nn.functional.normalize(head.mlp(features), dim=-1))
    torch.testing.assert_close(head(features), expected)
    assert head(features).abs().max() <= 1 + 1e-6
    assert method_of(dino_options()).student["dino_head"].unit_prototypes
    assert not method_of(options()).student["dino_head"].unit_prototypes


def test_dino_s_rate_is_in_proportion_to_the_batch_and_its_end_is_not():
    given = dino_options(learning_rate=5e-4, batch_size=64, accumulate=8, warmup=0.2)
    rate = method_of(given).schedules(10).learning_rate
    assert [rate(0), rate(1), rate(2)] == pytest.approx([0, 1e-3, 1e-3])  # 512 frames: twice the rate of 256
    assert rate(10) == 1e-6
    assert 1e-6 < rate(9) < 1e-4


def test_dino_s_decay_and_momentum_rise_to_their_ends_after_the_last_step():
    found = method_of(dino_options()).schedules(10)
    assert [found.weight_decay(step) for step in (0, 5, 10)] == pytest.approx([0.04, 0.22, 0.4])
    assert [found.momentum(step) for step in (0, 5, 10)] == pytest.approx([0.996, 0.998, 1.0])
    assert found.weight_decay(9) < 0.4
    assert (found.clip_norm, found.clip_each, found.betas) == (3.0, True, (0.9, 0.999))
    assert not method_of(options()).schedules(10).clip_each


def test_dino_s_blocks_learn_at_one_rate_and_drop_more_often_the_deeper_they_are():
    method = method_of(replace(dino_options(), drop_path=0.3))
    assert {group.lr_scale for group in method.parameter_groups()} == {1.0}
    vit = method_of(dino_options(model="dinov3-tiny", drop_path=0.3))
    assert {group.lr_scale for group in vit.parameter_groups()} == {1.0}
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in vit.student["backbone"].model.layer]
    assert rates == [0.0, pytest.approx(0.3)]
    stages = [part.drop_prob for part in method.student.modules() if type(part).__name__ == "DropPath"]
    assert stages == sorted(stages)
    assert stages[-1] == pytest.approx(0.3)
    assert isinstance(method, Dino)


def test_seven_billion_s_second_moments_are_the_optimiser_s():
    assert method_of(options(beta2=0.99)).schedules(10).betas == (0.9, 0.99)
