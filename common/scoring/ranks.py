"""Ranks of encoders over several data sets, and how far they may be trusted.

Two things make the ranks of noisy means differ from those of the true means. Among nearly equal encoders noise decides,
and always in one direction: it tears the first and the last away from where they belong. A plain bootstrap adds the same
noise once more, so its intervals miss the true ranks. Here means are drawn to each other first, by as much as their
spread exceeds what the bootstrap says noise alone would give (empirical Bayes ranking: Laird and Louis, J. Educ. Stat. 14,
1989), with a part that an encoder keeps over all data sets and a part of its own in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.scoring.intervals import ROUNDING, Interval

LEAST_RANKED = 3  # encoders: the order of two is the same or the other
PAIRS_AT_ONCE = 1 << 22  # of encoders in a draw that are looked at together
LEAST_KEPT = 1e-6  # of a spread that is nothing but noise: ranks are then drawn from the noise alone


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Ranks `(..., encoders)` of values of that shape along the last axis: 1 is the largest, equal ones share the mean."""
    values = np.asarray(values, dtype=float)
    mine, others = values[..., :, None], values[..., None, :]
    equal = np.abs(mine - others) <= ROUNDING * np.maximum(np.abs(mine), np.abs(others))
    better = (others > mine) & ~equal
    return 1 + better.sum(axis=-1) + (equal.sum(axis=-1) - 1) / 2


@dataclass(frozen=True, eq=False)
class MeanRanks:
    """Mean ranks of encoders over data sets: estimates `(encoders,)`, 95 % intervals, and the draws that these are from."""

    estimates: np.ndarray
    drawn: np.ndarray
    """True values as they may be `(sets, draws, encoders)`, in units of a set's noise."""
    confidence: float

    @cached_property
    def _drawn_ranks(self) -> np.ndarray:
        # a part of the draws at a time: a table of all pairs of each does not fit for many encoders
        num_parts = 1 + self.drawn.size * self.drawn.shape[2] // PAIRS_AT_ONCE
        parts = np.array_split(self.drawn, num_parts, axis=1)
        return np.concatenate([ranks_of(part).mean(axis=0) for part in parts])

    @property
    def smallest_p(self) -> float:
        """The smallest that `p_values` can give: where all draws agree."""
        return 2 / (len(self._drawn_ranks) + 1)

    def intervals(self) -> list[Interval]:
        """The estimate of each encoder between the percentiles of its draws."""
        tails = (1 - self.confidence) / 2, (1 + self.confidence) / 2
        bounds = np.quantile(self._drawn_ranks, tails, axis=0).T
        return [
            Interval(float(mean), min(float(low), float(mean)), max(float(high), float(mean)))
            for mean, (low, high) in zip(self.estimates, bounds, strict=True)
        ]

    def p_values(self) -> np.ndarray:
        """Two-sided `(encoders, encoders)`: how often a draw orders two encoders' mean ranks against the estimates.

        One draw more than there are counts as against, so that none is 0.
        """
        ranks = self._drawn_ranks
        fewer = []
        for own in ranks.T[:, :, None]:  # one encoder against all: (draws, encoders)
            fewer.append(np.minimum((own <= ranks).sum(axis=0), (own >= ranks).sum(axis=0)))
        return np.minimum(1.0, 2 * (np.array(fewer) + 1) / (len(ranks) + 1))

    def agreement(self, first: int, second: int) -> tuple[float, float]:
        """Bounds of Kendall's tau between the true orders of two sets, by number."""
        taus = kendalls(self.drawn[first], self.drawn[second])
        low, high = np.quantile(taus, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b between two orders `(encoders,)` of those that have both values; NaN where all of one are equal."""
    table = np.array([first, second], dtype=float)
    table = table[:, None, ~np.isnan(table).any(axis=0)]
    return float(kendalls(*table)[0])


def kendalls(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau-b `(draws,)` of two orders `(draws, encoders)` in each draw; NaN where all of one are equal."""
    left, right = np.triu_indices(np.shape(first)[1], 1)
    one, other = (np.sign(values[:, left] - values[:, right]) for values in (first, second))
    both = np.count_nonzero(one, axis=1) * np.count_nonzero(other, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is how an undefined one says so
        return (one * other).sum(axis=1) / np.sqrt(both)


def mean_ranks(values: np.ndarray, drawn: Sequence[np.ndarray], *, confidence: float = 0.95) -> MeanRanks:
    """Mean ranks of encoders by their values `(sets, encoders)`, larger is better.

    `drawn` holds the bootstrap of each set, deviations from its values `(draws, encoders)`: all encoders on the same
    drawn videos, sets apart. Noise that all encoders of a set share cancels. Raises `ValueError` for other shapes.
    """
    values = np.asarray(values, dtype=float)
    num_sets, num_encoders = values.shape
    noise = np.stack([np.asarray(each, dtype=float) for each in drawn])
    if noise.shape != (num_sets, noise.shape[1], num_encoders):
        raise ValueError(f"expected draws (sets {num_sets}, draws, encoders {num_encoders}), found {noise.shape}")
    noise = noise - noise.mean(axis=2, keepdims=True)
    noise = noise - noise.mean(axis=1, keepdims=True)
    # differences from a set's mean encoder have (encoders - 1) / encoders of the variance
    degrees = max(1, num_encoders - 1)
    scale = np.sqrt(noise.var(axis=1).sum(axis=1) / degrees)
    scale = np.where(scale > 0, scale, 1.0)[:, None]
    found = (values - values.mean(axis=1, keepdims=True)) / scale
    noise = noise / scale[:, None]

    # variance components in units of the noise, by moments: what an encoder has in all sets, and in each of its own
    common = found.mean(axis=0)
    in_sets = ((found - common) ** 2).sum() / (degrees * max(1, num_sets - 1))
    own = max(0.0, in_sets - 1)
    shared = max(0.0, (common**2).sum() / degrees - (own + 1) / num_sets)
    keep_common = max(LEAST_KEPT, 1 - 1 / (num_sets * shared + own + 1))
    keep_own = max(LEAST_KEPT, 1 - 1 / (own + 1))

    # the posterior of normal effects: means are drawn in by these shares, and vary with their roots
    shared_noise = noise.mean(axis=0)
    drawn_values = (
        keep_common * common
        + np.sqrt(keep_common) * shared_noise
        + keep_own * (found - common)[:, None]
        + np.sqrt(keep_own) * (noise - shared_noise)
    )
    return MeanRanks(ranks_of(values).mean(axis=0), drawn_values, confidence)
