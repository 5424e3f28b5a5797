"""The measures of a comparison as sheets: encoders, splits, videos, phases, confusions, tests, protocols."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from common.head.config import FLOORS
from common.reports.comparison import Report
from common.reports.costs import COSTS
from common.reports.leaderboard import ALPHA, HEADLINE, Family, Leaderboard, PairTest
from common.reports.results import EncoderResult
from common.reports.robustness.floors import floor_rows, points_above
from common.reports.run_records import weights_source
from common.reports.text import SAVED_TITLE, standing_column
from common.reports.workbook.sheet import (
    IDENTIFIER,
    MEANS,
    P_VALUE,
    PERCENTS,
    SHARE,
    STDS,
    Sheet,
    mark_best,
    mark_board,
    mark_rows,
    mean_std_cells,
)
from common.scoring.effort import OPERATIONS, SCALES, TIME_SAVED
from common.scoring.further_measures import FURTHER_MEASURES, further_name
from common.scoring.intervals import UNDEFINED, Interval
from common.scoring.metrics import MEASURES

PHASE_SHARES = {"precision": "Precision %", "recall": "Recall %", "f1": "F1 %", "iou": "IoU %"}


def _best_or_tied(boards: Sequence[Leaderboard]) -> str:
    """What boxes of `mark_board` mean; without letters there are none for encoders near the best."""
    tied = f" In a box: not significantly worse than the best (Holm p at least {ALPHA:g})."
    some = any(board.has_letters(measure) for board in boards for measure in MEASURES)
    return "Bold in a box: best." + (tied if some and len(boards[0].names) > 1 else "")


def summary_sheet(report: Report) -> Sheet:
    """One row per encoder, best first: measures with spread and interval, what it costs, where its weights are from."""
    table = pd.DataFrame(_summary_row(result, report) for result in report.results)
    bad = [row for row, result in enumerate(report.results) if result.name in report.unlearned]
    spread = [column for column in table if column.endswith((" std %", " low %", " high %"))]
    return Sheet(
        "summary",
        "Mean and standard deviation (ddof 1) over splits; low and high: 95 % bootstrap interval over videos. "
        f"{_best_or_tied([report.board])} {report.board.separation}".rstrip(),
        table,
        shaded=MEANS.values(),
        marks=mark_rows(range(len(table)), spread, "quiet")
        | mark_board(report.board)
        | mark_rows(bad, ["Encoder"], "alarm"),
        formats={"Seed": IDENTIFIER, "p Holm": P_VALUE},
    )


def _summary_row(result: EncoderResult, report: Report) -> dict[str, Any]:
    board = report.board
    row: dict[str, Any] = {"Encoder": result.name} | _standing_cells(board, result.name)
    for measure, name in MEASURES.items():
        cell = board.cells[result.name][measure]
        row |= {MEANS[measure]: 100 * cell.mean, STDS[measure]: 100 * cell.std}
        row |= {f"{name} low %": 100 * cell.interval.low, f"{name} high %": 100 * cell.interval.high}
    costs = report.costs[result.name]
    above = points_above(result, report.floors, HEADLINE, board.protocol) if report.floors else {}
    seeds = sorted({split.record["seed"] for split in result.splits})
    return (
        row
        | {f"Above {FLOORS[kind]}, points": 100 * found for kind, found in above.items()}
        | {"Splits": len(result.splits), "Videos": len(result.scores)}
        | {label[0].upper() + label[1:]: costs[kind] for kind, label in COSTS.items()}
        | {"Feature dimension": result.record["config"]["features_dim"]}
        | {"Seed": seeds[0] if len(seeds) == 1 else ", ".join(map(str, seeds)), "Weights": weights_source(result)}
    )


def _standing_cells(board: Leaderboard, name: str) -> dict[str, Any]:
    """Who a row is told from in the headline measure, in one column or several; none where nothing could be told."""
    if board.against is None:
        column = standing_column(board)
        return {column[0]: column[1][board.names.index(name)]} if column else {}
    found = board.contrast(HEADLINE, name)
    difference = found.difference if found else UNDEFINED
    verdict = "baseline" if found is None else "yes" if found.is_significant else "not shown"
    if found and not board.families[HEADLINE].can_separate:
        verdict = board.families[HEADLINE].shortage
    return {
        f"Differs from {board.against}": verdict,
        "Difference, points": 100 * difference.estimate,
        "Difference low, points": 100 * difference.low,
        "Difference high, points": 100 * difference.high,
        "p Holm": found.p_holm if found else math.nan,
    }


def folds_sheet(report: Report) -> Sheet:
    """One row per encoder and split."""
    table = pd.DataFrame(
        {
            "Encoder": result.name,
            "Split": split_name(split.record["split"]),
            "Videos": len(split.scores),
            "Frames": sum(score.num_frames for score in split.scores.values()),
            **{column: 100 * split.value(measure, report.board.protocol) for measure, column in PERCENTS.items()},
        }
        for result in report.results
        for split in result.splits
    )
    return Sheet(
        "folds",
        "Every split. Bold in a box: the best encoder of the split.",
        table,
        frozen=2,
        grouped="Encoder",
        shaded=PERCENTS.values(),
        marks=mark_best(table, PERCENTS.values(), by="Split"),
    )


def split_name(name: str) -> int | str:
    """A fold's number as a number, `val` as it is."""
    return int(name) if name.isdecimal() else name


