"""What is said of each answer: a line for people, a line of JSON for programs, a row of a table that a kill leaves whole."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from common.base.runtime import counted, naming_target
from common.base.wording import clock, text_cell
from common.video.live import StreamError

if TYPE_CHECKING:
    from common.dataset.phases import PhaseMapping
    from common.head.live.session import OnlinePhase

log = logging.getLogger(__name__)

COLUMNS = ("seconds", "phase", "confidence", "delay_seconds", "held")


def line_of(answer: OnlinePhase, mapping: PhaseMapping) -> str:
    """`1:15.40  Nucleus_prolapse  93.1 %  delay 0.21 s`, with `held` where no frame could be taken in time."""
    time = f"{clock(answer.seconds)}.{int(answer.seconds * 100 + 1e-6) % 100:02d}"
    held = "  held" if answer.is_held else ""
    phase = mapping.names[answer.phase_id]
    return f"{time}  {phase}  {100 * answer.confidence:.1f} %  delay {answer.delay:.2f} s{held}"


def json_line_of(answer: OnlinePhase, mapping: PhaseMapping) -> str:
    """One answer as a JSON object, `COLUMNS` and the probabilities of all phases in the order of the mapping."""
    found = dict(zip(COLUMNS, _values(answer, mapping), strict=True))
    found["probabilities"] = [round(float(value), 7) for value in answer.probabilities]
    return json.dumps(found, ensure_ascii=False)


def _values(answer: OnlinePhase, mapping: PhaseMapping) -> tuple[float, str, float, float, bool]:
    phase = mapping.names[answer.phase_id]
    return round(answer.seconds, 6), phase, round(answer.confidence, 6), round(answer.delay, 3), answer.is_held


def tell(
    answers: Iterator[OnlinePhase],
    table: Path,
    mapping: PhaseMapping,
    show: Callable[[OnlinePhase], object],
    *,
    at_end: Callable[[], object] = lambda: None,
) -> StreamError | None:
    """Write every answer into `table` and `show` it, as it comes; returns how a camera or stream ended.

    The table is made for the first answer: what cannot be read leaves nothing behind. `at_end` is called whatever ends it.
    """
    count = held = 0
    with contextlib.ExitStack() as opened:
        writer = None
        try:
            for answer in answers:
                if writer is None:
                    writer = opened.enter_context(AnswerTable(table, mapping))
                writer.add(answer)
                count, held = count + 1, held + answer.is_held
                show(answer)
        except StreamError as error:
            log.error("%s; what came is kept", error)
            return error
        finally:
            at_end()
            if count:
                late = f", {held} of them held: no frame could be taken in time, so that the one before stood for it"
                log.info("%s: %s%s", table, counted(count, "answer"), late if held else "")
    return None


class AnswerTable:
    """A CSV file of answers, written through to the system row by row: what a kill leaves of it is whole but for its last line.

    Raises `UserError` naming the file when it cannot be written.
    """

    def __init__(self, path: Path, mapping: PhaseMapping):
        self.path, self._mapping = path, mapping
        with naming_target(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._write(COLUMNS)

    def __enter__(self) -> AnswerTable:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, answer: OnlinePhase) -> None:
        """Write one row."""
        seconds, phase, confidence, delay, is_held = _values(answer, self._mapping)
        self._write((f"{seconds:.3f}", text_cell(phase), f"{confidence:.4f}", f"{delay:.3f}", int(is_held)))

    def _write(self, row: tuple[object, ...]) -> None:
        with naming_target(self.path):
            self._writer.writerow(row)
            self._file.flush()
