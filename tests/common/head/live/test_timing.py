"""Frames that a head is fed with: of a file exactly those of the whole-video prediction, of a live source a grid in time."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.features.files import FeatureWriter
from common.head.batch_gen import open_video
from common.head.live.timing import Rule
from common.video.label_grid import LabelGrid
from common.video.timeline import Timeline, sample_at_fps


@dataclass(frozen=True)
class Shown:
    """A frame without a picture."""

    seconds: float


def fed(choices):
    return [(index, choice.point) for index, choice in enumerate(choices) if choice.point is not None]


def seconds_of(steps):
    return np.cumsum([0.0, *steps])


RATES = st.sampled_from([None, 0.7, 1.0, 2.0, 5.0, 25.0, 29.97, 60.0])


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.04, 0.04, 1 / 29.97, 0.02, 0.11, 0.5, 1.3]), min_size=0, max_size=70),
    fps=RATES,
    every=st.integers(1, 4),
    label_fps=RATES,
    label_every=st.integers(1, 5),
    sample_rate=st.integers(1, 3),
)
def test_of_a_file_those_that_the_prediction_of_the_whole_video_takes(
    tmp_path_factory, steps, fps, every, label_fps, label_every, sample_rate
):
    seconds = seconds_of(steps)
    every = every if fps is None else 1
    grid = LabelGrid(label_fps, None if label_fps else label_every)
    frames = [Shown(float(time)) for time in seconds]
    sampled = [index for index, _, chosen in sample_at_fps(frames, fps) if chosen and index % every == 0]
    path = write(tmp_path_factory.mktemp("features") / "v.npy", Timeline(seconds, np.array(sampled)))
    opened = open_video(path, 4, grid=grid, sample_rate=sample_rate)
    rule = Rule(fps, every, grid, sample_rate)
    choices = list(rule.of_file(iter(frames)))
    assert [choice.frame for choice in choices] == frames
    assert [index for index, choice in enumerate(choices) if choice.is_sampled] == sampled
    assert fed(choices) == [(frame, point) for point, frame in enumerate(opened.timeline.sampled.tolist())]


def write(path, timeline):
    identity = {
        "encoder": "E", "weights": {"source": "none", "file": None, "sha256": None}, "pooling": "p", "window": None,
        "preprocessing": {}, "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav",
    }  # fmt: skip
    record = timeline.to_json()
    record["timestamps"] = {"policy": "listed", "seconds": timeline.seconds.tolist()}  # without rounding
    with FeatureWriter(path, 4, "float32") as writer:
        writer.append(np.zeros((len(timeline.sampled), 4), np.float32))
        writer.finish(identity | {"timeline": record})
    return path


def live(seconds, rate, rule=None):
    return fed((rule or Rule()).of_live((Shown(time) for time in seconds), rate))


def test_a_live_source_feeds_the_first_frame_at_each_point_of_the_grid():
    assert live([0, 0.2, 0.4, 0.6, 0.8, 1.0], 2.5) == [(0, 0), (1, 1), (3, 2), (5, 3)]
    # a camera slower than the grid, and one that pauses: what is skipped had no frame
    assert live([0, 0.5, 1.0, 3.0], 4) == [(0, 0), (1, 2), (2, 4), (3, 12)]


def test_the_first_frame_of_a_stream_may_be_at_any_time():
    assert live([812.0, 813.0, 814.0], 1) == [(0, 0), (1, 1), (2, 2)]


def test_without_a_rate_the_source_sets_it():
    assert live([0, 0.1, 0.5], None, Rule(sample_rate=2)) == [(0, 0), (2, 1)]
    assert live(np.arange(7) / 10, None, Rule(every=3)) == [(0, 0), (3, 1), (6, 2)]


@pytest.mark.parametrize("rate", [25, 24.8, 25.3])
def test_a_camera_at_about_the_rate_of_the_grid_feeds_nearly_every_frame(rate):
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 500)
    points = [point for _, point in live(np.arange(500) / 25 + np.abs(jitter), rate)]
    assert points == sorted(set(points))
    assert len(points) >= 485
    assert max(np.diff(points)) <= 2
