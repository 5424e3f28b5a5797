"""The README's own words, as a stranger types them: the six commands, on made clips."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import CHECKOUT

NAMES = [f"case_{number}" for number in range(6)]
PHASES = {"background": (40, 40, 40), "incision": (200, 60, 60), "wash": (60, 60, 200)}
NUM_FRAMES = 24  # of a phase, at least
SMALL = "num_epochs: 2\nnum_layers_PG: 3\nnum_layers_R: 2\nnum_R: 1\nnum_f_maps: 8\n"


def block_below(heading: str) -> str:
    """The first block of commands below a heading of README.md."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    return re.search(r"```\n(.*?)```", text.partition(f"## {heading}\n")[2], flags=re.DOTALL)[1]


@pytest.fixture
def root(tmp_path, make_clip):
    """A checkout without outputs, and beside it what the block calls VIDEOS, LABELS and MAPPING."""
    for name in ("common", "generate_k_folds.py", "compute_results.py"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    for name in ("EfficientNet-Lite0", "ColorHistogram"):
        (tmp_path / "models" / name).mkdir(parents=True)
        shutil.copy(CHECKOUT / "models" / name / "config.yaml", tmp_path / "models" / name)
    random = np.random.default_rng(1)
    (tmp_path / "LABELS").mkdir()
    for number, name in enumerate(NAMES):
        phases = [phase for place, phase in enumerate(PHASES) for _ in range(NUM_FRAMES + number * place)]
        colours = [PHASES[phase] for phase in phases]
        noise = random.integers(0, 30, (len(colours), 48, 64, 3))
        make_clip(
            tmp_path / "VIDEOS" / f"{name}.mp4",
            [np.uint8(np.array(c) + n) for c, n in zip(colours, noise, strict=True)],
        )
        (tmp_path / "LABELS" / f"{name}.txt").write_text("\n".join(phases) + "\n")
    (tmp_path / "MAPPING").write_text("".join(f"{number} {phase}\n" for number, phase in enumerate(PHASES)))
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="the block is for a POSIX shell")
def test_the_six_commands_lead_from_own_videos_to_a_table(root, monkeypatch):
    shell = root / "bin" / "python"  # the head in a size that a test can wait for
    shell.parent.mkdir()
    small = f'if [[ " $* " == *" common.run_k_folds "* ]]; then set -- "$@" --config {root}/small.yaml; fi'
    shell.write_text(f'#!/usr/bin/env bash\n{small}\nexec {sys.executable} "$@"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shell.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SICS155_ROOT", str(root))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    commands = block_below("Your own videos in six commands")
    assert len(commands.splitlines()) == 6
    done = subprocess.run(["bash", "-e", "-c", commands], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "comparison_results" / "report.html").is_file()
    assert re.search(r"^EfficientNet-Lite0 +\d\d\.\d\d ± ", done.stdout, flags=re.MULTILINE)
    assert "Traceback" not in done.stderr
