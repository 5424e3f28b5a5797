"""Mean ranks over data sets: by hand, against scipy, and how often their intervals hold the true rank."""

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata

from common.scoring.ranks import kendall, kendalls, mean_ranks, ranks_of


def simulated(random, num_encoders, num_sets, num_videos, shared, own, draws=400):
    """True mean ranks, the means that were measured, and a bootstrap over the videos of each set.

    `shared` and `own` are deviations of an encoder over all sets and in one, in standard errors of a difference.
    """
    base = shared * random.standard_normal(num_encoders)
    truths, values, deviations = [], [], []
    for _ in range(num_sets):
        true = base + own * random.standard_normal(num_encoders)
        noise = random.standard_normal((num_videos, num_encoders)) + random.standard_normal((num_videos, 1))
        videos = true * np.sqrt(2 / num_videos) + noise
        times_drawn = random.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=draws)
        truths.append(ranks_of(true))
        values.append(videos.mean(axis=0))
        deviations.append(times_drawn @ videos / num_videos - videos.mean(axis=0))
    return np.mean(truths, axis=0), np.array(values), deviations


def test_the_largest_is_first_and_equal_ones_share_the_mean_rank():
    assert ranks_of(np.array([0.2, 0.9, 0.5, 0.9])).tolist() == [4.0, 1.5, 3.0, 1.5]


def test_sums_in_another_order_are_equal():
    assert ranks_of(np.array([0.1 + 0.2, 0.3])).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_tau_are_those_of_scipy(seed):
    first, second = np.random.default_rng(seed).integers(0, 6, (2, 9)).astype(float)
    assert ranks_of(first).tolist() == rankdata(-first).tolist()
    assert kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)


def test_tau_is_of_the_encoders_that_have_both_values():
    first, second = np.array([3.0, np.nan, 1.0, 2.0]), np.array([1.0, 2.0, 0.0, 3.0])
    assert kendall(first, second) == pytest.approx(kendalltau(first, second, nan_policy="omit").statistic)


def test_tau_of_an_order_without_any_difference_is_undefined():
    assert np.isnan(kendall(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])))


def test_taus_of_many_draws_are_those_of_each():
    random = np.random.default_rng(5)
    first, second = random.integers(0, 4, (2, 40, 4))
    first[0] = 1
    found = kendalls(first, second)
    assert found == pytest.approx(
        [kendalltau(*pair).statistic for pair in zip(first, second, strict=True)], nan_ok=True
    )
    assert np.isnan(found[0])


def test_mean_ranks_by_hand():
    values = np.array([[0.9, 0.8, 0.1], [0.5, 0.7, 0.6]])
    found = mean_ranks(values, [np.zeros((10, 3)), np.zeros((10, 3))])
    assert found.estimates.tolist() == [2.0, 1.5, 2.5]


def test_without_noise_an_interval_is_the_rank_itself_and_every_order_is_settled():
    values = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]])
    random = np.random.default_rng(0)
    found = mean_ranks(values, [1e-6 * random.standard_normal((500, 3)) for _ in range(2)])
    assert [(each.low, each.estimate, each.high) for each in found.intervals()] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    p_values = found.p_values()
    assert p_values[0, 1] == p_values[1, 2] == pytest.approx(2 / 501)
    assert found.agreement(0, 1) == (1.0, 1.0)


def test_encoders_that_differ_by_noise_alone_have_every_rank():
    """Nothing but noise: intervals reach nearly from the first place to the last, and no pair is told apart."""
    random = np.random.default_rng(1)
    _, values, deviations = simulated(random, 6, 1, 60, shared=0.0, own=0.0)
    found = mean_ranks(values * 1e-3, deviations)
    assert all(each.low <= 2 and each.high >= 5 for each in found.intervals())
    assert found.p_values()[np.triu_indices(6, 1)].min() > 0.05


def test_what_all_encoders_share_in_a_drawn_video_says_nothing():
    """A hard video moves all encoders alike: adding such noise changes no interval."""
    random = np.random.default_rng(2)
    _, values, deviations = simulated(random, 5, 3, 40, shared=1.0, own=1.0)
    shared = [each + 10 * random.standard_normal((len(each), 1)) for each in deviations]
    for one, other in zip(
        mean_ranks(values, deviations).intervals(), mean_ranks(values, shared).intervals(), strict=True
    ):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_encoders", "num_sets", "shared", "own"), [(8, 4, 1.0, 1.0), (12, 5, 2.0, 1.0), (6, 8, 1.0, 1.0)]
)
def test_intervals_hold_the_true_mean_rank_in_93_to_97_percent(num_encoders, num_sets, shared, own):
    random = np.random.default_rng(3)
    held = []
    for _ in range(150):
        truth, values, deviations = simulated(random, num_encoders, num_sets, 40, shared, own)
        intervals = mean_ranks(values, deviations).intervals()
        held += [each.low - 1e-9 <= true <= each.high + 1e-9 for each, true in zip(intervals, truth, strict=True)]
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_plain_bootstrap_of_ranks_would_miss_it():
    """Why means are drawn to each other first: of many sets with nearly equal encoders a plain one is too sure."""
    random = np.random.default_rng(4)
    held = []
    for _ in range(40):
        truth, values, deviations = simulated(random, 8, 15, 40, shared=1.0, own=1.0)
        ranks = np.mean([ranks_of(of_set + each) for of_set, each in zip(values, deviations, strict=True)], axis=0)
        low, high = np.quantile(ranks, [0.025, 0.975], axis=0)
        held += ((low - 1e-9 <= truth) & (truth <= high + 1e-9)).tolist()
    assert np.mean(held) < 0.9


def test_draws_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="encoders 3"):
        mean_ranks(np.zeros((1, 3)), [np.zeros((10, 2))])


@pytest.mark.parametrize("sign", [1, -1], ids=["noise of both sets alike", "noise of each set its own"])
def test_means_are_drawn_to_each_other_by_what_noise_explains(sign):
    """By hand: noise of variance 2, 4 within sets so 3 of an encoder's own in each, 8 - 2 = 6 that it keeps over both."""
    noise = np.array([[1, -1, 0], [-1, 1, 0], [1, 1, -2], [-1, -1, 2]])
    drawn = mean_ranks([[6, 0, -6], [2, 0, -2]], [noise, sign * noise]).drawn * np.sqrt(2)
    kept_common, kept_own = 1 - 1 / (2 * 6 + 3 + 1), 1 - 1 / (3 + 1)
    first, second = 4 * kept_common + 2 * kept_own, 4 * kept_common - 2 * kept_own
    np.testing.assert_allclose(drawn.mean(axis=1), [[first, 0, -first], [second, 0, -second]], atol=1e-12)
    spread = np.sqrt(kept_common if sign == 1 else kept_own)
    np.testing.assert_allclose((drawn - drawn.mean(axis=1, keepdims=True))[1], sign * spread * noise, atol=1e-12)
