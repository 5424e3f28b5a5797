"""The comparison as a chart and as a picture of a table; cost, phases, confusions, training, label efficiency."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from common.base.wording import BRIEF, brief, display_width, readable
from common.reports.caveats import Remark
from common.reports.chart_data import (
    CostPanel,
    acquisition_panels,
    cost_panels,
    efficiency_panels,
    phase_map,
    spacing_panel,
    waiting_panels,
)
from common.reports.comparison import Report
from common.reports.leaderboard import ALPHA, HEADLINE
from common.reports.pictures.style import (
    ALARM,
    QUIET,
    RULE,
    SERIES_COLOURS,
    series_style,
    tidy,
    write_remarks,
    write_title,
)
from common.reports.results import EncoderResult
from common.reports.text import leaderboard_rows, percent
from common.scoring.metrics import MEASURES

OURS, QUOTED, BEST = SERIES_COLOURS[0], "#999999", SERIES_COLOURS[5]
DARK = 55  # percent of the blue scale from which a cell needs white writing
LABEL_SIZE = 7  # points
MOST_BESIDE = 12  # names that stand beside the points of a panel
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


def comparison_chart(report: Report) -> Figure:
    """A panel per measure, a row per encoder: mean with its 95 % interval over videos, every fold, who is tied."""
    rows = len(report.results) + len(report.published)
    figure = Figure(figsize=(13, 1.9 + 0.44 * rows), layout="constrained")
    panels = figure.subplots(2, 4, sharey=True)
    for axes, measure in zip(panels.flat, MEASURES, strict=True):
        _measure_panel(axes, report, measure)
    labels = [brief(name) for name in [*report.board.names, *(row.label for row in report.published)]]
    for axes in panels[:, 0]:
        axes.set_yticks(range(rows), labels, fontsize=8)
        axes.set_ylim(rows - 0.4, -0.6)
    write_title(figure, report.full_title)
    figure.supxlabel(
        "percent.  Large dot: mean over folds.  Line: 95 % bootstrap interval over videos.  Small dots: folds.  "
        + _standing_caption(report)
        + ("  Hollow: quoted, mean ± std over folds." if report.published else ""),
        fontsize=8,
        color=QUIET,
    )
    write_remarks(figure, report.remarks)
    return figure


def _standing_caption(report: Report) -> str:
    """What stands to the right of the panels, or why nothing does."""
    board = report.board
    if board.against is not None:
        return f"Star: differs from {brief(board.against)} (Holm p below {ALPHA:g}).\n{board.separation}"
    letters = "Letters: encoders that share one are statistically tied in this measure."
    return (letters if any(map(board.has_letters, MEASURES)) else "") + f"\n{board.separation}"


def _measure_panel(axes: Axes, report: Report, measure: str) -> None:
    board = report.board
    best = board.best(measure)
    for row, result in enumerate(board.results):
        cell = board.cells[result.name][measure]
        colour = BEST if result.name in best else OURS
        folds = 100 * result.values(measure, board.protocol)
        axes.plot(folds, [row] * len(folds), "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
        if not math.isnan(cell.interval.low):
            axes.plot([100 * cell.interval.low, 100 * cell.interval.high], [row, row], color=colour, linewidth=1.6)
        axes.plot([100 * cell.mean], [row], "o", color=colour, markersize=7)
        contrast = board.contrast(measure, result.name)
        differs = contrast is not None and contrast.is_significant
        text = board.letters[measure][result.name] + "*" * differs if not math.isnan(cell.mean) else "n/a"
        beside = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
        axes.annotate(text, (1, row), **beside, fontsize=8, va="center", color=QUIET)
    for row, quoted in enumerate(report.published, len(board.results)):
        mean, std = quoted.values.get(measure, (math.nan, math.nan))
        spread = None if math.isnan(std) else 100 * std
        hollow = {"fmt": "D", "markersize": 5, "color": QUOTED, "markerfacecolor": "white", "linewidth": 1}
        axes.errorbar(100 * mean, row, xerr=spread, **hollow)
    if report.published:
        axes.axhline(len(board.results) - 0.5, color=RULE, linewidth=0.8)
    axes.set_title(MEASURES[measure], loc="left", fontsize=10, weight="bold" if measure == HEADLINE else "normal")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(x=0.08)
    tidy(axes, grid="x")


def comparison_table(report: Report) -> Figure:
    """The comparison as a picture of a table: the best of each measure in bold, quoted rows in italics."""
    rows = leaderboard_rows(report.board)
    first = rows[0].index(next(iter(MEASURES.values())))  # after the name, and the letters where there are any
    no_values = (math.nan, math.nan)
    rows += [
        [
            row.label,
            *[""] * (first - 1),
            *(percent(*row.values.get(key, no_values)).replace("n/a", "") for key in MEASURES),
            *[""] * (len(rows[0]) - first - len(MEASURES)),
        ]
        for row in report.published
    ]
    rows = [[brief(row[0]), *row[1:]] for row in rows]
    widths = [max(display_width(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    figure = Figure(figsize=(0.092 * sum(widths), 0.3 * len(rows) + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    table = axes.table(rows, cellLoc="right", colWidths=[w / sum(widths) for w in widths], bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    board = report.board
    bold = {(0, column) for column in range(len(rows[0]))}
    for column, measure in enumerate(MEASURES, first):
        bold |= {(1 + board.names.index(name), column) for name in board.best(measure)}
    red = {(1 + board.names.index(name), 0) for name in report.unlearned}
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#CCCCCC")
        cell.visible_edges = "B"
        italic = row > len(report.results)
        cell.set_text_props(
            ha="left" if column == 0 else "right",
            weight="bold" if (row, column) in bold else "normal",
            style="italic" if italic else "normal",
            color=QUIET if italic else ALARM if (row, column) in red else "black",
        )
    write_title(figure, report.full_title)
    who = [Remark(board.separation)] if board.separation else []
    write_remarks(figure, [*who, *report.remarks])
    return figure


def cost_picture(report: Report) -> Figure:
    """Accuracy against parameters, extraction time and disk space; dashed: encoders that no cheaper one beats.

    Names that have no room beside their points stand in a list, and their numbers beside the points.
    """
    names = report.board.names
    has_room = len(names) <= MOST_BESIDE and max(map(len, names)) <= BRIEF
    labels = {name: name if has_room else str(number) for number, name in enumerate(names, 1)}
    figure = Figure(figsize=(13 if has_room else 17, 4.8), layout="constrained")
    panels = cost_panels(report)
    row = figure.subplots(1, len(panels), sharey=True)
    for axes, panel in zip(row, panels, strict=True):
        _draw_costs(axes, panel, labels)
    if not has_room:
        lines = [Line2D([], [], linestyle="", label=f"{labels[name]}  {brief(name, 50)}") for name in names]
        figure.legend(handles=lines, loc="outside right center", fontsize=8, frameon=False, handlelength=0)
    row[0].set_ylabel("accuracy, percent")
    write_title(figure, f"{report.title}: accuracy against cost")
    lines = [Remark("Dashed: encoders that no cheaper one beats.")]
    absent = [result.name for result in report.results if any(result.name not in panel.points for panel in panels)]
    if absent:
        reason = "no parameters, or features no longer on this disk"
        lines.append(Remark(f"Left out where a cost is unknown ({reason}): {', '.join(absent)}."))
    write_remarks(figure, report.warnings + lines)
    return figure


def _draw_costs(axes: Axes, panel: CostPanel, labels: Mapping[str, str]) -> None:
    axes.set_xlabel(panel.label)
    tidy(axes, grid="both")
    if not panel.points:
        axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would cover each other
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.plot(*zip(*[panel.points[name] for name in panel.front], strict=True), "--", color=BEST, linewidth=1)
    for name, (x, y) in panel.points.items():
        axes.plot([x], [y], "o", color=BEST if name in panel.front else OURS, markersize=6)
    axes.margins(x=0.3, y=0.15)  # room for the names
    _label_points(axes, {labels[name]: point for name, point in panel.points.items()})


def _label_points(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """A name beside each point, from the lowest up, on the first side where it covers neither a point nor a name."""
    points_per_pixel = 72 / axes.figure.dpi  # sizes of text are in points, places on the page in pixels
    axes.figure.draw_without_rendering()  # fixes the layout, so that places on the page are known
    room = axes.get_window_extent()
    left, right = room.x0 * points_per_pixel, room.x1 * points_per_pixel
    places = {name: axes.transData.transform(point) * points_per_pixel for name, point in points.items()}
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places.values()]  # the dots themselves
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        width = LABEL_SIZE * 0.58 * len(name)  # a little more than DejaVu Sans takes on average
        boxes = [
            (x + dx - width * side, y + dy, x + dx + width * (1 - side), y + dy + LABEL_SIZE) for dx, dy, side in SIDES
        ]
        inside = [index for index, box in enumerate(boxes) if left <= box[0] and box[2] <= right]
        free = [index for index in inside if not any(_overlap(boxes[index], other) for other in taken)]
        chosen = free[0] if free else 0  # in a crowd names overlap rather than being left out
        taken.append(boxes[chosen])
        dx, dy, side = SIDES[chosen]
        anchor = {0.0: "left", 0.5: "center", 1.0: "right"}[side]
        beside = {"xytext": (dx, dy), "textcoords": "offset points", "ha": anchor, "va": "bottom"}
        axes.annotate(name, points[name], **beside, fontsize=LABEL_SIZE)


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def phase_heat_map(report: Report) -> Figure:
    """F1 over all test frames of each phase, a row per encoder; by a phase's name its share of the true frames."""
    values, lowest, shares = phase_map(report)
    figure = Figure(figsize=(2.6 + 0.56 * report.mapping.num_classes, 2.4 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=lowest, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "n/a" if np.isnan(value) else f"{value:.0f}"
        colour = "white" if value > lowest + DARK / 100 * (100 - lowest) else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    names = [brief(readable(name)) for name in report.mapping.names]
    labels = [f"{name}  {share:.1f} %" for name, share in zip(names, shares, strict=True)]
    _name_columns(axes, labels, rotation=50)
    axes.set_yticks(range(len(values)), [brief(result.name) for result in report.results], fontsize=8)
    axes.set_xlabel("phase, and its share of the true frames")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, label="F1, percent of all test frames")
    write_title(figure, f"{report.title}: F1 of each phase")
    write_remarks(figure, report.warnings)
    return figure


def confusion_plot(result: EncoderResult, report: Report) -> Figure:
    """Row-normalised confusion matrix in percent; rows = true phase with its frames, columns = predicted phase."""
    names, shares = [brief(readable(name)) for name in report.mapping.names], result.confusion_percents
    size = 2.5 + 0.42 * len(names)
    figure = Figure(figsize=(size + 1.5, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    # what rounds to 0 is left blank, as is a phase without a true frame (NaN)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.5), strict=True):
        value = shares[row, column]
        colour = "white" if value > DARK else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    _name_columns(axes, names, rotation=55)
    frames = result.confusion.sum(axis=1)
    named = [f"{name}  ({count})" for name, count in zip(names, frames, strict=True)]
    axes.set_yticks(range(len(names)), named, fontsize=8)
    axes.set(xlabel="predicted phase", ylabel="true phase (frames)")
    axes.set_title(f"{result.name}, {report.title}", loc="left", fontsize=11)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="percent of the true phase's frames")
    write_remarks(figure, report.warnings)
    return figure


def _name_columns(axes: Axes, labels: Sequence[str], *, rotation: float) -> None:
    # "anchor": turned about the end of the text, which then stands at its column
    slanted = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(labels)), labels, **slanted, fontsize=8)


