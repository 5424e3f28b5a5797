"""Everything that Stage 2 needs to go on where it was stopped, in one file."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.base.runtime import UserError, atomic_path, write_text
from pretrain.engine.checkpoint import read_checkpoint
from pretrain.lora.options import WITHOUT_EFFECT

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass
class FinetuneState:
    """The file `last.pt`: plain values, and tensors by name."""

    options: dict[str, Any]
    base_sha256: str
    classes: list[str]
    steps_per_epoch: int
    step: int = 0
    """Finished optimiser steps."""
    loss_sum: float = 0.0
    """Of the steps since the last validation."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A record for each validation."""
    trainable: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The best balanced accuracy so far; below 0 before the first validation."""
        return max((record["balanced_accuracy"] for record in self.history), default=-1.0)

    @property
    def validations_since_best(self) -> int:
        """Validations since the first that reached the best."""
        accuracies = [record["balanced_accuracy"] for record in self.history]
        return len(accuracies) - 1 - accuracies.index(self.best) if accuracies else 0

    def save(self, path: Path) -> None:
        """Write the file; it gets its name when it is complete."""
        with atomic_path(path) as temporary:
            content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
            torch.save({"format": FORMAT} | content, temporary)

    def write_metrics(self, path: Path) -> None:
        """The history as a table, one row a validation."""
        table = io.StringIO()
        writer = csv.DictWriter(table, self.history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(path, table.getvalue())


def read_state(path: Path, fresh: FinetuneState) -> FinetuneState:
    """The state of a file that may be continued with what `fresh` says.

    Raises `UserError` for a damaged file and for one of another model, base, set of classes, epoch or adapter; logs other changes.
    """
    content = read_checkpoint(path)
    lacking = [entry.name for entry in fields(FinetuneState) if entry.name not in content]
    if lacking:
        raise UserError(f"{path}: not a checkpoint of LoRA fine-tuning; give --output another folder")
    old = FinetuneState(**{entry.name: content[entry.name] for entry in fields(FinetuneState)})
    for what, former, present in (
        ("model", old.options["model"], fresh.options["model"]),
        ("base", old.base_sha256, fresh.base_sha256),
        ("classes", old.classes, fresh.classes),
        ("number of steps an epoch", old.steps_per_epoch, fresh.steps_per_epoch),
        ("adapter", _shape(old), _shape(fresh)),
    ):
        if former != present:
            raise UserError(f"{path}: of the {what} {former}, not {present}; give --output another folder")
    changed = [
        f"{name} {present} instead of {old.options.get(name)}"
        for name, present in fresh.options.items()
        if present != old.options.get(name) and name not in WITHOUT_EFFECT
    ]
    if changed:
        log.warning("%s: going on with %s; the numbers will differ from an unbroken run's", path, ", ".join(changed))
    old.options = fresh.options
    return old


def _shape(state: FinetuneState) -> str:
    return f"rank {state.options['rank']}{', MLPs too' if state.options['mlp'] else ''}"
