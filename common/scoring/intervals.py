"""Confidence intervals of scores: where the measure would lie on another set of videos, by bootstrap.

The unit is the video, or the patient where one has several videos; never the frame: neighbouring frames say nearly the
same, so intervals over frames are far too narrow.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

ROUNDING = 1e-12  # relative; sums that differ by less are ties
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence bounds; NaN where undefined."""

    estimate: float
    low: float
    high: float


UNDEFINED = Interval(NAN, NAN, NAN)


def sum_interval(
    per_video: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 42,
) -> Interval:
    """Bootstrap interval of a function of sums over videos: a mean, a ratio, a measure of a pooled confusion matrix.

    `per_video` is `(N, ...)`; `statistic` turns sums `(draws, ...)` into values `(draws,)`. Whole groups are drawn
    where `groups` (one of each video) are given, else videos. The bounds are bias-corrected and accelerated (Efron,
    J. Am. Stat. Assoc. 82, 1987), with the acceleration from leaving out one unit at a time.

    Draws whose value is undefined are left out: the interval is that of the value where there is one. The bounds are
    NaN where that leaves less than a share `confidence` of the draws (a phase of one or two videos), and for fewer
    than two units. Where all draws lie on one side of the estimate the bias correction is infinite; the bounds are
    then plain percentiles, widened to hold the estimate.

    Raises `ValueError` when `groups` and `per_video` differ in length.
    """
    (interval,) = sum_intervals(
        np.asarray(per_video)[:, None],
        lambda sums: statistic(sums[:, 0])[:, None],
        groups=groups,
        confidence=confidence,
        draws=draws,
        seed=seed,
    )
    return interval


def sum_intervals(
    per_video: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 42,
) -> list[Interval]:
    """`sum_interval` of several columns of values of the same videos, `(N, columns, ...)`, which are drawn together.

    `statistic` turns sums `(draws, columns, ...)` into values `(draws, columns)`. Raises as `sum_interval`.
    """
    sums = sums_per_unit(per_video, groups)
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is how a statistic says undefined
        estimates = statistic(total[None])[0].tolist()
        if len(sums) < 2 or not np.isfinite(estimates).any():
            return [Interval(estimate, NAN, NAN) for estimate in estimates]
        # a column's draws one after the other in memory, where its bounds pass over them several times
        drawn = np.ascontiguousarray(drawn_values(sums, statistic, draws=draws, seed=seed).T)
        left_out = statistic(total - sums).T  # the jackknife: the sums without one unit, for every unit
    return [
        Interval(estimate, *(_bca_bounds(estimate, *column, confidence) if np.isfinite(estimate) else (NAN, NAN)))
        for estimate, *column in zip(estimates, drawn, left_out, strict=True)
    ]


def interval_of_counts(
    num_units: int,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 42,
) -> Interval:
    """`sum_interval` of a measure that is no function of sums over units, such as one of a ranking of all their frames.

    `statistic` turns how often each unit is drawn `(draws, num_units)` into values `(draws,)`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(np.ones((1, num_units)))[0])
        if num_units < 2 or not np.isfinite(estimate):
            return Interval(estimate, NAN, NAN)
        drawn = statistic(_draw_counts(num_units, draws, seed))
        left_out = statistic(1 - np.eye(num_units))
    return Interval(estimate, *_bca_bounds(estimate, drawn, left_out, confidence))


def drawn_values(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, draws: int = 2000, seed: int = 42
) -> np.ndarray:
    """The statistic `(draws, ...)` of units drawn with replacement, from their sums `(units, ...)`.

    The same seed draws the same units of as many, so that several encoders are drawn together.
    """
    # a draw is how often each unit was picked, so all draws' sums are one matrix product: (draws, ...)
    return statistic(np.tensordot(_draw_counts(len(sums), draws, seed), sums, axes=1))


def difference_interval(
    first: np.ndarray,
    second: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 42,
) -> Interval:
    """Bootstrap interval of `statistic` of one set of videos less that of another, drawn apart: percentiles of the draws.

    `first` and `second` are `(N, ...)`, `(M, ...)` as in `sum_interval`. The bounds are NaN for fewer than two videos of
    either, and where the value is undefined in more than a share `1 - confidence` of the draws.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (float(statistic(side.sum(axis=0)[None])[0]) for side in (first, second))
        if min(len(first), len(second)) < 2:
            return Interval(one - other, NAN, NAN)
        sides = [
            drawn_values(side, statistic, draws=draws, seed=seed + place) for place, side in enumerate((first, second))
        ]
    drawn = sides[0] - sides[1]
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < confidence * draws or not np.isfinite(one - other):
        return Interval(one - other, NAN, NAN)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(one - other, float(low), float(high))


