"""What the charts of pictures and page show, before either draws it."""

import numpy as np

from common.reports.chart_data import pareto_front, score_ribbons
from common.reports.page.charts import ends_of_lines
from common.scoring.video_score import VideoScore


def test_the_front_of_cost_and_value_by_hand():
    points = {"cheap": (1, 50), "dear": (10, 80), "bad": (5, 40), "same_price": (10, 70), "no_gain": (20, 80)}
    assert pareto_front(points) == ["cheap", "dear"]


def test_ribbons_of_a_video_are_its_truth_and_each_prediction_with_its_wrong_stretches():
    true = np.array([0, 0, 1, 1, 2])
    scores = {"good": VideoScore(true, true, 3), "bad": VideoScore(true, np.array([0, 1, 1, 2, 1]), 3)}
    truth, absent, good, bad = score_ribbons({"absent": None} | scores)
    assert [ribbon.label for ribbon in (truth, absent, good, bad)] == ["truth", "absent", "good", "bad"]
    assert list(truth.segments) == list(good.segments) == [(0, 0, 2), (1, 2, 4), (2, 4, 5)]
    assert (truth.wrong, good.wrong, bad.wrong) == ([], [], [(1, 2), (3, 5)])
    assert (absent.segments, absent.score) == ((), None)


def test_names_that_end_at_one_rank_stand_below_each_other():
    lines = [[2.0, 1.0], [1.0, 1.0], [3.0, 3.0], [None, None]]
    assert ends_of_lines(["a", "b", "c", "d"], lines) == [["", "  a"], ["", "<br><br>  b"], ["", "  c"], ["", "  d"]]
