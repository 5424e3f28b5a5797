"""Rankings, intervals and ties of encoders, and what a report says of them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import openpyxl
import pytest

from common.base import paths
from common.dataset.phases import write_prediction
from common.head.experiment import load_experiment
from common.reports.comparison import make_report
from common.reports.leaderboard import make_leaderboard
from common.reports.page.page import save_page
from common.reports.pictures.charts import spacing_picture
from common.reports.pictures.style import save
from common.reports.published import read_published
from common.reports.results import collect_all
from common.reports.workbook.sheet import mark_board
from common.reports.workbook.workbook import HEADER_ROW, save_comparison
from common.run_k_folds import main as run_k_folds
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE, PROTOCOLS
from tests.common.conftest import FOLD_WORDS
from tests.common.reports.page.packed import charts_of

HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]
WORDS = [*FOLD_WORDS, *HEAD]


@pytest.fixture
def results(made):
    """A perfect run and one with every second video wrong in half of its frames."""
    run_k_folds([*WORDS, "--seed", "42,7"])
    for seed in (42, 7):
        for split in ("1", "2"):
            experiment = load_experiment(made.config(num_epochs=2, split=split, seed=seed))
            for index, (name, labels) in enumerate(experiment.test_labels.items()):
                ids = np.array([experiment.mapping.ids[label] for label in labels.read_text().split()])
                if seed == 7 and index % 2:
                    ids[: len(ids) // 2] = 0
                write_prediction(experiment.results / f"{name}.txt", ids, experiment.mapping)
    return collect_all(made.dataset, 2).results


def test_the_best_is_first_and_its_interval_holds_its_mean(results):
    board = make_leaderboard(results, CHALLENGE)
    assert board.names == ["ColorHistogram", "ColorHistogram (seed7)"]
    cell = board.cells["ColorHistogram (seed7)"]["accuracy"]
    assert cell.interval.low < cell.interval.estimate < cell.interval.high
    assert board.cells["ColorHistogram"]["accuracy"].interval.estimate == 1.0
    assert board.best("accuracy") == ["ColorHistogram"]
    equal = replace(board, cells=dict.fromkeys(board.names, board.cells["ColorHistogram"]))
    assert equal.best("accuracy") == board.names
    assert set(mark_board(equal).values()) == {"best"}


@pytest.mark.slow
def test_every_pair_is_tested_for_every_measure_with_the_better_one_first(results):
    board = make_leaderboard(results, CHALLENGE)
    assert {test.measure for test in board.tests} == set(MEASURES)
    accuracy = next(test for test in board.tests if test.measure == "accuracy")
    assert (accuracy.first, accuracy.num_videos) == ("ColorHistogram", 6)
    assert accuracy.effect.difference.estimate > 0
    assert accuracy.p_holm == accuracy.p_videos  # one pair: nothing to correct
    assert 0 < accuracy.p_folds <= 1


def test_two_of_six_videos_are_no_significant_difference(results):
    board = make_leaderboard(results, CHALLENGE)
    assert not any(test.is_significant for test in board.tests if test.measure == "accuracy")
    assert set(board.letters["accuracy"].values()) == {"a"}


def test_every_pair_of_sign_flips_is_tried_for_few_videos(results):
    """Two videos differ: 2 of the 4 sign patterns are as extreme, so p is one half whatever the draws."""
    accuracy = next(test for test in make_leaderboard(results, CHALLENGE).tests if test.measure == "accuracy")
    assert accuracy.p_videos == pytest.approx(0.5)


def test_videos_of_one_patient_are_resampled_together(results):
    every = dict.fromkeys(results[0].scores, "one patient")
    board = make_leaderboard(results, CHALLENGE, every)
    assert np.isnan(board.cells["ColorHistogram (seed7)"]["accuracy"].interval.low)


def test_a_video_that_several_splits_test_is_one_unit(results):
    """As in the sliding lists of MultiBypass140: the second split tests the first one's videos again, and one more."""
    first, second = results[1].splits
    more = dict(list(second.scores.items())[:1])
    again = replace(results[1], splits=[first, replace(second, scores=first.scores | more)])
    better = replace(results[0], splits=[results[0].splits[0], replace(results[0].splits[1], scores={
        name: results[0].scores[name] for name in first.scores | more})])  # fmt: skip
    assert (len(again.tests), len(again.scores)) == (7, 4)
    values = again.video_values()
    assert values == {name: results[1].video_values()[name] for name in values}  # the mean of two equal tests
    board = make_leaderboard([better, again], CHALLENGE)
    accuracy = next(test for test in board.tests if test.measure == "accuracy")
    assert accuracy.num_videos == 4
    differing = sum(values[name]["accuracy"] < 1 for name in values)
    assert accuracy.p_videos == pytest.approx(2 ** (1 - differing) if differing else 1.0)
    cell = board.cells[again.name]["accuracy"]
    grouped = make_leaderboard([better, again], CHALLENGE, {name: name for name in values}).cells[again.name][
        "accuracy"
    ]
    assert cell.interval == grouped.interval  # whole videos are drawn, with all of their tests
    assert cell.mean == pytest.approx(again.values("accuracy").mean())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_intervals_hold_the_value_of_all_videos_under_every_protocol(results, protocol):
    board = make_leaderboard(results, protocol)
    for measure in MEASURES:
        interval = board.cells["ColorHistogram (seed7)"][measure].interval
        assert np.isnan(interval.low) or interval.low <= interval.estimate <= interval.high


