"""Frame sampling, timelines, and which feature stands for which label."""

import math
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from common.base.runtime import UserError
from common.video.timeline import Frame, Timeline, sample_at_fps, strictly_increasing


@dataclass
class Timed:
    seconds: float


def chosen(times: list[float], fps: float | None) -> list[int]:
    return [index for index, _, taken in sample_at_fps((Timed(t) for t in times), fps) if taken]


def nearest_by_search(times: list[Fraction], fps: Fraction) -> list[int]:
    """For every grid point up to half a frame past the end, the nearest frame (the earlier of two); exact arithmetic."""
    end = times[-1] + (times[-1] - times[-2]) / 2 if len(times) > 1 else times[-1]
    found, point = set(), 0
    while times[0] + Fraction(point) / fps <= end:
        at = times[0] + Fraction(point) / fps
        found.add(min(range(len(times)), key=lambda i: (abs(times[i] - at), i)))
        point += 1
    return sorted(found)


def constant(rate: Fraction, count: int, start: Fraction = Fraction(0)) -> list[Fraction]:
    return [start + i / rate for i in range(count)]


NTSC = Fraction(30_000, 1001)


# --- sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), NTSC, Fraction(60)], ids=str)
@pytest.mark.parametrize("fps", [Fraction(5), Fraction(1), Fraction(7), Fraction(24), Fraction(1, 2), Fraction(25)])
@pytest.mark.parametrize("start", [Fraction(0), Fraction(13, 10)], ids=["from 0", "from 1.3 s"])
def test_sampling_of_a_constant_rate_equals_a_brute_force_search(rate, fps, start):
    times = constant(rate, 200, start)
    assert chosen([float(t) for t in times], float(fps)) == nearest_by_search(times, fps)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fps", [Fraction(2), Fraction(5), Fraction(40)])
def test_sampling_of_a_variable_rate_equals_a_brute_force_search(seed, fps):
    generator = np.random.default_rng(seed)
    milliseconds = np.cumsum(generator.choice([1, 17, 33, 40, 250, 900], 120))
    times = [Fraction(int(ms), 1000) for ms in milliseconds]
    assert chosen([float(t) for t in times], float(fps)) == nearest_by_search(times, fps)


def test_25_fps_at_5_is_every_fifth_frame():
    assert chosen([i / 25 for i in range(23)], 5) == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("fps", [25, 50, 1000])
def test_grid_as_fine_as_the_video_or_finer_gives_every_frame_once(fps):
    assert chosen([i / 25 for i in range(40)], fps) == list(range(40))


def test_of_two_equally_near_frames_the_earlier_is_taken():
    """2 frames a second at 4 / 3: the second grid point, 0.75 s, lies between the frames at 0.5 s and 1 s."""
    assert chosen([0.0, 0.5, 1.0, 1.5], 4 / 3) == [0, 1, 3]


def test_a_long_gap_gives_its_two_ends_once_each():
    assert chosen([0.0, 0.1, 10.0, 10.1], 5) == [0, 1, 2]


def test_without_fps_every_frame_is_chosen():
    assert chosen([0.0, 0.1, 0.5], None) == [0, 1, 2]


@pytest.mark.parametrize("fps", [None, 1.0, 100.0])
def test_a_single_frame_is_chosen(fps):
    assert chosen([3.0], fps) == [0]


def test_no_frame_gives_none():
    assert list(sample_at_fps([], 5)) == []


@pytest.mark.parametrize("fps", [None, 3.0, 100.0])
def test_every_frame_is_passed_on_in_order(fps):
    frames = [Timed(i / 10) for i in range(20)]
    given = list(sample_at_fps(frames, fps))
    assert [index for index, _, _ in given] == list(range(20))
    assert all(frame is original for (_, frame, _), original in zip(given, frames, strict=True))


# --- timelines ----------------------------------------------------------------------------------------------------


def round_trip(timeline: Timeline) -> Timeline:
    return Timeline.from_json(timeline.to_json())


@pytest.mark.parametrize(
    ("seconds", "sampled", "policy"),
    [
        (np.arange(300) / 25, np.arange(300), "constant"),
        (1.5 + np.arange(300) / 29.97, np.arange(0, 300, 6), "constant"),
        (np.round(np.arange(300) / 29.97, 3), np.arange(300), "constant"),
        (np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.5], 300)), np.arange(300), "listed"),
        (np.array([0.0, 0.04, 0.08, 0.4]), np.array([0, 3]), "listed"),
        (np.array([7.0]), np.array([0]), "constant"),
    ],
    ids=["25 fps", "sampled, late start", "milliseconds", "variable", "variable, sampled", "one frame"],
)
def test_timeline_survives_its_json(seconds, sampled, policy):
    timeline = Timeline(seconds, sampled)
    record = timeline.to_json()
    again = round_trip(timeline)
    assert record["timestamps"]["policy"] == policy
    assert again.num_frames == len(seconds)
    assert np.abs(again.seconds - seconds).max() <= 2e-3
    assert np.array_equal(again.sampled, sampled)
    assert again.fps == pytest.approx(timeline.fps)


