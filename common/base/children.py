"""Processes that work for another one: they end when it ends, however that happens, and leave signals to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection

ENDED = 1  # exit code of a process whose parent has gone


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
