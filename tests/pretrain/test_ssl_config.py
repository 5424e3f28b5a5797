"""Names of models, folders of their outputs, options of a training."""

import subprocess
import sys
from dataclasses import fields

import pytest

from common.base.runtime import UserError
from pretrain.ssl_config import (
    MODELS,
    TrainingOptions,
    adapter_folder,
    backbone_folder,
    find_model,
    parse_training,
    steps_per_epoch,
)

NAMES = {
    "vjepa2-l": "vjepa2-vitl-fpc64-256",
    "vjepa2-g": "vjepa2-vitg-fpc64-384",
    "dinov3-b": "dinov3-vitb16",
    "dinov3-l": "dinov3-vitl16",
    "dinov3-7b": "dinov3-vit7b16",
    "dinov3-tiny": "dinov3-tiny",
    "vjepa2-tiny": "vjepa2-tiny",
    "caformer-s18": "caformer-s18",
    "videomae-b": "videomae-b",
    "videomae-tiny": "videomae-tiny",
    "surgvista-b": "surgvista-b",
}


@pytest.mark.parametrize(("short", "long"), NAMES.items())
def test_both_names_mean_the_same_model(short, long):
    assert find_model(short) is find_model(long)
    assert (find_model(short).short, find_model(short).name) == (short, long)


def test_no_name_is_used_twice():
    names = [name for model in MODELS for name in {model.name, model.short}]
    assert len(names) == len(set(names))


def test_an_unknown_name_lists_the_models_and_the_nearest():
    with pytest.raises(UserError, match=r"--model vjepa2-L: there are .*dinov3-vitb16 \(dinov3-b\).*mean 'vjepa2-l'"):
        find_model("vjepa2-L")
    with pytest.raises(UserError, match="--model is missing: there are"):
        find_model(None)


def test_output_folders_take_either_name(workspace):
    checkpoints = workspace / "pretrain" / "checkpoints"
    for name in ("vjepa2-l", "vjepa2-vitl-fpc64-256"):
        assert backbone_folder(name) == checkpoints / "ssl" / "vjepa2-vitl-fpc64-256"
        assert adapter_folder(name) == checkpoints / "vjepa2-l" / "best_lora"
        assert TrainingOptions(model=name).output_folder == backbone_folder(name)
    assert str(TrainingOptions(model="vjepa2-l", output="/scratch/run").output_folder) == "/scratch/run"


