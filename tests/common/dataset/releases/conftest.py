"""Releases made here in the layout of each, read by the real command; videos and images are files of a few bytes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from common.base.paths import Dataset


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left: its exit code, what it printed, and the data set."""

    code: int
    printed: str
    dataset: Dataset

    @property
    def problems(self) -> list[str]:
        """The lines below `problems (N):`."""
        return [line.strip() for line in self.printed.partition("\nproblems (")[2].splitlines()[1:]]

    def labels(self) -> dict[str, list[str]]:
        """Lines of each label file."""
        return {path.stem: path.read_text().split() for path in sorted(self.dataset.ground_truth.iterdir())}

    def images(self, video: str) -> list[str]:
        """Names of the images of a video."""
        return sorted(path.name for path in (self.dataset.videos / video).iterdir())

    def require_problems(self, expected: dict[object, str]) -> None:
        """Hold the problems to those expected, in order: the place each begins with, and words that are in it."""
        assert len(self.problems) == len(expected), self.problems
        for problem, (place, words) in zip(self.problems, expected.items(), strict=True):
            assert problem.startswith(f"{place}: ")
            assert words in problem


@pytest.fixture(scope="module")
def command(checkout: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded_import_dataset", checkout / "data" / "import_dataset.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


@pytest.fixture
def read(command: ModuleType, release: Path, workspace: Path, capsys) -> Callable[..., Outcome]:
    """`read(name, *options, output="made")`: import the release as `name` into a data set of this name."""

    def run(name: str, *options: str, output: str = "made") -> Outcome:
        code = command.main([name, str(release), "--output", output, "--no_probe", *options])
        return Outcome(code, capsys.readouterr().out, Dataset(workspace / "data" / output))

    return run


@pytest.fixture
def run_import(command: ModuleType, workspace: Path, capsys) -> Callable[..., Outcome]:
    """`run_import(name, folder, *options)`: import a release of another task into the data set that it says."""

    def run(name: str, folder: Path, *options: str) -> Outcome:
        code = command.main([name, str(folder), *options])
        printed = capsys.readouterr().out
        (place,) = {line.partition(": ")[0] for line in printed.splitlines() if ", task " in line}
        return Outcome(code, printed, Dataset(Path(place)))

    return run
