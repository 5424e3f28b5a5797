"""Ribbons: what is true and what was predicted, side by side along a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.base.runtime import progress
from common.dataset.phases import PhaseMapping
from common.dataset.segments import find_segments
from common.reports.comparison import Report
from common.reports.leaderboard import HEADLINE
from common.reports.pictures.style import QUIET, phase_colours, save, write_title

ROW_INCHES, GAP_INCHES = 0.22, 0.5
NUM_CHOSEN = 6  # videos of the overview, from the worst to the best

Ribbon = tuple[str, np.ndarray]


def comparison_ribbons(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """Some videos from the worst to the best in `path`, and a picture for each video in `ribbons/` beside it."""
    folder = path.parent / "ribbons"
    videos = {name: _rows(report, name) for name in report.results[0].scores}
    rates = {name: score.fps for name, score in report.results[0].scores.items()}
    for name in progress(sorted(videos), description="ribbons", unit="videos"):
        title = f"{report.title}: {name}"
        ribbon_plot({name: videos[name]}, rates, report.mapping, title, folder / f"{name}.png", pdf=pdf)
    chosen = {name: videos[name] for name in worst_to_best(report, NUM_CHOSEN)}
    title = f"{report.title}: videos from the lowest to the highest mean accuracy"
    overview = ribbon_plot(chosen, rates, report.mapping, title, path, pdf=pdf)
    return [*overview, folder]


def _rows(report: Report, video: str) -> list[Ribbon]:
    """The truth, then every encoder's prediction with its accuracy in this video."""
    with_video = [result for result in report.results if video in result.scores]
    rows = [("truth", with_video[0].scores[video].true)]
    for result in with_video:
        accuracy = 100 * result.video_values(report.board.protocol)[video][HEADLINE]
        rows.append((f"{result.name}  {accuracy:.0f} %", result.scores[video].predicted))
    return rows


def worst_to_best(report: Report, count: int) -> list[str]:
    """At most `count` videos at even steps through the order by mean accuracy over encoders, the worst first."""
    table = report.per_video[report.per_video["Protocol"] == report.board.protocol.name]
    order = table.groupby("Video")["Accuracy %"].mean().sort_values(kind="stable").index.tolist()
    places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    return [order[place] for place in places]


def ribbon_plot(
    videos: Mapping[str, Sequence[Ribbon]],
    fps: Mapping[str, float | None],
    mapping: PhaseMapping,
    title: str,
    path: Path,
    *,
    pdf: bool = False,
) -> list[Path]:
    """Phase ribbons of each video, one above the other: `videos[name]` lists `(row label, phase ids (T,))`.

    All videos share one time axis, in minutes where every frame rate is known, else in frames. A thin black line below
    a prediction marks its wrong stretches.
    """
    colours = phase_colours(mapping.names)
    in_minutes = all(fps[name] for name in videos)
    heights = [len(ribbons) for ribbons in videos.values()]
    figure = Figure(figsize=(13, ROW_INCHES * sum(heights) + GAP_INCHES * (len(videos) - 1)))
    layout = {"top": 1, "bottom": 0, "left": 0, "right": 1, "hspace": GAP_INCHES / (ROW_INCHES * np.mean(heights))}
    panels = figure.subplots(
        len(videos), 1, sharex=True, squeeze=False, gridspec_kw=layout | {"height_ratios": heights}
    )
    for axes, (name, ribbons) in zip(panels[:, 0], videos.items(), strict=True):
        _video_panel(axes, name, ribbons, colours, 60 * fps[name] if in_minutes else 1)
    panels[-1, 0].set_xlabel("minutes" if in_minutes else "frames", fontsize=9)
    write_title(figure, title, gap=0.3)  # the first video's name stands between
    shown = sorted({int(phase) for ribbons in videos.values() for _, ids in ribbons for phase in np.unique(ids)})
    handles = [Patch(color=colours[phase], label=mapping.names[phase]) for phase in shown]
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.35 / figure.get_figheight()),
        ncols=6, fontsize=8, frameon=False,
    )  # fmt: skip
    return save(figure, path, pdf=pdf)


def _video_panel(axes: Axes, name: str, ribbons: Sequence[Ribbon], colours: Sequence[str], scale: float) -> None:
    truth = ribbons[0][1]
    for row, (_, phase_ids) in enumerate(ribbons):
        runs = find_segments(phase_ids)
        spans = [(start / scale, (end - start) / scale) for _, start, end in runs]
        axes.broken_barh(spans, (row + 0.06, 0.78), facecolors=[colours[label] for label in runs.labels], linewidth=0)
        wrong = [(s / scale, (e - s) / scale) for is_wrong, s, e in find_segments(phase_ids != truth) if is_wrong]
        if wrong:
            axes.broken_barh(wrong, (row + 0.87, 0.1), facecolors="black", linewidth=0)
    axes.set(ylim=(len(ribbons), 0), yticks=np.arange(len(ribbons)) + 0.45)
    axes.set_yticklabels([label for label, _ in ribbons], fontsize=8)
    axes.set_title(name, loc="left", fontsize=9, pad=3)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
