"""How a method's networks get their values, in each process no more memory than its own share of them.

While a method is built, the tensors of its networks lie in the file of the start weights, mapped, or are still without values (on
the meta device). Its copies, a teacher or an anchor, are made without values. Only where the parameters will stay, sharded, they are
filled, one tensor at a time and in each process the slice that is its own; then the copies, from the student beside them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from pretrain.engine.method import Method

Initialise = Callable[[nn.Module], dict[str, Tensor]]
"""A module that owns tensors without values -> their start values by name, whole, on the CPU."""

_copies_wait: ContextVar[bool] = ContextVar("copies_wait", default=False)


@contextlib.contextmanager
def waiting_copies() -> Iterator[None]:
    """Inside, `copy_of` makes copies without values: for a method that is filled by `fill`."""
    token = _copies_wait.set(True)
    try:
        yield
    finally:
        _copies_wait.reset(token)


def copy_of(network: nn.Module) -> nn.Module:
    """A copy of a network; inside of `waiting_copies` its parameters and buffers are on the meta device."""
    if not _copies_wait.get():
        return copy.deepcopy(network)
    # what a memo holds is not copied: it stands in the copy for the tensor whose identity is its key
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(
        network, {id(tensor): _like(tensor, torch.empty_like(tensor, device="meta")) for tensor in tensors}
    )


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def start_values(module: nn.Module, initialise: Callable[[nn.Module], None]) -> dict[str, Tensor]:
    """The tensors that a module owns itself, as `initialise` fills them in a copy of it on the CPU, by name.

    The module may be sharded: values are whole. Those of its parts stay without values.
    """
    own = _own_tensors(module)
    memo = {id(value): value for value in [*module.parameters(), *module.buffers()]}  # those of parts: as they are
    memo |= {id(value): _like(value, torch.empty(value.shape, dtype=value.dtype)) for value in own.values()}
    filled = copy.deepcopy(module, memo)
    with torch.no_grad():
        initialise(filled)
    return {name: value.detach() for name, value in _own_tensors(filled).items()}


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return dict(named)


def fill_in_place(network: nn.Module, initialise: Initialise) -> None:
    """Give a network that is not sharded its values on the CPU: tensors in a file are copied, those without values made."""
    for module in network.modules():
        own = _own_tensors(module)
        made = initialise(module) if any(value.is_meta for value in own.values()) else {}
        for name, value in own.items():
            values = made[name] if value.is_meta else value.detach().clone()
            owner = module._parameters if name in module._parameters else module._buffers
            owner[name] = _like(value, values)


class Waiting:
    """The values that a method has before it is sharded, and how those are made that it has not."""

    def __init__(self, method: Method, initialise: Initialise | None):
        """Takes the values out of `method`, whose tensors are on the meta device afterwards."""
        self._initialise = initialise
        self._values = {
            name: value.detach()
            for name, value in [*method.named_parameters(), *method.named_buffers()]
            if not value.is_meta
        }
        method.to("meta")

    @torch.no_grad()
    def fill(self, method: Method, device: torch.device) -> None:
        """Give every tensor of the method, sharded by now or not, its values on `device`, one after the other.

        Raises `ValueError` that names the tensors for which there are none.
        """
        method.to_empty(device=device)
        originals = _originals(method)
        waiting, lacking = [], []
        for prefix, module in method.named_modules():
            made: dict[str, Tensor] | None = None
            for name, tensor in _own_tensors(module).items():
                path = f"{prefix}.{name}".lstrip(".")
                value = self._values.pop(path, None)
                if value is None and tensor in originals:
                    waiting.append((tensor, originals[tensor]))
                    continue
                if value is None and self._initialise is not None:
                    made = self._initialise(module) if made is None else made
                    value = made[name]
                if value is None:
                    lacking.append(path)
                else:
                    put(value, tensor)
        if lacking:
            raise ValueError(f"{len(lacking)} tensors of {type(method).__name__} have no values, first {lacking[:3]}")
        for tensor, original in waiting:
            local_part(tensor).copy_(local_part(original))  # shards of both lie alike


def _originals(method: Method) -> dict[Tensor, Tensor]:
    """Of each tensor of a copy that of which it is one."""
    found = {}
    for copied, original in method.copies():
        own = dict([*original.named_parameters(), *original.named_buffers()])
        found |= {tensor: own[name] for name, tensor in [*copied.named_parameters(), *copied.named_buffers()]}
    return found


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharded or not."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(value: Tensor, tensor: Tensor) -> None:
    """Copy a whole value into a tensor, of a sharded one this process's slice: no more of the value is read."""
    if isinstance(tensor, DTensor):
        for axis, placement in enumerate(tensor.placements):
            if placement.is_shard():
                # as `torch.chunk`, and so FSDP, cuts: all parts but the last ones alike, the last may be empty
                length = value.shape[placement.dim]
                part = -(-length // tensor.device_mesh.size(axis))
                first = min(length, part * tensor.device_mesh.get_local_rank(axis))
                value = value.narrow(placement.dim, first, min(part, length - first))
    local_part(tensor).copy_(value)
