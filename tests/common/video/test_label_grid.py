"""Labels at a rate of their own: which frame each belongs to, and how many of them a video reaches."""

import numpy as np
import pytest

from common.video.label_grid import LabelGrid


@pytest.mark.parametrize(
    ("num_frames", "fps", "num_labels"),
    # as PitVis counts them: a last row lies beyond the last frame in each, and is not among these
    [(732, 24, 31), (500, 25, 20), (361, 24, 16), (1, 25, 1), (25, 25, 1), (26, 25, 2)],
)
def test_a_label_a_second_as_long_as_there_are_frames(num_frames, fps, num_labels):
    frames = LabelGrid(label_fps=1).frames(np.arange(num_frames) / fps)
    assert frames.tolist() == [second * fps for second in range(num_labels)]


def test_seconds_count_from_the_first_frame():
    assert LabelGrid(label_fps=1).frames(7.3 + np.arange(75) / 25).tolist() == [0, 25, 50]


def test_between_frames_the_nearest_counts_and_of_two_equally_near_the_earlier():
    assert LabelGrid(label_fps=10).frames(np.array([0.0, 0.06, 0.14, 0.19, 0.3])).tolist() == [0, 1, 3, 4]


def test_a_video_slower_than_its_labels_answers_several_with_one_frame():
    assert LabelGrid(label_fps=2).frames(np.array([0.0, 1.0, 2.0])).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("num_frames", "expected"), [(13, [0, 6, 12]), (12, [0, 6]), (1, [0])])
def test_every_sixth_frame(num_frames, expected):
    assert LabelGrid(label_every=6).frames(np.arange(num_frames) / 60).tolist() == expected


@pytest.mark.parametrize("grid", [LabelGrid(), LabelGrid(label_every=1)])
def test_without_a_rate_every_frame_has_a_label(grid):
    assert grid.is_every_frame
    assert grid.frames(np.arange(5) / 25).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("label_fps", [0.5, 1, 5, 10])
def test_it_takes_the_frames_that_sampling_at_that_rate_takes(fps, label_fps):
    from common.video.timeline import Frame, sample_at_fps

    seconds = np.arange(400) / fps
    frames = [Frame(np.empty(0), time) for time in seconds]
    sampled = [index for index, _, is_chosen in sample_at_fps(frames, label_fps) if is_chosen]
    assert LabelGrid(label_fps=label_fps).frames(seconds).tolist() == sampled


def test_rates_and_counts():
    assert LabelGrid(label_fps=1).rate(None) == 1
    assert LabelGrid(label_every=6).rate(60) == 10
    assert LabelGrid().rate(25) == 25
    assert LabelGrid(label_every=6).rate(None) is None
    assert LabelGrid(label_fps=1).count(732, 24) == 31
    assert LabelGrid(label_fps=1).count(732, None) is None
    assert LabelGrid(label_every=6).count(13, None) == 3
