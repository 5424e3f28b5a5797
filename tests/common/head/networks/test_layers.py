"""The layers of a stage as one: their parameters joined for training are the same parameters, and so is what an optimizer keeps of them."""

from copy import deepcopy

import pytest
import torch

from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.networks.layers import Head
from common.head.training import adam

CONFIGS = {
    "mstcn++": TrainConfig(features_dim=12, num_layers_PG=3, num_layers_R=2, num_R=2, num_f_maps=8),
    "standardised": TrainConfig(
        features_dim=12, num_layers_PG=3, num_layers_R=2, num_R=1, num_f_maps=8, standardise="train"
    ),
    "causal": TrainConfig(features_dim=12, num_layers_PG=3, num_layers_R=2, num_R=1, num_f_maps=8, causal=True),
    "tecno": TrainConfig(features_dim=12, head="tecno", head_options={"layers": 3, "maps": 8}),
    "one layer": TrainConfig(features_dim=12, head="tecno", head_options={"layers": 1, "maps": 8}),
    "gru": TrainConfig(features_dim=12, head="gru", head_options={"hidden": 6, "layers": 2}),
}


@pytest.fixture(params=CONFIGS)
def config(request) -> TrainConfig:
    return CONFIGS[request.param]


def head_of(config: TrainConfig) -> Head:
    return build_head(config, 5).double().train()


def take_steps(head: Head, optimizer: torch.optim.Optimizer, *seeds: int) -> None:
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        head.use_dropout_generator(random)
        optimizer.zero_grad()
        head(torch.randn(2, 12, 30, generator=random, dtype=torch.float64)).square().mean().backward()
        optimizer.step()


def apart_from_each_other(config: TrainConfig) -> tuple[Head, torch.optim.Optimizer]:
    """A head and the optimizer over its parameters as they are: what joining must not change."""
    head = head_of(config)
    return head, torch.optim.Adam(head.parameters(), lr=config.lr, fused=True)


def assert_equal(ours, plain) -> None:
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


def test_joined_parameters_are_trained_like_those_that_are_not(config):
    head, plain = head_of(config), apart_from_each_other(config)
    optimizer = adam(config, head)
    before = deepcopy(head.state_dict())
    take_steps(head, optimizer, 1, 2, 3)
    take_steps(*plain, 1, 2, 3)
    assert_equal(head.state_dict(), plain[0].state_dict())
    learned = dict(head.named_parameters())
    assert not any(torch.equal(learned[name], before[name]) for name in learned)
    with torch.no_grad():  # what predicts reads the parts
        x = torch.ones(1, 12, 20, dtype=torch.float64)
        assert_equal(head.eval()(x), plain[0].eval()(x))


def test_few_tensors_are_updated_and_they_hold_every_parameter_once():
    config = TrainConfig(features_dim=12)  # the study's sizes: 13 layers in each of 5 stages
    head = build_head(config, 5)
    wholes = [each.whole for each in head.join()]
    assert len(wholes) == 6 + 4 + 4 * (4 + 4)
    assert sum(whole.numel() for whole in wholes) == sum(parameter.numel() for parameter in head.parameters())


def test_an_optimizer_keeps_what_one_over_the_parameters_of_the_head_would(config):
    head, plain = head_of(config), apart_from_each_other(config)
    optimizer = adam(config, head)
    take_steps(head, optimizer, 1, 2)
    take_steps(*plain, 1, 2)
    ours, theirs = optimizer.state_dict(), plain[1].state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    assert ours["param_groups"][0].keys() == theirs["param_groups"][0].keys()
    assert ours["param_groups"][0]["params"] == theirs["param_groups"][0]["params"]
    for number, own in theirs["state"].items():
        assert_equal(ours["state"][number], own)


def test_it_goes_on_with_what_an_optimizer_over_the_parameters_of_the_head_kept(config):
    """Checkpoints of before, when each parameter was a tensor of its own."""
    plain = apart_from_each_other(config)
    take_steps(*plain, 1, 2)
    head = head_of(config)
    head.load_state_dict(plain[0].state_dict())
    optimizer = adam(config, head)
    optimizer.load_state_dict(deepcopy(plain[1].state_dict()))
    take_steps(head, optimizer, 3)
    take_steps(*plain, 3)
    assert_equal(head.state_dict(), plain[0].state_dict())


def test_what_is_kept_of_it_does_not_change_with_the_next_step(config):
    head = head_of(config)
    optimizer = adam(config, head)
    take_steps(head, optimizer, 1)
    state = optimizer.state_dict()
    before = deepcopy(state)
    take_steps(head, optimizer, 2)
    assert_equal(state["state"], before["state"])
    assert all(
        tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        for moments in state["state"].values()
        for tensor in moments.values()
    )


def test_the_state_of_another_optimizer_is_refused(config):
    head = head_of(config)
    optimizer = adam(config, head)
    take_steps(head, optimizer, 1)
    state = optimizer.state_dict()
    del state["state"][1]
    with pytest.raises(ValueError, match="parameters"):
        adam(config, head_of(config)).load_state_dict(state)


def test_a_copy_of_a_joined_head_is_not_trained_by_the_optimizer_of_the_first():
    head = head_of(CONFIGS["mstcn++"])
    optimizer = adam(CONFIGS["mstcn++"], head)
    other = deepcopy(head)
    with pytest.raises(RuntimeError, match="join"):
        take_steps(other, optimizer, 1)
    take_steps(other, adam(CONFIGS["mstcn++"], other), 1)
