"""Curves: loss and accuracy while training, and measures against the number of labelled videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.reports.comparison import EfficiencyPoint, Report
from common.reports.pictures.style import QUIET, save, series_style, tidy, write_remarks, write_title
from common.reports.results import EncoderResult
from common.scoring.metrics import MEASURES

EFFICIENCY_MEASURES = ("accuracy", "f1_macro", "edit", "f1@50")


def learning_curves(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """Training loss and training accuracy by epoch: mean over folds, and the range of the folds behind it."""
    shown = [result for result in report.results if all(split.record["history"] for split in result.splits)]
    if not shown:
        return []
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, result in enumerate(shown):
        _training_curve(left, result, "loss", index)
        _training_curve(right, result, "accuracy", index, scale=100)
    left.set(ylabel="training loss", yscale="log", xlabel="epoch")
    for axis_formatter in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        axis_formatter("{x:g}")
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
    return save(figure, path, pdf=pdf)


def _training_curve(axes: Axes, result: EncoderResult, key: str, index: int, scale: float = 1) -> None:
    histories = [[scale * entry[key] for entry in split.record["history"]] for split in result.splits]
    length = min(map(len, histories))
    values = np.array([history[:length] for history in histories])
    style = series_style(index)
    epochs = np.arange(1, length + 1)
    axes.plot(
        epochs,
        values.mean(axis=0),
        label=result.name,
        linewidth=1.6,
        markevery=max(1, length // 8),
        markersize=4,
        **style,
    )
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.13, linewidth=0)


def efficiency_chart(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """Measures against the number of training videos, with the standard deviation over folds; nothing without such runs."""
    if not report.efficiency:
        return []
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, len(EFFICIENCY_MEASURES))
    for axes, measure in zip(panels, EFFICIENCY_MEASURES, strict=True):
        for index, (name, points) in enumerate(report.efficiency.items()):
            _efficiency_curve(axes, name, points, measure, index)
        counts = sorted({round(point.num_videos) for points in report.efficiency.values() for point in points})
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("training videos of a fold")
        axes.set_title(MEASURES[measure], loc="left", fontsize=10)
        tidy(axes, grid="both")
    panels[0].set_ylabel("percent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: what fewer labelled videos cost, protocol {report.board.protocol.name}")
    write_remarks(figure, [remark for remark in report.remarks if remark.alarming])
    return save(figure, path, pdf=pdf)


def _efficiency_curve(axes: Axes, name: str, points: Sequence[EfficiencyPoint], measure: str, index: int) -> None:
    counts = [point.num_videos for point in points]
    means, stds = (100 * np.array([point.values[measure][part] for point in points]) for part in (0, 1))
    spread = None if np.isnan(stds).all() else stds
    axes.errorbar(counts, means, yerr=spread, label=name, linewidth=1.6, markersize=5, capsize=3, **series_style(index))
