"""Ribbons: what is true and what was predicted, side by side along a video."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.base.runtime import SHOWN
from common.base.wording import brief
from common.dataset.phases import PhaseMapping
from common.reports.chart_data import Ribbon, video_ribbons, worst_to_best
from common.reports.comparison import Report
from common.reports.pictures.style import QUIET, phase_colours, phase_patches, write_title

ROW_INCHES, GAP_INCHES = 0.22, 0.5
NUM_CHOSEN = 6  # videos of the overview, from the worst to the best


def video_picture(report: Report, video: str) -> Figure:
    """The ribbons of one video."""
    return ribbon_plot({video: _ribbons(report, video)}, report.mapping, f"{report.title}: {video}")


def overview_picture(report: Report) -> Figure:
    """Some videos from the worst to the best."""
    videos = {video: _ribbons(report, video) for video in worst_to_best(report, NUM_CHOSEN)}
    return ribbon_plot(videos, report.mapping, f"{report.title}: videos from the lowest to the highest mean accuracy")


def _ribbons(report: Report, video: str) -> list[Ribbon]:
    # an encoder that was run on other videos has no row here, and an empty one on the page
    return [ribbon for ribbon in video_ribbons(report, video) if ribbon.score]


def ribbon_plot(videos: Mapping[str, Sequence[Ribbon]], mapping: PhaseMapping, title: str) -> Figure:
    """Ribbons of each video, the first of them the truth, one video above the other.

    All videos share one time axis, in minutes where every frame rate is known, else in frames. A thin black line below
    a prediction marks its wrong stretches.
    """
    colours = phase_colours(mapping)
    in_minutes = all(ribbons[0].score.fps for ribbons in videos.values())
    heights = [len(ribbons) for ribbons in videos.values()]
    figure = Figure(figsize=(13, ROW_INCHES * sum(heights) + GAP_INCHES * (len(videos) - 1)))
    # the panels fill the figure, so that a row is as high in every picture; matplotlib counts hspace in mean panels
    layout = {"top": 1, "bottom": 0, "left": 0, "right": 1, "hspace": GAP_INCHES / (ROW_INCHES * np.mean(heights))}
    panels = figure.subplots(
        len(videos), 1, sharex=True, squeeze=False, gridspec_kw=layout | {"height_ratios": heights}
    )
    for axes, (name, ribbons) in zip(panels[:, 0], videos.items(), strict=True):
        _video_panel(axes, name, ribbons, colours, 60 * ribbons[0].score.fps if in_minutes else 1)
    panels[-1, 0].set_xlabel("minutes" if in_minutes else "frames", fontsize=9)
    write_title(figure, title, gap=0.3)  # the first video's name stands between
    shown = (phase for ribbons in videos.values() for ribbon in ribbons for phase, _, _ in ribbon.segments)
    figure.legend(
        handles=phase_patches(mapping, shown),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.35 / figure.get_figheight()),
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    return figure


def _video_panel(axes: Axes, name: str, ribbons: Sequence[Ribbon], colours: Sequence[str], scale: float) -> None:
    """One video's rows, each one unit high from its number downwards; `scale` is frames per unit of time."""
    for row, ribbon in enumerate(ribbons):
        spans = [(start / scale, (end - start) / scale) for _, start, end in ribbon.segments]
        shown = [colours[phase] for phase, _, _ in ribbon.segments]
        axes.broken_barh(spans, (row + 0.06, 0.78), facecolors=shown, linewidth=0)
        wrong = [(start / scale, (end - start) / scale) for start, end in ribbon.wrong]
        if wrong:  # below the ribbon, in what is left of the row
            axes.broken_barh(wrong, (row + 0.87, 0.1), facecolors="black", linewidth=0)
    axes.set(ylim=(len(ribbons), 0), yticks=np.arange(len(ribbons)) + 0.45)
    axes.set_yticklabels([brief(ribbon.label) for ribbon in ribbons], fontsize=8)
    axes.set_title(brief(name, SHOWN), loc="left", fontsize=9, pad=3)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
