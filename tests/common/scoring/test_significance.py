"""Effect sizes, p values, letters of ties, variance components: by hand, against scipy, and in simulations."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from common.scoring.intervals import Interval, sum_interval
from common.scoring.significance import (
    EffectSize,
    corrected_resampled_t_test,
    effect_size,
    effect_sizes,
    holm,
    paired_permutation_test,
    paired_permutation_tests,
    smallest_p,
    tie_letters,
    variance_components,
)

NUM_VIDEOS, NUM_TRIALS, DRAWS = 100, 1000, 2000


def skewed(num_videos: int, seed: int = 0) -> np.ndarray:
    """Synthetic scores of 0 to 1 with a tail of bad videos."""
    return np.random.default_rng(seed).beta(8, 2, num_videos)


def bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def chance_band(rate: float) -> tuple[float, float]:
    """How many of `NUM_TRIALS` events of a probability may happen: the central 99 % of the binomial distribution."""
    low, high = scipy_stats.binom.ppf([0.005, 0.995], NUM_TRIALS, rate)
    return low, high


# --- effect sizes


def test_effect_size_by_hand():
    effect = effect_size([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert effect.difference.estimate == 2
    assert effect.standardised.estimate == pytest.approx(2)
    assert effect.difference == sum_interval(np.array([[1, 1], [2, 1], [3, 1]]), lambda sums: sums[:, 0] / sums[:, 1])


def test_standardised_difference_agrees_with_scipy():
    a, b = skewed(30), skewed(30, seed=1) - 0.05
    theirs = scipy_stats.bootstrap(
        (a - b,), lambda d, axis: d.mean(axis) / d.std(axis, ddof=1), n_resamples=20_000, rng=0
    ).confidence_interval
    ours = effect_size(a, b, draws=20_000).standardised
    assert ours.estimate == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert bounds(ours) == pytest.approx(theirs, abs=0.03 * (theirs.high - theirs.low))


def test_effect_sizes_of_swapped_encoders_are_opposite():
    """In the estimate exactly, in the bounds up to how quantiles lie between draws."""
    a, b = skewed(60), skewed(60, seed=1)
    there, back = effect_size(a, b), effect_size(b, a)
    for one, other in ((there.difference, back.difference), (there.standardised, back.standardised)):
        assert (one.estimate, *bounds(one)) == pytest.approx((-other.estimate, -other.high, -other.low))


def test_effect_sizes_know_patients():
    a, b = skewed(20), skewed(20, seed=1)
    patients = np.repeat(np.arange(20), 2)
    grouped = effect_size(np.repeat(a, 2), np.repeat(b, 2), groups=patients)
    assert grouped.difference == effect_size(a, b).difference
    assert np.ptp(bounds(effect_size(np.repeat(a, 2), np.repeat(b, 2)).standardised)) < np.ptp(
        bounds(grouped.standardised)
    )


@pytest.mark.parametrize("shift", [0.0, 0.1, 1 / 3, 0.7])
def test_differences_that_do_not_vary_have_no_standardised_mean(shift):
    a = skewed(20)
    effect = effect_size(a + shift, a)
    assert bounds(effect.difference) == pytest.approx((shift, shift))
    assert np.isnan([effect.standardised.estimate, *bounds(effect.standardised)]).all()


def test_effect_size_without_videos_is_undefined():
    effect = effect_size([], [], groups=[])
    assert isinstance(effect, EffectSize)
    assert np.isnan([effect.difference.estimate, effect.standardised.estimate]).all()


# --- many pairs at once


@pytest.mark.parametrize("num_videos", [0, 1, 7, 40])
@pytest.mark.parametrize("grouped", [False, True])
def test_pairs_at_once_are_those_one_by_one(num_videos, grouped):
    """Among them one without a difference, and one whose difference is the same in every video."""
    scores = np.stack([*(skewed(num_videos, seed=seed) for seed in range(4)), np.zeros(num_videos)], axis=1)
    scores = np.concatenate([scores, scores[:, :1], scores[:, :1] + 0.25], axis=1)
    groups = [place // 2 for place in range(num_videos)] if grouped else None
    pairs = list(combinations(scores.T, 2))
    differences = np.stack([a - b for a, b in pairs], axis=1)
    p_values = [paired_permutation_test(a, b, groups=groups) for a, b in pairs]
    assert paired_permutation_tests(differences, groups=groups).tolist() == pytest.approx(p_values, nan_ok=True)
    for effect, (a, b) in zip(effect_sizes(differences, groups=groups), pairs, strict=True):
        alone = effect_size(a, b, groups=groups)
        for one, other in ((effect.difference, alone.difference), (effect.standardised, alone.standardised)):
            assert (one.estimate, *bounds(one)) == pytest.approx(
                (other.estimate, *bounds(other)), rel=1e-12, abs=1e-12, nan_ok=True
            )


# --- paired permutation test


def test_permutation_test_by_hand():
    """Of the 8 signed sums of 1, 2 and 3 only 6 and -6 are as large; of those of a patient's 1 + 1 and 2, half are."""
    assert paired_permutation_test([2, 4, 6], [1, 2, 3]) == 2 / 8
    assert paired_permutation_test([1, 1, 2], [0, 0, 0], groups=["A", "A", "B"]) == 2 / 4
    assert paired_permutation_test([5], [4]) == 1
    assert np.isnan(paired_permutation_test([], []))


