"""Locks: one owner at a time, named for the others; the dead have none; the same without locks of the file system."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.base import locks
from common.base.files import atomic_path, remove_abandoned
from common.base.locks import Held, hold, lock_path

HOLDER = """
import sys, time, pathlib
from common.base.locks import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["locks", "no locks"])
def target(request, tmp_path, monkeypatch):
    """A file to be, on a file system with and without locks."""
    if request.param == "no locks":

        def refuse(handle):
            raise OSError(errno.ENOLCK, "no locks available")

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


def test_without_locks_an_owner_that_no_longer_touches_is_gone(tmp_path, monkeypatch):
    target = tmp_path / "run.txt"
    monkeypatch.setattr(locks, "lock", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
    lock_path(target).write_text("half writ")
    with pytest.raises(Held, match="another process"), hold(target):
        pass
    long_ago = time.time() - locks.STALE_SECONDS - 60
    os.utime(lock_path(target), (long_ago, long_ago))
    with hold(target):
        assert str(os.getpid()) in lock_path(target).read_text()


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
