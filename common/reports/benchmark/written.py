"""The files of a benchmark: page, workbook, table of cells, and the ranks as a picture."""

import math
from collections.abc import Iterator
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.base import paths
from common.base.files import atomic_path, write_text
from common.base.wording import brief, text_cell
from common.head.config import FLOORS
from common.reports.benchmark.table import Benchmark, Standing
from common.reports.benchmark.tasks import floor_names, task_cell_rows
from common.reports.leaderboard import ALPHA, HEADLINE
from common.reports.page import page
from common.reports.pictures.style import ALARM, QUIET, SERIES_COLOURS, save, tidy, write_remarks, write_title
from common.reports.text import interval_text, percent
from common.reports.workbook.sheet import P_VALUE, Sheet, mark_rows
from common.reports.workbook.workbook import save_workbook
from common.scoring.intervals import Interval
from common.scoring.metrics import MEASURES
from common.scoring.ranks import LEAST_RANKED

BEST_SHADE, LEAST_SHADE = 0.75, 0.06  # of blue, for the first and the last rank
DARK = 0.45  # a shade from which writing is white
METHODS = (
    "Every encoder is ranked in every data set by its mean over splits; rank 1 is the best, equal values share the mean rank. "
    "The mean rank is taken over all data sets. Its 95 % interval is from a bootstrap over the videos (or patients) of each data "
    "set, all encoders on the same drawn videos, around means that are drawn to each other by as much as their spread is what "
    "noise alone would give, with a part that an encoder keeps over all data sets and one of its own in each (empirical Bayes "
    "ranking, Laird and Louis 1989): a plain bootstrap of ranks would add the same noise twice. Letters: pairs of encoders "
    "whose order of mean ranks the draws do not settle at 5 % after Holm's correction share one; none are given where so few videos "
    "(or draws) could not have settled any. Cells in red have seen scored "
    "videos in training and take no part in ranks."
)


def write_benchmark(made: Benchmark, *, pdf: bool = False) -> list[Path]:
    """Write everything to `comparison_results/benchmark/`; returns what was written."""
    folder = paths.comparison_results() / "benchmark"
    cells = pd.DataFrame([*cell_rows(made), *task_cell_rows(made.tasks)])
    table = folder / "cells.csv"
    with atomic_path(table) as temporary:
        shown = cells.map(lambda value: text_cell(value) if isinstance(value, str) else value)
        shown.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    return [
        save_benchmark_page(made, folder / "report.html"),
        save_workbook(
            sheets(made, cells),
            folder / "benchmark.xlsx",
            title=made.title,
            alarming=any(remark.alarming for remark in made.remarks),
        ),
        table,
        *save(rank_picture(made), folder / "ranks.png", pdf=pdf),
    ]


def save_benchmark_page(made: Benchmark, path: Path) -> Path:
    """One page without scripts that opens from disk; the same benchmark gives the same bytes."""
    folders = [Path(__file__).with_name("templates"), Path(page.__file__).with_name("templates")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "interval": interval_text, "bounds": bounds, "shade": shade_style}
    context = {
        "made": made,
        "standing": made.headline,
        "measures": MEASURES,
        "headline": MEASURES[HEADLINE],
        "methods": METHODS,
        "least": LEAST_RANKED,
        "ties_caption": ties_caption,
        "floors": floors(made),
        "task_floors": floor_names(made.tasks),
    }
    write_text(path, environment.get_template("benchmark.html.j2").render(context))
    return path


def text_rows(made: Benchmark) -> list[list[str]]:
    """Header and one row per encoder: mean rank, ties, and the headline measure on every set."""
    standing = made.headline
    tied = ["Tied"] if standing.family.can_separate else []
    rows = [["Encoder", "Mean rank", "95 % interval", *tied, *(each.name for each in made.sets)]]
    rows[0] += [f"{column.title}: {column.measure}" for column in made.tasks]
    for name in made.encoders:
        mean = standing.means.get(name)
        row = [name, f"{mean.estimate:.2f}" if mean else "n/a", bounds(mean) if mean else "n/a"]
        row += [standing.letters.get(name, "")] if tied else []
        for each in made.sets:
            cell = each.cell(name, 0, HEADLINE)
            text = "not run" if cell is None else percent(cell.mean, cell.std)
            row.append(f"{text} (seen)" if name in each.leaks else text)
        rows.append([*row, *(column.text(name) for column in made.tasks)])
    for kind, title in floors(made).items():
        found = [each.floor(kind, 0, HEADLINE) for each in made.sets]
        cells = [percent(floor.mean(HEADLINE, made.protocols[0])) if floor else "not run" for floor in found]
        blank = [""] * (len(rows[0]) - len(made.sets) - len(made.tasks) - 1)
        rows.append([f"floor: {title}", *blank, *cells, *[""] * len(made.tasks)])
    for name in floor_names(made.tasks):
        values = [column.floor(name) for column in made.tasks]
        cells = ["" if value is None else percent(value) for value in values]
        rows.append([f"floor of tasks: {name}", *[""] * (len(rows[0]) - len(cells) - 1), *cells])
    return rows


