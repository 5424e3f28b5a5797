"""Many short videos in one extraction: memory and open descriptors stay as they are after the first of them."""

import pytest

from tests.benchmarks.soak import MOST_MORE_DESCRIPTORS, extract_and_sample, growth

NUM_VIDEOS = 200
MOST_GROWTH_MB = 5  # a fifth of the videos of the benchmark, and a quarter of what these may take


@pytest.mark.slow
@pytest.mark.parametrize("num_decoders", [1, 2])
def test_finished_videos_leave_nothing_behind(tmp_path, num_decoders):
    megabytes, descriptors = growth(extract_and_sample(tmp_path, NUM_VIDEOS, num_decoders))
    assert megabytes < MOST_GROWTH_MB
    assert descriptors <= MOST_MORE_DESCRIPTORS
