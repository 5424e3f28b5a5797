"""The comparison as a chart and as a picture of a table, and what accuracy costs."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.reports.caveats import Remark
from common.reports.comparison import Report
from common.reports.costs import COSTS, Cost
from common.reports.leaderboard import HEADLINE
from common.reports.pictures.style import QUIET, RULE, SERIES_COLOURS, save, tidy, write_remarks, write_title
from common.reports.text import leaderboard_rows, percent
from common.scoring.metrics import MEASURES

OURS, QUOTED, BEST = SERIES_COLOURS[0], "#999999", SERIES_COLOURS[5]
LABEL_SIZE = 7  # points
# where a name may stand beside its point: offset in points, share of the name to the left of it
SIDES = (
    (6, -4, 0.0),
    (-6, -4, 1.0),
    (0, 5, 0.5),
    (0, -13, 0.5),
    (6, 5, 0.0),
    (6, -13, 0.0),
    (-6, 5, 1.0),
    (-6, -13, 1.0),
)


def comparison_chart(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """A panel a measure, a row an encoder: mean with its 95 % interval over videos, every fold, who is tied."""
    rows = len(report.results) + len(report.published)
    figure = Figure(figsize=(13, 1.9 + 0.44 * rows), layout="constrained")
    panels = figure.subplots(2, 4, sharey=True)
    for axes, measure in zip(panels.flat, MEASURES, strict=True):
        _measure_panel(axes, report, measure)
    labels = [result.name for result in report.results] + [row.label for row in report.published]
    for axes in panels[:, 0]:
        axes.set_yticks(range(rows), labels, fontsize=8)
        axes.set_ylim(rows - 0.4, -0.6)
    write_title(figure, f"{report.title}, protocol {report.board.protocol.name}")
    figure.supxlabel(
        "percent.  Large dot: mean over folds.  Line: 95 % bootstrap interval over videos.  Small dots: folds.  "
        "Letters: encoders that share one are statistically tied in this measure."
        + ("  Hollow: quoted, mean ± std over folds." if report.published else ""),
        fontsize=8,
        color=QUIET,
    )
    write_remarks(figure, report.remarks)
    return save(figure, path, pdf=pdf)


def _measure_panel(axes: Axes, report: Report, measure: str) -> None:
    board = report.board
    best = board.best(measure)
    for row, result in enumerate(board.results):
        cell = board.cells[result.name][measure]
        colour = BEST if result.name == best else OURS
        folds = 100 * result.values(measure, board.protocol)
        axes.plot(folds, [row] * len(folds), "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
        if not math.isnan(cell.interval.low):
            axes.plot([100 * cell.interval.low, 100 * cell.interval.high], [row, row], color=colour, linewidth=1.6)
        axes.plot([100 * cell.mean], [row], "o", color=colour, markersize=7)
        text = board.letters[measure][result.name] if not math.isnan(cell.mean) else "n/a"
        axes.annotate(
            text, (1, row), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            fontsize=8, va="center", color=QUIET,
        )  # fmt: skip
    for row, quoted in enumerate(report.published, len(board.results)):
        mean, std = quoted.values.get(measure, (math.nan, math.nan))
        axes.errorbar(
            100 * mean, row, xerr=None if math.isnan(std) else 100 * std, fmt="D", markersize=5, color=QUOTED,
            markerfacecolor="white", linewidth=1,
        )  # fmt: skip
    if report.published:
        axes.axhline(len(board.results) - 0.5, color=RULE, linewidth=0.8)
    axes.set_title(MEASURES[measure], loc="left", fontsize=10, weight="bold" if measure == HEADLINE else "normal")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(x=0.08)
    tidy(axes, grid="x")


def comparison_table(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """The comparison as a picture of a table: the best of each measure in bold, quoted rows in italics."""
    rows = leaderboard_rows(report.board)
    no_values = (math.nan, math.nan)
    rows += [
        [row.label, "", *(percent(*row.values.get(key, no_values)).replace("n/a", "") for key in MEASURES)]
        for row in report.published
    ]
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    figure = Figure(figsize=(0.092 * sum(widths), 0.3 * len(rows) + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    table = axes.table(rows, cellLoc="right", colWidths=[w / sum(widths) for w in widths], bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    bold = {(0, column) for column in range(len(rows[0]))} | _best_cells(report)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#CCCCCC")
        cell.visible_edges = "B"
        italic = row > len(report.results)
        cell.set_text_props(
            ha="left" if column == 0 else "right",
            weight="bold" if (row, column) in bold else "normal",
            style="italic" if italic else "normal",
            color=QUIET if italic else "black",
        )
    write_title(figure, f"{report.title}, protocol {report.board.protocol.name}")
    write_remarks(figure, report.remarks)
    return save(figure, path, pdf=pdf)


def _best_cells(report: Report) -> set[tuple[int, int]]:
    """(row, column) of the best encoder of each measure in `leaderboard_rows`."""
    names = report.board.names
    best = {column: report.board.best(measure) for column, measure in enumerate(MEASURES, 2)}
    return {(1 + names.index(name), column) for column, name in best.items() if name is not None}


def cost_chart(report: Report, path: Path, *, pdf: bool = False) -> list[Path]:
    """Accuracy against parameters, extraction time and disk space, with the encoders that no other beats at their cost."""
    costs = report.costs
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, cost in zip(panels, COSTS, strict=True):
        points = {
            name: (values[cost.key], 100 * report.board.cells[name][HEADLINE].mean)
            for name, values in costs.items()
            if not math.isnan(values[cost.key])
        }
        _cost_panel(axes, cost, points)
    panels[0].set_ylabel("accuracy, percent")
    write_title(figure, f"{report.title}: accuracy against cost")
    absent = [name for name, values in costs.items() if any(math.isnan(value) for value in values.values())]
    lines = [Remark("Dashed: encoders that no cheaper one beats.")]
    if absent:
        reason = "no parameters, or features no longer on this disk"
        lines.append(Remark(f"Left out where a cost is unknown ({reason}): {', '.join(absent)}."))
    write_remarks(figure, [remark for remark in report.remarks if remark.alarming] + lines)
    return save(figure, path, pdf=pdf)


def _cost_panel(axes: Axes, cost: Cost, points: dict[str, tuple[float, float]]) -> None:
    axes.set_xlabel(cost.label)
    tidy(axes, grid="both")
    if not points:
        axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    front = pareto_front(points)
    axes.plot(*zip(*[points[name] for name in front], strict=True), "--", color=BEST, linewidth=1)
    for name, (x, y) in points.items():
        axes.plot([x], [y], "o", color=BEST if name in front else OURS, markersize=6)
    axes.margins(x=0.3, y=0.15)
    _label_points(axes, points)


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no point of equal or lower cost exceeds, by rising cost; `points` name -> (cost, value)."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front


def _label_points(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """A name beside each point, on the first side where it covers neither a point nor another name."""
    points_per_pixel = 72 / axes.figure.dpi
    axes.figure.draw_without_rendering()  # fixes the layout, so that places on the page are known
    room = axes.get_window_extent()
    left, right = room.x0 * points_per_pixel, room.x1 * points_per_pixel
    places = {name: axes.transData.transform(point) * points_per_pixel for name, point in points.items()}
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places.values()]
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        width = LABEL_SIZE * 0.58 * len(name)
        boxes = [
            (x + dx - width * side, y + dy, x + dx + width * (1 - side), y + dy + LABEL_SIZE) for dx, dy, side in SIDES
        ]
        inside = [index for index, box in enumerate(boxes) if left <= box[0] and box[2] <= right]
        free = [index for index in inside if not any(_overlap(boxes[index], other) for other in taken)]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        dx, dy, side = SIDES[chosen]
        axes.annotate(
            name, points[name], xytext=(dx, dy), textcoords="offset points", fontsize=LABEL_SIZE, va="bottom",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[side],
        )  # fmt: skip


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
