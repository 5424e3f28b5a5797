"""Locks: one owner at a time, named for the others; the dead have none; the same without locks of the file system."""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from common.base import locks
from common.base.files import atomic_path, remove_abandoned
from common.base.locks import Held, hold, lock_path
from common.base.runtime import UserError

HOLDER = """
import sys, time, pathlib
from common.base.locks import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def refuse(handle):
    """What locking does on a file system without locks."""
    raise OSError(errno.ENOLCK, "no locks available")


@pytest.fixture(params=["locks", "no locks"])
def target(request, tmp_path, monkeypatch):
    """A file to be, on a file system with and without locks."""
    if request.param == "no locks":
        monkeypatch.setattr(locks, "lock", refuse)
    return tmp_path / "new" / "run.txt"


def test_a_second_owner_is_refused_and_told_who_has_it(target):
    with hold(target):
        with (
            pytest.raises(Held, match=rf"run\.txt: in use by process {os.getpid()} on \S+ since 20\d\d-.*; wait"),
            hold(target),
        ):
            pass
        with hold(target.with_name("other.txt")):
            pass
    with hold(target):
        pass
    assert list(target.parent.iterdir()) == []


def test_a_file_that_its_owner_removed_between_opening_and_locking_is_no_lock(tmp_path, monkeypatch):
    target, taken = tmp_path / "run.txt", []
    lock = locks.lock

    def removed_meanwhile(handle):
        if not taken and lock_path(target).exists():  # its owner ends: it removes the file that has just been opened
            lock_path(target).unlink()
            taken.append(handle)
        return lock(handle)

    monkeypatch.setattr(locks, "lock", removed_meanwhile)
    with hold(target):
        assert taken
        assert lock_path(target).is_file()
        with pytest.raises(Held), hold(target):
            pass


def test_an_error_releases_it(target):
    with pytest.raises(ZeroDivisionError), hold(target):
        raise ZeroDivisionError
    with hold(target):
        pass


def test_the_dead_have_no_lock(tmp_path, checkout):
    target = tmp_path / "run.txt"
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, target], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(Held, match=f"process {owner.pid} "), hold(target):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with hold(target):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_locks(tmp_path, monkeypatch):
    """A file to be, on a file system without locks."""
    monkeypatch.setattr(locks, "lock", refuse)
    return tmp_path / "run.txt"


def last_touched(target, seconds: float) -> None:
    """Make the lock of `target` one that was touched so long ago."""
    moment = time.time() - seconds
    os.utime(lock_path(target), (moment, moment))


def test_without_locks_an_owner_that_no_longer_touches_is_gone(without_locks):
    lock_path(without_locks).write_text("half writ")
    last_touched(without_locks, 9.8 * 60)
    with pytest.raises(Held, match="another process"), hold(without_locks):
        pass
    last_touched(without_locks, 10.2 * 60)
    with hold(without_locks):
        assert str(os.getpid()) in lock_path(without_locks).read_text()
    assert list(without_locks.parent.iterdir()) == []


def test_without_locks_an_owner_touches_its_lock_every_minute(without_locks, monkeypatch):
    assert locks.TOUCH_SECONDS == 60
    monkeypatch.setattr(locks, "TOUCH_SECONDS", 0.02)
    with hold(without_locks):
        last_touched(without_locks, 3600)
        deadline = time.monotonic() + 20
        while time.time() - lock_path(without_locks).stat().st_mtime > 60 and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(Held, match=f"process {os.getpid()} "), hold(without_locks):
            pass


def test_without_locks_an_owner_that_slept_too_long_leaves_the_next_ones_lock(without_locks):
    with hold(without_locks):
        last_touched(without_locks, 3600)
        next_one = hold(without_locks)
        next_one.__enter__()
    with pytest.raises(Held), hold(without_locks):
        pass
    next_one.__exit__(None, None, None)
    assert list(without_locks.parent.iterdir()) == []


def test_without_locks_whoever_dies_while_taking_over_is_named(without_locks):
    lock_path(without_locks).touch()
    last_touched(without_locks, 3600)
    guard = lock_path(without_locks).with_name(".run.txt.lock.takeover")
    guard.touch()
    with pytest.raises(Held), hold(without_locks):  # somebody is at it just now
        pass
    os.utime(guard, (1e9, 1e9))
    with pytest.raises(UserError, match=r"\.run\.txt\.lock\.takeover: .*remove it"), hold(without_locks):
        pass


def contend(folder, seed: int) -> int:
    """Try for a lock again and again; returns how often somebody else was inside as well."""
    together = 0
    for _ in range(150):
        try:
            with hold(folder / "target"):
                try:
                    marker = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
                except FileExistsError:
                    together += 1
                    continue
                os.close(marker)
                os.unlink(folder / "inside")
        except Held:
            continue
    return together


def test_there_is_never_a_second_owner(tmp_path):
    """Release and take-over at the same moment: the inode is checked, or two would own files of one name."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(contend, [(tmp_path, seed) for seed in range(3)]) == [0, 0, 0]


def take_over(folder, barrier) -> None:
    """Try for locks whose owners are gone, each at the same moment as others; write down who got which.

    Whoever has looked at a lock is interrupted: what it saw may be of the past when it acts.
    """
    is_stale = locks._is_stale

    def look(path):
        seen = is_stale(path)
        time.sleep(random.uniform(0, 0.02))
        return seen

    locks.lock, locks._is_stale = refuse, look
    for target in sorted(folder.glob("target_*")):
        barrier.wait()
        with contextlib.suppress(Held), hold(target):
            (folder / f"{target.name}.owner_{os.getpid()}").touch()
            barrier.wait()
            continue
        barrier.wait()


def test_a_lock_whose_owner_is_gone_has_never_two_new_ones(tmp_path):
    """Without locks: three see at the same moment that it is stale."""
    for number in range(60):
        target = tmp_path / f"target_{number:02}"
        target.touch()
        lock_path(target).touch()
        last_touched(target, 3600)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3, timeout=60)
    processes = [context.Process(target=take_over, args=(tmp_path, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    owners = Counter(path.name.partition(".")[0] for path in tmp_path.glob("*.owner_*"))
    assert owners == {f"target_{number:02}": 1 for number in range(60)}
    assert list(tmp_path.glob(".*")) == []


def test_what_killed_writers_left_is_removed_and_what_is_in_use_is_not(tmp_path):
    left = tmp_path / ".run.abcdefgh.partial.txt"
    other_kind = tmp_path / ".run.abcdefgh.partial.npy"
    own = tmp_path / "notes.txt"
    for path in (left, other_kind, own):
        path.write_text("x")
    with atomic_path(tmp_path / "first.txt") as in_use:
        assert not left.exists()
        remove_abandoned.cache_clear()  # as another process
        with atomic_path(tmp_path / "second.txt"):
            assert in_use.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".run.abcdefgh.partial.npy", "first.txt", "notes.txt", "second.txt",
    ]  # fmt: skip
