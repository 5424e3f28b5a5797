"""What the plan of a training says of its data: measured by reading, and held against what the GPU takes."""

import time

import pytest
import torch

from common.base.runtime import UserError
from pretrain.video_data.data_rate import PROBE_SAMPLES, ReadingSpeed, describe_data, probe_reading


class SlowSamples:
    """Samples that take a while."""

    def __init__(self, seconds: float, samples_per_seek: int = 1):
        self.seconds, self.samples_per_seek = seconds, samples_per_seek
        self.asked: list[int] = []

    def __getitems__(self, numbers):
        self.asked += numbers
        time.sleep(self.seconds * len(numbers))
        return [{}] * len(numbers)


def test_reading_is_timed_after_a_warm_up():
    samples = SlowSamples(0.01)
    speed = probe_reading(samples)
    assert speed.num_samples == PROBE_SAMPLES
    assert samples.asked == list(range(PROBE_SAMPLES + 1))
    assert 0.01 <= speed.seconds < 0.05


def test_a_slow_disk_is_asked_for_little():
    samples = SlowSamples(0.2)
    speed = probe_reading(samples, most_seconds=0.3)
    assert speed.num_samples == len(samples.asked) == 2
    assert speed.seconds == pytest.approx(0.2, rel=0.5)


def test_neighbours_are_read_together():
    samples = SlowSamples(0.001, samples_per_seek=4)
    assert probe_reading(samples).num_samples == PROBE_SAMPLES
    assert samples.asked == list(range(PROBE_SAMPLES + 4))


def test_the_threads_of_the_training_stay_as_they_are():
    before = torch.get_num_threads()

    class Failing(SlowSamples):
        def __getitems__(self, numbers):
            assert torch.get_num_threads() == 1
            raise UserError("the disk is gone")

    try:
        torch.set_num_threads(2)
        with pytest.raises(UserError, match="the disk is gone"):
            probe_reading(Failing(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def described(seconds: float = 0.1, **changes) -> str:
    settings = {"num_workers": 4, "num_cores": 8, "wanted": 128.0, "is_packed": False, "unit": "images"}
    return describe_data(ReadingSpeed(seconds, 16), **settings | changes)


def test_too_slow_is_said_with_what_helps():
    assert described() == (
        "100 ms of a core for each of 16 images; 40 a second by 4 processes; the GPU takes about 128 at 35% of its peak: the "
        "data is 3.2 times too slow; pack the videos (pack_videos.py), or --num_workers 13 on as many cores, or "
        "--samples_per_seek"
    )
    assert described(is_packed=True).endswith("3.2 times too slow; --num_workers 13 on as many cores")


def test_fast_enough_is_said():
    assert described(0.01).endswith(
        "400 a second by 4 processes; the GPU takes about 128 at 35% of its peak: the data keeps up"
    )


def test_an_unknown_device_is_not_judged():
    assert described(wanted=None).endswith("40 a second by 4 processes; what the device takes is not known")


def test_more_processes_than_cores_read_no_faster():
    assert "20 a second by 2 of 4 processes, as there are cores" in described(num_cores=2)


def test_without_reading_processes_the_training_reads():
    assert "10 a second by this process, in turn with the training" in described(num_workers=0)
