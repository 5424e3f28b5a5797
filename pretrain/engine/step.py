"""One optimiser step: schedules, accumulated gradients, clipping, AdamW, moving average, in this order."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from common.runtime import UserError, generator
from pretrain.engine.distributed import Processes
from pretrain.engine.ema import MovingAverage
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.engine.optimizer import GroupedAdamW
from pretrain.engine.sharding import PreparedMethod
from pretrain.ssl_config import TrainingOptions

log = logging.getLogger(__name__)

MOST_SKIPPED = 2  # steps running; one more without a finite loss ends the training


class TrainingStep:
    """A method with its optimiser and moving average; called once a step with this process's micro-batches."""

    def __init__(self, method: Method, schedules: Schedules, options: TrainingOptions, processes: Processes):
        """`options` are completed; `method` is on the CPU and is moved and sharded."""
        self.prepared = PreparedMethod(method, options, processes)
        self.optimizer = GroupedAdamW(method, schedules)
        self.average = MovingAverage(method)
        self.schedules, self.seed, self.processes = schedules, options.seed, processes
        if method.teacher and schedules.momentum is None:
            raise ValueError(f"{type(method).__name__} has a teacher, but no momentum schedule")
        self.skipped_running = 0
        self._checked = False

    def __call__(self, step: int, micro_batches: list[Batch]) -> dict[str, float]:
        """Train step number `step` (from 0); returns the method's numbers, means over all samples, rates and norms.

        Dropout and the like are seeded by the step and the rank: no generator needs to be saved. A step whose loss or
        gradient is not finite changes nothing; `is_skipped` then says so.

        Raises `UserError` at the third such step running.
        """
        torch.manual_seed(generator(self.seed, "step", step, self.processes.rank).initial_seed())
        rates = self.optimizer.set_schedules(step)
        numbers = self._accumulate(step, micro_batches)
        norms = self.optimizer.clip()
        if all(math.isfinite(value) for value in (numbers["loss"], *norms.values())):
            self.optimizer.step()
            self.skipped_running = 0
            if self.schedules.momentum is not None:
                rates["momentum"] = self.schedules.momentum(step)
                self.average.update(rates["momentum"])
        else:
            self._skip(step, numbers["loss"])
        self.optimizer.zero_grad()
        return numbers | rates | {f"gradient_norm/{name}": norm for name, norm in norms.items()}

    def features(self, batch: Batch) -> Tensor:
        """`(N, D)` float32 features of the network that will be exported; all processes call it."""
        return self.prepared.features(_on_device(batch, self.processes.device))

    @property
    def is_skipped(self) -> bool:
        """Whether the last step changed nothing."""
        return self.skipped_running > 0

    def _accumulate(self, step: int, micro_batches: list[Batch]) -> dict[str, float]:
        """Gradients of the mean loss of all micro-batches and processes; returns the means of the method's numbers."""
        totals = None
        for index, batch in enumerate(micro_batches, 1):
            with self.prepared.micro_batch(is_last=index == len(micro_batches)):
                found = self.prepared(_on_device(batch, self.processes.device), step)
                (found["loss"] / len(micro_batches)).backward()
            values = torch.stack([value.detach().float() for value in found.values()])
            totals = values if totals is None else totals + values
        if not self._checked:
            self.optimizer.require_gradients()
            self._checked = True
        means = self.processes.mean(totals / len(micro_batches)).tolist()
        return dict(zip(found, means, strict=True))

    def _skip(self, step: int, loss: float) -> None:
        self.skipped_running += 1
        if self.skipped_running > MOST_SKIPPED:
            raise UserError(
                f"steps {step - MOST_SKIPPED} to {step}: loss or gradient not finite three times running (last loss "
                f"{loss}); start again from the last checkpoint with a lower learning rate, or with --precision fp32"
            )
        log.warning("step %d: loss %s or its gradient is not finite; the step is skipped", step, loss)


def _on_device(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
