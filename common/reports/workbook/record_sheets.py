"""Sheets of what stands beside the measures: label efficiency, seeds, quoted rows, methods, run records, notes."""

import math

import pandas as pd

from common.reports.chart_data import WAITING_MEASURES
from common.reports.comparison import Report
from common.reports.leaderboard import HEADLINE
from common.reports.run_records import run_row
from common.reports.text import SAVED_TITLE
from common.reports.workbook.measure_sheets import saved_cells, split_name
from common.reports.workbook.sheet import IDENTIFIER, MEANS, Sheet, mark_rows, mean_std_cells
from common.scoring.metrics import MEASURES
from common.scoring.protocols import methods_sentence

HASH_WIDTH = 16  # the rest of a hash is in the cell, behind its neighbour
TEXT_WIDTH = 110
ON_THE_PAGE_ONLY = ["Training videos", "Test videos", "Epochs", "Device", "Head parameters"]  # of a run's row
READING = (
    "Row 1 of a sheet names the data set, row 2 says what the sheet holds, row 3 has the headers.",
    "Cells hold unrounded numbers. n/a is an undefined value (no probabilities, a phase that does not occur, a single "
    "fold), never 0.",
    "Colours run within a column from orange (worst) over white (median) to blue (best).",
)


def efficiency_sheet(report: Report) -> Sheet:
    """One row per encoder and share of the training videos."""
    table = pd.DataFrame(
        {"Encoder": name, "Training videos, share %": 100 * point.fraction, "Training videos": point.num_videos}
        | mean_std_cells(point.values)
        | (saved_cells(point.saved) if report.pays else {})
        for name, points in report.efficiency.items()
        for point in points
    )
    return Sheet(
        "efficiency",
        "Heads trained on a share of the training videos and scored on the same test videos: "
        f"mean and standard deviation over splits. {' '.join(report.pays)}".rstrip(),
        table,
        grouped="Encoder",
        shaded=MEANS.values(),
        formats={"Training videos": "0.0"},
    )


def acquisition_sheet(report: Report) -> Sheet:
    """One row per encoder, rule and round of a trial of what to label next."""
    table = pd.DataFrame(
        {"Encoder": trial.name, "Rule": rule, "Round": number, "Labelled videos": trial.num_videos[number - 1]}
        | {f"{MEASURES[HEADLINE]} %": 100 * cell.estimate, "Low %": 100 * cell.low, "High %": 100 * cell.high}
        | {f"{SAVED_TITLE} %": 100 * saved.estimate}
        | {f"{SAVED_TITLE} low %": 100 * saved.low, f"{SAVED_TITLE} high %": 100 * saved.high}
        for trial in report.trials
        for rule, cells in trial.accuracy.items()
        for number, (cell, saved) in enumerate(zip(cells, trial.saved[rule], strict=True), 1)
    )
    return Sheet(
        "label next",
        f"{' '.join(trial.sentence for trial in report.trials)} Low, high: 95 % bootstrap interval over folds and draws.",
        table,
        frozen=2,
        grouped="Rule",
        shaded=[f"{MEASURES[HEADLINE]} %"],
    )


def spacing_sheet(report: Report) -> Sheet:
    """One row per run of an encoder that has windows of several lengths in time."""
    table = pd.DataFrame(
        {
            "Encoder": name,
            "Run": point.name,
            "Recipe": point.window.recipe,
            "Frames": point.window.clip_len,
            "Between frames, s": point.window.spacing,
            "The frame is": "last" if point.window.ends_with_frame else "in the middle",
            "Spanned, s": point.window.seconds,
        }
        | {f"{title} %": 100 * point.cells[measure].mean for measure, title in MEASURES.items()}
        | {
            "Accuracy, interval low %": 100 * point.cells["accuracy"].interval.low,
            "Accuracy, interval high %": 100 * point.cells["accuracy"].interval.high,
        }
        for name, points in report.spacing.items()
        for point in points
    )
    return Sheet(
        "spacing",
        "Runs of one encoder that differ in the windows of their features alone, by the seconds that a window spans: "
        "means over splits, and of accuracy the 95 % interval over videos.",
        table,
        grouped="Encoder",
        formats={"Between frames, s": "0.000", "Spanned, s": "0.00"},
    )


