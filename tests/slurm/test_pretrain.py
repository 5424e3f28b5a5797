"""Stage 1 under a real SLURM: two nodes, a warning in the middle, back into the queue, and the same numbers in the end."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.reporting import read_metrics

STEPS, BATCH_SIZE, NODES = 50, 2, 2
WARNED_AFTER = 3  # steps
PATIENCE_SECONDS = 150
MEASURED = {"seconds", "samples_per_second", "data_share", "memory_gigabytes"}
COMMON = ("--init", "random", "--videos", "films", "--max_steps", STEPS, "--batch_size", BATCH_SIZE,
          "--save_every", 1000, "--monitor_every", 0)  # fmt: skip
RESOURCES = (f"--nodes={NODES}", "--cpus-per-task=4", "--mem=4G", "--gres=gpu:2")
# script, its words before the common options, to whom the warning goes: the shell (as before a time limit), the processes,
# both. A process that reads videos gets it too
CASES = {
    "dinov3": (
        "launch_ssl_dinov3.sh",
        ("--model", "dinov3-tiny", "--freeze_backbone_epochs", 0, "--num_workers", 1),
        ("--batch",),
    ),
    # sharded: each process saves its part
    "vjepa2": ("launch_ssl_vjepa2.sh", ("--model", "vjepa2-tiny", "--num_workers", 0, "--sharding", "fsdp"), ()),
    "multinode": ("launch_ssl_multinode.sh", ("videomae", "--model", "videomae-tiny", "--num_workers", 0), ("--full",)),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def films(workspace, make_clip):
    """A corpus of three clips of noise, 3 s each."""
    folder = workspace / "data" / "films" / "videos"
    for number in range(3):
        random = np.random.default_rng(number)
        frames = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(75)]
        make_clip(folder / f"film_{number}.mp4", frames, options={"crf": "30", "preset": "ultrafast"})
    return folder


class Job:
    """A job of the test's cluster."""

    def __init__(self, cluster, checkout, folder, *words):
        self.cluster, self.log = cluster, folder / "log.txt"
        folder.mkdir()
        done = cluster.run(
            "sbatch", "--parsable", f"--output={self.log}", *map(str, words), cwd=checkout, env=environment()
        )
        assert done.returncode == 0, done.stderr
        self.number = done.stdout.strip()

    def field(self, name: str) -> str:
        """What SLURM says of the job."""
        return re.search(rf"\b{name}=(\S+)", self.cluster.run("scontrol", "show", "job", self.number).stdout)[1]

    def wait_until(self, condition, what: str, every: float = 0.1) -> None:
        """Wait for `condition()`; the test fails with the job's log when it does not come true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}\n{self.text}"
            time.sleep(every)

    def wait_for_state(self, *states: str) -> None:
        self.wait_until(lambda: self.field("JobState") in states, f"state {' or '.join(states)}", every=0.5)

    @property
    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text() if self.log.is_file() else ""


def environment() -> dict[str, str]:
    """What jobs and commands of the test see besides this process's environment."""
    return {"SICS155_ROOT": os.environ["SICS155_ROOT"], "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}


def numbers_of(folder: RunFolder) -> list[dict]:
    """The metrics of a training without those that a clock or the memory gives."""
    return [
        {key: value for key, value in record.items() if key not in MEASURED} for record in read_metrics(folder.metrics)
    ]


@pytest.fixture(scope="module")
def known() -> dict[str, list[dict]]:
    """The numbers of the undisturbed training of a case, which more than one test asks for."""
    return {}


def numbers_undisturbed(known, checkout, tmp_path, case) -> list[dict]:
    """Those of the same training on this machine without SLURM, in as many processes."""
    if case not in known:
        folder = RunFolder(tmp_path / "undisturbed")
        script, own, _ = CASES[case]
        train_undisturbed(checkout, script, *own, *COMMON, "--output", folder.root)
        known[case] = numbers_of(folder)
    return known[case]


def train_undisturbed(checkout, script, *words) -> None:
    alone = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = subprocess.run(
        ["bash", f"pretrain/{script}", *map(str, words)], cwd=checkout, capture_output=True, text=True,
        env=alone | environment() | {"PROCESSES_PER_NODE": str(NODES)}, timeout=2 * PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def warned_job(cluster, checkout, tmp_path, script, own, to_whom) -> tuple[Job, RunFolder, int]:
    """A job that was warned and went back into the queue, its folder, and the step that it saved before."""
    folder = RunFolder(tmp_path / "warned")
    job = Job(
        cluster, checkout, tmp_path / "job", *RESOURCES, f"pretrain/{script}", *own, *COMMON,
        "--output", folder.root,
    )  # fmt: skip
    job.wait_until(lambda: len(read_metrics(folder.metrics)) >= WARNED_AFTER, "the first steps")
    assert cluster.run("scancel", "--signal=USR1", *to_whom, job.number).returncode == 0
    job.wait_for_state("PENDING")
    (saved,) = folder.step_files()
    assert WARNED_AFTER <= saved < STEPS
    return job, folder, saved


def start_again(cluster, job: Job, *changes: str) -> None:
    """SLURM lets a job that was put back wait for two minutes: not here; then the job's end."""
    assert cluster.run("scontrol", "update", f"JobId={job.number}", *changes, "StartTime=now").returncode == 0
    job.wait_for_state("COMPLETED", "FAILED", "CANCELLED")
    assert (job.field("JobState"), job.field("Restarts"), job.field("ExitCode")) == ("COMPLETED", "1", "0:0"), job.text


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_warned_job_goes_on_after_its_requeue_as_if_nothing_had_been(cluster, checkout, films, tmp_path, known, case):
    script, own, to_whom = CASES[case]
    job, warned, saved = warned_job(cluster, checkout, tmp_path, script, own, to_whom)
    start_again(cluster, job)
    for expected in ("attempt 1", "attempt 2", f"resuming after step {saved} of {STEPS}"):
        assert expected in job.text

    found = numbers_of(warned)
    assert found == numbers_undisturbed(known, checkout, tmp_path, case)
    # a process a node, although each node has two GPUs in name
    assert (len(found), found[-1]["samples"]) == (STEPS, STEPS * BATCH_SIZE * NODES)
    assert (warned.export / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_job_goes_on_with_a_node_less(cluster, checkout, films, tmp_path, known):
    """Sharded over two nodes, resumed whole on one: the step keeps its samples, and so the training its losses."""
    script, own, to_whom = CASES["vjepa2"]
    job, warned, saved = warned_job(cluster, checkout, tmp_path, script, own, to_whom)
    start_again(cluster, job, "NumNodes=1-1", "NumTasks=1", "NumCPUs=4")
    assert "processes 1, before 2: 2 micro-batches keep the 4 samples of a step" in job.text
    assert f"resuming after step {saved} of {STEPS}" in job.text

    found, expected = numbers_of(warned), numbers_undisturbed(known, checkout, tmp_path, "vjepa2")
    assert [each["samples"] for each in found] == [each["samples"] for each in expected]
    assert [each["loss"] for each in found] == pytest.approx([each["loss"] for each in expected], rel=1e-4)


@pytest.mark.slow
def test_a_wrong_option_is_a_failed_job_that_says_so(cluster, checkout, films, tmp_path):
    words = ("pretrain/launch_ssl_multinode.sh", "dinov3", "--model", "dinov3-tinny", *COMMON)
    job = Job(cluster, checkout, tmp_path / "job", *RESOURCES, *words)
    job.wait_for_state("FAILED", "COMPLETED")
    assert (job.field("JobState"), job.field("ExitCode")) == ("FAILED", "1:0")
    assert "did you mean 'dinov3-tiny'?" in job.text