def videos_sheet(report: Report) -> Sheet:
    """One row per protocol, encoder and video, under the headline protocol first."""
    table = report.per_video.assign(Split=report.per_video["Split"].map(split_name))
    table = table.drop(columns=["Patient"] if table["Patient"].isna().all() else [])
    order = {board.protocol.name: place for place, board in enumerate(report.boards)}
    table = table.sort_values("Protocol", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return Sheet(
        "videos",
        "Every video, scored by a head that was not trained on it. Each protocol has a row for each: filter one.",
        table[["Encoder", "Video", *table.columns.drop(["Encoder", "Video"])]],
        frozen=2,
        grouped="Encoder",
        shaded=PERCENTS.values(),
        formats={"Seed": IDENTIFIER},
    )


def phases_sheet(report: Report) -> Sheet:
    """One row per encoder and phase."""
    rows = []
    for result in report.results:
        found = result.phase_scores
        for phase, name in enumerate(report.mapping.names):
            row = {"Encoder": result.name, "Phase": name}
            row |= {column: 100 * found[key][phase] for key, column in PHASE_SHARES.items()}
            rows.append(row | {"True frames": int(found["frames"][phase]), "Videos": int(found["videos"][phase])})
    table = pd.DataFrame(rows)
    return Sheet(
        "phases",
        "Each phase over the frames of all videos. Bold in a box: the best encoder for the phase.",
        table,
        frozen=2,
        grouped="Encoder",
        shaded=PHASE_SHARES.values(),
        marks=mark_best(table, PHASE_SHARES.values(), by="Phase"),
    )


def confusion_sheet(report: Report) -> Sheet:
    """One block per encoder: the share of each true phase's frames that is predicted as each phase."""
    names = [f"{name} %" for name in report.mapping.names]
    rows = []
    for result in report.results:
        frames = result.confusion.sum(axis=1).tolist()
        for true, total, shares in zip(report.mapping.names, frames, result.confusion_percents, strict=True):
            row = {"Encoder": result.name, "True phase": true, "True frames": total}
            rows.append(row | dict(zip(names, shares, strict=True)))
    return Sheet(
        "confusion",
        "A row is a true phase; columns: the share of its frames, over all videos, that is predicted as each phase. "
        "Bold: correct.",
        pd.DataFrame(rows),
        frozen=2,
        grouped="Encoder",
        shares=names,
        marks={(row, names[row % len(names)]): "strong" for row in range(len(rows))},
        formats=dict.fromkeys(names, SHARE),
    )


def tests_sheet(report: Report) -> Sheet:
    """One row per measure and pair of encoders, the time saved among the measures."""
    board, tests = report.board, report.board.tests
    families = board.families
    if report.savings:
        tests, families = tests + report.savings.tests, families | {TIME_SAVED: report.savings.family}
    return Sheet(
        "tests",
        f"Every pair of encoders{f' with {board.against}' if board.against else ''} on the videos that both have. "
        "Difference: first minus second, with 95 % bootstrap interval. "
        "d: mean / standard deviation of the paired differences. p permutation: over videos. "
        f"p Holm: corrected over all these pairs of the measure, significant below {ALPHA:g}. "
        f"p folds: corrected resampled t-test over folds. {board.separation}".rstrip(),
        pd.DataFrame(_test_row(test, families[test.measure]) for test in tests),
        grouped="Measure",
        marks={(row, "Significant"): "strong" for row, test in enumerate(tests) if test.is_significant},
        formats=dict.fromkeys(("p permutation", "p Holm", "Smallest p Holm", "p folds"), P_VALUE),
    )


def _test_row(test: PairTest, family: Family) -> dict[str, Any]:
    difference, standardised = test.effect.difference, test.effect.standardised
    return {
        "Measure": (MEASURES | {TIME_SAVED: SAVED_TITLE})[test.measure],
        "First": test.first,
        "Second": test.second,
        "Videos": test.num_videos,
        "Difference, points": 100 * difference.estimate,
        "Difference low, points": 100 * difference.low,
        "Difference high, points": 100 * difference.high,
        "d": standardised.estimate,
        "d low": standardised.low,
        "d high": standardised.high,
        "p permutation": test.p_videos,
        "p Holm": test.p_holm,
        "Smallest p Holm": family.smallest_p,
        "p folds": test.p_folds,
        "Significant": "yes" if test.is_significant else "no" if family.can_separate else family.shortage,
    }


def protocols_sheet(report: Report) -> Sheet:
    """One row per protocol and encoder."""
    rows: list[dict[str, Any]] = []
    marks = {}
    for board in report.boards:
        marks |= mark_board(board, first_row=len(rows))
        for rank, name in enumerate(board.names, 1):
            values = {measure: (cell.mean, cell.std) for measure, cell in board.cells[name].items()}
            rows.append({"Protocol": board.protocol.name, "Encoder": name, "Rank": rank} | mean_std_cells(values))
    return Sheet(
        "protocols",
        "The same predictions under every protocol (sheet methods): mean and standard deviation over splits. "
        f"{_best_or_tied(report.boards)}",
        pd.DataFrame(rows),
        frozen=2,
        grouped="Protocol",
        shaded=MEANS.values(),
        marks=marks,
    )


def further_sheet(report: Report) -> Sheet:
    """One row per encoder: the measures beside the eight."""
    columns = {key: f"{further_name(key)}, {measure.unit}" for key, measure in FURTHER_MEASURES.items()}
    rows = []
    for result in report.results:
        scaled = {
            columns[key]: value * (100 if FURTHER_MEASURES[key].unit == "%" else 1)
            for key, value in result.further.items()
        }
        rows.append({"Encoder": result.name} | scaled)
    table = pd.DataFrame(rows)
    small = [columns[key] for key, measure in FURTHER_MEASURES.items() if measure.lower_is_better]
    return Sheet(
        "further",
        "Measures beside the eight, over all videos. Bold in a box: best.",
        table,
        shaded=columns.values(),
        small_is_good=small,
        marks=mark_best(table, columns.values(), small_is_good=small),
    )


def saving_sheet(report: Report) -> Sheet:
    """One row per encoder: what a person has to do to its predictions, and the labelling time that they save."""
    rows = [
        {"Encoder": row.name, "Videos": row.num_videos, "Hours of video": row.hours}
        | {f"{kind.capitalize()}, 1/h": row.counts[kind] for kind in OPERATIONS}
        | {"Operations, 1/h": row.operations, "From nothing, 1/h": row.inserts_from_nothing}
        | {"Minutes, 1/h": row.minutes, "Minutes from nothing, 1/h": row.minutes_from_nothing}
        | saved_cells(row.shares)
        for row in (report.savings.rows if report.savings else ())
    ]
    table = pd.DataFrame(rows)
    small = [column for column in table if column in ("Operations, 1/h", "Minutes, 1/h")]
    saved = [column for column in table if column == f"{SAVED_TITLE} %"]
    return Sheet(
        "saving",
        f"What correcting predictions takes, an hour of video. {report.savings.rule.sentence} half, double: the same under half and "
        "double the costs of an operation. low, high: 95 % bootstrap interval over videos. Bold in a box: best."
        if report.savings
        else "",
        table,
        shaded=[*small, *saved],
        small_is_good=small,
        marks=mark_best(table, [*small, *saved], small_is_good=small) if rows else {},
    )


def saved_cells(shares: Mapping[str, Interval]) -> dict[str, float]:
    """The time saved in percent, by the costs of an operation, with its interval."""
    cells = {}
    for scale in sorted(SCALES, key=lambda scale: scale != "as stated"):
        title = SAVED_TITLE if scale == "as stated" else f"{SAVED_TITLE}, {scale},"
        found = shares[scale]
        cells |= {f"{title} %": 100 * found.estimate, f"{title} low %": 100 * found.low}
        cells |= {f"{title} high %": 100 * found.high}
    return cells


def floors_sheet(report: Report) -> Sheet:
    """One row per floor, then one per encoder above it."""
    rows: list[dict[str, Any]] = []
    for floor in floor_rows(report):
        values = {
            m: (floor.result.mean(m, report.board.protocol), floor.result.std(m, report.board.protocol))
            for m in MEASURES
        }
        rows.append({"Floor": floor.title, "Above it": None} | mean_std_cells(values))
        for result in floor.above:
            above = {m: (floor.points(result, m, report.board.protocol), math.nan) for m in MEASURES}
            rows.append({"Floor": floor.title, "Above it": result.name} | mean_std_cells(above))
    return Sheet(
        "floors",
        "What every head must beat: the majority class of the training part, and a logistic regression of single, standardised frames "
        "(linear probe). Below each, how far above it an encoder is, in points.",
        pd.DataFrame(rows),
        frozen=2,
        grouped="Floor",
        marks=mark_rows((place for place, row in enumerate(rows) if row["Above it"] is None), ["Floor"], "strong"),
    )


def holds_sheet(report: Report) -> Sheet:
    """Encoders under each setting of the head, and how much the order of the encoders agrees with the first setting's."""
    holds, rows = report.holding, []
    for condition in holds.conditions if holds else ():
        ranks, tau = holds.ranks(report.board), holds.tau(holds.conditions[0].label, condition.label)
        for encoder in holds.encoders:
            if (row := holds.rows.get((encoder, condition.label))) is None:
                continue
            cell = report.board.cells[row][HEADLINE]
            rows.append(
                {
                    "Setting": condition.label,
                    "Encoder": encoder,
                    "Rank": ranks[encoder, condition.label],
                    MEANS[HEADLINE]: 100 * cell.mean,
                    STDS[HEADLINE]: 100 * cell.std,
                    "Low %": 100 * cell.interval.low,
                    "High %": 100 * cell.interval.high,
                    "tau": tau.estimate,
                    "tau low": tau.low,
                    "tau high": tau.high,
                }
            )
    return Sheet(
        "holds",
        " ".join(map(str, holds.remarks if holds else ()))
        + " tau: Kendall's rank correlation of the order of the encoders with that under the first setting, with its 95 % interval over "
        "videos; of fewer than three encoders there is none.",
        pd.DataFrame(rows),
        frozen=2,
        grouped="Setting",
        shaded=[MEANS[HEADLINE]],
    )


BUILDERS = (
    summary_sheet,
    holds_sheet,
    floors_sheet,
    folds_sheet,
    videos_sheet,
    phases_sheet,
    confusion_sheet,
    tests_sheet,
    protocols_sheet,
    further_sheet,
    saving_sheet,
)
