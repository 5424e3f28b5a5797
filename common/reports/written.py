"""The files of a comparison, those of it that can be handed on, and those of one encoder's split."""

import copy
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.children import num_cores, side_by_side
from common.base.files import atomic_path
from common.base.runtime import progress
from common.base.wording import text_cell
from common.reports.caveats import PATIENTS
from common.reports.chart_data import score_ribbons, shown_videos
from common.reports.comparison import Report
from common.reports.page.page import save_page
from common.reports.pictures import charts, embedding, ribbons
from common.reports.pictures.style import save
from common.reports.results import MOST_PROCESSES, EncoderResult
from common.reports.workbook.workbook import save_comparison

# a path from the root, home or a drive, or an address, within a sentence
ABSOLUTE_PATH = re.compile(
    r"(?:[a-z]+:/|[A-Za-z]:|~|(?<![\w.:/\\]))(?:[\\/][^\s\\/,;:'\"()]+)*[\\/](?P<last>[^\s\\/,;:'\"()]+)"
)
PATIENTS_WITHHELD = (
    f"{PATIENTS} of the splits are not as patients.csv says; the report that is not for sharing says which."
)
TESTS_PER_PROCESS = 250  # of a video by an encoder: fewer are written before another process has begun
PICTURES = {
    "comparison_chart": charts.comparison_chart,
    "comparison_table": charts.comparison_table,
    "phases": charts.phase_heat_map,
    "cost": charts.cost_picture,
    "learning_curves": charts.learning_curves,
    "label_efficiency": charts.efficiency_picture,
    "label_next": charts.acquisition_picture,
    "spacing": charts.spacing_picture,
    "waiting": charts.waiting_picture,
    "features": embedding.feature_map,
    "ribbons": ribbons.overview_picture,
}


@dataclass(frozen=True)
class _Part:
    """One file of a comparison, or what belongs together: written by `write(report, path, *details)`."""

    write: Callable[..., list[Path]]
    path: Path
    details: tuple[Any, ...] = ()


def _write_part(report: Report, part: _Part) -> list[Path]:
    return part.write(report, part.path, *part.details)


def _write_tables(report: Report, path: Path) -> list[Path]:
    return [save_comparison(report, path)]


def _write_page(report: Report, path: Path, all_ribbons: bool, thumbnails: bool) -> list[Path]:
    return [save_page(report, path, all_ribbons=all_ribbons, thumbnails=thumbnails)]


def _write_picture(report: Report, path: Path, name: str, pdf: bool) -> list[Path]:
    return save(PICTURES[name](report), path, pdf=pdf)


def _write_video(report: Report, path: Path, video: str, pdf: bool) -> list[Path]:
    return save(ribbons.video_picture(report, video), path, pdf=pdf)


def _write_confusion(report: Report, path: Path, encoder: str, pdf: bool) -> list[Path]:
    result = next(result for result in report.results if result.name == encoder)
    return save(charts.confusion_plot(result, report), path, pdf=pdf)


