"""Interactive charts of the page: phases, cost, label efficiency."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.base.wording import readable
from common.reports.comparison import Report
from common.reports.costs import COSTS
from common.reports.leaderboard import HEADLINE
from common.reports.page.style import QUIET, left_titles, plain, series, style
from common.reports.pictures.charts import pareto_front
from common.reports.pictures.curves import EFFICIENCY_MEASURES
from common.scoring.further_measures import per_phase
from common.scoring.metrics import MEASURES


def phase_map(report: Report) -> go.Figure:
    """F1 over all test frames, a row an encoder, a column a phase with its share of the true frames."""
    phases = [per_phase(list(result.scores.values())) for result in report.results]
    values = 100 * np.array([row["f1"] for row in phases])
    shares = 100 * phases[0]["frames"] / phases[0]["frames"].sum()
    columns = [f"{readable(plain(n))}  {share:.1f} %" for n, share in zip(report.mapping.names, shares, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if math.isnan(value) else round(value, 2) for value in row] for row in values.tolist()],
            x=columns,
            y=[plain(result.name) for result in report.results],
            colorscale="Blues",
            zmin=10 * math.floor(np.nanmin(values, initial=90) / 10),
            zmax=100,
            xgap=1,
            ygap=1,
            text=[["n/a" if math.isnan(value) else f"{value:.0f}" for value in row] for row in values.tolist()],
            texttemplate="%{text}",
            hovertemplate="<b>%{y}</b><br>%{x} of the frames<br>F1 %{z:.1f} %<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": "F1, %", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    style(figure, 190 + 26 * len(values))
    figure.update_xaxes(tickangle=-50, showgrid=False, ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.update_layout(margin={"t": 10})
    return figure


def cost_chart(report: Report, costs: dict[str, dict[str, float]]) -> go.Figure | None:
    """Accuracy against each kind of cost that is known; dashed: encoders that no cheaper one beats.

    `costs` is encoder -> key of `COSTS` -> value. None where no cost is known.
    """
    known = [cost for cost in COSTS if any(not math.isnan(values[cost.key]) for values in costs.values())]
    if not known:
        return None
    figure = make_subplots(1, len(known), shared_yaxes=True, horizontal_spacing=0.04)
    for column, cost in enumerate(known, 1):
        for trace in _cost_traces(report, {name: values[cost.key] for name, values in costs.items()}):
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title=cost.label, col=column)
    style(figure, 400 + 7 * len(costs), legend=True)
    figure.update_xaxes(type="log", dtick="D2", exponentformat="none")
    figure.update_yaxes(title="accuracy, %", col=1)
    figure.update_layout(margin={"t": 16})
    seen: set[str] = set()
    for trace in figure.select_traces({"mode": "markers"}):
        trace.showlegend = trace.name not in seen
        seen.add(trace.name)
    return figure


def _cost_traces(report: Report, costs: dict[str, float]) -> list[go.Scatter]:
    accuracies = {name: 100 * report.board.cells[name][HEADLINE].mean for name in costs}
    points = {name: (cost, accuracies[name]) for name, cost in costs.items() if not math.isnan(cost)}
    front = pareto_front(points)
    dashed = go.Scatter(
        x=[points[name][0] for name in front],
        y=[points[name][1] for name in front],
        mode="lines",
        line={"color": QUIET, "dash": "dash", "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    dots = [
        go.Scatter(
            x=[points[name][0]],
            y=[points[name][1]],
            mode="markers",
            name=plain(name),
            legendgroup=name,
            marker=series(index)["marker"] | {"size": 11},
            hovertemplate="<b>%{fullData.name}</b><br>%{x:.4~g}<br>accuracy %{y:.2f} %<extra></extra>",
        )
        for index, name in enumerate(costs)
        if name in points
    ]
    return [dashed, *dots]


def efficiency_chart(report: Report) -> go.Figure:
    """Measures against the number of training videos, with the standard deviation over folds."""
    titles = [MEASURES[measure] for measure in EFFICIENCY_MEASURES]
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.05)
    for index, (name, points) in enumerate(report.efficiency.items()):
        counts = [point.num_videos for point in points]
        for column, measure in enumerate(EFFICIENCY_MEASURES, 1):
            means, stds = (100 * np.array([point.values[measure][part] for point in points]) for part in (0, 1))
            trace = go.Scatter(
                x=counts,
                y=means.tolist(),
                error_y={"type": "data", "array": np.nan_to_num(stds).tolist(), "thickness": 1, "width": 3},
                name=plain(name),
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate="<b>%{fullData.name}</b><br>%{x:.0f} training videos: %{y:.1f} %<extra></extra>",
                **series(index),
            )
            figure.add_trace(trace, row=1, col=column)
    counts = sorted({round(point.num_videos) for points in report.efficiency.values() for point in points})
    style(figure, 380, legend=True)
    figure.update_xaxes(type="log", tickvals=counts, ticktext=list(map(str, counts)), title="training videos of a fold")
    figure.update_yaxes(title="percent", col=1)
    figure.update_layout(legend={"y": -0.28})
    left_titles(figure)
    return figure
