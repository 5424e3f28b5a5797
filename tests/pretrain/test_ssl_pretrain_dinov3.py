"""The command, from options and videos to weights that the encoders of the study read."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from common.base import paths
from common.base.files import read_json
from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from pretrain.engine.checkpoints.checkpoint import read_checkpoint
from pretrain.engine.reporting import read_metrics
from pretrain.ssl_config import find_model
from pretrain.ssl_pretrain_dinov3 import main

PATIENCE_SECONDS = 120
TIMES = {"seconds", "samples_per_second", "data_share", "memory_gigabytes"}
SMALL = [
    "--init", "random", "--num_workers", "0", "--num_local", "2", "--batch_size", "2", "--freeze_backbone_epochs", "0",
    "--monitor_samples", "4", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_clip):
    """Two videos of moving patterns."""
    folder = tmp_path_factory.mktemp("videos_of") / "eyes"
    for number in range(2):
        picture = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        make_clip(folder / f"case_{number}.mp4", [np.roll(picture, 3 * shift, 1) for shift in range(20)], fps=10)
    return folder


def arguments(videos, output, *more: str, model: str = "dinov3-tiny") -> list[str]:
    return ["--model", model, "--videos", str(videos), "--output", str(output), *SMALL, *more]


def curve(folder) -> list[dict]:
    records = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


# the whole way


def encoder_of(model: str, folder: str, weights):
    """The encoder in `models/<folder>` with the architecture of a tiny network, as `--weights` gives it."""
    entry = find_model(model)
    config = read_encoder_config(paths.model(folder).config)
    rule = replace(config.preprocessing, size=entry.crop_size)
    config = replace(config, architecture=entry.architecture, feature_dim=entry.width, preprocessing=rule)
    return build_encoder(config, str(weights))


@pytest.mark.parametrize(
    ("model", "folder", "recipe"),
    [("dinov3-tiny", "DinoV3-ViT-B16", "dinov3"), ("caformer-tiny", "SurgeNet-CAFormer-S18", "dino")],
)
def test_the_study_s_encoders_read_the_teacher_from_the_export(workspace, tmp_path, videos, model, folder, recipe):
    flags = ["--max_steps", "3", "--momentum", "0.5", "--learning_rate", "0.01"]
    assert main(arguments(videos, tmp_path, *flags, model=model)) == 0
    record = read_json(tmp_path / "export" / "provenance.json")
    assert (record["recipe"], record["model"], record["step"]) == (recipe, model, 3)
    state = read_checkpoint(tmp_path / "final.pt")["model"]
    pixels = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    start = encoder_of(model, folder, "random")
    for weights in (tmp_path / "export", tmp_path / "export" / "model.safetensors"):
        encoder = encoder_of(model, folder, weights)
        own = getattr(encoder.network, "backbone", encoder.network).state_dict()
        assert {name: value.shape for name, value in own.items()} == {
            name.removeprefix("teacher.backbone."): value.shape
            for name, value in state.items()
            if name.startswith("teacher.backbone.")
        }
        for name, value in own.items():
            assert torch.equal(value, state[f"teacher.backbone.{name}"]), name
        assert not torch.allclose(encoder.encode(pixels), start.encode(pixels), atol=1e-2)


def test_the_plan_names_the_settings_that_model_and_recipe_decide(workspace, tmp_path, videos, caplog):
    caplog.set_level("INFO")
    words = ["--max_steps", "1", "--recipe", "dino", "--drop_path", "0.25"]
    assert main(arguments(videos, tmp_path, *words, model="caformer-tiny")) == 0
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("  settings")]
    for setting in ("learning_rate 0.0005", "final_weight_decay 0.4", "drop_path 0.25", "blur paper"):
        assert setting in line


def test_the_teacher_has_moved_and_the_whole_state_is_kept(workspace, tmp_path, videos):
    main(arguments(videos, tmp_path, "--max_steps", "3", "--momentum", "0.5"))
    state = read_checkpoint(tmp_path / "final.pt")
    roles = {".".join(name.split(".")[:2]) for name in state["model"]}
    assert roles == {
        f"{side}.{role}" for side in ("student", "teacher") for role in ("backbone", "dino_head", "ibot_head")
    }
    assert state["optimizer"]["state"]
    name = "backbone.model.layer.0.mlp.up_proj.weight"
    assert not torch.equal(state["model"][f"student.{name}"], state["model"][f"teacher.{name}"])


@pytest.mark.slow
def test_a_killed_command_ends_bit_identical(checkout, workspace, tmp_path, videos):
    flags = ["--max_steps", "24", "--save_every", "4", "--monitor_every", "8", "--drop_path", "0.2"]
    command = [sys.executable, str(checkout / "pretrain" / "ssl_pretrain_dinov3.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command + arguments(videos, tmp_path / "cut", *flags), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "cut" / "step_000004.pt").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "cut" / "final.pt").exists()
    for name in ("cut", "whole"):
        assert main(arguments(videos, tmp_path / name, *flags)) == 0
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    ours, theirs = (read_checkpoint(tmp_path / name / "final.pt")["model"] for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_reading_processes_change_nothing(checkout, workspace, tmp_path, videos):
    flags = ["--max_steps", "3", "--gram_weight", "1", "--monitor_every", "0"]
    for workers in ("0", "1"):
        main(arguments(videos, tmp_path / workers, *flags, "--num_workers", workers))
    assert curve(tmp_path / "0") == curve(tmp_path / "1")


# what cannot be


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "dinov3-giant"], "there are dinov3-vitb16 .*did you mean"),
        (["--model", "vjepa2-tiny"], "--model vjepa2-tiny: this command trains dinov3-vitb16, .*caformer-tiny"),
        (["--model", "caformer-tiny", "--recipe", "dinov3"], "caformer-tiny takes --recipe dino"),
        (["--recipe", "dino", "--koleo_weight", "1"], "--koleo_weight: of the recipe dinov3"),
        (["--crop_size", "70"], "--crop_size 70: dinov3-tiny takes multiples of 16 pixels"),
        (["--local_size", "7"], "--local_size 7: dinov3-tiny takes multiples of 16 pixels"),
        (["--freeze_backbone_epochs", "9"], "the backbone would not learn at all"),
        (["--init", "no/such/folder"], "no such file; give --init a local file"),
        (["--batch_size", "1"], "the KoLeo loss needs 2 images or more"),
        (["--videos", "nowhere"], "no data set 'nowhere'"),
        (["--corpus_weights", "other=1"], "corpus weights are given for other; expected one for each of eyes"),
        (["--clusters", "clusters.json"], "clusters.json: no such file of clusters"),
        (["--device", "nothing"], "--device nothing: not a device"),
        (["--config", "absent.yaml"], "absent.yaml: no such configuration file"),
        (["--mask_share", "2"], "mask_share must lie between 0 and 1"),
    ],
)
def test_bad_options_are_named(workspace, tmp_path, videos, flags, message):
    with pytest.raises(UserError, match=message):
        main(arguments(videos, tmp_path, "--max_steps", "2", *flags))
    assert not (tmp_path / "final.pt").exists()


def test_published_weights_that_are_absent_are_an_error_not_random(workspace, tmp_path, videos):
    flags = [flag for flag in arguments(videos, tmp_path) if flag not in ("--init", "random")]
    with pytest.raises(UserError, match="there are no weights of this size; say --init random"):
        main(flags)


def test_settings_come_from_a_file_and_flags_win(workspace, tmp_path, videos):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"max_steps": 5, "ibot_weight": 0.25, "koleo_weight": 0}))
    main(arguments(videos, tmp_path / "out", "--config", str(tmp_path / "run.yaml"), "--max_steps", "1"))
    config = read_checkpoint(tmp_path / "out" / "final.pt")["config"]
    assert (config["max_steps"], config["ibot_weight"], config["koleo_weight"]) == (1, 0.25, 0.0)
    (tmp_path / "run.yaml").write_text("ibot_wieght: 1\n")
    with pytest.raises(UserError, match=r"run.yaml: unknown key 'ibot_wieght'; did you mean 'ibot_weight'"):
        main(["--config", str(tmp_path / "run.yaml")])


# the file itself


def test_help_tells_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for words in ("--gram_weight", "--recipe {auto,dinov3,dino}", "--corpus_alpha", "--device", "torchrun"):
        assert words in text


def test_processes_that_read_videos_import_no_network(checkout):
    code = "import sys, runpy; runpy.run_path('pretrain/ssl_pretrain_dinov3.py', run_name='__mp_main__')\n"
    code += "print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
