"""Pictures: the comparison chart and table, ribbons of truth and prediction, confusion matrices."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.metrics import MEASURES
from common.phases import PhaseMapping
from common.reports.collect import EncoderResult
from common.reports.palette import SERIES_COLOURS, phase_colours
from common.reports.tables import comparison_rows
from common.runtime import atomic_path
from common.segments import find_segments

DPI = 150


def save(figure: Figure, path: Path) -> Path:
    """Write a figure atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", facecolor="white")
    return path


def _remarks_below(figure: Figure, lines: Sequence[str]) -> None:
    characters = int(figure.get_figwidth() * 17)  # that fit into a line at this font size
    wrapped = [part for line in lines for part in textwrap.wrap(line, characters)]
    figure.text(0.01, -0.01, "\n".join(wrapped), ha="left", va="top", fontsize=8, color="#444444")


def comparison_chart(results: Sequence[EncoderResult], lines: Sequence[str], title: str, path: Path) -> Path:
    """Bars of every measure for every encoder, with the standard deviation over folds."""
    figure = Figure(figsize=(max(9.0, 1.5 + 0.28 * len(MEASURES) * (len(results) + 1)), 5))
    axes = figure.subplots()
    width = 0.82 / len(results)
    for index, result in enumerate(results):
        means = 100 * np.array([result.mean(key) for key in MEASURES])
        stds = 100 * np.array([result.std(key) for key in MEASURES])
        where = np.arange(len(MEASURES)) + (index - (len(results) - 1) / 2) * width
        hatch = "//" if index >= len(SERIES_COLOURS) else None  # colours repeat after seven encoders
        bars = axes.bar(
            where, means, width * 0.92, yerr=None if np.isnan(stds).all() else stds, capsize=3, label=result.name,
            color=SERIES_COLOURS[index % len(SERIES_COLOURS)], hatch=hatch, edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        if len(results) <= 4:
            labels = ["n/a" if np.isnan(mean) else f"{mean:.1f}" for mean in means]
            heights = np.nan_to_num(means) + np.nan_to_num(stds)
            for bar, label, height in zip(bars, labels, heights, strict=True):
                axes.text(bar.get_x() + bar.get_width() / 2, height + 1, label, ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(MEASURES)), MEASURES.values())
    axes.set(ylabel="percent", ylim=(0, 108), yticks=range(0, 101, 20))
    axes.set_title(title, loc="left", fontsize=12, pad=34)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(results)), frameon=False, fontsize=9)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _remarks_below(figure, lines)
    return save(figure, path)


def comparison_table(results: Sequence[EncoderResult], lines: Sequence[str], title: str, path: Path) -> Path:
    """The comparison as a picture of a table, the best of each measure in bold."""
    rows = comparison_rows(results)
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    figure = Figure(figsize=(0.1 * sum(widths), 0.36 * len(rows) + 0.4))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=12)
    table = axes.table(rows, cellLoc="right", colWidths=[w / sum(widths) for w in widths], bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    best = {
        column: int(np.nanargmax([result.mean(key) for result in results]))
        for column, key in enumerate(MEASURES, 1)
        if not np.isnan([result.mean(key) for result in results]).all()
    }
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#CCCCCC")
        cell.visible_edges = "B"
        if column == 0:
            cell.set_text_props(ha="left")
        if row == 0 or best.get(column) == row - 1:
            cell.set_text_props(weight="bold")
    _remarks_below(figure, lines)
    return save(figure, path)


def confusion_plot(confusion: np.ndarray, mapping: PhaseMapping, title: str, path: Path) -> Path:
    """Row-normalised confusion matrix in percent; rows = true phase with its frames, columns = predicted phase."""
    frames = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * confusion, frames, out=np.full(confusion.shape, np.nan), where=frames > 0)
    size = 2.5 + 0.42 * mapping.num_classes
    figure = Figure(figsize=(size + 1.5, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.5), strict=True):
        value = shares[row, column]
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if value > 55 else "black"
        )
    ticks = range(mapping.num_classes)
    axes.set_xticks(ticks, mapping.names, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(
        ticks, [f"{name}  ({int(count)})" for name, count in zip(mapping.names, frames[:, 0], strict=True)], fontsize=8
    )
    axes.set(xlabel="predicted phase", ylabel="true phase (frames)")
    axes.set_title(title, loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="percent of the true phase's frames")
    return save(figure, path)


Ribbon = tuple[str, np.ndarray]


def ribbon_plot(
    videos: dict[str, list[Ribbon]], fps: dict[str, float | None], mapping: PhaseMapping, title: str, path: Path
) -> Path:
    """Phase ribbons of each video, one above the other: `videos[name]` lists `(row label, phase ids (T,))`.

    All videos share one time axis, in minutes where the frame rate is known, else in frames.
    """
    colours = phase_colours(mapping.names)
    in_minutes = all(fps.get(name) for name in videos)
    rows = sum(len(ribbons) for ribbons in videos.values())
    figure = Figure(figsize=(12, 1.4 + 0.3 * rows + 0.32 * len(videos)))
    heights = [len(ribbons) for ribbons in videos.values()]
    panels = figure.subplots(
        len(videos), 1, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.75, "height_ratios": heights}
    )
    shown: set[int] = set()
    for axes, (name, ribbons) in zip(panels[:, 0], videos.items(), strict=True):
        scale = 60 * fps[name] if in_minutes else 1
        for row, (_, phase_ids) in enumerate(ribbons):
            runs = find_segments(phase_ids)
            shown.update(runs.labels.tolist())
            spans = [(start / scale, (end - start) / scale) for _, start, end in runs]
            axes.broken_barh(
                spans, (row + 0.06, 0.88), facecolors=[colours[label] for label in runs.labels], linewidth=0
            )
        axes.set(ylim=(len(ribbons), 0), yticks=np.arange(len(ribbons)) + 0.5)
        axes.set_yticklabels([label for label, _ in ribbons], fontsize=8)
        axes.set_title(name, loc="left", fontsize=9, pad=3)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1, 0].set_xlabel("minutes" if in_minutes else "frames")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, y=0.99)
    handles = [Patch(color=colours[phase], label=mapping.names[phase]) for phase in sorted(shown)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5, fontsize=8, frameon=False)
    return save(figure, path)
