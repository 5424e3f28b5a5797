"""Hashes of large files, computed once on a machine: a folder of features is read once, not before every training."""

import contextlib
import hashlib
import time
from pathlib import Path

from common.base import paths
from common.base.files import misfit, read_json, sha256_of_file, write_json
from common.base.runtime import UserError

SETTLED_SECONDS = 2.0  # a file may change again within one tick of its file system's clock


def known_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read again only where its size, time of change or inode is another than at the last time.

    Remembered in the user's cache folder, a small file each; where that cannot be written, the file is read every time.
    """
    status = path.stat()
    state = {
        "path": str(path.resolve()),
        "size_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "inode": status.st_ino,
    }
    note = _note(state["path"])
    if note and (digest := _remembered(note, state)):
        return digest
    digest = sha256_of_file(path)
    if note and time.time() - status.st_mtime > SETTLED_SECONDS:
        with contextlib.suppress(OSError):  # a home folder that is full, or read-only
            write_json(note, state | {"sha256": digest})
    return digest


def _note(path: str) -> Path | None:
    """The file that remembers the hash of the file at `path`; None for a user without a home."""
    try:
        return (
            paths.user_cache() / "sha256" / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()}.json"
        )
    except RuntimeError:
        return None


def _remembered(note: Path, state: dict[str, object]) -> str | None:
    try:
        record = read_json(note) if note.is_file() else None
    except (UserError, OSError):  # damaged, or another user's: as good as none
        return None
    is_same = not misfit(record, {"sha256": str}) and all(record.get(key) == value for key, value in state.items())
    return record["sha256"] if is_same else None
