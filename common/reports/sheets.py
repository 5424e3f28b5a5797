"""The tables of a workbook, of a comparison: typed numbers with their unit in the header, and what is to stand out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from common.further_measures import FURTHER_MEASURES, further_name, further_summary, per_phase
from common.metrics import MEASURES
from common.protocols import Protocol, methods_sentence
from common.reports.collect import EncoderResult, SplitResult
from common.reports.costs import COSTS, encoder_costs
from common.reports.leaderboard import ALPHA, HEADLINE, Leaderboard, PairTest
from common.reports.remarks import weights_source
from common.reports.report import Report

Mark = Literal["best", "tied", "strong", "quiet", "quoted", "alarm"]
Marks = dict[tuple[int, str], Mark]
"""(row from 0, column) -> how a cell stands out."""

COUNT, PLAIN, P_VALUE = "#,##0", "0", '[<0.0001]"< 0.0001";0.0000'
SHARE = '0.0;-0.0;"·"'  # a dot for 0, so that what is not 0 is seen
HASH_WIDTH = 14
PERCENTS = {measure: f"{name} %" for measure, name in MEASURES.items()}
MEANS = {measure: f"{name} mean %" for measure, name in MEASURES.items()}
SMALL_IS_GOOD = ("calibration_error", "boundary_error", "boundaries_missed")
NOTES = (
    "Row 1 of a sheet names the data set, row 2 says what the sheet holds, row 3 has the headers.",
    "Cells hold unrounded numbers. n/a is an undefined value (no probabilities, a phase that does not occur, one fold), never 0.",
    "Colours run within a column from orange (worst) over white (median) to blue (best).",
)


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
    whole_shares: Collection[str] = ()
    """Columns of one scale, from 0 to 100 percent."""
    marks: Marks = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    widths: dict[str, float] = field(default_factory=dict)


def comparison_sheets(report: Report) -> list[Sheet]:
    """The sheets of a comparison, the summary first; those that would be empty are left out."""
    builders = (
        summary_sheet, folds_sheet, videos_sheet, phases_sheet, confusion_sheet, tests_sheet, protocols_sheet,
        further_sheet, efficiency_sheet, seeds_sheet, quoted_sheet, methods_sheet, runs_sheet, notes_sheet,
    )  # fmt: skip
    return [sheet for sheet in (build(report) for build in builders) if len(sheet.table)]


def summary_sheet(report: Report) -> Sheet:
    """One row an encoder, best first: measures with spread and interval, what it costs, where its weights are from."""
    board = report.board
    table = pd.DataFrame(_summary_row(result, report) for result in board.results)
    quiet = [column for column in table if column.endswith((" std %", " low %", " high %"))]
    caption = (
        "Mean and standard deviation (ddof 1) over folds; low and high: 95 % bootstrap interval over videos. Bold in a box: "
        f"best; in a box: not significantly worse than the best (Holm p ≥ {ALPHA:g}). Tied: encoders that share a letter "
        f"do not differ significantly in {MEASURES[HEADLINE].lower()}."
    )
    marks = _marked(range(len(table)), quiet, "quiet") | _board_marks(board)
    formats = {"Seeds": PLAIN, "Feature dimension": COUNT}
    return Sheet("summary", caption, table, shaded=MEANS.values(), marks=marks, formats=formats)


def _summary_row(result: EncoderResult, report: Report) -> dict[str, Any]:
    board = report.board
    row: dict[str, Any] = {"Encoder": result.name, "Tied": board.letters[HEADLINE][result.name]}
    for measure, name in MEASURES.items():
        cell = board.cells[result.name][measure]
        row |= {MEANS[measure]: 100 * cell.mean, f"{name} std %": 100 * cell.std}
        row |= {f"{name} low %": 100 * cell.interval.low, f"{name} high %": 100 * cell.interval.high}
    costs = encoder_costs(result, report.dataset)
    seeds = sorted({split.record["seed"] for split in result.splits})
    return (
        row
        | {"Splits": len(result.splits), "Videos": len(result.scores)}
        | {cost.label.capitalize(): costs[cost.key] for cost in COSTS}
        | {"Feature dimension": result.record["config"]["features_dim"]}
        | {"Seeds": seeds[0] if len(seeds) == 1 else ", ".join(map(str, seeds)), "Weights": weights_source(result)}
    )


def _board_marks(board: Leaderboard, first_row: int = 0) -> Marks:
    """The best of each measure, and the encoders that do not differ significantly from it."""
    marks: Marks = {}
    for measure, column in MEANS.items():
        best = board.best(measure)
        if best is None or len(board.names) == 1:
            continue
        letters, means = board.letters[measure], {name: board.cells[name][measure].mean for name in board.names}
        for row, name in enumerate(board.names, first_row):
            if means[name] == means[best]:
                marks[row, column] = "best"
            elif set(letters[name]) & set(letters[best]) and not math.isnan(means[name]):
                marks[row, column] = "tied"
    return marks


def _best(table: pd.DataFrame, columns: Iterable[str], small_is_good: Collection[str] = (), by: str = "") -> Marks:
    """The best encoder of each column, equal ones too; with `by`, among the rows of each of that column's values."""
    if table["Encoder"].nunique() == 1:
        return {}
    groups = table[by] if by else np.zeros(len(table))
    marks: Marks = {}
    for column in columns:
        values = table[column].groupby(groups)
        best = values.transform("min" if column in small_is_good else "max")
        marks |= _marked(np.flatnonzero(table[column] == best), [column], "best")
    return marks