def test_a_report_splits_seeds_from_folds_and_quotes_only_on_request(results, made):
    report = make_report(made.dataset, results, [CHALLENGE])
    assert {variance.measure for variance in report.seed_variance} == set(MEASURES)
    assert report.seed_variance[0].seeds == [7, 42]
    assert report.efficiency == {}
    assert not any("quoted" in str(remark) for remark in report.remarks)
    quoted = make_report(made.dataset, results, [CHALLENGE], published=read_published())
    assert any("not computed here" in str(remark) for remark in quoted.remarks)


@pytest.mark.slow
def test_runs_on_part_of_the_training_videos_make_a_curve_and_no_row(made):
    run_k_folds([*WORDS, "--train_fraction", "0.34,0.67,1.0"])
    report = make_report(made.dataset, collect_all(made.dataset, 2).results, [CHALLENGE])
    assert report.board.names == ["ColorHistogram"]
    (points,) = report.efficiency.values()
    assert [(point.fraction, point.num_videos) for point in points] == [(0.34, 1), (0.67, 2), (1.0, 3)]
    assert len(points[0].values["accuracy"]) == 2


WINDOW = {"clip_len": 9, "dilation": 1, "padding": "edge frames repeated", "mode": "window", "stride": 1}


def make_variant(dataset, variant, **window):
    """A copy of the features that says to be of these windows."""
    folder = dataset.features("ColorHistogram", variant)
    shutil.copytree(dataset.features("ColorHistogram"), folder)
    for sidecar in folder.glob("*.json"):
        content = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps(content | {"window": WINDOW | window, "recipe": "own"}))


@pytest.mark.slow
def test_windows_of_several_lengths_are_compared_by_the_seconds_they_span(made, tmp_path):
    make_variant(made.dataset, "near", spacing=None, between="linear")
    make_variant(made.dataset, "far", spacing=0.5, between="linear")
    make_variant(made.dataset, "end", spacing=0.5, between="held")
    run_k_folds([*WORDS, "--variants", "default", "near", "far", "end"])
    report = make_report(made.dataset, collect_all(made.dataset, 2).results, [CHALLENGE])
    fps = next(iter(report.results[0].record["fps"].values()))
    assert {
        name: [(point.name, pytest.approx(point.window.seconds)) for point in points]
        for name, points in report.spacing.items()
    } == {
        "ColorHistogram": [("ColorHistogram (near)", 8 / fps), ("ColorHistogram (far)", 4.0)],
        "ColorHistogram (frame last)": [("ColorHistogram (end)", 4.0)],
    }
    text = save_page(report, tmp_path / "report.html").read_text()
    assert "<td>0.50</td>" in text.split('id="spacing"')[1]
    assert "8 frames" not in text  # frames are 9, steps 8
    assert "9 frames 0.5 s apart, the frame last, recipe own" in json.dumps(charts_of(text))
    assert save(spacing_picture(report), tmp_path / "spacing.png")
    book = openpyxl.load_workbook(save_comparison(report, tmp_path / "report.xlsx"))
    rows = [[cell.value for cell in row[:7]] for row in book["spacing"].iter_rows(min_row=HEADER_ROW + 1)]
    assert ["ColorHistogram", "ColorHistogram (far)", "own", 9, 0.5, "in the middle", 4] in rows
    report.spacing.clear()
    assert spacing_picture(report) is None
    assert (
        "Spacing" not in save_page(report, tmp_path / "report.html").read_text().split("<main>")[1].split("</main>")[0]
    )


def test_a_leak_is_the_first_remark_and_alarming(results, made):
    """The weights' folder holds a manifest that names a test video."""
    folder = paths.pretrained_backbone("some-model")
    folder.mkdir(parents=True)
    seen = {"corpus": "made", "name": "BL_1", "size_bytes": 1, "fingerprint": "0" * 64}
    manifest = {"format": 1, "stage": "ssl", "model": "some-model", "videos": [seen], "based_on": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for result in results:
        for split in result.splits:
            split.record["features"]["identity"]["weights"] = {"source": str(folder), "sha256": None}
    report = make_report(made.dataset, results, [CHALLENGE])
    assert report.remarks[0].alarming
    assert "Leak: ColorHistogram" in str(report.remarks[0])
    assert "BL_1" in str(report.remarks[0])


def test_per_video_rows_hold_every_encoder_video_and_protocol(results, made):
    report = make_report(made.dataset, results, list(PROTOCOLS.values()))
    table = report.per_video
    assert len(table) == 2 * 6 * len(PROTOCOLS)
    mean = table[(table["Encoder"] == "ColorHistogram") & (table["Protocol"] == "challenge")]["Accuracy %"].mean()
    assert mean == pytest.approx(100)
    assert set(table["Prefix"]) == {"BL", "SD"}
