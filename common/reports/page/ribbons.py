"""Ribbons of every video and encoder in one interactive chart, a menu chooses the video.

The page holds segments, not frames: a hundred videos of twenty encoders stay a few megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from common.base.runtime import progress
from common.base.wording import clock, readable
from common.dataset.segments import Segments, find_segments
from common.reports.comparison import Report
from common.reports.failure_atlas import VideoAccuracies, video_accuracies
from common.reports.page.style import menu, plain, style
from common.reports.pictures.style import phase_colours
from common.reports.results import EncoderResult
from common.scoring.video_score import VideoScore

ROW_PIXELS = 34
TRUTH = "truth"
MINUTE_DIGITS = 3  # 0.06 s: finer than anyone reads off the axis
HOVER = "<b>%{{fullData.name}}</b><br>{times}<br>mean probability %{{customdata[3]}}<extra>%{{y}}</extra>"  # y: the label of the row
IN_MINUTES = "%{customdata[0]} to %{customdata[1]}<br>duration %{customdata[2]:.1f} s"
IN_FRAMES = "frame %{customdata[0]} to %{customdata[1]}<br>duration %{customdata[2]} frames"
Bars = dict[str, list]  # base, x (length), y (row), customdata of the bars of one phase


def ribbon_chart(report: Report) -> go.Figure:
    """Truth and every encoder's prediction along the time of a video; below each prediction, black where it is wrong."""
    in_minutes = all(score.fps for result in report.results for score in result.scores.values())
    videos = video_accuracies(report.results)
    shown = progress(videos, description="page ribbons", unit="videos")
    bars = [_video_bars(report.results, video.name, report.mapping.num_classes, in_minutes) for video in shown]
    figure = go.Figure()
    hover = HOVER.format(times=IN_MINUTES if in_minutes else IN_FRAMES)
    names, colours = report.mapping.names, phase_colours(report.mapping.names)
    for name, colour, first in zip(names, colours, bars[0], strict=False):
        figure.add_bar(
            orientation="h",
            name=readable(plain(name)),
            marker={"color": colour},
            width=0.72,
            hovertemplate=hover,
            **first,
        )
    figure.add_bar(
        orientation="h",
        name="wrong",
        marker={"color": "black"},
        offset=0.38,
        width=0.09,
        hoverinfo="skip",
        **bars[0][-1],
    )
    rows = 1 + len(report.results)
    style(figure, 190 + ROW_PIXELS * rows, legend=True)
    buttons = [_button(report, video, each) for video, each in zip(videos, bars, strict=True)]
    figure.update_layout(
        barmode="overlay",
        dragmode="zoom",
        updatemenus=[menu(buttons)],
        legend={"traceorder": "normal", "y": -60 / (ROW_PIXELS * rows), "itemwidth": 30},
        margin={"t": 56},
    )
    figure.update_xaxes(title="minutes" if in_minutes else "frames", rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(rows)),
        labelalias=_row_labels(report, videos[0]),
        range=[rows - 0.4, -0.6],
        fixedrange=True,
        showgrid=False,
    )
    return figure


def _button(report: Report, video: VideoAccuracies, bars: Sequence[Bars]) -> dict:
    """The menu's entry of one video: replaces the bars of all traces, and the accuracies beside the rows."""
    data = {key: [each[key] for each in bars] for key in bars[0]}
    layout = {"yaxis.labelalias": _row_labels(report, video), "xaxis.autorange": True}
    return {"label": f"{plain(video.name)}   {100 * video.mean:.0f} %", "method": "update", "args": [data, layout]}


def _row_labels(report: Report, video: VideoAccuracies) -> dict[str, str]:
    """What stands by each row number, also when hovering."""
    labels = {"0": TRUTH}
    for row, result in enumerate(report.results, 1):
        accuracy = video.accuracies.get(result.name)
        labels[str(row)] = f"{plain(result.name)}  {'n/a' if accuracy is None else f'{100 * accuracy:.0f} %'}"
    return labels


def _video_bars(results: Sequence[EncoderResult], video: str, num_classes: int, in_minutes: bool) -> list[Bars]:
    """The bars of every phase, and last those of wrong stretches."""
    bars: list[Bars] = [{"base": [], "x": [], "y": [], "customdata": []} for _ in range(num_classes + 1)]
    scores = {row: result.scores[video] for row, result in enumerate(results, 1) if video in result.scores}
    for row, score in scores.items():
        predicted, true = score.segments
        if row == min(scores):
            _add_segments(bars, 0, true, ["n/a"] * len(true), score, in_minutes)
        _add_segments(bars, row, predicted, _probabilities(score), score, in_minutes)
        scale = 60 * score.fps if in_minutes else 1
        for is_wrong, start, end in find_segments(score.true != score.predicted):
            if is_wrong:
                _add_bar(bars[-1], row, start / scale, end / scale)
    return bars


def _add_segments(
    bars: Sequence[Bars], row: int, segments: Segments, probabilities: Sequence, score: VideoScore, in_minutes: bool
) -> None:
    scale = 60 * score.fps if in_minutes else 1
    for (phase, start, end), probability in zip(segments, probabilities, strict=True):
        _add_bar(bars[phase], row, start / scale, end / scale)
        bars[phase]["customdata"].append([*_times(start, end, score.fps if in_minutes else None), probability])


def _add_bar(bars: Bars, row: int, start: float, end: float) -> None:
    bars["base"].append(round(start, MINUTE_DIGITS))
    bars["x"].append(round(end - start, MINUTE_DIGITS))
    bars["y"].append(row)


def _times(start: int, end: int, fps: float | None) -> tuple:
    """From when to when, and how long: `1:02`, `1:40`, `38.2`; frames without `fps`."""
    if fps is None:
        return start, end, end - start
    return clock(start / fps), clock(end / fps), round((end - start) / fps, 1)


def _probabilities(score: VideoScore) -> list[float | str]:
    """The mean probability of the predicted phase over each predicted segment; `n/a` without probabilities."""
    means = segment_probabilities(score)
    return ["n/a" if math.isnan(mean) else round(mean, 2) for mean in means.tolist()]


def segment_probabilities(score: VideoScore) -> np.ndarray:
    """The mean probability of its phase over each predicted segment `(segments,)`; NaN without probabilities."""
    segments = score.segments[0]
    if score.load_probabilities is None:
        return np.full(len(segments), np.nan)
    probabilities = score.load_probabilities()
    own = probabilities[np.arange(len(probabilities)), score.predicted].astype(float)
    return np.add.reduceat(own, segments.starts) / (segments.ends - segments.starts)
