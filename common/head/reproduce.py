"""Train and predict again exactly as a run's record says, elsewhere, and tell whether the numbers are the same.

python -m common.run_k_folds --reproduce models/Base/results/SICS155/split_1/run.json [--device cpu] [--keep DIR]
"""

import contextlib
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.base import paths
from common.base.entries import on_disk, visible
from common.base.files import map_array
from common.base.options import from_mapping
from common.base.runtime import UserError, listed, naming
from common.base.wording import format_table
from common.features.files import identity_differences
from common.head.config import TrainConfig
from common.head.controls.floors import write_floor
from common.head.experiment import Experiment, load_experiment
from common.head.prediction import predict
from common.head.run_record import as_chosen, read_run_record
from common.head.training import train

MOST_NAMED = 6  # files in a sentence
MOST_ROUNDING = 1e-4  # in a probability, after a whole training
COMPARED = ("train_inputs_hash", "test_inputs_hash", "num_threads", "metrics")


def reproduce(path: Path, *, device: str = "auto", keep: Path | None = None) -> int:
    """Repeat the run of a `run.json` and print how it compares; returns 0 when all numbers are equal, else 1.

    Another processor, or another version of PyTorch, adds in another order: there 0 also means that every phase and every measure
    are equal, and probabilities within `MOST_ROUNDING`.

    Nothing of the run is written to: checkpoint and predictions go to a temporary folder, or to `keep` and stay there.

    Raises `UserError` when the record is not one of a training, or folds, features or labels have changed since.
    """
    if keep and keep.exists() and (not keep.is_dir() or visible(keep)):
        raise UserError(f"--keep {keep}: expected a new or empty folder, so that nothing is overwritten")
    record = _read_record(path)
    config = from_mapping(TrainConfig, record["config"], path)
    try:
        experiment = as_chosen(load_experiment(config), record)
    except UserError as error:  # the record may be of another machine, with other data sets and models
        raise UserError(naming(path, error)) from error
    _check_inputs(path, record, experiment)
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        decode = record.get("decode") or "argmax"
        elsewhere = replace(experiment, decode=decode, model=paths.Model(Path(folder) / experiment.model.name))
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(record["num_threads"])  # sums over another number of parts differ in the last digits
            if record.get("floor"):
                again = write_floor(elsewhere, record["floor"])
            else:
                train(elsewhere, device=device)
                again = predict(elsewhere, device=device)
        finally:
            torch.set_num_threads(threads)
        pairs = [
            (on_disk(path.parent / f"{video}{suffix}"), elsewhere.results / f"{video}{suffix}")
            for video in again["videos"]
            for suffix in (".txt", ".npy")
        ]
        unequal = [
            (was.name, _largest_difference(was, now))
            for was, now in pairs
            if not was.is_file() or was.read_bytes() != now.read_bytes()
        ]
    return _report(record, again, len(pairs), dict(unequal))


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the {paths.RUN_RECORD} of a finished run")
    record = read_run_record(path)
    if absent := [key for key in COMPARED if key not in record]:
        raise UserError(f"{path}: {listed(absent)} not recorded, so that it is unknown what to compare; predict again")
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
        noun, name = ("splits" if experiment.config.splits else "folds"), experiment.config.splits
        changed = [f"the {noun} in {experiment.dataset.split_list(name)}"]
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


def _largest_difference(was: Path, now: Path) -> float:
    """Between two files of probabilities; infinite where they are none, or of two shapes."""
    if was.suffix != ".npy" or not was.is_file():
        return math.inf
    try:
        one, other = (map_array(path, "predict again") for path in (was, now))
    except UserError:
        return math.inf
    return float(np.abs(one - other).max(initial=0)) if one.shape == other.shape else math.inf


def _report(record: dict[str, Any], again: dict[str, Any], num_files: int, unequal_files: dict[str, float]) -> int:
    """Print how the repetition of a run compares with its record; returns its exit code.

    `unequal_files`: of those that differ, by how much their probabilities do at most.
    """
    was, now = _measures(record), _measures(again)
    both = [name for name in was if name in now]  # a later version may score more than the recorded one
    rows = [[name, _shown(was[name]), _shown(now[name]), _difference(was[name], now[name])] for name in both]
    print(format_table([["measure", "recorded", "again", "difference"], *rows]))
    then, here = _surroundings(record), _surroundings(again)
    absent = "not recorded"
    changed = [
        f"{name}: {then.get(name, absent)} -> {here.get(name, absent)}"
        for name in then | here
        if then.get(name) != here.get(name)
    ]
    print("Other surroundings than recorded: " + ("; ".join(changed) or "none"))
    unequal_measures = [name for name in both if was[name] != now[name]]
    calculates_otherwise = any(then.get(name) != here.get(name) for name in then | here if name != "commit")
    largest = max(unequal_files.values(), default=0.0)
    if unequal_files and not unequal_measures and calculates_otherwise and largest <= MOST_ROUNDING:
        print(
            f"Reproduced but for the last digits, as other surroundings give: of {num_files} prediction files {len(unequal_files)} "
            f"differ, by at most {largest:.1g} in a probability; every phase and every measure is equal."
        )
        return 0
    if unequal_files:
        named = ", ".join(list(unequal_files)[:MOST_NAMED]) + (", ..." if len(unequal_files) > MOST_NAMED else "")
        print(
            f"Not reproduced: {len(unequal_files)} of {num_files} prediction files differ ({named}); of "
            f"{len(both)} measures {len(unequal_measures)} differ."
        )
    elif unequal_measures:
        print(
            f"Not reproduced: all {num_files} prediction files are equal to the byte, but the record has "
            f"other values of {', '.join(unequal_measures)}."
        )
    else:
        print(f"Reproduced: all {num_files} prediction files are equal to the byte, and so is every measure.")
    return 1 if unequal_files or unequal_measures else 0


def _measures(record: dict[str, Any]) -> dict[str, float | None]:
    """`protocol measure` -> value."""
    return {
        f"{protocol} {measure}": value
        for protocol, summary in record["metrics"].items()
        for measure, value in summary.items()
    }


def _surroundings(record: dict[str, Any]) -> dict[str, str]:
    """Surroundings that may still change a number; the number of threads is always the recorded one."""
    git = record["git"]
    commit = f"{git['commit'] or 'unknown'}{' with uncommitted changes' if git['dirty'] else ''}"
    device = {"device": record["device"]} if "device" in record else {}  # records of an earlier form have none
    return {"commit": commit} | record["versions"] | device


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6f}"


def _difference(was: float | None, now: float | None) -> str:
    if was is None or now is None:
        return "n/a"
    return "0" if was == now else f"{now - was:+.2g}"
