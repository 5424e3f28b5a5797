"""Masks of iBOT: exact counts in every process, rectangles, weights."""

import pytest
import torch

from common.base.runtime import generator
from pretrain.objectives import masks_image
from pretrain.objectives.masks_image import (
    PatchMasking,
    block_mask,
    draw_rectangle,
    masked_counts,
    masked_places,
    patch_masks,
    patch_weights,
    whole_share,
)

GRID = (14, 14)


def masks(num_crops: int = 16, first: int = 0, seed: int = 0) -> torch.Tensor:
    return patch_masks(GRID, num_crops, seed=seed, first=first)


@pytest.mark.parametrize("num_crops", [2, 7, 16, 64])
def test_half_the_crops_are_masked_with_the_upper_edges_of_equal_bins(num_crops):
    num_masked = num_crops // 2
    expected = [int(196 * (0.1 + 0.4 * (i + 1) / num_masked)) for i in range(num_masked)]
    found = masks(num_crops).sum(dim=1)
    assert sorted(found.tolist()) == [0] * (num_crops - num_masked) + expected


def test_two_crops_give_one_mask_of_half_the_patches():
    assert sorted(masks(2).sum(dim=1).tolist()) == [0, 98]


def test_about_three_tenths_of_masked_crops_and_half_of_that_overall_is_hidden():
    found = masks(256).float()
    masked = found[found.any(dim=1)]
    assert masked.mean().item() == pytest.approx(0.3, abs=0.005)
    assert found.mean().item() == pytest.approx(0.15, abs=0.005)


def test_counts_are_shuffled_over_the_batch():
    counts = [tuple(masked_counts(196, 16, seed=0, first=first)) for first in range(0, 40, 8)]
    assert len(set(counts)) == 5
    assert len({tuple(sorted(one)) for one in counts}) == 1
    assert any(one[0] == 0 for one in counts)
    assert any(one[0] > 0 for one in counts)


def test_other_shares_are_options():
    masking = PatchMasking(crop_share=1.0, lowest_ratio=0.2, highest_ratio=0.6)
    counts = masked_counts(100, 4, seed=0, first=0, masking=masking)
    assert sorted(counts) == [30, 40, 50, 60]


# --- one mask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (6, 10), (2, 2), (1, 5)])
def test_the_count_is_exact_on_every_grid(grid):
    num_patches = grid[0] * grid[1]
    for count in range(num_patches + 1):
        assert block_mask(grid, count, generator(0, count)).sum() == count


def test_masks_are_made_of_blocks_rather_than_of_single_patches():
    """A hidden patch has hidden neighbours far more often than in a random mask of the same count."""

    def hidden_neighbours(mask: torch.Tensor) -> float:
        return (mask[:, 1:] & mask[:, :-1]).sum().item() / mask.sum().item()

    blocks = [hidden_neighbours(block_mask(GRID, 60, generator(seed))) for seed in range(20)]
    assert min(blocks) > 0.5  # 0.28 is expected of single patches


def test_rectangles_are_wide_and_tall_alike_and_shorter_than_the_grid():
    """Aspects are log-uniform between 0.3 and its inverse, areas uniform from 4: here up to 98."""
    places = [draw_rectangle(torch.zeros(GRID, dtype=torch.bool), 98, generator(seed)) for seed in range(500)]
    sides = torch.tensor([[side.stop - side.start for side in place] for place in places]).float()
    logarithms = (sides[:, 0] / sides[:, 1]).log()
    assert sides.max() == 13
    assert logarithms.mean().abs() < 0.1
    assert logarithms.std() > 0.5
    assert ((sides.prod(dim=1) >= 2) & (sides.prod(dim=1) <= 98)).all()
    assert 35 < sides.prod(dim=1).mean() < 60
    assert {place[0].start for place in places} == set(range(13))


def test_a_rectangle_hides_no_more_than_is_left():
    mask = torch.ones(GRID, dtype=torch.bool)
    mask[5:8, 5:8] = False
    for seed in range(100):
        place = draw_rectangle(mask, 4, generator(seed))
        assert place is None or 0 < (~mask[place]).sum() <= 4
    assert draw_rectangle(torch.ones(GRID, dtype=torch.bool), 4, generator(0)) is None


# --- a function of seed, batch and crop ---------------------------------------------------------------------------


def test_every_process_hides_as_many_patches_at_every_step():
    """The published figure: 357 of 16 x 16 patches for 4 frames a GPU, on each of 16 of them (`dinov3`, collate.py)."""
    assert sum(int(256 * ratio) for ratio in (0.2, 0.3, 0.4, 0.5)) == 357
    batches = [
        patch_masks((16, 16), 8, seed=0, first=4 * (16 * step + rank)) for step in range(3) for rank in range(16)
    ]
    assert {int(batch.sum()) for batch in batches} == {357}
    assert {tuple(sorted(batch.sum(dim=1).tolist())) for batch in batches} == {(0, 0, 0, 0, 51, 76, 102, 128)}
    assert len({batch.numpy().tobytes() for batch in batches}) == len(batches)


def test_seed_and_first_sample_change_the_masks_and_nothing_else_does():
    assert torch.equal(masks(), masks())
    assert not torch.equal(masks(), masks(first=8))
    assert not torch.equal(masks(), masks(seed=1))


# --- places and weights -------------------------------------------------------------------------------------------


def test_places_are_those_of_the_flattened_batch():
    drawn = masks()
    patches = torch.arange(drawn.numel())
    assert torch.equal(patches[masked_places(drawn)], patches.view(drawn.shape)[drawn])


def test_weights_of_one_crop_sum_to_1():
    drawn = masks()
    weights = patch_weights(drawn)
    crop = masked_places(drawn) // drawn.shape[1]
    sums = torch.zeros(len(drawn)).index_add(0, crop, weights)
    torch.testing.assert_close(sums, drawn.any(dim=1).float())


@pytest.mark.parametrize(
    ("share", "count", "expected"), [(0.85, 196, 166), (0.9, 196, 176), (0.29, 100, 29), (0.1, 9, 0)]
)
def test_shares_are_rounded_down_and_forgive_binary_fractions(share, count, expected):
    assert whole_share(share, count) == expected


def test_crops_that_hide_equally_many_patches_hide_others():
    crops = patch_masks(GRID, 8, seed=0, first=0, masking=PatchMasking(1.0, 0.3, 0.3))
    assert crops.sum(dim=1).unique().tolist() == [58]
    assert len(crops.unique(dim=0)) == 8


def test_no_rectangle_hides_more_than_half_of_the_grid(monkeypatch):
    """Not even of a crop that hides everything."""
    hidden = []

    def drawn(mask, most, draws):
        place = draw_rectangle(mask, most, draws)
        hidden.append(0 if place is None else int((~mask[place]).sum()))
        return place

    monkeypatch.setattr(masks_image, "draw_rectangle", drawn)
    for seed in range(50):
        assert block_mask((10, 10), 100, generator(seed, "half")).all()
    assert 40 < max(hidden) <= 50
