"""The doctor: what it calls broken, what it says to do, and what an extraction will need."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.base import children, paths
from common.base.files import write_text
from common.base.runtime import UserError
from common.checks import machine
from common.doctor import main
from common.encoders.config import read_encoder_config
from common.encoders.weights import find as weights
from common.features.estimate import EncoderSpeed, encoder_speed


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Every model's weights are there; nothing is looked up. Tests change the set."""
    present = {"Base", "ColorHistogram", "EfficientNet-Lite0"}

    def is_available(config):
        found = config.title in titles(present)
        return found, "here" if found else "not on this machine"

    def titles(names):
        return {read_encoder_config(paths.CHECKOUT / "models" / name / "config.yaml").title for name in names}

    monkeypatch.setattr(weights, "is_available", is_available, raising=False)
    # in this process, which has torch and what is patched
    monkeypatch.setattr(children, "apart", lambda: contextlib.nullcontext(lambda call, *given: call(*given)))
    return present


@pytest.fixture
def clips(workspace, make_clip, solid):
    """Three videos of 75 frames at 25 a second."""
    for index in range(3):
        make_clip(workspace / "data" / "clips" / "videos" / f"BL_{index}.mp4", solid((9, 99, 9), 75))
    return workspace / "data" / "clips"


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def line(printed: list[str], name: str) -> str:
    """The one line about `name`."""
    found = [text for text in printed if text[9:].startswith(f"{name} ")]
    assert len(found) == 1, (name, printed)
    return found[0]


def advice(printed: list[str], name: str) -> str:
    return printed[printed.index(line(printed, name)) + 1]


# --- the whole command ---------------------------------------------------------------------------------------------


def test_this_machine_is_fine(workspace, capsys):
    assert main([]) == 0
    printed = lines(capsys)
    for name in ("Python", "torch, torchvision", "CPU", "decoder pyav", "decoder opencv", "weights Base"):
        assert line(printed, name).startswith("ok ")
    assert "12 of 12 frames" in line(printed, "decoder pyav")
    assert printed[-1] == "0 problems"


def test_columns_are_aligned(workspace, capsys):
    main(["--model", "ColorHistogram", "EfficientNet-Lite0"])
    printed = [text for text in lines(capsys)[:-2] if not text.startswith(" ")]
    width = len("weights EfficientNet-Lite0")
    assert len(printed) >= 9
    assert all(text[8] == " " and text[9 + width] == " " and text[10 + width] != " " for text in printed)


def test_a_problem_sets_the_exit_code_and_says_what_to_do(workspace, capsys, here):
    here.discard("Base")
    assert main(["--model", "Base", "ColorHistogram"]) == 1
    printed = lines(capsys)
    assert line(printed, "weights Base").startswith("PROBLEM ")
    assert "-> python -m common.weights prefetch Base" in advice(printed, "weights Base")
    assert line(printed, "weights ColorHistogram").startswith("ok ")
    assert printed[-1] == "1 problem: see the lines with ->"


def test_weights_of_models_that_nobody_asked_for_are_a_note(workspace, capsys, here):
    here.discard("Base")
    assert main([]) == 0
    printed = lines(capsys)
    assert line(printed, "weights ColorHistogram").startswith("ok ")
    others = [text for text in printed if text[9:].startswith("weights of others ")]
    assert all(text.startswith("note ") for text in others)
    assert "-> python -m common.weights prefetch NAME" in "\n".join(printed)
    absent = sum(int(re.search(r"not found for (\d+) encoder", text).group(1)) for text in others)
    assert absent == len(paths.all_models()) - len(here)
    assert len(printed) < 30, "the installation fits a screen, however many encoders there are"


