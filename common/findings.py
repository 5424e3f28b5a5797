"""What an audit finds: how bad it is, where it is, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEVERITIES = ("error", "warning", "note")  # worst first
LISTED = 8  # names spelled out before "and n more"


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    `message` names the video or file and the place, `advice` what to do. `line` counts from 1; `frame` from 0, and
    `seconds` is its time where the frame rate is known.
    """

    severity: str
    kind: str
    message: str
    advice: str
    video: str | None = None
    line: int | None = None
    frame: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as a record; null where it has no such place."""
        return asdict(self)


def place(frame: int, fps: float | None) -> str:
    """`frame 1510 (1:00.4)`; without a frame rate only the frame."""
    if not fps:
        return f"frame {frame}"
    tenths = round(10 * frame / fps)
    return f"frame {frame} ({tenths // 600}:{tenths % 600 / 10:04.1f})"


def seconds_of(frame: int, fps: float | None) -> float | None:
    """Time of a frame from the start of its video."""
    return round(frame / fps, 3) if fps else None


def listed(names: list[str]) -> str:
    """`a, b, c`, shortened to `LISTED` names and a count."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def naming(path: Path, error: Exception) -> str:
    """The text of an error, with the file in front where it does not name it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"
