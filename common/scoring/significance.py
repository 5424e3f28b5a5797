"""Whether encoders differ by more than chance: two on the same videos, over folds, many at once; and what varies.

Two encoders are compared on the same videos, so that easy and hard operations cancel: `effect_size` says by how much
they differ, `paired_permutation_test` whether. `corrected_resampled_t_test` asks the same of whole folds. Among many
encoders `holm` corrects the p values for their number, `smallest_p` says what so few videos could show at all, and
`tie_letters` shows which encoders cannot be told apart.
"""

import string
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations

import numpy as np

from common.scoring.intervals import NAN, ROUNDING, Interval, sum_intervals, sums_per_unit


@dataclass(frozen=True)
class EffectSize:
    """Mean paired difference in the measure's own unit, and Cohen's d_z (in standard deviations of the differences)."""

    difference: Interval
    standardised: Interval


def _differences(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    """Paired differences `(N,)`; values of different videos cannot be paired, and undefined ones not at all."""
    if len(a) != len(b):
        raise ValueError(f"expected two values of every video, found {len(a)} and {len(b)}")
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    for values in (a, b):
        if undefined := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(
                f"expected a number for every video, found {undefined} undefined of {len(values)}; drop them"
            )
    return a - b


def effect_size(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 42,
) -> EffectSize:
    """Difference of `a` over `b`, both `(N,)` of the same videos, with the intervals of `sum_interval`.

    d_z is mean / standard deviation (ddof 1) of the differences (Cohen, Statistical Power Analysis, 1988); NaN where
    they do not vary. Raises `ValueError` for other lengths and for a value that is not finite.
    """
    (found,) = effect_sizes(_differences(a, b)[:, None], groups=groups, confidence=confidence, draws=draws, seed=seed)
    return found


def effect_sizes(
    differences: np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 42,
) -> list[EffectSize]:
    """`effect_size` of every column of paired differences `(N, pairs)` of the same videos, which are drawn together."""
    # mean and standard deviation are functions of these three sums, which is all that a draw of videos changes
    moments = np.stack([differences, np.ones(differences.shape), differences**2], axis=-1)
    how = {"groups": groups, "confidence": confidence, "draws": draws, "seed": seed}
    means = sum_intervals(moments, lambda sums: sums[..., 0] / sums[..., 1], **how)
    return [EffectSize(*pair) for pair in zip(means, sum_intervals(moments, _standardised_mean, **how), strict=True)]


def _standardised_mean(sums: np.ndarray) -> np.ndarray:
    """d_z `(...)` of sums `(..., 3)` of the differences, of ones and of the squared differences."""
    total, count, squares = np.moveaxis(sums, -1, 0)
    spread = squares - total**2 / count
    spread = np.where(spread > ROUNDING * squares, spread, np.nan)  # what is left of equal values is rounding
    return total / count / np.sqrt(spread / (count - 1))


def paired_permutation_test(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 9999,
    seed: int = 42,
) -> float:
    """Two-sided p value of the mean difference of `a` and `b`, both `(N,)` of the same videos; NaN without videos.

    The sign of a video's difference (of all of a group's, where `groups` are given) is as likely plus as minus if the
    encoders are equally good. Every assignment of signs is tried where these are at most `draws` + 1; else `draws`
    random ones, and the one observed counts as one more (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).

    Raises `ValueError` for other lengths and for a value that is not finite.
    """
    return float(paired_permutation_tests(_differences(a, b)[:, None], groups=groups, draws=draws, seed=seed)[0])


def paired_permutation_tests(
    differences: np.ndarray, *, groups: Sequence[Hashable] | None = None, draws: int = 9999, seed: int = 42
) -> np.ndarray:
    """`paired_permutation_test` of every column of paired differences `(N, pairs)` of the same videos: `(pairs,)`."""
    sums = sums_per_unit(differences, groups)
    if not len(sums):
        return np.full(differences.shape[1], NAN)
    exact = _tries_every_sign(len(sums), draws)
    if exact:  # row i holds the binary digits of i, 0 as plus and 1 as minus: every assignment once
        signs = 1.0 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
    else:
        signs = _random_signs(len(sums), draws, seed)
    # sums of the same numbers in another order differ in their last digits: they count as large as the observed one
    observed = np.abs(sums.sum(axis=0)) - ROUNDING * np.abs(sums).sum(axis=0)
    as_large = np.count_nonzero(np.abs(signs @ sums) >= observed, axis=0)
    # all assignments hold the observed one; of random ones it is one more, so that p is never 0
    return as_large / len(signs) if exact else (as_large + 1) / (draws + 1)


def _tries_every_sign(num_units: int, draws: int) -> bool:
    return 2**num_units <= draws + 1


def smallest_p(num_units: int, *, draws: int = 9999) -> float:
    """The smallest p value that `paired_permutation_test` can give for so many videos or groups; NaN without any.

    It is that of differences which all have one sign: their own assignment and its mirror image are as large, of every
    one there is; of random ones none but the observed one.
    """
    if num_units < 1:
        return NAN
    return 2 / 2**num_units if _tries_every_sign(num_units, draws) else 1 / (draws + 1)


@lru_cache(maxsize=4)  # every measure of a comparison tries the same signs, and drawing them takes longer than the test
def _random_signs(num_units: int, draws: int, seed: int) -> np.ndarray:
    return 1.0 - 2 * np.random.default_rng(seed).integers(2, size=(draws, num_units), dtype=np.int8)


def corrected_resampled_t_test(
    differences: Sequence[float] | np.ndarray,
    train_sizes: Sequence[int] | np.ndarray,
    test_sizes: Sequence[int] | np.ndarray,
) -> float:
    """Two-sided p value that the mean difference over folds is 0 (Nadeau and Bengio, Machine Learning 52, 2003).

    `differences`, `train_sizes` and `test_sizes` are `(k,)`, one of each fold. Folds share training videos, so their
    scores are correlated: the variance of the mean is the sample variance times 1/k + n_test/n_train (the mean of that
    ratio where folds differ in size), with k - 1 degrees of freedom.

    NaN for fewer than two folds or an undefined difference; 1 when all differences are 0; 0, the limit, when all are
    the same other number: a p value of 0 says that the folds do not vary, which asks for a look at the runs.
    """
    from scipy.special import stdtr

    differences = np.asarray(differences, dtype=float)
    num_folds = len(differences)
    if num_folds < 2 or np.isnan(differences).any():
        return NAN
    if not differences.any():
        return 1.0
    ratio = np.mean(np.asarray(test_sizes) / np.asarray(train_sizes))
    error = differences.std(ddof=1) * np.sqrt(1 / num_folds + ratio)
    with np.errstate(divide="ignore"):  # equal differences: t is infinite, p the limit 0
        t = np.abs(differences.mean()) / error
    return float(2 * stdtr(num_folds - 1, -t))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p values `(n,)` adjusted for their number (Holm, Scand. J. Stat. 6, 1979); NaN stays NaN and does not count."""
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)  # the smallest of n times n, the next times n - 1 ...
    adjusted = np.full(len(p_values), np.nan)
    # the running maximum: no p value may end below a smaller one
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def tie_letters(names_best_first: Sequence[str], adjusted_p: np.ndarray, *, alpha: float = 0.05) -> dict[str, str]:
    """Compact letter display: two encoders share a letter exactly when they do not differ significantly.

    `adjusted_p` is symmetric `(n, n)`, in the order of the names; p < `alpha` is significant, NaN is not. The best
    encoder has an "a". Letters run a to z, then A to Z, then through other alphabets: one character each.

    Insert and absorb (Piepho, J. Comput. Graph. Stat. 13, 2004): start from one letter for all; a pair that differs
    splits every letter that both have into one without the first and one without the second; a letter whose holders
    also share another one goes.

    Raises `ValueError` for a matrix that is not symmetric or of another size.
    """
    num_encoders = len(names_best_first)
    adjusted_p = np.asarray(adjusted_p, dtype=float)
    if adjusted_p.shape != (num_encoders, num_encoders):
        raise ValueError(f"expected p values {(num_encoders, num_encoders)}, found {adjusted_p.shape}")
    if not np.array_equal(adjusted_p, adjusted_p.T, equal_nan=True):
        raise ValueError("expected symmetric p values, found two for the same pair")
    holders = {frozenset(range(num_encoders))}  # a letter is the set of the encoders that have it
    for pair in combinations(range(num_encoders), 2):
        if not adjusted_p[pair] < alpha:  # also NaN
            continue
        shared = {each for each in holders if each.issuperset(pair)}
        kept = holders - shared
        pieces = {each - {place} for each in shared for place in pair}  # insert
        holders = kept | {piece for piece in pieces if not any(piece < other for other in kept | pieces)}  # absorb
    letters = dict.fromkeys(names_best_first, "")
    alphabet = chain(string.ascii_letters, filter(str.isalpha, map(chr, range(ord("À"), sys.maxunicode))))
    for letter, places in zip(alphabet, sorted(map(sorted, holders)), strict=False):
        for place in places:
            letters[names_best_first[place]] += letter
    return letters


@dataclass(frozen=True)
class VarianceComponents:
    """Variances, in the measure's unit squared; see `variance_components`."""

    fold: float
    seed: float
    residual: float


def variance_components(values: np.ndarray) -> VarianceComponents:
    """Parts of the variance of one measure `(num_folds, num_seeds)` that come from fold, seed, and the rest.

    Estimated is value = mean + fold + seed + residual with all three random: `fold` is what all seeds of a fold share
    (hard and easy test videos), `seed` what all folds of a seed share, `residual` everything else. A seed that helps
    one fold and harms another is residual, so a single rerun of a fold varies by `seed` + `residual`.

    Method of moments: mean squares of the two-way table without replicates, equated to their expectations (Searle,
    Casella and McCulloch, Variance Components, 1992); an estimate below 0 is 0. With a single fold or seed none of
    the three can be told from another: all are NaN, as they are for an undefined value.
    """
    values = np.asarray(values, dtype=float)
    num_folds, num_seeds = values.shape
    if min(values.shape) < 2:
        return VarianceComponents(NAN, NAN, NAN)
    fold_means, seed_means = values.mean(axis=1), values.mean(axis=0)
    # what neither the row nor the column explains
    rest = values - fold_means[:, None] - seed_means + values.mean()
    residual = np.sum(rest**2) / ((num_folds - 1) * (num_seeds - 1))
    # means still hold a share of the residual: of as many values as were averaged
    fold = fold_means.var(ddof=1) - residual / num_seeds
    seed = seed_means.var(ddof=1) - residual / num_folds
    return VarianceComponents(*(float(np.maximum(variance, 0)) for variance in (fold, seed, residual)))
