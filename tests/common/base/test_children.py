"""Child processes: whose signals they obey. That they end with their parent is tested where there are some."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.base.children import leave_signals_to_parent, side_by_side


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
    results = list(side_by_side(halve, [4, 3, 2], 10, num_processes=num_processes))
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
    results = side_by_side(die_elsewhere, [1, 2], os.getpid(), num_processes=2)
    assert [result() for result in results] == [1, 2]
