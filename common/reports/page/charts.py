"""Interactive charts of the leaderboard, of ranks under every protocol, of phases, costs and label efficiency."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from common.base.wording import readable
from common.reports.chart_data import (
    acquisition_panels,
    cost_panels,
    efficiency_panels,
    phase_map,
    spacing_panel,
    waiting_panels,
)
from common.reports.comparison import Report
from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.page.style import (
    BEST,
    OURS,
    QUIET,
    QUOTED,
    ROW_PIXELS,
    dots,
    left_titles,
    line,
    menu,
    name_rows,
    plain,
    series,
    style,
)
from common.reports.published import PublishedRow
from common.reports.text import contrast_text, interval_text, percent
from common.scoring.metrics import MEASURES

FOLD_OFFSET = 0.3  # of a row: folds stand below the mean


def board_chart(board: Leaderboard, published: Sequence[PublishedRow]) -> go.Figure:
    """A panel per measure, a row per encoder: mean, its 95 % interval over videos, every fold; quoted rows hollow."""
    titles = [f"<b>{name}</b>" if key == HEADLINE else name for key, name in MEASURES.items()]
    figure = make_subplots(2, 4, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0)
    traces, places = [], []
    for place, measure in enumerate(MEASURES):
        of_panel = [*_board_traces(board, measure), _quoted_trace(published, measure, len(board.names))]
        traces += of_panel
        places += [place] * len(of_panel)
    figure.add_traces(traces, rows=[place // 4 + 1 for place in places], cols=[place % 4 + 1 for place in places])
    rows = len(board.names) + len(published)
    panel = 36 + ROW_PIXELS * rows
    gap = 64
    style(figure, 2 * panel + gap + 88)
    share = panel / (2 * panel + gap)
    # plotly spaces panels in shares of the height, which would tear many rows apart: the gap is set in pixels here
    figure.update_yaxes(row=1, domain=[1 - share, 1])
    figure.update_yaxes(row=2, domain=[0, share])
    for place, note in enumerate(figure.layout.annotations):
        note.update(y=1 if place < 4 else share)
    name_rows(figure, [plain(name) for name in [*board.names, *(row.label for row in published)]], ticks="")
    figure.update_xaxes(nticks=5)
    left_titles(figure)
    return figure


def _board_traces(board: Leaderboard, measure: str) -> list[go.Scatter]:
    best = board.best(measure)
    colours = [BEST if name in best else OURS for name in board.names]
    cells = [board.cells[name][measure] for name in board.names]
    folds = [100 * result.values(measure, board.protocol) for result in board.results]
    hovers = [
        f"<b>{plain(name)}</b><br>{MEASURES[measure]} {percent(cell.mean, cell.std)}<br>"
        f"95 % interval {interval_text(cell.interval)}{_standing(board, measure, name)}"
        for name, cell in zip(board.names, cells, strict=True)
    ]
    rows = range(len(cells))
    intervals = []
    for colour in dict.fromkeys(colours):  # a trace for all rows of a colour: one for each would take ten times as long
        ends = [
            (row, 100 * cells[row].interval.low, 100 * cells[row].interval.high)
            for row in rows
            if colours[row] == colour
        ]
        x = [end for _, low, high in ends for end in (low, high, None)]  # None ends a line
        y = [end for row, *_ in ends for end in (row, row, None)]
        intervals.append(line(x, y, opacity=0.55, color=colour, width=3))
    fold_rows = [row + FOLD_OFFSET for row, values in zip(rows, folds, strict=True) for _ in values]
    if len(board.results[0].splits) == 1:  # the mean is that of the split
        fold_rows, folds = [], [np.empty(0)]
    fold_dots = dots(np.concatenate(folds).tolist(), fold_rows, None, size=4, color=QUIET, opacity=0.6)
    look = {"size": 9, "color": colours, "line": {"color": "white", "width": 1}}
    means = dots([100 * cell.mean for cell in cells], rows, "%{text}", text=hovers, **look)
    return [*intervals, fold_dots, means]


def _standing(board: Leaderboard, measure: str, name: str) -> str:
    """Who a row is told from, as a line of its hover text."""
    if len(board.names) < 2:
        return ""
    if board.against is not None:
        return f"<br>against {plain(board.against)}: {contrast_text(board, measure, name)}"
    tied = f"tied: {board.letters[measure][name]}"
    return f"<br>{tied if board.has_letters(measure) else board.families[measure].shortage}"


def _quoted_trace(published: Sequence[PublishedRow], measure: str, first_row: int) -> go.Scatter:
    rows = [(row, quoted) for row, quoted in enumerate(published, first_row) if measure in quoted.values]
    means, stds = np.array([quoted.values[measure] for _, quoted in rows]).reshape(-1, 2).T
    hovers = [
        f"<b>{plain(quoted.label)}</b><br>{MEASURES[measure]} {percent(*quoted.values[measure])}" for _, quoted in rows
    ]
    look = {"size": 8, "symbol": "diamond-open", "color": QUOTED}
    trace = dots((100 * means).tolist(), [row for row, _ in rows], "%{text}", text=hovers, **look)
    spreads = np.nan_to_num(100 * stds).tolist()  # a source may give no spread
    return trace.update(error_x={"type": "data", "array": spreads, "color": QUOTED, "thickness": 1, "width": 0})


def ranks(board: Leaderboard, measure: str) -> list[float]:
    """The rank of every row by a measure, 1 = best; equal means share one, an undefined one has none (NaN)."""
    means = np.array([board.cells[name][measure].mean for name in board.names])
    return [float("nan") if math.isnan(mean) else 1.0 + np.sum(means > mean) for mean in means]


def rank_chart(boards: Sequence[Leaderboard]) -> go.Figure:
    """A line per encoder through its ranks under every protocol; a menu chooses the measure."""
    names = boards[0].names
    by_measure = {}
    for measure in MEASURES:
        found = [dict(zip(board.names, ranks(board, measure), strict=True)) for board in boards]
        # by encoder of the first board, then by protocol; None, not NaN, for what is undefined: it ends a line too
        by_measure[measure] = [
            [None if math.isnan(by_name[name]) else by_name[name] for by_name in found] for name in names
        ]
    texts = {measure: ends_of_lines(names, lines) for measure, lines in by_measure.items()}
    figure = go.Figure()
    for index, name in enumerate(names):
        figure.add_scatter(
            x=[board.protocol.name for board in boards],
            y=by_measure[HEADLINE][index],
            name=plain(name),
            mode="lines+markers+text",
            text=texts[HEADLINE][index],
            textposition="middle right",
            cliponaxis=False,
            hovertemplate="<b>%{fullData.name}</b><br>%{x}: rank %{y}<extra></extra>",
            **series(index),
        )
    buttons = [
        {"label": MEASURES[measure], "method": "restyle", "args": [{"y": lines, "text": texts[measure]}]}
        for measure, lines in by_measure.items()
    ]
    style(figure, 120 + ROW_PIXELS * 1.2 * len(names))
    figure.update_layout(
        updatemenus=[menu(buttons)], margin={"t": 60, "r": 8 * max(len(plain(name)) for name in names) + 20}
    )
    figure.update_xaxes(range=[-0.15, len(boards) - 0.9], showgrid=False)
    figure.update_yaxes(range=[len(names) + 0.5, 0.5], dtick=1, title="rank")
    return figure


def ends_of_lines(names: Sequence[str], lines: Sequence[Sequence[float | None]]) -> list[list[str]]:
    """Each encoder's texts along its line: its name at the end, below those that end at the same rank."""
    ends = [line[-1] for line in lines]
    return [
        [""] * (len(line) - 1) + ["<br>" * 2 * ends[:index].count(line[-1]) + f"  {plain(name)}"]
        for index, (name, line) in enumerate(zip(names, lines, strict=True))
    ]


