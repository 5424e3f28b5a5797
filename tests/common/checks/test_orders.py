"""Orders of phases that one video alone has, and those that are no fault."""

import re

from common.checks.orders import MIN_OTHERS, PhaseOrders
from common.dataset.segments import find_segments
from tests.common.cohort import FPS, NAMES, VALIDATION


def test_a_phase_before_one_that_it_follows_everywhere_else(cohort):
    starts = cohort.reorder("BL_01", "background close cut open inject remove background")
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("warning", "order", "BL_01", starts[1])
    assert finding.seconds == starts[1] / FPS
    place = f"frame {starts[1]} (0:{starts[1] / FPS:04.1f})"
    assert finding.message == f"BL_01, {place}: close before cut, inject, remove: only here, 25 others have it after"


def test_a_phase_after_one_that_it_precedes_everywhere_else(cohort):
    starts = cohort.reorder("BL_01", "background cut open inject remove close cut background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("warning", "BL_01", starts[6])
    assert "cut after open, inject, remove, close: only here, 25 others have it before" in finding.message


def test_a_swap_of_two_phases_is_one_finding(cohort):
    cohort.reorder("BL_01", "background open cut inject remove close background")
    assert "open before cut: only here, 25 others have it after" in cohort.only().message


def test_two_misplaced_phases_are_two_findings(cohort):
    cohort.reorder("BL_01", "background close open inject remove cut background")
    found = {re.search(r": (\w+) (before|after)", finding.message).groups() for finding in cohort.findings()}
    assert found == {("close", "before"), ("cut", "after")}


def test_only_videos_with_both_phases_are_counted(cohort):
    """12 of the 26 videos have a `wash`, too few to say what is usual."""
    cohort.reorder("BL_01", "background cut wash open inject remove close background")
    assert cohort.findings() == []


def test_what_two_videos_have_is_a_habit(cohort):
    for video in ("BL_01", "SD_02"):
        cohort.reorder(video, "background close cut open inject remove background")
    assert cohort.findings() == []


def test_a_small_cohort_says_nothing_of_orders(cohort):
    for video in NAMES[18:]:
        cohort.label_file(video).unlink()
        cohort.video(video).unlink()
    cohort.dataset.patients.unlink()
    assert len(NAMES[:18]) + len(VALIDATION) == MIN_OTHERS
    cohort.reorder("BL_01", "background close cut open background inject remove background")
    assert cohort.findings() == []


def test_background_in_the_middle_where_no_other_video_has_it(cohort):
    starts = cohort.reorder("BL_01", "background cut background open inject remove close background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("warning", "BL_01", starts[2])
    assert "background between phases: only here, 25 others have it at the ends only" in finding.message


def test_background_in_the_middle_of_two_videos_is_usual(cohort):
    for video in ("BL_01", "BL_03"):
        cohort.reorder(video, "background cut background open inject remove close background")
    assert cohort.findings() == []


def test_a_transition_that_one_video_alone_has_is_a_note(cohort):
    """After `close` comes `open` or the end; no two phases have an order here that `inject` breaks."""
    for video in ("SD_00", "BL_05"):
        cohort.reorder(video, "background cut open remove close open inject background")
    starts = cohort.reorder("BL_15", "background cut open remove close inject open close background")
    finding = cohort.only(min_seconds=0.1)
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("note", "order", "BL_15", starts[5])
    assert "close is followed by inject: only here, in none of 25 others" in finding.message


def test_a_phase_after_which_much_can_come_gives_no_note(cohort):
    """Of two followers of `close` that one video each has, neither is a surprise."""
    for video in ("SD_00", "BL_05"):
        cohort.reorder(video, "background cut open remove close open inject background")
    cohort.reorder("BL_15", "background cut open remove close inject open close background")
    cohort.reorder("SD_10", "background cut open inject close remove open close background")
    assert not [finding for finding in cohort.findings() if "close is followed by" in finding.message]


def test_a_video_that_starts_in_the_middle_is_a_note(cohort):
    cohort.reorder("BL_01", "open inject remove close background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("note", "BL_01", 0)
    assert "the start is followed by open: only here, in none of 25 others" in finding.message


def test_a_cohort_without_background_is_compared_too(cohort):
    cohort.dataset.mapping.write_text(cohort.dataset.mapping.read_text().replace("background", "rest"))
    for video in NAMES + VALIDATION:
        cohort.write(video, [name.replace("background", "rest") for name in cohort.labels(video)])
    assert cohort.findings() == []
    cohort.reorder("BL_01", "rest open cut inject remove close rest")
    assert "open before cut: only here" in cohort.only().message


def test_a_phase_left_out_gives_no_finding(cohort):
    cohort.reorder("BL_01", "background cut inject remove close background")
    assert cohort.findings() == []


def test_changes_that_no_other_video_has_count_from_the_start_to_the_end_of_a_video():
    """Phases 0, 1, 2; the start of a video is 3, its end 4. The second video alone starts with 1 and goes from 1 to 0."""
    orders = PhaseOrders([find_segments(labels) for labels in ([0, 1, 2], [1, 0, 1, 2], [0, 0, 1, 2])], 3)
    assert orders.counts.tolist() == [[1, 1, 1], [1, 2, 1], [1, 1, 1]]
    assert orders.unseen_changes(orders.segments[1], 1) == [(0, 3, 1), (1, 1, 0)]
    assert orders.unseen_changes(find_segments([0, 2]), 1) == [(1, 0, 2)]  # a prediction for the same video
    assert orders.unseen_changes(find_segments([0]), 0) == [(1, 0, 4)]
