"""Interactive charts of the page: what all share, the leaderboard, ranks, phases, cost and label efficiency."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.further_measures import per_phase
from common.metrics import MEASURES
from common.reports.charts import pareto_front
from common.reports.costs import COSTS
from common.reports.curves import EFFICIENCY_MEASURES
from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.palette import SERIES_COLOURS
from common.reports.published import PublishedRow
from common.reports.report import Report
from common.reports.tables import percent
from common.reports.timeline import readable
from common.stats import Interval

INK, QUIET, GRID = "#1f2328", "#59636e", "#e4e7eb"
OURS, BEST, QUOTED = SERIES_COLOURS[0], SERIES_COLOURS[5], "#7d8590"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "cross")
DASHES = ("solid", "dash", "dot")
ROW_PIXELS = 22
TITLE_FONT = {"size": 13, "color": INK}


def plain(text: str) -> str:
    """Text that plotly shows as it is: its labels understand some HTML."""
    return html.escape(text, quote=False)


def style(figure: go.Figure, height: float, *, legend: bool = False) -> go.Figure:
    """The look of every chart; dragging scrolls the page instead of zooming, unless a chart says otherwise."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        font={"family": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 12, "color": INK},
        margin={"l": 10, "r": 24, "t": 44, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"},
        hoverlabel={"bgcolor": "white", "bordercolor": QUIET, "font": {"color": INK, "size": 12}, "align": "left"},
        dragmode=False,
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True, "title_standoff": 8}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def series(index: int) -> dict[str, dict]:
    """Marker and line of the series number `index`: beyond the seven colours told apart by symbol and dashes."""
    colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
    return {
        "marker": {"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
        "line": {"color": colour, "dash": DASHES[index // len(SERIES_COLOURS) % len(DASHES)], "width": 2},
    }


def left_titles(figure: go.Figure) -> None:
    """Titles of panels at their left edge, in the chart's own type."""
    for note, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=False):
        note.update(x=axis.domain[0], xanchor="left", font=TITLE_FONT)


def board_chart(board: Leaderboard, published: Sequence[PublishedRow]) -> go.Figure:
    """A panel a measure, a row an encoder: mean, its 95 % interval over videos, every fold; quoted rows hollow."""
    titles = [f"<b>{name}</b>" if key == HEADLINE else name for key, name in MEASURES.items()]
    figure = make_subplots(2, 4, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0)
    for place, measure in enumerate(MEASURES):
        where = {"row": place // 4 + 1, "col": place % 4 + 1}
        for trace in (*_board_traces(board, measure), _quoted_trace(published, measure, len(board.names))):
            figure.add_trace(trace, **where)
    rows = len(board.names) + len(published)
    panel = 36 + ROW_PIXELS * rows
    gap = 64
    style(figure, 2 * panel + gap + 88)
    share = panel / (2 * panel + gap)
    for number in range(1, 9):
        domain = [1 - share, 1] if number <= 4 else [0, share]
        figure.update_layout({f"yaxis{number if number > 1 else ''}": {"domain": domain, "range": [rows - 0.4, -0.6]}})
    for place, note in enumerate(figure.layout.annotations):
        note.update(y=1 if place < 4 else share)
    labels = [plain(name) for name in board.names] + [plain(row.label) for row in published]
    figure.update_yaxes(tickvals=list(range(rows)), ticktext=labels, ticks="")
    figure.update_xaxes(ticksuffix=" ", nticks=5)
    left_titles(figure)
    return figure


def _board_traces(board: Leaderboard, measure: str) -> list[go.Scatter]:
    best = board.best(measure)
    colours = [BEST if name == best else OURS for name in board.names]
    cells = [board.cells[name][measure] for name in board.names]
    folds = [100 * result.values(measure, board.protocol) for result in board.results]
    bounds = [value for cell in cells for value in (100 * cell.interval.low, 100 * cell.interval.high, None)]
    rows = [place for row in range(len(cells)) for place in (row, row, None)]
    hovers = [
        f"<b>{plain(name)}</b><br>{MEASURES[measure]} {percent(cell.mean, cell.std)}<br>"
        f"95 % interval {interval_text(cell.interval)}<br>tied: {board.letters[measure][name]}"
        for name, cell in zip(board.names, cells, strict=True)
    ]
    return [
        go.Scatter(x=bounds, y=rows, mode="lines", line={"color": QUIET, "width": 1.5}, hoverinfo="skip"),
        go.Scatter(
            x=np.concatenate(folds).tolist(),
            y=[row for row, values in enumerate(folds) for _ in values],
            mode="markers",
            marker={"size": 4, "color": QUIET, "opacity": 0.5},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[100 * cell.mean for cell in cells],
            y=list(range(len(cells))),
            mode="markers",
            marker={"size": 10, "color": colours, "line": {"color": "white", "width": 1}},
            text=hovers,
            hovertemplate="%{text}<extra></extra>",
        ),
    ]


def _quoted_trace(published: Sequence[PublishedRow], measure: str, first_row: int) -> go.Scatter:
    rows = [row for row in published if measure in row.values]
    spreads = [0 if math.isnan(row.values[measure][1]) else 100 * row.values[measure][1] for row in rows]
    return go.Scatter(
        x=[100 * row.values[measure][0] for row in rows],
        y=[first_row + published.index(row) for row in rows],
        mode="markers",
        marker={"size": 8, "symbol": "diamond-open", "color": QUOTED},
        error_x={"type": "data", "array": spreads, "color": QUOTED, "thickness": 1, "width": 0},
        text=[f"<b>{plain(row.label)}</b><br>{MEASURES[measure]} {percent(*row.values[measure])}" for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def interval_text(interval: Interval) -> str:
    """An interval in percent; `n/a` where undefined."""
    return "n/a" if math.isnan(interval.low) else f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def ranks(board: Leaderboard, measure: str) -> list[float]:
    """The rank of every row by a measure, 1 = best; equal means share one, an undefined one has none (NaN)."""
    means = np.array([board.cells[name][measure].mean for name in board.names])
    return [float("nan") if math.isnan(mean) else 1.0 + np.sum(means > mean) for mean in means]


def rank_chart(boards: Sequence[Leaderboard]) -> go.Figure:
    """A line an encoder through its ranks under every protocol; a menu chooses the measure."""
    names = boards[0].names
    by_measure = {measure: _ranks_by_encoder(boards, measure) for measure in MEASURES}
    figure = go.Figure()
    for index, name in enumerate(names):
        figure.add_scatter(
            x=[board.protocol.name for board in boards],
            y=by_measure[HEADLINE][index],
            name=plain(name),
            mode="lines+markers+text",
            text=[""] * (len(boards) - 1) + [f"  {plain(name)}"],
            textposition="middle right",
            cliponaxis=False,
            hovertemplate="<b>%{fullData.name}</b><br>%{x}: rank %{y}<extra></extra>",
            **series(index),
        )
    buttons = [
        {"label": MEASURES[measure], "method": "restyle", "args": [{"y": values}]}
        for measure, values in by_measure.items()
    ]
    style(figure, 120 + ROW_PIXELS * 1.2 * len(names))
    figure.update_layout(updatemenus=[menu(buttons)], margin={"t": 60, "r": 8 * max(map(len, names)) + 20})
    figure.update_xaxes(range=[-0.15, len(boards) - 0.9], showgrid=False)
    figure.update_yaxes(range=[len(names) + 0.5, 0.5], dtick=1, title="rank")
    return figure


def _ranks_by_encoder(boards: Sequence[Leaderboard], measure: str) -> list[list[float | None]]:
    """`[encoder of the first board][protocol]`; None where undefined."""
    found = [dict(zip(board.names, ranks(board, measure), strict=True)) for board in boards]
    return [[None if math.isnan(by_name[name]) else by_name[name] for by_name in found] for name in boards[0].names]


def menu(buttons: list[dict]) -> dict:
    """A drop-down list above the upper left corner of a chart."""
    return {
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 16, "t": 0, "l": 0, "r": 0},
        "bgcolor": "white",
        "bordercolor": "#c8ced5",
        "showactive": True,
    }


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
    figure.update_xaxes(tickangle=-50, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(margin={"t": 10})
    return figure


def cost_chart(report: Report, costs: dict[str, dict[str, float]]) -> go.Figure:
    """Accuracy against each kind of cost; dashed: encoders that no cheaper one beats. `costs`: encoder -> key -> value."""
    figure = make_subplots(1, len(COSTS), shared_yaxes=True, horizontal_spacing=0.04)
    for column, cost in enumerate(COSTS, 1):
        points = {
            name: (values[cost.key], 100 * report.board.cells[name][HEADLINE].mean)
            for name, values in costs.items()
            if not math.isnan(values[cost.key])
        }
        for trace in _cost_traces(points) if points else ():
            figure.add_trace(trace, row=1, col=column)
        unknown = "" if points else " (n/a)"
        figure.update_xaxes(title=f"{cost.label}{unknown}", type="log", dtick="D2", col=column, showticklabels=bool(points))
    style(figure, 380)
    figure.update_yaxes(title="accuracy, %", col=1)
    figure.update_layout(margin={"t": 16, "b": 60})
    return figure


def _cost_traces(points: dict[str, tuple[float, float]]) -> list[go.Scatter]:
    front = pareto_front(points)
    dashed = go.Scatter(
        x=[points[name][0] for name in front],
        y=[points[name][1] for name in front],
        mode="lines",
        line={"color": BEST, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    dots = go.Scatter(
        x=[x for x, _ in points.values()],
        y=[y for _, y in points.values()],
        mode="markers+text",
        marker={"size": 10, "color": [BEST if name in front else OURS for name in points]},
        text=[plain(name) for name in points],
        textposition="top center",
        textfont={"size": 10, "color": QUIET},
        hovertemplate="<b>%{text}</b><br>%{x:.3g}<br>accuracy %{y:.2f} %<extra></extra>",
    )
    return [dashed, dots]


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
    left_titles(figure)
    return figure
