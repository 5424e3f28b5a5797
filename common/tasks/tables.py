"""Tables of tasks in the terminal: one result with its classes, and every encoder's on a data set."""

from __future__ import annotations

from collections.abc import Sequence

from common.base.runtime import counted
from common.base.wording import format_table
from common.tasks.scores import LARGEST
from common.tasks.summary import TaskMeasure, TaskSummary

NOT_AVAILABLE = "n/a"
COUNTS = ("positives", "clips")  # columns of classes that are numbers of frames or clips


def print_task(summary: TaskSummary) -> None:
    """Print a result: each class's values, its means with intervals and floors, each unit's values, and notes."""
    print(f"{summary.name} on {summary.dataset}: {summary.task}, {_scope(summary)}")
    if class_rows := rows_of_classes(summary):
        print(format_table(class_rows))
        print()
    floors = list(summary.floors)
    head = ["", summary.name, *(f"floor: {name}" for name in floors)]
    rows = [
        [title, measure.text, *(_floor_text(summary.floors[name].get(title)) for name in floors)]
        for title, measure in summary.measures.items()
    ]
    print(format_table([head, *rows]))
    for unit, values in summary.further.get("per_unit", {}).items():
        print(f"{unit}: {', '.join(f'{title} {_percent(value)}' for title, value in values.items())}")
    for note in summary.notes:
        print(f"note: {note}")


def rows_of_classes(summary: TaskSummary) -> list[list[str]]:
    """Head and a row for each class; nothing where the record has no values of classes."""
    columns = summary.further.get("per_class") or {}
    classes = summary.further.get("classes") or []
    if not classes or any(len(values) != len(classes) for values in columns.values()):
        return []
    rows = [["", *(title.removeprefix("mean ") for title in columns)]]
    for place, name in enumerate(classes):
        cells = [
            f"{round(values[place] or 0):,}" if title in COUNTS else _percent(values[place])
            for title, values in columns.items()
        ]
        rows.append([name, *cells])
    return rows


def print_tasks(summaries: Sequence[TaskSummary]) -> None:
    """Print every encoder's headline measure on a data set and list, the best first, and the highest of their floors."""
    if not summaries:
        return
    print()
    print(format_table(rows_of_tasks(summaries)))
    if not any(summary.model == "ColorHistogram" for summary in summaries):
        first = summaries[0]
        splits = f" --splits {first.splits}" if first.splits else ""
        print(
            f"floor not run: python -m common.probe --dataset {first.dataset} --model ColorHistogram{splits} (colours alone)"
        )


def rows_of_tasks(summaries: Sequence[TaskSummary]) -> list[list[str]]:
    """Head and a row for each result and floor of one data set."""
    headline = summaries[0].headline
    rows = [["", headline, "95 % interval"]]
    for summary in summaries:
        measure = summary.measures.get(headline, TaskMeasure(None))
        bounds = NOT_AVAILABLE if measure.low is None else f"{100 * measure.low:.1f} to {100 * measure.high:.1f}"
        rows.append([summary.name, _percent(measure.value), bounds])
    for name in dict.fromkeys(name for summary in summaries for name in summary.floors):
        values = [summary.floors[name].get(headline) for summary in summaries if name in summary.floors]
        found = [measure.value for measure in values if measure is not None and measure.value is not None]
        rows.append([f"floor: {name}", _percent(max(found, default=None)), ""])
    if share := summaries[0].measures.get(LARGEST):
        rows.append([LARGEST, _percent(share.value), ""])
    return rows


def _scope(summary: TaskSummary) -> str:
    """What was tested, in words."""
    where = f"list {summary.splits}, " if summary.splits else ""
    splits = f"{summary.num_splits} splits, " if summary.num_splits > 1 else ""
    marks = (", synthetic data" if summary.synthetic else "") + (", random weights" if summary.random_weights else "")
    return f"{where}{splits}{counted(summary.num_units, summary.units.removesuffix('s'))} tested{marks}"


def _floor_text(measure: TaskMeasure | None) -> str:
    return "" if measure is None else _percent(measure.value)


def _percent(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{100 * value:.1f} %"
