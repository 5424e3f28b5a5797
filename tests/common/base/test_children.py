"""Child processes: whose signals they obey. That they end with their parent is tested where there are some."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.base.children import leave_signals_to_parent


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
