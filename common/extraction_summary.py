"""What became of each video of an extraction, and the list of those that could not be read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from common.runtime import write_json
from common.video import VideoError

log = logging.getLogger(__name__)

QUARANTINE = "quarantine"


@dataclass
class Summary:
    """What became of each video."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 = all there, 1 = some failed, 3 = all failed."""
        if not self.failed:
            return 0
        return 1 if self.done or self.skipped else 3

    def log(self, folder: Path) -> None:
        """Say what was done, and every failure with its reason."""
        counts = f"{len(self.done)} extracted, {len(self.skipped)} already there, {len(self.failed)} failed"
        log.info("%s: %s", folder, counts)
        for name, reason in self.failed.items():
            log.error("  %s: %s", name, reason)


def update_quarantine(folder: Path, name: str, error: VideoError | None) -> None:
    """Note in `quarantine/<video>.json` why a video has no features; remove the note of one that has them now.

    A file for each video: the tasks of a job array write at the same time.
    """
    path = folder / QUARANTINE / f"{name}.json"
    if error is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"video": str(error.path), "reason": error.reason, "frames_given": error.frames_given})
