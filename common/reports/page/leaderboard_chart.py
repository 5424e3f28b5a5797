"""Interactive charts of the leaderboard, and of ranks under every protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.page.style import (
    BEST,
    OURS,
    QUIET,
    QUOTED,
    ROW_PIXELS,
    interval_text,
    left_titles,
    menu,
    plain,
    series,
    style,
)
from common.reports.published import PublishedRow
from common.reports.text import percent
from common.scoring.metrics import MEASURES

FOLD_OFFSET = 0.3  # of a row: folds stand below the mean


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
