"""The correction effort: cases by hand, cases enumerated elsewhere, and every alignment of small random ones."""

import json
from itertools import combinations, pairwise

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.phases import IGNORED
from common.dataset.segments import Segments, find_segments
from common.scoring.effort import (
    DEFAULT_EFFORT,
    OPERATIONS,
    EffortRule,
    correction_effort,
    effort_of,
    effort_sums,
    saving,
    share_saved,
    video_effort,
)
from common.scoring.video_score import VideoScore

EQUAL = dict.fromkeys(OPERATIONS, 1.0)
UNEQUAL = {"delete": 1.0, "insert": 3.0, "relabel": 1.5, "move": 2.0}


def segments(*runs: tuple[int, int]) -> Segments:
    """Of `(phase, frames)`."""
    return find_segments(np.concatenate([np.full(frames, phase) for phase, frames in runs]))


def counted(predicted: Segments, true: Segments, costs=EQUAL, tolerance=1, **how) -> dict[str, int]:
    """Operations without those that do not occur."""
    found = correction_effort(predicted, true, costs, tolerance_frames=tolerance, **how)
    return {kind: count for kind, count in found.items() if count}


def enumerated(predicted: Segments, true: Segments, costs, tolerance: float, times: int) -> float:
    """The cheapest of all alignments, each tried: an independent reading of the rule."""
    ends, efforts = predicted.ends.tolist(), []
    for size in range(min(len(predicted), len(true)) + 1):
        for ours in combinations(range(len(predicted)), size):
            for theirs in combinations(range(len(true)), size):
                cost = costs["delete"] * (len(predicted) - size) + costs["insert"] * (len(true) - size)
                pairs = list(zip(ours, theirs, strict=True))
                cost += costs["relabel"] * sum(predicted.labels[i] != true.labels[k] for i, k in pairs)
                for (i, k), (j, after) in pairwise(pairs):
                    if after == k + 1 and all(abs(end - true.ends[k]) > tolerance for end in ends[i:j]):
                        cost += times * costs["move"]
                efforts.append(cost)
    return min(efforts)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([(0, 10)], [(0, 10)], {}),
        ([(1, 10)], [(0, 10)], {"relabel": 1}),
        ([(0, 5), (1, 5)], [(0, 10)], {"delete": 1}),
        ([(0, 10)], [(0, 4), (1, 3), (0, 3)], {"insert": 2}),
        ([(0, 6), (1, 4)], [(0, 5), (1, 5)], {}),  # a frame off is within the tolerance
        ([(0, 7), (1, 3)], [(0, 5), (1, 5)], {"move": 1}),
        # the flicker's end lies where the true change is: once it is gone, its span may go to either neighbour
        ([(0, 5), (2, 3), (1, 2)], [(0, 5), (1, 5)], {"delete": 1}),
        ([(0, 3), (2, 2), (1, 5)], [(0, 5), (1, 5)], {"delete": 1}),
        ([(0, 2), (2, 6), (1, 2)], [(0, 5), (1, 5)], {"delete": 1, "move": 1}),
        # a boundary beside an inserted segment comes with it
        ([(0, 8), (1, 2)], [(0, 3), (2, 2), (1, 5)], {"insert": 1}),
    ],
)
def test_operations_by_hand(predicted, true, expected):
    assert counted(segments(*predicted), segments(*true)) == expected


def test_a_move_counts_twice_where_neighbours_have_boundaries_of_their_own():
    predicted, true = segments((0, 7), (1, 3)), segments((0, 5), (1, 5))
    assert counted(predicted, true, UNEQUAL | {"move": 1.5}, boundaries="separate") == {"move": 2}
    # cheaper than two dear moves: one segment goes, and comes back with its boundary where it belongs
    assert counted(predicted, true, UNEQUAL | {"move": 3.0}, boundaries="shared") == {"move": 1}
    assert counted(predicted, true, UNEQUAL | {"move": 3.0}, boundaries="separate") == {"delete": 1, "insert": 1}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("boundaries", "times"), [("shared", 1), ("separate", 2)])
@pytest.mark.parametrize("costs", [EQUAL, UNEQUAL, {"delete": 0.5, "insert": 0.25, "relabel": 2.0, "move": 0.75}])
def test_no_alignment_is_cheaper(seed, boundaries, times, costs):
    generator = np.random.default_rng(seed)
    for _ in range(20):
        frames = int(generator.integers(1, 14))
        sides = [find_segments(generator.integers(0, 3, frames)) for _ in range(2)]
        tolerance = float(generator.choice([0, 0.5, 1, 2]))
        found = correction_effort(*sides, costs, tolerance_frames=tolerance, boundaries=boundaries)
        if max(map(len, sides)) <= 7:  # more alignments than there is time for
            assert effort_of(found, costs) == pytest.approx(enumerated(*sides, costs, tolerance, times))


