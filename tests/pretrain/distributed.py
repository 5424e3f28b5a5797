"""Two processes that talk through gloo on this machine, to show that they do together what one does alone."""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

NUM_PROCESSES = 2
PATIENCE_SECONDS = 120

TwoProcesses = Callable[..., list[Any]]


@contextmanager
def two_processes() -> Iterator[TwoProcesses]:
    """Yield `run(function, *arguments)`, which calls a function of a module in both and returns what they return, by rank.

    The processes start once and serve any number of calls.
    """
    context = multiprocessing.get_context("spawn")
    # port 0: the system picks a free one, and this process holds it from then on
    store = dist.TCPStore("127.0.0.1", 0, NUM_PROCESSES, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in range(NUM_PROCESSES):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(rank, store.port, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)

    numbers, stuck = itertools.count(), []

    def run(function: Callable[..., Any], *arguments: Any) -> list[Any]:
        assert not stuck, f"the two processes are at {stuck[0]} still"
        number = next(numbers)
        for pipe in pipes:
            pipe.send_bytes(pickle.dumps((number, function, arguments)))
        try:
            replies = [_reply(pipe, number) for pipe in pipes]
        except TimeoutError:
            stuck.append(function.__qualname__)  # who comes later need not wait as long
            raise
        failures = [reply for succeeded, reply in replies if not succeeded]
        assert not failures, failures[0]
        return [reply for _, reply in replies]

    try:
        yield run
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _reply(pipe: Connection, number: int) -> tuple[bool, Any]:
    """The answer to the call of this number; one to an earlier call, which nobody waited for any longer, is left out."""
    while True:
        if not pipe.poll(PATIENCE_SECONDS):
            raise TimeoutError(f"no answer from a process within {PATIENCE_SECONDS} s")
        answered, *reply = pickle.loads(pipe.recv_bytes())
        if answered == number:
            return tuple(reply)


def _serve(rank: int, port: int, pipe: Connection) -> None:
    """Answer calls until the other end closes; what goes wrong is sent back as text."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    store = dist.TCPStore("127.0.0.1", port, NUM_PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=NUM_PROCESSES)
    while True:
        try:
            number, function, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            break
        try:
            reply = number, True, function(*arguments)
        except Exception:
            reply = number, False, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(reply))
    dist.destroy_process_group()


def value_and_gradient(loss: Callable[..., Tensor], weight: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A loss of this process's share of `inputs` through a common layer `weight`, and the layer's gradient.

    Each input is split along its first dimension: halves in two processes, whole in one.
    """
    parts, part = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    weight = weight.clone().requires_grad_()
    value = loss(weight, *[tensor.chunk(parts)[part] for tensor in inputs])
    value.backward()
    return value.detach(), weight.grad


def assert_two_equal_one(run: TwoProcesses, loss: Callable[..., Tensor], weight: Tensor, *inputs: Tensor) -> None:
    """Value and gradient, averaged over two processes on halves, are those of one process on everything."""
    value, gradient = value_and_gradient(loss, weight, *inputs)
    values, gradients = zip(*run(value_and_gradient, loss, weight, *inputs), strict=True)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(torch.stack(values).mean(), value, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient, rtol=1e-4, atol=1e-6)
