"""Sums, extremes and collections over all processes of a run: each is the identity without a process group.

Gradients are those of the mean of all processes' losses, once a trainer has averaged parameter gradients over them.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether this process belongs to an initialised process group."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process, from 0; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def all_reduce_sum(values: Tensor) -> Tensor:
    """Elementwise sum over processes, with gradient; `values` has one shape in all of them and is left as it is."""
    return _SumOverProcesses.apply(values) if is_distributed() else values


def all_reduce_max(values: Tensor) -> Tensor:
    """Elementwise maximum over processes, without gradient."""
    return _reduced(values.detach(), dist.ReduceOp.MAX) if is_distributed() else values.detach()


def all_reduce_min(values: Tensor) -> Tensor:
    """Elementwise minimum over processes, without gradient."""
    return _reduced(values.detach(), dist.ReduceOp.MIN) if is_distributed() else values.detach()


def all_gather(values: Tensor) -> Tensor:
    """`(B, ...)` of each process, equal shapes -> `(processes * B, ...)` in the order of ranks, with gradient."""
    return _Gathered.apply(values) if is_distributed() else values


def _reduced(values: Tensor, operation: Any) -> Tensor:
    # NCCL takes tensors on a GPU only: small ones made on the CPU travel there and back
    device = "cuda" if dist.get_backend() == dist.Backend.NCCL else values.device
    total = values.to(device, copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(total, operation)
    return total.to(values.device)


class _SumOverProcesses(torch.autograd.Function):
    """A sum that every process uses collects the gradients of all their losses."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _reduced(values, dist.ReduceOp.SUM)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _reduced(gradient, dist.ReduceOp.SUM)


class _Gathered(torch.autograd.Function):
    """Each process gets back the gradients of all losses that its own rows took part in."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = _reduced(gradient, dist.ReduceOp.SUM)
        return total.chunk(world_size())[rank()]