def crossed_interval(values: np.ndarray, *, confidence: float = 0.95, draws: int = 2000, seed: int = 42) -> Interval:
    """Bootstrap interval of the mean of `(folds, seeds)`, both of which are drawn: percentiles of the draws.

    Seeds are the same in all folds, and folds in all seeds, so that whole rows and columns are drawn. NaN bounds for a
    single value, and where one is undefined.
    """
    values = np.asarray(values, dtype=float)
    estimate = float(values.mean()) if values.size else NAN
    if values.size < 2 or not np.isfinite(values).all():
        return Interval(estimate, NAN, NAN)
    random = np.random.default_rng(seed)
    rows, columns = (random.integers(size, size=(draws, size)) for size in values.shape)
    drawn = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def resampled_units(names: Sequence[str], patients: Mapping[str, str] | None) -> list[str] | None:
    """The patient of each test, or its video: tests of one video are one unit; None where every test is a unit."""
    if not patients and len(set(names)) == len(names):
        return None
    return [(patients or {}).get(name, f"video:{name}") for name in names]


def sums_per_unit(per_video: np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Sums `(units, ...)` over the videos of each group, in order of first appearance; without groups, the videos.

    Raises `ValueError` when `groups` and `per_video` differ in length.
    """
    values = np.asarray(per_video, dtype=float)
    if groups is None:
        return values
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    if len(groups) != len(values):
        raise ValueError(f"expected one group for each of {len(values)} videos, found {len(groups)}")
    sums = np.zeros((len(places), *values.shape[1:]))
    np.add.at(sums, [places[group] for group in groups], values)  # `+=` would keep only the last video of a group
    return sums


@lru_cache(maxsize=4)  # every encoder and measure of a comparison draws the same videos
def _draw_counts(num_units: int, draws: int, seed: int) -> np.ndarray:
    """Times that each unit is drawn `(draws, units)`, as floats for one matrix product."""
    picked = np.random.default_rng(seed).integers(num_units, size=(draws, num_units))
    # one bincount for all draws: each draw counts into a row of cells of its own
    cells = (picked + num_units * np.arange(draws)[:, None]).ravel()
    return np.bincount(cells, minlength=draws * num_units).reshape(draws, num_units).astype(float)


def _bca_bounds(estimate: float, drawn: np.ndarray, left_out: np.ndarray, confidence: float) -> tuple[float, float]:
    """Bounds from the draws `(draws,)` and from the values without one unit `(units,)`; see `sum_interval`."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < confidence * len(drawn):
        return NAN, NAN
    tied = np.abs(defined - estimate) <= ROUNDING * np.abs(defined).max()
    if tied.all():
        return estimate, estimate
    # draws that equal the estimate lie half on either side of it: with few videos they are many, and counting them on
    # one side alone would look like a bias
    share_below = np.mean(np.where(tied, 0.5, defined < estimate))
    tails = np.array([1 - confidence, 1 + confidence]) / 2
    if share_below in (0, 1):  # the quantile of 0 or 1 is infinite
        low, high = np.quantile(defined, tails)
        return min(float(low), estimate), max(float(high), estimate)
    normal, acceleration = NormalDist(), _acceleration(left_out)
    bias = normal.inv_cdf(share_below)
    shifted = [bias + normal.inv_cdf(tail) for tail in tails]
    # without bias and acceleration these levels are the tails themselves: plain percentiles
    levels = [normal.cdf(bias + shift / (1 - acceleration * shift)) for shift in shifted]
    low, high = np.quantile(defined, levels)
    return float(low), float(high)


def _acceleration(left_out: np.ndarray) -> float:
    """A sixth of the skewness of the units' influence: how far the estimate moves without a unit (Efron 1987)."""
    defined = left_out[np.isfinite(left_out)]
    if len(np.unique(defined)) < 2:  # no unit moves it more than another: nothing to be skewed, and 0 / 0 below
        return 0.0
    influence = defined.mean() - defined
    influence /= np.abs(influence).max()  # the unit cancels, but the powers of a very small one would be 0 / 0
    return float(np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5))
