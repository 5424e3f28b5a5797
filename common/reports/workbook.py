"""Excel workbooks: typed numbers, frozen headers, the best value of a column marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from common.metrics import MEASURES
from common.reports.collect import EncoderResult
from common.runtime import atomic_path

HEADER_FILL = PatternFill("solid", start_color="FF1F4E79")
BEST_FILL = PatternFill("solid", start_color="FFDDEBF7")
NUMBER_FORMAT = "0.00"
WIDEST_COLUMN = 60
MEAN, STD = "{} mean %", "{} std %"
VIDEO_MEASURES = ("accuracy", "f1_macro", "edit", "pr_auc", "miou")  # those that one video has


def save_comparison(results: Sequence[EncoderResult], lines: Sequence[str], path: Path) -> Path:
    """The workbook of a comparison: means, splits, videos, run records, and what a reader must know."""
    sheets = {
        "comparison": comparison_table(results),
        "splits": splits_table(results),
        "videos": videos_table(results),
        "runs": runs_table(results),
        "notes": pd.DataFrame({"Notes": list(lines)}),
    }
    return save_workbook(sheets, path, mark_best={"comparison": [MEAN.format(name) for name in MEASURES.values()]})


def save_workbook(
    sheets: dict[str, pd.DataFrame], path: Path, *, mark_best: dict[str, list[str]] | None = None
) -> Path:
    """Write one sheet for each table, atomically. `mark_best` names the columns of a sheet whose largest number stands out."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    for title, table in sheets.items():
        _fill(workbook.create_sheet(title), table)
        _mark_best(workbook[title], table, (mark_best or {}).get(title, []))
    with atomic_path(path) as temporary:
        workbook.save(temporary)
    return path


def _fill(sheet: Worksheet, table: pd.DataFrame) -> None:
    sheet.append(list(table.columns))
    for row in table.astype(object).itertuples(index=False):
        sheet.append(["n/a" if value is not None and pd.isna(value) else value for value in row])
    for cell in sheet[1]:
        cell.font = Font(bold=True, color="FFFFFFFF")
        cell.fill = HEADER_FILL
        cell.alignment = Alignment(horizontal="center", vertical="center", wrap_text=True)
    sheet.freeze_panes = "B2"
    for index, cells in enumerate(sheet.iter_cols(min_row=2), 1):
        widest = len(str(table.columns[index - 1])) / 2  # headers wrap
        for cell in cells:
            if isinstance(cell.value, float):
                cell.number_format = NUMBER_FORMAT
            shown = f"{cell.value:.2f}" if isinstance(cell.value, float) else str(cell.value)
            widest = max(widest, len(shown))
        sheet.column_dimensions[get_column_letter(index)].width = min(WIDEST_COLUMN, widest + 4)


def _mark_best(sheet: Worksheet, table: pd.DataFrame, columns: list[str]) -> None:
    for name in columns:
        if table[name].notna().any():
            cell = sheet.cell(row=int(table[name].argmax()) + 2, column=table.columns.get_loc(name) + 1)
            cell.font, cell.fill = Font(bold=True), BEST_FILL


def comparison_table(results: Sequence[EncoderResult]) -> pd.DataFrame:
    """One row an encoder: mean and standard deviation over splits of every measure, in percent."""
    rows = []
    for result in results:
        row: dict[str, object] = {"Encoder": result.name, "Splits": len(result.splits)}
        for key, name in MEASURES.items():
            row |= {MEAN.format(name): 100 * result.mean(key), STD.format(name): 100 * result.std(key)}
        rows.append(row)
    return pd.DataFrame(rows)


def splits_table(results: Sequence[EncoderResult]) -> pd.DataFrame:
    """One row an encoder and split: every measure in percent."""
    return pd.DataFrame(
        {"Encoder": result.name, "Split": split.record["split"], "Videos": len(split.scores)}
        | {f"{name} %": 100 * split.summary[key] for key, name in MEASURES.items()}
        for result in results
        for split in result.splits
    )


def videos_table(results: Sequence[EncoderResult]) -> pd.DataFrame:
    """One row an encoder and video: the measures that a single video has, in percent."""
    return pd.DataFrame(
        {"Encoder": result.name, "Split": split.record["split"], "Video": video, "Frames": score.num_frames}
        | {f"{MEASURES[key]} %": 100 * getattr(score, key) for key in VIDEO_MEASURES}
        for result in results
        for split in result.splits
        for video, score in split.scores.items()
    )


def runs_table(results: Sequence[EncoderResult]) -> pd.DataFrame:
    """One row an encoder and split: what identifies the run."""
    rows = []
    for result in results:
        for split in result.splits:
            record = split.record
            weights = (record["features"]["identity"] or {}).get("weights") or {}
            rows.append(
                {
                    "Encoder": result.name,
                    "Split": record["split"],
                    "Seed": record["seed"],
                    "Weights": weights.get("source"),
                    "Weights SHA-256": weights.get("sha256"),
                    "Folds hash": record["folds_hash"],
                    "Train seconds": record["train_seconds"],
                    "Commit": record["git"]["commit"],
                    "Uncommitted changes": record["git"]["dirty"],
                }
            )
    return pd.DataFrame(rows)
