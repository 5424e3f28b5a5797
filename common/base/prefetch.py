"""Prepare the next items in a background thread while the current one is used."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")


def prefetch(items: Iterable[ItemT], depth: int = 2) -> Iterator[ItemT]:
    """Yield `items` in order, at most `depth` of them computed ahead in one background thread.

    An exception in the thread is raised here, after the items before it. Leaving the loop early stops the thread. The
    thread must not draw from a shared random generator: the order of draws would depend on its speed.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # handed to the consumer, which raises it
            put((end, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()
