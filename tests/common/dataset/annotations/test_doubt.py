"""Flicker goes to the likelier neighbour, and what deserves a look says why."""

import numpy as np

from common.dataset.annotations.doubt import changes_of, doubtful_segments, merge_flicker

NAMES = ("background", "cut", "wash")
EDGES = np.arange(13) * 0.5  # twelve frames of half a second


def probabilities_of(ids, certainty=0.8, second=None):
    """`certainty` for each frame's phase; the rest for `second`, or shared."""
    rows = np.full((len(ids), 3), (1 - certainty) / 2)
    rows[np.arange(len(ids)), ids] = certainty
    if second is not None:
        rows[rows != certainty] = 0.0
        rows[np.arange(len(ids)), second] += 1 - certainty
    return rows


def test_flicker_takes_the_neighbour_that_is_likelier_there():
    ids = np.array([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2])
    towards_wash = probabilities_of(ids, second=np.where(ids == 2, 0, 2))
    assert merge_flicker(ids, towards_wash, EDGES, 1).tolist() == [0] * 5 + [2] * 7
    towards_background = probabilities_of(ids, second=np.where(ids == 0, 2, 0))
    assert merge_flicker(ids, towards_background, EDGES, 1).tolist() == [0] * 6 + [2] * 6


def test_the_shortest_segment_goes_first_and_may_join_its_neighbours():
    ids = np.array([0, 0, 0, 0, 1, 0, 0, 0, 2, 2, 2, 2])
    merged = merge_flicker(ids, probabilities_of(ids), EDGES, 1.5)
    assert merged.tolist() == [0] * 8 + [2] * 4  # by itself the background from 5 to 8 would be long enough too
    assert merge_flicker(ids, probabilities_of(ids), EDGES, 100).tolist() in ([0] * 12, [2] * 12)


def test_nothing_shorter_is_left_and_nothing_longer_is_touched():
    random = np.random.default_rng(0)
    for _ in range(50):
        ids = random.integers(0, 3, 12)
        probabilities = random.dirichlet([1, 1, 1], 12)
        merged = merge_flicker(ids, probabilities, EDGES, 1.0)
        bounds = np.flatnonzero(np.diff(merged)) + 1
        lengths = np.diff(np.concatenate(([0], bounds, [12]))) * 0.5
        assert len(lengths) == 1 or lengths.min() >= 1.0
        assert merge_flicker(merged, probabilities, EDGES, 1.0).tolist() == merged.tolist()


def test_a_doubtful_segment_says_why():
    ids = np.array([0] * 5 + [1] * 5 + [2] * 2)
    edges = np.array([*range(0, 1000, 100), 1000, 1000.5, 1001.5])
    probabilities = probabilities_of(ids)
    probabilities[5:10] = (0.45, 0.40, 0.15)
    first, second, third = doubtful_segments(ids, probabilities, edges, NAMES, {(0, 1)})
    assert (first.start, first.end, first.phase, first.doubt) == (0, 5, "background", "")
    assert first.confidence == 0.8
    assert second.doubt == "low confidence 0.40, or background?"
    assert third.doubt == "only 1.5 s long; unusual after cut"
    certain = doubtful_segments(
        ids, probabilities_of(ids), EDGES, NAMES, None
    )  # 6 s: in a short video phases are short
    assert [one.doubt for one in certain] == ["", "", ""]


def test_usual_changes_are_those_of_any_video():
    assert changes_of([np.array([0, 0, 1, 2]), np.array([2, 0])]) == {(0, 1), (1, 2), (2, 0)}
