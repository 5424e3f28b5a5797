"""Trainings that end as if they were killed, and the end of those that were resumed and of those that were not."""

from __future__ import annotations

from pathlib import Path

import torch

from pretrain.engine.checkpoints.checkpoint import read_checkpoint
from pretrain.engine.reporting import read_metrics


class Stopped(Exception):
    """Ends a training as if it were killed."""


class Stopping:
    """Before a recipe's method in a list of bases: ends the training in the middle of a step, without any notice."""

    at_step = 3

    def forward(self, batch, step):
        if step == self.at_step:
            raise Stopped
        return super().forward(batch, step)


def assert_same_model_and_losses(folder: Path, other: Path, *, num_steps: int) -> None:
    """Every tensor of `final.pt` and the loss of every step are equal to the bit."""
    ours, theirs = (read_checkpoint(path / "final.pt")["model"] for path in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    losses = [[record["loss"] for record in read_metrics(path / "metrics.jsonl")] for path in (folder, other)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == num_steps
