"""Write an encoder's results to `models/<Encoder>/results.xlsx`.

python -m common.export_to_excel --dataset SICS155
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import paths
from common.phases import read_mapping
from common.reports import workbook
from common.reports.collect import EncoderResult, read_split, remarks, run_names
from common.runtime import UserError, run_main


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.export_to_excel`."""
    parser = argparse.ArgumentParser(prog="python -m common.export_to_excel", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    parser.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    given = parser.parse_args(argv)
    print(export(paths.model(given.model), paths.dataset(given.dataset)))
    return 0


def export(model: paths.Model, dataset: paths.Dataset) -> Path:
    """Write every finished split of every run of an encoder; returns the workbook's path.

    Raises `UserError` when nothing is finished.
    """
    results = []
    mapping = read_mapping(dataset.mapping)
    for run in run_names(model, dataset):
        records = sorted(model.results(dataset.name, run).glob("split_*/run.json"))
        splits = [read_split(path.parent, dataset, mapping) for path in records]
        results.append(EncoderResult(model, run, splits))
    if not results:
        raise UserError(
            f"{model.results(dataset.name)}: no finished run; run: python -m common.run_k_folds --model {model.name}"
        )
    return workbook.save_comparison(results, remarks(results), model.workbook)


if __name__ == "__main__":
    run_main(main)
