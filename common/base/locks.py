"""Who is working on a file: locks that the system takes back when their owner dies, however it dies.

A lock is held on a file of its own beside the target, which names the owner for others' messages. Where a file system has
no locks, the file itself is the lock: touched every minute, and stale after ten.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from common.base.runtime import UserError, naming_target, shortened

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None
    import msvcrt

TOUCH_SECONDS, STALE_SECONDS = 60.0, 600.0
LOCKED_BYTE = 1 << 30  # on Windows, where locked bytes cannot be read: behind what is written
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


class Held(UserError):
    """Somebody else is working on a file."""

    def __init__(self, target: Path, owner: str):
        super().__init__(f"{target}: in use by {owner}; wait until that has ended, or end it")
        self.target, self.owner = target, owner


def lock_path(target: Path) -> Path:
    """The lock's file beside a file or folder."""
    return target.with_name(f".{target.name}.lock")


@contextlib.contextmanager
def hold(target: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not be there yet.

    Raises `Held`, which names the owner, when somebody else does; `OSError` where nothing can be written.
    """
    path = lock_path(target)
    with naming_target(target):
        path.parent.mkdir(parents=True, exist_ok=True)
        has_locks = _has_locks(path.parent.resolve())
        handle = _take(target, path) if has_locks else None
    if handle is None:
        with _hold_by_existence(target, path):
            yield
        return
    try:
        yield
    finally:
        if fcntl is None:  # Windows removes no open file
            os.close(handle)
        path.unlink(missing_ok=True)
        if fcntl is not None:
            os.close(handle)


@functools.cache
def _has_locks(folder: Path) -> bool:
    """Whether files of a folder can be locked."""
    with tempfile.TemporaryFile(dir=folder) as stream:
        try:
            return lock(stream.fileno())
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise


def _take(target: Path, path: Path) -> int:
    """The handle of the locked file. Raises `Held`."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock(handle):
                raise Held(target, _owner(path))
            # whoever had it may have removed the file since: then this one is nobody's, and another may have the name
            if is_still(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, _introduction())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file until it is closed; whether it could be had. Raises `OSError` where there are no locks."""
    try:
        if fcntl is None:
            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        raise
    return True


def is_still(path: Path, handle: int) -> bool:
    """Whether `path` is the open file, and not removed or replaced."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def is_abandoned(path: Path) -> bool:
    """Whether nobody has locked a temporary file; where there are no locks, whether nobody has written to it lately.

    A `FileNotFoundError` of one that vanishes meanwhile is for the caller.
    """
    if fcntl is not None:
        handle = os.open(path, os.O_RDWR)
        try:
            return lock(handle)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        finally:
            os.close(handle)
    return _is_stale(path)


def _introduction() -> bytes:
    started = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": started}).encode()


def _owner(path: Path) -> str:
    """The owner of a lock in words; it may be writing them just now."""
    try:
        content = json.loads(path.read_bytes())
        return shortened(f"process {content['pid']} on {content['host']} since {content['since']}")
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


# --- file systems without locks -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _hold_by_existence(target: Path, path: Path) -> Iterator[None]:
    """Hold a lock by being the one who made its file."""
    handle = _create(path)
    if handle is None:
        handle = _take_over(path)
    if handle is None:
        raise Held(target, _owner(path))
    try:
        os.write(handle, _introduction())
        with _touched(path, handle):
            yield
    finally:
        if is_still(path, handle):  # an owner that slept for longer than a lock lasts has lost it to another
            path.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def _touched(path: Path, handle: int) -> Iterator[None]:
    """Say again and again that the owner of a lock is alive."""
    released = threading.Event()

    def touch() -> None:
        while not released.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                if is_still(path, handle):
                    os.utime(path)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()


def _create(path: Path) -> int | None:
    """The handle of a new file; None where it is there already."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None


def _take_over(path: Path) -> int | None:
    """The handle of a new lock in the place of one whose owner is gone; None where it has an owner.

    Whoever looks and then removes may remove the lock that another made in between: only the one who made a file beside it
    does either. Raises `UserError` where somebody died in these few lines, since for that file the same would hold.
    """
    guard = path.with_name(f"{path.name}.takeover")
    with contextlib.suppress(FileNotFoundError):  # released meanwhile
        if not _is_stale(path):
            return None
    try:
        os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if _is_stale(guard):
                raise UserError(f"{guard}: expected none, found one whose owner is gone; remove it") from None
        return None
    try:
        with contextlib.suppress(FileNotFoundError):
            if not _is_stale(path):  # somebody was faster, and this is the new owner's
                return None
            path.unlink()
        return _create(path)
    finally:
        guard.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    """Whether a file was last touched long ago, by the clock of its file system: those of machines differ."""
    with tempfile.TemporaryFile(dir=path.parent) as stream:
        now = os.fstat(stream.fileno()).st_mtime
    return now - path.stat().st_mtime > STALE_SECONDS
