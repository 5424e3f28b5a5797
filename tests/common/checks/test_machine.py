"""Checks of a machine: what is called broken, and the advice that stands below it."""

import numpy as np
import pytest

from common.base import paths
from common.base.children import apart
from common.base.files import write_text
from common.base.runtime import UserError
from common.checks import machine
from common.checks.machine import Check
from common.encoders.weights import find as weights
from common.video.decode import Frame


def here(function, *arguments):
    """What `children.apart` gives, in this process."""
    return function(*arguments)


def test_advice_stands_under_what_was_found():
    text = Check("CPU", "PROBLEM", "too few", "buy more").text(10)
    first, second = text.splitlines()
    assert first.index("too few") == second.index("->")


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 4))
    assert machine.check_python().state == "PROBLEM"
    assert "3.11" in machine.check_python().advice


LOADS = '__version__ = "2.15.0"'
# what is found, by the sources of a torch and a torchvision
BROKEN = {
    "of different builds": (LOADS, 'raise RuntimeError("operator torchvision::nms does not exist")'),
    "libcudart.so.13": ('raise ImportError("libcudart.so.13: cannot open shared object file\\nmore")', LOADS),
    "No module named 'torchvision'": (LOADS, "raise ModuleNotFoundError(\"No module named 'torchvision'\")"),
    "signal (Illegal instruction)": (LOADS, "import os, signal\nos.kill(os.getpid(), signal.SIGILL)"),
    "exit code 3": ("import os\nos._exit(3)", LOADS),
    "has no attribute '__version__'": (LOADS, ""),  # a folder of this name on the path
    "invalid syntax": (LOADS, "half a file"),
}


@pytest.mark.parametrize("found", BROKEN)
def test_torch_and_torchvision_that_do_not_load_together(tmp_path, monkeypatch, found):
    for package, source in zip(("torch", "torchvision"), BROKEN[found], strict=True):
        write_text(tmp_path / package / "__init__.py", source)
    monkeypatch.syspath_prepend(tmp_path)
    with apart() as ask:
        check = machine.check_torch(ask)
        assert ask(abs, -1) == 1  # whatever has happened, others can be asked
    assert check.state == "PROBLEM"
    assert found in check.found
    assert "\n" not in check.found
    assert check.advice.startswith("pip install --force-reinstall torch torchvision")


def test_a_gpu_that_does_not_answer_is_a_problem():
    def ask(_):
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    (check,) = machine.check_cuda(ask)
    assert (check.state, check.found) == ("PROBLEM", "CUDA error: no kernel image is available")


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
    monkeypatch.setattr(machine, "_cpu_flags", lambda: flags)
    assert expected in machine.check_cpu().found


def test_weights_that_no_command_fetches_are_asked_for(workspace, monkeypatch):
    model = paths.model("EfficientNet-Lite0")
    model.config.write_text(model.config.read_text().replace("weights: package:", "weights: pretrain:"))
    monkeypatch.setattr(weights, "is_available", lambda _: (False, "not trained yet"))
    check = machine.check_weights(model, here, needed=True)
    assert (check.state, check.found) == ("PROBLEM", "not trained yet")
    assert "prefetch" not in check.advice
    assert "--weights" in check.advice


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
    monkeypatch.setattr(machine, "decode", broken_decoder(name))
    checks = {check.name: check for check in machine.check_decoders()}
    assert len(checks) == 4
    assert checks[f"decoder {name}"].state == state
    assert checks[f"decoder {name}"].advice
    assert checks["decoder opencv"].state == "ok"


def test_a_failure_to_make_a_clip_is_a_problem(monkeypatch):
    def fail(*_):
        raise ValueError("no codec libx264")

    monkeypatch.setattr(machine, "_make_clip", fail)
    (check,) = machine.check_decoders()
    assert (check.state, check.advice) == ("PROBLEM", 'pip install "av>=17,<19"')
    assert "libx264" in check.found