def test_weights_that_cannot_be_looked_up_do_not_stop_the_doctor(workspace, capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(weights, "is_available", fail)
    assert main(["--model", "Base"]) == 1
    assert "torchvision::nms" in line(lines(capsys), "weights Base")


def test_an_unknown_model_is_an_error_that_lists_the_known(workspace):
    with pytest.raises(UserError, match="ColorHistogram"):
        main(["--model", "Basis"])


@pytest.mark.parametrize("fps", ["0", "-1", "nan"])
def test_a_rate_must_be_positive(workspace, fps):
    with pytest.raises(UserError, match="fps must be greater than 0"):
        main(["--fps", fps])


# --- torch in a process of its own --------------------------------------------------------------------------------


def run_doctor(*words: str, path: Path | None = None, code: str = "") -> subprocess.CompletedProcess:
    """The command in a fresh interpreter, with packages of `path` before the installed ones."""
    places = os.pathsep.join(filter(None, [path and str(path), str(paths.CHECKOUT)]))
    command = [
        sys.executable,
        "-c",
        f"from common.doctor import main; code = main({list(words)!r}); {code}raise SystemExit(code)",
    ]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": places})


def test_torch_and_torchvision_that_do_not_load_together(workspace, tmp_path):
    write_text(tmp_path / "torch" / "__init__.py", '__version__ = "2.15.0"')
    write_text(
        tmp_path / "torchvision" / "__init__.py", 'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    done = run_doctor("--model", "ColorHistogram", "Base", path=tmp_path)
    assert done.returncode == 1, done.stderr
    printed = done.stdout.splitlines()
    assert "different builds" in line(printed, "torch, torchvision")
    assert "pip install --force-reinstall torch torchvision" in advice(printed, "torch, torchvision")
    assert line(printed, "decoder pyav").startswith("ok ")  # the rest is still looked at
    assert line(printed, "weights ColorHistogram").startswith("ok ")
    assert "torchvision::nms" in line(printed, "weights Base")  # whose address torchvision alone knows
    assert not any(text[9:].startswith("CUDA") for text in printed)
    assert printed[-1] == "2 problems: see the lines with ->"


@pytest.mark.slow
def test_the_doctor_itself_loads_no_torch(clips):
    """What thousands of videos take is its own memory; that of torch goes with the process that loads it."""
    words = ("--dataset", str(clips), "--model", "Base", "--no_timing")
    done = run_doctor(*words, code="import sys; assert 'torch' not in sys.modules; ")
    assert "plan clips" in done.stdout
    assert "ok       torch, torchvision" in done.stdout
    assert done.stderr == ""


# --- the plan ------------------------------------------------------------------------------------------------------


def test_masks_need_no_plan(clips, capsys):
    (clips / "dataset.yaml").write_text("task: segmentation\n")
    assert main(["--dataset", "clips", "--model", "Base"]) == 0
    assert "masks need no features" in line(lines(capsys), "plan clips")


def test_a_plan_counts_frames_and_disk(clips, capsys):
    assert main(["--dataset", "clips", "--model", "Base", "ColorHistogram", "--dtype", "float16", "--no_timing"]) == 0
    printed = lines(capsys)
    assert "3 videos, by their headers 225 frames, 225 of them with a feature (an estimate)" in line(
        printed, "plan clips"
    )
    assert "2048 x 225 float16, an estimate" in line(printed, "disk Base")
    assert line(printed, "disk together").startswith("ok ")
    assert not any("hours" in text for text in printed)


def test_a_full_disk_is_a_problem(clips, capsys, monkeypatch):
    usage = shutil.disk_usage(clips)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=225 * 2048 * 4))
    assert main(["--dataset", "clips", "--model", "Base", "--no_timing"]) == 1
    printed = lines(capsys)
    assert line(printed, "disk together").startswith("PROBLEM ")
    assert "float16" in advice(printed, "disk together")


def test_a_data_set_without_videos_is_a_problem(workspace, capsys):
    (workspace / "data" / "clips").mkdir()
    assert main(["--dataset", "clips"]) == 1
    assert line(lines(capsys), "plan clips").startswith("PROBLEM ")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("videos/BL_0.avi", "", "two videos are called 'BL_0'"),
        ("dataset.yaml", "lable_fps: 1", "unknown key 'lable_fps'"),
    ],
)
def test_what_stops_an_extraction_is_a_problem(clips, capsys, file, content, reason):
    (clips / file).write_text(content)
    assert main(["--dataset", "clips", "--model", "ColorHistogram"]) == 1
    printed = lines(capsys)
    assert line(printed, "plan clips").startswith("PROBLEM ")
    assert reason in advice(printed, "plan clips")


def test_an_absent_data_set_is_an_error(workspace):
    with pytest.raises(UserError, match="no data set 'clips'"):
        main(["--dataset", "clips"])


@pytest.mark.slow
def test_hours_are_measured_on_the_spot(clips, capsys, monkeypatch):
    monkeypatch.setattr(
        machine, "encoder_speed", lambda config, device, mode: encoder_speed(config, device, 0.2, mode=mode)
    )
    assert main(["--dataset", "clips", "--model", "ColorHistogram", "--device", "cpu"]) == 0
    found = line(lines(capsys), "hours ColorHistogram")
    assert found.startswith("ok ")
    assert "about 0.00 h (an estimate: decoding" in found
    assert "cpu, fp32, batches of 16, random weights" in found


def test_long_extractions_are_told_to_be_shared_out(clips, capsys, monkeypatch):
    monkeypatch.setattr(machine, "encoder_speed", lambda *_, **__: EncoderSpeed(0.001, "cpu", at_most=True))
    main(["--dataset", "clips", "--model", "Base", "--device", "cpu"])
    printed = lines(capsys)
    assert "more than 62.50 h" in line(printed, "hours Base")
    assert "encoder under 0.001 frames/s" in line(printed, "hours Base")
    assert "models/launch_extract.sh Base" in advice(printed, "hours Base")
