"""A finding of an audit: how bad it is, where it is, and what to do."""

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")  # worst first


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