def test_listed_times_are_kept_to_a_microsecond():
    seconds = np.cumsum(np.random.default_rng(1).random(100))
    assert np.abs(round_trip(Timeline(seconds, np.arange(100))).seconds - seconds).max() < 1e-6


def test_constant_rate_takes_no_space_in_a_sidecar():
    record = Timeline.every_frame(100_000, 30).to_json()
    assert len(str(record)) < 200
    assert record["frame_indices"] is None


def test_fps_is_the_mean_rate_of_the_decoded_frames():
    assert Timeline(np.array([0.0, 0.1, 0.5, 1.0]), np.arange(4)).fps == pytest.approx(3)
    assert Timeline(np.array([2.0]), np.arange(1)).fps is None


def test_keeping_keeps_the_frames_and_thins_the_features():
    thinned = Timeline(np.arange(10) / 5, np.array([0, 2, 4, 6, 8])).keeping(slice(None, None, 2))
    assert thinned.sampled.tolist() == [0, 4, 8]
    assert thinned.num_frames == 10


# --- which feature stands for a label -----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), NTSC, Fraction(60)], ids=str)
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 25])
def test_nearest_sample_equals_a_brute_force_search(rate, step):
    """In exact arithmetic; even steps have labels in the middle of two features, which take the earlier."""
    timeline = Timeline.every_frame(200, float(rate)).keeping(slice(None, None, step))
    expected = [min(range(0, 200, step), key=lambda i, t=t: (abs(i - t), i)) // step for t in range(200)]
    assert timeline.nearest_sample(np.arange(200)).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_nearest_sample_of_a_variable_rate_equals_a_brute_force_search(seed):
    generator = np.random.default_rng(seed)
    milliseconds = np.cumsum(generator.choice([1, 17, 33, 40, 250], 150))
    sampled = np.sort(generator.choice(150, 30, replace=False))
    timeline = Timeline(milliseconds / 1000, sampled)
    distance = np.abs(milliseconds[sampled][None, :] - milliseconds[:, None])
    assert np.array_equal(timeline.nearest_sample(np.arange(150)), distance.argmin(axis=1))


def test_labels_past_the_video_take_the_last_feature():
    timeline = Timeline(np.arange(10) / 25, np.array([0, 4, 8]))
    assert timeline.nearest_sample(np.arange(14)).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]


def test_fewer_labels_than_frames_take_the_first_ones():
    timeline = Timeline(np.arange(10) / 25, np.arange(10))
    assert timeline.nearest_sample(np.arange(4)).tolist() == [0, 1, 2, 3]


def test_one_feature_stands_for_every_label():
    assert Timeline(np.arange(5) / 25, np.array([2])).nearest_sample(np.arange(7)).tolist() == [0] * 7


def test_every_frame_sampled_maps_each_label_to_its_own_feature():
    assert np.array_equal(Timeline.every_frame(1000, 29.97).nearest_sample(np.arange(1000)), np.arange(1000))


# --- times are strictly increasing ----------------------------------------------------------------------------------


def mended(times, fps=25.0) -> tuple[list[float], dict[str, int]]:
    kinds: Counter[str] = Counter()
    frames = strictly_increasing([Frame(np.zeros(0), time) for time in times], fps, kinds)
    return [round(frame.seconds, 6) for frame in frames], dict(kinds)


