"""Inputs of several sizes through each block in one call: shards are gathered, and gradients reduced, once for all of them.

In calls one after the other a sharded block would be gathered for each, and the gradients of the first backward pass would wait,
whole, for that of the last.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn


def take_several(network: nn.Module, classes: tuple[type[nn.Module], ...]) -> None:
    """Let the blocks of these `classes` take lists: of states, and as long ones of whatever else they are called with."""
    for block in network.modules():
        if isinstance(block, classes):
            block.forward = partial(_each, block.forward)


def _each(forward: Callable[..., Any], states: Tensor | Sequence[Tensor], *others: Any, **named: Any) -> Any:
    if not isinstance(states, list):
        return forward(states, *others, **named)
    return [
        forward(own, *(other[place] for other in others), **{name: value[place] for name, value in named.items()})
        for place, own in enumerate(states)
    ]
