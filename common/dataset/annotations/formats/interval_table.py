"""Tables of phases: a row of start, end and phase for each segment, as spreadsheets in any country save them."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from common.base.files import read_text
from common.base.runtime import UserError, shown
from common.base.wording import text_cell
from common.dataset.annotations.annotated import Annotated
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.importing.label_tables import PhaseInterval
from common.dataset.tables import csv_rows

COLUMNS = {
    "start": (
        "start",
        "start_seconds",
        "start (s)",
        "start [s]",
        "start_s",
        "start_time",
        "start time",
        "begin",
        "onset",
        "from",
    ),
    "end": ("end", "end_seconds", "end (s)", "end [s]", "end_s", "end_time", "end time", "stop", "offset", "to"),
    "phase": ("phase", "label", "name"),
}
OPTIONAL = {"video": ("video", "file", "filename", "file name"), "annotator": ("annotator", "rater")}
HEAD = "start,end,phase"
CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def read_interval_table(path: Path) -> Iterator[Annotated]:
    """The videos and annotators of a table; without a column `video` it is of the video that it is called as.

    Raises `UserError` where the head does not say which columns are start, end and phase.
    """
    text = read_text(path)
    rows, delimiter = _rows(path, text)
    head = rows[0][1] if rows else []
    places = _places(head)
    if None in [places[key] for key in COLUMNS]:
        raise UserError(
            f"{path}, line {rows[0][0] if rows else 1}: expected a head with the columns {HEAD}, found "
            f"{shown(delimiter.join(head))}; write {HEAD} above the rows"
        )
    if len(rows) < 2:
        raise UserError(f"{path}: has no row below its head; write the phases there, or leave it out")
    groups: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for line, cells in rows[1:]:
        row = {key: cells[place] if place is not None and place < len(cells) else "" for key, place in places.items()}
        groups[row["video"], row["annotator"]].append((line, row))
    for (video, annotator), of_group in groups.items():
        read = partial(_intervals, path, of_group)
        yield Annotated(path, str(path), {video or path.name.rpartition(".")[0]: 0.0}, read, annotator=annotator)


def is_interval_table(text: str) -> bool:
    """Whether the first line of a text says which columns are start, end and phase."""
    head = text.partition("\n")[0]
    places = _places([cell.strip() for cell in head.split(_delimiter(head))])
    return None not in [places[key] for key in COLUMNS]


def _places(head: Sequence[str]) -> dict[str, int | None]:
    """The columns by what they are; None for one that is not there."""
    cells = [cell.strip('"').casefold() for cell in head]
    return {
        key: next((cells.index(title) for title in titles if title in cells), None)
        for key, titles in (COLUMNS | OPTIONAL).items()
    }


def _delimiter(head: str) -> str:
    return max((";", "\t", ","), key=head.count)


def _rows(path: Path, text: str) -> tuple[list[tuple[int, list[str]]], str]:
    """Rows that are not blank with their lines, the head first, and what parts the cells."""
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().lower().startswith("sep="):  # what Excel writes above a table for itself
        text, skipped = rest, 1
    head = text.lstrip("\n").partition("\n")[0]
    delimiter = _delimiter(head)
    rows = [(line + skipped, cells) for line, cells in csv_rows(path, text, delimiter) if any(cells)]
    return rows, delimiter


def _intervals(path: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> Iterator[PhaseInterval]:
    for line, row in rows:
        where = f"{path}, line {line}"
        start, end = (_seconds(row[key], key, where) for key in ("start", "end"))
        # a formula's apostrophe is no part of a name
        yield PhaseInterval(where, start, end, row["phase"].removeprefix("'"))


def _seconds(text: str, column: str, where: str) -> float:
    seconds = written_seconds(text)
    if seconds is None:
        raise UserError(
            f"{where}: has no time in {column}: expected seconds or h:mm:ss.mmm, found {shown(text) if text else 'nothing'}; "
            "write it there"
        )
    return seconds


def written_seconds(text: str) -> float | None:
    """Seconds of a time as somebody writes it: `clock_seconds`, perhaps negative or with a decimal comma; else None."""
    number = text.replace(",", ".")
    seconds = clock_seconds(number.removeprefix("-"))
    return -seconds if seconds is not None and number.startswith("-") else seconds


def clock_seconds(text: str) -> float | None:
    """Seconds of `12.5`, `1:02.5`, `90:02.5` or `1:00:02.5`; None for anything else, and for sixty of what goes up to 59."""
    match = CLOCK.fullmatch(text)
    if not match:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    if (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
        return None
    total = 3600 * hours + 60 * minutes + seconds
    return total if math.isfinite(total) else None


def interval_table_text(video: Prelabelled) -> str:
    """A table of a video's segments: times, phase, mean probability, and what is doubtful about it."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["start", "end", "phase", "confidence", "look_here"])
    for segment in video.segments:
        start, end = video.seconds(segment)
        row = [f"{start:.3f}", f"{end:.3f}", text_cell(segment.phase), f"{segment.confidence:.3f}"]
        writer.writerow([*row, text_cell(segment.doubt)])
    return content.getvalue()
