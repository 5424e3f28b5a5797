"""A whole training: resumed after any end, interrupted, checked, finished."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from common.base.files import read_json, sha256_of_file
from common.base.runtime import UserError
from pretrain.engine.checkpoints.checkpoint import read_checkpoint
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.loop import train_recipe
from pretrain.engine.reporting import read_metrics
from tests.pretrain.cut_off import Stopped, Stopping
from tests.pretrain.engine.toy import ALONE, OPTIONS, CollapsingMethod, ToyMethod, toy_recipe, train_toy

PATIENCE_SECONDS = 120
TIMES = {"seconds", "samples_per_second", "data_share", "memory_gigabytes"}


def curve(folder) -> list[dict]:
    """All numbers of a training that do not measure time."""
    records = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def tensors(path) -> dict[str, torch.Tensor]:
    content = read_checkpoint(path)
    moments = {
        f"{name}.{key}": value for name, state in content["optimizer"]["state"].items() for key, value in state.items()
    }
    return content["model"] | moments


def assert_same_end(folder, other):
    assert curve(folder) == curve(other)
    ours, theirs = tensors(folder / "final.pt"), tensors(other / "final.pt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class StoppingToy(Stopping, ToyMethod):
    """Ends the training in the middle of a step, without any notice."""

    def __init__(self, at_step: int):
        super().__init__(dropout=0.2)
        self.at_step = at_step


# resume


@pytest.mark.parametrize("at_step", [0, 1, 2, 5])
def test_a_training_that_was_cut_off_ends_bit_identical(tmp_path, at_step):
    with pytest.raises(Stopped):
        train_toy(tmp_path / "cut", StoppingToy(at_step), monitor_every=2)
    assert train_toy(tmp_path / "cut", ToyMethod(dropout=0.2), monitor_every=2) == 0
    assert train_toy(tmp_path / "whole", ToyMethod(dropout=0.2), monitor_every=2) == 0
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_dropout_does_take_part_in_these_curves(tmp_path):
    for name, dropout in (("with", 0.2), ("without", 0.0)):
        train_toy(tmp_path / name, ToyMethod(dropout=dropout))
    assert curve(tmp_path / "with")[-1]["loss"] != curve(tmp_path / "without")[-1]["loss"]


def start(checkout, folder, **environment) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.pretrain.engine.toy", str(folder), "--steps", "400", "--pause", "0.05"]
    environment = {"OMP_NUM_THREADS": "1"} | environment
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.Popen(command, cwd=checkout, env=inherited | environment, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process: subprocess.Popen, folder, count: int) -> None:
    """Until `count` steps are on record."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "metrics.jsonl").is_file() or len(read_metrics(folder / "metrics.jsonl")) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_process_is_continued_bit_identical(checkout, tmp_path):
    folder = tmp_path / "killed"
    process = start(checkout, folder)
    wait_for_steps(process, folder, 3)
    process.kill()
    process.wait()
    finished = len(read_metrics(folder / "metrics.jsonl"))
    steps = finished + 3
    for name in ("killed", "whole"):
        # as many steps as the schedule of the killed process was for decide its rates
        run_first_steps(tmp_path / name, steps)
    assert len(curve(folder)) == steps
    assert curve(folder) == curve(tmp_path / "whole")


def run_first_steps(folder, steps: int) -> None:
    """The first steps of the training of 400 that `start` runs."""
    with pytest.raises(Stopped):
        train_toy(folder, StoppingToy(steps), max_steps=400)


