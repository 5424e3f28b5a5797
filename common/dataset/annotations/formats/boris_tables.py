"""The tables that BORIS exports: aggregated (a row for each state) and tabular (a row for each start and stop)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from common.base.entries import VIDEO_SUFFIXES
from common.base.files import read_text
from common.base.runtime import UserError, listed, shown
from common.dataset.annotations.annotated import Annotated, KnownPhases
from common.dataset.annotations.formats.boris import NO_SUBJECT
from common.dataset.annotations.formats.interval_table import written_seconds
from common.dataset.importing.label_tables import PhaseInterval
from common.dataset.tables import csv_rows

# titles of the columns, which changed from version to version
COLUMNS = {
    "observation": ("observation id",),
    "offset": ("time offset (s)",),
    "media": ("media file", "media file name", "media file path", "source"),
    "subject": ("subject",),
    "behaviour": ("behavior",),
    "kind": ("behavior type", "status"),
    "start": ("start (s)", "time", "start"),
    "end": ("stop (s)", "stop"),
}
STATE, POINT, START, STOP = "STATE", "POINT", "START", "STOP"
ADVICE = "export the table again from BORIS, with its head"
Row = tuple[str, dict[str, str]]
"""Words for messages, and the cells of a row by what they are."""


def is_boris_table(text: str) -> bool:
    """Whether a text is a table of BORIS: by the titles of its columns, or by a row without them."""
    return any(
        {"behavior", "subject"} <= {cell.strip('" ').casefold() for cell in _cells(line)}
        or ({STATE, POINT} & set(_cells(line)) and len(_cells(line)) >= 8)
        for line in text.split("\n", 200)[:200]
    )


def _cells(line: str) -> list[str]:
    return line.split(_delimiter(line))


def _delimiter(line: str) -> str:
    """What parts the cells of a line: as BORIS writes it, or a spreadsheet that has saved it."""
    return max(("\t", ";", ","), key=line.count)


def read_boris_table(path: Path, known: KnownPhases) -> Iterator[Annotated]:
    """The videos and subjects of a table. Raises `UserError` where its columns are not known."""
    text = read_text(path)
    lines = text.split("\n")
    first = next((index for index, line in enumerate(lines) if is_boris_table(line)), 0)
    below = csv_rows(path, "\n".join(lines[first:]), _delimiter(lines[first]))
    rows = [(first + line, cells) for line, cells in below if any(cells)]
    if not rows:
        raise UserError(f"{path}: is empty; {ADVICE}")
    titles = [title.casefold() for title in rows[0][1]]
    if "behavior" in titles:
        places = {
            key: next((titles.index(title) for title in names if title in titles), None)
            for key, names in COLUMNS.items()
        }
        rows = rows[1:]
    else:
        places = _places_without_head(rows[0][1])
    lacking = [COLUMNS[key][0] for key in ("media", "behaviour", "kind", "start") if places[key] is None]
    if lacking:
        raise UserError(
            f"{path}, line {first + 1}: expected a table of BORIS, found no column {listed(lacking)}; {ADVICE}"
        )
    heading = [_cells(text) for text in lines[:first]]  # of a tabular one: rows of a name and its value
    offset = next((cells[1] for cells in heading if cells[0].casefold() in COLUMNS["offset"] and len(cells) > 1), "0")
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for line, cells in rows:
        row = {key: cells[place] if place is not None and place < len(cells) else "" for key, place in places.items()}
        row["offset"] = row["offset"] or offset
        groups[row["observation"], row["media"], row["subject"]].append((f"{path}, line {line}", row))
    for observation, medium in sorted({key[:2] for key in groups}):
        subjects = {key[2]: rows for key, rows in groups.items() if key[:2] == (observation, medium)}
        coding = [s for s, of_subject in subjects.items() if any(known.has(row["behaviour"]) for _, row in of_subject)]
        num_media = len({key[1] for key in groups if key[0] == observation})
        for subject in coding or list(subjects)[:1]:
            notes: list[str] = []
            read = partial(_intervals, subjects[subject], known, notes, num_media=num_media)
            name = medium.rpartition("#")[2].partition(":")[2] if medium.startswith("player #") else medium
            yield Annotated(path, str(path), {name: 0.0}, read, annotator=subject or NO_SUBJECT, notes=notes)


def _places_without_head(cells: Sequence[str]) -> dict[str, int | None]:
    """The columns of an aggregated table by its first row: four before the kind of the event, two behind it."""
    kind = next((index for index, cell in enumerate(cells) if cell in (STATE, POINT)), None)
    media = next((index for index, cell in enumerate(cells) if Path(cell).suffix.lower() in VIDEO_SUFFIXES), None)
    if kind is None or kind < 4:
        return dict.fromkeys(COLUMNS)
    return dict.fromkeys(COLUMNS) | {
        "observation": 0,
        "media": media,
        "subject": kind - 4,
        "behaviour": kind - 3,
        "kind": kind,
        "start": kind + 1,
        "end": kind + 2,
    }


def _intervals(rows: Sequence[Row], known: KnownPhases, notes: list[str], *, num_media: int) -> Iterator[PhaseInterval]:
    """The states in the rows of a subject in one file; their times have the observation's offset in them."""
    if num_media > 1:
        raise UserError(
            f"{rows[0][0]}: its observation plays {num_media} files, and the table does not say where each begins; import the "
            "project itself (.boris)"
        )
    open_states: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for where, row in rows:
        code, kind = row["behaviour"], row["kind"].upper()
        if known.leaves_out(code):
            continue
        start = _seconds(row, "start", where)
        if kind == POINT:
            if known.has(code):
                raise UserError(
                    f"{where}: {shown(code)} at {start:g} s is a point event, without duration; make it a state event in the "
                    "ethogram, with a start and a stop"
                )
            notes.append(f"{where}: point event {shown(code)} at {start:g} s, left out")
        elif kind == STATE:
            yield PhaseInterval(where, start, _seconds(row, "end", where), code)
        elif kind in (START, STOP):
            open_states[code].append((start, where))
        else:
            raise UserError(f"{where}: expected STATE, POINT, START or STOP, found {shown(row['kind'])}; {ADVICE}")
    for code, events in open_states.items():
        if len(events) % 2:
            raise UserError(
                f"{events[0][1]}: {shown(code)} is started and stopped {len(events)} times together; each start needs its stop"
            )
        for (start, where), (end, _) in list(pairwise(sorted(events)))[::2]:
            yield PhaseInterval(where, start, end, code)


def _seconds(row: Mapping[str, str], column: str, where: str) -> float:
    seconds = written_seconds(row[column])
    if seconds is None:
        raise UserError(f"{where}: has no time in {COLUMNS[column][0]}: found {shown(row[column])}; {ADVICE}")
    return seconds - (written_seconds(row["offset"]) or 0.0)  # an observation may have none