def _marked(rows: Iterable[int], columns: Collection[str], mark: Mark) -> Marks:
    return {(int(row), column): mark for row in rows for column in columns}


def _splits(report: Report) -> Iterator[tuple[EncoderResult, SplitResult]]:
    return ((result, split) for result in report.results for split in result.splits)


def _split_name(name: str) -> int | str:
    """A fold's number as a number."""
    return int(name) if name.isdecimal() else name


def folds_sheet(report: Report) -> Sheet:
    """One row an encoder and split."""
    table = pd.DataFrame(
        {
            "Encoder": result.name,
            "Split": _split_name(split.record["split"]),
            "Videos": len(split.scores),
            "Frames": sum(score.num_frames for score in split.scores.values()),
            **{PERCENTS[key]: 100 * value for key, value in split.summary(report.board.protocol).items()},
        }
        for result, split in _splits(report)
    )
    marks = _best(table, PERCENTS.values(), by="Split")
    caption = "Every split. Bold in a box: the best encoder of the split."
    return Sheet("folds", caption, table, frozen=2, grouped="Encoder", shaded=PERCENTS.values(), marks=marks)


def videos_sheet(report: Report) -> Sheet:
    """One row a protocol, encoder and video."""
    table = report.per_video.assign(Split=report.per_video["Split"].map(_split_name))
    if table["Patient"].isna().all():
        table = table.drop(columns="Patient")
    order = {board.protocol.name: place for place, board in enumerate(report.boards)}
    table = table.sort_values("Protocol", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    table = table[["Encoder", "Video", *table.columns.drop(["Encoder", "Video"])]]
    caption = "Every video, scored by a head that was not trained on it. Filter one protocol: each has all videos."
    formats = {"Seed": PLAIN}
    return Sheet(
        "videos", caption, table, frozen=2, grouped="Encoder", shaded=PERCENTS.values(), formats=formats
    )  # fmt: skip


def phases_sheet(report: Report) -> Sheet:
    """One row an encoder and phase."""
    shares = {"precision": "Precision %", "recall": "Recall %", "f1": "F1 %", "iou": "IoU %"}
    rows = []
    for result in report.results:
        found = per_phase(list(result.scores.values()))
        for phase, name in enumerate(report.mapping.names):
            counts = {"Frames": int(found["frames"][phase]), "Videos": int(found["videos"][phase])}
            row = {column: 100 * found[key][phase] for key, column in shares.items()}
            rows.append({"Encoder": result.name, "Phase": name} | row | counts)
    table = pd.DataFrame(rows)
    caption = "Each phase over all frames of all videos. Bold in a box: the best encoder for the phase."
    marks = _best(table, shares.values(), by="Phase")
    return Sheet("phases", caption, table, frozen=2, grouped="Encoder", shaded=shares.values(), marks=marks)


def confusion_sheet(report: Report) -> Sheet:
    """One block an encoder: the share of each true phase's frames that is predicted as each phase."""
    names = [f"{name} %" for name in report.mapping.names]
    rows = []
    for result in report.results:
        for true, counts in zip(report.mapping.names, result.confusion, strict=True):
            total = int(counts.sum())
            shares = 100 * counts / total if total else np.full(len(counts), np.nan)
            rows.append({"Encoder": result.name, "True phase": true, "True frames": total} | dict(zip(names, shares, strict=True)))
    marks = {(row, names[row % len(names)]): "strong" for row in range(len(rows))}
    caption = "Row: a true phase. Columns: the share of its frames, over all videos, that is predicted as each phase."
    return Sheet(
        "confusion", caption, pd.DataFrame(rows), frozen=2, grouped="Encoder", whole_shares=names, marks=marks,
        formats=dict.fromkeys(names, SHARE),
    )  # fmt: skip


def tests_sheet(report: Report) -> Sheet:
    """One row a measure and pair of encoders."""
    table = pd.DataFrame(map(_test_row, report.board.tests))
    p_values = ("p permutation", "p Holm", "p folds")
    marks = {(row, "Significant"): "strong" for row, test in enumerate(report.board.tests) if test.is_significant}
    caption = (
        "Every pair of encoders on the videos that both have. Difference: first minus second, with 95 % bootstrap interval; "
        "d: Cohen's d of the paired differences. p permutation: paired permutation test over videos; p Holm: corrected over all "
        f"pairs of a measure, significant below {ALPHA:g}; p folds: corrected resampled t-test over folds."
    )
    return Sheet("tests", caption, table, grouped="Measure", marks=marks, formats=dict.fromkeys(p_values, P_VALUE))


def _test_row(test: PairTest) -> dict[str, Any]:
    difference, standardised = test.effect.difference, test.effect.standardised
    return {
        "Measure": MEASURES[test.measure],
        "First": test.first,
        "Second": test.second,
        "Videos": test.num_videos,
        "Difference, points": 100 * difference.estimate,
        "Difference low": 100 * difference.low,
        "Difference high": 100 * difference.high,
        "d": standardised.estimate,
        "d low": standardised.low,
        "d high": standardised.high,
        "p permutation": test.p_videos,
        "p Holm": test.p_holm,
        "p folds": test.p_folds,
        "Significant": "yes" if test.is_significant else "no",
    }
