"""Words for tables and pages: places in a video, clock times, text tables, names in pictures."""

import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from common.base.runtime import counted

BRIEF = 40  # characters of a name in a picture
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell of a CSV file begins with that a spreadsheet computes


def place(frame: int, fps: float | None) -> str:
    """`frame 1510 (1:00.4)`; without a frame rate only the frame."""
    if not fps:
        return f"frame {frame}"
    tenths = round(10 * frame / fps)
    return f"frame {frame} ({tenths // 600}:{tenths % 600 / 10:04.1f})"


def seconds_of(frame: int, fps: float | None) -> float | None:
    """Time of a frame from the start of its video."""
    return round(frame / fps, 3) if fps else None


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows (the first is the header) as aligned text columns: the first to the left, the others to the right."""
    widths = [max(display_width(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        first, *others = row
        blanks = [" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [first + blanks[0], *(blank + cell for blank, cell in zip(blanks[1:], others, strict=True))]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def written_line(files: Sequence[Path]) -> str:
    """`wrote comparison_results/report.html and 31 more files in comparison_results and 20 other folders`: a line, however many."""
    here = Path.cwd()
    short = [path.relative_to(here) if path.is_relative_to(here) else path for path in files]
    folder, *elsewhere = dict.fromkeys(str(path.parent) for path in short)
    if len(short) == 1:
        return f"wrote {short[0]}"
    places = f"{folder} and {counted(len(elsewhere), 'other folder')}" if elsewhere else folder
    return f"wrote {short[0]} and {counted(len(short) - 1, 'more file')} in {places}"


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a Chinese, Japanese or Korean character, none for an accent."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def brief(name: str, most: int = BRIEF) -> str:
    """A name for a picture: of more than `most` characters the middle is left out."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def without_detours(path: str) -> str:
    """A recorded path without its steps back: `best_lora/../../ssl/export` -> `../ssl/export`; what is no such path stays."""
    return posixpath.normpath(path) if "/../" in path and "://" not in path else path


def text_cell(text: str) -> str:
    """A text for a CSV file: an apostrophe goes before one that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def clock(seconds: float) -> str:
    """`75.4` -> `1:15`: whole minutes and seconds, as a player shows them."""
    minutes, rest = divmod(int(seconds + 1e-6), 60)  # 2.9999999 is how a float may say 3
    return f"{minutes}:{rest:02d}"


def readable(phase: str) -> str:
    """A phase name for pictures and pages: blanks for underscores."""
    return phase.replace("_", " ")
