"""Mean and standard deviation over the folds of one encoder.

python -m common.kfold_summary --folds 5 --verbose
"""

from __future__ import annotations

import argparse

from common import paths
from common.reports.collect import EncoderResult, collect_folds, remarks
from common.reports.tables import comparison_rows, fold_rows, format_table
from common.runtime import run_main


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.kfold_summary`."""
    parser = argparse.ArgumentParser(prog="python -m common.kfold_summary", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    parser.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    parser.add_argument("--folds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--run", help="name of a run (default: the default run)")
    parser.add_argument("--verbose", action="store_true", help="a row for each fold too")
    given = parser.parse_args(argv)
    dataset = paths.dataset(given.dataset)
    result = collect_folds(paths.model(given.model), dataset, given.folds, run=given.run)
    print_summary(result, verbose=given.verbose)
    return 0


def print_summary(result: EncoderResult, *, verbose: bool = False) -> None:
    """Print the table of one encoder, with a row for each fold when `verbose`, and what a reader must know."""
    print(format_table(fold_rows(result) if verbose else comparison_rows([result])))
    print("\n".join(remarks([result])))


if __name__ == "__main__":
    run_main(main)
