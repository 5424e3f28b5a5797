"""Train and predict again exactly as a run's record says, elsewhere, and tell whether the numbers are the same.

python -m common.run_k_folds --reproduce models/Base/results/SICS155/split_1/run.json [--device cpu] [--keep DIR]
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.base import paths
from common.base.options import from_mapping
from common.base.runtime import UserError, read_json
from common.base.wording import format_table
from common.features.files import identity_differences
from common.head.config import TrainConfig
from common.head.experiment import Experiment, load_experiment
from common.head.prediction import predict
from common.head.training import train

MOST_NAMED = 6  # files in a sentence


@dataclass(frozen=True)
class Reproduction:
    """A run and its repetition: both records, how many prediction files there are, and which of them differ."""

    record: dict[str, Any]
    again: dict[str, Any]
    num_files: int
    unequal_files: list[str]

    @property
    def measures(self) -> dict[str, tuple[float | None, float | None]]:
        """`protocol measure` -> the recorded value and the new one, for those that both records have."""
        was, now = _measures(self.record), _measures(self.again)
        return {name: (was[name], now[name]) for name in was if name in now}

    @property
    def unequal_measures(self) -> list[str]:
        return [name for name, (was, now) in self.measures.items() if was != now]

    @property
    def is_equal(self) -> bool:
        return not self.unequal_files and not self.unequal_measures

    @property
    def changed_surroundings(self) -> list[str]:
        """`what: then -> now` for commit, versions and device; the number of threads is always the recorded one."""
        was, now = _surroundings(self.record), _surroundings(self.again)
        absent = "not recorded"
        return [
            f"{name}: {was.get(name, absent)} -> {now.get(name, absent)}"
            for name in was | now
            if was.get(name) != now.get(name)
        ]

    def verdict(self) -> str:
        """One sentence."""
        if self.is_equal:
            return f"Reproduced: all {self.num_files} prediction files are equal to the byte, and so is every measure."
        if not self.unequal_files:
            return (
                f"Not reproduced: all {self.num_files} prediction files are equal to the byte, but the record has "
                f"other values of {', '.join(self.unequal_measures)}."
            )
        named = ", ".join(self.unequal_files[:MOST_NAMED]) + (", ..." if len(self.unequal_files) > MOST_NAMED else "")
        return (
            f"Not reproduced: {len(self.unequal_files)} of {self.num_files} prediction files differ ({named}); of "
            f"{len(self.measures)} measures {len(self.unequal_measures)} differ."
        )


def reproduce(path: Path, *, device: str = "auto", keep: Path | None = None) -> int:
    """Repeat the run of a `run.json` and print how it compares; returns 0 when all numbers are equal, else 1.

    Nothing of the run is written to: checkpoint and predictions go to a temporary folder, or to `keep` and stay there.

    Raises `UserError` when the record is not one of a training, or folds, features or labels have changed since.
    """
    if keep and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UserError(f"--keep {keep}: expected a new or empty folder, so that nothing is overwritten")
    record = _read_record(path)
    experiment = load_experiment(from_mapping(TrainConfig, record["config"], path))
    _check_inputs(path, record, experiment)
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        elsewhere = replace(experiment, model=paths.Model(Path(folder) / experiment.model.name))
        with _num_threads(record["num_threads"]):
            train(elsewhere, device=device)
            again = predict(elsewhere, device=device)
        names = [f"{video}{suffix}" for video in again["videos"] for suffix in (".txt", ".npy")]
        unequal = [name for name in names if not _equal_files(path.parent / name, elsewhere.results / name)]
    result = Reproduction(record, again, len(names), unequal)
    _print(result)
    return 0 if result.is_equal else 1


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the {paths.RUN_RECORD} of a finished run")
    record = read_json(path)
    if not isinstance(record, dict) or "train_inputs_hash" not in record:
        raise UserError(f"{path}: not the record of a run; expected the {paths.RUN_RECORD} beside a run's predictions")
    if record["train_inputs_hash"] is None:
        raise UserError(
            f"{path}: predicted with a file given by --checkpoint, so it is not recorded what that was trained on; "
            "only a run that was trained and predicted here can be reproduced"
        )
    return record


def _check_inputs(path: Path, record: dict[str, Any], experiment: Experiment) -> None:
    """Raise `UserError` that names what a run was made from and is not the same any more."""
    changed = []
    if record["phases"] != list(experiment.mapping.names):
        changed = [f"the phases in {experiment.dataset.mapping}"]
    elif record["folds_hash"] != experiment.folds_hash:
        changed = [f"the folds in {experiment.dataset.splits}"]
    else:
        for part, labels in (("train", experiment.train_labels), ("test", experiment.test_labels)):
            videos = experiment.open(labels)
            if record[f"{part}_inputs_hash"] != experiment.inputs_hash(videos, labels):
                made = identity_differences(record["features"]["identity"], videos[0].source.identity())
                changed.append(f"features or labels of the {part} videos" + (f" ({'; '.join(made)})" if made else ""))
    if changed:
        raise UserError(
            f"{path}: cannot be reproduced, since these have changed: {', '.join(changed)}. Put them back as they "
            "were, or run python -m common.run_k_folds with --force for new results"
        )


@contextlib.contextmanager
def _num_threads(number: int) -> Iterator[None]:
    """Compute with a number of threads: sums over another number of parts differ in the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _equal_files(first: Path, second: Path) -> bool:
    return first.is_file() and first.read_bytes() == second.read_bytes()


def _measures(record: dict[str, Any]) -> dict[str, float | None]:
    return {
        f"{protocol} {measure}": value
        for protocol, summary in record["metrics"].items()
        for measure, value in summary.items()
    }


def _surroundings(record: dict[str, Any]) -> dict[str, str]:
    """What is not the run's own and may still change a number; records of an earlier form have no device."""
    git = record["git"]
    found = {
        "commit": f"{git['commit'] or 'unknown'}{' with uncommitted changes' if git['dirty'] else ''}",
        **record["versions"],
    }
    return found | ({"device": record["device"]} if "device" in record else {})


def _print(result: Reproduction) -> None:
    rows = [[name, _shown(was), _shown(now), _difference(was, now)] for name, (was, now) in result.measures.items()]
    print(format_table([["measure", "recorded", "again", "difference"], *rows]))
    print("Other surroundings than recorded: " + ("; ".join(result.changed_surroundings) or "none"))
    print(result.verdict())


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6f}"


def _difference(was: float | None, now: float | None) -> str:
    if was is None or now is None:
        return "n/a"
    return "0" if was == now else f"{now - was:+.2g}"
