"""A recipe of a few hundred parameters that uses all of the engine; as a command, to be killed and resumed."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from common.base.options import CommandParser
from common.base.runtime import generator, run_main
from common.encoders.weights.load import WeightSource
from pretrain.engine.distributed import Processes, start_processes
from pretrain.engine.loop import Recipe, train_recipe
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.objectives.parameter_groups import ParameterGroup
from pretrain.objectives.schedules import Constant, Linear, Schedule
from pretrain.ssl_config import TrainingOptions

WIDTH = 8


class Block(nn.Module):
    """A residual layer, with dropout."""

    def __init__(self, dropout: float):
        super().__init__()
        self.linear, self.dropout = nn.Linear(WIDTH, WIDTH), nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.dropout(torch.tanh(self.linear(inputs)))


class ToyMethod(Method):
    """The student sees a noisy copy of what its teacher sees and predicts the teacher's output."""

    block_classes = (Block,)

    def __init__(self, *, dropout: float = 0.0, clip_norm: float | None = 1.0, frozen_until: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            backbone = nn.Sequential(Block(dropout), Block(dropout), nn.LayerNorm(WIDTH))
            self.student = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(WIDTH, WIDTH)})
        self.teacher = copy.deepcopy(self.student)
        self.clip_norm, self.frozen_until = clip_norm, frozen_until
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.teacher["head"](self.teacher["backbone"](batch["clean"])) + 1
        found = self.student["head"](self.student["backbone"](batch["noisy"]))
        self.calls += 1
        return {"loss": (found - target).square().mean(), "monitor/teacher_entropy": target.abs().mean()}

    def parameter_groups(self) -> list[ParameterGroup]:
        backbone, head = (list(self.student[role].parameters()) for role in ("backbone", "head"))
        return [
            ParameterGroup("backbone", backbone, 0.5, True, "backbone", self.frozen_until),
            ParameterGroup("head", head, 1.0, False, "head"),
        ]

    def schedules(self, total_steps: int) -> Schedules:
        return Schedules(self.learning_rate(total_steps), Constant(0.1), Constant(0.9), self.clip_norm)

    def learning_rate(self, total_steps: int) -> Schedule:
        return Linear(0.01, 0.0, total_steps)

    def features(self, batch: Batch) -> Tensor:
        return self.teacher["backbone"](batch["clean"])

    def exported(self) -> nn.Module:
        return self.teacher["backbone"]

    def flops_per_sample(self) -> float:
        return 1e3


class CollapsingMethod(ToyMethod):
    """Pulls all features to one point, with ever lower loss."""

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        features = self.student["backbone"](batch["noisy"])
        return {"loss": (features - 1).square().mean() + 0 * sum(p.sum() for p in self.student["head"].parameters())}

    def learning_rate(self, total_steps: int) -> Schedule:
        return Constant(0.1)


def sample(number: int) -> Batch:
    """Sample number `number` of the run."""
    clean = torch.randn(WIDTH, generator=generator("toy", number))
    return {"clean": clean, "noisy": clean + 0.1 * torch.randn(WIDTH, generator=generator("noise", number))}


def batches_of(processes: Processes, batch_size: int, pause: float = 0.0):
    """The `Batches` of one process."""

    def batches(first: int) -> Iterator[Batch]:
        while True:
            start = first + processes.rank * batch_size
            samples = [sample(number) for number in range(start, start + batch_size)]
            yield {name: torch.stack([each[name] for each in samples]) for name in samples[0]}
            first += processes.world_size * batch_size
            time.sleep(pause)

    return batches


ALONE = Processes(0, 1, torch.device("cpu"))
OPTIONS = TrainingOptions(
    model="dinov3-tiny", init="random", max_steps=6, batch_size=4, save_every=2, monitor_every=0, monitor_samples=8
)


def toy_recipe(
    options: TrainingOptions, processes: Processes = ALONE, method: Method | None = None, *, pause: float = 0.0
) -> Recipe:
    """The recipe that the tests train."""
    batches = batches_of(processes, options.batch_size, pause)
    return Recipe("toy", method or ToyMethod(), WeightSource("random"), batches, steps_per_epoch=10)


def train_toy(folder: Path, method: Method | None = None, processes: Processes = ALONE, **changes) -> int:
    """Train in `folder` with `OPTIONS` but for `changes`; returns the exit code."""
    options = replace(OPTIONS, output=str(folder), **changes)
    return train_recipe(toy_recipe(options, processes, method), options, processes)


def main(argv: list[str] | None = None) -> int:
    """Train the toy slowly enough to be interrupted."""
    parser = CommandParser(None, "A trial.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pause", type=float, default=0.0)
    given = parser.parse_args(argv)
    options = replace(OPTIONS, output=str(given.folder), max_steps=given.steps)
    with start_processes("cpu") as processes:
        method = ToyMethod(dropout=0.2)
        return train_recipe(toy_recipe(options, processes, method, pause=given.pause), options, processes)


if __name__ == "__main__":
    run_main(main)
