"""The doctor: what it calls broken, what it says to do, and what an extraction will need."""

import importlib
import multiprocessing
import shutil

import numpy as np
import pytest

from common import doctor
from common.base import paths
from common.base.runtime import UserError
from common.checks import machine
from common.checks.machine import Check
from common.doctor import main
from common.encoders.config import read_encoder_config
from common.encoders.weights import find as weights
from common.features import estimate as extraction_plan
from common.features.estimate import encoder_speed, expected_frames, feature_bytes, hours
from common.video.decode import Frame


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
    assert line(lines(capsys), "weights Base").startswith("note ")


def test_weights_that_cannot_be_looked_up_do_not_stop_the_doctor(workspace, capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(weights, "is_available", fail)
    assert main(["--model", "Base"]) == 1
    assert "torchvision::nms" in line(lines(capsys), "weights Base")


def test_weights_that_no_command_fetches_are_asked_for(workspace, monkeypatch):
    model = paths.model("EfficientNet-Lite0")
    model.config.write_text(model.config.read_text().replace("weights: package:", "weights: pretrain:"))
    monkeypatch.setattr(weights, "is_available", lambda _: (False, "not trained yet"))
    check = machine.check_weights(model, needed=True)
    assert (check.state, check.found) == ("PROBLEM", "not trained yet")
    assert "prefetch" not in check.advice
    assert "--weights" in check.advice


def test_an_unknown_model_is_an_error_that_lists_the_known(workspace):
    with pytest.raises(UserError, match="ColorHistogram"):
        main(["--model", "Basis"])


@pytest.mark.parametrize("fps", ["0", "-1", "nan"])
def test_a_rate_must_be_positive(workspace, fps):
    with pytest.raises(UserError, match="--fps"):
        main(["--fps", fps])


# --- Python, torch, processor --------------------------------------------------------------------------------------


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4))
    assert machine.check_python().state == "PROBLEM"
    assert "3.11" in machine.check_python().advice


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "different builds"),
        (ImportError("libcudart.so.13: cannot open shared object file\nmore"), "libcudart.so.13"),
        (ModuleNotFoundError("No module named 'torchvision'"), "No module named 'torchvision'"),
    ],
)
def test_torch_and_torchvision_that_do_not_load_together(workspace, monkeypatch, capsys, error, found):
    real = importlib.import_module

    def import_module(name, *rest):
        if name == "torchvision":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert main([]) == 1
    printed = lines(capsys)
    assert found in line(printed, "torch, torchvision")
    assert "pip install --force-reinstall torch torchvision" in advice(printed, "torch, torchvision")
    assert line(printed, "decoder pyav").startswith("ok ")  # the rest is still looked at
    assert not any(text[9:].startswith("CUDA") for text in printed)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "avx512_bf16"}, "bf16 native"),
        ({"asimd", "bf16"}, "bf16 native"),
        ({"avx2"}, "not native"),
        (set(), "not native"),
    ],
)
def test_bf16_is_read_off_the_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: flags)
    assert expected in machine.check_cpu().found


# --- decoders ------------------------------------------------------------------------------------------------------


def broken_decoder(name):
    """`decode` of which one decoder loses frames, gives a wrong colour, or is not installed."""

    def decode(path, decoder):
        good = [Frame(np.full((96, 128, 3), machine.CLIP_COLOUR, np.uint8), 0.0)] * machine.CLIP_FRAMES
        if decoder != name:
            return good
        if broken_decoder.how == "absent":
            raise UserError(f"--decoder {name}: not installed; run: pip install {name}")
        wrong = [Frame(np.full((96, 128, 3), (186, 42, 88), np.uint8), 0.0)] * machine.CLIP_FRAMES
        return good[:-1] if broken_decoder.how == "short" else wrong

    return decode


@pytest.mark.parametrize("how", ["absent", "short", "wrong colour"])
@pytest.mark.parametrize(("name", "state"), [("pyav", "PROBLEM"), ("decord", "note")])
def test_only_the_default_decoder_is_needed(monkeypatch, name, state, how):
    monkeypatch.setattr(broken_decoder, "how", how, raising=False)
    monkeypatch.setattr(doctor, "decode", broken_decoder(name))
    checks = {check.name: check for check in machine.check_decoders()}
    assert len(checks) == 4
    assert checks[f"decoder {name}"].state == state
    assert checks[f"decoder {name}"].advice
    assert checks["decoder opencv"].state == "ok"


def test_a_failure_to_make_a_clip_is_a_problem(monkeypatch):
    def fail(*_):
        raise ValueError("no codec libx264")

    monkeypatch.setattr(doctor, "_make_clip", fail)
    (check,) = machine.check_decoders()
    assert (check.state, check.advice) == ("PROBLEM", 'pip install "av>=17"')
    assert "libx264" in check.found


# --- the plan ------------------------------------------------------------------------------------------------------


def test_a_plan_counts_frames_and_disk(clips, capsys):
    assert main(["--dataset", "clips", "--model", "Base", "ColorHistogram", "--dtype", "float16", "--no_timing"]) == 0
    printed = lines(capsys)
    assert "3 videos, by their headers 225 frames, 225 of them to encode (an estimate)" in line(printed, "plan clips")
    assert "2048 x 225 float16, an estimate" in line(printed, "disk Base")
    assert line(printed, "disk together").startswith("ok ")
    assert not any("hours" in text for text in printed)


