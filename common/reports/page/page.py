"""The comparison as one web page: opens from disk, needs no network, holds every table and interactive charts.

plotly draws and moves the charts; `report.js` sorts the leaderboard and finds a video; switching protocols and unfolding
sheets is plain HTML.
"""

import base64
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from common.base.files import write_text
from common.base.runtime import counted
from common.base.wording import brief, clock, readable
from common.head.config import FLOORS
from common.reports.case_sheets import CaseSheet, case_sheets
from common.reports.chart_data import shown_videos, video_ribbons
from common.reports.comparison import Report
from common.reports.costs import COSTS
from common.reports.failure_atlas import FailureAtlas, failure_atlas
from common.reports.leaderboard import HEADLINE
from common.reports.page import charts, failure_charts
from common.reports.page.ribbons import ribbon_chart, ribbon_image
from common.reports.page.thumbnails import frame_strips
from common.reports.pictures.style import phase_colours
from common.reports.results import EncoderResult, SplitResult
from common.reports.robustness.floors import floor_rows, points_above
from common.reports.run_records import SHORT_HASH, commit_name, identity, run_row, short_sources, weights_source
from common.reports.text import contrast_parts, contrast_text, interval_text, p_value, percent, points, standing_column
from common.scoring.effort import OPERATIONS, SCALES
from common.scoring.further_measures import FURTHER_MEASURES, further_name
from common.scoring.metrics import MEASURES
from common.scoring.protocols import methods_sentence
from common.scoring.ranks import LEAST_RANKED, kendall

FEW_VIDEOS = 24  # of which all have frames in their sheets: of more those whose ribbons are drawn large
LONGEST_LABEL = (
    28  # characters of a name beside a ribbon: a longer one is without its middle, as runs differ at their ends
)
MOST_CHANGES = 10  # of a case sheet that are spelled out
TICK_MINUTES = (1, 2, 5, 10, 15, 30, 60)
MOST_TICKS = 14
LAST_TICK = 0.03  # of a video's length: a tick nearer to its end has no room


def save_page(report: Report, path: Path, *, all_ribbons: bool = False, thumbnails: bool = False) -> Path:
    """Write `report.html` atomically; the same report gives the same bytes.

    `all_ribbons`: videos to zoom into are all, not those of `shown_videos`; `thumbnails`: frames of these are in their sheets.
    """
    context = build(report, all_ribbons=all_ribbons, thumbnails=thumbnails)
    environment = _environment(context["in_seconds"], report.mapping.background)
    write_text(path, environment.get_template("report.html.j2").render(context))
    return path


def build(report: Report, *, all_ribbons: bool = False, thumbnails: bool = False) -> dict[str, Any]:
    """Everything that the templates lay out."""
    sheets = case_sheets(report.results[0])
    atlas = failure_atlas(report.results)
    atlas = replace(atlas, by_length=atlas.by_length.filled, by_distance=atlas.by_distance.filled)
    ribbon_videos = shown_videos(report, all_ribbons=all_ribbons)
    figures = _figures(report, atlas, ribbon_videos)
    colours = phase_colours(report.mapping)
    anchors = {sheet.video: f"video-{number}" for number, sheet in enumerate(sheets, 1)}
    return {
        "report": report,
        "plotly_js": Markup(packed(get_plotlyjs())),
        "figures": {name: figure_html(figure, name) for name, figure in figures.items()},
        "measures": MEASURES,
        "headline": HEADLINE,
        "phases": [readable(name) for name in report.mapping.names],
        "colours": colours,
        "facts": facts(report),
        "random_weights": [r.name for r in report.results if r.record["features"]["random_weights"]],
        "sources": {result.name: weights_source(result) for result in report.results},
        "short_sources": short_sources(report.results),
        "quoted": {row.source: [r for r in report.published if r.source == row.source] for row in report.published},
        "board_ranks": [charts.ranks(board, HEADLINE) for board in report.boards],
        "agreement": rank_agreement(report),
        "sentences": {methods_sentence(board.protocol, report.mapping.background) for board in report.boards},
        "ribbon_videos": ribbon_videos,
        "strips": {sheet.video: ribbon_image(video_ribbons(report, sheet.video), colours) for sheet in sheets},
        "frames": frame_strips(report, list(anchors) if len(anchors) <= FEW_VIDEOS else ribbon_videos)
        if thumbnails
        else {},
        "sheets": sheets,
        "in_seconds": all(sheet.score.fps for sheet in sheets),
        "anchors": anchors,
        "accuracies": {s.video: 100 * s.score.accuracy for s in sheets},
        "folds": {name: split.record["split"] for split in report.results[0].splits for name in split.scores},
        "longest_label": LONGEST_LABEL,
        "most_changes": MOST_CHANGES,
        "holds": report.holding,
        "holds_ranks": report.holding.ranks(report.board) if report.holding else {},
        "least_ranked": LEAST_RANKED,
        "floors": floor_rows(report),
        "floor_titles": {
            kind: FLOORS[kind] for kind in FLOORS if any(kind in under for under in report.floors.values())
        },
        "points_above": lambda result, protocol: points_above(result, report.floors, HEADLINE, protocol),
        "atlas": atlas,
        "costs": COSTS,
        "operations": OPERATIONS,
        "scales": sorted(SCALES, key=lambda scale: scale != "as stated"),
        "further_measures": {key: (further_name(key), each.unit) for key, each in FURTHER_MEASURES.items()},
        "runs": [run_cells(result, split) for result in report.results for split in result.splits],
    }


