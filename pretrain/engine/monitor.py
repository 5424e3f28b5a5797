"""The health of a training: do features still differ between samples, and have they run away from the start?

Self-supervised training can collapse with a falling loss. A check looks at the features of a fixed batch.

A check is bad when the features are not finite, or when the mean cosine distance of two samples or the effective rank
is below a fifth of what it was before the first step: relative, because surgical frames resemble each other and an
untrained network tells them apart but little. Three bad checks running are a collapse. Below a half there is a warning,
as there is when the teacher's entropy falls below a fifth of its first value.
"""

import logging
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from common.base.runtime import UserError

log = logging.getLogger(__name__)

WARNING_SHARE, BAD_SHARE = 0.5, 0.2
PATIENCE = 3  # bad checks running
WATCHED = ("cosine_distance", "effective_rank")
ENTROPY = "monitor/teacher_entropy"
PREFIX = "health/"


def feature_health(features: Tensor, start: Tensor) -> dict[str, float]:
    """Measures of features `(N, D)` of a fixed batch, against those before the first step.

    feature_std: standard deviation of the unit vectors over the samples, mean over dimensions, times sqrt(D): 1 for
    directions spread evenly, 0 for a constant (Chen & He, SimSiam, CVPR 2021, section 4.1).
    effective_rank: exponential of the entropy of the normalised singular values (Roy & Vetterli, EUSIPCO 2007), of the
    centred features, so that an offset which all samples share does not hide in it.
    mean_cosine: over all pairs of two samples. drift: 1 - cosine to the sample's start, mean over samples.
    All are NaN when a feature is not finite.
    """
    names = ("feature_std", "effective_rank", "mean_cosine", "cosine_distance", "drift")
    if not torch.isfinite(features).all():
        return dict.fromkeys(names, math.nan)
    features, start = features.double().cpu(), start.double().cpu()
    count, width = features.shape
    unit = torch.nn.functional.normalize(features, dim=1)
    # the sum over all pairs i != j, out of the length of the sum vector: no N x N matrix is needed
    mean_cosine = (unit.sum(dim=0).square().sum() - unit.square().sum()) / (count * (count - 1))
    values = (
        unit.std(dim=0, correction=0).mean() * math.sqrt(width),
        effective_rank(features - features.mean(dim=0)),
        mean_cosine,
        1 - mean_cosine,
        1 - torch.nn.functional.cosine_similarity(features, start).mean(),
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def effective_rank(matrix: Tensor) -> float:
    """exp(entropy of the singular values, normalised to sum 1), from 1 to min(N, D); 0 for a matrix of zeros."""
    singular = torch.linalg.svdvals(matrix)
    total = singular.sum()
    if total <= torch.finfo(matrix.dtype).tiny:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())


@dataclass
class HealthMonitor:
    """Judges checks against the first one; `state` goes into checkpoints and puts it back."""

    stop_on_collapse: bool = True
    start: Tensor | None = None
    """Features `(N, D)` before the first step."""
    first: dict[str, float] = field(default_factory=dict)
    bad_running: int = 0
    last_good: int = 0
    """Step of the last check that was not bad: what was saved until then is worth keeping."""
    best_step: int | None = None
    best_score: float | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {key: value for key, value in asdict(self).items() if key != "stop_on_collapse"}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume as the monitor that had this `state`."""
        for key, value in state.items():
            setattr(self, key, value)

    def check(self, step: int, features: Tensor, numbers: dict[str, float] | None = None) -> dict[str, float]:
        """Judge the features `(N, D)` after `step` steps; `numbers` are the last step's own.

        Returns the measures under `health/` names. Warnings are logged; the caller asks for `collapse`.
        """
        if self.start is None:
            self.start = features.detach().float().cpu()
        found = feature_health(features, self.start)
        if ENTROPY in (numbers or {}):
            found["teacher_entropy"] = numbers[ENTROPY]
        for name, value in found.items():
            self.first.setdefault(name, value)  # the teacher's entropy is not known before the first step
        shares = {name: self._share(name, found[name]) for name in WATCHED}
        if all(share >= BAD_SHARE for share in shares.values()):  # NaN is not
            self.bad_running, self.last_good = 0, step
        else:
            self.bad_running += 1
        self._warn(step, found, shares)
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def is_best(self, step: int, score: float) -> bool:
        """Whether a probe's score, the higher the better, is above all before; remembers it."""
        if math.isnan(score) or (self.best_score is not None and score <= self.best_score):
            return False
        self.best_step, self.best_score = step, score
        return True

    @property
    def has_collapsed(self) -> bool:
        """Whether the training should stop here."""
        return self.stop_on_collapse and self.bad_running >= PATIENCE

    def collapse(self, step: int, best: str) -> UserError:
        """The message of a stop; `best` says what is kept."""
        return UserError(
            f"step {step}: the features have collapsed: in {self.bad_running} checks running the cosine distance of "
            f"samples or the effective rank was below {BAD_SHARE:.0%} of the start's. {best}. Lower the learning rate "
            "or raise the EMA momentum and start from there; --no-stop_on_collapse continues regardless"
        )

    def _share(self, name: str, value: float) -> float:
        """The value as a share of the first one; where that was 0 nothing can be lost. NaN stays NaN."""
        first = self.first[name]
        return value / first if first > 0 or math.isnan(first + value) else 1.0

    def _warn(self, step: int, found: dict[str, float], shares: dict[str, float]) -> None:
        low = [name for name, share in shares.items() if not share >= WARNING_SHARE]
        if "teacher_entropy" in found and self._share("teacher_entropy", found["teacher_entropy"]) < BAD_SHARE:
            low.append("teacher_entropy")
        if low:
            listed = ", ".join(f"{name} {found[name]:.4g}, at the start {self.first[name]:.4g}" for name in low)
            log.warning("step %d: the features are losing variety (%s)", step, listed)