def write_comparison(
    report: Report, *, over_folds: bool, pdf: bool = False, all_ribbons: bool = False, thumbnails: bool = True
) -> list[Path]:
    """Write every table and picture of a comparison to `comparison_results/`, and confusions to the encoders' folders.

    Those of all folds and those of one split have names of their own: neither replaces the other. `all_ribbons`: large
    ribbons of every video, not only of `shown_videos`; `thumbnails`: frames of these are in the page. Those of a comparison of many videos are written side by side.
    """
    folder = paths.comparison_results()
    stem, prefix = ("kfold_", "") if over_folds else ("model_", "model_")
    per_video = folder / f"{prefix}per_video.csv"
    with atomic_path(per_video) as temporary:
        table = report.per_video.map(lambda value: text_cell(value) if isinstance(value, str) else value)
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    tables = [
        _Part(_write_page, folder / f"{prefix}report.html", (all_ribbons, thumbnails)),
        _Part(_write_tables, folder / f"{stem}comparison.xlsx"),
    ]
    pictures = [_Part(_write_picture, folder / f"{stem}{name}.png", (name, pdf)) for name in PICTURES]
    for result in report.results if over_folds else []:
        path = result.model.confusion(report.dataset.name, result.run)
        pictures.append(_Part(_write_confusion, path, (result.name, pdf)))
    large, shown = folder / "ribbons", shown_videos(report, all_ribbons=all_ribbons)
    videos = [_Part(_write_video, large / f"{video}.png", (video, pdf)) for video in shown]
    for video in {name for result in report.results for name in result.scores}.difference(shown):
        for suffix in (".png", ".pdf"):  # of an earlier report: it would show other encoders beside those of this one
            (large / f"{video}{suffix}").unlink(missing_ok=True)
    parts = [*tables, *pictures, *videos]
    num_tests = sum(len(result.tests) for result in report.results)
    num_processes = min(num_cores(), MOST_PROCESSES, num_tests // TESTS_PER_PROCESS)
    with side_by_side(_write_part, parts, report, num_processes=num_processes) as done:
        written = [write() for write in progress(done, total=len(parts), description="write", unit="files")]
    first, others = written[: len(tables)], written[len(tables) : -len(videos)]
    return [*chain(*first), per_video, *chain(*others), large]


def write_shared(report: Report, *, over_folds: bool) -> list[Path]:
    """Write page and workbook to `comparison_results/share/` without paths, host names, patients and pictures of videos."""
    folder, shared = paths.comparison_results() / "share", without_private(report)
    stem = "kfold" if over_folds else "model"
    return [
        save_page(shared, folder / f"{stem}_report.html"),
        save_comparison(shared, folder / f"{stem}_comparison.xlsx"),
    ]


def without_private(report: Report) -> Report:
    """A report that says nothing of the machine and of patients: paths are cut to their last part.

    The measures are the same; intervals that resample patients stay so.
    """
    # remarks may hold these in the middle of a sentence, where a blank in a path cannot be told from its end
    known = known_paths(report)

    def cut_result(result: EncoderResult) -> EncoderResult:
        """A shallow copy, which keeps the measures that are computed already, with its records cut."""
        cut = copy.copy(result)
        splits = [copy.copy(split) for split in result.splits]
        for split in splits:
            object.__setattr__(split, "record", public_record(split.record, known))
        object.__setattr__(cut, "splits", splits)
        return cut

    results = {result.name: cut_result(result) for board in report.boards for result in board.results}
    remarks = [
        replace(remark, text=PATIENTS_WITHHELD if remark.text.startswith(PATIENTS) else public_text(remark.text, known))
        for remark in report.remarks
    ]
    return replace(
        report,
        boards=[replace(board, results=[results[name] for name in board.names]) for board in report.boards],
        remarks=remarks,
        per_video=report.per_video.assign(Patient=None),
    )


def known_paths(report: Report) -> list[str]:
    """Paths of this machine that the texts of a report may hold."""
    known = [*map(str, (report.dataset.root, paths.repository_root(), paths.CHECKOUT, Path.home()))]
    for result in report.results:
        for split in result.splits:
            known += [text for text in _texts(split.record["features"]) if is_absolute(text)]
    return known


def public_record(record: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """A run's record whose texts say nothing of the machine; names of videos and phases stay."""
    cut = {key: _public(record[key], known) for key in ("features", "device", "versions", "config") if key in record}
    return record | cut


def _public(content: Any, known: Sequence[str]) -> Any:
    """A value of plain JSON with its texts cut."""
    if isinstance(content, dict):
        return {key: _public(value, known) for key, value in content.items()}
    if isinstance(content, list):
        return [_public(value, known) for value in content]
    return public_text(content, known) if isinstance(content, str) else content


def _texts(content: Any) -> Iterator[str]:
    """Every text in a value of plain JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _texts(part)


def public_text(text: str, known: Sequence[str] = ()) -> str:
    """A text with every absolute path and address cut to its last part, those of `known` first, and no host name."""
    if is_absolute(text):  # all of it, blanks too
        return _last_part(text)
    for path in sorted(set(known), key=len, reverse=True):
        text = text.replace(f"{path}/", "").replace(path, _last_part(path))
    text = ABSOLUTE_PATH.sub(lambda match: match["last"], text)
    host = platform.node()
    return re.sub(rf"\b{re.escape(host)}\b", "this machine", text) if host else text


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def is_absolute(text: str) -> bool:
    """Whether a text is an absolute path of any system, or an address."""
    return bool(re.match(r"(~|[A-Za-z]:)?[\\/]|[a-z]+://", text))


def write_model(report: Report, *, pdf: bool = False) -> list[Path]:
    """Write one encoder's split to its folder: workbook, ribbons of all videos, confusion, learning curve, features."""
    result = report.results[0]
    videos = {name: score_ribbons({"predicted": score}) for name, score in result.scores.items()}
    figures = {
        "ribbons": ribbons.ribbon_plot(videos, report.mapping, f"{result.name}, {report.title}"),
        "confusion": charts.confusion_plot(result, report),
        "learning_curve": charts.learning_curves(report),
        "features": embedding.feature_map(report),
    }
    written = [save_comparison(report, result.model.workbook)]
    for kind, figure in figures.items():
        parts = [report.dataset.name, "split", result.record["split"], result.run, f"{kind}.png"]
        written += save(figure, result.model.visualizations / "_".join(filter(None, parts)), pdf=pdf)
    return written
