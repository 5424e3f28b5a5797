"""Workbooks: typed numbers with their unit, what stands out, nothing that Excel or LibreOffice has to repair."""

import csv
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from common.base import paths
from common.reports.caveats import Remark
from common.reports.comparison import EfficiencyPoint, SeedVariance, make_report
from common.reports.published import PublishedRow
from common.reports.results import EncoderResult, SplitResult
from common.reports.workbook.sheet import P_VALUE, Sheet
from common.reports.workbook.workbook import HEADER_ROW, save_comparison, save_workbook
from common.scoring.further_measures import further_name, further_summary
from common.scoring.metrics import MEASURES
from common.scoring.protocols import PROTOCOLS, methods_sentence
from common.scoring.significance import VarianceComponents
from common.scoring.video_score import VideoScore

PHASES = ("background", "incision", "wash", "never_seen")
FOLDS = (("BL_1", "BL_2", "=SUM(1)"), ("SD_1", "SD_2", "#N/A", "SD_4"))
SHEETS = [
    "summary", "folds", "videos", "phases", "confusion", "tests", "protocols", "further", "saving", "methods", "runs", "notes",
]  # fmt: skip


def encoder_result(name: str, wrong_frames: int, *, probabilities: bool = True, **record) -> EncoderResult:
    """Two folds of 100-frame videos at 5 fps, in each of which the first `wrong_frames` of the wash are called incision."""
    true = np.repeat([0, 1, 2], [25, 25, 50])
    predicted = true.copy()
    predicted[50 : 50 + wrong_frames] = 1
    likely = np.eye(len(PHASES))[predicted] * 0.8 + 0.04
    score = VideoScore(true, predicted, len(PHASES), 0, 5.0, (lambda: likely) if probabilities else None)
    splits = []
    for number, videos in enumerate(FOLDS, 1):
        made = {
            "synthetic": False, "split": str(number), "seed": 42, "phases": list(PHASES), "videos": list(videos),
            "folds_hash": "f" * 64,
            "test_inputs_hash": "a" * 64, "git": {"commit": "c" * 40, "dirty": False}, "num_threads": 2,
            "versions": {"python": "3.11.7"}, "train_seconds": 12.5, "predict_seconds": 1.5,
            "peak_memory_bytes": 2_500_000_000, "config": {"causal": False, "features_dim": 48, "variant": None},
            "features": {
                "identity": {"weights": {"source": "hub:x", "file": None, "sha256": "b" * 64}},
                "random_weights": False, "num_parameters": 25_600_000, "precision": "fp32",
            },
        }  # fmt: skip
        splits.append(SplitResult(made | record, dict.fromkeys(videos, score)))
    return EncoderResult(paths.Model(Path(name)), None, splits)


