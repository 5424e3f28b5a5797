"""Times to frames: the nearest frame start, slips of the hand closed at their middle, what is larger named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.base.runtime import UserError
from common.dataset.annotations.tiling import nearest_edges, tile
from common.dataset.importing.label_tables import PhaseInterval

TENTHS = np.arange(11) / 10  # ten frames, 0.1 s each


def intervals(*rows):
    return [PhaseInterval(f"line {line}", *row) for line, row in enumerate(rows, 2)]


def test_a_time_becomes_the_nearest_frame_start_or_the_end():
    times = np.array([-1, 0.0, 0.049, 0.05, 0.051, 0.96, 1.0, 7])
    assert nearest_edges(TENTHS, times).tolist() == [0, 0, 0, 0, 1, 10, 10, 10]


def test_rounded_times_move_no_boundary_at_30000_1001():
    """The rule "first frame at or after" moves nearly half of them."""
    edges = np.arange(901) * 1001 / 30000
    written = np.round(edges[:900], 3)
    assert (nearest_edges(edges, written) == np.arange(900)).all()
    assert (np.searchsorted(edges, written - 1e-6) != np.arange(900)).mean() > 0.45


@pytest.mark.parametrize(
    ("end", "start", "boundary", "closed"),
    [(0.5, 0.7, 6, (1, 0)), (0.7, 0.5, 6, (0, 1)), (0.5, 0.5, 5, (0, 0)), (0.46, 0.48, 5, (0, 0))],
)
def test_small_gaps_and_overlaps_are_closed_at_the_middle_and_counted(end, start, boundary, closed):
    """One that is shorter than what the frames can tell is none."""
    found = tile(intervals((0, end, "a"), (start, 1, "b")), TENTHS)
    assert found.segments == ((0, boundary, "a"), (boundary, 10, "b"))
    assert found.gaps == ()
    assert (found.num_closed_gaps, found.num_closed_overlaps) == closed


def test_a_larger_gap_stays_one():
    found = tile(intervals((0, 0.3, "a"), (0.6, 1, "b")), TENTHS)
    assert found.segments == ((0, 3, "a"), (6, 10, "b"))
    assert found.gaps == ((3, 6),)
    assert found.labels("-") == [*"aaa---bbbb"]


def test_the_ends_of_the_video_are_reached_over_a_small_gap_only():
    assert tile(intervals((0.2, 0.8, "a")), TENTHS).segments == ((0, 10, "a"),)
    assert tile(intervals((0.3, 0.7, "a")), TENTHS).gaps == ((0, 3), (7, 10))


@pytest.mark.parametrize(
    "rows",
    [
        ((0, 0.6, "a"), (0.3, 1, "b")),
        ((0, 1, "a"), (0.3, 0.4, "b")),  # within the other
        ((0, 1, "a"), (0.1, 0.15, "b"), (0.9, 1, "c")),  # not the neighbour
        ((0, 0.5, "a"), (0, 0.5, "a")),
    ],
)
def test_a_larger_overlap_names_both(rows):
    with pytest.raises(UserError, match=r"line 3: overlap from .* of a .*line 2.* and [ab] "):
        tile(intervals(*rows), TENTHS)


def test_what_lies_beyond_is_cut_and_noted_or_refused():
    found = tile(intervals((-0.5, 0.5, "a"), (0.5, 1.4, "b")), TENTHS)
    assert found.segments == ((0, 5, "a"), (5, 10, "b"))
    assert [note.split(": ", 2)[2] for note in found.notes] == [
        "starts 0.500 s before the video, cut there",
        "ends 0.400 s after the end of the video, cut there",
    ]
    for outside in ((1.2, 1.5, "a"), (-2, -1, "a")):
        with pytest.raises(UserError, match="outside of the video"):
            tile(intervals(outside), TENTHS)


def test_a_segment_without_a_frame_is_left_out_and_noted():
    found = tile(intervals((0, 0.5, "a"), (0.5, 0.53, "b"), (0.53, 1, "c")), TENTHS)
    assert found.segments == ((0, 5, "a"), (5, 10, "c"))
    assert "b (0.500 to 0.530 s): shorter than a frame" in found.notes[0]


@given(
    st.lists(st.floats(0.002, 0.5), min_size=2, max_size=60),
    st.lists(st.integers(0, 3), min_size=60, max_size=60),
    st.floats(0, 100),
)
def test_segments_written_with_three_decimals_come_back(steps, phases, start):
    """Whatever the rate does, as long as frames are 2 ms apart."""
    edges = start + np.concatenate(([0], np.cumsum(steps)))
    labels = [f"phase {phase}" for phase in phases[: len(steps)]]
    rows = [(round(a, 3), round(b, 3), label) for a, b, label in zip(edges[:-1], edges[1:], labels, strict=True)]
    found = tile(intervals(*rows), edges, snap_seconds=0.001)
    assert found.labels("-") == labels


def test_larger_overlaps_are_closed_where_annotations_are_only_compared():
    found = tile(intervals((0, 0.8, "a"), (0.4, 1, "b")), TENTHS, any_overlap=True)
    assert found.segments == ((0, 6, "a"), (6, 10, "b"))
    assert found.num_closed_overlaps == 1
    assert tile(intervals((0, 0.3, "a"), (0.6, 1, "b")), TENTHS, any_overlap=True).gaps == ((3, 6),)
