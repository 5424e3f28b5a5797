"""The contract between a self-supervised recipe and the engine that trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.objectives.parameter_groups import ParameterGroup
from pretrain.objectives.schedules import Schedule

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Schedules:
    """Rates that the engine sets at every optimiser step, as functions of its number, and AdamW's constants."""

    learning_rate: Schedule
    weight_decay: Schedule
    momentum: Schedule | None = None
    """Of the teacher's moving average; None for a recipe without a teacher."""
    clip_norm: float | None = None
    """Largest gradient norm of each clip group; None: gradients are not clipped."""
    clip_each: bool = False
    """Clip every parameter by its own norm, not a group by its common one."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


class Method(nn.Module, ABC):
    """A recipe: networks, loss and schedules. The engine owns processes, precision, the optimiser and the files.

    Every process builds it with equal values, in float32, on the CPU or waiting for them (`startup`); a teacher starts as a
    copy of its student (`copies`). Each
    trainable parameter must take part in every loss: one that a batch has no use for enters as `0 * parameter.sum()`.
    Networks are run by calling them or their blocks, so that sharded parameters are gathered in time. Under bf16
    `forward` and `features` run inside autocast; what must stay float32 leaves it. Buffers are state too: they are
    saved with the parameters, never averaged into a teacher, and must be kept equal in all processes.
    """

    student: nn.ModuleDict
    """Everything that is trained, by role: `backbone`, `dino_head`, `predictor` ..."""
    teacher: nn.ModuleDict
    """Moving averages of some of them under the same keys: frozen, always in eval mode; may be empty."""
    block_classes: tuple[type[nn.Module], ...] = ()
    """Modules that are sharded, recomputed in the backward pass and compiled one by one."""

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """`loss`, a scalar mean over this process's samples, and further named scalars to log, detached.

        Names are the same at every step; those that begin with `monitor/` also feed the health monitor.
        """

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter in exactly one group; asked for after sharding, which replaces parameters."""

    @abstractmethod
    def schedules(self, total_steps: int) -> Schedules:
        """The schedules of a training of `total_steps` optimiser steps."""

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """`(N, D)` features of the network that will be exported; called in eval mode, without gradients."""

    @abstractmethod
    def exported(self) -> nn.Module:
        """The backbone to export, the teacher's where there is one: a transformers `PreTrainedModel` or a timm network.

        It may be put together from parts; all its tensors must be the method's own.
        """

    def copies(self) -> list[tuple[nn.Module, nn.Module]]:
        """Networks that start as copies of others, with these: made by `startup.copy_of`, of equal names."""
        return [(teacher, self.student[role]) for role, teacher in self.teacher.items()]

    def other_sources(self) -> list[str]:
        """Sources of frozen weights besides the start weights that it learns from, such as an image teacher's."""
        return []

    def flops_per_sample(self) -> float | None:
        """Floating-point operations of a training step on one sample, for the utilisation shown; None: not known."""
        return None

    def train(self, mode: bool = True) -> Method:
        """Training mode for all but the teacher, whose dropout and position augmentation would blur its targets."""
        super().train(mode)
        self.teacher.eval()
        return self
