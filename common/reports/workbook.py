"""Excel workbooks: typed numbers, frozen headers, the best of a column in a box, colours from worst to best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell import Cell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.styles import Alignment, Border, Font, NamedStyle, PatternFill, Side
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from common.reports import record_sheets, sheets
from common.reports.palette import SERIES_COLOURS
from common.reports.report import Report
from common.reports.sheet import Sheet
from common.runtime import atomic_path

BUILDERS = (
    sheets.summary_sheet, sheets.folds_sheet, sheets.videos_sheet, sheets.phases_sheet, sheets.confusion_sheet,
    sheets.tests_sheet, sheets.protocols_sheet, sheets.further_sheet, record_sheets.efficiency_sheet,
    record_sheets.seeds_sheet, record_sheets.quoted_sheet, record_sheets.methods_sheet, record_sheets.runs_sheet,
    record_sheets.notes_sheet,
)  # fmt: skip
HEADER_ROW = 3  # below the title and the caption
UNDEFINED = "n/a"
NARROWEST, WIDEST = 8, 60  # characters
HEADER_LINES = 3  # that a header may take before its column becomes wider
CAPTION_WIDTH = 140  # characters of a line of the caption, where the columns are as wide
LINE_HEIGHT, ROTATED_HEIGHT = 15, 6.5  # points a line, and a character of a rotated header
A3, A4 = "8", "9"  # paper sizes as the file format numbers them
WIDEST_ON_A4 = 180  # characters across a page that can still be read

GREY, QUIET, RULE, BLACK, WHITE, ALARM = "FF767676", "FF555555", "FFBBBBBB", "FF000000", "FFFFFFFF", "FFB00020"
ORANGE, BLUE = SERIES_COLOURS[1], SERIES_COLOURS[0]
FONTS = {
    "best": Font(bold=True),
    "strong": Font(bold=True),
    "quiet": Font(color=QUIET),
    "quoted": Font(color=QUIET, italic=True),
    "alarm": Font(color=ALARM, bold=True),
    "undefined": Font(color=GREY),
}
BOXED = ("best", "tied")


def save_comparison(report: Report, path: Path) -> Path:
    """Write every sheet of a comparison that is not empty; returns `path`."""
    built = (build(report) for build in BUILDERS)
    title = f"{report.title}, protocol {report.board.protocol.name}"
    alarming = any(remark.alarming for remark in report.remarks)
    return save_workbook([sheet for sheet in built if len(sheet.table)], path, title=title, alarming=alarming)


def save_workbook(sheets: Sequence[Sheet], path: Path, *, title: str, alarming: bool = False) -> Path:
    """Write sheets atomically under one title; `alarming` sends the reader of every sheet to the notes, in red."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    workbook.properties.title = workbook.properties.subject = _text(title)
    workbook.properties.creator = "sics155-encoders"
    styles = _Styles(workbook)
    for sheet in sheets:
        page = workbook.create_sheet(sheet.title)
        widths = {name: _width(sheet, name) for name in sheet.table.columns}
        _write_heading(page, sheet, widths, title=title, alarming=alarming)
        _write_header(page, sheet, widths)
        _write_rows(page, sheet, widths, styles)
        _set_view(page, sheet, widths)
        _set_colours(page, sheet)
        _set_print(page, sheet, widths, title)
    if alarming and "notes" in workbook.sheetnames:
        workbook["notes"].sheet_properties.tabColor = ALARM
    with atomic_path(path) as temporary:
        workbook.save(temporary)
    return path


class _Styles:
    """Named styles of a workbook, each made once: to set fonts and borders cell by cell takes minutes."""

    def __init__(self, workbook: Workbook) -> None:
        self.workbook = workbook
        self.known: set[str] = set()

    def name(self, number_format: str, kind: str, *, ruled: bool, wrapped: bool) -> str:
        """The style for a mark or `undefined`, `number`, `text`; `ruled` draws a line above."""
        words = [kind, number_format, "ruled" if ruled else "", "wrapped" if wrapped else ""]
        name = " ".join(filter(None, words))
        if name not in self.known:
            self.known.add(name)
            self.workbook.add_named_style(_style(name, number_format, kind, ruled=ruled, wrapped=wrapped))
        return name


def _style(name: str, number_format: str, kind: str, *, ruled: bool, wrapped: bool) -> NamedStyle:
    box, rule = Side(style="thin", color=BLACK), Side(style="thin", color=RULE)
    border = Border(box, box, box, box) if kind in BOXED else Border(top=rule) if ruled else Border()
    horizontal = "right" if kind == "undefined" else None
    return NamedStyle(
        name,
        font=FONTS[kind] if kind in FONTS else Font(),
        border=border,
        alignment=Alignment(horizontal=horizontal, vertical="top", wrap_text=wrapped),
        number_format=number_format,
    )


def _width(sheet: Sheet, name: str) -> float:
    """Characters that show a column's values, and its header on a few lines."""
    if name in sheet.widths:
        return sheet.widths[name]
    values = sheet.table[name].dropna()
    if pd.api.types.is_float_dtype(values):
        values = values.map("{:,.2f}".format)
    shown = values.astype(str).str.len().max() if len(values) else 0
    words = [] if name in sheet.shares else [max(map(len, name.split())) + 1, len(name) / HEADER_LINES]
    return min(WIDEST, max(NARROWEST, shown + 2, *words))


