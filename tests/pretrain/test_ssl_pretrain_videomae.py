"""The command: defaults of both recipes, whole trainings on made clips, what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from common.base.files import read_json
from common.base.runtime import UserError
from common.dataset.manifest import read_manifest
from pretrain.engine.checkpoints.checkpoint import read_checkpoint
from pretrain.engine.reporting import read_metrics
from pretrain.methods.options import VideoMAEOptions
from pretrain.methods.videomae import VideoMAE
from pretrain.ssl_config import find_model, parse_training
from pretrain.ssl_dataset import VideoSamples
from pretrain.ssl_pretrain import balanced_sampling
from pretrain.ssl_pretrain_videomae import main, views_with_teacher
from pretrain.video_data.corpora import read_corpora

TINY = ["--model", "videomae-tiny", "--init", "random", "--device", "cpu", "--num_workers", "0", "--max_steps", "3"]
TINY += ["--fps", "8", "--monitor_every", "2", "--monitor_samples", "4", "--save_every", "2"]
WITH_TEACHER = ["--image_teacher", "Tiny", "--image_teacher_weights", "random"]


@pytest.fixture
def videos(workspace, make_clip):
    """Two videos of two seconds."""
    folder = workspace / "films"
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        start = random.integers(0, 200, (48, 64, 3))
        make_clip(folder / f"{name}.mp4", [(start + time).astype(np.uint8) for time in range(50)])
    return folder


@pytest.fixture
def tiny_teacher(workspace):
    """`models/Tiny`, a small DINOv3."""
    text = (workspace / "models" / "DinoV3-ViT-B16" / "config.yaml").read_text()
    text = text.replace("architecture: vitb16", "architecture: tiny").replace("feature_dim: 768", "feature_dim: 48")
    (workspace / "models" / "Tiny").mkdir()
    (workspace / "models" / "Tiny" / "config.yaml").write_text(text)


def parsed(*arguments: str) -> VideoMAEOptions:
    return parse_training(arguments, "A trial.", VideoMAEOptions, families=("videomae",))[0]


def test_defaults_are_those_of_either_recipe():
    model = find_model("videomae-b")
    alone, beside = (
        parsed("--model", "videomae-b"),
        parsed("--model", "videomae-b", "--image_teacher", "DinoV3-ViT-L16"),
    )
    assert [options.teacher_size_of(model) for options in (alone, beside)] == [None, 224]
    assert (beside.clip_len_of(model), beside.pixel_weight, beside.distillation_weight) == (16, 1.0, 0.05)
    assert (alone.corpus_alpha, alone.cluster_alpha) == (0.5, 0.5)
    assert (
        parsed("--model", "videomae-b", "--image_teacher", "X", "--teacher_size", "448").teacher_size_of(model) == 448
    )


def test_a_file_of_settings_gives_way_to_flags(tmp_path):
    (tmp_path / "settings.yaml").write_text("clip_len: 32\nlearning_rate: 1e-4\nimage_teacher: Tiny\n")
    options = parsed("--model", "videomae-b", "--config", str(tmp_path / "settings.yaml"), "--clip_len", "8")
    assert (options.clip_len, options.learning_rate, options.image_teacher) == (8, 1e-4, "Tiny")


def test_samples_are_clips_and_the_first_frame_of_each_pair(videos, workspace):
    options = parsed("--model", "videomae-tiny", "--image_teacher", "Tiny", "--teacher_size", "32", "--fps", "4")
    sampling = balanced_sampling(options, read_corpora([str(videos)], workspace / "index.json", num_processes=0))
    model = find_model("videomae-tiny")
    rule, clip_len = views_with_teacher(options, model), options.clip_len_of(model)
    made = VideoSamples(sampling, rule, seed=options.seed, clip_len=clip_len, fps=options.fps)[5]
    assert made["clip"].shape == (8, 3, 64, 64)
    assert made["teacher_frames"].shape == (4, 3, 32, 32)
    assert made["number"] == 5
    smaller = torch.nn.functional.interpolate(made["clip"][::2].float(), (32, 32), mode="area")
    apart = (smaller - made["teacher_frames"].float()).abs().mean()
    assert apart < 6  # another resize of the same rectangle
    assert (smaller - made["teacher_frames"].roll(1, dims=0).float()).abs().mean() > 2 * apart


def test_help_says_what_it_writes(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for text in (
        "final.pt",
        "export/",
        "SurgRec-MAE",
        "--mask_ratio",
        "--image_teacher",
        "--corpus_alpha",
        "--cluster_alpha",
    ):
        assert text in shown


@pytest.mark.slow
def test_a_training_writes_all_files_and_is_not_repeated(videos, workspace, caplog):
    output = workspace / "run"
    arguments = [*TINY, "--videos", str(videos), "--output", str(output)]
    caplog.set_level("INFO")
    assert main(arguments) == 0
    names = {"config.json", "model.safetensors", "provenance.json"}
    assert {path.name for path in (output / "export").iterdir()} == names
    state = read_checkpoint(output / "final.pt")
    assert (state["step"], state["recipe"]) == (3, "videomae")
    assert not any("image" in name for name in state["model"])
    assert [video["name"] for video in read_json(output / "manifest.json")["videos"]] == ["one", "two"]
    records = [record for record in read_metrics(output / "metrics.jsonl") if record["step"]]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(record["loss"] == record["loss/pixels"] for record in records)
    assert "health/effective_rank" in records[1]
    assert "VideoMAE of videomae-tiny" in caplog.text
    before = (output / "final.pt").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (output / "final.pt").stat().st_mtime_ns == before


def test_an_image_teacher_by_name(videos, workspace, tiny_teacher):
    output = workspace / "run"
    assert main([*TINY, "--videos", str(videos), "--output", str(output), *WITH_TEACHER]) == 0
    record = read_metrics(output / "metrics.jsonl")[-1]
    assert record["loss"] == pytest.approx(record["loss/pixels"] + 0.05 * record["loss/image_features"])
    saved = read_checkpoint(output / "final.pt")
    assert saved["config"]["image_teacher"] == "Tiny"
    assert saved["model"]["student.image_decoder.blocks.head.weight"].shape == (48, 48)
    assert "image_decoder" not in (output / "export" / "config.json").read_text()


def test_what_the_image_teacher_has_seen_is_recorded(videos, workspace, tiny_teacher):
    """Videos reach a student through its teacher too."""
    teacher = workspace / "teacher"
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **sizes)).save_pretrained(teacher)
    manifest = {"format": 1, "stage": "ssl", "model": "dinov3-tiny", "videos": [], "based_on": []}
    (teacher / "manifest.json").write_text(json.dumps(manifest))
    words = [*TINY, "--videos", str(videos), "--output", str(workspace / "run"), "--image_teacher", "Tiny"]
    assert main([*words, "--image_teacher_weights", str(teacher)]) == 0
    (based_on,) = read_manifest(workspace / "run" / "manifest.json").based_on
    assert based_on.resolve() == (teacher / "manifest.json").resolve()


@pytest.mark.slow
def test_a_training_that_was_cut_off_ends_bit_identical(videos, workspace, tiny_teacher, monkeypatch):
    forward = VideoMAE.forward

    def stopping(self, batch, step):
        if step == 2:
            raise KeyboardInterrupt
        return forward(self, batch, step)

    def run(name: str) -> int:
        return main([*TINY, "--videos", str(videos), "--output", str(workspace / name), *WITH_TEACHER])

    monkeypatch.setattr(VideoMAE, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    monkeypatch.undo()
    monkeypatch.setenv("SICS155_ROOT", str(workspace))
    for name in ("cut", "whole"):
        assert run(name) == 0
    cut, whole = (read_checkpoint(workspace / name / "final.pt")["model"] for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    losses = [
        [each.get("loss") for each in read_metrics(workspace / name / "metrics.jsonl")] for name in ("cut", "whole")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_it_runs_from_its_own_folder(videos, workspace, checkout):
    """With processes that read ahead."""
    command = [sys.executable, "ssl_pretrain_videomae.py", *TINY, "--videos", str(videos), "--num_workers", "1"]
    environment = os.environ | {"SICS155_ROOT": str(workspace)}
    done = subprocess.run(command, cwd=checkout / "pretrain", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (workspace / "pretrain" / "checkpoints" / "ssl" / "videomae-tiny" / "final.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dinov3-tiny"], "--model dinov3-tiny: this command trains videomae-b, surgvista-b, videomae-tiny"),
        (["--clip_len", "7"], "clip_len must be an even number, as frames are taken in pairs, found 7"),
        (["--crop_size", "100"], "--crop_size 100: Video MAE takes multiples of 16 pixels"),
        (["--mask_ratio", "1"], "mask_ratio must be greater than 0 and below 1, found 1"),
        (["--image_teacher", "Unknown"], "Unknown"),
        (
            [*WITH_TEACHER, "--teacher_size", "128"],
            "patches of 16 pixels, .* of 128 pixels do not .*; give --teacher_size 64",
        ),
        (["--image_teacher", "ColorHistogram"], "no features of an image's patches"),
    ],
)
def test_what_makes_no_sense_is_refused(videos, workspace, tiny_teacher, arguments, message):
    with pytest.raises(UserError, match=message):
        main([*TINY, "--videos", str(videos), "--output", str(workspace / "run"), *arguments])