def floors(made: Benchmark) -> dict[str, str]:
    """The kinds of floors that some set has, with their titles."""
    return {
        kind: title if kind == "majority" else f"{title}, that of the best encoder"
        for kind, title in FLOORS.items()
        if any(each.floor(kind, 0, HEADLINE) for each in made.sets)
    }


def ties_caption(standing: Standing) -> str:
    """Whether letters mean ties in the mean rank, or why there are none, as a sentence; empty for a single encoder."""
    family = standing.family
    if len(standing.means) < 2:
        return ""
    if not family.can_separate:
        return f"Mean ranks {family.shortage} ({family.reach}; {ALPHA:g} or more shows nothing)."
    return f"Encoders that share a letter are statistically tied in their mean rank ({family.reach})."


def bounds(interval: Interval) -> str:
    """An interval's bounds with two decimals; `n/a` where undefined."""
    return "n/a" if math.isnan(interval.low) else f"{interval.low:.2f} to {interval.high:.2f}"


def shade(rank: float, count: int) -> float:
    """The share of blue that a rank among `count` encoders has."""
    place = (rank - 1) / (count - 1) if count > 1 else 0
    return BEST_SHADE + (LEAST_SHADE - BEST_SHADE) * place


def shade_style(rank: float, count: int) -> str:
    """A cell's colours as CSS."""
    share = shade(rank, count)
    return f"background: rgba(0, 114, 178, {share:.2f}); color: {'#fff' if share > DARK else 'inherit'}"


def cell_rows(made: Benchmark) -> Iterator[dict[str, object]]:
    """A row per encoder, data set, protocol and measure that there is: percent, and the rank where it has one."""
    for board, protocol in enumerate(made.protocols):
        for measure, title in MEASURES.items():
            standing = made.standings[board, measure]
            for name in made.encoders:
                for each in made.sets:
                    if (cell := each.cell(name, board, measure)) is None:
                        continue
                    yield {
                        "Encoder": name,
                        "Data set": each.name,
                        "Protocol": protocol.name,
                        "Measure": title,
                        "Mean %": 100 * cell.mean,
                        "Std %": 100 * cell.std,
                        "Interval low %": 100 * cell.interval.low,
                        "Interval high %": 100 * cell.interval.high,
                        "Rank": standing.ranks[each.name].get(name, math.nan),
                        "Videos": each.num_videos,
                        "Seen in training": "; ".join(each.leaks.get(name, [])) or None,
                    }


def sheets(made: Benchmark, cells: pd.DataFrame) -> list[Sheet]:
    """Ranks, cells, agreement of data sets, the data sets, notes; those that would be empty are left out."""
    notes = pd.DataFrame({"Note": [*map(str, made.remarks), METHODS]})
    alarming = [row for row, remark in enumerate(made.remarks) if remark.alarming]
    built = [
        _rank_sheet(made),
        _cell_sheet(cells),
        _agreement_sheet(made),
        _set_sheet(made),
        Sheet("notes", "Read before use.", notes, marks=mark_rows(alarming, ["Note"], "alarm"), widths={"Note": 110}),
    ]
    return [sheet for sheet in built if len(sheet.table)]


def _standings(made: Benchmark) -> Iterator[tuple[dict[str, str], Standing]]:
    """Every standing with the columns that say of what."""
    for (board, measure), standing in made.standings.items():
        yield {"Protocol": made.protocols[board].name, "Measure": MEASURES[measure]}, standing


