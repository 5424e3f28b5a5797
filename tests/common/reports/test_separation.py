"""Who can be told from whom: ties only where tests could have shown a difference, and every row against a baseline."""

import json
import re

import numpy as np
import openpyxl
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.reports.comparison import make_report
from common.reports.leaderboard import make_leaderboard
from common.reports.page.page import save_page
from common.reports.pictures.charts import comparison_chart, comparison_table
from common.reports.results import EncoderResult
from common.reports.text import leaderboard_rows
from common.reports.workbook.workbook import HEADER_ROW, save_comparison
from common.scoring.protocols import CHALLENGE
from tests.common.reports.page.packed import charts_of
from tests.common.reports.rows import PHASES, row


def equal_rows(count: int, num_videos: int, seed: int = 0) -> list[EncoderResult]:
    """Encoders that differ by chance alone."""
    rng = np.random.default_rng(seed)
    return [row(f"E{number}", rng.uniform(0.6, 0.8, num_videos)) for number in range(count)]


def ordered_rows(count: int, num_videos: int) -> list[EncoderResult]:
    """Encoders each of which is better than the next in every video: as different as can be."""
    return [row(f"E{number}", np.full(num_videos, 0.9 - 0.03 * number)) for number in range(count)]


@pytest.fixture
def report_of(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "mapping.txt").write_text("".join(f"{index} {phase}\n" for index, phase in enumerate(PHASES)))

    def made(results, **options):
        return make_report(paths.Dataset(folder), results, [CHALLENGE], **options)

    return made


def test_eight_rows_on_ten_videos_cannot_be_told_apart_and_are_not_called_tied():
    """28 pairs times 2 / 1024: however different, no p value can fall below 0.05."""
    board = make_leaderboard(ordered_rows(8, 10), CHALLENGE)
    family = board.families["accuracy"]
    assert (family.num_pairs, family.num_units, family.smallest_p) == (28, 10, pytest.approx(28 * 2 / 1024))
    assert set(board.letters["accuracy"].values()) == {""}
    assert board.separation.startswith("Accuracy: not separated: too few videos (the smallest p that 28 pairs over 10")
    assert "0.055" in board.separation
    assert "Tied" not in leaderboard_rows(board)[0]


def test_eleven_videos_are_enough_and_the_reach_is_shown():
    board = make_leaderboard(ordered_rows(8, 11), CHALLENGE)
    assert sorted(board.letters["accuracy"].values()) == list("abcdefgh")
    assert "share a letter are statistically tied" in board.separation
    assert "the smallest p that 28 pairs over 11 videos can have after Holm's correction is 0.027" in board.separation


def test_patients_are_what_counts_where_they_are_known():
    results = ordered_rows(2, 12)
    pairs = {f"video{number:03}": f"P{number // 3}" for number in range(12)}
    board = make_leaderboard(results, CHALLENGE, pairs)
    assert board.families["accuracy"].smallest_p == 2 / 2**4
    assert "too few videos" in board.separation
    assert "4 patients" in board.separation
    assert make_leaderboard(results, CHALLENGE).has_letters("accuracy")


def test_pairs_on_other_numbers_of_videos_count_by_the_most():
    """The third row lacks half of the videos: the other pair could have shown a difference all the same."""
    results = ordered_rows(2, 10) + ordered_rows(3, 4)[2:]
    family = make_leaderboard(results, CHALLENGE).families["accuracy"]
    assert (family.num_units, family.smallest_p) == (10, 3 * 2 / 1024)


def text_of(path):
    """What a page says, its charts included."""
    page = path.read_text(encoding="utf-8")
    return page.split("<main>")[1] + json.dumps(charts_of(page))


def test_a_single_row_is_tied_with_nobody():
    board = make_leaderboard(ordered_rows(1, 12), CHALLENGE)
    assert board.separation == ""
    assert leaderboard_rows(board)[0][:2] == ["Encoder", "Accuracy"]


def test_no_report_says_tied_where_nothing_could_have_been_told_apart(report_of, tmp_path):
    report = report_of(ordered_rows(8, 10))
    page = text_of(save_page(report, tmp_path / "report.html"))
    assert "not separated: too few videos" in page
    assert "share one" not in page
    assert ">Tied<" not in page
    assert "tied: " not in page
    texts = [text.get_text() for text in comparison_chart(report).findobj(lambda artist: hasattr(artist, "get_text"))]
    assert any("too few videos" in text for text in texts)
    assert not any("statistically tied" in text for text in texts)
    assert comparison_table(report).axes[0].tables[0][0, 1].get_text().get_text() == "Accuracy"
    book = openpyxl.load_workbook(save_comparison(report, tmp_path / "report.xlsx"))
    summary, tests = book["summary"], book["tests"]
    assert "Tied" not in [cell.value for cell in summary[HEADER_ROW]]
    for sheet in (summary, tests):
        assert "not separated: too few videos" in sheet.cell(HEADER_ROW - 1, 1).value
    assert "not significantly worse" not in summary.cell(HEADER_ROW - 1, 1).value
    columns = [cell.value for cell in tests[HEADER_ROW]]
    first = dict(zip(columns, [cell.value for cell in tests[HEADER_ROW + 1]], strict=True))
    assert first["Significant"] == "not separated: too few videos"
    assert first["Smallest p Holm"] == pytest.approx(28 * 2 / 1024)


