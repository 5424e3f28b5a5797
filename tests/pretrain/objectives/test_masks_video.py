"""Masks of clips: shapes, published statistics, ratios, truncation to the batch of one process."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from common.base.runtime import UserError, generator
from pretrain.objectives.masks_video import LONG_RANGE, SHORT_RANGE, Multiblock, TokenMasks, Tube, masking

GRID = (4, 16, 16)
NUM_TOKENS = 4 * 16 * 16
FAMILIES = {"short": SHORT_RANGE, "long": LONG_RANGE}


def draw(strategy: Multiblock | Tube, num_samples: int = 6, step: int = 0, seed: int = 0, grid=GRID) -> TokenMasks:
    return strategy.draw(grid, seed=seed, step=step, samples=range(num_samples))


def as_masks(places: torch.Tensor, grid=GRID) -> torch.Tensor:
    """Places `(B, K)` as masks `(B, T, H, W)`."""
    masks = torch.zeros(len(places), grid[0] * grid[1] * grid[2], dtype=torch.bool)
    return masks.scatter(1, places, True).view(-1, *grid)


ALL = {
    "tube": Tube(),
    "short": SHORT_RANGE,
    "long": LONG_RANGE,
    "capped": replace(SHORT_RANGE, mask_ratio=0.9),
    "complement": replace(SHORT_RANGE, mask_ratio=0.9, targets="complement"),
}


@pytest.mark.parametrize("name", ALL)
def test_places_are_ascending_inside_the_grid_and_never_both(name):
    for step in range(5):
        context, target = draw(ALL[name], step=step)
        for places in (context, target):
            assert len(places) == 6
            assert places.shape[1] > 0
            assert (places[:, 1:] > places[:, :-1]).all()
            assert places.min() >= 0
            assert places.max() < NUM_TOKENS
        assert not (as_masks(context) & as_masks(target)).any()


@pytest.mark.parametrize("name", ALL)
def test_masks_follow_seed_step_and_sample_alone(name):
    first, again = draw(ALL[name]), draw(ALL[name])
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.target, again.target)
    for other in (draw(ALL[name], step=1), draw(ALL[name], seed=1)):
        assert first.target.shape != other.target.shape or not torch.equal(first.target, other.target)
    assert not torch.equal(first.target[0], first.target[1])


# --- tube ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "hidden"), [(0.9, 176), (0.85, 166)])
def test_a_tube_hides_exactly_its_ratio_at_the_same_places_of_every_tubelet(ratio, hidden):
    grid = (8, 14, 14)
    context, target = draw(Tube(ratio), grid=grid)
    masks = as_masks(target, grid)
    assert (masks.sum(dim=(2, 3)) == hidden).all()
    assert (masks == masks[:, :1]).all()
    assert torch.equal(as_masks(context, grid), ~masks)


# --- blocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_targets_are_unions_of_blocks_of_one_size_over_the_whole_clip(name):
    """A single sample is not truncated: its targets are rectangles, the same at all times, and its context the rest."""
    family = FAMILIES[name]
    for step in range(20):
        _, height, width = family.block_size(GRID, generator(0, "mask", step, name, "size"))
        context, target = draw(family, num_samples=1, step=step)
        mask = as_masks(target)[0]
        assert (mask == mask[:1]).all()
        assert torch.equal(as_masks(context)[0], ~mask)
        windows = mask[0].unfold(0, height, 1).unfold(1, width, 1).all(dim=(2, 3))  # where a whole block fits
        covered = torch.zeros(16, 16, dtype=torch.bool)
        for top, left in windows.nonzero().tolist():
            covered[top : top + height, left : left + width] = True
        assert torch.equal(covered, mask[0])


@pytest.mark.parametrize(("name", "scale"), [("short", 0.15), ("long", 0.7)])
def test_block_sizes_keep_area_and_aspect(name, scale):
    sizes = [FAMILIES[name].block_size((8, 64, 64), generator(step)) for step in range(200)]
    areas = torch.tensor([height * width / 64**2 for _, height, width in sizes])
    aspects = torch.tensor([height / width for _, height, width in sizes])
    assert {length for length, _, _ in sizes} == {8}
    assert ((areas - scale).abs() < 0.05 * scale + 0.01).all()
    assert aspects.min() < 0.8
    assert aspects.max() > 1.4
    assert (aspects > 0.7).all()
    assert (aspects < 1.6).all()


def test_the_block_size_is_drawn_once_a_step():
    sizes = {SHORT_RANGE.block_size(GRID, generator(0, "mask", step, "short", "size")) for step in range(30)}
    assert len(sizes) > 3
    assert SHORT_RANGE.block_size((4, 16, 16), generator(1)) == SHORT_RANGE.block_size((4, 16, 16), generator(1))


def test_shorter_blocks_start_anywhere_in_time():
    family = replace(SHORT_RANGE, num_blocks=1, temporal_scale=0.5)
    starts = {
        as_masks(draw(family, num_samples=1, step=step).target)[0].any(dim=(1, 2)).tolist().index(True)
        for step in range(30)
    }
    assert starts == {0, 1, 2}
    lengths = [as_masks(draw(family, num_samples=1, step=step).target)[0].any(dim=(1, 2)).sum() for step in range(5)]
    assert lengths == [2] * 5


@pytest.mark.parametrize(("name", "share", "spread"), [("short", 0.62, 0.08), ("long", 0.81, 0.07)])
def test_shares_of_hidden_tokens_are_those_of_the_released_masks(name, share, spread):
    grid = (1, 16, 16)
    shares = torch.tensor([draw(FAMILIES[name], 1, step, grid=grid).target.shape[1] / 256 for step in range(600)])
    assert shares.mean().item() == pytest.approx(share, abs=0.015)
    assert shares.std().item() == pytest.approx(spread, abs=0.015)


@pytest.mark.parametrize(("name", "context", "target"), [("short", 0.2465, 0.463), ("long", 0.0642, 0.702)])
def test_lengths_in_batches_of_24_are_those_of_the_released_masks(name, context, target):
    """The figures are of the published generator (vjepa2 c2963a4) over 2016 samples, here of as many of ours."""
    drawn = [draw(FAMILIES[name], 24, step, grid=(1, 16, 16)) for step in range(84)]
    lengths = torch.tensor([[part.shape[1] / 256 for part in masks] for masks in drawn]).mean(dim=0)
    assert lengths.tolist() == pytest.approx([context, target], abs=0.02)


def draw_of(samples: range, step: int) -> TokenMasks:
    return LONG_RANGE.draw((1, 16, 16), seed=0, step=step, samples=samples)


def test_a_cut_over_all_processes_would_halve_the_long_context():
    """16 processes of 8 clips, 2048 tokens: the published cut keeps 187 of them, a common one 98."""
    lengths = torch.tensor(
        [[draw_of(range(8 * rank, 8 * rank + 8), step).context.shape[1] for rank in range(16)] for step in range(100)],
        dtype=torch.float32,
    )
    assert 8 * lengths.mean().item() == pytest.approx(187, abs=12)
    assert 8 * lengths.min(dim=1).values.mean().item() == pytest.approx(98, abs=8)


def test_truncation_drops_the_latest_tokens_of_longer_lists():
    """Against each sample drawn alone, which nothing truncates."""
    context, target = draw(SHORT_RANGE)
    alone = [SHORT_RANGE.draw(GRID, seed=0, step=0, samples=[sample]) for sample in range(6)]
    assert context.shape[1] == min(one.context.shape[1] for one in alone)
    assert target.shape[1] == min(one.target.shape[1] for one in alone)
    assert context.shape[1] + target.shape[1] < NUM_TOKENS
    for sample, one in enumerate(alone):
        assert torch.equal(context[sample], one.context[0, : context.shape[1]])
        assert torch.equal(target[sample], one.target[0, : target.shape[1]])


# --- a fixed ratio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["blocks", "complement"])
def test_a_mask_ratio_leaves_exactly_the_rest_as_context(targets):
    """Outside of short blocks there is always more than a tenth of the tokens."""
    masks = draw(replace(SHORT_RANGE, mask_ratio=0.9, targets=targets))
    assert masks.context.shape == (6, int(0.1 * NUM_TOKENS))


def test_a_capped_context_is_outside_the_blocks_and_spread_over_the_whole_clip():
    capped = draw(replace(SHORT_RANGE, mask_ratio=0.9), num_samples=1)
    free = draw(SHORT_RANGE, num_samples=1)
    context = as_masks(capped.context)[0]
    assert not (context & ~as_masks(free.context)[0]).any()
    assert torch.equal(capped.target, free.target)
    assert (context.sum(dim=(1, 2)) > 10).all()  # of 102 in four tubelets


def test_a_context_cut_to_the_batchs_shortest_still_covers_the_clip_under_a_ratio():
    """Long blocks leave less than a tenth in some sample of a large batch."""
    context, _ = draw(replace(LONG_RANGE, mask_ratio=0.9), num_samples=24)
    assert context.shape[1] < int(0.1 * NUM_TOKENS)
    assert as_masks(context).any(dim=(2, 3)).float().mean() > 0.95
    assert as_masks(draw(LONG_RANGE, 24).context).any(dim=(2, 3)).float().mean() < 0.8


def test_a_complement_leaves_no_token_out():
    for family in (SHORT_RANGE, replace(LONG_RANGE, mask_ratio=0.9)):
        context, target = draw(replace(family, targets="complement"))
        assert torch.equal(as_masks(target), ~as_masks(context))


def test_a_scarce_context_is_shorter_than_its_cap():
    assert draw(replace(LONG_RANGE, mask_ratio=0.5), 24).context.shape == draw(LONG_RANGE, 24).context.shape


# --- by name, and what goes wrong ---------------------------------------------------------------------------------


def test_strategies_by_name():
    assert masking("multiblock") == (SHORT_RANGE, LONG_RANGE)
    assert masking("tube") == (Tube(0.9),)
    assert masking("tube", mask_ratio=0.85) == (Tube(0.85),)
    capped = masking("multiblock", mask_ratio=0.9, targets="complement")
    assert [family.name for family in capped] == ["short", "long"]
    assert {(family.mask_ratio, family.targets) for family in capped} == {(0.9, "complement")}


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(UserError, match="mask 'random' is unknown; known: multiblock, tube"):
        masking("random")


@pytest.mark.parametrize("ratio", [0.0, 1.0, 90])
def test_a_ratio_outside_of_0_and_1_is_an_error(ratio):
    with pytest.raises(UserError, match="between 0 and 1"):
        masking("tube", mask_ratio=ratio)


def test_blocks_that_always_cover_everything_are_an_error():
    with pytest.raises(UserError, match=r"mask all: 1 blocks of \(4, 16, 16\) tokens leave no context"):
        draw(Multiblock("all", num_blocks=1, spatial_scale=1.0, aspect=(1.0, 1.0)))


def test_a_ratio_that_leaves_no_token_is_an_error():
    with pytest.raises(UserError, match=r"mask short: a ratio of 0.9 leaves no context of 8 tokens"):
        draw(replace(SHORT_RANGE, mask_ratio=0.9), grid=(2, 2, 2))


# --- two processes ------------------------------------------------------------------------------------------------


def own_masks(strategy: Multiblock | Tube) -> TokenMasks:
    first = 4 * dist.get_rank()
    return strategy.draw(GRID, seed=0, step=0, samples=range(first, first + 4))


@pytest.mark.parametrize("name", ALL)
def test_two_processes_draw_what_each_would_draw_alone(two, name):
    """Nothing is sent: the number of processes changes no mask."""
    for rank, masks in enumerate(two(own_masks, ALL[name])):
        alone = ALL[name].draw(GRID, seed=0, step=0, samples=range(4 * rank, 4 * rank + 4))
        assert torch.equal(masks.context, alone.context)
        assert torch.equal(masks.target, alone.target)


def test_two_processes_have_contexts_of_their_own_length_from_blocks_of_one_size(two):
    lengths = [masks.context.shape[1] for masks in two(own_masks, SHORT_RANGE)]
    assert min(lengths) == draw(SHORT_RANGE, num_samples=8).context.shape[1]
    assert lengths[0] != lengths[1]


def test_a_tube_that_hides_nothing_is_an_error():
    with pytest.raises(UserError, match=r"a ratio of 0\.2 hides none of 4 places"):
        draw(Tube(0.2), grid=(4, 2, 2))
