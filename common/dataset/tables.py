"""Tables: CSV files as spreadsheets and releases have them, a row for each line that is not blank."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.base.files import read_text
from common.base.runtime import UserError, shown


def read_table(
    path: Path, columns: Sequence[str], delimiters: str = ",;\t", *, advice: str = "correct the head"
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Rows of a CSV file that are not blank: the number of their last line, and the values of `columns`, stripped.

    Titles may have other capitals, further columns are passed over, the delimiter is found out. What a short row lacks
    is None; `advice` is for who lacks a column.

    Raises `UserError` naming file and line for a missing column, a quote without its end and a cell of no end.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    titles = {mark: [cell.strip().strip('"').casefold() for cell in head.split(mark)] for mark in delimiters}
    wanted = [column.casefold() for column in columns]
    delimiter = next((mark for mark, cells in titles.items() if set(wanted) <= set(cells)), None)
    if delimiter is None:
        names = delimiters[0].join(columns)
        raise UserError(f"{path}, line 1: expected the columns {names}, found {shown(head)}; {advice}")
    places = [titles[delimiter].index(column) for column in wanted]
    rows = csv_rows(path, text, delimiter)
    next(rows)
    for line, cells in rows:
        if any(cells):
            values = (cells[place] if place < len(cells) else None for place in places)
            yield line, dict(zip(columns, values, strict=True))


def table_titles(path: Path, delimiter: str = ",") -> list[str]:
    """The titles of a CSV file as it spells them. Raises `UserError` for no such file."""
    return next(csv_rows(path, read_text(path), delimiter), (1, [""]))[1]


def csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of the text of a CSV file, the head too: the number of their last line, and their cells, stripped.

    Raises `UserError` naming `path` and line for a quote without its end and a cell of no end.
    """
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: not readable as CSV ({error}); save it again as CSV"
        ) from error


def untitled_rows(path: Path, num_columns: int, delimiter: str, *, skipped: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Rows of a table without titles that are not blank: line (from 1) and cells, stripped; `skipped` lines say anything.

    A blank as `delimiter` stands for any run of blanks and tabs. Raises `UserError` naming file and line for another
    number of cells, and for no file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table of {num_columns} columns")
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if line <= skipped or not text.strip():
            continue
        cells = text.split() if delimiter == " " else [cell.strip() for cell in text.split(delimiter)]
        if len(cells) != num_columns:
            raise UserError(
                f"{path}, line {line}: expected {num_columns} cells, found {len(cells)}: {shown(text.strip())}; correct the row"
            )
        yield line, cells


def csv_line(cells: Sequence[object]) -> str:
    """A row of a CSV file with its end, cells in quotes where they need them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
