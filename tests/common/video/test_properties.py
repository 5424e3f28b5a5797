"""Timelines of any times, and samples and nearest frames of any timeline, against their definitions.

Times are whole 64ths of a second where ties matter, so that a definition and its implementation round alike.
"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.video.timeline import SHORTEST_STEP_SECONDS, Timeline, nearest_in_time, sample_at_fps, strictly_increasing

TICKS_A_SECOND = 64
any_time = st.one_of(
    st.none(),
    st.floats(),  # infinite and no number among them
    st.floats(-10, 1000),
    st.integers(0, 40).map(lambda frame: frame / 25),  # repeated, and back and forth
)
rates = st.one_of(st.none(), st.sampled_from([0.0, 1e-9, 1.0, 25.0, 29.97, 1e6]))
rising_times = st.lists(st.integers(1, 200), min_size=1, max_size=40).map(
    lambda steps: np.cumsum(steps) / TICKS_A_SECOND
)


@dataclass(frozen=True)
class Shown:
    """A frame that only knows when it is shown."""

    seconds: float | None
    number: int = 0

    def at(self, seconds):
        return Shown(seconds, self.number)


def nearest_by_definition(seconds, point):
    """Of all times the nearest; of two equally near the earlier."""
    return min(range(len(seconds)), key=lambda place: (abs(seconds[place] - point), place))


@given(st.lists(any_time, max_size=40), rates)
def test_any_times_become_strictly_increasing_ones_of_the_same_frames(times, fps):
    mended = Counter()
    frames = list(strictly_increasing((Shown(time, number) for number, time in enumerate(times)), fps, mended))
    assert [frame.number for frame in frames] == list(range(len(times)))
    assert all(math.isfinite(frame.seconds) for frame in frames)
    assert all(later.seconds > earlier.seconds for earlier, later in pairwise(frames))
    assert sum(mended.values()) <= len(times)


@given(rising_times, rates)
def test_times_that_rise_stay_as_they_are(seconds, fps):
    mended = Counter()
    frames = strictly_increasing((Shown(time) for time in seconds.tolist()), fps, mended)
    assert [frame.seconds for frame in frames] == seconds.tolist()
    assert not mended


@given(rising_times, st.sampled_from([None, 0.5, 1.0, 2.0, 4.0, 8.0, 64.0, 128.0]))
def test_sampled_frames_are_those_nearest_to_a_grid(seconds, fps):
    frames = [Shown(time) for time in seconds.tolist()]
    found = list(sample_at_fps(iter(frames), fps))
    assert [(index, frame) for index, frame, _ in found] == list(enumerate(frames))
    chosen = {index for index, _, is_chosen in found if is_chosen}
    if fps is None:
        expected = set(range(len(frames)))
    else:  # the last frame stands for half of the gap before it
        end = seconds[-1] + (seconds[-1] - seconds[-2]) / 2 if len(seconds) > 1 else seconds[0]
        grid = seconds[0] + np.arange(math.floor((end - seconds[0]) * fps) + 1) / fps
        expected = {nearest_by_definition(seconds, point) for point in grid}
    assert chosen == expected


@given(rising_times, st.lists(st.integers(-200, 9000), max_size=30))
def test_the_nearest_in_time_is_that_of_the_definition(seconds, ticks):
    points = np.array(ticks, dtype=float) / (2 * TICKS_A_SECOND)  # middles between two times are among them
    expected = [nearest_by_definition(seconds, point) for point in points]
    assert nearest_in_time(seconds, points).tolist() == expected


@given(rising_times, st.data())
def test_the_feature_of_a_frame_is_the_nearest_or_the_last_one_at_or_before_it(seconds, data):
    sampled = np.array(sorted(data.draw(st.sets(st.integers(0, len(seconds) - 1), min_size=1))))
    timeline, frames = Timeline(seconds, sampled), np.arange(len(seconds) + 3)
    reached = np.minimum(frames, len(seconds) - 1)
    nearest = [nearest_by_definition(seconds[sampled], seconds[frame]) for frame in reached]
    before = [max([place for place, sample in enumerate(sampled) if sample <= frame], default=0) for frame in reached]
    assert timeline.nearest_sample(frames).tolist() == nearest
    assert timeline.nearest_sample(frames, causal=True).tolist() == before


@given(rising_times, st.data())
def test_a_timeline_survives_its_sidecar(seconds, data):
    sampled = np.array(sorted(data.draw(st.sets(st.integers(0, len(seconds) - 1), min_size=1))))
    read = Timeline.from_json(Timeline(seconds, sampled).to_json())
    np.testing.assert_allclose(read.seconds, seconds, atol=2e-3)
    assert read.sampled.tolist() == sampled.tolist()
    assert (np.diff(read.seconds) >= SHORTEST_STEP_SECONDS).all()


@given(st.lists(any_time, min_size=1, max_size=40), rates)
def test_mended_times_survive_their_sidecar_in_order(times, fps):
    frames = strictly_increasing((Shown(time) for time in times), fps, Counter())
    seconds = np.array([frame.seconds for frame in frames])
    read = Timeline.from_json(Timeline(seconds, np.arange(len(seconds))).to_json())
    assert (np.diff(read.seconds) > 0).all()
