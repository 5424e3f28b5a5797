"""The style that all pictures share: size, fonts, how they are saved, what is written below them."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.base.files import atomic_path
from common.base.wording import brief, readable
from common.dataset.phases import PhaseMapping
from common.reports.caveats import Remark
from common.reports.pictures.fonts import families, naming_missing_glyphs

DPI = 150
GRID, RULE = "#DDDDDD", "#BBBBBB"
BACKGROUND = "#DDDDDD"
QUIET = "#555555"  # notes, undefined values
ALARM = "#B00020"  # leaks, numbers that must not be compared
# Colours of Paul Tol (SRON/EPS/TN/09-002), chosen so that the least difference between any two, and between phases that
# follow each other, is large for normal, protanopic and deuteranopic vision (Machado et al. 2009)
PHASE_COLOURS = (
    "#E65518", "#AA3377", "#72190E", "#4EB265", "#F0E442", "#99DDFF", "#0072B2", "#E69F00", "#EEDD88",
    "#CC6677", "#77AADD", "#222255", "#666633", "#CAE0AB", "#AE76A3", "#663333", "#332288", "#FFAABB",
)  # fmt: skip
# Okabe and Ito, Color Universal Design (2008), without black
SERIES_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKERS = "osD^vP*X"
CHARACTERS_PER_INCH = 16  # of the text below a picture

# texts take both when they are made: a `$` in a name is no formula, and a name may be in any script
matplotlib.rcParams.update({"text.parse_math": False, "font.family": families()})


def save(figure: Figure | None, path: Path, *, pdf: bool = False) -> list[Path]:
    """Write a figure atomically as PNG, and as PDF beside it when asked; returns what was written, nothing for None."""
    if figure is None:
        return []
    written = [path, path.with_suffix(".pdf")] if pdf else [path]
    for target in written:
        with atomic_path(target) as temporary, naming_missing_glyphs():
            # tight: titles, remarks and legends stand outside the figure's own edges
            figure.savefig(temporary, dpi=DPI, bbox_inches="tight", facecolor="white")
    return written


def write_title(figure: Figure, title: str, *, gap: float = 0.1) -> None:
    """The title above the upper left corner, `gap` inches away from it."""
    # places in a figure are shares of its height: divided by it, inches look the same on any number of rows
    figure.suptitle(title, x=0.01, y=1.0 + gap / figure.get_figheight(), ha="left", va="bottom", fontsize=12)


def write_remarks(figure: Figure, remarks: Sequence[Remark]) -> None:
    """Remarks below the figure, alarming ones in red."""
    line_height = 0.16 / figure.get_figheight()
    y = -0.18 / figure.get_figheight()
    for remark in remarks:
        lines = textwrap.wrap(str(remark), max(40, int(figure.get_figwidth() * CHARACTERS_PER_INCH)))
        colour, weight = (ALARM, "bold") if remark.alarming else (QUIET, "normal")
        figure.text(0.01, y, "\n".join(lines), ha="left", va="top", fontsize=7.5, color=colour, weight=weight)
        y -= line_height * len(lines)


def tidy(axes: Axes, *, grid: str = "y") -> None:
    """No box, a light grid behind the marks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def series_style(index: int) -> dict[str, object]:
    """Colour, marker and line of the series number `index`; beyond the seven colours marker and dashes tell apart."""
    dashes = ("-", "--", ":")[index // len(SERIES_COLOURS) % 3]
    return {
        "color": SERIES_COLOURS[index % len(SERIES_COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": dashes,
    }


def phase_colours(mapping: PhaseMapping) -> list[str]:
    """A colour for each phase by its id; the background is grey."""
    colours = itertools.cycle(PHASE_COLOURS)  # background takes none, so that 18 phases beside it differ
    return [BACKGROUND if name == mapping.background else next(colours) for name in mapping.names]


def phase_patches(mapping: PhaseMapping, phases: Iterable[int]) -> list[Patch]:
    """A legend's entries for those of the phases that occur in `phases`, by their ids."""
    colours = phase_colours(mapping)
    names = {phase: brief(readable(mapping.names[phase])) for phase in sorted(set(phases))}
    return [Patch(color=colours[phase], label=name) for phase, name in names.items()]
