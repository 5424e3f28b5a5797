"""Every kind of damaged file before every command that reads it: one line that names it, and the other work goes on.

DAMAGED=all pytest tests/faults/test_damaged_inputs.py        all cases, not those alone that are drawn
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.driver import Case, Outcome, chosen_cases
from tests.faults.judgement import faults_of
from tests.faults.world import make_world

STARTS = 16  # processes; each runs its share of the cases, a fork each
LEAST_CASES = 600
COUNT = os.environ.get("DAMAGED", "640")  # cases that are tried, or all (about 1,200)
CODE = b"touch MARKER"  # in files that make one where a reader runs what they say
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    make_world(folder)
    return folder


@pytest.fixture(scope="session")
def cases(world) -> list[Case]:
    return chosen_cases(world, None if COUNT == "all" else int(COUNT))


def test_there_are_as_many_as_promised(cases, capsys):
    kinds = {case.target.form for case in cases}
    with capsys.disabled():
        print(
            f"\n{len(cases)} damaged inputs of {len({case.target.path for case in cases})} files, {len(kinds)} formats"
        )
    assert len(cases) >= LEAST_CASES
    assert sum(CODE in case.damage.content for case in cases) >= 14
    assert {"text", "json", "yaml", "csv", "npy", "torch", "safetensors", "video"} <= kinds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", range(STARTS))
def test_a_damaged_input_is_named_and_nothing_else_suffers(start, world, cases, tmp_path):
    """Cases are dealt in turn, so that each start has some of every format."""
    share = len(cases) / STARTS
    first, last = round(start * share), round((start + 1) * share)
    results = tmp_path / "results.json"
    command = [
        sys.executable,
        "-m",
        "tests.faults.driver",
        world,
        tmp_path / "work",
        COUNT,
        str(first),
        str(last),
        results,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [Outcome(**entry) for entry in json.loads(results.read_text(encoding="utf-8"))]
    assert len(outcomes) == last - first
    faults = {
        outcome.name: (found, outcome.code, outcome.said[-600:])
        for case, outcome in zip(cases[first:last], outcomes, strict=True)
        if (found := faults_of(case, outcome))
    }
    assert faults == {}
