"""The table over data sets: ranks by hand, cells that are empty or have seen the test, and what is written."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from common.base import paths
from common.reports.benchmark.table import Benchmark, BenchmarkSet, in_rows, make_benchmark
from common.reports.benchmark.tasks import TaskColumn, task_columns, task_datasets
from common.reports.benchmark.written import cell_rows, text_rows, ties_caption, write_benchmark
from common.reports.comparison import make_report
from common.reports.leaderboard import ALPHA
from common.reports.results import Collection, EncoderResult, SplitResult
from common.scoring.protocols import PROTOCOLS
from common.scoring.video_score import VideoScore
from common.tasks.summary import TaskMeasure, TaskSummary, write_task_summary

PHASES = ("background", "incision", "wash")
VIDEOS = tuple(f"BL_{number}" for number in range(8))
SEEN = ["its weights saw 2 of the 8 scored videos in training: BL_1, BL_2"]


def encoder(
    name: str, wrong: int, *, run: str | None = None, splits: str | None = None, num_videos: int = len(VIDEOS)
) -> EncoderResult:
    """One split of 100-frame videos at 5 fps, of which about `wrong` frames are wrong, a few more or less in each."""
    scores = {}
    for number, video in enumerate(VIDEOS[:num_videos]):
        true = np.repeat([0, 1, 2], [25, 25, 50])
        predicted = true.copy()
        predicted[50 : 50 + wrong + number % 3] = 1
        likely = np.eye(len(PHASES))[predicted] * 0.8 + 0.05
        scores[video] = VideoScore(true, predicted, len(PHASES), 0, 5.0, lambda likely=likely: likely)
    record = {
        "synthetic": False, "split": "1", "seed": 42, "phases": list(PHASES), "videos": list(VIDEOS), "folds_hash": "f" * 64,
        "git": {"commit": None, "dirty": None}, "versions": {}, "train_seconds": 1.0, "history": None,
        "config": {"causal": False, "variant": None, "splits": splits},
        "features": {"identity": None, "random_weights": False, "num_parameters": None},
    }  # fmt: skip
    return EncoderResult(paths.Model(Path(name)), run, [SplitResult(record, scores)])


def data_set(
    root: Path,
    name: str,
    wrong: dict[str, int],
    leaks: dict[str, list[str]] | None = None,
    *,
    num_videos: int = len(VIDEOS),
) -> BenchmarkSet:
    folder = root / name
    folder.mkdir()
    (folder / "mapping.txt").write_text("".join(f"{index} {phase}\n" for index, phase in enumerate(PHASES)))
    results = [encoder(model, count, num_videos=num_videos) for model, count in wrong.items()]
    return BenchmarkSet(make_report(paths.Dataset(folder), results, list(PROTOCOLS.values())), leaks or {})


def made(*sets: BenchmarkSet) -> Benchmark:
    return make_benchmark(sets, list(PROTOCOLS.values()), [])


@pytest.fixture
def three(tmp_path) -> Benchmark:
    return made(
        data_set(tmp_path, "one", {"Good": 2, "Fair": 10, "Poor": 30}),
        data_set(tmp_path, "two", {"Good": 4, "Fair": 2, "Poor": 20}),
        data_set(tmp_path, "three", {"Good": 3, "Fair": 9, "Poor": 40}),
    )


def test_mean_ranks_by_hand(three):
    means = {name: mean.estimate for name, mean in three.headline.means.items()}
    assert means == pytest.approx({"Good": 4 / 3, "Fair": 5 / 3, "Poor": 3.0})
    assert three.headline.ranks["two"] == {"Fair": 1, "Good": 2, "Poor": 3}
    assert three.encoders == ["Good", "Fair", "Poor"]
    poor = three.headline.means["Poor"]
    assert poor.low <= poor.estimate == poor.high == 3.0


def test_agreement_between_data_sets_is_kendalls_tau(three):
    taus = {(pair.first, pair.second): pair.tau.estimate for pair in three.headline.agreement}
    assert taus == pytest.approx({("one", "two"): 1 / 3, ("one", "three"): 1.0, ("two", "three"): 1 / 3})


def test_every_measure_and_protocol_has_a_standing(three):
    assert len(three.standings) == len(PROTOCOLS) * 8
    # PR-AUC over pooled frames is no function of sums over videos: ranks, but no interval
    pooled = three.standings[list(PROTOCOLS).index("pooled"), "pr_auc"]
    assert all(math.isnan(mean.low) and not math.isnan(mean.estimate) for mean in pooled.means.values())


def test_a_cell_that_has_seen_the_test_has_a_number_but_no_rank(tmp_path):
    table = made(
        data_set(tmp_path, "one", {"Good": 2, "Fair": 10, "Poor": 30}, {"Good": SEEN}),
        data_set(tmp_path, "two", {"Good": 2, "Fair": 10, "Poor": 30}),
    )
    assert table.headline.ranks["one"] == {"Fair": 1, "Poor": 2}
    assert table.headline.ranks["two"] == {"Good": 1, "Fair": 2, "Poor": 3}
    assert list(table.headline.means) == ["Fair", "Poor"]  # over two sets; Good has a rank in one
    assert table.encoders == ["Fair", "Poor", "Good"]
    assert any("No mean rank: Good" in str(remark) for remark in table.remarks)
    assert table.sets[0].cell("Good", 0, "accuracy").mean > 0.9


def test_a_set_without_a_run_leaves_an_empty_cell_never_0(tmp_path):
    table = made(
        data_set(tmp_path, "one", {"Good": 2, "Fair": 10, "New": 5}), data_set(tmp_path, "two", {"Good": 2, "Fair": 9})
    )
    assert table.sets[1].cell("New", 0, "accuracy") is None
    assert text_rows(table)[-1][:2] == ["New", "n/a"]
    assert text_rows(table)[-1][-1] == "not run"
    rows = [row for row in cell_rows(table) if row["Encoder"] == "New"]
    assert {row["Data set"] for row in rows} == {"one"}


def test_one_encoder_alone_has_no_mean_rank_and_that_is_said(tmp_path):
    table = made(data_set(tmp_path, "one", {"Good": 2}), data_set(tmp_path, "two", {"Other": 2}))
    assert table.headline.means == {}
    assert any(remark.alarming and "No mean ranks" in str(remark) for remark in table.remarks)


def test_equal_encoders_share_letter_and_rank(tmp_path):
    table = made(data_set(tmp_path, "one", {"Good": 2, "Twin": 2}), data_set(tmp_path, "two", {"Good": 4, "Twin": 4}))
    assert [mean.estimate for mean in table.headline.means.values()] == [1.5, 1.5]
    assert len(set(table.headline.letters.values())) == 1


def test_too_few_videos_over_all_sets_are_not_called_tied(workspace, tmp_path):
    """A single video a set cannot be drawn again: there is no test."""
    table = made(*(data_set(tmp_path, name, {"Good": 2, "Poor": 30}, num_videos=1) for name in ("one", "two", "three")))
    family = table.headline.family
    assert not family.can_separate
    assert set(table.headline.letters.values()) == {""}
    assert "Tied" not in text_rows(table)[0]
    assert ties_caption(table.headline) == "Mean ranks not separated: no test (no p value; 0.05 or more shows nothing)."
    page = write_benchmark(table)[0].read_text(encoding="utf-8")
    assert "statistically tied" not in page


def test_the_smallest_p_of_mean_ranks_counts_the_videos_of_all_sets(tmp_path):
    table = made(*(data_set(tmp_path, name, {"Good": 2, "Poor": 30}, num_videos=2) for name in ("one", "two")))
    assert table.headline.family.smallest_p == 2 / 2**4
    assert "not separated: too few videos" in ties_caption(table.headline)
    assert text_rows(table)[0] == ["Encoder", "Mean rank", "95 % interval", "one", "two"]


def test_many_encoders_are_drawn_often_enough_to_be_told_apart(tmp_path):
    """28 pairs at 1,000 draws could not fall below 0.05 after the correction: 28 * 2 / 1001."""
    encoders = {f"E{number}": 4 * number for number in range(8)}
    table = made(data_set(tmp_path, "one", encoders), data_set(tmp_path, "two", encoders))
    assert table.headline.family.smallest_p < ALPHA
    assert len(set(table.headline.letters.values())) > 1


def test_runs_on_a_named_list_stand_in_the_row_of_their_encoder():
    runs = [
        encoder("A", 2, run="splits=official", splits="official"),
        encoder("A", 2, run="splits=official-causal", splits="official"),
        encoder("A", 2, run="mine", splits="official"),
        encoder("A", 2, run="causal"),
    ]
    names = [result.name for result in in_rows(Collection(runs, [])).results]
    assert names == ["A", "A (causal)", "A (mine)", "A (causal)"]


def test_what_is_written(three, workspace, tmp_path):
    leaky = made(*three.sets[:2], BenchmarkSet(three.sets[2].report, {"Poor": SEEN}))
    written = write_benchmark(leaky)
    assert [path.name for path in written] == ["report.html", "benchmark.xlsx", "cells.csv", "ranks.png"]
    page = written[0].read_text(encoding="utf-8")
    assert '<td class="leak" title="its weights saw 2 of the 8 scored videos' in page
    assert "<script" not in page
    workbook = openpyxl.load_workbook(written[1])
    assert workbook.sheetnames == ["ranks", "cells", "agreement", "data sets", "notes"]
    assert len(written[2].read_text().splitlines()) == 1 + 3 * 3 * 8 * len(PROTOCOLS)
    again = write_benchmark(leaky)
    assert again[0].read_text(encoding="utf-8") == page


# --- other tasks beside phases ------------------------------------------------------------------------------------


def task_record(model: str, value: float | None) -> TaskSummary:
    return TaskSummary(
        task="multilabel", dataset="tools", model=model, run="splits=A", splits="A", num_splits=1, synthetic=True,
        random_weights=False, units="videos", num_units=9, headline="mean AP",
        measures={"mean AP": TaskMeasure(value, 0.4, 0.6, 6, 7), "mean ROC area": TaskMeasure(0.9)},
        floors={"majority class": {"mean AP": TaskMeasure(0.2)}}, inputs_hash="f" * 64,
    )  # fmt: skip


def test_tasks_are_further_columns_with_their_own_measure_and_no_ranks(tmp_path):
    sets = [data_set(tmp_path, "one", {"Good": 2, "Poor": 30}), data_set(tmp_path, "two", {"Good": 4, "Poor": 20})]
    tools = TaskColumn("tools", "A", {name: task_record(name, value) for name, value in (("Poor", 0.5), ("New", None))})
    alone = make_benchmark(sets, list(PROTOCOLS.values()), [])
    both = make_benchmark(sets, list(PROTOCOLS.values()), [], [tools])
    assert both.encoders == ["Good", "Poor", "New"]
    assert {name: mean.estimate for name, mean in both.headline.means.items()} == {
        name: mean.estimate for name, mean in alone.headline.means.items()
    }
    head, *rows = text_rows(both)
    by_name = {row[0]: row for row in rows}
    assert head[-1] == "tools (A): mean AP"
    assert [by_name[name][-1] for name in ("Good", "Poor", "New")] == ["not run", "50.00", "n/a"]
    assert by_name["floor of tasks: majority class"][-1] == "20.00"
    assert by_name["New"][-3:-1] == ["not run", "not run"]
    assert both.title.endswith("3 data sets (synthetic data)")


def test_what_is_written_has_the_tasks(tmp_path, workspace):
    sets = [data_set(tmp_path, "one", {"Good": 2, "Poor": 30}), data_set(tmp_path, "two", {"Good": 4, "Poor": 20})]
    made_of_both = make_benchmark(
        sets, list(PROTOCOLS.values()), [], [TaskColumn("tools", "A", {"Poor": task_record("Poor", 0.5)})]
    )
    page, _, cells, *_ = write_benchmark(made_of_both)
    text = page.read_text(encoding="utf-8")
    assert "tools (A)<small>mean AP</small>" in text
    assert "50.00<small>40.00 to 60.00</small>" in text
    rows = [line for line in cells.read_text().splitlines() if line.startswith("Poor,tools (A),task,")]
    assert len(rows) == 2


def test_of_several_lists_that_which_is_asked_for_and_a_tables_own(workspace):
    dataset = workspace / "data" / "tools"
    dataset.mkdir()
    (dataset / "dataset.yaml").write_text("task: multilabel\n")
    for run, splits in (("splits=A", "A"), ("splits=B", "B"), (None, None)):
        record = replace(task_record("Base", 0.5), run=run, splits=splits)
        folder = paths.model("Base").results("tools", run)
        folder.mkdir(parents=True, exist_ok=True)
        write_task_summary(folder, record)
    titles = [column.title for column in task_columns([], None, None)[0]]
    assert sorted(titles) == ["tools", "tools (A)", "tools (B)"]
    assert sorted(column.title for column in task_columns(["tools"], "A", None)[0]) == ["tools", "tools (A)"]
    assert task_columns(["tools"], "A", ["I3D"])[0] == []
    assert task_datasets(["tools"]) == ([], ["tools"])
