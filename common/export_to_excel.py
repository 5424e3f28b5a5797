"""Write all runs of an encoder to `models/<Encoder>/results.xlsx`.

python -m common.export_to_excel --dataset SICS155                    every finished fold of every run
python -m common.export_to_excel --model Base --split val             the validation part
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.base import paths
from common.base.runtime import UserError, read_json, run_main
from common.dataset.kfold import folds_hash, read_folds
from common.dataset.phases import read_mapping
from common.reports.caveats import Remark
from common.reports.comparison import make_report
from common.reports.results import EncoderResult, SplitResult, read_split, run_names
from common.reports.workbook.workbook import save_comparison
from common.scoring.protocols import PROTOCOLS, Protocol, add_protocol_options, chosen_protocols

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.export_to_excel`."""
    parser = argparse.ArgumentParser(
        prog="python -m common.export_to_excel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    parser.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    parser.add_argument("--split", help="one fold's number, or 'val' (default: every finished fold)")
    add_protocol_options(parser)
    given = parser.parse_args(argv)
    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    print(export(paths.model(given.model), paths.dataset(given.dataset), protocols, split=given.split))
    return 0


def export(
    model: paths.Model, dataset: paths.Dataset, protocols: Sequence[Protocol], *, split: str | None = None
) -> Path:
    """Write every run of an encoder, the first protocol being that of most sheets; returns the workbook's path.

    `split` is a fold's number or `val`; without it, every finished fold counts, and a warning stands on every sheet
    where runs lack some.

    Raises `UserError` when nothing is finished.
    """
    results = [EncoderResult(model, run, _splits(model, dataset, run, split)) for run in run_names(model, dataset)]
    results = sorted((result for result in results if result.splits), key=lambda result: -len(result.splits))
    if not results:
        words = f"--dataset {dataset.name} --model {model.name}"
        command = (
            f"common.train {words} --split {split}, then --action predict" if split else f"common.run_k_folds {words}"
        )
        wanted = f"split {split}" if split else "any fold"
        raise UserError(f"{model.results(dataset.name)}: no finished run of {wanted}; run: python -m {command}")
    report = make_report(dataset, results, protocols)
    unfinished = [] if split else _unfinished(results, len(read_folds(dataset)))
    marked = replace(report, title=f"{model.name}: {report.title}", remarks=[*unfinished, *report.remarks])
    return save_comparison(marked, model.workbook)


def _splits(model: paths.Model, dataset: paths.Dataset, run: str | None, split: str | None) -> list[SplitResult]:
    """The finished splits of a run, by number; those on other folds than the data set has now are left out."""
    folds = [] if split == "val" else read_folds(dataset)
    found = []
    for name in [split] if split else range(1, len(folds) + 1):
        folder = model.split_results(dataset.name, name, run)
        if not (folder / "run.json").is_file():
            continue
        if folds and read_json(folder / "run.json")["folds_hash"] != folds_hash(folds):
            log.warning("left out: %s was run on other folds than %s has now; run it again", folder, dataset.splits)
            continue
        found.append(read_split(folder, dataset, read_mapping(dataset.mapping)))
    return found


def _unfinished(results: Sequence[EncoderResult], num_folds: int) -> list[Remark]:
    """What to say when runs lack folds: their means are over fewer and other videos."""
    lacking = {result.name: [split.record["split"] for split in result.splits] for result in results}
    partial = [f"{name} over {', '.join(folds)}" for name, folds in lacking.items() if len(folds) < num_folds]
    text = f"Unfinished: of {num_folds} folds, the numbers of {'; of '.join(partial)} only."
    return [Remark(text, alarming=True)] if partial else []


if __name__ == "__main__":
    run_main(main)