DINOV3, VJEPA2 = "hub:facebook/dinov3-{}-pretrain-lvd1689m", "hub:facebook/vjepa2-{}"
# architecture, width, crop size and start weights, most of which come from the encoders' own config.yaml
NETWORKS = {
    "dinov3-vitb16": ("vitb16", 768, 224, DINOV3.format("vitb16")),
    "dinov3-vitl16": ("vitl16", 1024, 224, DINOV3.format("vitl16")),
    "dinov3-vit7b16": ("vit7b16", 4096, 256, DINOV3.format("vit7b16")),
    "vjepa2-vitl-fpc64-256": ("vjepa2-vitl", 1024, 256, VJEPA2.format("vitl-fpc64-256")),
    "vjepa2-vitg-fpc64-384": ("vjepa2-vitg", 1408, 384, VJEPA2.format("vitg-fpc64-384")),
    "videomae-b": ("videomae-vitb", 768, 224, "hub:MCG-NJU/videomae-base"),
    "dinov3-tiny": ("tiny", 48, 64, DINOV3.format("vitb16")),
    "vjepa2-tiny": ("tiny", 48, 64, VJEPA2.format("vitl-fpc64-256")),
    "videomae-tiny": ("tiny", 96, 64, "hub:SichengLu/SurgRec/surgrec_mae.pth"),
    "surgvista-b": ("surgvista-vitb", 768, 224, "https://huggingface.co/syangcw/SurgVISTA/resolve/main/SurgVISTA.pth"),
    "surgvista-tiny": ("tiny-surgvista", 96, 64, "https://huggingface.co/syangcw/SurgVISTA/resolve/main/SurgVISTA.pth"),
    "caformer-tiny": ("tiny_caformer_s18", 32, 64, None),
    "caformer-s18": ("caformer_s18", 512, 224, None),
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_networks_and_start_weights_are_those_published(model):
    architecture, width, crop_size, weights = NETWORKS[model.name]
    assert (model.architecture, model.width, model.crop_size) == (architecture, width, crop_size)
    found = model.encoder_config().weights
    assert found == weights or (weights is None and "/SurgeNetModels/" in found)
    assert model.is_tiny == ("tiny" in model.name)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_an_encoder_under_models(model, workspace):
    config = model.encoder_config()
    assert config.architecture == model.architecture
    assert config.feature_dim == model.width
    assert config.family == {"caformer": "surgenet"}.get(model.family, model.family)
    assert model.crop_size % 16 == 0


def read(*words: str) -> TrainingOptions:
    options, device = parse_training(words, "A trial.", TrainingOptions, families=("dinov3", "vjepa2"))
    assert device == "auto"
    return options


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text("model: dinov3-b\nvideos: [one, two]\nepochs: 3\nseed: 7\n")
    options = read("--config", str(tmp_path / "run.yaml"), "--epochs", "5", "--videos", "three")
    assert (options.model, options.videos, options.epochs, options.seed) == ("dinov3-b", ("three",), 5, 7)
    assert options.save_every == TrainingOptions.save_every


def test_every_option_has_a_help_text(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    said = capsys.readouterr().out
    assert all(f"--{entry.name}" in said for entry in fields(TrainingOptions))


def test_the_model_s_own_settings_fill_what_is_not_given():
    given = read("--model", "vjepa2-g")
    found = given.completed(on_gpu=True, world_size=4)
    assert (found.model, found.batch_size, found.precision) == ("vjepa2-vitg-fpc64-384", 2, "bf16")
    assert (found.sharding, found.gradient_checkpointing) == ("fsdp", "all")
    alone = given.completed(on_gpu=False, world_size=1)
    assert (alone.precision, alone.sharding) == ("fp32", "none")
    said = read("--model", "vjepa2-g", "--batch_size", "5", "--precision", "bf16", "--gradient_checkpointing", "none")
    found = said.completed(on_gpu=False, world_size=2)
    assert (found.batch_size, found.precision, found.gradient_checkpointing) == (5, "bf16", "none")


def test_processes_that_would_train_apart_are_refused():
    with pytest.raises(UserError, match="--sharding none with 2 processes: each would train alone; use ddp or fsdp"):
        read("--model", "dinov3-b", "--sharding", "none").completed(on_gpu=True, world_size=2)


@pytest.mark.parametrize("name", ["epochs", "steps_per_epoch", "batch_size", "accumulate", "keep_last"])
def test_counts_must_be_positive(name):
    with pytest.raises(UserError, match=f"{name} must be greater than 0, found 0"):
        TrainingOptions(**{name: 0})


def test_health_needs_two_samples():
    with pytest.raises(UserError, match="monitor_samples must be at least 2 samples, found 1"):
        TrainingOptions(monitor_samples=1)


def test_the_length_of_a_training():
    assert TrainingOptions(epochs=3).total_steps(10) == 30
    assert TrainingOptions(epochs=3, steps_per_epoch=4).total_steps(10) == 12
    assert TrainingOptions(epochs=3, max_steps=7).total_steps(10) == 7


@pytest.mark.parametrize(
    ("seconds", "per_sample", "batch", "expected"), [(3600, 1, 64, 57), (3600, 4, 64, 15), (10, 4, 64, 1)]
)
def test_an_epoch_draws_a_sample_for_each_stretch_of_video(seconds, per_sample, batch, expected):
    assert steps_per_epoch(seconds, per_sample, batch) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("corpus_alpha", -1.0), ("cluster_alpha", float("nan")), ("crop_size", 0), ("open_videos", 0)]
)
def test_options_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must .*found {value}"):
        TrainingOptions(**{name: value})


def test_the_model_says_what_options_do_not():
    model = find_model("vjepa2-l")
    assert TrainingOptions().crop_size_of(model) == 256
    assert TrainingOptions(crop_size=128).crop_size_of(model) == 128
    assert TrainingOptions().clip_len_of(model) == 16


def test_the_study_s_corpus_is_the_default():
    assert TrainingOptions().videos == ("Cataracts-1K",)


def test_the_table_needs_no_torch(checkout):
    code = "import pretrain.ssl_config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=checkout).returncode == 0
