"""One piece of work for each of many videos, in several processes, of which a decoder may kill some."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from common.base.children import end_with_parent

MOST_PROCESSES = 8
KILLED = "the process that decoded it died"

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes_of_their_own(
    work: Callable[[Item], Result], items: Sequence[Item], num_processes: int, killed: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Each of `items` with what `work` returns for it, as it is finished; by this process where `num_processes` is 0.

    A damaged video can kill the process that decodes it. After that the rest is done by one process, where the one at
    fault is known: the first that is not done. Its result is `killed(item)`. `work` must be a function of a module.
    """
    waiting = list(items)
    if not num_processes:
        yield from ((item, work(item)) for item in waiting)
        return
    while waiting:
        for item, result in _until_death(work, waiting.copy(), num_processes):
            waiting.remove(item)
            yield item, result
        if waiting and num_processes == 1:
            item = waiting.pop(0)
            yield item, killed(item)
        num_processes = 1


def _until_death(
    work: Callable[[Item], Result], items: Sequence[Item], num_processes: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, until a process dies."""
    # spawned: a fork of a process with threads can copy a lock that nobody will open
    pool = ProcessPoolExecutor(min(num_processes, len(items)), get_context("spawn"), initializer=end_with_parent)
    try:
        futures = {pool.submit(work, item): item for item in items}
        for future in as_completed(futures):
            # a dead process fails all that waits: only what was finished before is known
            if not isinstance(future.exception(), BrokenProcessPool):
                yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)