@pytest.mark.slow
def test_against_a_baseline_only_its_pairs_are_tested(report_of, tmp_path):
    report = report_of(ordered_rows(8, 10), against="E3")
    board = report.board
    tests = [test for test in board.tests if test.measure == "accuracy"]
    assert len(tests) == 7
    assert all("E3" in (test.first, test.second) for test in tests)
    assert board.families["accuracy"].smallest_p == 7 * 2 / 1024  # 0.014, where all pairs had 0.055
    assert set(board.letters["accuracy"].values()) == {""}
    better, worse = board.contrast("accuracy", "E0"), board.contrast("accuracy", "E7")
    assert better.difference.estimate == pytest.approx(0.09)
    assert worse.difference.estimate == pytest.approx(-0.12)
    assert worse.difference.low <= worse.difference.estimate <= worse.difference.high
    assert better.is_significant
    assert board.contrast("accuracy", "E3") is None
    table = {cells[0]: cells[1] for cells in leaderboard_rows(board)}
    assert table["Encoder"] == "Against E3"
    assert table["E3"] == "baseline"
    assert table["E0"] == "differs: +9.0 (9.0 to 9.0), p 0.0137"
    page = text_of(save_page(report, tmp_path / "report.html"))
    assert "Against E3" in page
    assert "differs: -12.0" in page
    assert re.search(r"differs</span><small>-12.0 \([-0-9. to]+\)</small><small>p 0.0137</small>", page)
    assert "every row is tested against E3 alone" in page.replace("Every", "every")
    book = openpyxl.load_workbook(save_comparison(report, tmp_path / "report.xlsx"))
    columns = [cell.value for cell in book["summary"][HEADER_ROW]]
    rows = [dict(zip(columns, [cell.value for cell in line], strict=True)) for line in book["summary"].iter_rows(
        min_row=HEADER_ROW + 1, max_row=HEADER_ROW + 8)]  # fmt: skip
    assert [line["Differs from E3"] for line in rows] == ["yes", "yes", "yes", "baseline", "yes", "yes", "yes", "yes"]
    assert rows[0]["Difference, points"] == pytest.approx(9)
    assert rows[0]["p Holm"] == pytest.approx(7 * 2 / 1024)


def test_a_row_like_the_baseline_is_not_shown_to_differ():
    board = make_leaderboard([*ordered_rows(2, 12), row("Twin", np.full(12, 0.9))], CHALLENGE, against="E0")
    cells = {line[0]: line[1] for line in leaderboard_rows(board)}
    assert cells["Twin"].startswith("no difference shown: +0.0")


def test_against_on_too_few_videos_gives_no_verdict():
    board = make_leaderboard(ordered_rows(3, 5), CHALLENGE, against="E0")
    assert "not separated: too few videos" in board.separation
    assert not any("differ" in line[1] for line in leaderboard_rows(board)[1:])


@pytest.mark.parametrize("name", ["E9", "e0"])
def test_an_unknown_baseline_is_an_error_that_lists_the_rows(name):
    with pytest.raises(UserError, match=f"--against '{name}': no row is called so; there are: E0, E1"):
        make_leaderboard(ordered_rows(2, 5), CHALLENGE, against=name)


def test_a_baseline_alone_has_nothing_to_be_compared_with():
    with pytest.raises(UserError, match="the only row"):
        make_leaderboard(ordered_rows(1, 5), CHALLENGE, against="E0")


@pytest.mark.slow
def test_equal_encoders_on_ten_videos_are_never_called_tied():
    for seed in range(10):
        board = make_leaderboard(equal_rows(8, 10, seed), CHALLENGE)
        assert not board.has_letters("accuracy")
        assert not any(test.is_significant for test in board.tests)
        assert "statistically tied" not in board.separation


@pytest.mark.slow
def test_a_gap_of_one_deviation_shows_on_a_hundred_videos():
    """The mean difference is as large as the deviation of the paired differences: told apart in 95 % of draws or more."""
    separated = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base, noise = rng.uniform(0.6, 0.8, 100), rng.normal(0, 0.05, 100)
        rows = [row("Good", base + 0.05 + noise), row("Other", base), row("Third", base + rng.normal(0, 0.01, 100))]
        board = make_leaderboard(rows, CHALLENGE)
        assert board.has_letters("accuracy")
        letters = board.letters["accuracy"]
        separated += not set(letters["Good"]) & set(letters["Other"])
    assert separated >= 0.95 * 40
