"""The record of a finished run (`run.json`), read and checked: whoever uses one may rely on what is listed here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.entries import on_disk, reason_against
from common.base.files import misfit, read_json
from common.base.options import from_mapping
from common.base.runtime import UserError, shown
from common.features.files import IDENTITY_SHAPE
from common.head.config import TrainConfig, config_differences

if TYPE_CHECKING:
    from common.head.experiment import Experiment

# what every version has recorded; what a later one has added may be absent
SHAPE = {
    "synthetic": bool, "split": str, "seed": int, "phases": [str], "config": dict, "videos": [str], "fps": {str: float | None},
    "features": {"identity?": IDENTITY_SHAPE, "random_weights": bool, "num_parameters?": int, "precision?": str, "recipe?": str},
    "folds_hash?": str, "train_seconds?": float, "history?": [{"loss": float, "accuracy": float, "learning_rate?": float}],
    "versions": {str: str}, "git": {"commit?": str, "dirty?": bool}, "train_inputs_hash?": str, "test_inputs_hash?": str,
    "labels_hash?": str, "num_threads?": int, "num_train_videos?": int, "num_parameters?": int, "device?": str,
    "predict_seconds?": float, "peak_memory_bytes?": int, "metrics?": {str: {str: float | None}},
    "damaged_videos?": {str: str}, "look_ahead_seconds?": float, "repeated_rows?": {str: int},
    "unreached_labels?": {str: int}, "decode?": str, "floor?": str, "train_majority_share?": float,
    "acquired?": {"rule": str, "draw": int, "round": int, "videos": [str]},
    "choice?": {"chosen": dict, "held_out": [str], "candidates": list},
    "temperature?": {"value": float, "held_out": [str], "bins": list},
}  # fmt: skip
UNKNOWN = {"folds_hash": None, "train_seconds": None, "history": None, "unreached_labels": {}}
UNKNOWN_PARTS = {"features": {"identity": None, "num_parameters": None}, "git": {"commit": None, "dirty": None}}
MOST_THREADS = 4096
INPUTS = ("train_inputs_hash", "test_inputs_hash")  # of the features and labels that a run was made of


def read_run_record(path: Path) -> dict[str, Any]:
    """A run's record; settings that its version did not have yet are at their defaults, as they were then.

    Raises `UserError` naming the file and what is damaged or missing in it: names that no file may have, too.
    """
    return checked_record(read_json(path, "predict this split again"), path)


def checked_record(record: Any, where: object) -> dict[str, Any]:
    """As `read_run_record`, of what was read from `where` already."""
    if wrong := misfit(record, SHAPE) or _impossible(record):
        raise UserError(f"{where}: not the record of a finished run ({wrong}); predict this split again")
    config = asdict(TrainConfig()) | record["config"]
    from_mapping(TrainConfig, config, where)  # its names become folders
    parts = {name: unknown | record[name] for name, unknown in UNKNOWN_PARTS.items()}
    return UNKNOWN | record | parts | {"config": config}


def _impossible(record: dict[str, Any]) -> str:
    """The first value that no run has, in words; empty where all are possible."""
    if not record["videos"]:
        return "videos: expected some, found none"
    for name in record["videos"]:
        if reason := reason_against(name):
            return f"videos: {shown(name)}, {reason.partition(';')[0]}"
    for name, rate in record["fps"].items():
        if rate is not None and rate <= 0:
            return f"fps: expected more than 0, found {rate} for {shown(name)}"
    if not 0 < (record.get("num_threads") or 1) <= MOST_THREADS:
        return f"num_threads: expected 1 to {MOST_THREADS}, found {record['num_threads']}"
    return ""


def is_finished(experiment: Experiment, beside: dict[str, Any] | None = None) -> bool:
    """Whether a split's run is complete, with this configuration and the features and labels as they are now.

    `beside`: the record of a run on the same inputs that has just been made or held to them, so that no file is opened again.

    Raises `UserError` when it was run with another configuration, naming the differences.
    """
    path = experiment.results / paths.RUN_RECORD
    if not path.is_file():
        return False
    record = read_run_record(path)
    differences = config_differences(asdict(experiment.recorded_config), record["config"])
    if (decode := record.get("decode") or "argmax") != experiment.decode:
        differences.append(f"decode: {decode} -> {experiment.decode}")
    if differences:
        raise UserError(
            f"{path}: run with another configuration ({'; '.join(differences)}). "
            "Give --run NAME to keep both, or --force to replace it"
        )
    now = [beside.get(key) for key in INPUTS] if beside else _inputs_now(as_chosen(experiment, record))
    return [record.get(key) for key in INPUTS] == now and all(
        on_disk(experiment.results / f"{name}.txt").is_file() for name in experiment.test_labels
    )


def _inputs_now(experiment: Experiment) -> list[str]:
    """What a record has under `INPUTS`, of the files as they are."""
    parts = [experiment.train_labels, experiment.test_labels]
    return [experiment.inputs_hash(experiment.open(labels), labels) for labels in parts]


def as_chosen(experiment: Experiment, record: dict[str, Any]) -> Experiment:
    """The experiment with what was chosen for a run by its record: settings, and videos to learn from."""
    if record.get("acquired") and experiment.acquired is None:
        experiment = experiment.with_acquired(record["acquired"])
    return experiment.with_choice(record["choice"]) if record.get("choice") else experiment
