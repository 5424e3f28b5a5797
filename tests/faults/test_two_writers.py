"""Two processes at the same work, one beginning at any moment of the other's: shared or refused, and never wrong."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time

import pytest

from common.base.locks import hold
from tests.faults.conftest import CHECKOUT, COMMANDS, PATIENCE_SECONDS, make_root

OFFSETS = 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_extractions_share_the_videos_and_make_none_twice(tmp_path):
    """The moments are of their work alone: both are forks of a process that has imported what they need."""
    roots = [make_root(tmp_path / f"root_{number}") for number in range(1 + OFFSETS)]
    results = tmp_path / "results.json"
    subprocess.run(
        [sys.executable, "-m", "tests.faults.races", results, *(root.path for root in roots)], cwd=CHECKOUT, check=True
    )
    (alone,), *races = json.loads(results.read_text(encoding="utf-8"))
    assert "8 extracted" in alone["said"]
    expected = roots[0].content("data/mini/features/*/*.npy")
    num_shared = 0
    for root, race in zip(roots[1:], races, strict=True):
        assert [one["code"] for one in race] == [0, 0], race
        made = [int(re.search(r"(\d+) extracted", one["said"])[1]) for one in race]
        assert sum(made) == len(expected)
        num_shared += all(made)
        assert root.content("data/mini/features/*/*.npy") == expected
        for path in root.features.glob("*.npy"):
            sidecar = json.loads(path.with_suffix(".json").read_text())
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sidecar["sha256"]
        assert root.leftovers() == []
        root.assert_quiet()
    assert num_shared >= OFFSETS // 2


def start_until_held(root, words, lock):
    """The first process, which has the lock, and what the second one said."""
    first = root.start(words)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(root.path.rglob(lock)) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lock", "more"),
    [
        ("train_interrupted", ".last.pt.lock", ["--num_epochs", "3000"]),
        ("pretrain", ".vjepa2-tiny.lock", ["--max_steps", "3000"]),
        ("finetune", ".vjepa2-tiny.lock", ["--epochs", "300", "--steps_per_epoch", "50"]),
    ],
)
def test_a_second_training_is_refused_and_told_who_is_at_it(root, name, lock, more):
    words = [*COMMANDS[name], *more]
    first = start_until_held(root.with_input_of(name), words, lock)
    try:
        said = root.run(words, code=1)
        assert f"in use by process {first.pid} on " in said.splitlines()[-1]
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow
def test_a_second_run_of_the_folds_leaves_the_first_ones_to_it(root):
    words = [*COMMANDS["run_k_folds"], "--num_epochs", "2000", "--only", "1"]
    first = start_until_held(root.with_features(), words, ".split_1.lock")
    try:
        said = root.run(words)
        assert re.search(rf"fold 1 of 2: skipped: .*in use by process {first.pid} ", said)
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow
def test_a_second_workbook_is_refused(root):
    words = ["-m", "common.export_to_excel", "--dataset", "mini", "--model", "ColorHistogram"]
    root.with_results()
    with hold(root.path / "models" / "ColorHistogram" / "results.xlsx"):
        assert f"in use by process {os.getpid()} on " in root.run(words, code=1)
    root.run(words)


@pytest.mark.slow
def test_a_second_report_is_refused(root):
    first = start_until_held(root.with_input_of("report"), COMMANDS["report"], ".report.lock")
    first.send_signal(subprocess.signal.SIGSTOP)
    try:
        assert f"in use by process {first.pid} on " in root.run(COMMANDS["report"], code=1)
    finally:
        first.send_signal(subprocess.signal.SIGCONT)
        first.communicate()
