"""Comparison tables as text."""

import math
from collections.abc import Sequence

from common.base import paths
from common.base.runtime import counted
from common.base.wording import format_table
from common.head.config import FLOORS
from common.reports.caveats import data_remarks, remarks
from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.results import EncoderResult, Floors
from common.reports.robustness.floors import points_above
from common.scoring.effort import saving
from common.scoring.intervals import Interval
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE, Protocol

SAVED_TITLE = "Time saved"
BRIEF_MEASURES = ("accuracy", "f1_macro", "edit")


def percent(mean: float, std: float = float("nan")) -> str:
    """A fraction as percent with two decimals, with its spread where there is one; `n/a` where undefined."""
    if math.isnan(mean):
        return "n/a"
    return f"{100 * mean:.2f}" if math.isnan(std) else f"{100 * mean:.2f} ± {100 * std:.2f}"


def interval_text(interval: Interval, digits: int = 1) -> str:
    """An interval in percent; `n/a` where undefined."""
    if math.isnan(interval.low):
        return "n/a"
    return f"{100 * interval.low:.{digits}f} to {100 * interval.high:.{digits}f}"


def comparison_rows(results: Sequence[EncoderResult], protocol: Protocol = CHALLENGE) -> list[list[str]]:
    """Header and one row per encoder: name, then every measure, and the labelling time saved where that is known."""
    header = ["Encoder", *MEASURES.values()]
    rows = [[r.name, *(percent(r.mean(key, protocol), r.std(key, protocol)) for key in MEASURES)] for r in results]
    if any(not math.isnan(result.time_saved) for result in results):
        header.append(SAVED_TITLE)
        rows = [[*row, percent(result.time_saved)] for row, result in zip(rows, results, strict=True)]
    return [header, *rows]


def leaderboard_rows(board: Leaderboard, floors: Floors | None = None) -> list[list[str]]:
    """Header and one row per encoder: name, who it is told from (`standing_column`) where that is known, every measure.

    With `floors`, how far it is above each of them in the headline measure.
    """
    table = comparison_rows(board.results, board.protocol)
    if (column := standing_column(board)) is not None:
        title, cells = column
        table = [[row[0], cell, *row[1:]] for row, cell in zip(table, [title, *cells], strict=True)]
    if floors:
        table[0] += [f"Above {title}" for title in FLOORS.values()]
        for row, result in zip(table[1:], board.results, strict=True):
            row += map(points, points_above(result, floors, HEADLINE, board.protocol).values())
    return table


def standing_column(board: Leaderboard) -> tuple[str, list[str]] | None:
    """Title and a cell per row, in the headline measure: letters of ties, or what tells a row from the baseline.

    None where there is a single row, and where the tests could not have told rows apart.
    """
    if board.against is not None:
        return f"Against {board.against}", [contrast_text(board, HEADLINE, name) for name in board.names]
    if len(board.names) > 1 and board.has_letters(HEADLINE):
        return "Tied", [board.letters[HEADLINE][name] for name in board.names]
    return None


def contrast_text(board: Leaderboard, measure: str, name: str) -> str:
    """`differs: +3.1 (1.0 to 5.2), p 0.0041`: the `contrast_parts` in a line."""
    verdict, *numbers = contrast_parts(board, measure, name)
    return ": ".join(filter(None, [verdict, ", ".join(numbers)]))


def contrast_parts(board: Leaderboard, measure: str, name: str) -> list[str]:
    """The verdict on a row, the row less the baseline in points with its 95 % interval, p after Holm.

    `baseline` alone for that row; an empty verdict where the tests could not have shown a difference.
    """
    found = board.contrast(measure, name)
    if found is None:
        return ["baseline"]
    if math.isnan(found.p_holm):
        return ["n/a"]
    verdict = "differs" if found.is_significant else "no difference shown"
    return [
        verdict if board.families[measure].can_separate else "",
        f"{points(found.difference.estimate)} ({interval_text(found.difference)})",
        f"p {p_value(found.p_holm)}",
    ]


def p_value(p: float) -> str:
    """Four decimals; `n/a` where there is no test."""
    return "n/a" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def points(difference: float) -> str:
    """A difference of fractions in points, with its sign; `n/a` where undefined."""
    return "n/a" if math.isnan(difference) else f"{100 * difference:+.1f}"


def fold_rows(result: EncoderResult, protocol: Protocol = CHALLENGE) -> list[list[str]]:
    """Header and one row per fold, then mean ± std."""
    header = ["Fold", "Videos", "Frames", *MEASURES.values()]
    is_timed = not math.isnan(result.time_saved)
    header += [SAVED_TITLE] if is_timed else []
    rows = [
        [
            str(split.record["split"]),
            str(len(split.scores)),
            str(sum(score.num_frames for score in split.scores.values())),
            *(percent(split.value(key, protocol)) for key in MEASURES),
            *([percent(saving(result.split_efforts(split), result.effort_rule).share)] if is_timed else []),
        ]
        for split in result.splits
    ]
    means = [percent(result.mean(key, protocol), result.std(key, protocol)) for key in MEASURES]
    means += [percent(result.time_saved)] if is_timed else []  # of all videos together
    return [header, *rows, ["mean", "", "", *means]]


def brief_line(result: EncoderResult, protocol: Protocol = CHALLENGE) -> str:
    """`Base, 5 folds: accuracy 74.39 ± 3.41, macro F1 ...`: a run in one line, synthetic data named."""
    means = {key: percent(result.mean(key, protocol), result.std(key, protocol)) for key in BRIEF_MEASURES}
    first = ", ".join(f"{MEASURES[key]} {text}" for key, text in means.items())
    synthetic = " (synthetic data)" if result.is_synthetic else ""
    return f"{result.name}, {counted(len(result.splits), 'fold')}: {first}{synthetic}"


def print_summary(
    dataset: paths.Dataset, results: Sequence[EncoderResult], protocol: Protocol = CHALLENGE, *, verbose: bool = False
) -> None:
    """Print a row for each result, or with `verbose` a table of each one's folds, and what a reader must know."""
    tables = [fold_rows(result, protocol) for result in results] if verbose else [comparison_rows(results, protocol)]
    print("\n\n".join(map(format_table, tables)))
    print("\n".join(map(str, [*data_remarks(dataset, results), *remarks(results, protocol)])))
