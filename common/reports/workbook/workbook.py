"""Excel workbooks: typed numbers, frozen headers, the best of a column in a box, colours from worst to best."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell import Cell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from common.base.files import atomic_path
from common.reports.comparison import Report
from common.reports.workbook import measure_sheets, record_sheets, rows, styles
from common.reports.workbook.sheet import Sheet

HEADER_ROW = 3  # below the title and the caption
UNDEFINED = "n/a"
NARROWEST, WIDEST = 8, 60  # characters
HEADER_LINES = 3  # that a header may take before its column becomes wider
CAPTION_WIDTH = 140  # characters of a line of the caption, where the columns are as wide
LINE_HEIGHT, ROTATED_HEIGHT = 15, 6.5  # points a line, and a character of a rotated header
HIGHEST, LONGEST_TEXT = 409, 32_767  # points of a row and characters of a cell that Excel takes
A3, A4 = "8", "9"  # paper sizes as the file format numbers them
FOOTER_LENGTH = 100  # characters; Excel calls a file damaged whose footer has more than 255
WIDEST_ON_A4, WIDEST_ON_A3 = 180, 300  # characters across a page that can still be read


def save_comparison(report: Report, path: Path) -> Path:
    """Write every sheet of a comparison that is not empty; returns `path`."""
    built = (build(report) for build in (*measure_sheets.BUILDERS, *record_sheets.BUILDERS))
    filled = [sheet for sheet in built if len(sheet.table)]
    return save_workbook(filled, path, title=report.full_title, alarming=bool(report.warnings))


def save_workbook(contents: Sequence[Sheet], path: Path, *, title: str, alarming: bool = False) -> Path:
    """Write sheets atomically under one title; `alarming` sends the reader of every sheet to the notes, in red."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    workbook.properties.title = _text(title)
    workbook.properties.creator = "sics155-encoders"
    named = styles.Styles(workbook)
    below = {}  # the header of a sheet
    for sheet in contents:
        page = workbook.create_sheet(sheet.title)
        widths = {name: _width(sheet, name) for name in sheet.table.columns}
        _write_heading(page, sheet, widths, title=title, alarming=alarming)
        _write_header(page, sheet, widths)
        reference = f"A1:{get_column_letter(len(widths))}{HEADER_ROW + len(sheet.table)}"
        below[sheet.title] = reference, _rows(sheet, widths, named)
        _set_view(page, sheet, widths)
        _set_colours(page, sheet)
        _set_print(page, sheet, widths, title)
    if alarming and "notes" in workbook.sheetnames:
        workbook["notes"].sheet_properties.tabColor = styles.ALARM
    with atomic_path(path) as temporary:
        rows.save_with_rows(workbook, below, temporary)
    return path


def _width(sheet: Sheet, name: str) -> float:
    """Characters that show a column's values, and its header on a few lines."""
    if name in sheet.widths:
        return sheet.widths[name]
    values = sheet.table[name].dropna()
    if pd.api.types.is_float_dtype(values):
        values = values.map("{:,.2f}".format)
    shown = values.astype(str).str.len().max() if len(values) else 0
    words = [] if name in sheet.shares else [max(map(len, name.split())) + 3, len(name) / HEADER_LINES]
    return min(WIDEST, max(NARROWEST, shown + 3, *words))


def _write_heading(page: Worksheet, sheet: Sheet, widths: dict[str, float], *, title: str, alarming: bool) -> None:
    warning = ". Read the warnings in the sheet notes" if alarming else ""
    for row, text in enumerate((f"{title}: {sheet.title}{warning}", sheet.caption), 1):
        _fill(page.cell(row, 1), text)
    page["A1"].font = Font(styles.FONT, bold=True, size=13, color=styles.ALARM if alarming else styles.BLACK)
    page["A2"].font = Font(styles.FONT, color=styles.QUIET)
    page["A2"].alignment = Alignment(wrap_text=True, vertical="top")
    across = list(itertools.accumulate(widths.values()))
    columns = next((place for place, width in enumerate(across, 1) if width >= CAPTION_WIDTH), len(across))
    page.merge_cells(start_row=2, end_row=2, start_column=1, end_column=columns)
    page.row_dimensions[2].height = _height(sheet.caption, across[columns - 1]) + 3


def _height(text: str, width: float) -> int:
    """Points that text takes in a cell of `width` characters."""
    return LINE_HEIGHT * len(textwrap.wrap(text, int(width)))


