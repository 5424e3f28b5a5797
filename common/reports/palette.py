"""Colours: the same phase, measure or encoder always has the same one, told apart by colour-blind readers too."""

from __future__ import annotations

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


def phase_colours(names: list[str] | tuple[str, ...]) -> list[str]:
    """A colour for each phase by its id; a phase called `background` is grey."""
    colours = iter(range(len(names)))
    return [BACKGROUND if name == "background" else PHASE_COLOURS[next(colours) % len(PHASE_COLOURS)] for name in names]