def _rank_sheet(made: Benchmark) -> Sheet:
    table = pd.DataFrame(
        {"Encoder": name}
        | of_what
        | {
            "Mean rank": mean.estimate,
            "Interval low": mean.low,
            "Interval high": mean.high,
            "Tied": standing.letters[name] if standing.family.can_separate else standing.family.shortage,
            "Smallest p Holm": standing.family.smallest_p,
        }
        | {f"Rank on {each.name}": standing.ranks[each.name].get(name, math.nan) for each in made.sets}
        for of_what, standing in _standings(made)
        for name, mean in standing.means.items()
    )
    caption = "Mean rank over the data sets with its 95 % interval over videos. Encoders that share a letter are statistically tied."
    if not any(standing.family.can_separate for standing in made.standings.values()):
        caption = (
            f"Mean rank over the data sets with its 95 % interval over videos. {ties_caption(made.headline)}".rstrip()
        )
    return Sheet("ranks", caption, table, grouped="Measure", formats={"Smallest p Holm": P_VALUE})


def _cell_sheet(cells: pd.DataFrame) -> Sheet:
    seen = cells["Seen in training"].notna().to_numpy().nonzero()[0]
    return Sheet(
        "cells",
        "Every measure of every encoder on every data set: mean and standard deviation over splits, 95 % interval over videos. "
        "Red: its weights have seen scored videos.",
        cells,
        frozen=2,
        grouped="Measure",
        marks=mark_rows(seen, ["Mean %", "Seen in training"], "alarm"),
        widths={"Seen in training": 60},
    )


def _agreement_sheet(made: Benchmark) -> Sheet:
    table = pd.DataFrame(
        of_what
        | {"Data set": pair.first, "Other data set": pair.second, "Encoders": pair.count}
        | {"Kendall's tau": pair.tau.estimate, "Interval low": pair.tau.low, "Interval high": pair.tau.high}
        for of_what, standing in _standings(made)
        for pair in standing.agreement
    )
    return Sheet("agreement", "Rank correlation of the encoders between data sets.", table, grouped="Measure")


def _set_sheet(made: Benchmark) -> Sheet:
    table = pd.DataFrame(
        {
            "Data set": each.name,
            "Splits": each.scheme,
            "Videos scored": each.num_videos,
            "Hours": each.hours,
            "Phases": each.report.mapping.num_classes,
            "Encoders": len(each.results),
        }
        for each in made.sets
    )
    return Sheet("data sets", "What was scored.", table, widths={"Splits": 60})


def rank_picture(made: Benchmark) -> Figure:
    """Ranks as a heat map, encoders by data sets, beside the mean ranks with their intervals."""
    names, standing = made.encoders, made.headline
    height = 1.3 + 0.36 * len(names)
    figure = Figure(figsize=(4.5 + 1.15 * len(made.sets) + 3.2, height), layout="constrained")
    heat, means = figure.subplots(1, 2, sharey=True, width_ratios=(1.15 * len(made.sets), 3))
    _heat_map(heat, made)
    for row, name in enumerate(names):
        if (mean := standing.means.get(name)) is None:
            means.text(0.02, row, "n/a", transform=means.get_yaxis_transform(), fontsize=8, va="center", color=QUIET)
            continue
        if not math.isnan(mean.low):
            means.plot([mean.low, mean.high], [row, row], color=SERIES_COLOURS[0], linewidth=1.8)
        means.plot([mean.estimate], [row], "o", color=SERIES_COLOURS[0], markersize=6)
        beside = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
        means.annotate(standing.letters[name], (1, row), **beside, fontsize=8, va="center", color=QUIET)
    means.set_xlim(0.8, max(2.0, len(standing.means)) + 0.2)
    said = "ties" if standing.family.can_separate else standing.family.shortage
    means.set_title(f"mean rank, 95 % interval, {said}", loc="left", fontsize=9)
    means.tick_params(axis="y", length=0)
    tidy(means, grid="x")
    write_title(figure, f"{made.title}: ranks by {MEASURES[HEADLINE].lower()}, protocol {made.protocols[0].name}")
    write_remarks(figure, [remark for remark in made.remarks if remark.alarming])
    return figure


def _heat_map(axes: Axes, made: Benchmark) -> None:
    names, standing = made.encoders, made.headline
    shades = np.full((len(names), len(made.sets)), np.nan)
    for column, each in enumerate(made.sets):
        for row, name in enumerate(names):
            cell, place = each.cell(name, 0, HEADLINE), standing.ranks[each.name].get(name)
            if place is not None:
                shades[row, column] = shade(place, len(standing.ranks[each.name]))
            text = "not run" if cell is None else f"{100 * cell.mean:.1f} %" if place is None else f"{place:g}"
            if name in each.leaks:
                text = f"seen\n{text}"
            colour = ALARM if name in each.leaks else "white" if shades[row, column] > DARK else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(made.sets)), [brief(each.name) for each in made.sets], fontsize=8, rotation=20, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), [brief(name) for name in names], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
