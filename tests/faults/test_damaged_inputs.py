"""Every kind of damaged file before every command that reads it: one line that names it, and the other work goes on.

DAMAGED=all pytest tests/faults/test_damaged_inputs.py        all cases, not those alone that are drawn
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.driver import Case, Outcome, chosen_cases
from tests.faults.judgement import faults_of
from tests.faults.mutators import FORMS
from tests.faults.world import CONTAINERS, TARGETS, make_world

STARTS = 12  # processes; each runs its share of the cases, a fork each
LEAST_CASES = 600
COUNT = os.environ.get("DAMAGED", "640")  # damaged inputs that are tried, or all (about 1,200)
LEAST_WITH_CODE = 14
ROOT = Path(__file__).resolve().parents[2]
MEMORY_DISK = Path("/dev/shm")  # each case has a copy of the world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    make_world(folder)
    return folder


@pytest.fixture(scope="session")
def cases(world) -> list[Case]:
    return chosen_cases(world, None if COUNT == "all" else int(COUNT))


def test_there_are_as_many_as_promised(cases, capsys):
    damaged = [case for case in cases if not case.is_sound]
    files = {case.target.path for case in damaged}
    forms = Counter(case.target.form for case in damaged)
    with_code = Counter(case.target.form for case in damaged if case.damage.carries_code)
    with capsys.disabled():
        print(f"\n{len(damaged)} damaged inputs of {len(files)} files, {with_code.total()} with code: {dict(forms)}")
    assert len(damaged) >= LEAST_CASES
    assert with_code.total() >= LEAST_WITH_CODE
    assert set(with_code) == set(forms) == set(FORMS)
    assert files >= {f"data/clips_{suffix}/videos/middle.{suffix}" for suffix in CONTAINERS}
    sound = [case.command for case in cases if case.is_sound]
    assert set(sound) == {command for target in TARGETS for command in target.commands}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", range(STARTS))
def test_a_damaged_input_is_named_and_nothing_else_suffers(start, world, cases, tmp_path):
    """Cases of a file follow each other, so that a start imports few commands."""
    share = len(cases) / STARTS
    first, last = round(start * share), round((start + 1) * share)
    results = tmp_path / "results.json"
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else tmp_path) as work:
        words = ["tests.faults.driver", world, work, COUNT, first, last, results]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [Outcome(**entry) for entry in json.loads(results.read_text(encoding="utf-8"))]
    assert [outcome.name for outcome in outcomes] == [case.name for case in cases[first:last]]
    faults = [
        f"{outcome.name}\n    {'; '.join(found)} (exit {outcome.code}): {outcome.said[-600:]!r}"
        for case, outcome in zip(cases[first:last], outcomes, strict=True)
        if (found := faults_of(case, outcome))
    ]
    assert not faults, f"{len(faults)} of {len(outcomes)} cases:\n" + "\n".join(faults)