def _figures(report: Report, atlas: FailureAtlas, ribbon_videos: Sequence[str]) -> dict[str, go.Figure]:
    """The charts by name; those that would show nothing are left out."""
    figures = {
        f"board-{number}": charts.board_chart(board, report.published) for number, board in enumerate(report.boards, 1)
    }
    if len(report.boards) > 1 and len(report.results) > 1:
        figures["ranks"] = charts.rank_chart(report.boards)
    figures["ribbons"] = ribbon_chart(report, ribbon_videos)
    figures["worst"] = failure_charts.worst_chart(atlas.worst, atlas.encoder)
    if atlas.pairs:
        figures["pairs"] = failure_charts.pairs_chart(atlas.pairs, report.mapping)
    if len(atlas.by_prefix.groups) > 1:  # of one group there is nothing to compare
        figures["prefix"] = failure_charts.prefix_chart(atlas.by_prefix)
    for name, strata in (("length", atlas.by_length), ("distance", atlas.by_distance)):
        if len(strata.groups) > 1:
            figures[name] = failure_charts.strata_chart(strata, atlas.encoder)
    figures["phases"] = charts.phase_chart(report)
    if report.efficiency:
        figures["efficiency"] = charts.efficiency_chart(report)
    if report.trials:
        figures["acquisition"] = charts.acquisition_chart(report)
    if report.spacing:
        figures["spacing"] = charts.spacing_chart(report)
    if report.waiting:
        figures["waiting"] = charts.waiting_chart(report)
    if (cost := charts.cost_chart(report)) is not None:
        figures["cost"] = cost
    return figures


def figure_html(figure: go.Figure, name: str) -> Markup:
    """The place of a chart and its content, which `report.js` draws once the page can be read."""
    height = f'style="height:{figure.layout.height:.0f}px"'
    place = f'<div id="chart-{name}" class="plotly-graph-div" {height}></div>'
    return Markup(f'{place}<script type="text/plain" class="figure">{packed(figure.to_json())}</script>')


def packed(text: str) -> str:
    """A text as `report.js` unpacks it: plotly is a third as long so, and a chart, which writes each number's name, a fifth."""
    return base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def facts(report: Report) -> dict[str, str]:
    """The identity of the comparison, for the head of the page."""
    scores = list(report.results[0].scores.values())
    videos = counted(len(scores), "video")
    if all(score.fps for score in scores):
        videos += f", {length_in_words(sum(score.num_frames / score.fps for score in scores))}"
    return {
        "Data set": report.dataset.name + (" (synthetic)" if report.is_synthetic else ""),
        "Scored": videos,
        "Phases": str(report.mapping.num_classes),
        "Encoders": str(len(report.results)),
    } | identity(report.results)


