"""The look of a workbook's cells: fonts, boxes, rules, colours from worst to best."""

from typing import Literal, NamedTuple

from openpyxl import Workbook
from openpyxl.cell import Cell
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.styles import Alignment, Border, Font, NamedStyle, PatternFill, Side

from common.reports.pictures import style as palette
from common.reports.workbook.sheet import Mark

Layout = Literal["number", "text", "wrapped", "undefined"]

FONT = "Calibri"
GREY, RULE, BLACK, WHITE = "FF767676", "FFBBBBBB", "FF000000", "FFFFFFFF"
QUIET, ALARM = (f"FF{colour[1:]}" for colour in (palette.QUIET, palette.ALARM))
BLUE, ORANGE = palette.SERIES_COLOURS[:2]
MARK_FONTS: dict[Mark, Font] = {
    "best": Font(FONT, bold=True),
    "tied": Font(FONT),
    "strong": Font(FONT, bold=True),
    "quiet": Font(FONT, color=QUIET),
    "quoted": Font(FONT, color=QUIET, italic=True),
    "alarm": Font(FONT, color=ALARM, bold=True),
}
BOXED: tuple[Mark, ...] = ("best", "tied")
ALIGNMENTS: dict[Layout, Alignment] = {
    "number": Alignment(vertical="top"),
    "text": Alignment("left", "top", indent=1),
    "wrapped": Alignment("left", "top", indent=1, wrap_text=True),
    "undefined": Alignment("right", "top"),
}


class Look(NamedTuple):
    """Everything that a cell's style depends on; `ruled` draws a line above."""

    layout: Layout
    number_format: str = "General"
    mark: Mark | None = None
    ruled: bool = False


class Styles:
    """The named styles of a workbook, each made once: fonts and borders set cell by cell take many times as long."""

    def __init__(self, workbook: Workbook) -> None:
        self._workbook = workbook
        self._numbers: dict[Look, int] = {}

    def number(self, look: Look) -> int:
        """The number of the style of a look, by which cells name it."""
        if look not in self._numbers:
            name = f"report {len(self._numbers) + 1}"
            self._workbook.add_named_style(_style(name, look))
            cell = Cell(self._workbook.worksheets[0])  # in none of its rows
            cell.style = name
            self._numbers[look] = cell.style_id
        return self._numbers[look]


def _style(name: str, look: Look) -> NamedStyle:
    plain = Font(FONT, color=GREY if look.layout == "undefined" else BLACK)
    box, rule = Side(style="thin", color=BLACK), Side(style="thin", color=RULE)
    return NamedStyle(
        name,
        font=MARK_FONTS[look.mark] if look.mark else plain,
        border=Border(box, box, box, box) if look.mark in BOXED else Border(top=rule if look.ruled else None),
        alignment=ALIGNMENTS[look.layout],
        number_format=look.number_format,
    )


def column_colours(*, small_is_good: bool) -> ColorScaleRule:
    """Orange, white, blue over a column's smallest, median and largest number, or the other way round."""
    low, high = _argb(ORANGE, 0.45), _argb(BLUE, 0.45)
    low, high = (high, low) if small_is_good else (low, high)
    return ColorScaleRule("min", None, low, "percentile", 50, WHITE, "max", None, high)


def share_colours() -> ColorScaleRule:
    """White to blue over 0 to 100 percent, steeper for small shares."""
    return ColorScaleRule("num", 0, WHITE, "num", 20, _argb(BLUE, 0.2), "num", 100, _argb(BLUE, 0.6))


def _argb(colour: str, share: float = 1.0) -> str:
    """`#RRGGBB` mixed with white, as the file format spells it."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "FF" + "".join(f"{round(255 - share * (255 - part)):02X}" for part in parts)


HEADER_FILL = PatternFill("solid", start_color=_argb(BLUE))