@pytest.mark.parametrize("seed", range(5))
def test_as_many_draws_as_assignments_but_one_are_enough_to_try_them_all(seed):
    """Of the 8 signed sums of 1, 1 and 1 two are as large, whatever would be drawn."""
    assert paired_permutation_test([1, 1, 1], [0, 0, 0], draws=7, seed=seed) == 2 / 8


@pytest.mark.parametrize("num_videos", [5, 13])
def test_few_videos_are_enumerated_as_by_scipy(num_videos):
    a, b = skewed(num_videos) + 0.08, skewed(num_videos, seed=1)
    theirs = scipy_stats.permutation_test(
        (a - b,), lambda d, axis: d.mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert paired_permutation_test(a, b) == theirs.pvalue


def test_random_signs_come_near_the_enumeration():
    a, b = skewed(12) + 0.08, skewed(12, seed=1)
    exact, drawn = paired_permutation_test(a, b), paired_permutation_test(a, b, draws=4000)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_sums_that_differ_by_rounding_are_ties():
    """Of 0.1, 0.2, 0.3 and -0.4 half the signed sums are at least 0.2, as of 1, 2, 3 and -4 at least 2."""
    whole = np.array([1, 2, 3, -4])
    sums = whole @ (1 - 2 * (np.arange(16) >> np.arange(4)[:, None] & 1))
    expected = np.mean(np.abs(sums) >= whole.sum())
    for unit in (1, 0.1, 1e-9):
        assert paired_permutation_test(whole * unit, np.zeros(4)) == expected


def test_p_is_never_zero():
    """All 155 videos better: no random assignment of signs comes near, but the one observed counts."""
    assert paired_permutation_test(np.ones(155), np.zeros(155)) == 1 / 10_000


def test_equal_encoders_and_swapped_encoders():
    a, b = skewed(50), skewed(50, seed=1)
    assert paired_permutation_test(a, a) == 1
    assert paired_permutation_test(a, b) == paired_permutation_test(b, a) < 1


def test_repeated_videos_are_evidence_only_without_their_patients():
    a, b = skewed(30) + 0.04, skewed(30, seed=1)
    four_times = np.repeat(a, 4), np.repeat(b, 4)
    assert paired_permutation_test(*four_times, groups=np.repeat(np.arange(30), 4)) == paired_permutation_test(a, b)
    assert paired_permutation_test(*four_times) < paired_permutation_test(a, b)


@pytest.mark.parametrize("compare", [effect_size, paired_permutation_test])
def test_encoders_are_compared_on_the_same_defined_videos(compare):
    with pytest.raises(ValueError, match="two values of every video, found 3 and 1"):
        compare([0.1, 0.2, 0.3], [0.1])
    with pytest.raises(ValueError, match="found 1 undefined of 2; drop them"):
        compare([0.1, 0.2], [np.nan, 0.2])


def test_permutation_test_rejects_equal_encoders_as_often_as_it_says():
    """Two encoders of equal worth on the same easy and hard videos; the skew of the scores does no harm."""
    rng = np.random.default_rng(11)
    rejected = 0
    for trial in range(NUM_TRIALS):
        easiness = rng.beta(8, 2, NUM_VIDEOS)
        a, b = (rng.beta(20 * easiness, 20 * (1 - easiness)) for _ in range(2))
        rejected += paired_permutation_test(a, b, draws=DRAWS, seed=trial) < 0.05
    low, high = chance_band(0.05)
    assert low <= rejected <= high


# --- Holm


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last is lifted from 0.04 to what the one before it has."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_below_one_and_keeps_the_order():
    assert holm([0.9, 0.5, 0.6]).tolist() == [1, 1, 1]
    p_values = np.random.default_rng(0).random(30) ** 3
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()


def test_an_undefined_p_value_does_not_count():
    assert holm([np.nan, 0.02, 0.01, np.nan]) == pytest.approx([np.nan, 0.02, 0.02, np.nan], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).shape == (0,)


def test_holm_keeps_the_error_of_a_whole_family():
    """Four encoders of equal worth make six pairs; some pair seems to differ far too often without the correction."""
    rng = np.random.default_rng(5)
    wrong = np.zeros(2, dtype=int)
    for trial in range(NUM_TRIALS):
        scores = rng.beta(8, 2, (4, NUM_VIDEOS))
        p_values = [paired_permutation_test(a, b, draws=DRAWS, seed=trial) for a, b in combinations(scores, 2)]
        wrong += [min(p_values) < 0.05, holm(p_values).min() < 0.05]
    uncorrected, corrected = wrong
    assert corrected <= chance_band(0.05)[1] < uncorrected / 2


# --- corrected resampled t-test


def test_corrected_t_test_by_hand():
    """Variance times 1/3 + 20/40; with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)."""
    t = 0.02 / (0.01 * np.sqrt(1 / 3 + 1 / 2))
    p_value = corrected_resampled_t_test([0.01, 0.03, 0.02], [40, 40, 40], [20, 20, 20])
    assert p_value == pytest.approx(1 - t / np.sqrt(2 + t**2))
    assert corrected_resampled_t_test([-0.01, -0.03, -0.02], [40, 40, 40], [20, 20, 20]) == pytest.approx(p_value)


def test_without_the_correction_it_is_the_plain_t_test():
    differences = np.random.default_rng(0).normal(0.5, 1, 10)
    plain = scipy_stats.ttest_1samp(differences, 0).pvalue
    assert corrected_resampled_t_test(differences, [90] * 10, [0] * 10) == pytest.approx(plain)
    assert corrected_resampled_t_test(differences, [90] * 10, [10] * 10) > plain


def test_folds_of_several_sizes_count_with_their_mean_ratio():
    differences = [0.01, 0.03]
    assert corrected_resampled_t_test(differences, [10, 10], [2, 4]) == corrected_resampled_t_test(
        differences, [10, 10], [3, 3]
    )


def test_t_test_of_folds_that_do_not_vary():
    assert corrected_resampled_t_test([0.0] * 5, [80] * 5, [20] * 5) == 1
    assert corrected_resampled_t_test([0.25] * 5, [80] * 5, [20] * 5) == 0
    assert corrected_resampled_t_test([0.1] * 5, [80] * 5, [20] * 5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, np.nan, 0.2]])