def waiting_sheet(report: Report) -> Sheet:
    """One row per run of an encoder whose heads may wait for several times."""
    table = pd.DataFrame(
        {"Encoder": name, "Run": point.name, "Delay": point.label}
        | {
            column: 100 * value
            for measure in WAITING_MEASURES
            for column, value in (
                (f"{MEASURES[measure]} %", point.cells[measure].mean),
                (f"{MEASURES[measure]}, interval low %", point.cells[measure].interval.low),
                (f"{MEASURES[measure]}, interval high %", point.cells[measure].interval.high),
            )
        }
        for name, points in report.waiting.items()
        for point in points
    )
    return Sheet(
        "waiting",
        "What waiting is worth: runs of one encoder and head that differ in the seconds alone which an answer waits for what follows, "
        "those that its features have seen included. Means over splits with 95 % intervals over videos.",
        table,
        grouped="Encoder",
    )


def seeds_sheet(report: Report) -> Sheet:
    """One row per encoder and measure: the spread that comes from folds, from seeds and from both together."""
    table = pd.DataFrame(
        {
            "Encoder": found.encoder,
            "Measure": MEASURES[found.measure],
            "Seeds": ", ".join(map(str, found.seeds)),
            "Folds, std in points": 100 * math.sqrt(found.components.fold),
            "Seeds, std in points": 100 * math.sqrt(found.components.seed),
            "Rest, std in points": 100 * math.sqrt(found.components.residual),
        }
        for found in report.seed_variance
    )
    return Sheet(
        "seeds",
        "How far the same head moves between folds and between seeds, in percentage points (variance components).",
        table,
        grouped="Encoder",
    )


def quoted_sheet(report: Report) -> Sheet:
    """One row per published row; nothing without them."""
    table = pd.DataFrame(
        {"Encoder": row.label, "Model": row.model} | mean_std_cells(row.values) | {"Source": row.source}
        for row in report.published
    )
    return Sheet(
        "quoted",
        "Quoted from the named sources, not computed here; they may follow another protocol.",
        table,
        marks=mark_rows(range(len(table)), table.columns, "quoted"),
    )


def methods_sheet(report: Report) -> Sheet:
    """One row per protocol: how its numbers are taken, in words for a paper."""
    table = pd.DataFrame(
        {
            "Protocol": board.protocol.name,
            "Origin": board.protocol.origin,
            "Methods": methods_sentence(board.protocol, report.mapping.background),
        }
        for board in report.boards
    )
    return Sheet(
        "methods",
        "How measures are taken under each protocol; the first is that of the other sheets.",
        table,
        widths={"Methods": TEXT_WIDTH},
    )


def runs_sheet(report: Report) -> Sheet:
    """One row per encoder and split: what identifies the run, and what it took."""
    table = pd.DataFrame(run_row(result, split) for result in report.results for split in result.splits)
    table = table.assign(Split=table["Split"].map(split_name)).drop(columns=ON_THE_PAGE_ONLY)
    hashes = [column for column in table if column.endswith(("SHA-256", "hash", "Commit"))]
    return Sheet(
        "runs",
        "What identifies each run, and what it took. Hashes are whole in the cell.",
        table,
        frozen=2,
        grouped="Encoder",
        formats={"Seed": IDENTIFIER, "Train seconds": "0.0", "Predict seconds": "0.0"},
        widths=dict.fromkeys(hashes, HASH_WIDTH),
    )


def notes_sheet(report: Report) -> Sheet:
    """Remarks that a reader must know, warnings first, and how to read the workbook."""
    remarks = sorted(report.remarks, key=lambda remark: not remark.alarming)
    rows = [{"Kind": "warning" if remark.alarming else "remark", "Note": str(remark)} for remark in remarks]
    rows += [{"Kind": "how to read", "Note": line} for line in READING]
    table = pd.DataFrame(rows)
    alarming = [row for row, remark in enumerate(remarks) if remark.alarming]
    return Sheet(
        "notes",
        "What to know before believing the numbers.",
        table,
        marks=mark_rows(alarming, table.columns, "alarm"),
        widths={"Note": TEXT_WIDTH},
    )


BUILDERS = (
    efficiency_sheet,
    acquisition_sheet,
    spacing_sheet,
    waiting_sheet,
    seeds_sheet,
    quoted_sheet,
    methods_sheet,
    runs_sheet,
    notes_sheet,
)
