"""Compare encoders, or plot one encoder's split.

python compute_results.py --dataset SICS155                     all models, split 1 -> model_comparison.xlsx
python compute_results.py --compare-kfold 5                     all models, 5 folds -> workbook, chart, table
python compute_results.py --model Base --split 1                one model's ribbons and confusion matrix
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import paths
from common.phases import PhaseMapping, label_paths, read_labels, read_mapping
from common.reports import plots, workbook
from common.reports.collect import EncoderResult, collect_all, collect_split, read_split, remarks
from common.reports.tables import comparison_rows, format_table
from common.runtime import UserError, run_main


def main(argv: list[str] | None = None) -> int:
    """Write the reports that were asked for, print the table and where the files are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    parser.add_argument("--split", default="1", help="fold number or 'val' (default: %(default)s)")
    parser.add_argument("--compare-kfold", type=int, metavar="K", help="compare all models over K folds")
    parser.add_argument("--model", help="plot this model's split")
    parser.add_argument("--run", help="with --model: name of a run (default: the default run)")
    given = parser.parse_args(argv)
    dataset = paths.dataset(given.dataset)
    if given.model:
        written = plot_split(paths.model(given.model), dataset, given.split, run=given.run)
    elif given.compare_kfold:
        written = compare_folds(dataset, given.compare_kfold)
    else:
        written = compare_split(dataset, given.split)
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def compare_folds(dataset: paths.Dataset, num_folds: int) -> list[Path]:
    """Compare every encoder that has all folds: table, chart, workbook, and each one's pooled confusion matrix."""
    results = collect_all(dataset, num_folds)
    lines = remarks(results)
    _print(results, lines)
    folder = paths.comparison_results()
    title = f"{dataset.name}{_synthetic(results[0])}, {num_folds}-fold cross-validation"
    mapping = read_mapping(dataset.mapping)
    return [
        workbook.save_comparison(results, lines, folder / "kfold_comparison.xlsx"),
        plots.comparison_chart(results, lines, title, folder / "kfold_comparison_chart.png"),
        plots.comparison_table(results, lines, title, folder / "kfold_comparison_table.png"),
        *(_fold_confusion(result, dataset, mapping) for result in results),
    ]


def compare_split(dataset: paths.Dataset, split: str) -> list[Path]:
    """Compare every encoder's result on one split."""
    results = collect_split(dataset, split)
    lines = remarks(results)
    _print(results, lines)
    return [workbook.save_comparison(results, lines, paths.comparison_results() / "model_comparison.xlsx")]


def plot_split(model: paths.Model, dataset: paths.Dataset, split: str, *, run: str | None = None) -> list[Path]:
    """One encoder's split: a ribbon of truth and prediction for each video, and the confusion matrix.

    Raises `UserError` when the split has not been run.
    """
    folder = model.split_results(dataset.name, split, run)
    if not (folder / "run.json").is_file():
        raise UserError(
            f"{folder}: no finished run; run: python -m common.run_k_folds --model {model.name} --dataset {dataset.name}"
        )
    mapping = read_mapping(dataset.mapping)
    result = EncoderResult(model, run, [read_split(folder, dataset, mapping)])
    _print([result], remarks([result]))
    labels = label_paths(dataset.ground_truth) | label_paths(dataset.ground_truth_val)
    ribbons = {
        name: [
            ("truth", read_labels(labels[name], mapping)),
            ("predicted", read_labels(folder / f"{name}.txt", mapping)),
        ]
        for name in result.record["videos"]
    }
    title = f"{result.name}, {dataset.name}, split {split}{_synthetic(result)}"
    stem = f"{dataset.name}_split_{split}{f'_{run}' if run else ''}"
    target = model.visualizations
    return [
        plots.ribbon_plot(ribbons, result.record["fps"], mapping, title, target / f"{stem}_ribbons.png"),
        plots.confusion_plot(result.confusion, mapping, title, target / f"{stem}_confusion.png"),
    ]


def _fold_confusion(result: EncoderResult, dataset: paths.Dataset, mapping: PhaseMapping) -> Path:
    title = f"{result.name}, {dataset.name}, {len(result.splits)} test folds{_synthetic(result)}"
    name = f"{dataset.name}{f'_{result.run}' if result.run else ''}_confusion.png"
    return plots.confusion_plot(result.confusion, mapping, title, result.model.visualizations_kfold / name)


def _synthetic(result: EncoderResult) -> str:
    return " (synthetic data)" if result.record["synthetic"] else ""


def _print(results: list[EncoderResult], lines: list[str]) -> None:
    print(format_table(comparison_rows(results)))
    print("\n".join(lines))


if __name__ == "__main__":
    run_main(main)
