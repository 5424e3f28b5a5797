"""Compare encoders, or show one encoder's split.

python compute_results.py --dataset SICS155                     all models, split 1
python compute_results.py --compare-kfold 5                     all models, 5 folds: page, workbook, pictures
python compute_results.py --model Base --split 1                one model: workbook, ribbons, confusion matrix
"""

from __future__ import annotations

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import run_main
from common.base.wording import format_table
from common.scoring.protocols import PROTOCOLS, add_protocol_options, chosen_protocols


def main(argv: list[str] | None = None) -> int:
    """Write the reports that were asked for, print the table and where the files are."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    data.add_argument("--split", default="1", help="fold number or 'val' (default: %(default)s)")
    data.add_argument("--compare-kfold", type=int, metavar="K", help="compare all models over K folds")
    data.add_argument("--model", help="show this model's split")
    data.add_argument("--run", help="with --model: name of a run (default: the default run)")
    add_protocol_options(parser)
    output.add_argument("--with-published", action="store_true", help="the study's table beside ours, marked as quoted")
    output.add_argument("--pdf", action="store_true", help="every picture as PDF too")
    given = parser.parse_args(argv)

    # --help answers without pandas, matplotlib and plotly
    from common.reports.comparison import make_report
    from common.reports.published import read_published
    from common.reports.results import collect_all, collect_one, collect_split
    from common.reports.text import leaderboard_rows
    from common.reports.written import write_comparison, write_model

    dataset, num_folds = paths.dataset(given.dataset), given.compare_kfold
    if given.model:
        results = [collect_one(paths.model(given.model), dataset, given.split, run=given.run)]
    else:
        results = collect_all(dataset, num_folds) if num_folds else collect_split(dataset, given.split)
    # those asked for first, the first of them on every picture; the page shows the others too
    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    published = read_published() if given.with_published and not given.model else []
    report = make_report(dataset, results, protocols, published=published)
    print(format_table(leaderboard_rows(report.board)))
    if len(report.results) > 1:
        print("Tied: encoders that share a letter do not differ significantly in accuracy over the test videos.")
    print("\n".join(map(str, report.remarks)))
    if given.model:
        written = write_model(report, pdf=given.pdf)
    else:
        written = write_comparison(report, over_folds=bool(num_folds), pdf=given.pdf)
    print("\n".join(f"wrote {path}" for path in written))
    return 0


if __name__ == "__main__":
    run_main(main)
