"""The style that the page's interactive charts share: colours, symbols, titles, menus."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from common.base.wording import brief
from common.reports.pictures.style import SERIES_COLOURS

INK, QUIET, GRID = "#1f2328", "#59636e", "#e4e7eb"
OURS, BEST, QUOTED = SERIES_COLOURS[0], SERIES_COLOURS[5], "#7d8590"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "cross")
DASHES = ("solid", "dash", "dot")
ROW_PIXELS = 22
LONGEST_NAME = 48  # characters
TITLE_FONT = {"size": 13, "color": INK}


def plain(text: str) -> str:
    """A name that plotly shows as it is, though its labels understand some HTML; a long one without its middle."""
    return html.escape(brief(text, LONGEST_NAME), quote=False)


def style(figure: go.Figure, height: float, *, legend: bool = False, top: int = 44) -> None:
    """The look of every chart, with `top` pixels above its panels.

    Dragging scrolls the page instead of zooming, unless a chart says otherwise.
    """
    figure.update_layout(
        template="none",  # plotly's own look would be written into the page once per chart
        height=height,
        autosize=True,
        font={"family": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 12, "color": INK},
        margin={"l": 10, "r": 24, "t": top, "b": 44},
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


def name_rows(figure: go.Figure, names: Sequence[str], **axis: object) -> None:
    """A name by each row of a chart whose rows are numbered from 0, the first on top."""
    rows = len(names)
    # a range that falls turns the axis round, and needs no room below and above for markers cut in half
    figure.update_yaxes(tickvals=list(range(rows)), ticktext=list(names), range=[rows - 0.4, -0.6], **axis)


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


def dots(
    x: Sequence[float], y: Sequence[float], hover: str | None, *, text: Sequence[str] | None = None, **marker: object
) -> go.Scatter:
    """Marks of one look; `hover` is what pointing at one shows, None: nothing."""
    shown = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return go.Scatter(x=list(x), y=list(y), mode="markers", marker=marker, text=text, **shown)


def line(x: Sequence[float], y: Sequence[float], *, opacity: float | None = None, **look: object) -> go.Scatter:
    """A line that says nothing when pointed at."""
    return go.Scatter(x=x, y=y, mode="lines", line=look, opacity=opacity, hoverinfo="skip")


def left_titles(figure: go.Figure) -> None:
    """Titles of panels at their left edge, in the chart's own type."""
    # plotly keeps panel titles as annotations, in the order of the panels
    for note, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=False):
        note.update(x=axis.domain[0], xanchor="left", font=TITLE_FONT)


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