@pytest.mark.parametrize(
    ("times", "expected", "kinds"),
    [
        ([0.0, 0.04, 0.08], [0.0, 0.04, 0.08], {}),
        ([7.3, 7.34, 9.0, 9.04], [7.3, 7.34, 9.0, 9.04], {}),  # late start, variable rate
        ([1.0, 1.04, 0.2, 0.24], [1.0, 1.04, 1.08, 1.12], {"step back": 1}),  # joined
        ([0.0, 0.04, 0.12, 0.08, 0.16], [0.0, 0.04, 0.12, 0.14, 0.16], {"step back": 1}),  # one frame strays
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.04, 0.08, 0.12], {"repeated": 3}),
        ([0.0, 0.04, 0.04, 0.12], [0.0, 0.04, 0.08, 0.12], {"repeated": 1}),
        ([None, None, None], [0.0, 0.04, 0.08], {"missing": 3}),
        ([0.0, None, 0.08, None, 0.16], [0.0, 0.04, 0.08, 0.12, 0.16], {"missing": 2}),
        ([0.0, 0.04, 1.8e9, 1.8e9 + 0.04], [0.0, 0.04, 0.08, 0.12], {"absurd": 1}),  # the clock is set
        ([0.0, 0.04, -3.7e17, 0.12], [0.0, 0.04, 0.08, 0.12], {"absurd": 1}),
        ([-3.7e17, 0.04, 0.08], [0.0, 0.04, 0.08], {"absurd": 2}),
        ([0.0, math.nan, 0.08], [0.0, 0.04, 0.08], {"missing": 1}),
        ([0.0, 9.0, 9.04], [0.0, 9.0, 9.04], {}),  # a pause
        ([0.0, 600.0, 600.04], [0.0, 0.04, 0.08], {"absurd": 1}),
        # a program stream that loses its thread for some frames and finds it again
        ([1.0, 1.04, 1.08, 1.04, 1.08, 1.2, 1.24], [1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24], {"step back": 1}),
    ],
)  # fmt: skip
def test_times_go_on_at_the_rate_where_they_are_no_times(times, expected, kinds):
    assert mended(times) == (expected, kinds)


def test_a_pause_is_measured_in_frames_where_they_are_far_apart():
    times = [0.0, 20.0, 40.0, 1500.0, 1520.0]  # time lapse
    assert mended(times, fps=0.05) == (times, {})


@pytest.mark.parametrize("fps", [None, 90_000.0, 0.0])
def test_a_rate_that_no_camera_has_is_not_gone_on_with(fps):
    assert mended([0.0, 0.0, 0.0], fps) == ([0.0, 0.04, 0.08], {"repeated": 2})


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_times_the_result_rises_and_pictures_stay(seed):
    random = np.random.default_rng(seed)
    times = np.cumsum(random.choice([0.04, 0.0, -0.5, 3.0, 1e9, -1e17, 1e-7, math.nan], 200)).tolist()
    times = [None if random.random() < 0.1 else time for time in times]
    images = [np.full(1, number) for number in range(200)]
    frames = list(strictly_increasing(map(Frame, images, times), 25.0, Counter()))
    assert [int(frame.image[0]) for frame in frames] == list(range(200))
    steps = np.diff([frame.seconds for frame in frames])
    assert steps.min() > 0
    assert steps.max() <= 10


def test_frames_before_an_error_are_all_given():
    def breaking():
        yield Frame(np.zeros(0), 0.0)
        yield Frame(np.zeros(0), 0.04)
        raise UserError("broken")

    given = []
    with pytest.raises(UserError, match="broken"):
        given.extend(strictly_increasing(breaking(), 25.0, Counter()))
    assert [frame.seconds for frame in given] == [0.0, 0.04]


def test_sampling_does_not_count_through_a_gap():
    """A grid of a thousand points a second over thirty years: only the frames cost time."""
    frames = [Frame(np.zeros(0), time) for time in (0.0, 1e9, 1e9 + 1)]
    started = time.process_time()
    assert [chosen for _, _, chosen in sample_at_fps(frames, 1000.0)] == [True, True, True]
    assert time.process_time() - started < 1


def test_times_of_an_earlier_version_are_mended_when_they_are_read():
    timeline = Timeline.from_json(
        {
            "num_frames": 4,
            "fps": 25,
            "timestamps": {"policy": "listed", "seconds": [0.0, 0.04, 0.0, 0.04]},
            "frame_indices": None,
        }
    )
    assert timeline.seconds == pytest.approx([0.0, 0.04, 0.08, 0.12])


# --- online ---------------------------------------------------------------------------------------------------------


def test_a_causal_label_takes_the_last_sample_at_or_before_it():
    timeline = Timeline(np.arange(12) / 25, np.array([0, 5, 10]))
    assert timeline.nearest_sample(np.arange(12), causal=True).tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert timeline.nearest_sample(np.arange(12)).tolist() == [0] * 3 + [1] * 5 + [2] * 4


def test_where_every_frame_has_a_sample_the_times_are_not_asked():
    timeline = Timeline(np.zeros(5), np.arange(5))
    assert timeline.nearest_sample(np.arange(7)).tolist() == [0, 1, 2, 3, 4, 4, 4]
