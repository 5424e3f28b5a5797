"""Estimates of an extraction: frames, disk, hours, and the timing process that is listened to."""

import multiprocessing

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.features import estimate
from common.features.config import ExtractionConfig
from common.features.estimate import Expected, encoder_speed, expected_frames, feature_bytes, hours
from common.video import probe as headers
from common.video.probe import probe


def test_sampled_frames_follow_the_rate(tmp_path, make_clip, solid):
    videos = {f"BL_{index}": make_clip(tmp_path / f"BL_{index}.mp4", solid((9, 99, 9), 75)) for index in range(3)}
    for fps, sampled in ((None, 75), (5, 15), (100, 75)):
        assert expected_frames(videos, fps) == [Expected(75, sampled, pytest.approx(3.0))] * 3


def test_every_header_is_read_once(tmp_path, make_clip, solid, monkeypatch):
    """Most of the time of a plan for thousands of videos is spent there."""
    videos = {name: make_clip(tmp_path / f"{name}.mp4", solid((9, 99, 9), 10)) for name in ("BL_1", "BL_2")}
    (tmp_path / "BL_3.mp4").write_bytes(b"no video")
    read = []
    monkeypatch.setattr(headers, "probe", lambda path: read.append(path.name) or probe(path))
    assert len(expected_frames(videos | {"BL_3": tmp_path / "BL_3.mp4"}, None)) == 3
    assert read == ["BL_1.mp4", "BL_2.mp4", "BL_3.mp4"]


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 100),
        ({"stride": 4}, 26),  # 0, 4 ... 96 and the last
        ({"mode": "tokens"}, 1 + 2),  # 64 frames, then half a clip further for the 36 after them
        ({"mode": "tokens", "clip_spacing": 1.0}, 1),
        ({"mode": "tokens", "clip_len": 8, "clip_spacing": 0.25}, 1 + 2),  # 16 grid points
        ({"recipe": "published"}, 100),
    ],
)
def test_what_the_network_is_asked_depends_on_the_window(options, calls):
    """100 frames of 4 seconds."""
    config, plan = read_encoder_config(paths.CHECKOUT / "models/V-JEPA2-ViT-L/config.yaml"), ExtractionConfig(**options)
    assert Expected(100, 100, 4.0).calls(config.with_window(plan.window), plan) == calls


@pytest.mark.parametrize(("dtype", "expected"), [("float32", 8192 * 10), ("float16", 4096 * 10)])
def test_size_of_features(dtype, expected):
    config = read_encoder_config(paths.CHECKOUT / "models" / "Base" / "config.yaml")
    assert feature_bytes(config, 10, dtype) == expected


def test_hours_add_up_on_a_cpu_and_overlap_on_a_gpu():
    assert hours(36_000, 36_000, 10, 2, overlap=False) == pytest.approx(1 + 5)
    assert hours(36_000, 36_000, 10, 2, overlap=True) == pytest.approx(5)
    assert hours(36_000, 3_600, 10, 2, overlap=False) == pytest.approx(1 + 0.5)


def test_an_encoder_larger_than_the_memory_is_not_built(workspace, monkeypatch):
    config = read_encoder_config(paths.model("Base").config)
    monkeypatch.setattr(estimate, "MEMORY_FACTOR", 1e9)
    speed = encoder_speed(config, "cpu")
    assert speed.calls_per_second is None
    assert "free memory" in speed.remark


class TestListening:
    """What the timing process says, and what is made of it."""

    def listen(self, *messages, close=True):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        for message in messages:
            sender.send(message)
        if close:
            sender.close()
        return estimate._listen(receiver)

    def test_the_first_batch_is_left_out(self):
        speed = self.listen(("cpu, fp32", 16), (16, 9.0), (16, 2.0), (16, 2.0))
        assert (speed.calls_per_second, speed.remark, speed.at_most) == (8.0, "cpu, fp32", False)

    def test_a_single_batch_counts(self):
        assert self.listen(("cpu", 1), (1, 4.0)).calls_per_second == 0.25

    def test_a_process_that_dies_is_no_measurement(self):
        speed = self.listen(("cpu", 16))
        assert speed.calls_per_second is None
        assert "died" in speed.remark

    def test_its_error_is_handed_on(self):
        speed = self.listen(UserError("no such device"))
        assert (speed.calls_per_second, speed.remark) == (None, "not timed: no such device")

    def test_a_batch_that_takes_too_long_is_an_upper_bound(self, monkeypatch):
        monkeypatch.setattr(estimate, "PATIENCE_SECONDS", 0.1)
        speed = self.listen(("cpu", 16), close=False)
        assert speed.at_most
        assert speed.calls_per_second == pytest.approx(160)

    def test_a_network_that_is_never_built_is_no_measurement(self, monkeypatch):
        monkeypatch.setattr(estimate, "BUILD_SECONDS", 0.1)
        speed = self.listen(close=False)
        assert speed.calls_per_second is None
        assert "not built" in speed.remark
