"""Processes that work for another one: they end when it ends, however that happens, and leave signals to it."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection
from typing import Any, TypeVar

from common.base.runtime import UserError, first_line

ENDED = 1  # exit code of a process whose parent has gone

Ask = Callable[..., Any]
ItemT, ResultT = TypeVar("ItemT"), TypeVar("ResultT")
_shared: dict[str, Any] = {}  # of a process that `side_by_side` started: what all its work needs


def num_cores() -> int:
    """Cores that this process may use: of a job on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def side_by_side(
    work: Callable[[Any, ItemT], ResultT], items: Sequence[ItemT], shared: Any = None, *, num_processes: int
) -> Iterator[Iterator[Callable[[], ResultT]]]:
    """Do `work(shared, item)` of each item in several processes; in this one, when it is asked for, with fewer than two.

    Gives, in the order of the items, a function that returns the result of one, or raises what its work raised. A block that
    ends before it has asked for all ends what is still at work. With several processes all of `work`, `shared` (sent to each
    process once), items and results must be picklable.
    """
    num_processes = min(num_processes, len(items))
    if num_processes < 2:
        yield (partial(work, shared, item) for item in items)
        return
    # spawned: a fork of a process with threads can copy a lock that nobody will open
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(num_processes, context, initializer=_begin, initargs=(shared,))
    waiting = [(_submitted(pool, work, item), item) for item in items]
    waiting.reverse()
    processes, is_finished = set(multiprocessing.active_children()) - others, False

    def results() -> Iterator[Callable[[], ResultT]]:
        while waiting:  # a result that was taken is kept no longer
            yield partial(_result, *waiting.pop(), work, shared)

    try:
        yield results()
        is_finished = not waiting
    finally:
        # whoever stops before the end wants no more, not even of an hour's work that has begun; else they end when all is done
        for process in () if is_finished else processes:
            process.terminate()
        pool.shutdown(wait=not is_finished, cancel_futures=not is_finished)


def _submitted(pool: ProcessPoolExecutor, work: Callable[[Any, ItemT], ResultT], item: ItemT) -> "Future[ResultT]":
    try:
        return pool.submit(_work, work, item)
    except BrokenProcessPool as error:  # a process of it died already: told where the result is asked for
        broken: Future[ResultT] = Future()
        broken.set_exception(error)
        return broken


def _result(future: "Future[ResultT]", item: ItemT, work: Callable[[Any, ItemT], ResultT], shared: Any) -> ResultT:
    try:
        return future.result()
    except BrokenProcessPool:  # the system ended a process, as it does where memory is short: this one goes on alone
        return work(shared, item)


class ChildEnded(UserError):
    """A process ended in the middle of what it was asked for; the text says how."""


@contextlib.contextmanager
def apart() -> Iterator[Ask]:
    """A process of its own for calls, one after another: `ask(function, *arguments, **named)` returns what it returns there.

    What they load goes with that process, memory and all, and a library that ends its process ends that one: such a call
    raises `ChildEnded`, and the next one gets another process. What a function raises is raised here.
    """
    context = multiprocessing.get_context("spawn")
    running: list[tuple[Any, connection.Connection]] = []

    def ask(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if not running:
            ours, theirs = context.Pipe()
            process = context.Process(target=_answer, args=(theirs,))
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            running.append((process, ours))
        process, pipe = running[0]
        try:
            pipe.send((function, arguments, named))
            result, error = pipe.recv()
        except (EOFError, OSError):
            running.clear()
            process.join()
            raise ChildEnded(_how_ended(process.exitcode)) from None
        if error is not None:
            raise error
        return result

    try:
        yield ask
    finally:
        for process, pipe in running:
            pipe.close()
            process.kill()  # it waits for a question, or is in the middle of one that nobody waits for
            process.join()


def _answer(pipe: connection.Connection) -> None:
    _begin(None)
    with contextlib.suppress(EOFError):  # the end of the questions
        while True:
            function, arguments, named = pipe.recv()
            try:
                answer = function(*arguments, **named), None
            except Exception as error:  # raised where it was asked
                answer = None, _portable(error)
            pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """An error that another process can make again: some libraries' cannot be pickled, or not be read back."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own code does
        return RuntimeError(f"{type(error).__name__}: {first_line(error)}")


def _how_ended(exitcode: int) -> str:
    if exitcode < 0:
        return f"its process was ended by a signal ({signal.strsignal(-exitcode)})"
    return f"its process ended with exit code {exitcode}"


def _begin(shared: Any) -> None:
    leave_signals_to_parent()
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    _shared["value"] = shared


def _work(work: Callable[[Any, ItemT], ResultT], item: ItemT) -> ResultT:
    return work(_shared["value"], item)


def end_with_parent(until: Callable[[], object] | None = None) -> None:
    """End this process, at once and from a thread of its own, when its parent ends, be it by SIGKILL.

    Called in a child that `multiprocessing` started; another one gives a function `until` that returns when its parent
    has gone. (The system's own parent-death signal would come when the parent's *thread* ends.)
    """
    until = until or _wait_for_end_of_parent

    def watch() -> None:
        until()
        os._exit(ENDED)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _wait_for_end_of_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        raise AssertionError("not started by multiprocessing")
    connection.wait([parent.sentinel])


def leave_signals_to_parent() -> None:
    """Take no notice of what a terminal or a scheduler sends to all processes of a command, but of the parent's SIGTERM.

    Else a child might die first, and its parent take that for a fault of the work it was given.
    """
    for name in ("SIGINT", "SIGHUP"):  # the second is not known to Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # which says who sent it; not on macOS and Windows
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, name="obey parent", daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        continue
    os._exit(ENDED)
