"""Centering: lightly's answers, the algebra of Sinkhorn-Knopp, and two processes as one.

lightly is imported where it is asked: the second process imports this module, and need not wait for it.
"""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.objectives.centering import SoftmaxCentering, sinkhorn_knopp

TEMPERATURE = 0.05


def scores(*shape: int, seed: int = 0, spread: float = 0.3) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def sinkhorn():
    """lightly's Sinkhorn-Knopp, which takes no precautions against overflow."""
    from lightly.loss.swav_loss import sinkhorn

    return sinkhorn


# --- Sinkhorn-Knopp -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_equals_lightly(sinkhorn, iterations, temperature):
    logits = scores(12, 20)
    expected = sinkhorn(logits, iterations=iterations, epsilon=temperature)
    torch.testing.assert_close(
        sinkhorn_knopp(logits, temperature, iterations=iterations), expected, rtol=1e-4, atol=1e-7
    )


def test_equals_the_textbook_loop():
    """Q / sum, rows to 1/K, columns to 1/B, three times, then times B: in float64, by hand."""
    logits = scores(6, 4)
    q = (logits.double() / TEMPERATURE).exp().T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / 4
        q = q / q.sum(dim=0, keepdim=True) / 6
    torch.testing.assert_close(sinkhorn_knopp(logits, TEMPERATURE).double(), 6 * q.T, rtol=1e-5, atol=1e-7)


def test_rows_are_distributions():
    probabilities = sinkhorn_knopp(scores(16, 10), TEMPERATURE)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(16))


def test_a_constant_for_each_prototype_changes_nothing_and_one_for_each_sample_does():
    logits = scores(16, 10)
    plain = sinkhorn_knopp(logits, TEMPERATURE)
    torch.testing.assert_close(sinkhorn_knopp(logits + scores(1, 10, seed=1), TEMPERATURE), plain, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(sinkhorn_knopp(logits + scores(16, 1, seed=1), TEMPERATURE), plain, atol=1e-3)


def test_prototypes_share_the_mass_equally_after_many_iterations():
    mass = sinkhorn_knopp(scores(16, 8), TEMPERATURE, iterations=500).sum(dim=0)
    torch.testing.assert_close(mass, torch.full((8,), 2.0), rtol=1e-3, atol=0)


def test_the_level_of_the_logits_does_not_matter_where_exp_would_overflow(sinkhorn):
    logits = scores(8, 6)
    assert not sinkhorn(logits + 5, epsilon=0.04).isfinite().all()
    torch.testing.assert_close(sinkhorn_knopp(logits + 5, 0.04), sinkhorn_knopp(logits, 0.04), rtol=1e-3, atol=1e-6)


def test_a_sample_far_below_the_others_keeps_its_distribution(sinkhorn):
    """Its exponentials are zero in float32, whatever common constant is taken off first."""
    logits = scores(8, 6)
    logits[0] -= 8
    shifted = logits - logits.max()
    assert not sinkhorn(shifted, epsilon=0.04).isfinite().all()
    expected = sinkhorn(shifted.double(), epsilon=0.04)
    torch.testing.assert_close(sinkhorn_knopp(logits, 0.04).double(), expected, rtol=1e-3, atol=1e-6)


def test_leading_dimensions_are_one_batch():
    logits = scores(2, 5, 7)
    together = sinkhorn_knopp(logits, TEMPERATURE)
    torch.testing.assert_close(together.flatten(0, 1), sinkhorn_knopp(logits.flatten(0, 1), TEMPERATURE))
    assert not torch.allclose(together[0], sinkhorn_knopp(logits[0], TEMPERATURE), atol=1e-3)


@pytest.mark.parametrize("centering", [sinkhorn_knopp, SoftmaxCentering(10)])
def test_half_precision_is_computed_in_float32_without_gradient(centering):
    logits = scores(16, 10).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        probabilities = centering(logits, TEMPERATURE)
    assert probabilities.dtype == torch.float32
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(16))


# --- softmax centering --------------------------------------------------------------------------------------------


def test_softmax_centering_equals_lightly_in_centre_and_targets():
    from lightly.loss import DINOLoss

    ours, theirs = SoftmaxCentering(10), DINOLoss(output_dim=10)
    for seed in range(3):
        logits = scores(2, 6, 10, seed=seed)
        expected = torch.softmax((logits - theirs.center) / TEMPERATURE, dim=-1)
        theirs(list(logits), list(logits))
        torch.testing.assert_close(ours(logits, TEMPERATURE), expected)
        torch.testing.assert_close(ours.center, theirs.center.flatten())


def test_the_first_centre_is_a_tenth_of_the_mean():
    centering = SoftmaxCentering(3)
    centering(torch.tensor([[1.0, 2, 3], [3, 2, 7]]), TEMPERATURE)
    torch.testing.assert_close(centering.center, torch.tensor([0.2, 0.2, 0.5]))


def test_the_centre_is_part_of_the_state():
    assert list(SoftmaxCentering(3).state_dict()) == ["center"]


def test_no_samples_leave_the_centre_alone():
    centering = SoftmaxCentering(3)
    centering(torch.ones(2, 3), TEMPERATURE)
    before = centering.center.clone()
    assert centering(torch.ones(0, 3), TEMPERATURE).shape == (0, 3)
    assert torch.equal(centering.center, before)


# --- two processes ------------------------------------------------------------------------------------------------


def sinkhorn_of_own(logits: Tensor, sizes: list[int]) -> Tensor:
    return sinkhorn_knopp(logits.split(sizes)[dist.get_rank()], TEMPERATURE)


def center_of_own(logits: Tensor, sizes: list[int]) -> Tensor:
    centering = SoftmaxCentering(logits.shape[1])
    centering(logits.split(sizes)[dist.get_rank()], TEMPERATURE)
    return centering.center


@pytest.mark.parametrize("sizes", [[6, 6], [3, 9], [0, 12]])
def test_two_processes_normalise_over_the_whole_batch(two, sizes):
    logits = scores(12, 20)
    logits[4:] += 4  # the largest logit is in one process only
    together = torch.cat(two(sinkhorn_of_own, logits, sizes))
    torch.testing.assert_close(together, sinkhorn_knopp(logits, TEMPERATURE), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sizes", [[6, 6], [3, 9], [0, 12]])
def test_two_processes_have_the_whole_batchs_centre(two, sizes):
    logits = scores(12, 20)
    for center in two(center_of_own, logits, sizes):
        torch.testing.assert_close(center, 0.1 * logits.mean(dim=0))
