"""Fonts for names in any script: those on this machine that have the glyphs, and one sentence where none has."""

import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)

FIRST = "DejaVu Sans"  # comes with matplotlib: what it has looks the same on every machine
# what Linux, Windows and macOS bring for the scripts that it lacks
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "IPAexGothic", "IPAGothic", "TakaoGothic", "NanumGothic", "Microsoft YaHei", "SimHei", "Yu Gothic", "Meiryo",
    "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai",
    "Nirmala UI", "Leelawadee UI", "Segoe UI", "Geneva",
)  # fmt: skip
MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")  # how matplotlib begins this warning


@functools.cache
def families() -> list[str]:
    """The families to look for a glyph in, in order: of those listed here the ones that are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [FIRST, *(name for name in OTHERS if name in installed)]


@functools.cache
def font_file(text: str, *, bold: bool = False) -> Path:
    """The file of the first font that has every character of `text`; DejaVu Sans where none has."""
    # matplotlib's own copy of the first, whatever else is installed under its name
    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    weight = "bold" if bold else "normal"
    others = (font_manager.FontProperties(family=name, weight=weight) for name in families()[1:])
    for path in (own, *(Path(font_manager.findfont(font)) for font in others)):
        if set(map(ord, text)) <= FT2Font(path).get_charmap().keys():
            return path
    _say_what_is_missing(frozenset(text))
    return own


@contextlib.contextmanager
def naming_missing_glyphs() -> Iterator[None]:
    """Collect matplotlib's warning of every missing glyph into one sentence; other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = set()
    for warning in caught:
        if match := MISSING_GLYPH.match(str(warning.message)):
            missing.add(chr(int(match[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        _say_what_is_missing(frozenset(missing))


@functools.cache  # once for the same characters, however many pictures lack them
def _say_what_is_missing(characters: Iterable[str]) -> None:
    known = set().union(*(FT2Font(font_manager.findfont(family)).get_charmap() for family in families()))
    lacking = sorted(character for character in characters if ord(character) not in known)
    log.warning(
        "pictures show boxes for %s: no font on this machine has these characters; install one that does, such as Noto "
        "Sans CJK",
        "".join(lacking[:20]) + ("..." if len(lacking) > 20 else ""),
    )
