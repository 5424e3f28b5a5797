"""The command of Stage 2, on small videos: from a Stage 1 export to an adapter that a CataractFT encoder reads."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.base import paths
from common.base.options import resolve
from common.base.runtime import UserError
from common.dataset import manifest as manifests
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.adapters import find_adapted
from common.predict_video import main as predict_main
from pretrain.finetune_lora import main
from pretrain.lora.adapters import relative_difference
from pretrain.lora.options import FinetuneOptions
from tests.pretrain.finetuning import (
    CLASSES_YAML,
    FPS,
    PHASES,
    base_config,
    flags,
    frames_of,
    noise,
    write_dataset,
    write_export,
)


@pytest.fixture
def place(workspace, make_clip):
    """A root with the made data set as videos, its table of classes, and nothing pretrained."""
    write_dataset(workspace / "data" / "Made", make_clip=make_clip)
    (workspace / "classes.yaml").write_text(CLASSES_YAML)
    return workspace


def command(place, model: str, *others: str) -> list[str]:
    return flags(["--model", model, "--classes", str(place / "classes.yaml"), "--rank", "2", *others])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov3-tiny", "vjepa2-tiny"])
def test_from_stage_1_to_the_encoder_of_stage_3(place, name, monkeypatch, capsys):
    export = write_export(name)
    monkeypatch.chdir(place / "pretrain")
    assert main(command(place, name, "--ssl_checkpoint", f"./checkpoints/ssl/{name}/final.pt")) == 0
    best = paths.pretrained_adapter(name)
    assert capsys.readouterr().out.strip() == str(best)

    folder = "DinoV3-Tiny" if name == "dinov3-tiny" else "V-JEPA2-Tiny"
    config = read_encoder_config(place / "models" / folder / "config.yaml")
    encoder, base = build_encoder(config), build_encoder(base_config(name, export))
    pixels = noise(2, *((3,) if name == "dinov3-tiny" else (8, 3)), 64, 64)
    assert encoder.weights.adapter.path.parent == best
    assert relative_difference(encoder.encode(pixels), base.encode(pixels)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov3-tiny", "vjepa2-tiny"])
def test_its_classifier_tells_the_classes_of_a_new_video(place, tmp_path, name, monkeypatch, make_clip):
    """By the command that predicts with any head; the video is like those of training, in colours between theirs."""
    write_export(name)
    main(command(place, name, "--learning_rate", "1e-3", "--epochs", "4"))
    video = make_clip(tmp_path / "new.mp4", [frame + 3 for frame in frames_of(2)], fps=FPS)
    probe = paths.pretrained_adapter(name).parent / "linear_probe.pt"
    assert (
        predict_main([str(video), "--checkpoint", str(probe), "--output", str(tmp_path / "out"), "--device", "cpu"])
        == 0
    )
    labels = (tmp_path / "out" / "new.txt").read_text().splitlines()[1].split()
    right = [label == phase.lower() for label, phase in zip(labels, PHASES, strict=True)]
    assert sum(right) >= len(PHASES) - 2  # a window over the change sees both

    classifier = load_file(paths.pretrained_adapter(name) / "head.safetensors")
    (features,) = (np.load(path) for path in tmp_path.glob("out/features/*/new.npy"))
    logits = torch.from_numpy(features).T @ classifier["weight"].T + classifier["bias"]
    probabilities = torch.from_numpy(np.load(tmp_path / "out" / "new.npy"))
    assert torch.allclose(probabilities, logits.softmax(dim=1), atol=1e-5)


def test_a_video_that_stage_2_has_seen_is_marked(place, tmp_path, caplog):
    write_export("dinov3-tiny")
    main(command(place, "dinov3-tiny"))
    probe = paths.pretrained_adapter("dinov3-tiny").parent / "linear_probe.pt"
    seen = place / "data" / "Made" / "videos" / "case_1.mp4"
    predict_main([str(seen), "--checkpoint", str(probe), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert "the encoder has seen this video in its LoRA fine-tuning (dinov3-tiny/best_lora)" in caplog.text


def test_records_move_with_the_checkpoints(place, tmp_path):
    write_export("dinov3-tiny")
    main(command(place, "dinov3-tiny"))
    facts = json.loads((paths.pretrained_adapter("dinov3-tiny") / "provenance.json").read_text())
    assert facts["base_checkpoint"] == "../../ssl/dinov3-tiny/export"
    elsewhere = tmp_path / "elsewhere"
    paths.pretraining_checkpoints().rename(elsewhere)
    adapter = find_adapted(elsewhere / "dinov3-tiny" / "best_lora")
    assert adapter.path.resolve() == elsewhere / "ssl" / "dinov3-tiny" / "export"
    manifest = manifests.read_manifest(elsewhere / "dinov3-tiny" / "best_lora" / "manifest.json")
    assert [path.resolve() for path in manifest.based_on] == [elsewhere / "ssl" / "dinov3-tiny" / "manifest.json"]


def test_another_base_under_the_adapter_is_refused(place):
    write_export("dinov3-tiny")
    main(command(place, "dinov3-tiny"))
    write_export("dinov3-tiny", seed=2)
    with pytest.raises(UserError, match=r"best_lora was trained on .*export \(SHA-256 .* give --ssl_checkpoint"):
        find_adapted(paths.pretrained_adapter("dinov3-tiny"))


@pytest.mark.slow
def test_run_again_it_has_nothing_to_do(place, capsys):
    write_export("dinov3-tiny")
    main(command(place, "dinov3-tiny"))
    best = paths.pretrained_adapter("dinov3-tiny")
    written = (best / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(command(place, "dinov3-tiny")) == 0
    assert capsys.readouterr().out.strip() == str(best)
    assert (best / "metrics.json").stat().st_mtime_ns == written
    for file in best.iterdir():
        file.unlink()
    best.rmdir()
    with pytest.raises(UserError, match=r"last\.pt is of a finished training, but .*best_lora is gone; delete"):
        main(command(place, "dinov3-tiny"))


def test_what_a_kill_left_half_written_is_cleared_away(place, tmp_path):
    write_export("dinov3-tiny")
    partial = tmp_path / "out" / ".best_lora.partial"
    partial.mkdir(parents=True)
    (partial / "adapter_config.json").write_text("{")
    main(command(place, "dinov3-tiny", "--output", str(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "best_lora",
        "last.pt",
        "linear_probe.pt",
        "metrics.csv",
    ]


def test_lora_on_published_weights_says_so(place, tmp_path, monkeypatch):
    """A stand-in of the published size's name: a tiny export in the place of the download, read by a folder of its width."""
    folder = write_export("dinov3-tiny", tmp_path / "hub") / "export"
    monkeypatch.setattr("pretrain.finetune_lora.find_base", lambda model, base, checkpoint: folder)
    main(command(place, "dinov3-tiny", "--base", "published", "--mlp"))
    best = paths.pretrained_adapter("dinov3-tiny")
    facts = json.loads((best / "provenance.json").read_text())
    assert (facts["base"], facts["base_checkpoint"]) == ("published", str(folder))
    assert "mlp" in json.loads((best / "adapter_config.json").read_text())["target_modules"]


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_number(place, tmp_path):
    write_export("vjepa2-tiny")
    weights = []
    for choice in ("none", "all"):
        output = tmp_path / choice
        main(command(place, "vjepa2-tiny", "--output", str(output), "--gradient_checkpointing", choice))
        weights.append(torch.load(output / "last.pt", weights_only=True)["trainable"])
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-5) for key in weights[0])


