"""One sheet of a workbook: a table of typed numbers, and which cells are to stand out."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from common.reports.leaderboard import Leaderboard
from common.scoring.metrics import MEASURES

Mark = Literal["best", "tied", "strong", "quiet", "quoted", "alarm"]
Marks = dict[tuple[int, str], Mark]  # (row from 0, column) -> how the cell stands out

PERCENTS = {measure: f"{name} %" for measure, name in MEASURES.items()}
MEANS = {measure: f"{name} mean %" for measure, name in MEASURES.items()}
STDS = {measure: f"{name} std %" for measure, name in MEASURES.items()}

# number formats of columns that are neither a count (whole numbers) nor in percent, seconds or points (others)
IDENTIFIER, P_VALUE = "0", '[<0.0001]"< 0.0001";0.0000'
SHARE = '0.0;-0.0;"·"'  # a dot for 0, so that what is not 0 is seen


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table and how it is to be read; fonts and colours are the workbook's affair."""

    title: str
    caption: str
    table: pd.DataFrame
    frozen: int = 1
    """Columns that stay in view."""
    grouped: str | None = None
    """A rule is drawn where the value of this column changes."""
    shaded: Collection[str] = ()
    """Columns coloured from the worst to the best value."""
    small_is_good: Collection[str] = ()
    """Those of the shaded columns whose best value is the smallest."""
    shares: Collection[str] = ()
    """Columns coloured together, from 0 to 100 percent."""
    marks: Marks = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    """In characters, of columns that are not to be as wide as their content."""


def mean_std_cells(values: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Mean and std of each measure in percent, under `MEANS` and `STDS`; NaN for a measure that `values` lacks."""
    cells = {}
    for measure in MEASURES:
        mean, std = values.get(measure, (math.nan, math.nan))
        cells |= {MEANS[measure]: 100 * mean, STDS[measure]: 100 * std}
    return cells


def mark_rows(rows: Iterable[int], columns: Iterable[str], mark: Mark) -> Marks:
    """The same mark for every cell of some rows and columns."""
    columns = list(columns)
    return {(int(row), column): mark for row in rows for column in columns}


def mark_best(
    table: pd.DataFrame, columns: Iterable[str], *, by: str = "", small_is_good: Collection[str] = ()
) -> Marks:
    """The best encoder of each column, equal ones too; with `by`, among the rows that agree in that column.

    Nothing is marked where there is only one encoder.
    """
    if table["Encoder"].nunique() < 2:
        return {}
    groups = table[by] if by else np.zeros(len(table))
    marks: Marks = {}
    for column in columns:
        best = table[column].groupby(groups).transform("min" if column in small_is_good else "max")
        marks |= mark_rows(np.flatnonzero(table[column] == best), [column], "best")
    return marks


def mark_board(board: Leaderboard, *, first_row: int = 0) -> Marks:
    """The best mean of each measure, equal ones too, and the encoders that do not differ significantly from it where that could be seen.

    The encoders are in the board's order from `first_row` on; the columns are those of `MEANS`.
    """
    marks: Marks = {}
    for measure, column in MEANS.items():
        best = board.best(measure)
        if not best or len(board.names) < 2:
            continue
        letters = board.letters[measure]
        for row, name in enumerate(board.names, first_row):
            is_defined = not math.isnan(board.cells[name][measure].mean)
            if name in best:
                marks[row, column] = "best"
            elif set(letters[name]) & set(letters[best[0]]) and is_defined:
                marks[row, column] = "tied"
    return marks
