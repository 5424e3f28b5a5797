"""Cells of a table as the file format spells them (ECMA-376, part 1, 18.3.1), put into the sheets of a workbook.

openpyxl writes all the rest. A comparison of twenty encoders has 260,000 cells, for which it takes half a minute: of
each it makes an object, which it styles, sorts and turns into elements.
"""

import functools
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from openpyxl import Workbook

END_OF_ROWS = b"</sheetData>"
DIMENSION = re.compile(rb'(?<=<dimension ref=")[^"]*')


def number_element(place: str, style: int, value: float) -> str:
    """A cell with a finite number; `style` is the number of a style in the workbook."""
    return f'<c r="{place}" s="{style}" t="n"><v>{value:.16g}</v></c>'


def text_element(place: str, style: int, text: str) -> str:
    """A cell with text that the file format can hold."""
    return f'<c r="{place}" s="{style}" t="inlineStr"><is>{_text(text)}</is></c>'


@functools.lru_cache(maxsize=1 << 12)  # most texts are names of encoders, videos and phases, which every row repeats
def _text(text: str) -> str:
    kept = ' xml:space="preserve"' if text != text.strip() else ""
    return f"<t{kept}>{escape(text)}</t>"


def row_element(number: int, cells: Iterable[str], height: float | None = None) -> str:
    """A row, from 1, of its cells; `height` in points where it is not the usual one."""
    high = f' ht="{height}" customHeight="1"' if height else ""
    return f'<row r="{number}"{high}>{"".join(cells)}</row>'


def save_with_rows(workbook: Workbook, rows: Mapping[str, tuple[str, Iterable[str]]], path: Path) -> None:
    """Write a workbook to `path` with further rows below those of its sheets.

    `rows`: title of a sheet -> the reference of all of its cells (`A1:F9`), and what `row_element` made.
    """
    stream = io.BytesIO()
    workbook.save(stream)
    added = {workbook[title].path.lstrip("/"): each for title, each in rows.items()}
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            content = source.read(part)
            if part.filename in added:
                reference, elements = added[part.filename]
                before, end, after = content.partition(END_OF_ROWS)
                if not end:
                    raise AssertionError(
                        f"{part.filename}: expected {END_OF_ROWS!r} in what openpyxl wrote, found none"
                    )
                before = DIMENSION.sub(reference.encode(), before, count=1)
                content = b"".join([before, "".join(elements).encode(), end, after])
            target.writestr(part, content)
