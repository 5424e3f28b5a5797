"""The record of a finished task: written, read, refused where damaged, and found again, the best first."""

import pytest

from common.base import paths
from common.base.files import read_json, write_json
from common.base.runtime import UserError
from common.tasks.summary import TaskMeasure, TaskSummary, read_task_summary, task_summaries, write_task_summary


def summary(model: str, value: float | None, **changes) -> TaskSummary:
    measures = {"mean AP": TaskMeasure(value, 0.1, 0.9, 2, 3)}
    return TaskSummary(
        **{
            "task": "multilabel", "dataset": "tools", "model": model, "run": None, "splits": None, "num_splits": 1, "synthetic": True,
            "random_weights": False, "units": "videos", "num_units": 7, "headline": "mean AP", "measures": measures,
            "floors": {"majority class": {"mean AP": TaskMeasure(0.2)}}, "inputs_hash": "f" * 64, "notes": ("few videos",),
            "further": {"classes": ["hook"]},
        }
        | changes
    )  # fmt: skip


def write(one: TaskSummary):
    folder = paths.model(one.model).results("tools", one.run)
    folder.mkdir(parents=True)
    return write_task_summary(folder, one)


def test_a_record_is_read_as_it_was_written(workspace):
    one = summary("Base", 0.5)
    assert read_task_summary(write(one)) == one


def test_records_are_found_the_best_first_and_damaged_ones_are_named(workspace, caplog):
    dataset = paths.Dataset(workspace / "data" / "tools")
    for model, value in (("Base", 0.5), ("I3D", None), ("ColorHistogram", 0.6)):
        write(summary(model, value))
    write(summary("Base", 0.7, run="splits=A-late", splits="A"))
    (paths.model("EndoViT").results("tools")).mkdir(parents=True)
    (paths.model("EndoViT").results("tools") / paths.TASK_RECORD).write_text("{")
    assert [one.name for one in task_summaries(dataset)] == ["Base (late)", "ColorHistogram", "Base", "I3D"]
    assert "EndoViT" in caplog.text
    assert [one.name for one in task_summaries(dataset, "A")] == ["Base (late)"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"headline": "accuracy"}, "headline"),
        ({"format": 2}, "format"),
        ({"num_units": "seven"}, "num_units: expected a whole number, found 'seven'"),
        ({"measures": {"mean AP": {"value": "high"}}}, "measures.mean AP.value: expected a number, found 'high'"),
        ({"measures": {"mean AP": {"worth": 1}}}, "unknown key 'worth'"),
    ],
)
def test_what_is_no_record_is_named(workspace, change, message):
    path = write(summary("Base", 0.5))
    write_json(path, read_json(path) | change)
    with pytest.raises(UserError, match=rf"{paths.TASK_RECORD}.*{message}"):
        read_task_summary(path)


def test_a_measure_in_words():
    assert TaskMeasure(0.4312, 0.38, 0.479, 6, 7).text == "43.1 % [38.0, 47.9], 6 of 7 classes"
    assert TaskMeasure.of_numbers(float("nan"), classes=0, of=3).text == "n/a, 0 of 3 classes"
    assert TaskMeasure(0.5).text == "50.0 %"
