"""Fixtures of several files: two processes, which take longer to start than the tests to run, and a labelled data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.base.paths import Dataset
from tests.pretrain.distributed import TwoProcesses, two_processes

COLOURS = {"Incision": (250, 20, 20), "Rhexis": (20, 20, 250)}


@pytest.hookimpl(tryfirst=True)  # before those that were not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks two processes is slow: they take longer to start than most tests to run."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "two" in item.fixturenames:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def two() -> Iterator[TwoProcesses]:
    """See `two_processes`; the same two for all tests of a worker, which leave nothing in them."""
    with two_processes() as run:
        yield run


@pytest.fixture
def cataract101(workspace: Path, solid: Callable, make_clip: Callable) -> Dataset:
    """Five operations as an importer leaves them: ten seconds of one phase in one colour, ten of another in another."""
    dataset = Dataset(workspace / "data" / "Cataract-101")
    for folder in (dataset.videos, dataset.ground_truth):
        folder.mkdir(parents=True)
    dataset.mapping.write_text("0 Incision\n1 Rhexis\n")
    names = [f"case_{number}" for number in range(5)]
    for name in names:
        frames = [frame for colour in COLOURS.values() for frame in solid(colour, 20)]
        make_clip(dataset.videos / f"{name}.mp4", frames, fps=2)
        (dataset.ground_truth / f"{name}.txt").write_text("".join(f"{phase}\n" * 20 for phase in COLOURS))
    entries = {name: {"fps": 2.0, "stratum": ""} for name in names}
    (dataset.root / "manifest.json").write_text(json.dumps({"release": "Cataract-101", "videos": entries}))
    return dataset
