"""The processes of a training: who they are, and what they agree on."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.base.runtime import UserError, select_device
from pretrain.objectives.reduce import all_reduce_max, all_reduce_min, all_reduce_sum, is_distributed

PATIENCE = timedelta(hours=1)  # the others wait while the first process writes a large checkpoint
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over processes, without gradient."""
        return all_reduce_sum(values.detach()) / self.world_size

    def largest(self, value: int) -> int:
        """The largest `value` of all processes."""
        return int(all_reduce_max(torch.tensor(value, device=self.device)))

    def barrier(self) -> None:
        """Wait for all processes."""
        if is_distributed():
            dist.barrier()


@contextlib.contextmanager
def start_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that torchrun started (nccl on CUDA, gloo else), or be the only one.

    Raises `UserError` when the environment is torchrun's only in part.
    """
    # torchrun with one process needs no group
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield Processes(0, 1, select_device(device))
        return
    lacking = [name for name in TORCHRUN if name not in os.environ]
    if lacking:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(lacking)} not set: start several "
            "processes with torchrun"
        )
    chosen = _own_device(device)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    logger = logging.getLogger()
    level = logger.level
    if dist.get_rank() > 0:
        logger.setLevel(logging.ERROR)  # one voice is enough
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        logger.setLevel(level)
        dist.destroy_process_group()


def _own_device(name: str) -> torch.device:
    """On CUDA, the device with this process's number on its machine; there is no training of several on MPS."""
    chosen = select_device(name)
    if chosen.type == "mps":
        return torch.device("cpu")
    if chosen.type == "cuda":
        chosen = select_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    return chosen


def require_equal_start(network: nn.Module, processes: Processes) -> None:
    """Raise `RuntimeError` unless all processes start from the same parameters, which sharding takes for granted."""
    if processes.world_size == 1:
        return
    # equal parameters have equal sums, and others hardly ever do; comparing sums sends one number
    total = sum(parameter.detach().double().sum() for parameter in network.parameters())
    total = torch.as_tensor(total, device=processes.device)
    if all_reduce_max(total) != all_reduce_min(total):
        raise RuntimeError("the processes were built with different start values: build them from the seed alone")