def test_the_enumerated_cases(reference_data):
    cases = json.loads((reference_data / "golden" / "effort_reference.json").read_text())["cases"]
    for case in cases:
        sides = [segments(*case[side]) for side in ("predicted", "true")]
        found = correction_effort(*sides, case["costs"], tolerance_frames=case["tolerance_frames"])
        assert effort_of(found, case["costs"]) == pytest.approx(case["effort"])
        assert found in case["counts_of_all_cheapest"]
        assert case["costs"]["insert"] * len(sides[1]) == case["effort_from_nothing"]


def test_properties_of_random_cases():
    """Nothing to do for the truth; a wider tolerance never costs more; never dearer than deleting all and starting anew."""
    generator = np.random.default_rng(3)
    for _ in range(40):
        predicted, true = (find_segments(np.repeat(generator.integers(0, 4, 40), 5)) for _ in range(2))
        assert counted(true, true, UNEQUAL) == {}
        efforts = [
            effort_of(correction_effort(predicted, true, UNEQUAL, tolerance_frames=reach), UNEQUAL)
            for reach in (0, 1, 5, 200)
        ]
        assert efforts == sorted(efforts, reverse=True)
        assert efforts[0] <= len(predicted) * UNEQUAL["delete"] + len(true) * UNEQUAL["insert"]


def video(true, predicted, fps: float | None = 2.0) -> VideoScore:
    return VideoScore(np.array(true), np.array(predicted), 3, fps=fps)


def test_minutes_hold_watching_on_both_sides():
    """20 frames at 2 a second, watched at twice the speed: 5 s; one relabel of 4 s against two inserts of 10 s."""
    rule = EffortRule(speed=2.0)
    (effort,) = efforts = [video_effort(video([0] * 10 + [1] * 10, [0] * 10 + [2] * 10), rule)]
    assert (effort.seconds(rule), effort.seconds_from_nothing(rule)) == (5 + 4, 5 + 20)
    assert saving(efforts, rule).share == pytest.approx(1 - 9 / 25)
    # watching costs what it did: the share of a prediction is not the same under half the costs
    assert saving(efforts, rule.scaled(0.5)).share == pytest.approx(1 - 7 / 15)
    assert share_saved(effort_sums(efforts, rule)).tolist() == [pytest.approx(1 - 9 / 25)]


def test_a_prediction_may_cost_more_than_it_saves():
    flicker = video([0] * 200, [0, 1] * 100)
    assert saving([video_effort(flicker, DEFAULT_EFFORT)], DEFAULT_EFFORT).share < 0


def test_the_tolerance_is_in_seconds_at_the_rate_of_the_labels():
    true, predicted = [0] * 10 + [1] * 10, [0] * 13 + [1] * 7
    near = {"fps": 3.0}  # three labels are a second: right
    assert video_effort(video(true, predicted, **near), DEFAULT_EFFORT).counts["move"] == 0
    assert video_effort(video(true, predicted, fps=2.9), DEFAULT_EFFORT).counts["move"] == 1
    assert video_effort(video(true, predicted, fps=None), DEFAULT_EFFORT) is None


def test_frames_that_do_not_count_cut_the_video_into_parts():
    """Nobody labels the gap: the wrong phase in it costs nothing, and the phase on both of its sides is two segments."""
    score = video([0] * 4 + [IGNORED] * 4 + [0] * 4, [0] * 4 + [1] * 4 + [2] * 4)
    effort = video_effort(score, DEFAULT_EFFORT)
    assert (effort.counts, effort.num_segments) == ({"delete": 0, "insert": 0, "relabel": 1, "move": 0}, 2)
    assert effort.video_seconds == 6
    assert video_effort(video([IGNORED] * 4, [0] * 4), DEFAULT_EFFORT).num_segments == 0


@pytest.mark.parametrize("wrong", [{"move_seconds": -1.0}, {"speed": 0.0}, {"insert_seconds": float("nan")}])
def test_impossible_costs_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        EffortRule(**wrong)


def test_the_assumptions_are_said_with_every_cost():
    sentence = EffortRule(move_seconds=7.5, boundaries="separate", speed=3).sentence
    assert "Assumed, not measured" in sentence
    assert all(text in sentence for text in ("move 7.5 s", "insert 10 s", "counted twice", "3 times"))
