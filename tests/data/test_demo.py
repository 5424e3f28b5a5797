"""The commands of `make demo`, run twice on a small set: what the second time still does, counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import compute_results
import generate_k_folds
from common import run_k_folds
from common.base import content, paths
from common.base.runtime import git_state
from common.extract_features import main as extract_features
from tests.common.conftest import clean_files, cohort
from tests.common.work import Work, counting

__all__ = ["clean_files", "cohort"]  # the fixtures of the tests of common/

MODEL = "ColorHistogram"
HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "1"]
NUM_FOLDS = 3


@pytest.fixture
def dataset(cohort):
    return cohort.dataset


def commands(name: str) -> Iterator[tuple[str, Work]]:
    """Every command of data/demo.sh after the drawing of videos, and what it did."""
    calls = {
        "folds": lambda: generate_k_folds.main([name, str(NUM_FOLDS)]),
        "extraction": lambda: extract_features(["--dataset", name, "--device", "cpu"], model=MODEL),
        "heads": lambda: run_k_folds.main(
            ["--dataset", name, "--model", MODEL, "--folds", str(NUM_FOLDS), "--device", "cpu", "--brief", *HEAD]
        ),
        "one split": lambda: compute_results.main(["--dataset", name, "--model", MODEL, "--split", "1", "--brief"]),
        "comparison": lambda: compute_results.main(["--dataset", name, "--compare-kfold", str(NUM_FOLDS)]),
    }
    for what, call in calls.items():
        git_state.cache_clear()  # each is a process of its own in the demo
        with counting() as work:
            assert not call(), what
        yield what, work


@pytest.mark.slow
def test_the_second_time_nothing_is_made_again(dataset, monkeypatch):
    monkeypatch.setattr(content, "SETTLED_SECONDS", -1)  # files are as if they had been written a while ago
    first = dict(commands(dataset.name))
    built = {what: sum(work.built.values()) for what, work in first.items()}
    assert built == {"folds": 0, "extraction": 2, "heads": 2 * NUM_FOLDS, "one split": 0, "comparison": 0}
    for what, work in first.items():
        assert not work.processes_but_git, what
        assert len(work.processes) <= 1, f"{what}: one question to git, whose answer all records have"
    again = dict(commands(dataset.name))
    built = {what: sum(work.built.values()) for what, work in again.items()}
    assert built == {"folds": 0, "extraction": 1, "heads": 0, "one split": 0, "comparison": 0}
    assert [what for what, work in again.items() if work.processes] == []
    results, features = paths.model(MODEL).results(dataset.name), dataset.features(MODEL)

    def most_reads(folder: Path, pattern: str) -> dict[str, int]:
        return {what: max(work.reads_of(folder, pattern).values()) for what, work in again.items()}

    # of videos the fingerprints are remembered, but not those of files that were written a moment before
    assert most_reads(dataset.videos, "*.mp4")["extraction"] <= 1
    # each fold is held to the features that there are, and its floors to the fold; a report shows what they cost, and a map of them
    opened = most_reads(features, "*.npy")
    assert opened == {"folds": 0, "extraction": 1, "heads": NUM_FOLDS, "one split": 2, "comparison": 2}
    assert most_reads(features, "*.json") == opened
    # every run's predictions, floors among them, make the tables
    once = {"folds": 0, "extraction": 0, "heads": 1, "one split": 1, "comparison": 1}
    assert most_reads(results, "*.txt") == most_reads(results, "*.npy") == once
