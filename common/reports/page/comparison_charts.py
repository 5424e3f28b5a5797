"""Interactive charts of the page: phases, cost, label efficiency."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.base.wording import readable
from common.reports.chart_data import cost_panels, efficiency_panels, phase_map
from common.reports.comparison import Report
from common.reports.page.style import QUIET, dots, left_titles, line, plain, series, style


def phase_chart(report: Report) -> go.Figure:
    """F1 over all test frames, a row per encoder, a column per phase with its share of the true frames."""
    values, lowest, shares = phase_map(report)
    columns = [f"{readable(plain(n))}  {share:.1f} %" for n, share in zip(report.mapping.names, shares, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            # None, not NaN, which is no JSON
            z=[[None if math.isnan(value) else round(value, 2) for value in row] for row in values.tolist()],
            x=columns,
            y=[plain(result.name) for result in report.results],
            colorscale="Blues",
            zmin=lowest,
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
    style(figure, 190 + 26 * len(values), top=10)
    figure.update_xaxes(tickangle=-50, showgrid=False, ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure


def cost_chart(report: Report) -> go.Figure | None:
    """Accuracy against each kind of cost that is known; dashed: encoders that no cheaper one beats. None without any."""
    panels = [panel for panel in cost_panels(report) if panel.points]
    if not panels:
        return None
    figure = make_subplots(1, len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    listed: set[str] = set()
    for column, panel in enumerate(panels, 1):
        front = zip(*[panel.points[name] for name in panel.front], strict=True)
        dashed = line(*front, color=QUIET, dash="dash", width=1).update(showlegend=False)
        figure.add_trace(dashed, row=1, col=column)
        for index, name in enumerate(report.board.names):
            if name in panel.points:
                cost, accuracy = panel.points[name]
                look = series(index)["marker"] | {"size": 11}
                trace = dots([cost], [accuracy], "<b>%{fullData.name}</b><br>%{x:.4~g}<br>accuracy %{y:.2f} %", **look)
                # it may have a point in every panel, but has one entry in the legend
                trace.update(name=plain(name), legendgroup=name, showlegend=name not in listed)
                listed.add(name)
                figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title=panel.cost.label, col=column)
    style(figure, 400 + 7 * len(report.results), legend=True, top=16)
    figure.update_xaxes(type="log", dtick="D2", exponentformat="none")
    figure.update_yaxes(title="accuracy, %", col=1)
    return figure


def efficiency_chart(report: Report) -> go.Figure:
    """Measures against the number of training videos, with the standard deviation over folds."""
    panels, ticks = efficiency_panels(report)
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.05)
    for index, curves in enumerate(zip(*panels.values(), strict=True)):
        for column, curve in enumerate(curves, 1):
            trace = go.Scatter(
                x=curve.num_videos,
                y=curve.means.tolist(),
                error_y={"type": "data", "array": np.nan_to_num(curve.stds).tolist(), "thickness": 1, "width": 3},
                name=plain(curve.name),
                legendgroup=curve.name,
                showlegend=column == 1,
                hovertemplate="<b>%{fullData.name}</b><br>%{x:.0f} training videos: %{y:.1f} %<extra></extra>",
                **series(index),
            )
            figure.add_trace(trace, row=1, col=column)
    style(figure, 380, legend=True)
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=list(map(str, ticks)), title="training videos of a fold")
    figure.update_yaxes(title="percent", col=1)
    figure.update_layout(legend={"y": -0.28})
    left_titles(figure)
    return figure
