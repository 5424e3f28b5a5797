"""How many small mistakes the tests find: each is made by hand in one place of the product, and some test must fail.

python -m tests.benchmarks.mutants [--only PART_OF_A_PATH]

Mutants are tried one at a time in a copy of the tracked files, each with the tests named beside it (`mutations.py`).
Exit code 1 where one survives.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from common.base.runtime import UserError, run_main
from tests.benchmarks.mutations import MUTANTS, Mutant

CHECKOUT = Path(__file__).resolve().parents[2]
OWN_PACKAGES = {"common", "pretrain", "tests"}
LIBRARIES = (
    "numpy",
    "torch",
    "scipy.stats",
    "sklearn.metrics",
    "rapidfuzz.distance",
    "hypothesis.strategies",
    "av",
    "lightly.loss",
)
PATIENCE_SECONDS = 120  # a mutant that never ends is found too
TESTS_PASSED, TESTS_FAILED, COLLECTION_FAILED = 0, 1, 2  # exit codes of pytest
LEFT_OUT = "not two_processes"  # tests that start a group of processes take longer than all others together
WIDTH = 60  # of a mutant in the table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants of files whose path has this in it")
    # a copy that may be changed, in which the script runs once more
    parser.add_argument("--copy", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.file]
    if misplaced := [line for mutant in chosen if (line := misplacement(mutant))]:
        raise UserError("\n".join(misplaced))
    if given.copy is None:
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "tests.benchmarks.mutants", "--only", given.only, "--copy", folder]
            own = {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
            return subprocess.run(words, cwd=copy_files(Path(folder)), env=os.environ | own).returncode
    return try_all(chosen, Copy(given.copy))


def try_all(chosen: Sequence[Mutant], copy: Copy) -> int:
    """Try mutants in the copy that this process runs in, and print what comes of them; 1 where one survives."""
    for library in LIBRARIES:
        importlib.import_module(library)
    everything = sorted({word for mutant in chosen for word in mutant.tests})
    if copy.run(everything, PATIENCE_SECONDS * len(everything)) != TESTS_PASSED:
        raise UserError(f"{' '.join(everything)}: these fail without any mutant; mend them first")
    survivors = [mutant for mutant in chosen if not is_killed(copy, mutant)]
    num_killed = len(chosen) - len(survivors)
    cpu_minutes = sum(os.times()[2:4]) / 60  # of the children, which busy neighbours do not lengthen
    print(
        f"{num_killed} of {len(chosen)} killed ({num_killed / len(chosen):.1%}), {cpu_minutes:.1f} minutes of one core"
    )
    for mutant in survivors:
        print(f"survived: {mutant.file}: {mutant.old!r} -> {mutant.new!r}")
    return int(bool(survivors))


def misplacement(mutant: Mutant) -> str | None:
    """What is wrong with a mutant whose text is not in its file exactly once, or whose tests are not there; else None."""
    source = CHECKOUT / mutant.file
    count = source.read_text(encoding="utf-8").count(mutant.old) if source.is_file() else 0
    if count != 1:
        return f"{mutant.file}: expected {mutant.old!r} once, found {count} times; bring mutations.py up to date"
    absent = [name for name in mutant.tests if not (CHECKOUT / name).is_file()]
    return f"{mutant.file}: no tests {', '.join(absent)}; bring mutations.py up to date" if absent else None


def copy_files(folder: Path) -> Path:
    """Copy all files of this checkout that are not ignored into a folder, and return it."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


class Copy:
    """A copy of the checkout, whose sources change one at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._moments = itertools.count(int(time.time()) + 1)

    @contextlib.contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The mutant is in its file, which is as before afterwards."""
        path = self.folder / mutant.file
        text = path.read_text(encoding="utf-8")
        self._write(path, text.replace(mutant.old, mutant.new))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # compiled code is taken for current by whole seconds and size: every text gets a moment of its own
        moment = next(self._moments)
        os.utime(path, (moment, moment))

    def run(self, tests: Sequence[str], seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code of pytest on these files, which stops at the first failure; a run without end is a failure.

        Runs in a fork of this process, which has the large libraries already: to import them takes longer than the tests.
        """
        process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(tests,))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return TESTS_FAILED
        if process.exitcode not in (TESTS_PASSED, TESTS_FAILED, COLLECTION_FAILED):
            raise UserError(
                f"{' '.join(tests)}: pytest ends with exit code {process.exitcode}; expected tests that run"
            )
        return process.exitcode


def _run_tests(tests: Sequence[str]) -> None:
    """Body of the fork: reads the sources as they are now."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN_PACKAGES]:
        del sys.modules[name]
    # the code of pytest as it is: no clean-up of the parent's runs here
    os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", LEFT_OUT, *tests]))


def is_killed(copy: Copy, mutant: Mutant) -> bool:
    """Whether a test fails with the mutant in the copy; prints a line."""
    started = time.monotonic()
    with copy.mutated(mutant):
        killed = copy.run(mutant.tests) != TESTS_PASSED
    change = " ".join(f"{mutant.old} -> {mutant.new or 'nothing'}".split())
    seconds = time.monotonic() - started
    shown = change if len(change) <= WIDTH else f"{change[: WIDTH - 3]}..."
    print(f"{'killed' if killed else 'SURVIVED':<8} {seconds:>5.1f} s  {mutant.file:<40} {shown}", flush=True)
    return killed


if __name__ == "__main__":
    run_main(main)