def test_metrics_beyond_the_last_checkpoint_are_written_anew(tmp_path):
    with pytest.raises(Stopped):
        train_toy(tmp_path, StoppingToy(3))
    assert [record["step"] for record in curve(tmp_path)] == [1, 2, 3]  # the newest checkpoint is of step 2
    train_toy(tmp_path)
    assert [record["step"] for record in curve(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_finished_training_is_left_alone(tmp_path, caplog):
    caplog.set_level("INFO")
    train_toy(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train_toy(tmp_path) == 0
    assert "finished after 6 steps; nothing left to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_finished_training_goes_on_when_more_steps_are_asked_for(tmp_path, caplog):
    train_toy(tmp_path)
    train_toy(tmp_path, max_steps=8)
    assert [record["step"] for record in curve(tmp_path)] == list(range(1, 9))
    assert "total_steps 8 instead of 6" in caplog.text
    assert read_checkpoint(tmp_path / "final.pt")["step"] == 8


def test_resume_never_refuses_a_used_folder(tmp_path):
    train_toy(tmp_path, resume="never")
    with pytest.raises(UserError, match=r"holds a training \(final.pt\); give --output another folder"):
        train_toy(tmp_path, resume="never")


def test_another_batch_size_goes_on_at_the_next_sample_and_says_so(tmp_path, caplog):
    with pytest.raises(Stopped):
        train_toy(tmp_path, StoppingToy(4))
    train_toy(tmp_path, batch_size=8)
    assert "resuming with batch_size 8 instead of 4; the numbers will differ" in caplog.text
    assert [record["samples"] for record in curve(tmp_path)] == [4, 8, 12, 16, 24, 32]


def test_another_model_or_recipe_is_refused(tmp_path):
    train_toy(tmp_path)
    with pytest.raises(UserError, match=r"another model \(dinov3-tiny, now vjepa2-tiny\); give --output"):
        train_toy(tmp_path, model="vjepa2-tiny", max_steps=8)
    options = replace(OPTIONS, output=str(tmp_path), max_steps=8)
    with pytest.raises(UserError, match=r"another recipe \(toy, now other\)"):
        train_recipe(replace(toy_recipe(options), name="other"), options, ALONE)


# files


def test_the_last_checkpoints_are_kept(tmp_path):
    train_toy(tmp_path, max_steps=9, keep_last=3, save_every=1)
    assert list(RunFolder(tmp_path).step_files()) == [6, 7, 8]
    assert (tmp_path / "final.pt").is_file()


def test_provenance_says_what_was_trained_on_what(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    train_toy(tmp_path)
    found = read_json(tmp_path / "export" / "provenance.json")
    assert (found["model"], found["family"], found["stage"], found["recipe"]) == ("dinov3-tiny", "dinov3", "ssl", "toy")
    assert found["step"] == 6
    assert found["init"] == {"source": "random", "file": None, "sha256": None}
    assert found["config"]["batch_size"] == 4
    assert found["manifest_sha256"] == sha256_of_file(tmp_path / "manifest.json")
    assert {"commit", "dirty", "versions"} <= found.keys()


# signals


def fake_scontrol(folder, exit_code: int = 0) -> dict[str, str]:
    """An environment in which `scontrol` writes down its arguments."""
    folder.mkdir()
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit {exit_code}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}


@pytest.mark.slow
@pytest.mark.parametrize("in_slurm", [False, True])
def test_a_warned_process_saves_and_exits(checkout, tmp_path, in_slurm):
    folder = tmp_path / "run"
    process = start(checkout, folder, **(fake_scontrol(tmp_path / "bin") if in_slurm else {}))
    wait_for_steps(process, folder, 3)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)  # from the batch shell and from srun
    assert process.wait(PATIENCE_SECONDS) == (0 if in_slurm else 130)
    saved = max(RunFolder(folder).step_files())
    assert saved == len(read_metrics(folder / "metrics.jsonl")) >= 3
    said = process.stderr.read()
    if in_slurm:
        assert (tmp_path / "bin" / "calls").read_text() == "requeue 17\n"
    else:
        assert f"stopped by a signal after step {saved} of 400 and saved; run the same command again to resume" in said


class Signalled(ToyMethod):
    """Gets a signal in the middle of step 2."""

    def __init__(self, number: signal.Signals):
        super().__init__()
        self.number = number

    def forward(self, batch, step):
        if step == 2:
            os.kill(os.getpid(), self.number)
        return super().forward(batch, step)


def test_termination_saves_at_the_end_of_the_step_and_does_not_requeue(tmp_path, monkeypatch):
    for name, value in fake_scontrol(tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    former = signal.getsignal(signal.SIGTERM)
    assert train_toy(tmp_path / "run", Signalled(signal.SIGTERM), save_every=100) == 143
    assert list(RunFolder(tmp_path / "run").step_files()) == [3]
    assert not (tmp_path / "bin" / "calls").exists()
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_refused_requeue_says_that_everything_is_saved(tmp_path, monkeypatch):
    for name, value in fake_scontrol(tmp_path / "bin", exit_code=1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"everything is saved, but `scontrol requeue 17` said .*submit the job again"):
        train_toy(tmp_path / "run", Signalled(signal.SIGUSR1))
    assert max(RunFolder(tmp_path / "run").step_files()) == 3


@pytest.mark.parametrize("error", [RuntimeError, UserError])
def test_a_reader_that_dies_of_the_same_signal_is_no_error(tmp_path, error):
    options = replace(OPTIONS, output=str(tmp_path))
    recipe = toy_recipe(options)

    def dying(first):
        for index, batch in enumerate(recipe.batches(first)):
            if index == 3:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()  # it comes later to the trainer
                raise error("a process that reads videos died: Terminated")
            yield batch

    assert train_recipe(replace(recipe, batches=dying), options, ALONE) == 143
    assert max(RunFolder(tmp_path).step_files()) == 3


def test_a_reader_that_dies_by_itself_is_an_error(tmp_path):
    options = replace(OPTIONS, output=str(tmp_path))

    def dying(first):
        raise RuntimeError("DataLoader worker is killed by signal: Killed")
        yield

    with pytest.raises(RuntimeError, match="worker is killed"):
        train_recipe(replace(toy_recipe(options), batches=dying), options, ALONE)


# health


def test_health_is_recorded_from_the_start_on(tmp_path):
    train_toy(tmp_path, monitor_every=3)
    records = {record["step"]: record for record in curve(tmp_path)}
    assert [step for step, record in records.items() if "health/drift" in record] == [0, 3, 6]
    assert records[0]["health/drift"] == pytest.approx(0, abs=1e-6)
    assert records[6]["health/drift"] > records[3]["health/drift"] > 1e-6
    assert records[3]["health/teacher_entropy"] == records[3]["monitor/teacher_entropy"]


def test_a_collapse_ends_the_training_and_keeps_what_was_before(tmp_path):
    with pytest.raises(
        UserError, match=r"the features have collapsed.*is from before.*Lower the learning rate"
    ) as found:
        train_toy(tmp_path, CollapsingMethod(), max_steps=2000, monitor_every=10, save_every=10, keep_last=1)
    kept, newest = RunFolder(tmp_path).step_files()
    records = read_metrics(tmp_path / "metrics.jsonl")
    checks = {record["step"]: record["health/cosine_distance"] for record in records if "health/drift" in record}
    assert checks[kept] >= 0.2 * checks[0]
    assert all(value < 0.2 * checks[0] for step, value in checks.items() if step > kept)
    assert len([step for step in checks if step > kept]) == 3
    assert f"step_{kept:06d}.pt" in str(found.value)
    assert newest > kept


def test_a_collapse_may_be_ignored(tmp_path):
    options = {"max_steps": 300, "monitor_every": 10, "save_every": 100}
    assert train_toy(tmp_path, CollapsingMethod(), stop_on_collapse=False, **options) == 0


def test_the_best_state_for_the_phase_probe_is_kept(tmp_path):
    scores = {0: 0.3, 2: 0.5, 4: 0.9, 6: 0.7}
    options = replace(OPTIONS, output=str(tmp_path), monitor_every=2)
    method, seen = ToyMethod(), iter(scores.values())

    def probe(features):
        assert features({"clean": torch.zeros(3, 8)}).shape == (3, 8)
        return {"accuracy": next(seen), "balanced_accuracy": 0.0}

    train_recipe(replace(toy_recipe(options, method=method), phase_probe=probe), options, ALONE)
    best = read_checkpoint(tmp_path / "best.pt")
    assert best["step"] == 4
    assert best["monitor"]["best_score"] == 0.9
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert {record["step"]: record["probe/accuracy"] for record in records if "probe/accuracy" in record} == scores


def test_start_weights_that_stay_the_best_are_not_copied(tmp_path):
    options = replace(OPTIONS, output=str(tmp_path), monitor_every=2)
    seen = iter([0.9, 0.8, 0.7, 0.6])
    train_recipe(replace(toy_recipe(options), phase_probe=lambda features: {"accuracy": next(seen)}), options, ALONE)
    assert not (tmp_path / "best.pt").exists()


def test_a_loss_without_value_is_null_on_record(tmp_path):
    class Once(ToyMethod):
        def forward(self, batch, step):
            found = super().forward(batch, step)
            return found | {"loss": found["loss"] * (float("nan") if step == 1 else 1)}

    train_toy(tmp_path, Once())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [0, 1, 1, 1, 1, 1]
    assert json.loads(lines[1])["loss"] is None
