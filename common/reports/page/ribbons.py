"""Ribbons of the page: a small picture for each video, and some videos in an interactive chart, a menu chooses which.

The chart holds segments, not frames, and those of a hundred videos of twenty encoders would be tens of megabytes; their
pictures are a few.
"""

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from PIL import ImageColor

from common.base.wording import clock, readable
from common.reports.chart_data import Ribbon, video_ribbons
from common.reports.comparison import Report
from common.reports.failure_atlas import video_accuracies
from common.reports.page.style import menu, plain, style
from common.reports.pictures.style import phase_colours
from common.scoring.video_score import VideoScore

ROW_PIXELS = 34
IMAGE_WIDTH = 1200  # pixels, of a whole video; about as wide as the page shows it
ROW, BAR, MARK = 20, 14, 3  # pixels: of an image's row, of its phases, and below them of what is wrong
WHITE, BLACK = "#FFFFFF", "#000000"
FILTER_UP = 2  # of a row of a PNG: the difference to the row above
TIME_DIGITS = 3  # 0.06 s where the axis counts minutes: finer than anyone reads off it
LEAST_IN_MINUTES = 120  # seconds
# in `extra`, the box beside the text: the label of the row
HOVER = "<b>%{{fullData.name}}</b><br>{times}<br>mean probability %{{customdata[3]}}<extra>%{{y}}</extra>"
IN_TIME = "%{customdata[0]} to %{customdata[1]}<br>duration %{customdata[2]:.1f} s"
IN_FRAMES = "frame %{customdata[0]} to %{customdata[1]}<br>duration %{customdata[2]} frames"
Bars = dict[str, list]  # base, x (length), y (row), customdata of the bars of one phase


def ribbon_chart(report: Report, videos: Sequence[str]) -> go.Figure:
    """Of each of `videos` truth and every encoder's prediction along the time of a video; below a prediction, black where it is wrong."""
    known = [video for video in video_accuracies(report.results) if video.name in videos]
    unit = _unit([score for result in report.results for name, score in result.scores.items() if name in videos])
    names, colours = report.mapping.names, phase_colours(report.mapping)
    # one trace per phase and one for what is wrong; choosing a video replaces the bars of all of them
    bars, labels, buttons = [], [], []
    for video in known:
        ribbons = video_ribbons(report, video.name)
        bars.append(_video_bars(ribbons, len(names), unit))
        # by the number of the row, also when hovering
        labels.append({str(row): plain(ribbon.label) for row, ribbon in enumerate(ribbons)})
        data = {key: [each[key] for each in bars[-1]] for key in bars[-1][0]}
        layout = {"yaxis.labelalias": labels[-1], "xaxis.autorange": True}
        label = f"{plain(video.name)}   {100 * video.mean:.0f} %"
        buttons.append({"label": label, "method": "update", "args": [data, layout]})
    figure = go.Figure()
    hover = HOVER.format(times=IN_FRAMES if unit == "frames" else IN_TIME)
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
    style(figure, 190 + ROW_PIXELS * rows, legend=True, top=56)
    figure.update_layout(
        barmode="overlay",
        dragmode="zoom",
        updatemenus=[menu(buttons)],
        legend={"traceorder": "normal", "y": -60 / (ROW_PIXELS * rows), "itemwidth": 30},
    )
    figure.update_xaxes(title=unit, rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(rows)), labelalias=labels[0], range=[rows - 0.4, -0.6], fixedrange=True, showgrid=False
    )
    return figure


def _unit(scores: Sequence[VideoScore]) -> str:
    """`minutes`, of short clips alone `seconds`, or `frames` where a rate is unknown: what the axis counts."""
    if not all(score.fps for score in scores):
        return "frames"
    return "minutes" if max(score.num_frames / score.fps for score in scores) >= LEAST_IN_MINUTES else "seconds"


