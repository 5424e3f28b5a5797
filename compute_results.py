"""Compare encoders, or show one encoder's split.

python compute_results.py --dataset SICS155                     all models, split 1
python compute_results.py --compare-kfold 5                     all models, 5 folds: page, workbook, pictures
python compute_results.py --model Base --split 1                one model: workbook, ribbons, confusion matrix
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.base import paths
from common.base.runtime import UserError, run_main
from common.base.wording import format_table
from common.dataset.phases import read_mapping
from common.reports.comparison import Report, make_report
from common.reports.page import page
from common.reports.per_video import save_per_video
from common.reports.pictures import charts, curves, embedding, ribbons
from common.reports.pictures import phases as phase_plots
from common.reports.published import read_published
from common.reports.results import EncoderResult, collect_all, collect_split, read_split
from common.reports.text import leaderboard_rows
from common.reports.workbook import workbook
from common.scoring.protocols import PROTOCOLS, Protocol, add_protocol_options, chosen_protocols


def main(argv: list[str] | None = None) -> int:
    """Write the reports that were asked for, print the table and where the files are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    parser.add_argument("--split", default="1", help="fold number or 'val' (default: %(default)s)")
    parser.add_argument("--compare-kfold", type=int, metavar="K", help="compare all models over K folds")
    parser.add_argument("--model", help="show this model's split")
    parser.add_argument("--run", help="with --model: name of a run (default: the default run)")
    add_protocol_options(parser)
    parser.add_argument("--with-published", action="store_true", help="the study's table beside ours, marked as quoted")
    parser.add_argument("--pdf", action="store_true", help="every picture as PDF too")
    given = parser.parse_args(argv)
    dataset = paths.dataset(given.dataset)
    protocols = _protocols(given.protocol, given.segments)
    if given.model:
        result = one_result(paths.model(given.model), dataset, given.split, run=given.run)
        written = write_model(make_report(dataset, [result], protocols), pdf=given.pdf)
    else:
        folds = given.compare_kfold
        results = collect_all(dataset, folds) if folds else collect_split(dataset, given.split)
        published = read_published() if given.with_published else []
        report = make_report(dataset, results, protocols, published=published)
        written = write_comparison(report, "kfold" if folds else "model", pdf=given.pdf)
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def _protocols(names: Sequence[str], last_segment: str | None) -> list[Protocol]:
    """Those asked for first, the first of them on every picture; the page shows the others too."""
    return chosen_protocols([*names, *PROTOCOLS], last_segment)


def write_comparison(report: Report, stem: str, *, pdf: bool = False) -> list[Path]:
    """Every table and picture of a comparison, in `comparison_results/`.

    `stem`, `kfold` or `model`, begins the files' names, so that one split's do not replace those of all folds.
    """
    _print(report)
    folder = paths.comparison_results()
    over_folds = stem == "kfold"
    prefix = "" if over_folds else f"{stem}_"

    def picture(name: str) -> Path:
        return folder / f"{stem}_{name}.png"

    return [
        page.save_page(report, folder / f"{prefix}report.html"),
        workbook.save_comparison(report, folder / f"{stem}_comparison.xlsx"),
        save_per_video(report.per_video, folder / f"{prefix}per_video.csv"),
        *charts.comparison_chart(report, picture("comparison_chart"), pdf=pdf),
        *charts.comparison_table(report, picture("comparison_table"), pdf=pdf),
        *phase_plots.phase_heat_map(report, picture("phases"), pdf=pdf),
        *charts.cost_chart(report, picture("cost"), pdf=pdf),
        *curves.learning_curves(report, picture("learning_curves"), pdf=pdf),
        *curves.efficiency_chart(report, picture("label_efficiency"), pdf=pdf),
        *embedding.feature_map(report, picture("features"), pdf=pdf),
        *ribbons.comparison_ribbons(report, picture("ribbons"), pdf=pdf),
        *(path for result in report.results if over_folds for path in _confusion(result, report, pdf=pdf)),
    ]


def one_result(model: paths.Model, dataset: paths.Dataset, split: str, *, run: str | None = None) -> EncoderResult:
    """One encoder's split.

    Raises `UserError` when it has not been run.
    """
    folder = model.split_results(dataset.name, split, run)
    if not (folder / "run.json").is_file():
        raise UserError(
            f"{folder}: no finished run; run: python -m common.run_k_folds --model {model.name} --dataset {dataset.name}"
        )
    return EncoderResult(model, run, [read_split(folder, dataset, read_mapping(dataset.mapping))])


def write_model(report: Report, *, pdf: bool = False) -> list[Path]:
    """One encoder's split: a ribbon of truth and prediction for each video, confusion, learning curve, features."""
    _print(report)
    result = report.results[0]
    target = result.model.visualizations
    stem = f"{report.dataset.name}_split_{result.record['split']}{f'_{result.run}' if result.run else ''}"
    videos = {name: [("truth", s.true), ("predicted", s.predicted)] for name, s in result.scores.items()}
    rates = {name: score.fps for name, score in result.scores.items()}
    return [
        workbook.save_comparison(report, result.model.workbook),
        *ribbons.ribbon_plot(
            videos, rates, report.mapping, f"{result.name}, {report.title}", target / f"{stem}_ribbons.png", pdf=pdf
        ),
        *_confusion(result, report, target / f"{stem}_confusion.png", pdf=pdf),
        *curves.learning_curves(report, target / f"{stem}_learning_curve.png", pdf=pdf),
        *embedding.feature_map(report, target / f"{stem}_features.png", pdf=pdf),
    ]


def _confusion(result: EncoderResult, report: Report, path: Path | None = None, *, pdf: bool = False) -> list[Path]:
    name = f"{report.dataset.name}{f'_{result.run}' if result.run else ''}_confusion.png"
    return phase_plots.confusion_plot(
        result, report.mapping, report.title, report.remarks, path or result.model.visualizations_kfold / name, pdf=pdf
    )


def _print(report: Report) -> None:
    print(format_table(leaderboard_rows(report.board)))
    if len(report.results) > 1:
        print("Tied: encoders that share a letter do not differ significantly in accuracy over the test videos.")
    print("\n".join(map(str, report.remarks)))


if __name__ == "__main__":
    run_main(main)
