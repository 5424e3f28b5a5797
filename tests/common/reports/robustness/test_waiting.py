"""What waiting is worth: which runs make a curve, in which order, and what is drawn of it."""

import math

import pytest

from common.reports.chart_data import waiting_panels
from common.reports.comparison import Report
from common.reports.leaderboard import make_leaderboard
from common.reports.page.charts import waiting_chart
from common.reports.pictures.charts import waiting_picture
from common.reports.robustness.waiting import waiting_curves
from common.reports.workbook.record_sheets import waiting_sheet
from common.scoring.protocols import CHALLENGE
from tests.common.reports.robustness.test_factors import row


def board(*rows):
    return make_leaderboard(list(rows), CHALLENGE, {})


def dialled():
    """An encoder online, with two look-aheads, offline, and decoded; another one offline alone."""
    decoded = row("A", 0.95, decode="viterbi")
    return board(
        row("A", 0.9), row("A", 0.6, causal=True), row("A", 0.8, lookahead=10.0, lookahead_frames=50),
        row("A", 0.7, lookahead=2.5, lookahead_frames=12), decoded, row("B", 0.5),
    )  # fmt: skip


def test_a_curve_goes_from_online_to_offline_and_leaves_decoded_paths_out():
    (curve,) = waiting_curves(dialled()).values()
    assert [point.label for point in curve] == ["causal", "2.5 s", "10 s", "offline"]
    assert [round(point.cells["accuracy"].mean, 1) for point in curve] == [0.6, 0.7, 0.8, 0.9]


def test_what_features_have_seen_is_waited_for_too():
    seen = row("A", 0.8, causal=True, allow_future_features=True)
    seen.record["look_ahead_seconds"] = 0.28
    ((first, last),) = waiting_curves(board(row("A", 0.9), seen)).values()
    assert first.seconds == pytest.approx(0.28)
    assert math.isinf(last.seconds)


def test_runs_that_differ_in_more_make_no_curve():
    assert waiting_curves(board(row("A", 0.9), row("A", 0.6, causal=True, lr=0.01))) == {}
    assert waiting_curves(board(row("A", 0.9), row("B", 0.6, causal=True))) == {}
    assert list(waiting_curves(board(row("A", 0.9, head="tecno"), row("A", 0.6, head="tecno", lookahead=1.0)))) == [
        "A (TeCNO)"
    ]


def test_charts_and_sheet_show_every_point_with_its_interval(monkeypatch):
    shown = dialled()
    report = Report(
        None, None, "made", False, [shown], [], None, {}, {}, [], [], waiting=waiting_curves(shown)
    )  # fmt: skip
    panels, delays = waiting_panels(report)
    assert delays == ["causal", "2.5 s", "10 s", "offline"]
    curve = panels["Accuracy"]["A"]
    assert curve.places == [0, 1, 2, 3]
    assert curve.means == pytest.approx([60, 70, 80, 90], abs=2)
    assert (curve.below > 0).all()
    assert (curve.above > 0).all()
    assert list(panels) == ["Accuracy", "Edit"]
    figure = waiting_chart(report)
    assert [list(trace.x) for trace in figure.data] == [[0, 1, 2, 3]] * 2
    assert list(figure.layout.xaxis.ticktext) == delays
    assert [axes.get_title("left") for axes in waiting_picture(report).axes] == ["Accuracy", "Edit"]
    table = waiting_sheet(report).table
    assert table["Delay"].tolist() == delays
    assert table["Accuracy %"].tolist() == pytest.approx(curve.means)
