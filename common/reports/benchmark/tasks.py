"""Other tasks as further columns of a benchmark: each data set with the measure of its own, values without ranks.

A rank over data sets is of one measure; average precision, top-1 and Dice are none. What counts is in each task's own record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.base import paths
from common.base.entries import reason_against_folder, visible
from common.base.files import atomic_path
from common.base.runtime import UserError
from common.base.wording import text_cell
from common.dataset.description import read_description
from common.reports.caveats import Remark
from common.tasks.summary import TaskSummary, task_summaries

PROTOCOL = "task"  # in the column where phases have their protocol


@dataclass(frozen=True, eq=False)
class TaskColumn:
    """One data set and list of splits: the record of each encoder by its row."""

    dataset: str
    splits: str | None
    summaries: dict[str, TaskSummary]

    @property
    def first(self) -> TaskSummary:
        return next(iter(self.summaries.values()))

    @property
    def title(self) -> str:
        """The data set, and its list where it has one."""
        return f"{self.dataset} ({self.splits})" if self.splits else self.dataset

    @property
    def measure(self) -> str:
        return self.first.headline

    def text(self, encoder: str) -> str:
        """The headline value of a row in percent, `not run` without one."""
        summary = self.summaries.get(encoder)
        if summary is None:
            return "not run"
        measure = summary.measures.get(self.measure)
        return "n/a" if measure is None or measure.value is None else f"{100 * measure.value:.2f}"

    def bounds(self, encoder: str) -> str:
        """The 95 % interval of a row in percent, empty without one."""
        measure = self.summaries[encoder].measures.get(self.measure) if encoder in self.summaries else None
        if measure is None or measure.low is None or measure.high is None:
            return ""
        return f"{100 * measure.low:.2f} to {100 * measure.high:.2f}"

    def floor(self, name: str) -> float | None:
        """The highest value of a floor under the encoders."""
        measures = [each.floors[name].get(self.measure) for each in self.summaries.values() if name in each.floors]
        return max((each.value for each in measures if each is not None and each.value is not None), default=None)


def task_datasets(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the data sets that are asked for those of phases, and those of other tasks."""
    of_phases, of_tasks = [], []
    for name in asked:
        (of_phases if read_description(paths.dataset(name)).task is None else of_tasks).append(name)
    return of_phases, of_tasks


def task_columns(
    asked: Sequence[str], splits: str | None, models: Sequence[str] | None
) -> tuple[list[TaskColumn], list[Remark]]:
    """A column for each data set of a task and each list that encoders were probed on, and what is to be said of them.

    Without names of data sets all that have records; a named list leaves out other lists, but not a table's own split.
    """
    columns, remarks = [], []
    for dataset in [paths.dataset(name) for name in asked] or _with_records():
        found = [
            each
            for each in task_summaries(dataset)
            if (models is None or each.model in models) and (splits is None or each.splits in (None, splits))
        ]
        if not found:
            remarks.append(
                Remark(f"Left out: {dataset.name}: no finished task; run python -m common.probe or common.segment")
            )
        for of_list in dict.fromkeys(each.splits for each in found):
            own = {each.name: each for each in found if each.splits == of_list}
            columns.append(TaskColumn(dataset.name, of_list, own))
    for column in columns:
        other = {each.headline for each in column.summaries.values()} - {column.measure}
        if other:
            remarks.append(Remark(f"{column.title}: some records show another measure ({', '.join(sorted(other))})"))
        for name, summary in column.summaries.items():
            remarks += [Remark(f"{column.title}, {name}: {note}") for note in summary.notes]
    return columns, list(dict.fromkeys(remarks))


def _with_records() -> list[paths.Dataset]:
    """Every data set below `data/` whose description says another task than phases and that some model has a record of."""
    found = []
    for path in visible(paths.repository_root() / "data", f"*/{paths.Dataset(Path()).description.name}"):
        dataset = paths.Dataset(path.parent)
        if reason_against_folder(dataset.name):
            continue
        try:
            is_task = read_description(dataset).task is not None
        except UserError:  # who uses it says what is wrong
            continue
        if is_task and task_summaries(dataset):
            found.append(dataset)
    return found


def floor_names(columns: Sequence[TaskColumn]) -> list[str]:
    """The floors that some column has."""
    return list(dict.fromkeys(name for column in columns for each in column.summaries.values() for name in each.floors))


def task_cell_rows(columns: Sequence[TaskColumn]) -> Iterator[dict[str, object]]:
    """A row per encoder, data set and measure, with the columns of a benchmark's table of cells."""
    for column in columns:
        for name, summary in column.summaries.items():
            for title, measure in summary.measures.items():
                low, high = (None if bound is None else 100 * bound for bound in (measure.low, measure.high))
                yield {
                    "Encoder": name,
                    "Data set": column.title,
                    "Protocol": PROTOCOL,
                    "Measure": title,
                    "Mean %": None if measure.value is None else 100 * measure.value,
                    "Interval low %": low,
                    "Interval high %": high,
                    "Classes": measure.classes,
                    "Of classes": measure.of,
                    "Videos": summary.num_units,
                }


def task_text_rows(columns: Sequence[TaskColumn]) -> list[list[str]]:
    """Head and a row for each encoder and floor, where there are no phases beside them."""
    names = list(dict.fromkeys(name for column in columns for name in column.summaries))
    rows = [["Encoder", *(f"{column.title}: {column.measure}, %" for column in columns)]]
    for name in names:
        cells = (f"{column.text(name)} [{column.bounds(name)}]".replace(" []", "") for column in columns)
        rows.append([name, *cells])
    for floor in floor_names(columns):
        values = [column.floor(floor) for column in columns]
        rows.append([f"floor: {floor}", *("" if value is None else f"{100 * value:.2f}" for value in values)])
    return rows


def write_task_cells(columns: Sequence[TaskColumn]) -> Path:
    """Write `comparison_results/benchmark/tasks.csv`, where there are no phases beside them; returns its place."""
    import pandas as pd

    path = paths.comparison_results() / "benchmark" / "tasks.csv"
    table = pd.DataFrame(list(task_cell_rows(columns)))
    with atomic_path(path) as temporary:
        shown = table.map(lambda value: text_cell(value) if isinstance(value, str) else value)
        shown.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    return path