# --- what is refused ------------------------------------------------------------------------------------------------


def test_without_stage_1(place):
    with pytest.raises(UserError, match=r"no Stage 1 output of dinov3-tiny"):
        main(command(place, "dinov3-tiny"))


def test_without_data(place):
    write_export("dinov3-tiny")
    with pytest.raises(
        UserError,
        match=r"no annotated data set: none of Cataract-101, Cataracts-1K is under .*/import_annotations\.py FOLDER",
    ):
        main(["--model", "dinov3-tiny", "--device", "cpu"])
    with pytest.raises(UserError, match="no data set 'Unheard'"):
        main(["--model", "dinov3-tiny", "--device", "cpu", "--datasets", "Unheard"])


def test_by_default_the_data_sets_of_the_table_that_are_there(place):
    write_export("dinov3-tiny")
    (place / "classes.yaml").write_text(CLASSES_YAML + "  Absent: {unlabelled: null}\n")
    given = command(place, "dinov3-tiny", "--epochs", "1")
    given[given.index("--datasets") : given.index("--datasets") + 2] = []
    assert main(given) == 0
    facts = json.loads((paths.pretrained_adapter("dinov3-tiny") / "provenance.json").read_text())
    assert facts["datasets"] == ["Made"]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_clips(place, tmp_path):
    write_export("dinov3-tiny")
    shared = ("--dropout", "0", "--steps_per_epoch", "3", "--epochs", "2")
    main(command(place, "dinov3-tiny", *shared, "--batch_size", "4", "--output", str(tmp_path / "one")))
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "pretrain.finetune_lora",
    ]
    two = command(place, "dinov3-tiny", *shared, "--batch_size", "2", "--output", str(tmp_path / "two"))
    done = subprocess.run([*words, *two, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(str(tmp_path / "two" / "best_lora")) == 1
    tables = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")]
    for one, other in zip(*tables, strict=True):
        for name in ("loss", "validation_loss", "balanced_accuracy", "step"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-4, abs=1e-5), name
    adapters = [load_file(tmp_path / name / "best_lora" / "adapter_model.safetensors") for name in ("one", "two")]
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], rtol=1e-3, atol=1e-5)