def _video_bars(ribbons: Sequence[Ribbon], num_classes: int, unit: str) -> list[Bars]:
    """The bars of every phase, and last those of wrong stretches."""
    bars: list[Bars] = [{"base": [], "x": [], "y": [], "customdata": []} for _ in range(num_classes + 1)]

    def add(place: int, row: int, start: float, end: float) -> None:
        bars[place]["base"].append(round(start, TIME_DIGITS))
        bars[place]["x"].append(round(end - start, TIME_DIGITS))
        bars[place]["y"].append(row)

    for row, ribbon in enumerate(ribbons):
        if ribbon.score is None:
            continue
        fps = None if unit == "frames" else ribbon.score.fps
        scale = (60 if unit == "minutes" else 1) * fps if fps else 1
        # the truth, above, has no probability
        means = segment_probabilities(ribbon.score) if row else np.full(len(ribbon.segments), np.nan)
        for (phase, start, end), mean in zip(ribbon.segments, means.tolist(), strict=True):
            add(phase, row, start / scale, end / scale)
            if fps:
                times = clock(start / fps), clock(end / fps), round((end - start) / fps, 1)
            else:
                times = start, end, end - start
            bars[phase]["customdata"].append([*times, "n/a" if math.isnan(mean) else round(mean, 2)])
        for start, end in ribbon.wrong:
            add(-1, row, start / scale, end / scale)
    return bars


def segment_probabilities(score: VideoScore) -> np.ndarray:
    """The mean probability of its phase over each predicted segment `(segments,)`; NaN without probabilities."""
    segments = score.segments[0]
    counted = score.from_probabilities
    return np.full(len(segments), np.nan) if counted is None else counted.of_segments


@dataclass(frozen=True)
class RibbonImage:
    """A PNG as an address that the page holds itself; its rows are `ROW` pixels high, one for each of `labels`."""

    address: str
    labels: list[str]
    height: int


def ribbon_image(ribbons: Sequence[Ribbon], colours: Sequence[str]) -> RibbonImage:
    """A row for each ribbon, white where it has no phase; `colours` are those of the phases."""
    num_frames = ribbons[0].score.num_frames
    white, black = len(colours), len(colours) + 1  # places in the palette, after the phases
    middles = ((np.arange(IMAGE_WIDTH) + 0.5) * num_frames / IMAGE_WIDTH).astype(int)
    edges = np.linspace(0, num_frames, IMAGE_WIDTH + 1)
    pixels = np.full((ROW * len(ribbons), IMAGE_WIDTH), white, dtype=np.uint8)
    for row, ribbon in enumerate(ribbons):
        if ribbon.score is None:
            continue
        top, segments = ROW * row + 1, ribbon.segments
        places = np.searchsorted(segments.starts, middles, side="right") - 1  # -1 before the first one
        is_inside = (places >= 0) & (middles < segments.ends[places])  # segments may leave gaps
        pixels[top : top + BAR] = np.where(is_inside, segments.labels[places], white)
        # every column that a wrong frame lies in: a mistake is seen however short it is
        starts, ends = np.array(ribbon.wrong, dtype=int).reshape(-1, 2).T
        begun = np.bincount(np.searchsorted(edges, starts, side="right") - 1, minlength=IMAGE_WIDTH + 1)
        ended = np.bincount(np.searchsorted(edges, ends), minlength=IMAGE_WIDTH + 1)
        is_wrong = np.cumsum(begun - ended)[:IMAGE_WIDTH] > 0
        pixels[top + BAR + 1 : top + BAR + 1 + MARK, is_wrong] = black
    picture = png(pixels, [ImageColor.getrgb(colour) for colour in (*colours, WHITE, BLACK)])
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return RibbonImage(address, [ribbon.label for ribbon in ribbons], len(pixels))


def png(pixels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """A PNG (ISO/IEC 15948) of places in a palette `(height, width)`, uint8.

    A row equal to the one above it is written as its difference, nothing but zeros: where most rows are, the file is a
    fifth smaller than Pillow's, which knows no differences between rows of a palette.
    """
    height, width = pixels.shape
    is_repeated = np.concatenate(([False], (pixels[1:] == pixels[:-1]).all(axis=1)))
    rows = np.concatenate([FILTER_UP * is_repeated[:, None], np.where(is_repeated[:, None], 0, pixels)], axis=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits of a palette's place, not interlaced
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", bytes(level for colour in palette for level in colour)),
            chunk(b"IDAT", zlib.compress(rows.astype(np.uint8).tobytes(), 9)),
            chunk(b"IEND", b""),
        ]
    )
