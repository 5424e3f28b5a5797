"""What a finished task says of itself: one record for all splits of a list, from which every table of tasks is made.

Any task writes it, whatever it learns: a title of each measure, its value with bounds, and how many classes it is a mean of.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.entries import visible
from common.base.files import misfit, read_json, write_json
from common.base.options import from_mapping
from common.base.runtime import UserError

log = logging.getLogger(__name__)

MEASURE_SHAPE = {"value?": float, "low?": float, "high?": float, "classes?": int, "of?": int}
SHAPE = {
    "format": int, "task": str, "dataset": str, "model": str, "run?": str, "splits?": str, "num_splits": int, "synthetic": bool,
    "random_weights": bool, "units": str, "num_units": int, "headline": str, "measures": {str: MEASURE_SHAPE},
    "floors": {str: {str: MEASURE_SHAPE}}, "notes": [str], "inputs_hash": str,
}  # fmt: skip
FORMAT = 1


@dataclass(frozen=True)
class TaskMeasure:
    """A value in shares of 1 with its 95 % bounds, and of a mean over classes those in which it is defined, of how many.

    None where undefined, where too few units give no interval, and where it is no mean over classes.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    classes: int | None = None
    of: int | None = None

    @classmethod
    def of_numbers(
        cls,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
        classes: int | None = None,
        of: int | None = None,
    ) -> TaskMeasure:
        """From numbers that are NaN where undefined."""
        return cls(*(float(number) if math.isfinite(number) else None for number in (value, low, high)), classes, of)

    @property
    def text(self) -> str:
        """`43.1 % [38.0, 47.9], 6 of 7 classes`; `n/a` where undefined."""
        of_classes = "" if self.of is None else f", {self.classes} of {self.of} classes"
        if self.value is None:
            return f"n/a{of_classes}"
        bounds = "" if self.low is None or self.high is None else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{100 * self.value:.1f} %{bounds}{of_classes}"


@dataclass(frozen=True)
class TaskSummary:
    """A model's result in a task on one data set, over all splits of a list."""

    task: str
    dataset: str
    model: str
    run: str | None
    splits: str | None
    """The list of splits; None: generated folds, or those of the table itself."""
    num_splits: int
    synthetic: bool
    random_weights: bool
    units: str
    """What intervals are over, in the plural: videos, patients, groups, clips."""
    num_units: int
    headline: str
    """The measure that a table of several data sets shows, a key of `measures`."""
    measures: dict[str, TaskMeasure]
    floors: dict[str, dict[str, TaskMeasure]]
    """What knows no features, by its name: the same measures."""
    inputs_hash: str
    """Identity of features, labels, lists and settings."""
    notes: tuple[str, ...] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    """What the task alone records: values of each class, of each unit."""

    @property
    def name(self) -> str:
        """The row of a table: the model, the run where it has a name beside its list of splits, and whether its weights are random."""
        run = (self.run or "").removeprefix(f"splits={self.splits}").strip("-") if self.splits else self.run
        marks = ", ".join(filter(None, [run, "random weights" if self.random_weights else None]))
        return f"{self.model} ({marks})" if marks else self.model

    @property
    def best(self) -> TaskMeasure:
        """The headline measure."""
        return self.measures[self.headline]


def write_task_summary(folder: Path, summary: TaskSummary) -> Path:
    """Write the record, which completes the task's folder `results/<dataset>[/<run>]/`."""
    path = folder / paths.TASK_RECORD
    content = asdict(summary)
    further = content.pop("further")
    write_json(path, {"format": FORMAT, **content, "notes": list(summary.notes), **further})
    return path


def read_task_summary(path: Path) -> TaskSummary:
    """Read a record. Raises `UserError` naming the file for a damaged one, and for what is no such record."""
    advice = "run the task again with --force"
    content = read_json(path, advice)
    if wrong := misfit(content, SHAPE):
        raise UserError(f"{path}: not the record of a task ({wrong}); {advice}")
    if content["format"] != FORMAT or content["headline"] not in content["measures"]:
        raise UserError(f"{path}: not the record of a task of this version (format or headline); {advice}")
    own = {key: content[key] for key in SHAPE if key.removesuffix("?") == key and key != "format"}
    own |= {key: content.get(key) for key in ("run", "splits")}
    own["measures"] = _measures(content["measures"], path)
    own["floors"] = {name: _measures(floor, path) for name, floor in content["floors"].items()}
    further = {key: value for key, value in content.items() if key not in own and key != "format"}
    return TaskSummary(**own | {"notes": tuple(content["notes"]), "further": further})


def _measures(content: Mapping[str, Any], path: Path) -> dict[str, TaskMeasure]:
    return {name: from_mapping(TaskMeasure, dict(measure), path) for name, measure in content.items()}


def task_summaries(dataset: paths.Dataset, splits: str | None = None) -> list[TaskSummary]:
    """Every finished task of a data set, over a list of splits, the best first; a record that cannot be read is named.

    Without `splits` those of every list.
    """
    found = []
    for model in paths.all_models():
        folder = model.results(dataset.name)
        for path in sorted({*visible(folder, paths.TASK_RECORD), *visible(folder, f"*/{paths.TASK_RECORD}")}):
            try:
                summary = read_task_summary(path)
            except UserError as error:
                log.warning("left out: %s", error)
                continue
            if splits is None or summary.splits == splits:
                found.append(summary)
    return sorted(found, key=lambda each: (each.best.value is None, -(each.best.value or 0.0), each.name))
