"""Interactive charts of the page: what all share, the leaderboard, and ranks under every protocol."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.metrics import MEASURES
from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.palette import SERIES_COLOURS
from common.reports.published import PublishedRow
from common.reports.tables import percent
from common.stats import Interval

INK, QUIET, GRID = "#1f2328", "#59636e", "#e4e7eb"
OURS, BEST, QUOTED = SERIES_COLOURS[0], SERIES_COLOURS[5], "#7d8590"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "cross")
DASHES = ("solid", "dash", "dot")
ROW_PIXELS = 22
FOLD_OFFSET = 0.3  # of a row: folds stand below the mean
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
        "marker": {
            "color": colour,
            "symbol": SYMBOLS[index % len(SYMBOLS)],
            "size": 8,
            "line": {"color": INK, "width": 0.5},
        },
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
    figure.update_xaxes(nticks=5)
    left_titles(figure)
    return figure


def _board_traces(board: Leaderboard, measure: str) -> list[go.Scatter]:
    best = board.best(measure)
    colours = [BEST if name == best else OURS for name in board.names]
    cells = [board.cells[name][measure] for name in board.names]
    folds = [100 * result.values(measure, board.protocol) for result in board.results]
    hovers = [
        f"<b>{plain(name)}</b><br>{MEASURES[measure]} {percent(cell.mean, cell.std)}<br>"
        f"95 % interval {interval_text(cell.interval)}<br>tied: {board.letters[measure][name]}"
        for name, cell in zip(board.names, cells, strict=True)
    ]
    lines = [
        go.Scatter(
            x=[100 * cell.interval.low, 100 * cell.interval.high],
            y=[row, row],
            mode="lines",
            line={"color": colour, "width": 3},
            opacity=0.55,
            hoverinfo="skip",
        )
        for row, (cell, colour) in enumerate(zip(cells, colours, strict=True))
    ]
    return [
        *lines,
        go.Scatter(
            x=np.concatenate(folds).tolist(),
            y=[row + FOLD_OFFSET for row, values in enumerate(folds) for _ in values],
            mode="markers",
            marker={"size": 4, "color": QUIET, "opacity": 0.6},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[100 * cell.mean for cell in cells],
            y=list(range(len(cells))),
            mode="markers",
            marker={"size": 9, "color": colours, "line": {"color": "white", "width": 1}},
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


def interval_text(interval: Interval, digits: int = 1) -> str:
    """An interval in percent; `n/a` where undefined."""
    if math.isnan(interval.low):
        return "n/a"
    return f"{100 * interval.low:.{digits}f} to {100 * interval.high:.{digits}f}"


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
