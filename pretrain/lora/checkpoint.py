"""Everything that Stage 2 needs to resume where it was stopped, in one file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from common.base.files import save_tensors, write_text
from pretrain.engine.checkpoints.checkpoint import FORMAT, read_checkpoint, require_same_training

# what the file holds, besides the format (`common.base.files.misfit`)
SHAPE = {
    "options": {"model": str, "rank": int, "mlp": bool}, "base_sha256": str, "classes": [str], "steps_per_epoch": int,
    "step": int, "loss_sum": float, "history": [{"balanced_accuracy": float}], "trainable": dict, "optimizer": dict,
}  # fmt: skip


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
    def adapter(self) -> str:
        """The shape of the adapter, in words."""
        chosen = ", ".join(self.options.get("target_modules") or ())  # not in files of earlier versions
        return f"rank {self.options['rank']}{', MLPs too' if self.options['mlp'] else ''}" + (
            f" of {chosen}" if chosen else ""
        )

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
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        save_tensors(path, {"format": FORMAT} | content)

    def write_metrics(self, path: Path) -> None:
        """The history as a table, a row per validation."""
        table = io.StringIO()
        writer = csv.DictWriter(table, self.history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(path, table.getvalue())

    @classmethod
    def read(cls, path: Path, fresh: FinetuneState) -> FinetuneState:
        """The state in a file, to be continued with the options of `fresh`.

        Raises `UserError` for a damaged file, and for one of another model, base, set of classes, epoch or adapter;
        logs other changes.
        """
        content = read_checkpoint(path, SHAPE)
        old = cls(**{entry.name: content[entry.name] for entry in fields(cls)})
        identity = [
            ("model", old.options["model"], fresh.options["model"]),
            ("base", old.base_sha256, fresh.base_sha256),
            ("set of classes", old.classes, fresh.classes),
            ("number of steps per epoch", old.steps_per_epoch, fresh.steps_per_epoch),
            ("adapter", old.adapter, fresh.adapter),
        ]
        require_same_training(path, identity, old.options, fresh.options)
        old.options = fresh.options
        return old