def learning_curves(report: Report) -> Figure | None:
    """Training loss and accuracy by epoch: mean over folds, their range behind it; None where no run recorded them."""
    shown = [result for result in report.results if all(split.record["history"] for split in result.splits)]
    if not shown:
        return None
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, result in enumerate(shown):
        _training_curve(left, result, "loss", index)
        _training_curve(right, result, "accuracy", index, scale=100)
    left.set(ylabel="training loss", yscale="log", xlabel="epoch")
    left.yaxis.set_major_formatter("{x:g}")  # a log axis would write 10 to the power of
    left.yaxis.set_minor_formatter("{x:g}")
    right.set(ylabel="accuracy on training frames, percent", xlabel="epoch")
    for axes in (left, right):
        tidy(axes, grid="both")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: training of the head")
    folds = "Line: mean over folds; band: lowest to highest fold. " if len(shown[0].splits) > 1 else ""
    figure.supxlabel(
        f"{folds}The last epoch is scored, on videos that these curves have not seen.", fontsize=8, color=QUIET
    )
    return figure


def _training_curve(axes: Axes, result: EncoderResult, key: str, index: int, scale: float = 1) -> None:
    histories = [[scale * entry[key] for entry in split.record["history"]] for split in result.splits]
    length = min(map(len, histories))  # a fold that was trained on has a longer record
    values = np.array([history[:length] for history in histories])
    style = series_style(index)
    epochs = np.arange(1, length + 1)
    marks = {"markevery": max(1, length // 8), "markersize": 4}
    axes.plot(epochs, values.mean(axis=0), label=brief(result.name), linewidth=1.6, **marks, **style)
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.13, linewidth=0)


def efficiency_picture(report: Report) -> Figure | None:
    """Measures against the number of training videos, with the std over folds; None without such runs."""
    if not report.efficiency:
        return None
    figure = _against_videos(*efficiency_panels(report), xlabel="training videos of a fold", xscale="log")
    write_title(figure, f"{report.title}: what fewer labelled videos cost, protocol {report.board.protocol.name}")
    write_remarks(figure, report.warnings)
    return figure


def acquisition_picture(report: Report) -> Figure | None:
    """Accuracy and time saved against the videos that rules chose, with 95 % intervals over folds and draws; None without trials."""
    if not report.trials:
        return None
    figure = _against_videos(*acquisition_panels(report), xlabel="labelled videos")
    write_title(figure, f"{report.title}: which videos to label next, protocol {report.board.protocol.name}")
    write_remarks(figure, report.warnings)
    return figure


def _against_videos(
    panels: Mapping[str, dict[str, np.ndarray]], ticks: Sequence[int], *, xlabel: str, xscale: str = "linear"
) -> Figure:
    """A panel a measure, a curve `(4, points)` a name: see `efficiency_panels`."""
    figure = Figure(figsize=(max(10.0, 3.25 * len(panels)), 4.4), layout="constrained")
    row = figure.subplots(1, len(panels))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for index, (name, (num_videos, means, *ends)) in enumerate(curves.items()):
            spread = None if np.isnan(ends).all() else ends  # for a single split: not even caps
            look = {"label": brief(name), "linewidth": 1.6, "markersize": 5, "capsize": 3}
            axes.errorbar(num_videos, means, yerr=spread, **look, **series_style(index))
        axes.set_xscale(xscale)
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
        axes.set_xlabel(xlabel)
        axes.set_title(title, loc="left", fontsize=10)
        tidy(axes, grid="both")
    row[0].set_ylabel("percent")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def spacing_picture(report: Report) -> Figure | None:
    """Accuracy against the seconds that a window spans, with 95 % intervals over videos; None without such runs."""
    if not report.spacing:
        return None
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(spacing_panel(report).items()):
        look = {"label": brief(name), "linewidth": 1.6, "markersize": 6, "capsize": 3}
        axes.errorbar(curve.seconds, curve.means, yerr=[curve.below, curve.above], **look, **series_style(index))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="seconds that a window spans", ylabel="accuracy, percent")
    tidy(axes, grid="both")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: the time that a clip spans, protocol {report.board.protocol.name}")
    write_remarks(figure, report.warnings)
    return figure


def waiting_picture(report: Report) -> Figure | None:
    """Accuracy and edit against the delay of the answers, with 95 % intervals over videos; None without such runs."""
    if not report.waiting:
        return None
    panels, delays = waiting_panels(report)
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    row = figure.subplots(1, len(panels))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for index, (name, curve) in enumerate(curves.items()):
            look = {"label": brief(name), "linewidth": 1.6, "markersize": 6, "capsize": 3}
            axes.errorbar(curve.places, curve.means, yerr=[curve.below, curve.above], **look, **series_style(index))
        axes.set_xticks(range(len(delays)), delays)
        axes.set_xlabel("delay (not to scale)")
        axes.set_title(title, loc="left", fontsize=10)
        tidy(axes, grid="both")
    row[0].set_ylabel("percent")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    write_title(figure, f"{report.title}: what waiting is worth, protocol {report.board.protocol.name}")
    write_remarks(figure, report.warnings)
    return figure
