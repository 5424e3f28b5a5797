"""What predictions save: by hand, against each other, and from how many labelled videos on."""

import math
from dataclasses import replace

import numpy as np
import pytest

from common.reports.labelling.saved import make_savings, pays_from
from common.scoring.effort import DEFAULT_EFFORT, SCALES, EffortRule
from common.scoring.intervals import NAN, Interval
from common.scoring.video_score import VideoScore
from tests.common.reports.rows import row

# a video of `rows`: 200 labels at 5 a second, of three true segments; predictions are right, or `wash` from the start on
WATCHED = 40.0
FROM_NOTHING = WATCHED + 3 * 10


def test_counts_and_minutes_an_hour_by_hand():
    """One video is right; the other begins with 20 frames of `wash`, which is a segment in place of `background`."""
    savings = make_savings([row("Good", [1.0, 0.9])])
    (found,) = savings.rows
    hours = 2 * WATCHED / 3600
    assert found.counts == pytest.approx({"delete": 0, "insert": 0, "relabel": 1 / hours, "move": 0})
    assert found.inserts_from_nothing == pytest.approx(6 / hours)
    assert found.minutes == pytest.approx((2 * WATCHED + 4) / 60 / hours)
    assert found.shares["as stated"].estimate == pytest.approx(1 - (2 * WATCHED + 4) / (2 * FROM_NOTHING))
    assert found.shares["half"].estimate == pytest.approx(1 - (2 * WATCHED + 2) / (2 * (WATCHED + 15)))
    assert found.shares["as stated"].low <= found.shares["as stated"].estimate <= found.shares["as stated"].high


def test_the_one_that_saves_more_comes_first_and_its_difference_is_that_of_the_shares():
    savings = make_savings([row("Bad", [0.7] * 8), row("Good", [1.0] * 8)])
    assert [each.name for each in savings.rows] == ["Good", "Bad"]
    (test,) = savings.tests
    shares = [each.shares["as stated"].estimate for each in savings.rows]
    assert (test.first, test.second, test.num_videos) == ("Good", "Bad", 8)
    assert test.effect.difference.estimate == pytest.approx(shares[0] - shares[1])
    assert test.p_holm == test.p_videos == pytest.approx(2 / 2**8)
    assert test.is_significant


def test_a_rule_is_taken_throughout():
    dear = EffortRule(relabel_seconds=100.0, delete_seconds=100.0)
    result = row("One", [0.9, 0.9])
    rules = {rule: make_savings([replace(result, effort_rule=rule)]).rows[0] for rule in (DEFAULT_EFFORT, dear)}
    assert rules[dear].minutes > rules[DEFAULT_EFFORT].minutes
    assert rules[dear].minutes_from_nothing == rules[DEFAULT_EFFORT].minutes_from_nothing


def test_videos_without_a_rate_are_named_and_nothing_is_made_up():
    timeless = row("Timeless", [1.0, 0.9])
    split = timeless.splits[0]
    scores = {
        name: VideoScore(score.true, score.predicted, score.num_classes, fps=None)
        for name, score in split.scores.items()
    }
    timeless = replace(timeless, splits=[replace(split, scores=scores)])
    assert make_savings([timeless]) is None
    assert math.isnan(timeless.time_saved)
    assert make_savings([timeless, row("Good", [1.0, 0.9])]).without_times == ["Timeless"]


def shares(low: float, estimate: float, high: float, **others: tuple[float, float, float]) -> dict[str, Interval]:
    found = {scale: Interval(estimate, low, high) for scale in SCALES}
    return found | {scale: Interval(middle, lower, upper) for scale, (lower, middle, upper) in others.items()}


def test_the_number_of_videos_from_which_it_pays_in_words():
    curve = [
        (2, shares(-0.4, -0.2, -0.1)),
        (5, shares(-0.1, 0.1, 0.2, double=(0.02, 0.12, 0.2))),
        (10, shares(0.1, 0.3, 0.4, half=(-0.2, 0.01, 0.1))),
    ]
    assert pays_from("X", curve) == (
        "Pre-labelling by X begins to pay with 10 labelled videos: it saves 30 % of the labelling time "
        "(95 % interval 10 to 40); at half the assumed costs not, at double the assumed costs with 5."
    )
    assert "pays already with 2 labelled videos" in pays_from(
        "X", [(2, shares(0.1, 0.2, 0.3)), (5, shares(0.2, 0.3, 0.4))]
    )
    assert "does not pay beyond chance with up to 5 labelled videos: there it saves 10 %" in pays_from("X", curve[:2])
    assert "costs 20 % of the labelling time more" in pays_from("X", curve[:1])
    assert pays_from("X", [(2, shares(NAN, NAN, NAN))]) == ""


def test_a_lucky_start_is_no_beginning():
    """Beyond chance with two videos, but a loss with five: it begins to pay with ten."""
    curve = [(2, shares(0.1, 0.2, 0.3)), (5, shares(-0.2, -0.1, 0.1)), (10, shares(0.1, 0.2, 0.3))]
    assert "begins to pay with 10 labelled videos" in pays_from("X", curve)


def test_tests_of_one_video_by_several_splits_are_one_video():
    result = row("Good", [1.0, 0.9])
    twice = replace(result, splits=result.splits * 2)
    other = replace(row("Bad", [0.8, 0.7]), splits=row("Bad", [0.8, 0.7]).splits * 2)
    (test,) = make_savings([twice, other]).tests
    assert (test.num_videos, test.num_units) == (2, 2)
    assert np.isfinite(test.effect.difference.estimate)
