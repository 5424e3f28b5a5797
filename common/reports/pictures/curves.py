"""Curves: loss and accuracy while training, and measures against the number of labelled videos."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.reports.chart_data import efficiency_panels
from common.reports.comparison import Report
from common.reports.pictures.style import QUIET, series_style, tidy, write_remarks, write_title
from common.reports.results import EncoderResult


def learning_curves(report: Report) -> Figure | None:
    """Training loss and training accuracy by epoch: mean over folds, the range of the folds behind; None without records."""
    shown = [result for result in report.results if all(split.record["history"] for split in result.splits)]
    if not shown:
        return None
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, result in enumerate(shown):
        _training_curve(left, result, "loss", index)
        _training_curve(right, result, "accuracy", index, scale=100)
    left.set(ylabel="training loss", yscale="log", xlabel="epoch")
    left.yaxis.set_major_formatter("{x:g}")  # a log axis would write 10 to the power of
    left.yaxis.set_minor_formatter("{x:g}")
    right.set(ylabel="accuracy on training frames, percent", xlabel="epoch")
    for axes in (left, right):
        tidy(axes, grid="both")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: training of the head")
    folds = "Line: mean over folds; band: lowest to highest fold. " if len(shown[0].splits) > 1 else ""
    figure.supxlabel(
        f"{folds}The last epoch is scored, on videos that these curves have not seen.", fontsize=8, color=QUIET
    )
    return figure


def _training_curve(axes: Axes, result: EncoderResult, key: str, index: int, scale: float = 1) -> None:
    histories = [[scale * entry[key] for entry in split.record["history"]] for split in result.splits]
    length = min(map(len, histories))  # a fold that was trained on has a longer record
    values = np.array([history[:length] for history in histories])
    style = series_style(index)
    epochs = np.arange(1, length + 1)
    marks = {"markevery": max(1, length // 8), "markersize": 4}
    axes.plot(epochs, values.mean(axis=0), label=result.name, linewidth=1.6, **marks, **style)
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.13, linewidth=0)


def efficiency_picture(report: Report) -> Figure | None:
    """Measures against the number of training videos, with the standard deviation over folds; None without such runs."""
    if not report.efficiency:
        return None
    panels, ticks = efficiency_panels(report)
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    row = figure.subplots(1, len(panels))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for index, curve in enumerate(curves):
            # without a spread at all (one split) no caps either
            spread = None if np.isnan(curve.stds).all() else curve.stds
            look = {"label": curve.name, "linewidth": 1.6, "markersize": 5, "capsize": 3}
            axes.errorbar(curve.num_videos, curve.means, yerr=spread, **look, **series_style(index))
        axes.set_xscale("log")
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
        axes.set_xlabel("training videos of a fold")
        axes.set_title(title, loc="left", fontsize=10)
        tidy(axes, grid="both")
    row[0].set_ylabel("percent")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: what fewer labelled videos cost, protocol {report.board.protocol.name}")
    write_remarks(figure, report.warnings)
    return figure
