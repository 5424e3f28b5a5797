"""Root scripts and modules as a newcomer starts them: help texts, light imports, errors without tracebacks."""

import subprocess
import sys

import pytest

import generate_k_folds

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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_help_says_what_it_does(checkout, command):
    shown = subprocess.run([sys.executable, *command, "--help"], cwd=checkout, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: ")
    assert len(shown.stdout.splitlines()) > 5


def test_an_error_is_one_line_without_a_traceback_from_any_folder(checkout, tmp_path):
    script = checkout / "generate_k_folds.py"
    shown = subprocess.run([sys.executable, script, "no_such_set", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: no data set 'no_such_set'")
    assert "Traceback" not in shown.stderr


def test_folds_of_a_named_data_set_are_printed(workspace, capsys):
    labels = workspace / "data" / "own" / "groundTruth"
    labels.mkdir(parents=True)
    for index in range(7):
        (labels / f"video{index}.txt").write_text("a\n")
    generate_k_folds.main(["own", "3", "--stratify", "none"])
    printed = capsys.readouterr().out
    assert "fold 1: 3 test videos" in printed
    assert "3 folds, seed 42" in printed


@pytest.mark.parametrize("module", ["generate_k_folds", "compute_results", "common.evaluation", "common.kfold_summary"])
def test_light_commands_start_without_torch(checkout, module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=checkout).returncode == 0