def _write_heading(page: Worksheet, sheet: Sheet, widths: dict[str, float], *, title: str, alarming: bool) -> None:
    warning = ". Read the warnings in the sheet notes" if alarming else ""
    for row, text in enumerate((f"{title}: {sheet.title}{warning}", sheet.caption), 1):
        _fill(page.cell(row, 1), text)
    page["A1"].font = Font(bold=True, size=13, color=ALARM if alarming else BLACK)
    page["A2"].font = Font(color=QUIET)
    page["A2"].alignment = Alignment(wrap_text=True, vertical="top")
    across = list(itertools.accumulate(widths.values()))
    columns = next((place for place, width in enumerate(across, 1) if width >= CAPTION_WIDTH), len(across))
    page.merge_cells(start_row=2, end_row=2, start_column=1, end_column=columns)
    page.row_dimensions[2].height = LINE_HEIGHT * math.ceil(1.1 * len(sheet.caption) / across[columns - 1])


def _write_header(page: Worksheet, sheet: Sheet, widths: dict[str, float]) -> None:
    height = LINE_HEIGHT
    for column, (name, width) in enumerate(widths.items(), 1):
        cell = page.cell(HEADER_ROW, column)
        _fill(cell, name)
        rotated = name in sheet.shares
        cell.font = Font(bold=True, color=WHITE)
        cell.fill = PatternFill("solid", start_color=_argb(BLUE))
        cell.alignment = Alignment(
            "left" if column == 1 else "center", "center", text_rotation=90 if rotated else 0, wrap_text=not rotated
        )
        lines = math.ceil(1.2 * len(name) / width)
        height = max(height, ROTATED_HEIGHT * len(name) if rotated else LINE_HEIGHT * lines)
    page.row_dimensions[HEADER_ROW].height = height + LINE_HEIGHT  # the arrows of the filters need a line


def _write_rows(page: Worksheet, sheet: Sheet, widths: dict[str, float], styles: _Styles) -> None:
    ruled = _group_starts(sheet)
    for row, values in enumerate(sheet.table.astype(object).itertuples(index=False, name=None)):
        for column, (name, value) in enumerate(zip(widths, values, strict=True), 1):
            cell = page.cell(HEADER_ROW + 1 + row, column)
            _fill(cell, value)
            is_text = isinstance(value, str)
            kind = "undefined" if pd.isna(value) else sheet.marks.get((row, name)) or ("text" if is_text else "number")
            cell.style = styles.name(
                _number_format(value, name, sheet), kind, ruled=ruled[row],
                wrapped=is_text and " " in value and len(value) > widths[name],
            )  # fmt: skip


def _group_starts(sheet: Sheet) -> list[bool]:
    """For each row, whether a rule is drawn above it."""
    if sheet.grouped is None:
        return [False] * len(sheet.table)
    values = sheet.table[sheet.grouped]
    return (values != values.shift()).tolist()


def _fill(cell: Cell, value: Any) -> None:
    """A value as what it is; text stays text, also when it begins like a formula or reads like an error."""
    if isinstance(value, str):
        cell.value, cell.data_type = _text(value), "s"
    else:
        cell.value = UNDEFINED if pd.isna(value) else value


def _text(text: str) -> str:
    """Without the control characters that the file format cannot hold."""
    return ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)


def _number_format(value: Any, name: str, sheet: Sheet) -> str:
    if isinstance(value, str) or pd.isna(value):
        return "General"
    if name in sheet.formats:
        return sheet.formats[name]
    return "#,##0" if isinstance(value, int) else "0.00"


def _set_view(page: Worksheet, sheet: Sheet, widths: dict[str, float]) -> None:
    page.freeze_panes = page.cell(HEADER_ROW + 1, sheet.frozen + 1)
    page.auto_filter.ref = f"A{HEADER_ROW}:{get_column_letter(len(widths))}{HEADER_ROW + len(sheet.table)}"
    page.sheet_view.showGridLines = False
    for column, width in enumerate(widths.values(), 1):
        page.column_dimensions[get_column_letter(column)].width = width


def _set_colours(page: Worksheet, sheet: Sheet) -> None:
    names = list(sheet.table.columns)
    worst, best = _argb(ORANGE, 0.45), _argb(BLUE, 0.45)
    for name in sheet.shaded:
        if sheet.table[name].nunique() > 1:
            low, high = (best, worst) if name in sheet.small_is_good else (worst, best)
            rule = ColorScaleRule("min", None, low, "percentile", 50, WHITE, "max", None, high)
            page.conditional_formatting.add(_range(sheet, names.index(name), names.index(name)), rule)
    if sheet.shares:
        places = [names.index(name) for name in sheet.shares]
        rule = ColorScaleRule("num", 0, WHITE, "num", 20, _argb(BLUE, 0.2), "num", 100, _argb(BLUE, 0.6))
        page.conditional_formatting.add(_range(sheet, min(places), max(places)), rule)


def _range(sheet: Sheet, first: int, last: int) -> str:
    """The cells below the headers from the column numbered `first` from 0 to `last`."""
    return (
        f"{get_column_letter(first + 1)}{HEADER_ROW + 1}:{get_column_letter(last + 1)}{HEADER_ROW + len(sheet.table)}"
    )


def _argb(colour: str, share: float = 1.0) -> str:
    """`#RRGGBB` mixed with white, as the file format spells it."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "FF" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


def _set_print(page: Worksheet, sheet: Sheet, widths: dict[str, float], title: str) -> None:
    """Landscape, as wide as a page, headers and first columns on every page."""
    page.page_setup.orientation = "landscape"
    page.page_setup.paperSize = A4 if sum(widths.values()) <= WIDEST_ON_A4 else A3
    page.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    page.page_setup.fitToWidth, page.page_setup.fitToHeight = 1, 0
    page.print_title_rows = f"{HEADER_ROW}:{HEADER_ROW}"
    page.print_title_cols = f"A:{get_column_letter(sheet.frozen)}"
    page.oddFooter.left.text = f"{title}: {sheet.title}".replace("&", "&&")
    page.oddFooter.right.text = "&P / &N"
