"""The teacher: a moving average of the student's parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pretrain.engine.method import Method


class MovingAverage:
    """Keeps `teacher = m teacher + (1 - m) student`, in float32, parameter by parameter; buffers are left alone.

    In bf16 an average at m = 0.9995 would never move. Shards of one parameter lie in one process, so that nothing is sent.
    """

    def __init__(self, method: Method):
        """Raises `ValueError` when a teacher has a parameter without a student of its shape, or not in float32."""
        self._pairs = [
            pair for role, teacher in method.teacher.items() for pair in _paired(role, teacher, method.student)
        ]

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """One step towards the student with `momentum` m in [0, 1]."""
        if not self._pairs:
            return
        teachers, students = zip(*((_local(teacher), _local(student)) for teacher, student in self._pairs), strict=True)
        torch._foreach_lerp_(teachers, students, 1 - momentum)


def _paired(role: str, teacher: nn.Module, students: nn.ModuleDict) -> list[tuple[nn.Parameter, nn.Parameter]]:
    if role not in students:
        raise ValueError(f"teacher {role!r} has no student; there are {', '.join(students)}")
    own = dict(students[role].named_parameters())
    pairs = []
    for name, parameter in teacher.named_parameters():
        if name not in own or own[name].shape != parameter.shape:
            raise ValueError(f"teacher {role}.{name} has no student of shape {tuple(parameter.shape)}")
        if parameter.dtype != torch.float32:
            raise ValueError(f"teacher {role}.{name} is {parameter.dtype}: an average needs float32")
        pairs.append((parameter, own[name]))
    return pairs


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
