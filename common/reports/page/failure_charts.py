"""Interactive charts of the failure atlas."""

from collections.abc import Sequence

import plotly.graph_objects as go

from common.base.wording import readable
from common.dataset.phases import PhaseMapping
from common.reports.failure_atlas import ConfusedPair, Strata, VideoAccuracies
from common.reports.page.style import BEST, GRID, OURS, QUIET, ROW_PIXELS, dots, line, name_rows, plain, series, style


def worst_chart(videos: Sequence[VideoAccuracies], best: str) -> go.Figure:
    """A row per video, the worst on top: every encoder's accuracy, the best one's in colour, their mean as a line."""
    figure = go.Figure()
    points = []
    for row, video in enumerate(videos):
        values = [100 * value for value in video.accuracies.values()]
        figure.add_trace(line([min(values), max(values)], [row, row], color=GRID, width=6))
        points += [(value, row, name) for name, value in zip(video.accuracies, values, strict=True)]
    means = [100 * video.mean for video in videos]
    mark = {"symbol": "line-ns-open", "size": 14, "color": QUIET, "line": {"width": 2}}
    figure.add_trace(dots(means, range(len(videos)), "mean of all encoders %{x:.1f} %", **mark))
    others = [point for point in points if point[2] != best]
    best_points = [point for point in points if point[2] == best]
    # the best encoder last: plotly draws later traces over earlier ones
    for shown, look in (
        (others, {"color": OURS, "size": 7, "opacity": 0.45}),
        (best_points, {"color": BEST, "size": 9, "opacity": 1}),
    ):
        accuracies, rows, names = zip(*shown, strict=True) if shown else ((), (), ())
        text = list(map(plain, names))
        figure.add_trace(dots(accuracies, rows, "<b>%{text}</b><br>accuracy %{x:.1f} %", text=text, **look))
    style(figure, 80 + ROW_PIXELS * len(videos), top=10)
    figure.update_xaxes(title="accuracy in the video, %")
    name_rows(figure, [plain(video.name) for video in videos], showgrid=False)
    return figure


def pairs_chart(pairs: Sequence[ConfusedPair], mapping: PhaseMapping) -> go.Figure:
    """A bar per pair of phases: share of the true phase's frames; a mark where the mean of all encoders lies."""
    phases = [readable(plain(name)) for name in mapping.names]
    labels = [f"{phases[pair.true]} \N{RIGHTWARDS ARROW} {phases[pair.predicted]}" for pair in pairs]
    rows = list(range(len(pairs)))
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        x=[100 * pair.share_of_phase for pair in pairs],
        y=rows,
        marker={"color": BEST},
        width=0.6,
        text=labels,
        textposition="none",
        hovertemplate="<b>%{text}</b><br>%{x:.1f} % of the phase's frames<extra></extra>",
    )
    elsewhere = [100 * pair.share_elsewhere for pair in pairs]
    mark = {"symbol": "line-ns-open", "size": 16, "color": "black", "line": {"width": 2}}
    figure.add_trace(dots(elsewhere, rows, "<b>%{text}</b><br>mean of all encoders %{x:.1f} %", text=labels, **mark))
    style(figure, 80 + ROW_PIXELS * len(pairs), top=10)
    figure.update_xaxes(title="share of the true phase's frames, %", rangemode="tozero")
    name_rows(figure, labels, showgrid=False)
    return figure


def prefix_chart(strata: Strata) -> go.Figure:
    """A row per encoder, a mark per name prefix: share of wrong frames."""
    names = [plain(name) for name in strata.errors]
    figure = go.Figure()
    for index, group in enumerate(strata.groups):
        figure.add_scatter(
            x=[100 * errors[index] for errors in strata.errors.values()],
            y=list(range(len(names))),
            name=plain(group),
            mode="markers",
            marker=series(index)["marker"] | {"size": 10},
            text=names,
            hovertemplate="<b>%{text}</b><br>%{fullData.name}: %{x:.1f} % wrong<extra></extra>",
        )
    style(figure, 130 + ROW_PIXELS * len(names), legend=True, top=10)
    # a legend's place is in heights of the panel: 60 pixels below it, where the axis has its title
    figure.update_layout(legend={"title": strata.axis, "y": -60 / (20 + ROW_PIXELS * len(names))})
    figure.update_xaxes(title="wrong frames, %", rangemode="tozero")
    name_rows(figure, names)
    return figure


def strata_chart(strata: Strata, best: str) -> go.Figure:
    """A line per encoder, the best one bold: share of wrong frames of each group."""
    figure = go.Figure()
    groups = [plain(group) for group in strata.groups]
    for index, (name, errors) in enumerate(strata.errors.items()):
        look = series(index)
        look["line"]["width"] = 4 if name == best else 1.5
        figure.add_scatter(
            x=groups,
            y=(100 * errors).tolist(),  # NaN, of an empty group, is a gap
            name=plain(name),
            mode="lines+markers",
            hovertemplate="<b>%{fullData.name}</b><br>%{x}: %{y:.1f} % wrong<extra></extra>",
            **look,
        )
    style(figure, 400 + 9 * len(strata.errors), legend=True, top=10)
    figure.update_xaxes(title=strata.axis, type="category")
    figure.update_yaxes(title="wrong frames, %", rangemode="tozero")
    return figure
