"""Reductions: identities in one process, whole-batch answers with the right gradients in two."""

import pytest
import torch

from pretrain.objectives.reduce import (
    all_gather,
    all_reduce_max,
    all_reduce_min,
    all_reduce_sum,
    is_distributed,
    rank,
    world_size,
)
from tests.pretrain.distributed import assert_two_equal_one


@pytest.mark.parametrize("function", [all_reduce_sum, all_reduce_max, all_reduce_min, all_gather])
def test_without_a_process_group_everything_is_the_identity(function):
    values = torch.arange(6.0).view(2, 3)
    assert torch.equal(function(values), values)
    assert (is_distributed(), world_size(), rank()) == (False, 1, 0)


def test_sums_and_gathered_rows_carry_gradients_without_a_process_group():
    values = torch.ones(2, 3, requires_grad=True)
    (all_reduce_sum(values) * all_gather(values)).sum().backward()
    assert torch.equal(values.grad, torch.full((2, 3), 2.0))


def reduced(values: torch.Tensor) -> dict[str, torch.Tensor]:
    own = values[rank()]
    functions = {"sum": all_reduce_sum, "max": all_reduce_max, "min": all_reduce_min, "gather": all_gather}
    return {name: function(own) for name, function in functions.items()} | {"own": own}


def test_two_processes_reduce_elementwise_and_leave_their_own_values(two):
    values = torch.tensor([[[1.0, 5.0]], [[3.0, -2.0]]])
    first, second = two(reduced, values)
    assert first["sum"].tolist() == [[4, 3]]
    assert first["max"].tolist() == [[3, 5]]
    assert first["min"].tolist() == [[1, -2]]
    assert first["gather"].tolist() == [[1, 5], [3, -2]]
    assert all(torch.equal(first[name], second[name]) for name in ("sum", "max", "min", "gather"))
    assert torch.equal(torch.stack([first["own"], second["own"]]), values)


def pairwise_loss(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Mean over own rows of a nonlinear function of every other row."""
    own = inputs @ weight
    return torch.tanh(own @ all_gather(own).T).sum(dim=1).mean()


def variance(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    own = inputs @ weight
    mean = all_reduce_sum(own.sum(dim=0)) / all_reduce_sum(torch.tensor(float(len(own))))
    return (own - mean).square().sum(dim=1).mean()


@pytest.mark.parametrize("loss", [pairwise_loss, variance])
def test_gradients_through_other_processes_rows_arrive(two, loss):
    draws = torch.Generator().manual_seed(0)
    assert_two_equal_one(two, loss, torch.randn(5, 3, generator=draws), torch.randn(8, 5, generator=draws))
