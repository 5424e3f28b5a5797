"""Masks of pretraining for drawn grids and shares: how much is hidden, of what, and that each draw is its own."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from common.base.runtime import UserError, generator
from pretrain.objectives.masks_image import PatchMasking, block_mask, masked_counts, patch_masks, patch_weights
from pretrain.objectives.masks_video import Tube, masking

seeds = st.integers(0, 1000)
sides = st.integers(1, 12)
grids = st.tuples(st.integers(1, 6), st.integers(2, 8), st.integers(2, 8))


@given(sides, sides, st.data(), seeds)
def test_a_block_mask_hides_exactly_as_many_patches_as_asked(height, width, data, seed):
    count = data.draw(st.integers(0, height * width))
    assert int(block_mask((height, width), count, generator(seed, "drawn")).sum()) == count


@given(st.integers(1, 16), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.5, 1), seeds)
def test_the_asked_share_of_crops_is_masked_between_the_asked_shares_of_patches(num_crops, share, low, high, seed):
    rule = PatchMasking(share, low, high)
    counts = masked_counts(100, num_crops, seed=seed, first=3, masking=rule)
    assert len(counts) == num_crops
    assert sum(count > 0 for count in counts) <= share * num_crops + 1e-6
    assert all(count == 0 or 100 * low - 1 <= count <= 100 * high + 1e-6 for count in counts)
    num_masked = int(share * num_crops + 1e-6)
    if num_masked:  # the upper edge of the last of the equal parts
        assert abs(max(counts) - 100 * high) <= 1


@given(st.integers(1, 12), st.integers(0, 10**9), seeds)
def test_masks_have_their_counts_and_each_masked_crop_counts_as_one(num_crops, first, seed):
    masks = patch_masks((6, 5), num_crops, seed=seed, first=first)
    assert masks.sum(dim=1).tolist() == masked_counts(30, num_crops, seed=seed, first=first)
    weights = patch_weights(masks)
    assert len(weights) == int(masks.sum())
    assert abs(float(weights.sum()) - int(masks.any(dim=1).sum())) < 1e-4


@given(grids, st.floats(0.05, 0.95), st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), seeds)
def test_tubes_hide_the_same_places_at_all_times_and_all_tokens_are_one_or_the_other(grid, ratio, samples, seed):
    times, rows, columns = grid
    places = rows * columns
    assume(int(ratio * places + 1e-6))
    masks = Tube(ratio).draw(grid, seed=seed, step=1, samples=samples)
    for context, target in zip(masks.context, masks.target, strict=True):
        assert sorted([*context.tolist(), *target.tolist()]) == list(range(times * places))
        assert target.view(times, -1).remainder(places).unique(dim=0).shape[0] == 1
    assert masks.target.shape[1] == times * int(ratio * places + 1e-6)
    alone = [Tube(ratio).draw(grid, seed=seed, step=1, samples=[sample]).target[0] for sample in samples]
    assert torch.equal(masks.target, torch.stack(alone))


@given(
    grids,
    st.one_of(st.none(), st.floats(0.1, 0.9)),
    st.sampled_from(["blocks", "complement"]),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    seeds,
)
def test_multiblock_masks_never_show_what_they_ask_for(grid, ratio, targets, samples, seed):
    num_tokens = grid[0] * grid[1] * grid[2]
    for family in masking("multiblock", mask_ratio=ratio, targets=targets):
        try:
            masks = family.draw(grid, seed=seed, step=1, samples=samples)
        except UserError:  # blocks that cover the clip, or a share of less than a token
            assume(False)
        assert masks.context.shape[1] > 0
        for context, target in zip(masks.context.tolist(), masks.target.tolist(), strict=True):
            assert context == sorted(set(context))
            assert target == sorted(set(target))
            assert not set(context) & set(target)
            if targets == "complement":
                assert len(context) + len(target) == num_tokens
            if ratio is not None:
                assert len(context) <= (1 - ratio) * num_tokens + 1e-3
