"""The projection head: sizes, initial values, normalisation."""

import pytest
import torch
from torch import nn

from pretrain.objectives.heads import DINO_7B, IBOT_7B, HeadSize, PrototypeHead

SMALL = HeadSize(hidden=16, bottleneck=8, prototypes=32)


def head(size: HeadSize = SMALL, seed: int = 0) -> PrototypeHead:
    return PrototypeHead(12, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "hidden", "bottleneck", "prototypes"),
    [(HeadSize(), 2048, 256, 65536), (DINO_7B, 8192, 512, 262144), (IBOT_7B, 4096, 384, 98304)],
)
def test_published_sizes(size, hidden, bottleneck, prototypes):
    with torch.device("meta"):
        network = PrototypeHead(1024, size)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes == {
        "mlp.0.weight": (hidden, 1024),
        "mlp.0.bias": (hidden,),
        "mlp.2.weight": (hidden, hidden),
        "mlp.2.bias": (hidden,),
        "mlp.4.weight": (bottleneck, hidden),
        "mlp.4.bias": (bottleneck,),
        "prototypes.weight": (prototypes, bottleneck),
    }


def test_layers_alternate_with_gelu_and_end_without():
    kinds = [type(module) for module in head().mlp]
    assert kinds == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


def test_initial_weights_are_truncated_normal_and_biases_zero():
    network = head(HeadSize(hidden=256, bottleneck=64, prototypes=128))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_generator_decides_the_weights():
    first, again, other = head(seed=1), head(seed=1), head(seed=2)
    assert torch.equal(first.prototypes.weight, again.prototypes.weight)
    assert not torch.equal(first.prototypes.weight, other.prototypes.weight)


def test_scores_are_dot_products_of_unit_vectors_with_prototypes():
    network, features = head(), torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
    bottleneck = network.mlp(features)
    unit = bottleneck / bottleneck.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(network(features), unit @ network.prototypes.weight.T)
    with torch.no_grad():
        network.mlp[4].weight *= 100
    torch.testing.assert_close(network(features), unit @ network.prototypes.weight.T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_bottleneck_of_zeros_stays_finite(dtype):
    network = head().to(dtype)
    with torch.no_grad():
        network.mlp[4].weight.zero_()
    assert not network(torch.ones(1, 12, dtype=dtype)).any()


def test_no_features_give_a_zero_gradient_rather_than_none():
    """So that a process without masked patches still takes part in averaging gradients."""
    network = head()
    network(torch.zeros(0, 12)).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())
