"""The command: the study's own words, a whole training on made clips, what it refuses."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import VJEPA2Model

from common.base.files import read_json
from common.base.runtime import UserError
from pretrain.engine.checkpoints.checkpoint import read_checkpoint
from pretrain.engine.reporting import read_metrics
from pretrain.methods.options import VJEPA2Options
from pretrain.ssl_config import parse_training
from pretrain.ssl_pretrain_vjepa2 import main
from tests.pretrain.test_backbones import metas_file, trained_network

TINY = ["--model", "vjepa2-tiny", "--init", "random", "--device", "cpu", "--num_workers", "0", "--max_steps", "3"]
TINY += ["--fps", "8", "--monitor_every", "2", "--monitor_samples", "4", "--save_every", "2"]


@pytest.fixture
def videos(workspace, make_clip):
    """Two videos of two seconds."""
    folder = workspace / "films"
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        start = random.integers(0, 200, (48, 64, 3))
        make_clip(folder / f"{name}.mp4", [(start + time).astype(np.uint8) for time in range(50)])
    return folder


def parsed(*arguments: str) -> VJEPA2Options:
    return parse_training(arguments, "A trial.", VJEPA2Options, families=("vjepa2",))[0]


def test_the_study_s_command_is_understood():
    options = parsed("--model", "vjepa2-vitl-fpc64-256", "--batch_size", "2", "--epochs", "100")
    assert (options.model, options.batch_size, options.epochs) == ("vjepa2-vitl-fpc64-256", 2, 100)
    assert (options.mask_mode, options.mask_ratio, options.export) == ("multiblock", 0.9, "ema")
    options = options.completed(on_gpu=True, world_size=1)
    assert (options.precision, options.gradient_checkpointing) == ("bf16", "all")


def test_a_file_of_settings_gives_way_to_flags(tmp_path):
    (tmp_path / "settings.yaml").write_text("clip_len: 64\nlearning_rate: 1e-4\nmask_mode: tube\n")
    options = parsed("--model", "vjepa2-l", "--config", str(tmp_path / "settings.yaml"), "--clip_len", "32")
    assert (options.clip_len, options.learning_rate, options.mask_mode) == (32, 1e-4, "tube")


def test_help_says_what_it_writes(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("final.pt", "export/", "--mask_ratio", "--full_complement", "--mask_token"))


@pytest.mark.slow
def test_a_training_writes_all_files_and_is_not_repeated(videos, workspace):
    output = workspace / "run"
    arguments = [*TINY, "--videos", str(videos), "--output", str(output)]
    assert main(arguments) == 0
    names = {"config.json", "model.safetensors", "provenance.json"}
    assert {path.name for path in (output / "export").iterdir()} == names
    state = read_checkpoint(output / "final.pt")
    assert (state["step"], state["recipe"]) == (3, "vjepa2")
    assert [video["name"] for video in read_json(output / "manifest.json")["videos"]] == ["one", "two"]
    records = [record for record in read_metrics(output / "metrics.jsonl") if record["step"]]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(record["seen/short"] == pytest.approx(6 / 64) for record in records)  # int(0.1 * 64)
    assert "health/effective_rank" in records[1]
    before = (output / "final.pt").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (output / "final.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize(("choice", "role"), [("ema", "teacher"), ("online", "student")])
def test_the_export_holds_the_encoder_asked_for_and_the_predictor(videos, workspace, choice, role):
    output = workspace / "run"
    main([*TINY, "--videos", str(videos), "--output", str(output), "--export", choice, "--learning_rate", "1e-2"])
    saved = read_checkpoint(output / "final.pt")["model"]
    exported = VJEPA2Model.from_pretrained(output / "export")
    for part, name in ((exported.encoder, f"{role}.backbone"), (exported.predictor, "student.predictor")):
        for key, value in part.state_dict().items():
            assert torch.equal(value, saved[f"{name}.{key}"])
    assert not torch.equal(saved["teacher.backbone.layernorm.weight"], saved["student.backbone.layernorm.weight"])


def test_a_training_from_meta_s_file_goes_on_with_its_predictor(videos, workspace, caplog):
    """Not from a new one: it ends near where it began, with the file's two mask tokens."""
    network = trained_network()
    content = metas_file(network)
    two = {f"module.backbone.mask_tokens.{number}" for number in range(2)}
    content["predictor"] = {
        name: value for name, value in content["predictor"].items() if "mask_tokens" not in name or name in two
    }
    torch.save(content, workspace / "vitl.pt")
    rates = ["--learning_rate", "1e-9", "--start_learning_rate", "1e-9", "--final_learning_rate", "1e-9"]
    words = [*TINY, *rates, "--videos", str(videos), "--output", str(workspace / "run")]
    assert main([*words, "--init", str(workspace / "vitl.pt")]) == 0
    exported = VJEPA2Model.from_pretrained(workspace / "run" / "export")
    expected = network.predictor.state_dict()
    expected["embeddings.mask_tokens"] = expected["embeddings.mask_tokens"][:2]
    for name, value in exported.predictor.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    assert "random values" not in caplog.text


@pytest.mark.slow
def test_it_runs_from_its_own_folder(videos, workspace, checkout):
    """As the study does."""
    command = [sys.executable, "ssl_pretrain_vjepa2.py", *TINY, "--videos", str(videos)]
    environment = os.environ | {"SICS155_ROOT": str(workspace)}
    done = subprocess.run(command, cwd=checkout / "pretrain", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mask token 0 of the predictor is trained" in done.stderr
    assert (workspace / "pretrain" / "checkpoints" / "ssl" / "vjepa2-tiny" / "final.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dinov3-tiny"], "this command trains vjepa2-vitl-fpc64-256, vjepa2-vitg-fpc64-384, vjepa2-tiny"),
        (["--clip_len", "7"], "clip_len must be an even number, as frames are taken in pairs, found 7"),
        (["--crop_size", "100"], "--crop_size 100: vjepa2-tiny takes multiples of 16 pixels"),
        (["--mask_token", "10"], "--mask_token 10: the predictor has 10 mask tokens"),
        (["--mask_ratio", "0.999"], "a ratio of 0.999 leaves no context of 64 tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(videos, workspace, arguments, message):
    with pytest.raises(UserError, match=message):
        main([*TINY, "--videos", str(videos), "--output", str(workspace / "run"), *arguments])
