"""Root scripts and modules as a newcomer starts them: help texts, light imports, errors without tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import generate_k_folds
from common.base.runtime import UserError

COMMANDS = [
    ["generate_k_folds.py"],
    ["compute_results.py"],
    ["data/make_sample.py"],
    ["data/prepare_sics155.py"],
    ["-m", "common.train"],
    ["-m", "common.evaluation"],
    ["-m", "common.run_k_folds"],
    ["-m", "common.kfold_summary"],
    ["-m", "common.export_to_excel"],
]


# each file of the room that is a command
BENCHMARKS = sorted(
    path.stem
    for path in (Path(__file__).parent / "benchmarks").glob("*.py")
    if "ArgumentParser(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_help_says_what_it_does(checkout, command):
    shown = subprocess.run([sys.executable, *command, "--help"], cwd=checkout, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: ")
    assert len(shown.stdout.splitlines()) > 5


def test_labels_without_a_video_are_named_before_hours_of_extraction(workspace, capsys):
    labels, videos = workspace / "data" / "own" / "groundTruth", workspace / "data" / "own" / "videos"
    labels.mkdir(parents=True)
    (labels.parent / "mapping.txt").write_text("0 a\n")
    for index in range(4):
        (labels / f"video{index}.txt").write_text("a\n")
    generate_k_folds.main(["own", "2"])
    assert "without a video" not in capsys.readouterr().out  # features alone, made elsewhere
    videos.mkdir()
    for index in (0, 2, 3):
        (videos / f"video{index}.mp4").write_bytes(b"video")
    generate_k_folds.main(["own", "2"])
    assert "note: labels without a video: video1; " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_from_nothing_but_this_checkout(checkout, name):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--help"]
    shown = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=own)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: ")


def test_an_error_is_one_line_without_a_traceback_from_any_folder(checkout, tmp_path):
    script = checkout / "generate_k_folds.py"
    shown = subprocess.run([sys.executable, script, "no_such_set", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: no data set 'no_such_set'")
    assert "Traceback" not in shown.stderr


def test_folds_of_a_named_data_set_are_printed(workspace, capsys):
    labels = workspace / "data" / "own" / "groundTruth"
    labels.mkdir(parents=True)
    (labels.parent / "mapping.txt").write_text("0 a\n")
    for index in range(7):
        (labels / f"video{index}.txt").write_text("a\n")
    generate_k_folds.main(["own", "3", "--stratify", "none"])
    printed = capsys.readouterr().out
    assert "fold 1: 3 test videos" in printed
    assert "3 folds of 2 or 3 test videos, seed 42" in printed


def test_videos_without_labels_are_named_but_not_those_for_validation(workspace, capsys):
    root = workspace / "data" / "own"
    for folder, names in {"groundTruth": "abcd", "groundTruth_val": "v", "videos": "abcduv"}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / (f"{name}.mp4" if folder == "videos" else f"{name}.txt")).write_text("a\n")
    (root / "mapping.txt").write_text("0 a\n")
    generate_k_folds.main(["own", "2"])
    printed = capsys.readouterr().out
    assert "note: videos without labels, in no fold: u\n" in printed
    assert "fold 1: 2 test videos\n" in printed  # no name has a prefix: their counts say nothing


def test_folds_wait_for_sound_labels(workspace):
    """An error in them would be found by the training, hours of extraction later."""
    labels = workspace / "data" / "own" / "groundTruth"
    labels.mkdir(parents=True)
    (labels.parent / "mapping.txt").write_text("0 a\n1 b\n")
    for index in range(9):
        (labels / f"video{index}.txt").write_text("a\nbb\n" if index else "a\n\na\n")
    with pytest.raises(UserError) as error:
        generate_k_folds.main(["own", "3"])
    message = str(error.value)
    assert "video0.txt, line 2: a blank line" in message
    assert "video4.txt, line 2 (frame 1): unknown phase 'bb'" in message
    assert "and 4 more (python -m common.audit" in message
    assert not (labels.parent / "splits").exists()


@pytest.mark.slow
def test_a_phase_that_a_fold_cannot_learn_is_printed(workspace, capsys):
    labels = workspace / "data" / "own" / "groundTruth"
    labels.mkdir(parents=True)
    (labels.parent / "mapping.txt").write_text("0 a\n1 b\n2 c\n")
    for index in range(4):
        (labels / f"video{index}.txt").write_text("a\nb\n" if index == 1 else "a\n")
    generate_k_folds.main(["own", "2"])
    printed = capsys.readouterr().out
    assert "note: no video has a frame of c\n" in printed
    assert "no training frame of b: all are in its test videos" in printed


@pytest.mark.slow
@pytest.mark.parametrize("module", ["generate_k_folds", "compute_results", "common.evaluation", "common.kfold_summary"])
def test_light_commands_start_without_torch(checkout, module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=checkout).returncode == 0
