"""Case sheets: durations beside the cohort's, unusual order, doubtful changes; hand-computed."""

import numpy as np
import pytest

from common.base import paths
from common.dataset.segments import find_segments
from common.reports.case_sheets import Change, Cohort, OddCount, case_sheets, course, doubtful_changes, phase_durations
from common.reports.results import EncoderResult, SplitResult
from common.scoring.video_score import VideoScore

FPS = 10
USUAL = [0] * 10 + [1] * 20 + [2] * 30  # 1, 2 and 3 seconds


def score(true, predicted=None, probabilities=None, fps=FPS):
    true = np.array(true)
    predicted = true if predicted is None else np.array(predicted)
    load = None if probabilities is None else lambda: probabilities
    return VideoScore(true, predicted, num_classes=4, fps=fps, load_probabilities=load)


def encoder(scores):
    return EncoderResult(paths.Model("any"), None, [SplitResult({}, scores)])


def cohort(odd, num_usual=9, usual=USUAL):
    """The video `odd` at place 0, and usual ones."""
    return Cohort({"odd": odd} | {f"usual_{index}": score(usual) for index in range(num_usual)})


def test_durations_are_seconds_of_all_segments_beside_the_quantiles_of_the_videos_with_the_phase():
    odd = score([1] * 10 + [0] * 10 + [1] * 40, [1] * 60)
    rows = phase_durations(cohort(odd), 0, "odd")
    assert [row.phase for row in rows] == [0, 1]
    assert [(row.true, row.predicted) for row in rows] == [(1, 0), (5, 6)]
    assert rows[1].usual == pytest.approx(tuple(np.quantile([5] + [2] * 9, [0.1, 0.5, 0.9])))
    assert [row.num_videos for row in rows] == [10, 10]


def test_a_predicted_phase_that_is_absent_in_the_truth_is_listed_with_duration_0():
    odd = score([0] * 60, [0] * 30 + [3] * 30)
    row = phase_durations(cohort(odd), 0, "odd")[-1]
    assert (row.phase, row.true, row.predicted, row.num_videos, row.lies) == (3, 0, 3, 0, "")
    assert np.isnan(row.usual).all()


@pytest.mark.parametrize(("frames", "lies"), [(5, "short"), (20, "usual"), (50, "long")])
def test_where_a_duration_lies(frames, lies):
    odd = score([0] * 10 + [1] * frames)
    assert phase_durations(cohort(odd), 0, "odd")[1].lies == lies


def test_nothing_is_called_short_or_long_with_few_videos():
    odd = score([0] * 10 + [1] * 50)
    assert phase_durations(cohort(odd, num_usual=4), 0, "odd")[1].lies == ""


def test_order_is_compared_with_the_true_order_of_the_other_videos():
    odd = [0] * 10 + [2] * 10 + [0] * 10 + [2] * 20  # no phase 1; changes 0-2 and 2-0 are nowhere else
    found = course(find_segments(odd), cohort(score(odd)), 0, FPS)
    assert found.unseen == [Change(0, 2, 1.0), Change(2, 0, 2.0), Change(0, 2, 3.0)]
    assert found.skipped == [OddCount(1, 0, 0)]
    assert found.repeated == [OddCount(0, 2, 0), OddCount(2, 2, 0)]
    assert not found.is_usual


def test_a_video_like_the_others_is_usual():
    assert course(find_segments(USUAL), cohort(score(USUAL)), 0, FPS).is_usual


def test_what_a_tenth_of_the_others_have_is_not_odd():
    odd = score([0] * 10 + [2] * 10)
    others = {"odd": odd, "other": odd} | {f"usual_{index}": score(USUAL) for index in range(9)}
    assert course(odd.segments[1], Cohort(others), 0, FPS).is_usual


def test_order_is_not_judged_with_few_other_videos():
    assert course(find_segments([0, 1]), cohort(score([0, 1]), num_usual=4), 0, FPS) is None
    assert course(find_segments([0, 1]), cohort(score([0, 1]), num_usual=5), 0, FPS) is not None


def test_doubtful_changes_have_the_lowest_confidence_within_a_second_and_their_distance_to_a_true_change():
    confidence = np.full(60, 0.9)
    confidence[32:52] = 0.5  # around the second predicted change, at frame 42
    probabilities = np.stack([confidence, 1 - confidence, *np.zeros((2, len(confidence)))], axis=1)
    doubts = doubtful_changes(score([0] * 20 + [1] * 20 + [2] * 20, [0] * 15 + [1] * 27 + [2] * 18, probabilities), FPS)
    assert [doubt.change for doubt in doubts] == [Change(1, 2, 4.2), Change(0, 1, 1.5)]
    assert [doubt.confidence for doubt in doubts] == pytest.approx([0.5, 0.9])
    assert [doubt.off for doubt in doubts] == pytest.approx([0.2, -0.5])


def test_only_the_most_doubtful_changes_are_listed():
    labels = np.arange(40) % 2
    random = np.random.default_rng(0).uniform(0.5, 1, 40)
    doubts = doubtful_changes(score(labels, labels, np.stack([random, 1 - random], axis=1)), FPS)
    assert len(doubts) == 5
    assert doubts == sorted(doubts, key=lambda doubt: doubt.confidence)


def test_without_probabilities_or_a_true_change():
    assert doubtful_changes(score(USUAL), FPS) == []
    sure = np.full((20, 2), 0.5)
    assert np.isnan(doubtful_changes(score([0] * 20, [0] * 10 + [1] * 10, sure), FPS)[0].off)


def test_sheets_come_by_name_and_in_frames_where_a_rate_is_unknown():
    scores = {"b": score(USUAL), "a": score(USUAL, fps=None)}
    sheets = case_sheets(encoder(scores))
    assert [sheet.video for sheet in sheets] == ["a", "b"]
    assert [row.true for row in sheets[1].durations] == [10, 20, 30]
    assert [sheet.rate for sheet in case_sheets(encoder({"b": score(USUAL)}))] == [FPS]
