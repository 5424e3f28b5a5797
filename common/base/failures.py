"""The last error of a piece of work, noted beside its results for whoever looks in the morning (`common.status`)."""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.base.files import misfit, read_json, write_json
from common.base.locks import Held
from common.base.paths import failure_note
from common.base.runtime import UserError, describe_os_error, first_line, printable

SHAPE = {"when": str, "message": str}


@dataclass(frozen=True)
class Failure:
    """What went wrong and when (ISO 8601, UTC)."""

    when: str
    message: str


@contextlib.contextmanager
def noting_failure(folder: Path) -> Iterator[None]:
    """Note in `folder` what ends the work inside; the note goes when the work succeeds.

    Work that another process has in hand (`locks.Held`) and an interruption are no failures.
    """
    note = failure_note(folder)
    try:
        yield
    except Held:
        raise
    except Exception as error:
        message = describe_os_error(error) if isinstance(error, OSError) else first_line(error)
        kind = "" if isinstance(error, UserError | OSError) else f"{type(error).__name__}: "
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):  # a full disk, or one that can only be read: the error itself is what counts
            write_json(note, {"when": now, "message": printable(kind + message)})
        raise
    with contextlib.suppress(OSError):
        note.unlink(missing_ok=True)


def read_failure(folder: Path) -> Failure | None:
    """What `noting_failure` left in `folder`; None without a note, and for a damaged one, which nothing rests on."""
    note = failure_note(folder)
    try:
        record = read_json(note) if note.is_file() else None
    except UserError:
        return None
    return None if record is None or misfit(record, SHAPE) else Failure(record["when"], record["message"])
