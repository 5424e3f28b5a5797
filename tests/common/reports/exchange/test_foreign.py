"""Predictions made elsewhere as rows: the same measures, marked, and refused by name where they do not fit."""

import shutil

import numpy as np
import openpyxl
import pytest

import compute_results
from common.base import paths
from common.base.runtime import UserError
from common.reports.caveats import remarks
from common.reports.comparison import make_report
from common.reports.exchange.foreign import named_folders, read_foreign, with_foreign
from common.reports.results import Collection
from common.scoring.protocols import PROTOCOLS
from tests.common.reports.exchange.conftest import FOLDS, VIDEOS

SPLITS = ["1", "2"]


def test_a_row_has_the_accuracy_that_its_files_have(dataset, predictions):
    result = read_foreign("Theirs", predictions(10), dataset, SPLITS)
    # of 100 frames 10 are wrong in the first video, one more in each further one
    assert [round(100 * score.accuracy) for score in result.scores.values()] == [
        90 - VIDEOS.index(v) for v in result.scores
    ]
    assert result.name == "Theirs (made elsewhere)"
    assert [list(split.scores) for split in result.splits] == FOLDS
    assert not np.isnan(result.mean("pr_auc"))


def test_probabilities_are_optional(dataset, predictions):
    result = read_foreign("Theirs", predictions(10, probabilities=False), dataset, SPLITS)
    assert np.isnan(result.mean("pr_auc"))
    assert result.mean("accuracy") > 0.8


def test_the_challenges_form_is_read_too(dataset, predictions):
    folder = predictions(10)
    for path in folder.glob("*.txt"):
        path.write_text("### Frame level recognition: ###\n" + " ".join(path.read_text().split()) + "\n")
    assert read_foreign("Theirs", folder, dataset, SPLITS).mean("accuracy") == pytest.approx(0.875)


def test_each_split_may_have_a_folder_of_its_own(dataset, predictions):
    folder = predictions(10)
    for number, fold in enumerate(FOLDS, 1):
        (folder / f"split_{number}").mkdir()
        for video in fold:
            shutil.move(folder / f"{video}.txt", folder / f"split_{number}")
            shutil.move(folder / f"{video}.npy", folder / f"split_{number}")
    assert read_foreign("Theirs", folder, dataset, SPLITS).mean("accuracy") == pytest.approx(0.875)


def test_rows_are_ranked_among_each_other_and_marked_in_every_table(dataset, predictions):
    rows = {"Worse": predictions(20), "Better": predictions(5)}
    found = with_foreign(Collection([], []), rows, dataset, SPLITS)
    assert [result.model.name for result in found.results] == ["Better", "Worse"]
    lines = [str(remark) for remark in remarks(found.results)]
    assert any(line.startswith("Made elsewhere: Better, Worse.") for line in lines)
    assert not any("last epoch" in line or line.startswith("Weights") for line in lines)  # nothing is known of these
    report = make_report(dataset, found.results, list(PROTOCOLS.values()))
    assert set(report.per_video["Encoder"]) == {"Better (made elsewhere)", "Worse (made elsewhere)"}
    assert report.board.tests[0].first == "Better (made elsewhere)"


@pytest.mark.slow
def test_page_and_workbook_of_nothing_but_these(dataset, predictions):
    words = ["--dataset", dataset.name, "--compare-kfold", "2", "--share"]
    assert compute_results.main([*words, "--with_predictions", f"Theirs={predictions(10)}"]) == 0
    workbook = openpyxl.load_workbook(paths.comparison_results() / "share" / "kfold_comparison.xlsx")
    assert "Theirs (made elsewhere)" in {cell.value for cell in workbook.worksheets[0]["A"]}


def test_a_missing_video_is_named(dataset, predictions):
    folder = predictions(10)
    (folder / "SD_2.txt").unlink()
    with pytest.raises(
        UserError, match=r"Theirs: .* lacks predictions of SD_2: expected a file <video>.txt of each of the 3"
    ):
        read_foreign("Theirs", folder, dataset, SPLITS)


def test_another_length_is_named_with_both_counts(dataset, predictions):
    folder = predictions(10)
    (folder / "BN_1.txt").write_text("wash\n" * 25)
    with pytest.raises(UserError, match=r"other lengths than the labels of BN_1 \(25 instead of 100\)"):
        read_foreign("Theirs", folder, dataset, SPLITS)


def test_an_unknown_phase_is_named(dataset, predictions):
    folder = predictions(10)
    (folder / "BN_1.txt").write_text("wahs\n" * 100)
    with pytest.raises(UserError, match=r"BN_1.*wahs"):
        read_foreign("Theirs", folder, dataset, SPLITS)


def test_values_that_are_no_probabilities_are_refused(dataset, predictions):
    folder = predictions(10)
    np.save(folder / "BN_1.npy", np.full((100, 3), 7.0))
    with pytest.raises(UserError, match=r"BN_1.npy: expected probabilities between 0 and 1"):
        read_foreign("Theirs", folder, dataset, SPLITS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["TeCNO"], "expected NAME=DIR"),
        (["=here"], "expected NAME=DIR"),
        (["a/b=."], "cannot be the name of a row"),
        (["A=.", "A=."], "A is given twice"),
        (["A=no/such/folder"], "no such folder"),
    ],
)
def test_words_that_name_no_folder(words, message):
    with pytest.raises(UserError, match=message):
        named_folders(words)