def phase_chart(report: Report) -> go.Figure:
    """F1 over all test frames, a row per encoder, a column per phase with its share of the true frames."""
    values, lowest, shares = phase_map(report)
    columns = [f"{readable(plain(n))}  {share:.1f} %" for n, share in zip(report.mapping.names, shares, strict=True)]
    names = [plain(result.name) for result in report.results]
    figure = go.Figure(
        go.Heatmap(
            # None, not NaN, which is no JSON
            z=[[None if math.isnan(value) else round(value, 2) for value in row] for row in values.tolist()],
            # by number: names that are the same once they are shortened stay columns and rows of their own
            x=list(range(len(columns))),
            y=list(range(len(names))),
            colorscale="Blues",
            zmin=lowest,
            zmax=100,
            xgap=1,
            ygap=1,
            text=[["n/a" if math.isnan(value) else f"{value:.0f}" for value in row] for row in values.tolist()],
            texttemplate="%{text}",
            hovertext=[[f"<b>{name}</b><br>{column} of the frames" for column in columns] for name in names],
            hovertemplate="%{hovertext}<br>F1 %{z:.1f} %<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": "F1, %", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    style(figure, 190 + 26 * len(values), top=10)
    figure.update_xaxes(tickangle=-50, showgrid=False, ticks="", tickvals=list(range(len(columns))), ticktext=columns)
    figure.update_yaxes(
        autorange="reversed", showgrid=False, ticks="", tickvals=list(range(len(names))), ticktext=names
    )
    return figure


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis over these values: 1, 2 and 5 of each decade, written out ("20", where plotly would write "2")."""
    exponents = [math.floor(math.log10(value)) for value in values if 0 < value < math.inf] or [0]
    ticks = [digit * 10.0**power for power in range(min(exponents) - 1, max(exponents) + 2) for digit in (1, 2, 5)]
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks],
    }


def cost_chart(report: Report) -> go.Figure | None:
    """Accuracy against each known cost; dashed: encoders that no cheaper one beats. None where no cost is known."""
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
        figure.update_xaxes(title=panel.label, **log_axis(cost for cost, _ in panel.points.values()), col=column)
    style(figure, 400 + 7 * len(report.results), legend=True, top=16)
    figure.update_yaxes(title="accuracy, %", col=1)
    return figure


def efficiency_chart(report: Report) -> go.Figure:
    """Measures and the time saved against the number of training videos, with their spread."""
    figure = _against_videos(*efficiency_panels(report))
    figure.update_xaxes(type="log", title="training videos of a fold")
    return figure


def acquisition_chart(report: Report) -> go.Figure:
    """Accuracy and the time saved against the number of videos that a rule chose, with 95 % intervals over folds and draws."""
    figure = _against_videos(*acquisition_panels(report))
    figure.update_xaxes(title="labelled videos")
    return figure


def _against_videos(panels: dict[str, dict[str, np.ndarray]], ticks: Sequence[int]) -> go.Figure:
    """A panel a measure, a curve `(4, points)` a name: see `efficiency_panels`."""
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.05)
    for index, name in enumerate(next(iter(panels.values()))):
        for column, curves in enumerate(panels.values(), 1):
            num_videos, means, below, above = curves[name]
            ends = {"array": np.nan_to_num(above).tolist(), "arrayminus": np.nan_to_num(below).tolist()}
            trace = go.Scatter(
                x=num_videos.tolist(),
                y=means.tolist(),
                error_y={"type": "data", "symmetric": False, **ends, "thickness": 1, "width": 3},
                name=plain(name),
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate="<b>%{fullData.name}</b><br>%{x:.0f} training videos: %{y:.1f} %<extra></extra>",
                **series(index),
            )
            figure.add_trace(trace, row=1, col=column)
    style(figure, 380, legend=True)
    figure.update_xaxes(tickvals=ticks, ticktext=list(map(str, ticks)))
    figure.update_yaxes(title="percent", col=1)
    figure.update_layout(legend={"y": -0.28})
    left_titles(figure)
    return figure


def waiting_chart(report: Report) -> go.Figure:
    """Accuracy and edit against the delay of the answers, with 95 % intervals over videos."""
    panels, delays = waiting_panels(report)
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.06)
    for index, name in enumerate(report.waiting):
        for column, curves in enumerate(panels.values(), 1):
            curve = curves[name]
            ends = {"array": curve.above.tolist(), "arrayminus": curve.below.tolist(), "symmetric": False}
            trace = go.Scatter(
                x=curve.places,
                y=curve.means.tolist(),
                error_y={"type": "data", "thickness": 1, "width": 3} | ends,
                name=plain(name),
                legendgroup=name,
                showlegend=column == 1,
                text=[plain(text) for text in curve.names],
                hovertemplate="<b>%{fullData.name}</b><br>%{text}<br>%{y:.1f} %<extra></extra>",
                **series(index),
            )
            figure.add_trace(trace, row=1, col=column)
    style(figure, 380, legend=True)
    figure.update_xaxes(tickvals=list(range(len(delays))), ticktext=delays, title="delay (not to scale)")
    figure.update_yaxes(title="percent", col=1)
    figure.update_layout(legend={"y": -0.28})
    left_titles(figure)
    return figure


def spacing_chart(report: Report) -> go.Figure:
    """Accuracy against the seconds that a window spans, with 95 % intervals over videos."""
    figure, panel = go.Figure(), spacing_panel(report)
    for index, (name, curve) in enumerate(panel.items()):
        ends = {"array": curve.above.tolist(), "arrayminus": curve.below.tolist(), "symmetric": False}
        trace = go.Scatter(
            x=curve.seconds.tolist(),
            y=curve.means.tolist(),
            error_y={"type": "data", "thickness": 1, "width": 3} | ends,
            name=plain(name),
            text=[plain(text) for text in curve.names],
            hovertemplate="<b>%{fullData.name}</b><br>%{text}<br>%{x:.3~g} s: %{y:.1f} %<extra></extra>",
            **series(index),
        )
        figure.add_trace(trace)
    style(figure, 380, legend=True, top=16)
    seconds = (second for curve in panel.values() for second in curve.seconds.tolist())
    figure.update_xaxes(title="seconds that a window spans", **log_axis(seconds))
    figure.update_yaxes(title="accuracy, %")
    return figure
