"""The predicted phases of one video: a table of its segments and a picture of its course."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from common.base.files import write_text
from common.base.runtime import SHOWN
from common.base.wording import brief, clock, readable, text_cell
from common.dataset.annotations.doubt import DOUBTFUL_BELOW
from common.dataset.segments import find_segments
from common.reports.pictures.style import ALARM, phase_colours, save

if TYPE_CHECKING:  # comes with torch, and reports need none
    from common.head.new_videos import VideoPhases

TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_TICKS = 13
INK, SOFT_INK = "#333333", "#666666"


def segment_rows(phases: VideoPhases) -> list[dict[str, str | int]]:
    """A row for each segment; `end_frame` and `end_seconds` are where the next one starts.

    `confidence` is the mean probability of the phase over the segment's frames, `runner_up` the phase that has the
    next highest mean (empty where the mapping has one phase only).
    """
    rows = []
    for phase, start, end in phases.segments:
        means = phases.probabilities[start:end].mean(axis=0, dtype=np.float64)
        # not simply the second: the phase was chosen frame by frame, and need not have the highest mean
        others = [other for other in np.argsort(-means, kind="stable") if other != phase]
        first, last = phases.edges[start], phases.edges[end]
        rows.append(
            {
                "phase": text_cell(phases.mapping.names[phase]),
                "start_frame": int(phases.first_frames[start]),
                "end_frame": int(phases.first_frames[end]),
                "start_seconds": f"{first:.3f}",
                "end_seconds": f"{last:.3f}",
                "duration_seconds": f"{last - first:.3f}",
                "confidence": f"{means[phase]:.4f}",
                "lowest_confidence": f"{phases.confidence[start:end].min():.4f}",
                "runner_up": text_cell(phases.mapping.names[others[0]]) if others else "",
            }
        )
    return rows


def write_segments(path: Path, phases: VideoPhases) -> None:
    """Write the segments as a CSV file, atomically."""
    rows = segment_rows(phases)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def timeline_plot(phases: VideoPhases, path: Path) -> Path:
    """A ribbon of the phases over the time of the video and the confidence below it; doubtful stretches are hatched."""
    figure = Figure(figsize=(12, 3.2))
    ribbon, confidence = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.3], "hspace": 0.12})
    edges = phases.edges
    runs = find_segments(phases.confidence < DOUBTFUL_BELOW)
    doubtful = [(edges[start], edges[end] - edges[start]) for is_doubtful, start, end in runs if is_doubtful]
    _draw_ribbon(ribbon, phases, doubtful)
    _draw_confidence(confidence, phases, doubtful)
    look = {"ncols": 4, "fontsize": 9, "frameon": False, "handlelength": 1.4, "columnspacing": 2.5, "labelcolor": INK}
    handles = _legend(phases, bool(doubtful))
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.03), **look)
    save(figure, path)
    return path


def _draw_ribbon(axes: Axes, phases: VideoPhases, doubtful: list[tuple[float, float]]) -> None:
    colours, edges = phase_colours(phases.mapping), phases.edges
    spans = [(edges[start], edges[end] - edges[start]) for _, start, end in phases.segments]
    axes.broken_barh(spans, (0, 1), facecolors=[colours[label] for label in phases.segments.labels], linewidth=0)
    axes.broken_barh(doubtful, (0, 1), facecolor="#FFFFFF66", edgecolor=INK, hatch="/////", linewidth=0)
    # a single frame has no length, and matplotlib wants an axis to have some
    axes.set(ylim=(0, 1), yticks=[], xlim=(edges[0], max(edges[-1], edges[0] + 1e-3)))
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    # the heading grows upwards from 4 points above the ribbon: remarks in red, over them the source, over all the name
    heading = [(remark, ALARM) for remark in reversed(phases.remarks)] + [(phases.source, SOFT_INK)]
    above = {"xycoords": "axes fraction", "textcoords": "offset points"}
    for line, (text, colour) in enumerate(heading):
        axes.annotate(text, (0, 1), xytext=(0, 4 + 14 * line), **above, fontsize=9, color=colour)
    bottom = 6 + 14 * len(heading)
    axes.annotate(brief(phases.name, SHOWN), (0, 1), xytext=(0, bottom), **above, fontsize=13, color=INK, weight="bold")


def _draw_confidence(axes: Axes, phases: VideoPhases, doubtful: list[tuple[float, float]]) -> None:
    for start, length in doubtful:
        axes.axvspan(start, start + length, color="#F3D9D9", linewidth=0)
    held = np.append(phases.confidence, phases.confidence[-1])  # the last frame's is shown until it ends
    axes.plot(phases.edges, held, drawstyle="steps-post", color=INK, linewidth=0.9)
    axes.axhline(DOUBTFUL_BELOW, color=SOFT_INK, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.set(ylim=(0, 1.03), yticks=[0, 0.5, 1], yticklabels=["0", "50", "100 %"], xlabel="time (minutes : seconds)")
    axes.set_ylabel("confidence", fontsize=9)
    span = float(phases.edges[-1] - phases.edges[0])
    step = next((step for step in TICK_SECONDS if span / step <= MOST_TICKS), TICK_SECONDS[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.tick_params(labelsize=9, color=SOFT_INK)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(phases: VideoPhases, with_doubtful: bool) -> list[Patch | Line2D]:
    """The phases in order of appearance, each with its total time, and what hatching means."""
    colours, labels = phase_colours(phases.mapping), phases.segments.labels
    durations = phases.edges[phases.segments.ends] - phases.edges[phases.segments.starts]
    handles = []
    for phase in dict.fromkeys(labels.tolist()):
        seconds = durations[labels == phase].sum()
        time = f"{seconds:.1f} s" if seconds < 10 else clock(seconds)
        handles.append(Patch(color=colours[phase], label=f"{brief(readable(phases.mapping.names[phase]))}  {time}"))
    if with_doubtful:
        label = f"doubtful: confidence below {DOUBTFUL_BELOW:.0%}"
        handles.append(Patch(facecolor="white", edgecolor=INK, hatch="/////", linewidth=0.5, label=label))
    return handles