def test_models_without_lora_and_unknown_ones(workspace):
    with pytest.raises(UserError, match="'weights: pretrain:videomae-b', found none"):
        main(["--model", "videomae-b"])
    with pytest.raises(UserError, match=r"--model vjepa2-m: .* did you mean 'vjepa2-"):
        main(["--model", "vjepa2-m"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be greater than 0, found 0"),
        ({"patience": 0}, "patience must be greater than 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, found 1.0"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, found -0.1"),
    ],
)
def test_senseless_options(changes, message):
    with pytest.raises(UserError, match=message):
        FinetuneOptions(**changes)


# --- options --------------------------------------------------------------------------------------------------------


def read(given: dict, config_file: str | None = None) -> FinetuneOptions:
    return resolve(FinetuneOptions, given, config_file).completed()


def test_what_is_not_given_is_the_models_own():
    large, frames = read({"model": "vjepa2-l"}), read({"model": "dinov3-b"})
    assert (large.model, large.clip_len, large.batch_size) == ("vjepa2-vitl-fpc64-256", 16, 8)
    assert (large.gradient_checkpointing, frames.gradient_checkpointing) == ("all", "none")
    assert (frames.clip_len, frames.batch_size) == (1, 64)
    chosen = read({"model": "vjepa2-l", "clip_len": 32, "gradient_checkpointing": "none"})
    assert (chosen.clip_len, chosen.gradient_checkpointing) == (32, "none")


def test_the_adapter_lies_where_the_encoders_look(workspace, tmp_path):
    for name in ("vjepa2-l", "vjepa2-vitl-fpc64-256"):
        assert read({"model": name}).best_lora == paths.pretrained_adapter("vjepa2-l")
    own = read({"model": "vjepa2-l", "output": str(tmp_path / "mine")})
    assert own.best_lora == tmp_path / "mine" / "best_lora"


def test_a_file_of_settings_and_flags_that_win(workspace, tmp_path):
    (tmp_path / "own.yaml").write_text("datasets: [A, B]\nrank: 4\nlearning_rate: 3e-4\n")
    chosen = read({"model": "dinov3-b", "rank": 8}, str(tmp_path / "own.yaml"))
    assert (chosen.datasets, chosen.rank, chosen.learning_rate) == (("A", "B"), 8, 3e-4)


@pytest.mark.parametrize("command", ["finetune_lora.py", "extract_ssl_features.py"])
def test_commands_start_inside_pretrain_and_explain_themselves(checkout, command):
    done = subprocess.run(
        [sys.executable, command, "--help"], cwd=checkout / "pretrain", capture_output=True, text=True, check=True
    )
    for said in ("--model", "--checkpoint", "--ssl_checkpoint", "--device"):
        assert said in done.stdout