def compare(root, *results, **options):
    root.mkdir(exist_ok=True)
    (root / "mapping.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    return make_report(paths.Dataset(root), results, list(PROTOCOLS.values()), **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two equally good encoders, one nearly as good without probabilities, one clearly worse."""
    results = [
        encoder_result("Good", 5),
        encoder_result("Twin", 5),
        encoder_result("Bare", 6, probabilities=False),
        encoder_result("Bad", 20),
    ]
    return compare(tmp_path_factory.mktemp("data") / "made", *results)


@pytest.fixture(scope="module")
def book(report, tmp_path_factory):
    return openpyxl.load_workbook(save_comparison(report, tmp_path_factory.mktemp("book") / "book.xlsx"))


def cells(book, title: str, column: str) -> dict[str, openpyxl.cell.Cell]:
    """The cells of a column by the value in the first column; of equal ones the first."""
    page = book[title]
    headers = [cell.value for cell in page[HEADER_ROW]]
    found = {}
    for row in page.iter_rows(min_row=HEADER_ROW + 1):
        found.setdefault(row[0].value, row[headers.index(column)])
    return found


def values(book, title: str, column: str) -> list:
    page = book[title]
    place = [cell.value for cell in page[HEADER_ROW]].index(column)
    return [row[place].value for row in page.iter_rows(min_row=HEADER_ROW + 1)]


def is_boxed(cell) -> bool:
    sides = (cell.border.left, cell.border.right, cell.border.top, cell.border.bottom)
    return all(side is not None and side.style == "thin" for side in sides)


def one_sheet(tmp_path, table: dict, **layout):
    """A workbook of one table, read again."""
    sheet = Sheet("one", "caption", pd.DataFrame(table), **layout)
    return openpyxl.load_workbook(save_workbook([sheet], tmp_path / "one.xlsx", title="title"))["one"]


def test_every_sheet_that_has_rows_is_there(book):
    assert book.sheetnames == SHEETS


def test_title_caption_headers_and_what_stays_in_view(book, report):
    assert book.properties.title == f"{report.title}, protocol challenge"
    for page in book:
        assert page["A1"].value == f"{report.title}, protocol challenge: {page.title}"
        assert page["A2"].value
        assert page.freeze_panes in ("B4", "C4")
        assert page.auto_filter.ref.startswith("A3:")
        assert page.page_setup.orientation == "landscape"
        assert page.sheet_properties.pageSetUpPr.fitToPage
        assert page.page_setup.fitToHeight == 0
        assert page.print_title_rows == "$3:$3"


def test_percentages_are_numbers_and_undefined_ones_are_said_to_be(book):
    for page in book:
        for column in page.iter_cols(min_row=HEADER_ROW):
            header, *below = column
            if header.value.endswith("%"):
                assert all(isinstance(cell.value, (int, float)) or cell.value == "n/a" for cell in below), header.value


def test_means_spreads_and_intervals_are_percent(book, report):
    means = cells(book, "summary", "Accuracy mean %")
    assert {name: cell.value for name, cell in means.items()} == pytest.approx(
        {"Good": 95, "Twin": 95, "Bare": 94, "Bad": 80}
    )
    assert means["Good"].number_format == "0.00"
    assert cells(book, "summary", "Accuracy std %")["Good"].value == pytest.approx(0)
    assert cells(book, "summary", "Accuracy low %")["Bad"].value == pytest.approx(80)
    assert cells(book, "summary", "Accuracy high %")["Bad"].value == pytest.approx(80)
    assert cells(book, "summary", "Macro F1 mean %")["Bad"].value == pytest.approx(
        100 * next(r for r in report.results if r.name == "Bad").mean("f1_macro")
    )


def test_what_an_encoder_is_and_costs_stands_in_the_summary(book):
    found = {name: cells(book, "summary", name)["Good"].value for name in ("Splits", "Videos", "Seed", "Weights")}
    assert found == {"Splits": 2, "Videos": 7, "Seed": 42, "Weights": "hub:x"}
    assert cells(book, "summary", "Parameters of the encoder, millions")["Good"].value == 25.6
    assert cells(book, "summary", "Feature dimension")["Good"].value == 48
    assert cells(book, "summary", "Features on disk, MB a video")["Good"].value == "n/a"


def test_equally_good_encoders_are_both_marked_best(book):
    found = cells(book, "summary", "Accuracy mean %")
    assert [name for name, cell in found.items() if cell.font.bold and is_boxed(cell)] == ["Good", "Twin"]


def test_encoders_tied_with_the_best_are_in_a_box_and_undefined_ones_are_not(tmp_path, report):
    letters = {measure: dict.fromkeys(report.board.names, "a") | {"Bad": "b"} for measure in MEASURES}
    tied = replace(report, boards=[replace(report.board, letters=letters)])
    book = openpyxl.load_workbook(save_comparison(tied, tmp_path / "tied.xlsx"))
    found = cells(book, "summary", "Accuracy mean %")
    assert is_boxed(found["Bare"])
    assert not found["Bare"].font.bold
    assert not is_boxed(found["Bad"])
    assert not is_boxed(cells(book, "summary", "PR-AUC mean %")["Bare"])
    assert "protocols" in book.sheetnames


def test_an_undefined_value_is_grey_and_to_the_right(book):
    cell = cells(book, "summary", "PR-AUC mean %")["Bare"]
    assert cell.value == "n/a"
    assert cell.alignment.horizontal == "right"
    assert cell.font.color.rgb == "FF767676"


def test_one_encoder_alone_is_not_the_best_of_anything(tmp_path):
    alone = compare(tmp_path / "made", encoder_result("Only", 5))
    book = openpyxl.load_workbook(save_comparison(alone, tmp_path / "alone.xlsx"))
    assert "tests" not in book.sheetnames
    for title in ("summary", "folds", "phases", "protocols", "further"):
        assert not any(is_boxed(cell) for row in book[title].iter_rows(min_row=HEADER_ROW + 1) for cell in row)


def test_folds_have_typed_numbers(book):
    assert values(book, "folds", "Split") == [1, 2] * 4
    assert values(book, "folds", "Videos") == [3, 4] * 4
    assert values(book, "folds", "Frames") == [300, 400] * 4
    assert cells(book, "folds", "Frames")["Good"].number_format == "#,##0"


def test_videos_are_listed_under_every_protocol_the_headline_first(book):
    assert values(book, "videos", "Protocol") == [name for name in PROTOCOLS for _ in range(4 * 7)]
    assert "Patient" not in [cell.value for cell in book["videos"][HEADER_ROW]]
    assert values(book, "videos", "Accuracy %")[0] == pytest.approx(95)


def test_patients_are_listed_where_they_are_known(tmp_path):
    (tmp_path / "made" / "groundTruth").mkdir(parents=True)
    (tmp_path / "made" / "groundTruth" / "BL_1.txt").write_text("wash\n")
    (tmp_path / "made" / "patients.csv").write_text("video,patient\nBL_1,p1\n")
    with_patients = compare(tmp_path / "made", encoder_result("Only", 5))
    book = openpyxl.load_workbook(save_comparison(with_patients, tmp_path / "p.xlsx"))
    assert values(book, "videos", "Patient")[:3] == ["p1", "n/a", "n/a"]


def test_text_is_never_a_formula_or_an_error(book):
    page = book["videos"]
    names = {cell.value: cell.data_type for cell in page["B"][HEADER_ROW:]}
    assert names["=SUM(1)"] == "s"
    assert names["#N/A"] == "s"
    assert not [cell for page in book for row in page.iter_rows() for cell in row if cell.data_type in "fe"]


def test_characters_that_the_format_cannot_hold_are_replaced(tmp_path):
    page = one_sheet(tmp_path, {"Video": ["a\x07b"], "x\x00y": ["ok"]})
    assert page["A4"].value == "a\N{REPLACEMENT CHARACTER}b"
    assert page["B3"].value == "x\N{REPLACEMENT CHARACTER}y"


def test_phases_over_all_frames(book):
    first = {name: values(book, "phases", name)[:4] for name in ("Phase", "Recall %", "Precision %", "True frames")}
    assert first["Phase"] == list(PHASES)
    assert first["Recall %"] == [100, 100, 90, "n/a"]
    assert first["Precision %"] == [100, pytest.approx(100 * 25 / 30), 100, "n/a"]
    assert first["True frames"] == [175, 175, 350, 0]
    assert values(book, "phases", "Videos")[:4] == [7, 7, 7, 0]


def test_the_rows_of_a_confusion_are_shares_of_the_true_frames(book):
    page = book["confusion"]
    wash = [cell.value for cell in page[HEADER_ROW + 3]]
    assert wash == ["Good", "wash", 350, 0, 10, 90, 0]
    assert page.cell(HEADER_ROW + 3, 6).font.bold
    assert not page.cell(HEADER_ROW + 3, 5).font.bold
    never = [cell.value for cell in page[HEADER_ROW + 4]]
    assert never == ["Good", "never_seen", 0, *["n/a"] * 4]
    assert page.auto_filter.ref == "A3:C19"


def test_tests_have_effects_and_typed_p_values(book, report):
    expected = report.board.tests[2]
    row = [cell.value for cell in book["tests"][HEADER_ROW + 3]]
    assert row[:4] == ["Accuracy", "Good", "Bad", 7]
    assert row[4] == pytest.approx(15)
    found = book["tests"].cell(HEADER_ROW + 3, 12)
    assert found.value == pytest.approx(expected.p_holm)
    assert found.number_format == P_VALUE
    # of six pairs over seven videos the smallest p is 6 * 2 / 128; fewer pairs have probabilities
    said = values(book, "tests", "Significant")
    assert said[:6] == ["not separated: too few videos"] * 6
    all_tests = [*report.board.tests, *report.savings.tests]
    yes = {test: "yes" if test.is_significant else "no" for test in all_tests}
    pr_auc = [(word, yes[test]) for word, test in zip(said, yes, strict=True) if test.measure == "pr_auc"]
    assert any(word == "yes" for word, _ in pr_auc)
    assert all(word == expected for word, expected in pr_auc)
    assert len(yes) == (8 + 1) * 6
    assert values(book, "tests", "Measure")[-6:] == ["Time saved"] * 6


def test_every_protocol_ranks_every_encoder(book, report):
    assert values(book, "protocols", "Protocol") == [name for name in PROTOCOLS for _ in range(4)]
    assert values(book, "protocols", "Rank") == [1, 2, 3, 4] * 4
    expected = [100 * board.cells[name]["f1_macro"].mean for board in report.boards for name in board.names]
    assert values(book, "protocols", "Macro F1 mean %") == pytest.approx(expected)
    best = [cell.font.bold for cell in book["protocols"]["D"][HEADER_ROW:]]
    assert best == [True, True, False, False] * 4
    assert values(book, "methods", "Methods") == [
        methods_sentence(protocol, "background") for protocol in PROTOCOLS.values()
    ]


def test_further_measures_know_which_of_them_are_errors(book, report):
    column = f"{further_name('calibration_error')}, %"
    found = cells(book, "further", column)
    expected = {r.name: further_summary(list(r.scores.values()))["calibration_error"] for r in report.results}
    assert found["Bad"].value == pytest.approx(100 * expected["Bad"])
    lowest = min(value for value in expected.values() if not np.isnan(value))
    assert [name for name, cell in found.items() if cell.font.bold] == [n for n in expected if expected[n] == lowest]
    assert cells(book, "further", f"{further_name('boundary_error')}, s")["Bad"].value == pytest.approx(2.0)


def test_colours_run_from_worst_to_best_and_not_where_all_are_equal(tmp_path):
    table = {"Encoder": ["a", "b"], "Up %": [1.0, 2.0], "Down s": [1.0, 2.0], "Same %": [3.0, 3.0]}
    page = one_sheet(tmp_path, table, shaded=("Up %", "Down s", "Same %"), small_is_good=("Down s",))
    scales = {str(area.sqref): rule.colorScale for area in page.conditional_formatting for rule in area.rules}
    assert set(scales) == {"B4:B5", "C4:C5"}
    up, down = ([colour.rgb for colour in scales[area].color] for area in ("B4:B5", "C4:C5"))
    assert up == down[::-1]
    assert [value.type for value in scales["B4:B5"].cfvo] == ["min", "percentile", "max"]


def test_long_text_is_wrapped_and_its_row_is_high_enough(tmp_path):
    page = one_sheet(tmp_path, {"Kind": ["x"], "Note": ["many words " * 30]}, widths={"Note": 50})
    assert page["B4"].alignment.wrap_text
    assert page.row_dimensions[4].height >= 7 * 12
    assert not page["A4"].alignment.wrap_text


def test_warnings_are_red_on_every_sheet_and_come_first_in_the_notes(tmp_path, report):
    warned = replace(report, remarks=[Remark("calm"), Remark("Leak: BL_1", alarming=True)])
    book = openpyxl.load_workbook(save_comparison(warned, tmp_path / "warned.xlsx"))
    for page in book:
        assert page["A1"].font.color.rgb == "FFB00020"
        assert page["A1"].value.endswith("Read the warnings in the sheet notes")
    assert values(book, "notes", "Note")[:2] == ["Leak: BL_1", "calm"]
    assert cells(book, "notes", "Note")["warning"].font.color.rgb == "FFB00020"
    assert cells(book, "notes", "Note")["remark"].font.color.rgb == "FF000000"
    assert book["notes"].sheet_properties.tabColor.rgb == "FFB00020"


def test_nothing_is_red_without_a_warning(book):
    assert {page["A1"].font.color.rgb for page in book} == {"FF000000"}
    assert book["notes"].sheet_properties.tabColor is None


def test_synthetic_data_and_random_weights_are_called_so_on_every_sheet(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "sample.json").write_text("{}")
    untrained = {"identity": None, "random_weights": True, "num_parameters": None, "precision": None}
    report = compare(tmp_path / "made", encoder_result("Only", 5, synthetic=True, features=untrained))
    book = openpyxl.load_workbook(save_comparison(report, tmp_path / "marked.xlsx"))
    assert all("synthetic data" in page["A1"].value for page in book)
    assert set(values(book, "folds", "Encoder")) == {"Only (random weights)"}
    assert values(book, "runs", "Random weights") == ["yes", "yes"]
    assert values(book, "runs", "Weights") == ["n/a", "n/a"]


def test_runs_say_what_identifies_them(book):
    row = {name: values(book, "runs", name)[1] for name in ("Split", "Weights SHA-256", "Commit", "Peak memory GB")}
    assert row == {"Split": 2, "Weights SHA-256": "b" * 64, "Commit": "c" * 40, "Peak memory GB": 2.5}
    assert values(book, "runs", "Uncommitted changes")[0] == "no"
    assert values(book, "runs", "Version of python")[0] == "3.11.7"
    assert book["runs"].column_dimensions["E"].width < 20, "a hash takes no more room than it is worth"


def test_quoted_rows_are_on_a_sheet_of_their_own_and_marked(tmp_path):
    row = PublishedRow("ResNet-50", "Base", "a study", {"accuracy": (0.75, 0.01)})
    quoting = compare(tmp_path / "made", encoder_result("Only", 5), published=[row])
    book = openpyxl.load_workbook(save_comparison(quoting, tmp_path / "quoting.xlsx"))
    assert values(book, "quoted", "Encoder") == ["ResNet-50 (quoted)"]
    assert values(book, "quoted", "Accuracy mean %") == [75]
    assert values(book, "quoted", "Edit mean %") == ["n/a"]
    assert cells(book, "quoted", "Accuracy mean %")["ResNet-50 (quoted)"].font.italic
    assert values(book, "summary", "Encoder") == ["Only"]


def test_label_efficiency_and_seeds_where_there_are_several_runs(tmp_path, report):
    point = EfficiencyPoint(0.25, 12.5, dict.fromkeys(MEASURES, (0.8, 0.02)))
    found = SeedVariance("Good", "accuracy", [42, 43], VarianceComponents(fold=0.0004, seed=0.0001, residual=0.0))
    several = replace(report, efficiency={"Good": [point]}, seed_variance=[found])
    book = openpyxl.load_workbook(save_comparison(several, tmp_path / "several.xlsx"))
    efficiency = [cell.value for cell in book["efficiency"][HEADER_ROW + 1]]
    assert efficiency[:5] == ["Good", 25, 12.5, 80, 2]
    seeds = [cell.value for cell in book["seeds"][HEADER_ROW + 1]]
    assert seeds == ["Good", "Accuracy", "42, 43", pytest.approx(2), pytest.approx(1), 0]


def test_an_ampersand_in_the_name_of_a_data_set_is_printed(tmp_path):
    sheet = Sheet("one", "caption", pd.DataFrame({"a": [1]}))
    path = save_workbook([sheet], tmp_path / "one.xlsx", title="R&D" + "x" * 300)
    footer = openpyxl.load_workbook(path)["one"].oddFooter.left.text
    assert footer.startswith("R&&Dxxx")
    assert len(footer) < 255


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("soffice"), reason="LibreOffice is not installed")
def test_libreoffice_reads_every_sheet(tmp_path, report):
    tiny = Sheet("p values", "caption", pd.DataFrame({"p": [0.00001, 0.25]}), formats={"p": P_VALUE})
    save_comparison(report, tmp_path / "book.xlsx")
    save_workbook([tiny], tmp_path / "tiny.xlsx", title="title")
    every_sheet_as_shown = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,true,false,false,-1"
    subprocess.run(
        ["soffice", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless", "--convert-to",
         every_sheet_as_shown, "--outdir", str(tmp_path / "csv"), str(tmp_path / "book.xlsx"), str(tmp_path / "tiny.xlsx")],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip

    def shown(name: str) -> list[list[str]]:
        with open(tmp_path / "csv" / f"{name}.csv", encoding="utf-8", newline="") as stream:
            return list(csv.reader(stream))

    for title in SHEETS:
        assert len(shown(f"book-{title}")) > HEADER_ROW
    header, first = shown("book-summary")[HEADER_ROW - 1 : HEADER_ROW + 1]
    assert dict(zip(header, first, strict=True))["Accuracy mean %"] == "95.00"
    assert "=SUM(1)" in [row[1] for row in shown("book-videos")]
    assert shown("book-confusion")[HEADER_ROW + 2][3:] == ["·", "10.0", "90.0", "·"]
    assert [row[0] for row in shown("tiny-p values")[HEADER_ROW:]] == ["< 0.0001", "0.2500"]
