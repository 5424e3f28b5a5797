"""One optimiser step: schedules, accumulated gradients, clipping, AdamW, moving average, in this order."""

import logging
import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from common.base.runtime import UserError, generator
from pretrain.engine.distributed import Processes
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.engine.sharding import PreparedMethod
from pretrain.engine.startup import Initialise, local_part
from pretrain.objectives.parameter_groups import check_groups
from pretrain.ssl_config import TrainingOptions

log = logging.getLogger(__name__)

MOST_SKIPPED = 2  # steps running; one more without a finite loss ends the training


class TrainingStep:
    """A method with its optimiser and moving average; called once a step with this process's micro-batches."""

    def __init__(
        self,
        method: Method,
        schedules: Schedules,
        options: TrainingOptions,
        processes: Processes,
        initialise: Initialise | None = None,
    ):
        """`options` are completed; `method` is on the CPU, or waits for its values (`startup`), and is moved and sharded."""
        self.prepared = PreparedMethod(method, options, processes, initialise)
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
        # by the step alone, whatever was drawn before: a resumed run draws the same
        torch.manual_seed(generator(self.seed, "step", step, self.processes.rank).initial_seed())
        rates = self.optimizer.set_schedules(step)
        numbers = self._accumulate(step, micro_batches)
        norms = self.optimizer.clip()
        # means and norms are of all processes, so that all of them skip the same steps
        if all(math.isfinite(value) for value in (numbers["loss"], *norms.values())):
            self.optimizer.step()
            self.skipped_running = 0
            if self.schedules.momentum is not None:
                rates["momentum"] = self.schedules.momentum(step)
                self.average.update(rates["momentum"])
        else:
            self._skip(step, numbers["loss"])
        self.optimizer.zero_grad()  # of a skipped step too, whose gradients are not finite
        return numbers | rates | {f"gradient_norm/{name}": norm for name, norm in norms.items()}

    def features(self, batch: Batch) -> Tensor:
        """`(N, D)` float32 features of the network that will be exported; all processes call it."""
        return self.prepared.features(_on_device(batch, self.processes.device))

    @property
    def is_skipped(self) -> bool:
        """True when the last step changed nothing."""
        return self.skipped_running > 0

    def _accumulate(self, step: int, micro_batches: list[Batch]) -> dict[str, float]:
        """Gradients of the mean loss of all micro-batches and processes; returns the means of the method's numbers."""
        totals = None
        for index, batch in enumerate(micro_batches, 1):
            with self.prepared.micro_batch(is_last=index == len(micro_batches)):
                found = self.prepared(_on_device(batch, self.processes.device), step)
                (found["loss"] / len(micro_batches)).backward()
            # kept on the device: reading a number would wait for the GPU in every micro-batch
            values = torch.stack([value.detach().float() for value in found.values()])
            totals = values if totals is None else totals + values
        if not self._checked:  # once: by contract every loss reaches every parameter
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


class MovingAverage:
    """Keeps `teacher = m teacher + (1 - m) student`, in float32, parameter by parameter; buffers are left alone.

    In bf16 an average at m = 0.9995 would never move. Shards of student and teacher lie alike, so that nothing is sent.
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
        pairs = ((local_part(teacher), local_part(student)) for teacher, student in self._pairs)
        teachers, students = zip(*pairs, strict=True)
        # one fused kernel for all parameters; lerp(t, s, 1 - m) is m t + (1 - m) s
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


class GroupedAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, ICLR 2019) of a method's groups; a frozen group has learning rate 0."""

    def __init__(self, method: Method, schedules: Schedules):
        """The teacher is frozen already.

        Raises `ValueError` unless every trainable parameter is in exactly one group.
        """
        self.groups = [group for group in method.parameter_groups() if group.parameters]
        check_groups(self.groups, method)
        self.schedules = schedules
        self._names = {id(parameter): name for name, parameter in method.named_parameters()}
        self._fused = all(parameter.is_cuda for group in self.groups for parameter in group.parameters)
        super().__init__(
            [{"params": group.parameters} for group in self.groups],
            lr=0.0,
            betas=schedules.betas,
            eps=schedules.eps,
            fused=self._fused,
        )

    def set_schedules(self, step: int) -> dict[str, float]:
        """Set every group's rate and decay for a step; returns the scheduled ones, unscaled.

        All settings are set anew, so that none of a checkpoint outlives a change of options.
        """
        rate, decay = self.schedules.learning_rate(step), self.schedules.weight_decay(step)
        for group, settings in zip(self.groups, self.param_groups, strict=True):
            # a rate of 0 freezes, as AdamW multiplies the decay by it too; its moments are averaged meanwhile
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
        """Scale the gradients of each clip group, or of each parameter, down to the norm; returns the groups' before."""
        norms = {}
        for name in dict.fromkeys(group.clip for group in self.groups):
            parameters = [parameter for group in self.groups if group.clip == name for parameter in group.parameters]
            # of shards this is the norm of the whole gradients, a DTensor that sums over the processes when it is read
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
            if self.schedules.clip_norm is not None and not self.schedules.clip_each:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.schedules.clip_norm, norm)
            elif self.schedules.clip_norm is not None:
                for parameter in parameters:
                    torch.nn.utils.clip_grad_norm_(parameter, self.schedules.clip_norm)
            norms[name] = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
        return norms
