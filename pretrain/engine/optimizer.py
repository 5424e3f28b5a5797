"""AdamW on a method's parameter groups, with scheduled rates and one gradient clipping for each part."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pretrain.engine.method import Method, Schedules
from pretrain.objectives.parameter_groups import check_groups


class GroupedAdamW:
    """`optimizer` (Loshchilov & Hutter, ICLR 2019) and what sets and clips it; a frozen group has learning rate 0."""

    def __init__(self, method: Method, schedules: Schedules):
        """The teacher is frozen already. Raises `ValueError` unless every trainable parameter is in exactly one group."""
        self.groups = [group for group in method.parameter_groups() if group.parameters]
        check_groups(self.groups, method)
        self.schedules = schedules
        self._names = {id(parameter): name for name, parameter in method.named_parameters()}
        self._fused = all(parameter.is_cuda for group in self.groups for parameter in group.parameters)
        self.optimizer = torch.optim.AdamW(
            [{"params": group.parameters} for group in self.groups],
            lr=0.0, betas=schedules.betas, eps=schedules.eps, fused=self._fused,
        )  # fmt: skip

    def set_schedules(self, step: int) -> dict[str, float]:
        """Set every group's rate and decay for a step; returns the scheduled ones, unscaled.

        All settings are set anew, so that none of a checkpoint outlives a change of options.
        """
        rate, decay = self.schedules.learning_rate(step), self.schedules.weight_decay(step)
        for group, settings in zip(self.groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = 0.0 if step < group.frozen_until else rate * group.lr_scale
            settings["weight_decay"] = decay if group.decays else 0.0
            settings |= {"betas": self.schedules.betas, "eps": self.schedules.eps, "fused": self._fused}
        return {"learning_rate": rate, "weight_decay": decay}

    def require_gradients(self) -> None:
        """Raise `RuntimeError` naming the parameters that no loss has reached, which replicas could not average."""
        without = [
            self._names[id(parameter)]
            for group in self.groups
            for parameter in group.parameters
            if parameter.grad is None
        ]
        if without:
            raise RuntimeError(
                f"{len(without)} trainable parameters take no part in the loss, first {without[:3]}: freeze them, or "
                "add 0 * parameter.sum()"
            )

    def clip(self) -> dict[str, float]:
        """Scale the gradients of each clip group down to the common norm; returns the norms before."""
        norms = {}
        for name in dict.fromkeys(group.clip for group in self.groups):
            parameters = [parameter for group in self.groups if group.clip == name for parameter in group.parameters]
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
            if self.schedules.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.schedules.clip_norm, norm)
            norms[name] = _whole(norm).item()
        return norms

    def step(self) -> None:
        """Apply the gradients."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
