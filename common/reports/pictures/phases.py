"""Phases: how well each encoder finds each, and which it takes for another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.reports.chart_data import phase_map
from common.reports.comparison import Report
from common.reports.pictures.style import write_remarks, write_title
from common.reports.results import EncoderResult

DARK = 55  # percent of the blue scale from which a cell needs white writing


def phase_heat_map(report: Report) -> Figure:
    """F1 over all test frames of each phase, a row per encoder; a phase's share of the true frames stands by its name."""
    values, lowest, shares = phase_map(report)
    figure = Figure(figsize=(2.6 + 0.56 * report.mapping.num_classes, 2.4 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=lowest, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "n/a" if np.isnan(value) else f"{value:.0f}"
        colour = "white" if value > lowest + DARK / 100 * (100 - lowest) else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    labels = [f"{name}  {share:.1f} %" for name, share in zip(report.mapping.names, shares, strict=True)]
    _name_columns(axes, labels, rotation=50)
    axes.set_yticks(range(len(values)), [result.name for result in report.results], fontsize=8)
    axes.set_xlabel("phase, and its share of the true frames")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, label="F1, percent of all test frames")
    write_title(figure, f"{report.title}: F1 of each phase")
    write_remarks(figure, report.warnings)
    return figure


def confusion_plot(result: EncoderResult, report: Report) -> Figure:
    """Row-normalised confusion matrix in percent; rows = true phase with its frames, columns = predicted phase."""
    names, shares = report.mapping.names, result.confusion_percents
    size = 2.5 + 0.42 * len(names)
    figure = Figure(figsize=(size + 1.5, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    # what rounds to 0 is left blank, as is a phase without a true frame (NaN)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.5), strict=True):
        value = shares[row, column]
        colour = "white" if value > DARK else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    _name_columns(axes, names, rotation=55)
    frames = result.confusion.sum(axis=1)
    named = [f"{name}  ({count})" for name, count in zip(names, frames, strict=True)]
    axes.set_yticks(range(len(names)), named, fontsize=8)
    axes.set(xlabel="predicted phase", ylabel="true phase (frames)")
    axes.set_title(f"{result.name}, {report.title}", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="percent of the true phase's frames")
    write_remarks(figure, report.warnings)
    return figure


def _name_columns(axes: Axes, labels: Sequence[str], *, rotation: float) -> None:
    # "anchor": turned about the end of the text, which then stands at its column
    slanted = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(labels)), labels, **slanted, fontsize=8)
