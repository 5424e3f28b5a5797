"""What a pretraining is about to do, said before it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from torch import nn

from common.findings import counted
from common.weights import WeightSource
from pretrain.engine.distributed import Processes
from pretrain.engine.method import Method
from pretrain.ssl_config import SslModel, TrainingOptions
from pretrain.video_data.corpora import Corpus

log = logging.getLogger(__name__)

# float32: the value, its gradient, and AdamW's two averages
TRAINED_BYTES, FROZEN_BYTES = 16, 4


@dataclass(frozen=True)
class TrainingPlan:
    """A training; `options` are completed, `shares` those of the corpora among the samples."""

    options: TrainingOptions
    model: SslModel
    processes: Processes
    _: KW_ONLY
    method: Method
    start: WeightSource
    corpora: Sequence[Corpus]
    shares: Mapping[str, float]
    steps_per_epoch: int

    def show(self) -> None:
        """Log it, one subject a line."""
        log.info("%s of %s", type(self.method).__name__, self.model.name)
        for subject, text in self.lines():
            log.info("  %-11s %s", subject, text)

    def lines(self) -> list[tuple[str, str]]:
        """Subjects and what is said of them."""
        options = self.options
        start = f"{self.start.source} (untrained)" if self.start.is_random else self.start.source
        corpora = [
            ("corpus", f"{corpus.name}: {counted(len(corpus.videos), 'video')}, {corpus.seconds / 3600:.1f} h, "
             f"{self.shares[corpus.name]:.0%} of the samples")
            for corpus in self.corpora
        ]  # fmt: skip
        return [
            ("start", start),
            *corpora,
            ("training", self._steps()),
            ("parameters", f"{millions(trained(self.method))} trained, {millions(frozen(self.method))} averaged or "
             "frozen"),
            ("computing", f"{self.processes.device.type}, processes {self.processes.world_size}, "
             f"{options.precision}, sharding {options.sharding}, recomputed blocks {options.gradient_checkpointing}"),
            ("memory", f"{self.state_bytes() / 1e9:.1f} GB a process for weights, gradients and averages; activations "
             "come on top"),
            ("output", str(options.output_folder)),
        ]  # fmt: skip

    def state_bytes(self) -> float:
        """Bytes of parameters, gradients, optimiser and averages in one process."""
        total = TRAINED_BYTES * trained(self.method) + FROZEN_BYTES * frozen(self.method)
        return total / (self.processes.world_size if self.options.sharding == "fsdp" else 1)

    def _steps(self) -> str:
        options, processes = self.options, self.processes.world_size
        steps = options.total_steps(self.steps_per_epoch)
        epochs = steps / self.steps_per_epoch
        batch = options.batch_size * options.accumulate * processes
        return (
            f"{steps:,} steps ({epochs:.4g} epochs of {self.steps_per_epoch:,}) of {batch} samples "
            f"({options.batch_size} x {options.accumulate} micro-batches x {processes} processes)"
        )


def trained(module: nn.Module) -> int:
    """Number of values that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def frozen(module: nn.Module) -> int:
    """Number of parameters' values that are not."""
    return sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)


def millions(count: int) -> str:
    """`85.7 M`."""
    return f"{count / 1e6:.3g} M"
