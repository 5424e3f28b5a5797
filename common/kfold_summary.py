"""Mean and standard deviation over the folds of one encoder.

python -m common.kfold_summary --folds 5 --verbose
"""

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import run_main
from common.scoring.protocols import add_protocol_options, chosen_protocols


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.kfold_summary`."""
    parser = CommandParser("common.kfold_summary", __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("--dataset", help=f"(default: {paths.USUAL_DATASET})")
    data.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    data.add_argument("--folds", type=int, help="(default: 5, with --splits all of the list)")
    data.add_argument("--splits", metavar="NAME", help="named list of splits (default: the generated folds)")
    data.add_argument("--run", help="name of a run (default: the default run)")
    output.add_argument("--verbose", action="store_true", help="a row for each fold too")
    add_protocol_options(parser)
    given = parser.parse_args(argv)

    from common.reports.results import Collection, collect_folds  # --help answers without pandas and scipy
    from common.reports.robustness.floors import with_floors
    from common.reports.text import print_summary

    dataset = paths.dataset(given.dataset or paths.default_dataset())
    result = collect_folds(paths.model(given.model), dataset, given.folds, run=given.run, splits=given.splits)
    floors = with_floors(Collection([result], []), dataset, given.splits).floors.get(result.name, {})
    for protocol in chosen_protocols(given.protocol, given.segments):
        print_summary(dataset, [result, *floors.values()], protocol, verbose=given.verbose)
    return 0


if __name__ == "__main__":
    run_main(main)