def _write_header(page: Worksheet, sheet: Sheet, widths: dict[str, float]) -> None:
    height = 0
    for column, (name, width) in enumerate(widths.items(), 1):
        cell = page.cell(HEADER_ROW, column)
        _fill(cell, name)
        cell.font, cell.fill = Font(styles.FONT, bold=True, color=styles.WHITE), styles.HEADER_FILL
        if name in sheet.shares:
            cell.alignment = Alignment("center", "center", text_rotation=90)  # at the bottom LibreOffice cuts letters
            height = max(height, ROTATED_HEIGHT * len(name))
        else:
            is_text = sheet.table[name].map(type).eq(str).any()
            cell.alignment = Alignment("left" if is_text else "center", "center", wrap_text=True, indent=int(is_text))
            height = max(height, _height(name, width))
    # the arrows of the filters take a line
    page.row_dimensions[HEADER_ROW].height = min(height + LINE_HEIGHT, HIGHEST)


def _rows(sheet: Sheet, widths: dict[str, float], named: styles.Styles) -> list[str]:
    """The rows of the table, in the order in which they stand below the header."""
    groups = sheet.table[sheet.grouped].tolist() if sheet.grouped else []
    letters = [get_column_letter(column) for column in range(1, len(widths) + 1)]
    found = []
    # as objects: a row of mixed columns would else turn whole numbers into floats
    for place, values in enumerate(sheet.table.astype(object).itertuples(index=False, name=None)):
        starts_group = bool(groups) and (place == 0 or groups[place] != groups[place - 1])
        number, height, cells = HEADER_ROW + 1 + place, 0, []
        for letter, (name, width), value in zip(letters, widths.items(), values, strict=True):
            layout, number_format = _layout(value, width), "General"
            if layout == "number":
                number_format = sheet.formats.get(name, "#,##0" if isinstance(value, int) else "0.00")
            below_box = starts_group and sheet.marks.get((place - 1, name)) in styles.BOXED
            ruled = starts_group and not below_box  # the rule would hide the lower side of the box
            style = named.number(styles.Look(layout, number_format, sheet.marks.get((place, name)), ruled))
            if layout == "number":
                cells.append(rows.number_element(f"{letter}{number}", style, value))
                continue
            text = UNDEFINED if layout == "undefined" else _text(value)
            cells.append(rows.text_element(f"{letter}{number}", style, text))
            if layout == "wrapped":
                height = min(max(height, _height(value, width)), HIGHEST)
        found.append(rows.row_element(number, cells, height or None))
    return found


def _layout(value: Any, width: float) -> styles.Layout:
    """How a value stands in a column of `width` characters."""
    if isinstance(value, str):
        return "wrapped" if " " in value and len(value) > width else "text"
    return "number" if value is not None and math.isfinite(value) else "undefined"


def _fill(cell: Cell, text: str) -> None:
    """Text stays text, also when it begins like a formula or reads like an error."""
    cell.value = _text(text)
    cell.data_type = "s"


def _text(text: str) -> str:
    """Without the control characters, and what is beyond the length, that the file format cannot hold."""
    return ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)[:LONGEST_TEXT]


def _set_view(page: Worksheet, sheet: Sheet, widths: dict[str, float]) -> None:
    page.freeze_panes = f"{get_column_letter(sheet.frozen + 1)}{HEADER_ROW + 1}"  # a cell would begin a row
    last = get_column_letter(len(widths) - len(sheet.shares))  # shares come last; nobody filters by one
    page.auto_filter.ref = f"A{HEADER_ROW}:{last}{HEADER_ROW + len(sheet.table)}"
    page.sheet_view.showGridLines = False
    for column, width in enumerate(widths.values(), 1):
        page.column_dimensions[get_column_letter(column)].width = width


def _set_colours(page: Worksheet, sheet: Sheet) -> None:
    letters = {name: get_column_letter(column) for column, name in enumerate(sheet.table.columns, 1)}
    first, last = HEADER_ROW + 1, HEADER_ROW + len(sheet.table)
    for name in sheet.shaded:
        if sheet.table[name].nunique() > 1:
            rule = styles.column_colours(small_is_good=name in sheet.small_is_good)
            page.conditional_formatting.add(f"{letters[name]}{first}:{letters[name]}{last}", rule)
    if sheet.shares:
        ends = [letters[name] for name in sheet.shares]
        page.conditional_formatting.add(f"{ends[0]}{first}:{ends[-1]}{last}", styles.share_colours())


def _set_print(page: Worksheet, sheet: Sheet, widths: dict[str, float], title: str) -> None:
    """Landscape, as wide as the page (two where one would be too small to read), headers and first columns on each."""
    total = sum(widths.values())
    page.page_setup.orientation = "landscape"
    page.page_setup.paperSize = A4 if total <= WIDEST_ON_A4 else A3
    page.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    page.page_setup.fitToWidth, page.page_setup.fitToHeight = math.ceil(total / WIDEST_ON_A3), 0
    page.print_title_rows = f"{HEADER_ROW}:{HEADER_ROW}"
    page.print_title_cols = f"A:{get_column_letter(sheet.frozen)}"
    page.oddFooter.left.text = _text(f"{title}: {sheet.title}")[:FOOTER_LENGTH].replace("&", "&&")
    page.oddFooter.right.text = "&P / &N"
