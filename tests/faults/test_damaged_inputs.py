"""Every kind of damaged file before every command that reads it: one line that names it, and the other work goes on.

DAMAGED=all pytest tests/faults/test_damaged_inputs.py        all cases, not those alone that are drawn
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.driver import Case, Outcome, chosen_cases
from tests.faults.judgement import faults_of
from tests.faults.mutators import FORMS
from tests.faults.world import CONTAINERS, TARGETS, make_world

SHARES = 24  # tests, each of the same number of cases
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


@pytest.mark.timeout(900)
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


@pytest.fixture(scope="session")
def driver(world, cases, tmp_path_factory) -> Iterator[subprocess.Popen]:
    """The process that tries cases: its imports cost more than many of them."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cases").write_bytes(pickle.dumps(cases))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory(dir=MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else folder) as work,
        (folder / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", world, work, folder / "cases"],
            cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=stderr, text=True,
        ) as process,
    ):  # fmt: skip
        yield process
        process.stdin.close()
        process.wait()
        stderr.seek(0)
        assert process.returncode == 0, stderr.read()[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_damaged_input_is_named_and_nothing_else_suffers(share, driver, cases, tmp_path):
    first, last = (round(number * len(cases) / SHARES) for number in (share, share + 1))
    results = tmp_path / "results.json"
    print(first, last, results, file=driver.stdin, flush=True)
    assert driver.stdout.readline() == "done\n"
    outcomes = [Outcome(**entry) for entry in json.loads(results.read_text(encoding="utf-8"))]
    assert [outcome.name for outcome in outcomes] == [case.name for case in cases[first:last]]
    faults = [
        f"{outcome.name}\n    {'; '.join(found)} (exit {outcome.code}): {outcome.said[-600:]!r}"
        for case, outcome in zip(cases[first:last], outcomes, strict=True)
        if (found := faults_of(case, outcome))
    ]
    assert not faults, f"{len(faults)} of {len(outcomes)} cases:\n" + "\n".join(faults)
