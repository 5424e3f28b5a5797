"""A method made ready for its device and processes: recomputed blocks, compilation, DDP or FSDP2, autocast."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from common.base.runtime import UserError
from pretrain.engine.distributed import Processes, require_equal_start
from pretrain.engine.method import Batch, Method
from pretrain.engine.startup import Initialise, Waiting
from pretrain.ssl_config import TrainingOptions


class PreparedMethod:
    """A method on its device, called as the options say; `method` is the same object, its parameters maybe sharded."""

    def __init__(
        self, method: Method, options: TrainingOptions, processes: Processes, initialise: Initialise | None = None
    ):
        """`options` are completed; `method` is on the CPU, or waits for its values, and is changed in place.

        `initialise` makes the values that it has not. Raises `RuntimeError` when replicas would start from different ones.
        """
        self.method, self.device = method, processes.device
        self.in_bf16 = options.precision == "bf16"
        self.is_sharded = options.sharding == "fsdp"
        # it learns by averaging alone; whatever wraps the method asks which parameters want a gradient
        method.teacher.requires_grad_(False)
        method.train()
        # the order matters: compilation sees the recomputed forward, and shards wrap what is compiled
        if options.gradient_checkpointing == "all":
            recompute_blocks(method.student, method.block_classes)
        if options.compile:
            for block in _blocks(method, method.block_classes):
                block.compile()
        # no process needs whole networks: neither shards, nor what waits for its values
        waiting = Waiting(method, initialise) if self.is_sharded or initialise is not None else None
        if self.is_sharded:
            shard(method, processes, in_bf16=self.in_bf16, num_nodes=options.shard_nodes)
        if waiting is not None:
            waiting.fill(method, processes.device)
        method.to(processes.device)
        if not self.is_sharded:
            require_equal_start(method, processes)
        self._forward: nn.Module = method
        if options.sharding == "ddp":
            devices = [processes.device] if processes.device.type == "cuda" else None
            # gradients live in the buckets that are averaged, so that there is no second copy of them
            self._forward = DistributedDataParallel(method, device_ids=devices, gradient_as_bucket_view=True)

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The method's numbers for one micro-batch, which lies on the device already."""
        with self._autocast():
            return self._forward(batch, step)

    @contextlib.contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch: replicas average their gradients once, with the last.

        Shards do at every one, so that no process ever holds all gradients.
        """
        # DDP averages in the backward pass unless told to wait; the forward pass must be inside too
        waits = isinstance(self._forward, DistributedDataParallel) and not is_last
        with self._forward.no_sync() if waits else contextlib.nullcontext():
            yield

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """`(N, D)` float32 features of the network that will be exported, in eval mode; all processes call it."""
        self.method.eval()
        try:
            with self._autocast():
                return self.method.features(batch).float()
        finally:
            self.method.train()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16)


def recompute_blocks(network: nn.Module, classes: tuple[type[nn.Module], ...]) -> None:
    """Keep only the inputs of the blocks of these `classes`, and compute the rest again in the backward pass."""
    for block in _blocks(network, classes):
        # the re-entrant kind needs an input that asks for a gradient; where all but adapters is frozen, nothing that
        # enters the first block does
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def shard(method: Method, processes: Processes, *, in_bf16: bool, num_nodes: int | None = None) -> None:
    """Shard parameters, gradients and optimiser (FSDP2), student and teacher alike: over all processes, or those of `num_nodes`.

    Groups of so many nodes then hold replicas, which average their gradients: most messages stay inside a group. Every block is a unit and the method itself the last, so that a moving average needs no communication and a recipe
    may call parts of a network. Stored parameters and reductions are float32; bf16 is for computing.
    """
    settings = {
        "mesh": _mesh(processes, num_nodes),
        "reshard_after_forward": True,  # also of the root: whatever reads parameters finds shards
    }
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if in_bf16 else None, reduce_dtype=torch.float32)
    for block in _blocks(method, method.block_classes):
        fully_shard(block, mp_policy=policy, **settings)
    # the root last, for whatever is in no block; its inputs are not cast: a batch may hold what must stay float32
    fully_shard(method, mp_policy=replace(policy, cast_forward_inputs=False), **settings)
    # shards are gathered by hooks of forward alone, unless another method is named
    register_fsdp_forward_method(method, "features")
    if processes.device.type == "cuda":  # while a block works, the next one of its network is gathered
        for blocks in _rows_of_blocks(method, method.block_classes):
            for block, following in pairwise(blocks):
                block.set_modules_to_forward_prefetch([following])


def _mesh(processes: Processes, num_nodes: int | None) -> DeviceMesh:
    """All processes in a row, or replicas x shards. Raises `UserError` for nodes that do not divide into such groups."""
    kind, world_size = processes.device.type, processes.world_size
    if num_nodes is None:
        return init_device_mesh(kind, (world_size,))
    group = num_nodes * int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if world_size % group:
        raise UserError(
            f"--shard_nodes {num_nodes}: {world_size} processes do not divide into groups of {group}; give a divisor of the number of nodes"
        )
    return init_device_mesh(kind, (world_size // group, group), mesh_dim_names=("replicas", "shards"))


def _rows_of_blocks(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> list[list[nn.Module]]:
    """Blocks that follow each other in one list of a network."""
    lists = (part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential))
    return [[block for block in row if isinstance(block, classes)] for row in lists]


def _blocks(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, classes)]
