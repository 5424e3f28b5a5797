"""The launch scripts' own logic, with a `python` that only notes how it was called; SLURM itself is in test_cluster.py."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ("launch_extract.sh", "launch_kfold.sh")
FAKE_PYTHON = """#!/bin/bash
printf '%s|' "$PWD" "offline=${HF_HUB_OFFLINE:-}" "threads=${OMP_NUM_THREADS:-}" "$@" >> "$CALLS"
echo >> "$CALLS"
[[ "$*" != *"${FAIL_ON:-nothing}"* ]] || exit "${FAIL_WITH:-1}"
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Checkout:
    """A copy of the scripts beside three model folders, with a `python` of its own on PATH."""

    def __init__(self, root: Path, source: Path):
        self.root, self.calls_file = root, root / "calls"
        (root / "models").mkdir(parents=True)
        for script in source.glob("models/launch_*.sh"):
            shutil.copy(script, root / "models")
        for name in ("Base", "I3D", "V-JEPA2-ViT-L"):
            (root / "models" / name).mkdir()
            (root / "models" / name / "config.yaml").touch()
        (root / "models" / "notes").mkdir()
        (root / "bin").mkdir()
        (root / "bin" / "python").write_text(FAKE_PYTHON)
        (root / "bin" / "python").chmod(0o755)

    def run(self, script: str, *words: str, cwd: Path | None = None, path: Path | None = None, **environment: str):
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "HF_", "OMP_", "PYTHON"))
        }
        search = f"{self.root / 'bin'}{os.pathsep}{clean['PATH']}"
        return subprocess.run(
            ["bash", str(path or self.root / "models" / script), *words],
            env=clean | {"PATH": search, "CALLS": str(self.calls_file)} | environment,
            cwd=cwd or self.root, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        """How `python` was called: folder, offline setting, threads, then its arguments."""
        if not self.calls_file.is_file():
            return []
        return [line.split("|")[:-1] for line in self.calls_file.read_text().splitlines()]

    @property
    def arguments(self) -> list[list[str]]:
        return [call[3:] for call in self.calls]


@pytest.fixture
def checkout_copy(tmp_path, checkout) -> Checkout:
    return Checkout(tmp_path / "a checkout", checkout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(checkout, script):
    subprocess.run(["bash", "-n", checkout / "models" / script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("script", [*SCRIPTS, "launch_common.sh"])
def test_shellcheck_has_no_complaint(checkout, script):
    done = subprocess.run(["shellcheck", "-x", f"models/{script}"], cwd=checkout, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


# --- what is run ---------------------------------------------------------------------------------------------------


def test_extract_passes_options_on_as_they_are(checkout_copy):
    done = checkout_copy.run("launch_extract.sh", "Base", "--dataset", "my data", "--fps", "5")
    assert done.returncode == 0, done.stderr
    assert checkout_copy.arguments == [["models/Base/extract_features.py", "--dataset", "my data", "--fps", "5"]]


def test_kfold_runs_all_folds_outside_an_array(checkout_copy):
    assert checkout_copy.run("launch_kfold.sh", "I3D", "--folds", "3").returncode == 0
    assert checkout_copy.arguments == [["-m", "common.run_k_folds", "--model", "I3D", "--folds", "3"]]


def test_kfold_runs_the_fold_of_its_array_task(checkout_copy):
    assert checkout_copy.run("launch_kfold.sh", "I3D", "--folds", "3", SLURM_ARRAY_TASK_ID="2").returncode == 0
    assert checkout_copy.arguments == [["-m", "common.run_k_folds", "--model", "I3D", "--only", "2", "--folds", "3"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_is_every_folder_with_a_config(checkout_copy, script):
    assert checkout_copy.run(script, "all", "--dataset", "X").returncode == 0
    models = [
        next(name for name in ("Base", "I3D", "V-JEPA2") if name in " ".join(call)) for call in checkout_copy.arguments
    ]
    assert models == ["Base", "I3D", "V-JEPA2"]
    assert all(call[-2:] == ["--dataset", "X"] for call in checkout_copy.arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_failure_does_not_stop_the_others_and_is_the_exit_code(checkout_copy, script):
    done = checkout_copy.run(script, "all", FAIL_ON="Base", FAIL_WITH="3")
    assert done.returncode == 3
    assert len(checkout_copy.calls) == 3
    assert "failed: Base" in done.stderr.splitlines()


# --- where and with what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_runs_in_the_checkout_from_anywhere(checkout_copy, tmp_path, script):
    assert checkout_copy.run(script, "Base", cwd=tmp_path).returncode == 0
    assert checkout_copy.calls[0][0] == str(checkout_copy.root)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_copy_in_the_spool_folder_runs_in_the_folder_of_submission(checkout_copy, tmp_path, script):
    spool = tmp_path / "slurm_script"
    shutil.copy(checkout_copy.root / "models" / script, spool)
    assert checkout_copy.run(script, "Base", path=spool).returncode == 0
    assert checkout_copy.calls[0][0] == str(checkout_copy.root)
    refused = checkout_copy.run(script, "Base", path=spool, cwd=tmp_path)
    assert refused.returncode == 2
    assert "submit this from the repository root" in refused.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_compute_nodes_stay_off_the_network_unless_told_otherwise(checkout_copy, script):
    checkout_copy.run(script, "Base")
    checkout_copy.run(script, "Base", SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8")
    checkout_copy.run(script, "Base", SLURM_JOB_ID="7", HF_HUB_OFFLINE="0", OMP_NUM_THREADS="3")
    assert [call[1:3] for call in checkout_copy.calls] == [
        ["offline=", "threads="], ["offline=1", "threads=8"], ["offline=0", "threads=3"],
    ]  # fmt: skip


def test_a_failure_without_the_network_says_how_to_prefetch(checkout_copy):
    done = checkout_copy.run("launch_extract.sh", "Base", SLURM_JOB_ID="7", FAIL_ON="Base")
    assert "python -m common.weights prefetch Base" in done.stderr
    assert "prefetch" not in checkout_copy.run("launch_extract.sh", "Base", FAIL_ON="Base").stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_environment_of_the_checkout_is_used_where_there_is_one(checkout_copy, tmp_path, script):
    inside = checkout_copy.root / ".venv" / "bin"
    inside.mkdir(parents=True)
    (inside / "activate").write_text(f'PATH="{inside}:$PATH"\n')
    (inside / "python").write_text(FAKE_PYTHON.replace("$PWD", "venv"))
    (inside / "python").chmod(0o755)
    checkout_copy.run(script, "Base")
    checkout_copy.run(script, "Base", PYTHON=str(checkout_copy.root / "bin" / "python"))
    assert [call[0] for call in checkout_copy.calls] == ["venv", str(checkout_copy.root)]


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("words", [(), ("--dataset", "X")])
def test_without_a_model_it_shows_its_usage(checkout_copy, script, words):
    done = checkout_copy.run(script, *words)
    assert done.returncode == 2
    assert f"Usage: {script} MODEL|all" in done.stderr
    assert "#SBATCH" not in done.stderr
    assert checkout_copy.calls == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(checkout_copy, script):
    done = checkout_copy.run(script, "--help")
    assert done.returncode == 0
    assert f"Usage: {script} MODEL|all" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["notes", "../x", "base "])
def test_an_unknown_model_is_refused_with_those_that_exist(checkout_copy, script, name):
    done = checkout_copy.run(script, name)
    assert done.returncode == 2
    assert "all Base I3D V-JEPA2-ViT-L" in done.stderr
    assert checkout_copy.calls == []
