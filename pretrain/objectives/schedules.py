"""Values that change with the step: stateless functions of the step number, counted from 0.

Four shapes (`Constant`, `Linear`, `Cosine`, `Warmup`) compose; the functions below them build the published schedules.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]

# global batches that published learning rates are for: DINOv2's and DINOv3's, MAE's and VideoMAE's
SQUARE_ROOT_REFERENCE_BATCH = 1024
LINEAR_REFERENCE_BATCH = 256
TRUNCATED_HORIZON = 1.25  # V-JEPA plans its schedules for so many times the run


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """`start` at step 0, `end` from step `steps` on, a straight line between; 0 steps: `end` at once."""

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * step / self.steps


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` at step 0 over `steps` steps to `end`, which stays.

    The last of the steps has the value `end`; with `reaches_end` False it comes one step later.
    """

    start: float
    end: float
    steps: int
    reaches_end: bool = True

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        intervals = max(self.steps - self.reaches_end, 1)  # between as many steps, or to the step after them
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * step / intervals)) / 2


@dataclass(frozen=True)
class Warmup:
    """A straight line over `steps` steps from `start` to the first value of `then`, which follows.

    The line stops one step short of that value; with `reaches_peak` its last step has it already.
    """

    start: float
    steps: int
    then: Schedule
    reaches_peak: bool = False

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.then(step - self.steps)
        intervals = max(self.steps - self.reaches_peak, 1)
        return self.start + (self.then(0) - self.start) * step / intervals


def warmup_cosine(
    start: float, peak: float, end: float, *, warmup_steps: int, total_steps: int, cosine_steps: int | None = None
) -> Warmup:
    """Line from `start`, `peak` at step `warmup_steps`, cosine that is `end` at its last step, then constant.

    The cosine takes `cosine_steps` (default: all that is left of `total_steps`). The schedule of DINOv3's newer
    recipes (`dinov3/train/cosine_lr_scheduler.py`: `linear_warmup_cosine_decay`).
    """
    cosine_steps = max(total_steps - warmup_steps, 0) if cosine_steps is None else cosine_steps
    return Warmup(start, warmup_steps, Cosine(peak, end, cosine_steps))


def legacy_warmup_cosine(start: float, peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Warmup:
    """As `warmup_cosine`, but with `peak` at steps `warmup_steps - 1` and `warmup_steps`, and `end` only after the run.

    The schedule of DINO, DINOv2, VideoMAE and DINOv3's older recipes (`CosineScheduler` in the same file).
    """
    cosine = Cosine(peak, end, max(total_steps - warmup_steps, 0), reaches_end=False)
    return Warmup(start, warmup_steps, cosine, reaches_peak=True)


def truncated_cosine(start: float, peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Warmup:
    """Warm-up and a cosine planned for 1.25 times the run, which therefore stops above `end` (V-JEPA, section 3)."""
    steps = int(TRUNCATED_HORIZON * total_steps) - warmup_steps
    return Warmup(start, warmup_steps, Cosine(peak, end, max(steps, 0), reaches_end=False))


def truncated_cooldown(start: float, peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Warmup:
    """Warm-up and a line planned for 1.25 times the run, which therefore stops above `end`.

    Without warm-up V-JEPA 2's last phase (`vjepa2:src/utils/schedulers.py`, the decay of `app/vjepa/train.py`): from 5.25e-4
    towards 1e-6 it stops at 1.06e-4.
    """
    steps = int(TRUNCATED_HORIZON * total_steps) - warmup_steps
    return Warmup(start, warmup_steps, Linear(peak, end, max(steps, 0)))


def truncated_linear(start: float, end: float, *, total_steps: int) -> Linear:
    """A straight line planned for 1.25 times the run: V-JEPA 2's EMA momentum (`vjepa2:app/vjepa/train.py`)."""
    return Linear(start, end, int(TRUNCATED_HORIZON * total_steps))


def teacher_temperature(warmup_steps: int, *, start: float = 0.04, end: float = 0.07) -> Linear:
    """DINO's teacher temperature: rises in a straight line, which keeps early targets sharp, then stays."""
    return Linear(start, end, warmup_steps)


def gram_weight(first_step: int, rise_steps: int, *, weight: float = 2.0) -> Warmup:
    """Weight of the Gram loss: 0 before `first_step`, then up to `weight` along half a cosine (DINOv3, section 4)."""
    return Warmup(0.0, first_step, Cosine(0.0, weight, rise_steps))


def square_root_scaled(learning_rate: float, global_batch: int) -> float:
    """Learning rate times 4 sqrt(global batch / 1024), the rule of DINOv2 and DINOv3: factor 1 at 64, 2 at 256."""
    return learning_rate * 4 * math.sqrt(global_batch / SQUARE_ROOT_REFERENCE_BATCH)


def linearly_scaled(learning_rate: float, global_batch: int) -> float:
    """Learning rate times global batch / 256, the rule of MAE and VideoMAE (Goyal et al., 2017)."""
    return learning_rate * global_batch / LINEAR_REFERENCE_BATCH
