"""One encoder's workbook: every run, unfinished ones said to be so, nothing of other folds."""

import openpyxl
import pytest

from common import export_to_excel, train
from common.base import paths
from common.base.runtime import UserError
from common.dataset.kfold import make_folds, read_folds, write_folds
from common.reports.workbook.workbook import HEADER_ROW
from common.run_k_folds import main as run_k_folds
from tests.common.conftest import FOLD_WORDS

HEAD = [
    "--num_layers_PG",
    "3",
    "--num_layers_R",
    "3",
    "--num_R",
    "1",
    "--num_f_maps",
    "8",
    "--num_epochs",
    "12",
    "--lr",
    "0.02",
]
WORDS = [*FOLD_WORDS, *HEAD]
EXPORT = ["--dataset", "made", "--model", "ColorHistogram"]


@pytest.fixture
def finished(made):
    """A finished run of two folds."""
    run_k_folds(WORDS)
    return made


def exported(*words: str) -> openpyxl.Workbook:
    assert export_to_excel.main([*EXPORT, *words]) == 0
    return openpyxl.load_workbook(paths.model("ColorHistogram").workbook)


def column(book: openpyxl.Workbook, title: str, name: str) -> list:
    page = book[title]
    place = [cell.value for cell in page[HEADER_ROW]].index(name)
    return [row[place].value for row in page.iter_rows(min_row=HEADER_ROW + 1)]


@pytest.mark.slow
def test_every_run_is_there_and_the_path_is_printed(finished, capsys):
    run_k_folds([*WORDS, "--seed", "7"])
    capsys.readouterr()
    book = exported()
    assert capsys.readouterr().out.strip() == str(paths.model("ColorHistogram").workbook)
    assert set(column(book, "summary", "Encoder")) == {"ColorHistogram", "ColorHistogram (seed7)"}
    assert column(book, "summary", "Splits") == [2, 2]
    assert book.properties.title == "ColorHistogram: made, 2-fold cross-validation, protocol challenge"
    assert "warning" not in column(book, "notes", "Kind")
    assert "seeds" in book.sheetnames


@pytest.mark.slow
def test_a_run_that_lacks_folds_is_there_with_a_warning(finished):
    run_k_folds([*WORDS, "--run", "short", "--num_epochs", "1", "--only", "2"])
    book = exported()
    splits = dict(zip(column(book, "summary", "Encoder"), column(book, "summary", "Splits"), strict=True))
    assert splits == {"ColorHistogram": 2, "ColorHistogram (short)": 1}
    warnings = [note for note in column(book, "notes", "Note") if note.startswith("Unfinished")]
    assert warnings == ["Unfinished: of 2 folds, the numbers of ColorHistogram (short) over 2 only."]
    assert "Read the warnings" in book["summary"]["A1"].value


def test_one_fold_alone_is_compared_without_a_warning(finished):
    book = exported("--split", "2")
    assert column(book, "folds", "Split") == [2]
    assert column(book, "summary", "Accuracy std %") == ["n/a"]
    assert "warning" not in column(book, "notes", "Kind")


def test_the_validation_part_is_exported_when_asked_for(made):
    training = [*EXPORT, "--split", "val", "--device", "cpu", *HEAD]
    train.main(training)
    train.main(["--action", "predict", *training])
    book = exported("--split", "val")
    assert column(book, "folds", "Split") == ["val"]
    assert column(book, "folds", "Videos") == [2]
    assert book.properties.title == "ColorHistogram: made, split val, protocol challenge"


def test_a_split_that_is_not_finished_says_what_to_run(finished):
    with pytest.raises(UserError, match=r"no finished run of split 9; run: python -m common\.train .* --split 9"):
        export_to_excel.main([*EXPORT, "--split", "9"])


def test_the_protocol_asked_for_is_that_of_the_summary(finished):
    book = exported("--protocol", "pooled")
    assert book.properties.title.endswith("protocol pooled")
    assert column(book, "methods", "Protocol")[:2] == ["pooled", "challenge"]


def test_runs_on_other_folds_are_left_out(finished, caplog):
    old = read_folds(finished.dataset)
    new = next(folds for seed in range(99) if (folds := make_folds(old[0] + old[1], 2, seed=seed)) != old)
    write_folds(finished.dataset, new, seed=0, stratify="prefix", patients={})
    with pytest.raises(UserError, match="no finished run of any fold"):
        export_to_excel.main(EXPORT)
    assert "was run on other folds" in caplog.text


def test_nothing_finished_says_what_to_run(made):
    with pytest.raises(UserError, match=r"no finished run of any fold; run: python -m common\.run_k_folds"):
        export_to_excel.main(EXPORT)


@pytest.mark.slow
def test_a_seed_that_lacks_folds_is_there_too(finished):
    run_k_folds([*WORDS, "--seed", "7", "--only", "1"])
    book = exported()
    assert dict(zip(column(book, "summary", "Encoder"), column(book, "summary", "Splits"), strict=True)) == {
        "ColorHistogram": 2,
        "ColorHistogram (seed7)": 1,
    }
    assert "seeds" not in book.sheetnames
