"""Labels from the tables of releases: a row for each label, a row where a phase starts, rows of intervals."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base.runtime import UserError, shown
from common.dataset.tables import read_table, untitled_rows

EARLY_SECONDS = 1e-6  # by which a frame's time may miss a start for the frame to be the first of it: times are rounded


def table_rows(
    path: Path, columns: Sequence[str], delimiter: str, *, advice: str = "correct the head"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, each with the words `FILE, line N` for error messages; `advice` is for who lacks a column.

    Raises `UserError` for a missing or binary file, a missing column and a row that is too short.
    """
    wanted = delimiter[0].join(columns)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table with the columns {wanted}")
    for line, row in read_table(path, columns, delimiter, advice=advice):
        where = f"{path}, line {line}"
        lacking = [column for column in columns if row[column] is None]
        if lacking:
            raise UserError(f"{where}: no value for {', '.join(lacking)}")
        yield where, row


def number(row: dict[str, str], column: str, where: str) -> float:
    """A value that must be a finite number, not below 0."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{where}: {column} must be a number from 0, found {shown(row[column])}")
    return value


def whole_number(row: dict[str, str], column: str, where: str) -> int:
    """A value that must be a whole number, not below 0."""
    value = number(row, column, where)
    if not value.is_integer():
        raise UserError(f"{where}: {column} must be a whole number, found {shown(row[column])}")
    return int(value)


def numbered_labels(
    path: Path,
    phase: Callable[[str, object], str],
    *,
    columns: tuple[str, str] | None = None,
    delimiter: str = "\t",
    first: int = 0,
    step: int = 1,
    skipped: int = 0,
) -> list[str]:
    """Labels `(T,)` of a table with a row for each: its number, then the phase, which `phase(text, where)` knows.

    `columns` are the titles of the two; None: there is no head, but `skipped` lines that say anything. Numbers go from
    `first` on in steps of `step`. Raises `UserError` naming file and line for a number that is missing, repeated or none.
    """
    if columns:
        rows = ((where, row[columns[0]], row[columns[1]]) for where, row in table_rows(path, columns, delimiter))
    else:
        rows = ((f"{path}, line {line}", *cells) for line, cells in untitled_rows(path, 2, delimiter, skipped=skipped))
    labels: list[str] = []
    for where, written, text in rows:
        expected = first + step * len(labels)
        if not (written.isascii() and written.isdigit()) or int(written) != expected:
            raise UserError(
                f"{where}: expected the label of {expected}, found {shown(written)}; rows must not be missing"
            )
        labels.append(phase(text, where))
    if not labels:
        raise UserError(f"{path}: no label in it; expected a row for each")
    return labels


@dataclass(frozen=True)
class PhaseInterval:
    """A phase from `start` to before `end`, in seconds or frames; `where` names file and line."""

    where: str
    start: float
    end: float
    phase: str


def interval_labels(
    intervals: Sequence[PhaseInterval], points: np.ndarray, *, gap: str | None = None
) -> list[str | None]:
    """The label of each of the rising `points` `(T,)`: of the interval that has it, of several the one that starts later.

    Of two that start together the shorter one, else the later row. `gap` is the label between intervals; before the first
    and after the last there is none. Ends beyond the last point are cut.
    """
    labels: list[str | None] = [None] * len(points)
    if not intervals:
        return labels
    order = sorted(intervals, key=lambda interval: (interval.start, -interval.end))

    def place(point: float) -> int:
        return int(np.searchsorted(points, point - EARLY_SECONDS))

    if gap is not None:
        begin, end = place(order[0].start), place(max(interval.end for interval in order))
        labels[begin:end] = [gap] * (end - begin)
    for interval in order:
        begin, end = place(interval.start), place(interval.end)
        labels[begin:end] = [interval.phase] * (end - begin)
    return labels


def with_duration(intervals: Sequence[PhaseInterval], notes: list[str]) -> list[PhaseInterval]:
    """Intervals that last; one without duration is named in `notes`. Raises `UserError` for one that ends before it starts."""
    kept = []
    for interval in intervals:
        if interval.end < interval.start:
            raise UserError(f"{interval.where}: ends at {interval.end:g}, before it starts at {interval.start:g}")
        if interval.end == interval.start:
            notes.append(f"{interval.where}: {interval.phase} without duration, left out")
        else:
            kept.append(interval)
    return kept


def start_labels(starts: Sequence[tuple[int, str]], num_frames: int) -> list[str | None]:
    """A label for each frame, where a phase lasts from its first frame to the next row's, the last one to the end.

    `starts` rise; before the first there is no label.
    """
    labels: list[str | None] = [None] * num_frames
    for (begin, phase), end in zip(starts, [*(start for start, _ in starts[1:]), num_frames], strict=True):
        labels[begin:end] = [phase] * (end - begin)
    return labels


def filled_up(labels: Sequence[str], num_frames: int) -> list[str | None]:
    """Labels that end early, with none for the frames that are left."""
    return [*labels, *[None] * (num_frames - len(labels))]
