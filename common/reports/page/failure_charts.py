"""Interactive charts of the failure atlas."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from common.base.wording import readable
from common.dataset.phases import PhaseMapping
from common.reports.failure_atlas import ConfusedPair, Strata, VideoAccuracies
from common.reports.page.style import BEST, GRID, OURS, QUIET, ROW_PIXELS, plain, series, style


def worst_chart(videos: Sequence[VideoAccuracies], best: str) -> go.Figure:
    """A row a video, the worst on top: every encoder's accuracy, the best encoder's in colour, their mean as a line."""
    points = [(row, name, 100 * v) for row, video in enumerate(videos) for name, v in video.accuracies.items()]
    figure = go.Figure()
    for row, video in enumerate(videos):
        values = [100 * value for value in video.accuracies.values()]
        figure.add_scatter(
            x=[min(values), max(values)], y=[row, row], mode="lines", line={"color": GRID, "width": 6}, hoverinfo="skip"
        )
    figure.add_scatter(
        x=[100 * video.mean for video in videos],
        y=list(range(len(videos))),
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 14, "color": QUIET, "line": {"width": 2}},
        hovertemplate="mean of all encoders %{x:.1f} %<extra></extra>",
    )
    for is_best, colour, size in ((False, OURS, 7), (True, BEST, 9)):
        shown = [point for point in points if (point[1] == best) == is_best]
        figure.add_scatter(
            x=[value for *_, value in shown],
            y=[row for row, *_ in shown],
            mode="markers",
            marker={"color": colour, "size": size, "opacity": 1 if is_best else 0.45},
            text=[plain(name) for _, name, _ in shown],
            hovertemplate="<b>%{text}</b><br>accuracy %{x:.1f} %<extra></extra>",
        )
    style(figure, 80 + ROW_PIXELS * len(videos))
    figure.update_layout(margin={"t": 10})
    figure.update_xaxes(title="accuracy in the video, %")
    figure.update_yaxes(
        tickvals=list(range(len(videos))),
        ticktext=[plain(video.name) for video in videos],
        range=[len(videos) - 0.4, -0.6],
        showgrid=False,
    )
    return figure


def pairs_chart(pairs: Sequence[ConfusedPair], mapping: PhaseMapping) -> go.Figure:
    """A bar a pair of phases: share of the true phase's frames; a mark where the mean of all encoders lies."""
    labels = [pair_label(pair, mapping) for pair in pairs]
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
    figure.add_scatter(
        x=[100 * pair.share_elsewhere for pair in pairs],
        y=rows,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 16, "color": "black", "line": {"width": 2}},
        text=labels,
        hovertemplate="<b>%{text}</b><br>mean of all encoders %{x:.1f} %<extra></extra>",
    )
    style(figure, 80 + ROW_PIXELS * len(pairs))
    figure.update_layout(margin={"t": 10})
    figure.update_xaxes(title="share of the true phase's frames, %", rangemode="tozero")
    figure.update_yaxes(tickvals=rows, ticktext=labels, range=[len(pairs) - 0.4, -0.6], showgrid=False)
    return figure


def pair_label(pair: ConfusedPair, mapping: PhaseMapping) -> str:
    """`incision taken for tunnel`, as plotly text."""
    true, predicted = (readable(plain(mapping.names[phase])) for phase in (pair.true, pair.predicted))
    return f"{true} \N{RIGHTWARDS ARROW} {predicted}"


def prefix_chart(strata: Strata) -> go.Figure:
    """A row an encoder, a mark a name prefix: share of wrong frames."""
    names = list(strata.errors)
    figure = go.Figure()
    for index, group in enumerate(strata.groups):
        figure.add_scatter(
            x=[100 * errors[index] for errors in strata.errors.values()],
            y=list(range(len(names))),
            name=plain(group),
            mode="markers",
            marker=series(index)["marker"] | {"size": 10},
            text=[plain(name) for name in names],
            hovertemplate="<b>%{text}</b><br>%{fullData.name}: %{x:.1f} % wrong<extra></extra>",
        )
    style(figure, 130 + ROW_PIXELS * len(names), legend=True)
    figure.update_layout(margin={"t": 10}, legend={"title": strata.axis, "y": -60 / (20 + ROW_PIXELS * len(names))})
    figure.update_xaxes(title="wrong frames, %", rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[plain(name) for name in names], range=[len(names) - 0.4, -0.6]
    )
    return figure


def strata_chart(strata: Strata, best: str) -> go.Figure:
    """A line an encoder, the best one bold: share of wrong frames of each group."""
    figure = go.Figure()
    groups = [plain(group) for group in strata.groups]
    for index, (name, errors) in enumerate(strata.errors.items()):
        look = series(index)
        look["line"]["width"] = 4 if name == best else 1.5
        figure.add_scatter(
            x=groups,
            y=[None if error != error else 100 * error for error in errors.tolist()],
            name=plain(name),
            mode="lines+markers",
            hovertemplate="<b>%{fullData.name}</b><br>%{x}: %{y:.1f} % wrong<extra></extra>",
            **look,
        )
    style(figure, 400 + 9 * len(strata.errors), legend=True)
    figure.update_layout(margin={"t": 10})
    figure.update_xaxes(title=strata.axis, type="category")
    figure.update_yaxes(title="wrong frames, %", rangemode="tozero")
    return figure
