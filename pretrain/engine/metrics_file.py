"""The numbers of every step, one JSON record a line."""

from __future__ import annotations

import json
import math
from pathlib import Path

from common.runtime import write_text


class MetricsFile:
    """Appends records to `metrics.jsonl`; a number that is not finite is null."""

    def __init__(self, path: Path, finished_steps: int):
        """Drop what a killed training wrote after its last checkpoint, of `finished_steps`; without one, everything."""
        self.path = path
        kept = [line for line in _lines(path) if finished_steps and _step_of(line) <= finished_steps]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def append(self, record: dict[str, float]) -> None:
        """Write one record at once, so that a kill can leave at most the last line short."""
        values = {key: value if math.isfinite(value) else None for key, value in record.items()}
        with self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """All whole records of a metrics file, by step."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [line for line in lines[:-1] if line]  # what follows the last line end is short


def _step_of(line: str) -> int:
    return json.loads(line)["step"]