def test_t_test_needs_two_defined_folds(differences):
    assert np.isnan(corrected_resampled_t_test(differences, [80] * len(differences), [20] * len(differences)))


def fold_differences(num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Differences `(NUM_TRIALS, num_folds)` of two encoders of equal worth, in k-fold cross-validation of 100 videos.

    Each fold adds what its test videos happen to say and what its training videos happen to teach. Training sets
    share videos, so folds are correlated; the weights give the correlation n_test / (n_test + n_train) that Nadeau
    and Bengio assume.
    """
    fold = np.arange(NUM_VIDEOS) % num_folds
    in_test = (fold == np.arange(num_folds)[:, None]).astype(float)
    test_mean = in_test / in_test.sum(axis=1, keepdims=True)
    train_mean = (1 - in_test) / (1 - in_test).sum(axis=1, keepdims=True)
    said, taught = rng.normal(size=(2, NUM_TRIALS, NUM_VIDEOS))
    correlation, shared = 1 / num_folds, (num_folds - 2) / (num_folds - 1)
    share_taught = correlation / shared  # of a fold's variance
    unit_said, unit_taught = (said @ test_mean.T / np.linalg.norm(test_mean[0]), taught @ train_mean.T)
    unit_taught /= np.linalg.norm(train_mean[0])
    return np.sqrt(1 - share_taught) * unit_said + np.sqrt(share_taught) * unit_taught


@pytest.mark.parametrize("num_folds", [5, 10])
def test_corrected_t_test_holds_where_training_sets_overlap(num_folds):
    """The plain t-test takes folds for independent and is wrong more than twice as often as it says."""
    differences = fold_differences(num_folds, np.random.default_rng(3))
    correlations = np.corrcoef(differences.T)[np.triu_indices(num_folds, 1)]
    assert correlations.mean() == pytest.approx(1 / num_folds, abs=0.03)
    test_size = NUM_VIDEOS // num_folds
    sizes = [NUM_VIDEOS - test_size] * num_folds, [test_size] * num_folds
    corrected = sum(corrected_resampled_t_test(row, *sizes) < 0.05 for row in differences)
    plain = np.count_nonzero(scipy_stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert scipy_stats.binom.ppf(0.005, NUM_TRIALS, 0.05) <= corrected <= chance_band(0.05)[1]
    assert plain > 2 * 0.05 * NUM_TRIALS


# --- letters


def p_values_of(num_encoders: int, different: list[tuple[int, int]]) -> np.ndarray:
    p_values = np.ones((num_encoders, num_encoders))
    for first, second in different:
        p_values[first, second] = p_values[second, first] = 0.001
    return p_values


LETTER_CASES = {
    "all tied": ([], "a a a"),
    "all different": ([(0, 1), (0, 2), (1, 2)], "a b c"),
    "the middle is tied with both ends, which differ": ([(0, 2)], "a ab b"),
    "the best alone": ([(0, 1), (0, 2)], "a b b"),
    "the last alone": ([(0, 2), (1, 2)], "a a b"),
    "best and last tied, the middle differs from the best": ([(0, 1)], "a b ab"),
}


@pytest.mark.parametrize(("different", "expected"), LETTER_CASES.values(), ids=LETTER_CASES)
def test_letters_of_three_encoders(different, expected):
    letters = tie_letters(["best", "middle", "last"], p_values_of(3, different))
    assert letters == dict(zip(["best", "middle", "last"], expected.split(), strict=True))


def test_letters_of_a_chain():
    """Each encoder is tied with its neighbours only."""
    different = [(first, second) for first, second in combinations(range(5), 2) if second - first > 1]
    assert list(tie_letters("vwxyz", p_values_of(5, different)).values()) == ["a", "ab", "bc", "cd", "d"]


def test_alpha_itself_is_not_significant_and_neither_is_an_undefined_p_value():
    p_values = p_values_of(3, [])
    p_values[0, 1] = p_values[1, 0] = 0.05
    p_values[0, 2] = p_values[2, 0] = np.nan
    assert set(tie_letters("xyz", p_values).values()) == {"a"}
    assert tie_letters("xyz", p_values, alpha=0.06) == {"x": "a", "y": "b", "z": "ab"}


@pytest.mark.parametrize("share_different", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("num_encoders", [1, 2, 6, 13])
def test_encoders_share_a_letter_exactly_when_they_do_not_differ(num_encoders, share_different):
    rng = np.random.default_rng(num_encoders)
    names = [f"encoder {number}" for number in range(num_encoders)]
    for _ in range(20):
        different = [pair for pair in combinations(range(num_encoders), 2) if rng.random() < share_different]
        letters = tie_letters(names, p_values_of(num_encoders, different))
        assert "a" in letters[names[0]]
        for pair in combinations(range(num_encoders), 2):
            share = set(letters[names[pair[0]]]) & set(letters[names[pair[1]]])
            assert bool(share) != (pair in different)


def test_no_letter_is_superfluous_to_another():
    rng = np.random.default_rng(1)
    different = [pair for pair in combinations(range(12), 2) if rng.random() < 0.4]
    letters = tie_letters(range(12), p_values_of(12, different))
    holders = [{name for name, own in letters.items() if letter in own} for letter in set("".join(letters.values()))]
    assert not any(one < other for one in holders for other in holders)


def test_more_encoders_than_letters_of_the_alphabet():
    every_pair = list(combinations(range(60), 2))
    letters = tie_letters(range(60), p_values_of(60, every_pair))
    assert "".join(letters.values()).startswith("abcdefghijklmnopqrstuvwxyzABC")
    assert {len(own) for own in letters.values()} == {1}
    assert len(set(letters.values())) == 60


def test_unsuitable_p_values_are_refused():
    with pytest.raises(ValueError, match=r"expected p values \(3, 3\), found \(2, 2\)"):
        tie_letters("xyz", np.ones((2, 2)))
    with pytest.raises(ValueError, match="symmetric"):
        tie_letters("xy", [[1, 0.01], [0.5, 1]])


# --- what so few videos could show


@pytest.mark.parametrize("num_videos", [1, 2, 5, 13, 40])
def test_the_smallest_p_is_that_of_differences_of_one_sign(num_videos):
    """Every assignment is tried up to 13 videos; of random ones none is as large where there are many videos."""
    assert paired_permutation_test(np.arange(1.0, num_videos + 1), np.zeros(num_videos)) == smallest_p(num_videos)


def test_the_smallest_p_by_hand():
    assert [smallest_p(count) for count in (1, 5, 10)] == [1.0, 2 / 32, 2 / 1024]
    assert smallest_p(100) == 1 / 10_000
    assert smallest_p(100, draws=99) == 0.01
    assert np.isnan(smallest_p(0))


def test_groups_are_what_the_smallest_p_counts():
    """Twelve videos of four patients show no more than four numbers do."""
    groups = np.repeat(np.arange(4), 3)
    assert paired_permutation_test(np.arange(1.0, 13), np.zeros(12), groups=groups) == smallest_p(4)


# --- variance components


def test_variance_components_by_hand():
    """Variance 4 of the fold means, 50/9 of the seed means, residual mean square (1 + 1 + 4 + 4 + 1 + 1) / 9 / 2."""
    components = variance_components(np.array([[1, 5], [4, 6], [5, 9]]))
    expected = (4 - 2 / 3 / 2, 50 / 9 - 2 / 3 / 3, 2 / 3)
    assert (components.fold, components.seed, components.residual) == pytest.approx(expected)


def test_a_negative_variance_is_zero():
    """Seed means are equal although the residual, of mean square 1, should make them differ."""
    components = variance_components(np.array([[1, 2], [4, 3]]))
    assert (components.fold, components.seed, components.residual) == pytest.approx((1.5, 0, 1))


def test_variance_components_find_the_truth():
    """Large enough a table that the estimates lie near 9, 4 and 1, and not near one another."""
    rng = np.random.default_rng(0)
    folds, seeds = rng.normal(0, 3, (400, 1)), rng.normal(0, 2, (1, 400))
    components = variance_components(70 + folds + seeds + rng.normal(0, 1, (400, 400)))
    assert (components.fold, components.seed, components.residual) == pytest.approx((9, 4, 1), rel=0.2)


@pytest.mark.parametrize("values", [np.ones((5, 1)), np.ones((1, 3)), np.array([[1, 2], [np.nan, 4]])])
def test_variance_components_that_cannot_be_told_apart_are_undefined(values):
    components = variance_components(values)
    assert np.isnan([components.fold, components.seed, components.residual]).all()
