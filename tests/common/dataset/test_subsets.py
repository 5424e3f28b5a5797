"""Subsets of a training list: nested, stratified, and the same whoever asks."""

import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from common.dataset.kfold import nested_subset, prefix_stratum, stratified_order

FRACTIONS = (0.001, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def training_list(seed: int) -> list[str]:
    """Up to nine prefixes of very unequal size, in no order."""
    draw = random.Random(seed)
    sizes = [draw.randint(1, draw.choice([1, 4, 60])) for _ in range(draw.randint(1, 9))]
    videos = [f"P{prefix}_{number}" for prefix, size in enumerate(sizes) for number in range(size)]
    draw.shuffle(videos)
    return videos


LISTS = [training_list(seed) for seed in range(60)]


def test_three_prefixes_by_hand():
    """4, 2 and 1 videos: every beginning is as near to 4:2:1 as whole videos can be."""
    videos = ["BL_1", "BL_2", "BL_3", "BL_4", "BN_1", "BN_2", "SD_1"]
    prefixes = [prefix_stratum(video) for video in stratified_order(videos)]
    assert prefixes == ["BL", "BN", "BL", "BL", "SD", "BN", "BL"]


def test_a_smaller_subset_is_part_of_a_larger_one():
    for videos in LISTS:
        subsets = [set(nested_subset(videos, fraction)) for fraction in FRACTIONS]
        assert all(small <= large for small, large in pairwise(subsets))


def test_a_subset_has_the_rounded_size_and_at_least_one_video():
    videos = [f"BL_{number}" for number in range(37)]
    sizes = [len(nested_subset(videos, fraction)) for fraction in FRACTIONS]
    assert sizes == [1, 2, 4, 9, 18, 28, 33, 37]


def test_every_beginning_is_within_one_video_of_each_prefixs_exact_share():
    """By Tijdeman's bound even a little less than one: 1/2 for two prefixes, 3/4 for three."""
    for videos in LISTS:
        whole, taken = Counter(map(prefix_stratum, videos)), Counter()
        bound = 1 - Fraction(1, max(2 * len(whole) - 2, 1))
        for length, video in enumerate(stratified_order(videos), 1):
            taken[prefix_stratum(video)] += 1
            shares = {prefix: Fraction(length * size, len(videos)) for prefix, size in whole.items()}
            assert all(abs(taken[prefix] - share) <= bound for prefix, share in shares.items())


def test_the_whole_list_stays_as_it_is():
    assert all(nested_subset(videos, 1.0) == videos for videos in LISTS)


def test_a_subset_keeps_the_order_of_its_list():
    videos = LISTS[3]
    subset = nested_subset(videos, 0.5)
    assert subset == sorted(subset, key=videos.index)


def test_the_choice_does_not_depend_on_the_order_of_the_list():
    for videos in LISTS:
        assert stratified_order(videos) == stratified_order(sorted(videos))


def test_the_choice_is_the_same_in_every_process_and_version():
    """Hashes of names, not a random generator or Python's `hash`: these names are typed from an earlier process."""
    videos = [f"{prefix}_{number}" for prefix in ("BL", "SD") for number in range(1, 11)]
    assert nested_subset(videos, 0.25) == ["BL_3", "BL_4", "BL_6", "SD_2", "SD_6"]


def test_another_seed_and_another_list_draw_other_videos():
    videos = [f"BL_{number:02}" for number in range(60)]
    first = nested_subset(videos, 0.5)
    assert first != nested_subset(videos, 0.5, seed=7)
    assert set(first) - {"BL_59"} != set(nested_subset(videos[:-1], 0.5)) - {"BL_59"}


@pytest.mark.parametrize("videos", [["case1", "case2", "case3", "case4"], ["BL_1"]])
def test_names_without_prefixes_and_single_videos_have_subsets_too(videos):
    assert len(nested_subset(videos, 0.5)) == max(1, len(videos) // 2)


def test_every_video_is_as_likely_to_come_first():
    """Over many seeds, so that the order within a prefix is no order of names."""
    videos = [f"BL_{number}" for number in range(4)]
    firsts = Counter(stratified_order(videos, seed=seed)[0] for seed in range(800))
    assert min(firsts[video] for video in videos) > 150
