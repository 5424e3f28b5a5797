"""The record of a finished run (`run.json`), read and checked: whoever uses one may rely on what is listed here."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.base.files import lacking, read_json
from common.base.runtime import UserError
from common.head.config import TrainConfig

# what every version has recorded, by part of the record; the rest is looked at where it is there
PARTS: dict[str, dict[str, Any]] = {
    "": {
        "synthetic": bool, "split": str, "seed": int, "phases": list, "config": dict, "videos": list, "fps": dict,
        "features": dict, "folds_hash": str | None, "train_seconds": float | int | None, "history": list | None,
        "versions": dict, "git": dict,
    },
    "features": {"identity": dict | None, "random_weights": bool, "num_parameters": int | None},
    "git": {"commit": str | None, "dirty": bool | None},
}  # fmt: skip
UNKNOWN = {"folds_hash": None, "train_seconds": None, "history": None}


def read_run_record(path: Path) -> dict[str, Any]:
    """A run's record; settings that its version did not have yet are at their defaults, as they were then.

    Raises `UserError` naming the file and what is damaged or missing in it.
    """
    record = read_json(path)
    if isinstance(record, dict):
        record = UNKNOWN | record
    for part, keys in PARTS.items():
        if wrong := lacking(record[part] if part else record, keys):
            raise _unsound(path, f"{part}: {wrong}" if part else wrong)
    weights = (record["features"]["identity"] or {}).get("weights", {"source": ""})
    epoch = {"loss": float | int, "accuracy": float | int}
    sound = {
        "videos": bool(record["videos"]) and all(isinstance(name, str) for name in record["videos"]),
        "fps": all(isinstance(rate, float | int) and rate > 0 for rate in record["fps"].values()),
        "history": not any(lacking(row, epoch) for row in record["history"] or []),
        "weights": not lacking(weights, {"source": str}),
    }
    if not all(sound.values()):
        raise _unsound(path, f"without proper {', '.join(key for key, is_sound in sound.items() if not is_sound)}")
    return record | {"config": asdict(TrainConfig()) | record["config"]}


def _unsound(path: Path, wrong: str) -> UserError:
    return UserError(f"{path}: not the record of a finished run ({wrong}); predict this split again")
