"""The files of a comparison, and of one encoder's split."""

from pathlib import Path

from common.base import paths
from common.base.runtime import atomic_path
from common.base.wording import text_cell
from common.reports.chart_data import score_ribbons
from common.reports.comparison import Report
from common.reports.page.page import save_page
from common.reports.pictures import charts, embedding, ribbons
from common.reports.pictures.style import save
from common.reports.workbook.workbook import save_comparison

PICTURES = {
    "comparison_chart": charts.comparison_chart,
    "comparison_table": charts.comparison_table,
    "phases": charts.phase_heat_map,
    "cost": charts.cost_picture,
    "learning_curves": charts.learning_curves,
    "label_efficiency": charts.efficiency_picture,
    "features": embedding.feature_map,
}


def write_comparison(report: Report, *, over_folds: bool, pdf: bool = False) -> list[Path]:
    """Write every table and picture of a comparison to `comparison_results/`, and confusions to the encoders' folders.

    Those of all folds and those of one split have names of their own: neither replaces the other.
    """
    folder = paths.comparison_results()
    stem, prefix = ("kfold_", "") if over_folds else ("model_", "model_")
    per_video = folder / f"{prefix}per_video.csv"
    with atomic_path(per_video) as temporary:
        table = report.per_video.map(lambda value: text_cell(value) if isinstance(value, str) else value)
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    written = [
        save_page(report, folder / f"{prefix}report.html"),
        save_comparison(report, folder / f"{stem}comparison.xlsx"),
        per_video,
    ]
    for name, draw in PICTURES.items():
        written += save(draw(report), folder / f"{stem}{name}.png", pdf=pdf)
    written += ribbons.save_ribbons(report, folder / f"{stem}ribbons.png", pdf=pdf)
    for result in report.results if over_folds else []:
        name = "_".join(filter(None, [report.dataset.name, result.run, "confusion.png"]))
        written += save(charts.confusion_plot(result, report), result.model.visualizations_kfold / name, pdf=pdf)
    return written


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
