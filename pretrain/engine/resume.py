"""Whether a checkpoint may be continued, and what is said where it will not continue exactly."""

from __future__ import annotations

import logging
from pathlib import Path

from common.runtime import UserError
from pretrain.engine.checkpoint import TrainingState

log = logging.getLogger(__name__)

WITHOUT_EFFECT = {"output", "resume", "wandb", "save_every", "keep_last", "num_workers", "monitor_every"}


def require_same_training(path: Path, old: TrainingState, new: TrainingState) -> None:
    """Raise `UserError` when `old`, read from `path`, is of another model or recipe; log what else has changed.

    A change of the number of processes or of the batch is allowed: the run goes on at the next sample number.
    """
    for name, former, present in (
        ("model", old.config["model"], new.config["model"]),
        ("recipe", old.recipe, new.recipe),
    ):
        if former != present:
            raise UserError(f"{path}: of the {name} {former}, not {present}; give --output another folder")
    changed = [
        f"{name} {present} instead of {former}"
        for name, former, present in _values(old, new)
        if former != present and name not in WITHOUT_EFFECT
    ]
    if changed:
        log.warning("%s: going on with %s; the numbers will differ from an unbroken run's", path, ", ".join(changed))


def _values(old: TrainingState, new: TrainingState) -> list[tuple[str, object, object]]:
    names = sorted(old.config.keys() | new.config.keys())
    values = [(name, old.config.get(name), new.config.get(name)) for name in names]
    for name in ("total_steps", "world_size", "num_threads"):
        values.append((name, getattr(old, name), getattr(new, name)))
    return values