def test_a_full_disk_is_a_problem(clips, capsys, monkeypatch):
    usage = shutil.disk_usage(clips)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=225 * 2048 * 4))
    assert main(["--dataset", "clips", "--model", "Base", "--no_timing"]) == 1
    printed = lines(capsys)
    assert line(printed, "disk together").startswith("PROBLEM ")
    assert "float16" in advice(printed, "disk together")


def test_a_data_set_without_videos_is_a_problem(workspace, capsys):
    (workspace / "data" / "clips").mkdir()
    assert main(["--dataset", "clips"]) == 1
    assert line(lines(capsys), "plan clips").startswith("PROBLEM ")


def test_an_absent_data_set_is_an_error(workspace):
    with pytest.raises(UserError, match="no data set 'clips'"):
        main(["--dataset", "clips"])


def test_sampled_frames_follow_the_rate(clips):
    videos = paths.find_videos(clips / "videos")
    assert expected_frames(videos, None) == (225, 225)
    assert expected_frames(videos, 5) == (225, 45)
    assert expected_frames(videos, 100) == (225, 225)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", 8192 * 10), ("float16", 4096 * 10)])
def test_size_of_features(dtype, expected):
    config = read_encoder_config(paths.CHECKOUT / "models" / "Base" / "config.yaml")
    assert feature_bytes(config, 10, dtype) == expected


def test_hours_add_up_on_a_cpu_and_overlap_on_a_gpu():
    assert hours(36_000, 36_000, 10, 2, overlap=False) == pytest.approx(1 + 5)
    assert hours(36_000, 36_000, 10, 2, overlap=True) == pytest.approx(5)
    assert hours(36_000, 3_600, 10, 2, overlap=False) == pytest.approx(1 + 0.5)


def test_hours_are_measured_on_the_spot(clips, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "encoder_speed", lambda path, device: encoder_speed(path, device, 0.2))
    assert main(["--dataset", "clips", "--model", "ColorHistogram", "--device", "cpu"]) == 0
    found = line(lines(capsys), "hours ColorHistogram")
    assert found.startswith("ok ")
    assert "about 0.00 h (an estimate: decoding" in found
    assert "cpu, fp32, batches of 16, random weights" in found


def test_long_extractions_are_told_to_be_shared_out(clips, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "encoder_speed", lambda *_: extraction_plan.EncoderSpeed(0.001, "cpu", at_most=True))
    main(["--dataset", "clips", "--model", "Base", "--device", "cpu"])
    printed = lines(capsys)
    assert "more than 62.50 h" in line(printed, "hours Base")
    assert "encoder under 0.001 frames/s" in line(printed, "hours Base")
    assert "models/launch_extract.sh Base" in advice(printed, "hours Base")


def test_an_encoder_larger_than_the_memory_is_not_built(workspace, monkeypatch):
    path = paths.model("Base").config
    monkeypatch.setattr(extraction_plan, "MEMORY_FACTOR", 1e9)
    speed = encoder_speed(path, "cpu")
    assert speed.frames_per_second is None
    assert "free memory" in speed.remark


class TestListening:
    """What the timing process says, and what is made of it."""

    def listen(self, *messages, close=True):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        for message in messages:
            sender.send(message)
        if close:
            sender.close()
        return extraction_plan._listen(receiver)

    def test_the_first_batch_is_left_out(self):
        speed = self.listen(("cpu, fp32", 16), (16, 9.0), (16, 2.0), (16, 2.0))
        assert (speed.frames_per_second, speed.remark, speed.at_most) == (8.0, "cpu, fp32", False)

    def test_a_single_batch_counts(self):
        assert self.listen(("cpu", 1), (1, 4.0)).frames_per_second == 0.25

    def test_a_process_that_dies_is_no_measurement(self):
        speed = self.listen(("cpu", 16))
        assert speed.frames_per_second is None
        assert "died" in speed.remark

    def test_its_error_is_handed_on(self):
        speed = self.listen(UserError("no such device"))
        assert (speed.frames_per_second, speed.remark) == (None, "not timed: no such device")

    def test_a_batch_that_takes_too_long_is_an_upper_bound(self, monkeypatch):
        monkeypatch.setattr(extraction_plan, "PATIENCE_SECONDS", 0.1)
        speed = self.listen(("cpu", 16), close=False)
        assert speed.at_most
        assert speed.frames_per_second == pytest.approx(160)

    def test_a_network_that_is_never_built_is_no_measurement(self, monkeypatch):
        monkeypatch.setattr(extraction_plan, "BUILD_SECONDS", 0.1)
        speed = self.listen(close=False)
        assert speed.frames_per_second is None
        assert "not built" in speed.remark


def test_advice_stands_under_what_was_found():
    text = Check("CPU", "PROBLEM", "too few", "buy more").text(10)
    first, second = text.splitlines()
    assert first.index("too few") == second.index("->")
