"""Child processes: whose signals they obey. That they end with their parent is tested where there are some."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.base.children import ChildEnded, apart, leave_signals_to_parent, side_by_side
from common.base.runtime import UserError


def work(ready) -> None:
    leave_signals_to_parent()
    ready.set()
    time.sleep(60)


@pytest.fixture
def child():
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=work, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not say who sent a signal")
def test_a_child_obeys_its_parent_only(child):
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        subprocess.run([sys.executable, "-c", f"import os; os.kill({child.pid}, {int(number)})"], check=True)
    for number in (signal.SIGINT, signal.SIGHUP):  # of a terminal, they go to the parent too
        os.kill(child.pid, number)
    child.join(0.5)
    assert child.is_alive()
    child.terminate()
    child.join(5)
    assert not child.is_alive()


def halve(shared: int, item: int) -> tuple[int, int]:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return shared + item // 2, os.getpid()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_work_side_by_side_comes_in_order_and_a_failure_stays_with_its_item(num_processes):
    with side_by_side(halve, [4, 3, 2], 10, num_processes=num_processes) as taken:
        results = list(taken)
        first, last = results[0](), results[2]()
        with pytest.raises(ValueError, match="3 is odd"):
            results[1]()
    assert (first[0], last[0]) == (12, 11)
    assert (os.getpid() in (first[1], last[1])) == (num_processes == 1)


def die_elsewhere(parent: int, item: int) -> int:
    if os.getpid() != parent:
        os._exit(9)
    return item


def test_work_of_a_process_that_dies_is_done_here():
    items = list(range(300))  # the first processes are dead before the last item is handed over
    with side_by_side(die_elsewhere, items, os.getpid(), num_processes=2) as results:
        assert [result() for result in results] == items


def wait_or_fail(_: None, seconds: float) -> None:
    if not seconds:
        raise UserError("nothing to wait for")
    time.sleep(seconds)


def first_of_three_fails() -> None:
    with side_by_side(wait_or_fail, [0, 600, 600], num_processes=2) as results:
        for result in results:
            result()


def test_an_error_ends_what_is_still_at_work():
    for _ in range(3):  # what an error keeps alive of its block must not end the processes of the next one
        with pytest.raises(UserError, match="nothing to wait for"):
            first_of_three_fails()
        assert not multiprocessing.active_children()


# --- a process of its own -----------------------------------------------------------------------------------------


class TwoWordsError(Exception):
    """What pickle cannot make again: it stores one argument of two."""

    def __init__(self, one: str, other: str):
        super().__init__(f"{one} {other}")


def fail(kind: str):
    if kind == "signal":
        os.kill(os.getpid(), signal.SIGILL)
    if kind == "exit":
        os._exit(7)
    raise TwoWordsError("some", "words") if kind == "odd" else ImportError("no such library")


def test_calls_apart_share_one_process_which_ends_with_the_block():
    with apart() as ask:
        process = ask(os.getpid)
        assert process != os.getpid()
        assert ask(os.getpid) == process
        assert ask(halve, 10, item=4) == (12, process)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_errors_of_a_call_apart_are_raised_here_and_the_process_goes_on():
    with apart() as ask:
        process = ask(os.getpid)
        with pytest.raises(ImportError, match="no such library"):
            ask(fail, "plain")
        with pytest.raises(RuntimeError, match="TwoWordsError: some words"):
            ask(fail, "odd")
        assert ask(os.getpid) == process


@pytest.mark.parametrize(
    ("kind", "how"), [("signal", "by a signal .Illegal instruction"), ("exit", "with exit code 7")]
)
def test_after_a_process_has_ended_the_next_call_gets_another(kind, how):
    with apart() as ask:
        with pytest.raises(ChildEnded, match=how):
            ask(fail, kind)
        assert ask(halve, 0, 2)[0] == 1


def test_nothing_is_started_for_no_call(monkeypatch):
    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", lambda _: pytest.fail("started"))
    with apart():
        pass
