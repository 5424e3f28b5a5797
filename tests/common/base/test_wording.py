"""Words for people: places, lists, counts, clock times, tables."""

from pathlib import Path

import pytest

from common.base.wording import brief, clock, format_table, place, seconds_of, text_cell, written_line


def test_a_place_is_a_frame_with_its_time_where_the_rate_is_known():
    assert place(1510, 25) == "frame 1510 (1:00.4)"
    assert place(1510, None) == "frame 1510"
    assert (seconds_of(1510, 25), seconds_of(1510, None)) == (60.4, None)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.99, "0:59"), (60, "1:00"), (2.9999999, "0:03"), (4530, "75:30")]
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_text_table_is_aligned():
    lines = format_table([["Encoder", "A"], ["x", "1.00"], ["longer name", "12.00"]]).splitlines()
    assert lines[2] == "x             1.00"
    assert lines[3] == "longer name  12.00"


def test_wide_characters_take_two_columns_of_a_table():
    lines = format_table([["Name", "n"], ["手術", "1"], ["ab", "22"]]).splitlines()
    assert lines[2:] == ["手術   1", "ab    22"]


def test_a_long_name_is_brief_without_its_middle():
    assert brief("short") == "short"
    assert brief("a" * 30 + "b" * 30, 21) == "a" * 10 + "…" + "b" * 10


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@a", "\tx"])
def test_a_text_that_looks_like_a_formula_gets_an_apostrophe(text):
    assert text_cell(text) == f"'{text}"
    assert text_cell(f"a{text}") == f"a{text}"


def test_files_that_were_written_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, chart = tmp_path / "results" / "report.html", tmp_path / "results" / "chart.png"
    assert written_line([page]) == f"wrote {Path('results') / 'report.html'}"
    assert written_line([page, chart]) == f"wrote {Path('results') / 'report.html'} and 1 more file in results"
    line = written_line([page, chart, tmp_path / "models" / "Base" / "a.png"])
    assert line == f"wrote {Path('results') / 'report.html'} and 2 more files in results and 1 other folder"
    confusions = [tmp_path / "models" / f"Encoder{number}" / "a.png" for number in range(20)]
    line = written_line([page, chart, *confusions])
    assert line == f"wrote {Path('results') / 'report.html'} and 21 more files in results and 20 other folders"
    monkeypatch.chdir("/")
    assert written_line([Path("/elsewhere/report.html")]) == "wrote elsewhere/report.html"
