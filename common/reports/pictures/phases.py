"""Phases: how well each encoder finds each, and which it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common.dataset.phases import PhaseMapping
from common.reports.caveats import Remark
from common.reports.comparison import Report
from common.reports.pictures.style import save, write_remarks, write_title
from common.reports.results import EncoderResult
from common.scoring.further_measures import per_phase

DARK = 55  # percent of the blue scale from which a cell needs white writing


def phase_heat_map(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """F1 over all test frames of each phase, a row an encoder; a phase's share of the true frames stands by its name."""
    phases = [per_phase(list(result.scores.values())) for result in report.results]
    values = 100 * np.array([row["f1"] for row in phases])
    frames = phases[0]["frames"]
    figure = Figure(figsize=(2.6 + 0.56 * report.mapping.num_classes, 2.4 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    lowest = 10 * np.floor(
        np.nanmin(values, initial=90) / 10
    )  # rare phases differ most, and good ones too little from 0
    image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=lowest, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "n/a" if np.isnan(value) else f"{value:.0f}"
        colour = "white" if value > lowest + DARK / 100 * (100 - lowest) else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    shares = 100 * frames / frames.sum()
    labels = [f"{name}  {share:.1f} %" for name, share in zip(report.mapping.names, shares, strict=True)]
    axes.set_xticks(range(len(labels)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(values)), [result.name for result in report.results], fontsize=8)
    axes.set_xlabel("phase, and its share of the true frames")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, label="F1, percent of all test frames")
    write_title(figure, f"{report.title}: F1 of each phase")
    write_remarks(figure, [remark for remark in report.remarks if remark.alarming])
    return save(figure, path, pdf=pdf)


def confusion_plot(
    result: EncoderResult,
    mapping: PhaseMapping,
    title: str,
    remarks: Sequence[Remark],
    path: Path,
    *,
    pdf: bool = False,
) -> list[Path]:
    """Row-normalised confusion matrix in percent; rows = true phase with its frames, columns = predicted phase."""
    confusion = result.confusion
    frames = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * confusion, frames, out=np.full(confusion.shape, np.nan), where=frames > 0)
    size = 2.5 + 0.42 * mapping.num_classes
    figure = Figure(figsize=(size + 1.5, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.5), strict=True):
        value = shares[row, column]
        colour = "white" if value > DARK else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(mapping.num_classes)
    named = [f"{name}  ({int(count)})" for name, count in zip(mapping.names, frames[:, 0], strict=True)]
    axes.set_xticks(ticks, mapping.names, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(ticks, named, fontsize=8)
    axes.set(xlabel="predicted phase", ylabel="true phase (frames)")
    axes.set_title(f"{result.name}, {title}", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="percent of the true phase's frames")
    write_remarks(figure, [remark for remark in remarks if remark.alarming])
    return save(figure, path, pdf=pdf)
