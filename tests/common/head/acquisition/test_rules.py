"""The order in which rules would have videos labelled, by hand."""

import numpy as np
import pytest

from common.head.acquisition.rules import (
    RULES,
    Candidate,
    Suggestion,
    mean_disagreement,
    mean_uncertainty,
    suggest,
    weighted_means,
    within_budget,
)


def on_a_line(*places: float, uncertainty: list[float] | None = None) -> dict[str, Candidate]:
    """Videos a, b, c ... at places along a line."""
    doubts = uncertainty or [0.5] * len(places)
    return {
        chr(ord("a") + number): Candidate(np.array([place, 0.0]), 10.0, doubt, doubt)
        for number, (place, doubt) in enumerate(zip(places, doubts, strict=True))
    }


def order(rule: str, candidates, labelled=None, num_wanted: int = 3) -> str:
    return "".join(each.video for each in suggest(rule, candidates, labelled or {}, num_wanted))


def test_entropy_is_a_share_of_the_highest():
    assert mean_uncertainty(np.full((3, 4), 0.25)) == pytest.approx(1)
    assert mean_uncertainty(np.eye(4)) == 0
    assert mean_uncertainty(np.array([[0.5, 0.5, 0, 0]])) == pytest.approx(0.5)


def test_heads_that_are_unsure_in_the_same_way_do_not_disagree():
    unsure, one, other = np.full((2, 2), 0.5), np.eye(2), np.eye(2)[::-1]
    assert mean_disagreement([unsure, unsure]) == pytest.approx(0)
    assert mean_disagreement([one, other]) == pytest.approx(1)
    assert mean_disagreement([one, one]) == 0


@pytest.mark.parametrize("rule", ["uncertainty", "disagreement"])
def test_the_most_doubtful_come_first_and_equal_ones_by_name(rule):
    assert order(rule, on_a_line(0, 1, 2, 3, uncertainty=[0.2, 0.9, 0.2, 0.5])) == "bdac"


def test_coverage_takes_what_is_farthest_from_all_that_is_labelled_or_chosen():
    """From 0 the farthest is d (10), from {0, 10} then b (4), then a and c."""
    candidates, labelled = on_a_line(1, 4, 8.5, 10), {"known": np.zeros(2)}
    assert order("coverage", candidates, labelled) == "dbca"
    reasons = [each.reason for each in suggest("coverage", candidates, labelled, 2)]
    assert "known" in reasons[0]
    assert "d, the nearest" in reasons[2]


def test_without_labels_coverage_begins_in_the_middle():
    assert order("coverage", on_a_line(0, 5, 6, 100)) in ("cdab", "cdba")
    assert "no labelled video to compare with" in suggest("coverage", on_a_line(0, 5), {}, 1)[0].reason


def test_no_dimension_decides_alone():
    """In the second dimension numbers are a thousand times as large, and differ as much in their own scale."""
    vectors = {"a": [1.0, 0.0], "b": [0.0, 900.0], "c": [0.2, 100.0]}
    candidates = {name: Candidate(np.array(vector), 1.0) for name, vector in vectors.items()}
    assert suggest("coverage", candidates, {"known": np.zeros(2)}, 1)[0].video == "a"


def test_clusters_take_one_video_of_each_group_the_most_uncertain_group_first():
    candidates = on_a_line(0, 0.2, 0.4, 10, 10.2, uncertainty=[0.1, 0.1, 0.1, 0.9, 0.8])
    ranked = suggest("clusters", candidates, {}, 2)
    assert [each.video for each in ranked] == ["d", "b", "e", "a", "c"]
    assert ranked[0].reason == "in the middle of 2 similar videos, with 85 % of all uncertainty"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_every_candidate_once_whatever_there_is(rule):
    generator = np.random.default_rng(1)
    for count in (0, 1, 2, 7):
        candidates = {f"v{n}": Candidate(generator.normal(size=5), 1.0, 0.3, 0.1) for n in range(count)}
        same = {f"v{n}": Candidate(np.ones(5), 1.0, 0.0, 0.0) for n in range(count)}
        for videos in (candidates, same):
            found = suggest(rule, videos, {}, 3)
            assert sorted(each.video for each in found) == sorted(videos)
            assert found == suggest(rule, dict(reversed(videos.items())), {}, 3)  # the order of files decides nothing


def test_weighted_means_lean_on_heavy_vectors():
    vectors = np.array([[0.0], [1.0], [10.0], [10.0]])
    centres, member_of = weighted_means(vectors, np.array([3.0, 1.0, 1.0, 1.0]), 2)
    assert sorted(centres.ravel().tolist()) == [0.25, 10.0]
    assert member_of.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_a_budget_in_minutes_takes_what_still_fits():
    ranked = [Suggestion(name, minutes, "") for name, minutes in (("a", 30), ("b", 40), ("c", 25), ("d", 5))]
    assert [each.video for each in within_budget(ranked, num_videos=2)] == ["a", "b"]
    assert [each.video for each in within_budget(ranked, minutes=60)] == ["a", "c", "d"]
    assert [each.video for each in within_budget(ranked, minutes=60, num_videos=2)] == ["a", "c"]
    assert within_budget(ranked, minutes=1) == []