def length_in_words(seconds: float) -> str:
    """`46.2 h`, `31 min` or `13 s`: in the unit that tells something."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rank_agreement(report: Report) -> dict[str, list[float]]:
    """Kendall's tau of every protocol's order of encoders with the first one's, by measure.

    Empty for fewer than `LEAST_RANKED` encoders: the order of two is the same or the other.
    """
    if len(report.results) < LEAST_RANKED:
        return {}
    agreement = {}
    for measure in MEASURES:
        # encoders in the same order throughout; an undefined mean drops out of its pair
        means = [[board.cells[name][measure].mean for name in report.board.names] for board in report.boards]
        agreement[measure] = [kendall(means[0], other) for other in means]
    return agreement


def run_cells(result: EncoderResult, split: SplitResult) -> dict[str, str]:
    """The record of one run in words; older records lack some of it."""
    row = run_row(result, split)
    memory = row["Peak memory GB"]
    cells = {
        "Run": row["Encoder"],
        "Split": row["Split"],
        "Seed": row["Seed"],
        "Training videos": row["Training videos"],
        "Test videos": row["Test videos"],
        "Epochs": row["Epochs"],
        "Training, s": row["Train seconds"],
        "Prediction, s": row["Predict seconds"],
        "Peak memory, GB": memory and f"{memory:.1f}",
        "Device": row["Device"],
        "torch": row.get("Version of torch"),
        "Head parameters": row["Head parameters"],
        "Weights": weights_source(result),
        "Weights' SHA-256": (row["Weights SHA-256"] or "")[:SHORT_HASH],
        "Folds": (row["Folds hash"] or "")[:SHORT_HASH],
        "Commit": commit_name(split.record["git"]),
    }
    return {title: "n/a" if value in (None, "") else str(value) for title, value in cells.items()}


class Unindented(jinja2.ext.Extension):
    """Templates without the indentation of their lines: written once for each row, it would be a twentieth of a page."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"^[ \t]+", "", source, flags=re.MULTILINE)


def _environment(in_seconds: bool, background: str | None) -> jinja2.Environment:
    """Templates that escape what they print, stop at an unknown name, and write times in minutes or frames."""
    environment = jinja2.Environment(
        extensions=[Unindented],
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def moment(time: float) -> str:
        return clock(time) if in_seconds else f"{time:.0f}"

    def span(time: float) -> str:
        if math.isnan(time):
            return "n/a"
        return f"{time:.1f} s" if in_seconds and time < 60 else moment(time)

    def off(time: float) -> str:
        if math.isnan(time):
            return "n/a"
        amount = f"{abs(time):.1f} s" if in_seconds else f"{abs(time):.0f}"
        return f"{amount} {'late' if time > 0 else 'early'}" if time else amount

    environment.filters |= {
        "percent": percent,
        "brief": brief,
        "interval": interval_text,
        "points": points,
        "p_value": p_value,
        "standing_column": standing_column,
        "contrast": contrast_text,
        "contrast_parts": contrast_parts,
        "methods": lambda protocol: methods_sentence(protocol, background),
        "capitalised": lambda text: text[:1].upper() + text[1:],
        "time": lambda frames, rate: moment(frames / rate),
        "moment": moment,
        "span": span,
        "off": off,
        "of": lambda part, whole: f"{100 * part / whole:.1f}",
        "ticks": ticks,
    }
    return environment


def ticks(sheet: CaseSheet) -> Iterator[dict[str, str]]:
    """Where the minutes of a video lie, in percent of its length; none where times are unknown."""
    if not sheet.score.fps:
        return
    minutes = sheet.score.num_frames / sheet.score.fps / 60
    step = next((step for step in TICK_MINUTES if minutes / step < MOST_TICKS), TICK_MINUTES[-1])
    for minute in range(0, math.ceil(minutes - LAST_TICK * minutes), step):
        yield {"left": f"{100 * minute / minutes:.2f}", "text": clock(60 * minute)}
