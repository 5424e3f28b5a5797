"""What stands beside the measures, as sheets: label efficiency, seeds, quoted rows, methods, run records, notes."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from common.reports.comparison import Report
from common.reports.results import EncoderResult, SplitResult
from common.reports.workbook.measure_sheets import split_name
from common.reports.workbook.sheet import IDENTIFIER, MEANS, STDS, Sheet, mark_rows
from common.scoring.metrics import MEASURES
from common.scoring.protocols import methods_sentence

HASH_WIDTH = 16  # the rest of a hash is in the cell, behind its neighbour
TEXT_WIDTH = 110
READING = (
    "Row 1 of a sheet names the data set, row 2 says what the sheet holds, row 3 has the headers.",
    "Cells hold unrounded numbers. n/a is an undefined value (no probabilities, a phase that does not occur, a single "
    "fold), never 0.",
    "Colours run within a column from orange (worst) over white (median) to blue (best).",
)


def efficiency_sheet(report: Report) -> Sheet:
    """One row an encoder and share of the training videos."""
    table = pd.DataFrame(
        {"Encoder": name, "Training videos, share %": 100 * point.fraction, "Training videos": point.num_videos}
        | _percents(point.values)
        for name, points in report.efficiency.items()
        for point in points
    )
    return Sheet(
        "efficiency",
        "Heads trained on a share of the training videos and scored on the same test videos: mean and standard deviation over splits.",
        table,
        grouped="Encoder",
        shaded=MEANS.values(),
        formats={"Training videos": "0.0"},
    )


def _percents(values: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean and standard deviation of each measure in percent; NaN for one that `values` lacks."""
    row = {}
    for measure in MEASURES:
        mean, std = values.get(measure, (math.nan, math.nan))
        row |= {MEANS[measure]: 100 * mean, STDS[measure]: 100 * std}
    return row


def seeds_sheet(report: Report) -> Sheet:
    """One row an encoder and measure: the spread that comes from folds, from seeds and from both together."""
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
    """One row a published row; nothing without them."""
    table = pd.DataFrame(
        {"Encoder": row.label, "Model": row.model} | _percents(row.values) | {"Source": row.source}
        for row in report.published
    )
    return Sheet(
        "quoted",
        "Quoted from the named sources, not computed here; they may follow another protocol.",
        table,
        marks=mark_rows(range(len(table)), table.columns, "quoted"),
    )


def methods_sheet(report: Report) -> Sheet:
    """One row a protocol: how its numbers are taken, in words for a paper."""
    table = pd.DataFrame(
        {
            "Protocol": board.protocol.name,
            "Origin": board.protocol.origin,
            "Methods": methods_sentence(board.protocol),
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
    """One row an encoder and split: what identifies the run, and what it took."""
    table = pd.DataFrame(_run_row(result, split) for result in report.results for split in result.splits)
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


def _run_row(result: EncoderResult, split: SplitResult) -> dict[str, Any]:
    record = split.record
    identity = record["features"]["identity"] or {}
    weights = identity.get("weights") or {}
    adapter = weights.get("adapter") or {}
    memory = record.get("peak_memory_bytes")
    return {
        "Encoder": result.name,
        "Split": split_name(record["split"]),
        "Seed": record["seed"],
        "Weights": weights.get("source"),
        "Weights SHA-256": weights.get("sha256"),
        "Adapter": adapter.get("source"),
        "Adapter SHA-256": adapter.get("sha256"),
        "Random weights": _yes_or_no(record["features"]["random_weights"]),
        "Folds hash": record["folds_hash"],
        "Test inputs hash": record["test_inputs_hash"],
        "Commit": record["git"]["commit"],
        "Uncommitted changes": _yes_or_no(record["git"]["dirty"]),
        "Train seconds": record["train_seconds"],
        "Predict seconds": record.get("predict_seconds"),
        "Peak memory GB": memory / 1e9 if memory else None,
        "Threads": record["num_threads"],
    } | {f"Version of {package}": version for package, version in record["versions"].items()}


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def notes_sheet(report: Report) -> Sheet:
    """What a reader must know, warnings first, and how to read the workbook."""
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
