"""Balanced sampling: shares at their exact limits and by count, times uniform, orders that tile the batch."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from common.base.runtime import UserError, generator
from pretrain.video_data.clusters import Segment
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.sampling import BalancedSampling, SampleOrder
from pretrain.video_data.video_index import VideoEntry

NUM_DRAWS = 4000
ALMOST_NEVER = 1e-6  # probability that a right implementation fails a test by chance


def video(name: str, seconds: float, start: float = 0.0) -> VideoEntry:
    return VideoEntry(Path(f"{name}.mp4"), name, seconds, 25.0, None, 1, name, start)


@pytest.fixture
def corpora() -> list[Corpus]:
    """Three corpora of 16, 4 and 1 times 100 seconds."""
    large = tuple(video(f"l{number}", 100.0 * number) for number in (1, 3, 5, 7))
    return [Corpus("large", large), Corpus("middle", (video("m", 400.0),)), Corpus("small", (video("s", 100.0),))]


def draws(sampling: BalancedSampling, clip_seconds: float = 0.0, count: int = NUM_DRAWS) -> list:
    return [sampling.draw(generator(0, "test", number), clip_seconds) for number in range(count)]


def assert_share(found: int, expected: float, count: int = NUM_DRAWS) -> None:
    assert binomtest(found, count, expected).pvalue > ALMOST_NEVER


# --- shares -------------------------------------------------------------------------------------------------------


def test_power_zero_is_every_corpus_alike(corpora):
    assert BalancedSampling(corpora, alpha=0).corpus_shares == {"large": 1 / 3, "middle": 1 / 3, "small": 1 / 3}


def test_power_one_is_every_clip_alike(corpora):
    assert BalancedSampling(corpora, alpha=1).corpus_shares == {"large": 16 / 21, "middle": 4 / 21, "small": 1 / 21}


def test_power_one_half_lies_between(corpora):
    assert BalancedSampling(corpora, alpha=0.5).corpus_shares == pytest.approx(
        {"large": 4 / 7, "middle": 2 / 7, "small": 1 / 7}
    )


def test_weights_are_taken_as_they_are_up_to_scale(corpora):
    sampling = BalancedSampling(corpora, weights={"small": 335, "middle": 100, "large": 565})
    assert sampling.corpus_shares == {"large": 0.565, "middle": 0.1, "small": 0.335}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_draws_follow_the_shares(corpora, alpha):
    sampling = BalancedSampling(corpora, alpha=alpha)
    found = [moment.corpus for moment in draws(sampling)]
    for name, share in sampling.corpus_shares.items():
        assert_share(found.count(name), share)


def test_inside_a_corpus_videos_count_by_their_length(corpora):
    found = [moment.video.name for moment in draws(BalancedSampling(corpora[:1]))]
    for number in (1, 3, 5, 7):
        assert_share(found.count(f"l{number}"), number / 16)


def test_a_corpus_of_weight_zero_is_never_drawn(corpora):
    sampling = BalancedSampling(corpora, weights={"large": 0, "middle": 1, "small": 0})
    assert {moment.corpus for moment in draws(sampling, count=500)} == {"middle"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"large": 1, "middle": 1}, "given for large, middle; expected one for each of large, middle, small"),
        ({"large": 1, "middle": 1, "smal": 1}, "given for large, middle, smal"),
        ({"large": 1, "middle": -1, "small": 1}, "must be at least 0"),
        ({"large": 0, "middle": 0, "small": 0}, "not all 0"),
        ({"large": float("nan"), "middle": 1, "small": 1}, "must be at least 0"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(corpora, weights, message):
    with pytest.raises(UserError, match=message):
        BalancedSampling(corpora, weights=weights)


def test_a_corpus_without_length_is_an_error():
    with pytest.raises(UserError, match="corpus stills: its videos are single frames"):
        BalancedSampling([Corpus("stills", (video("a", 0.0),))])


# --- clusters -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clustered() -> tuple[list[Corpus], dict]:
    """One corpus of 100 seconds: cluster 0 has 64, cluster 1 has 32 in two videos, cluster 2 has 4."""
    clusters = {"eyes/a": [Segment(0, 64, 0), Segment(64, 80, 1)], "eyes/b": [Segment(0, 4, 2), Segment(4, 20, 1)]}
    return [Corpus("eyes", (video("a", 80.0), video("b", 20.0)))], clusters


@pytest.mark.parametrize(("alpha", "expected"), [(0, [1 / 3, 1 / 3, 1 / 3]), (1, [0.64, 0.32, 0.04])])
def test_cluster_shares_at_their_limits(clustered, alpha, expected):
    corpora, clusters = clustered
    sampling = BalancedSampling(corpora, clusters=clusters, cluster_alpha=alpha)
    assert [pool.share for pool in sampling.pools] == expected
    found = [moment.cluster for moment in draws(sampling)]
    for cluster, share in enumerate(expected):
        assert_share(found.count(cluster), share)


def test_shares_of_clusters_are_parts_of_their_corpus(clustered):
    corpora, clusters = clustered
    other = Corpus("knees", (video("k", 100.0),))
    sampling = BalancedSampling(
        [*corpora, other], weights={"eyes": 1, "knees": 3}, clusters=clusters | {"knees/k": [Segment(0, 99, 0)]}
    )
    assert sum(pool.share for pool in sampling.pools if pool.corpus == "eyes") == pytest.approx(0.25)


def test_moments_lie_in_the_segments_of_their_cluster(clustered):
    corpora, clusters = clustered
    for moment in draws(BalancedSampling(corpora, clusters=clusters), count=500):
        segments = clusters[f"{moment.corpus}/{moment.video.name}"]
        assert any(
            segment.start_seconds <= moment.start_seconds < segment.end_seconds
            for segment in segments
            if segment.cluster == moment.cluster
        )


def test_a_video_without_clusters_is_an_error(clustered):
    corpora, clusters = clustered
    del clusters["eyes/b"]
    with pytest.raises(UserError, match="corpus eyes: 1 videos have no cluster, first b; make the clusters again"):
        BalancedSampling(corpora, clusters=clusters)


def test_clusters_of_other_videos_are_an_error(clustered):
    corpora, _ = clustered
    with pytest.raises(UserError, match="corpus eyes: its clusters hold no stretch"):
        BalancedSampling(corpora, clusters={"eyes/a": [], "eyes/b": [Segment(50, 60, 0)]})


# --- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_seconds", [0.0, 3.75, 30.0])
def test_starts_are_uniform_over_those_at_which_the_clip_fits(clip_seconds):
    sampling = BalancedSampling([Corpus("eyes", (video("a", 40.0, start=7.0),))])
    starts = np.array([moment.start_seconds for moment in draws(sampling, clip_seconds)])
    room = 40 - clip_seconds
    assert starts.min() >= 7
    assert starts.max() <= 7 + room
    assert kstest((starts - 7) / room, "uniform").pvalue > ALMOST_NEVER


def test_a_clip_longer_than_the_video_starts_with_it():
    sampling = BalancedSampling([Corpus("eyes", (video("a", 2.0, start=7.0),))])
    assert {moment.start_seconds for moment in draws(sampling, 3.75, count=50)} == {7.0}


def test_a_clip_holds_the_instant_that_was_drawn(clustered):
    """So that a clip of a cluster shows some of it, however short the segment."""
    corpora, clusters = clustered
    sampling = BalancedSampling(corpora, clusters=clusters)
    for with_length, instant in zip(draws(sampling, 10.0, 300), draws(sampling, 0.0, 300), strict=True):
        assert with_length.video == instant.video
        assert with_length.start_seconds <= instant.start_seconds <= with_length.start_seconds + 10


# --- order --------------------------------------------------------------------------------------------------------


def batches(order: SampleOrder, count: int) -> list[list[int]]:
    numbers = iter(order)
    return [[next(numbers) for _ in range(order.batch_size)] for _ in range(count)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_slices_of_the_ranks_tile_every_global_batch(world_size):
    ranks = [batches(SampleOrder(4, rank=rank, world_size=world_size, start=24), 5) for rank in range(world_size)]
    one_process = batches(SampleOrder(4 * world_size, start=24), 5)
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == one_process
    assert one_process[0][0] == 24


def test_a_resumed_order_goes_on_where_it_stopped():
    whole = batches(SampleOrder(4, rank=1, world_size=2), 10)
    assert batches(SampleOrder(4, rank=1, world_size=2, start=6 * 8), 4) == whole[6:]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}, {"start": -1}])
def test_impossible_orders_are_refused(wrong):
    with pytest.raises(ValueError, match="not possible"):
        SampleOrder(**{"batch_size": 4} | wrong)


# --- neighbours ---------------------------------------------------------------------------------------------------


def near_draws(sampling: BalancedSampling, spread_seconds: float, count: int = NUM_DRAWS) -> list:
    """Two neighbours a place."""
    return [
        sampling.draw(
            generator(0, "own", number), near=generator(0, "place", number // 2), spread_seconds=spread_seconds
        )
        for number in range(count)
    ]


def test_neighbours_lie_in_one_video_within_the_stretch(corpora):
    moments = near_draws(BalancedSampling(corpora), spread_seconds=6.0)
    for one, other in zip(moments[::2], moments[1::2], strict=True):
        assert one.video == other.video
        assert one.start_seconds != other.start_seconds
        assert abs(one.start_seconds - other.start_seconds) <= 6


@pytest.mark.parametrize("spread_seconds", [0.0, 30.0, 500.0])
def test_a_neighbour_for_itself_is_as_likely_anywhere(spread_seconds):
    """At the ends too, and where the stretch is longer than the video."""
    sampling = BalancedSampling([Corpus("one", (video("v", 100.0, start=5.0),))])
    starts = [moment.start_seconds - 5 for moment in near_draws(sampling, spread_seconds)[::2]]
    assert min(starts) >= 0
    assert max(starts) <= 100
    assert kstest(starts, "uniform", (0, 100)).pvalue > ALMOST_NEVER
