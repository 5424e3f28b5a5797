"""Write all runs of an encoder to `models/<Encoder>/results.xlsx`.

python -m common.export_to_excel --dataset SICS155                    # every finished fold of every run
python -m common.export_to_excel --model Base --split val             # the validation part
"""

from dataclasses import replace

from common.base import paths
from common.base.locks import hold
from common.base.options import CommandParser
from common.base.runtime import run_main
from common.scoring.protocols import PROTOCOLS, add_protocol_options, chosen_protocols


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.export_to_excel`."""
    parser = CommandParser("common.export_to_excel", __doc__)
    data = parser.groups["data"]
    data.add_argument("--dataset", help=f"(default: {paths.USUAL_DATASET})")
    data.add_argument("--model", help="folder under models/ (default: the one this is started in)")
    data.add_argument("--split", help="one fold's number, or 'val' (default: every finished fold)")
    data.add_argument("--splits", metavar="NAME", help="named list of splits (default: the generated folds)")
    add_protocol_options(parser)
    given = parser.parse_args(argv)

    # --help answers without pandas and openpyxl
    from common.reports.comparison import make_report
    from common.reports.results import collect_runs
    from common.reports.robustness.floors import with_floors
    from common.reports.workbook.workbook import save_comparison

    model, dataset = paths.model(given.model), paths.dataset(given.dataset or paths.default_dataset())
    found = collect_runs(model, dataset, given.split, splits=given.splits)
    # the first protocol is that of most sheets; one sheet shows them all
    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    found = with_floors(found, dataset, given.splits)
    report = make_report(dataset, found.results, protocols, left_out=found.left_out, floors=found.floors)
    report = replace(report, title=f"{model.name}: {report.title}")
    with hold(model.workbook):
        print(save_comparison(report, model.workbook))
    return 0


if __name__ == "__main__":
    run_main(main)
