"""Fonts: any name is drawn as it is, and what no font has is said once, in words."""

import warnings

import pytest
from matplotlib.figure import Figure

from common.reports.pictures import fonts
from common.reports.pictures.style import save

UNASSIGNED = "\U0003fff0\U0003fff1"  # no font has these


@pytest.fixture
def nothing_said():
    fonts._say_what_is_missing.cache_clear()


def titled(text: str) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.suptitle(text)
    return figure


def test_a_missing_glyph_is_named_once_and_in_words(nothing_said, tmp_path, caplog, recwarn):
    for number in range(2):
        save(titled(f"a{UNASSIGNED}"), tmp_path / f"{number}.png")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"pictures show boxes for {UNASSIGNED}"
    ]
    assert [str(warning.message) for warning in recwarn] == []


def test_other_warnings_pass(tmp_path):
    with pytest.warns(UserWarning, match="of another kind"), fonts.naming_missing_glyphs():
        warnings.warn("of another kind", stacklevel=1)


@pytest.mark.parametrize("text", ["$x_1^$", "50 % of $10", r"\frac{", "$$"])
def test_a_dollar_is_no_formula(tmp_path, text):
    (path,) = save(titled(text), tmp_path / "x.png")
    assert path.stat().st_size > 0


def test_a_font_file_has_the_characters_or_is_the_one_that_is_always_there(nothing_said, caplog):
    assert fonts.font_file("phase é ±").name == "DejaVuSans.ttf"
    assert fonts.font_file(UNASSIGNED, bold=True).name == "DejaVuSans-Bold.ttf"
    assert UNASSIGNED in caplog.text
