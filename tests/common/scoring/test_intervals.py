"""Intervals: by hand, against scipy, and in simulations where the truth is known."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from common.scoring.intervals import Interval, crossed_interval, sum_interval
from common.scoring.metrics import accuracy, recall_per_class

NUM_VIDEOS, NUM_TRIALS, DRAWS = 100, 1000, 2000


def skewed(num_videos: int, seed: int = 0) -> np.ndarray:
    """Synthetic scores of 0 to 1 with a tail of bad videos."""
    return np.random.default_rng(seed).beta(8, 2, num_videos)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def mean_interval(values, **options) -> Interval:
    """Of the mean over videos of `values` `(N,)`."""
    return sum_interval(np.stack([values, np.ones(len(values))], axis=1), ratio, **options)


def bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


SAMPLES = {
    "scores": skewed(30),
    "few scores": skewed(12, seed=3),
    "long tail": np.random.default_rng(1).lognormal(sigma=1.2, size=25),
}


@pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)
def test_mean_interval_agrees_with_scipy(values):
    """Within the noise of 20,000 draws, which is smaller than what separates these bounds from plain percentiles."""
    ours = mean_interval(values, draws=20_000)
    theirs, percentiles = (
        scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method=method, rng=0).confidence_interval
        for method in ("BCa", "percentile")
    )
    tolerance = 0.03 * (theirs.high - theirs.low)
    assert ours.estimate == pytest.approx(values.mean())
    assert bounds(ours) == pytest.approx(theirs, abs=tolerance)
    assert bounds(ours) != pytest.approx(percentiles, abs=tolerance)


def test_interval_of_a_ratio_agrees_with_scipy():
    rng = np.random.default_rng(2)
    frames = rng.lognormal(6, 0.8, 40)
    hits = frames * rng.beta(8, 2, 40)
    theirs = scipy_stats.bootstrap(
        (hits, frames), lambda x, y, axis: x.sum(axis) / y.sum(axis), paired=True, n_resamples=20_000, rng=0
    ).confidence_interval
    ours = sum_interval(np.stack([hits, frames], axis=1), ratio, draws=20_000)
    assert ours.estimate == pytest.approx(hits.sum() / frames.sum())
    assert bounds(ours) == pytest.approx(theirs, abs=0.03 * (theirs.high - theirs.low))


def test_confusion_matrices_are_summed_over_videos():
    confusions = np.random.default_rng(0).integers(0, 500, (20, 5, 5))
    counts = np.stack([np.trace(confusions, axis1=1, axis2=2), confusions.sum((1, 2))], axis=1)
    assert sum_interval(confusions, accuracy) == sum_interval(counts, ratio)


def test_a_higher_confidence_gives_a_wider_interval():
    narrow, wide = (mean_interval(skewed(50), confidence=confidence) for confidence in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_draws_that_equal_the_estimate_lie_half_on_either_side():
    """Two videos: a quarter of the draws is 0, half 0.5, a quarter 1, without any bias."""
    assert mean_interval([0, 1]) == Interval(0.5, 0, 1)


def test_the_seed_decides():
    values = skewed(50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_equal_values_give_a_point():
    """Sums of 0.1 differ in their last digits; that is no spread."""
    for value in (0.1, 0.7, 0.0):
        interval = mean_interval([value] * 7)
        assert interval.low == interval.estimate == interval.high == pytest.approx(value)


def test_one_video_has_no_interval_and_none_no_estimate():
    one, none = mean_interval([0.5]), mean_interval([])
    assert one.estimate == 0.5
    assert np.isnan([*bounds(one), none.estimate, *bounds(none)]).all()


def test_an_undefined_estimate_has_no_bounds():
    interval = sum_interval(np.zeros((5, 2)), ratio)
    assert np.isnan([interval.estimate, *bounds(interval)]).all()


def recall_of_a_phase(num_videos_with_it: int) -> Interval:
    """The pooled recall of a phase that only the first of 12 videos have; each finds another share of it."""
    confusions = np.zeros((12, 2, 2))
    confusions[:, 1, 1] = 100
    confusions[:num_videos_with_it, 0, 0] = range(10, 10 * num_videos_with_it + 1, 10)
    confusions[:num_videos_with_it, 0, 1] = 50
    return sum_interval(confusions, lambda sums: recall_per_class(sums)[:, 0])


def test_draws_without_the_phase_are_left_out_of_its_interval():
    """Four of 12 videos have it: (8/12)^12 = 0.8 % of the draws miss it."""
    interval = recall_of_a_phase(4)
    assert interval.estimate == 100 / 300
    assert 10 / 60 < interval.low < interval.estimate < interval.high <= 40 / 90


def test_infinite_draws_are_undefined():
    """Three of 12 videos have something to divide by: 3 % of the draws have nothing."""
    per_video = np.ones((12, 2))
    per_video[3:, 1] = 0
    interval = sum_interval(per_video, ratio)
    assert 12 / 9 < interval.low < interval.estimate == 4 < interval.high <= 12


def test_a_phase_that_too_many_draws_miss_has_no_bounds():
    """One of 12 videos has it: (11/12)^12 = 35 % of the draws miss it."""
    interval = recall_of_a_phase(1)
    assert interval.estimate == 10 / 60
    assert np.isnan(bounds(interval)).all()


def test_an_estimate_beside_all_draws_gets_percentiles_that_hold_it():
    """The most often drawn of 20 videos: once in the sample, at least twice in (nearly) every draw."""
    highest = sum_interval(np.eye(20), lambda counts: counts.max(axis=1))
    lowest = sum_interval(np.eye(20), lambda counts: -counts.max(axis=1))
    assert bounds(highest) == (1, 5)
    assert bounds(lowest) == (-5, -1)


def test_videos_of_one_patient_are_drawn_together():
    """Every video twice says nothing new: true of the interval only where patients are named."""
    values = skewed(40)
    patients = [f"patient {number}" for number in range(40)]
    once, twice = np.stack([values, np.ones(40)], axis=1), np.repeat(values, 2)
    assert mean_interval(twice, groups=np.repeat(patients, 2)) == mean_interval(values) == sum_interval(once, ratio)
    unaware = mean_interval(twice)
    width, narrower = (np.ptp(bounds(interval)) for interval in (mean_interval(values), unaware))
    assert narrower == pytest.approx(width / np.sqrt(2), rel=0.1)


def test_videos_of_a_patient_need_not_be_neighbours():
    values, patients = skewed(12), [("site A", number % 4) for number in range(12)]
    order = np.argsort([number for _, number in patients], kind="stable")
    in_order = mean_interval(values[order], groups=[patients[place] for place in order])
    mixed = mean_interval(values, groups=patients)
    assert mixed.estimate == pytest.approx(values.mean())
    assert (mixed.estimate, *bounds(mixed)) == pytest.approx((in_order.estimate, *bounds(in_order)))


def test_every_video_has_a_group():
    with pytest.raises(ValueError, match="one group for each of 3 videos, found 2"):
        mean_interval([0.5, 0.6, 0.7], groups=["a", "b"])


def interval_of_mean(rng: np.random.Generator, trial: int) -> Interval:
    return mean_interval(rng.beta(8, 2, NUM_VIDEOS), draws=DRAWS, seed=trial)


def interval_of_pooled_ratio(rng: np.random.Generator, trial: int) -> Interval:
    """Of frame accuracy over videos of very different length, independent of how well a video is read."""
    frames = rng.lognormal(8, 0.5, NUM_VIDEOS)
    hits = frames * rng.beta(8, 2, NUM_VIDEOS)
    return sum_interval(np.stack([hits, frames], axis=1), ratio, draws=DRAWS, seed=trial)


@pytest.mark.slow
@pytest.mark.parametrize("make_interval", [interval_of_mean, interval_of_pooled_ratio])
def test_intervals_cover_the_truth_as_often_as_they_say(make_interval):
    """10,000 trials with another seed gave 94.5 % for the mean and 93.9 % for the ratio: a little short, as BCa is."""
    rng = np.random.default_rng(42)
    intervals = [make_interval(rng, trial) for trial in range(NUM_TRIALS)]
    covered = sum(interval.low <= 8 / 10 <= interval.high for interval in intervals)
    low, high = scipy_stats.binom.ppf([0.005, 0.995], NUM_TRIALS, 0.95)
    assert low <= covered <= high


# --- folds and seeds --------------------------------------------------------------------------------------------


def test_an_interval_over_folds_and_seeds_draws_whole_rows_and_columns():
    """Rows differ, columns do not: the bounds are those of five values, not of fifty."""
    of_folds = np.repeat([[0.0], [1.0], [2.0], [3.0], [4.0]], 10, axis=1)
    found = crossed_interval(of_folds)
    assert found.estimate == 2
    assert found.low < 1 < 3 < found.high
    assert bounds(crossed_interval(of_folds.T)) == pytest.approx(bounds(found), abs=0.2)
    assert crossed_interval(np.full((3, 4), 0.5)) == Interval(0.5, 0.5, 0.5)
    for undefined in (np.array([[0.5]]), np.array([[0.5, np.nan]])):
        assert np.isnan(crossed_interval(undefined).low)
