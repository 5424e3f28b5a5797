"""The launch scripts of `pretrain/` by themselves, with programs that only note how they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ("launch_ssl_dinov3.sh", "launch_ssl_vjepa2.sh", "launch_ssl_multinode.sh")
ALL = (*SCRIPTS, "launch_common.sh", "launch_node.sh", "demo.sh")
FIRST_WORDS = {"launch_ssl_multinode.sh": ("videomae",)}
COMMANDS = dict(zip(SCRIPTS, ("dinov3", "vjepa2", "videomae"), strict=True))
PROGRAMS = {
    # counts the GPUs, then is torchrun
    "python": """
        if [[ "$1" == -c ]]; then echo "${GPUS:-1}"; exit; fi
        printf '%s|' "$PWD" "threads=${OMP_NUM_THREADS:-}" "offline=${HF_HUB_OFFLINE:-}" "${@:3}" >> "$CALLS"
        echo >> "$CALLS"
        trap -p > "$CALLS.traps"
        exit "${FAIL_WITH:-0}"
    """,
    # starts the task on both nodes, as SLURM would
    "srun": """
        echo "$@" > "$CALLS.srun"
        while [[ "$1" == --* ]]; do shift; done
        for node in 0 1; do SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=2 SLURM_NODEID=$node "$@" || exit; done
    """,
    "scontrol": """
        case "$*" in
            "show hostnames a[1-2]") printf 'a1\\na2\\n' ;;
            "show node a1") printf 'NodeName=a1 Arch=x86_64\\n   NodeAddr=%s NodeHostName=a1\\n' "${ADDRESS:-10.0.0.7}" ;;
            *) exit 1 ;;
        esac
    """,
}
IN_SLURM = {"SLURM_JOB_ID": "40003", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_ON_NODE": "32"}  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Copy:
    """A copy of the scripts, with programs of its own on PATH."""

    def __init__(self, root: Path, source: Path):
        self.root, self.calls_file = root, root / "calls"
        for folder, pattern in (("pretrain", "*.sh"), ("models", "launch_common.sh")):
            (root / folder).mkdir(parents=True)
            for script in source.glob(f"{folder}/{pattern}"):
                shutil.copy(script, root / folder)
        (root / "bin").mkdir()
        for name, text in PROGRAMS.items():
            (root / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}")
            (root / "bin" / name).chmod(0o755)

    def run(self, script: str, *words: str, cwd: Path | None = None, path: Path | None = None, **environment: str):
        dropped = ("SLURM", "HF_", "OMP_", "PYTHON", "MASTER_", "GLOO_", "NCCL_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        search = f"{self.root / 'bin'}{os.pathsep}{clean['PATH']}"
        return subprocess.run(
            ["bash", str(path or self.root / "pretrain" / script), *words],
            env=clean | {"PATH": search, "CALLS": str(self.calls_file)} | environment,
            cwd=cwd or self.root, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        """How torchrun was called: folder, threads, offline setting, then its arguments."""
        if not self.calls_file.is_file():
            return []
        return [line.split("|")[:-1] for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def copy(tmp_path, checkout) -> Copy:
    return Copy(tmp_path / "a checkout", checkout)


def words_of(script: str, *options: str) -> tuple[str, ...]:
    return (*FIRST_WORDS.get(script, ()), *options)


@pytest.mark.parametrize("script", ALL)
def test_syntax(checkout, script):
    subprocess.run(["bash", "-n", checkout / "pretrain" / script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("script", ALL)
def test_shellcheck_has_no_complaint(checkout, script):
    done = subprocess.run(["shellcheck", "-x", f"pretrain/{script}"], cwd=checkout, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_slurm_it_starts_a_process_a_gpu_here(copy, tmp_path, script):
    done = copy.run(script, *words_of(script, "--model", "x y"), cwd=tmp_path, GPUS="4")
    assert done.returncode == 0, done.stderr
    ((folder, threads, offline, *arguments),) = copy.calls
    assert (folder, threads, offline) == (str(copy.root), "threads=", "offline=")
    expected = ["--standalone", "--nproc_per_node", "4", "--signals_to_handle", "SIGTERM,SIGINT"]
    assert arguments == [*expected, f"pretrain/ssl_pretrain_{COMMANDS[script]}.py", "--model", "x y"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_in_slurm_all_nodes_meet_at_the_first_one(copy, script):
    done = copy.run(script, *words_of(script), "--epochs", "3", GPUS="8", **IN_SLURM)
    assert done.returncode == 0, done.stderr
    for node, (_, threads, offline, *arguments) in enumerate(copy.calls):
        assert (threads, offline) == ("threads=4", "offline=1")  # 32 processors for 8 processes
        expected = ["--nnodes", "2", "--node_rank", str(node), "--master_addr", "10.0.0.7", "--master_port", "10003"]
        assert arguments[:8] == expected
        assert arguments[8:] == [
            "--nproc_per_node", "8", "--signals_to_handle", "SIGINT",
            f"pretrain/ssl_pretrain_{COMMANDS[script]}.py", "--epochs", "3",
        ]  # fmt: skip
    assert len(copy.calls) == 2
    called = (copy.root / "calls.srun").read_text().split()
    assert {"--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"} <= set(called)
    assert "job 40003 on a[1-2], attempt 1" in done.stdout


def test_torchrun_does_not_hear_what_slurm_tells_every_process(copy):
    copy.run("launch_ssl_dinov3.sh", "--epochs", "3", **IN_SLURM)
    traps = (copy.root / "calls.traps").read_text()
    assert "'' SIGUSR1" in traps
    assert "'' SIGTERM" in traps


@pytest.mark.parametrize(
    ("given", "threads"), [({}, "threads=32"), ({"OMP_NUM_THREADS": "3"}, "threads=3"), ({"GPUS": "64"}, "threads=1")]
)
def test_processors_are_shared_unless_the_caller_says_otherwise(copy, given, threads):
    copy.run("launch_ssl_dinov3.sh", "--epochs", "3", **IN_SLURM, **given)
    assert {call[1] for call in copy.calls} == {threads}


def test_the_environment_may_name_processes_and_meeting_point(copy):
    given = {"PROCESSES_PER_NODE": "3", "MASTER_ADDR": "there", "MASTER_PORT": "99"}
    copy.run("launch_ssl_dinov3.sh", "--epochs", "3", **IN_SLURM, **given)
    arguments = copy.calls[0]
    assert arguments[arguments.index("--nproc_per_node") + 1] == "3"
    assert arguments[arguments.index("--master_addr") + 1 :][:3] == ["there", "--master_port", "99"]


@pytest.mark.parametrize("inside", [{}, IN_SLURM])
def test_a_failure_is_the_exit_code(copy, inside):
    done = copy.run("launch_ssl_vjepa2.sh", "--epochs", "3", FAIL_WITH="3", **inside)
    assert done.returncode == 3
    assert "ends with exit code 3" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_copy_in_the_spool_folder_runs_in_the_folder_of_submission(copy, tmp_path, script):
    spool = tmp_path / "slurm_script"
    shutil.copy(copy.root / "pretrain" / script, spool)
    assert copy.run(script, *words_of(script, "--epochs", "3"), path=spool).returncode == 0
    assert copy.calls[0][0] == str(copy.root)
    refused = copy.run(script, *words_of(script, "--epochs", "3"), path=spool, cwd=tmp_path)
    assert refused.returncode == 2
    assert "submit this from the repository root" in refused.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_no_words_show_the_usage(copy, script):
    for words, code in ((("--help",), 0), (("-h",), 0), ((), 2)):
        done = copy.run(script, *words)
        assert done.returncode == code
        said = done.stderr if code else done.stdout
        assert f"Usage: {script}" in said
        assert "#SBATCH" not in said
    assert copy.calls == []


def test_an_unknown_recipe_shows_the_usage(copy):
    done = copy.run("launch_ssl_multinode.sh", "--model", "dinov3-vitb16")
    assert done.returncode == 2
    assert "dinov3|vjepa2|videomae" in done.stderr
    assert copy.calls == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_jobs_are_warned_before_their_limit_and_may_be_put_back(checkout, script):
    lines = (checkout / "pretrain" / script).read_text().splitlines()
    settings = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append", "--output=slurm_logs/%x-%j.out"} <= settings
    for name in ("time", "mem", "gres", "nodes"):
        assert any(setting.startswith(f"--{name}=") for setting in settings)
