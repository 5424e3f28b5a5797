"""Compare encoders, or show one encoder's split.

python compute_results.py --dataset SICS155                     all models, split 1
python compute_results.py --compare-kfold 5                     all models, 5 folds: page, workbook, pictures
python compute_results.py --compare-kfold --splits official      over the lists that a release comes with
python compute_results.py --models Base I3D --runs default      two models' runs without a name
python compute_results.py --model Base --split 1                one model: workbook, ribbons, confusion matrix
"""

from __future__ import annotations

import argparse

from common.base import paths
from common.base.locks import hold
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main
from common.base.wording import format_table
from common.scoring.protocols import PROTOCOLS, add_protocol_options, chosen_protocols

ALL_SPLITS = -1


def main(argv: list[str] | None = None) -> int:
    """Write the reports that were asked for, print the table and where the files are."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("--dataset", default=paths.DEFAULT_DATASET, help="(default: %(default)s)")
    data.add_argument("--split", help="fold number or 'val' (default: 1)")
    data.add_argument(
        "--compare-kfold",
        type=int,
        nargs="?",
        const=ALL_SPLITS,
        metavar="K",
        help="compare over the first K folds or splits (without a number: all)",
    )
    data.add_argument("--splits", metavar="NAME", help="named list of splits (default: the generated folds)")
    data.add_argument("--models", nargs="+", metavar="MODEL", help="compare these models alone (default: all)")
    data.add_argument(
        "--runs", nargs="+", metavar="NAME", help="compare these runs alone; 'default' is the one without a name"
    )
    data.add_argument(
        "--exclude_seen",
        action="store_true",
        help="score all encoders without the videos that the weights of any of them were trained on",
    )
    data.add_argument("--model", help="show this model's split instead of a comparison")
    data.add_argument("--run", help="with --model: name of a run (default: the one without a name)")
    add_protocol_options(parser)
    output.add_argument("--with-published", action="store_true", help="the study's table beside ours, marked as quoted")
    output.add_argument(
        "--share", action="store_true", help="page and workbook alone, without paths, host names and patients"
    )
    output.add_argument("--pdf", action="store_true", help="every picture as PDF too")
    given = parser.parse_args(argv)
    _refuse_ignored(given)
    with hold(paths.model(given.model).workbook if given.model else paths.comparison_results() / "report"):
        _write_reports(given)
    return 0


def _write_reports(given: argparse.Namespace) -> None:
    # --help answers without pandas, matplotlib and plotly
    from common.reports.comparison import make_report
    from common.reports.published import read_published
    from common.reports.results import Collection, collect_all, collect_one, collect_split
    from common.reports.text import leaderboard_rows
    from common.reports.written import write_comparison, write_model, write_shared

    dataset, num_folds, split = paths.dataset(given.dataset), given.compare_kfold, given.split or "1"
    chosen = {"models": given.models and [paths.model(name) for name in given.models], "runs": given.runs}
    chosen |= {"splits": given.splits}
    if given.model:
        found = Collection(
            [collect_one(paths.model(given.model), dataset, split, run=given.run, splits=given.splits)], []
        )
    elif num_folds is not None:
        found = collect_all(dataset, None if num_folds == ALL_SPLITS else num_folds, **chosen)
    else:
        found = collect_split(dataset, split, **chosen)
    if given.exclude_seen:
        from common.reports.caveats import exclude_seen

        found = exclude_seen(dataset, found)
    # those asked for first, the first of them on every picture; the page shows the others too
    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    published = read_published() if given.with_published else []
    report = make_report(dataset, found.results, protocols, published=published, left_out=found.left_out)
    print(format_table(leaderboard_rows(report.board)))
    if len(report.results) > 1:
        print("Tied: encoders that share a letter do not differ significantly in accuracy over the test videos.")
    print("\n".join(map(str, report.remarks)))
    if given.share:
        written = write_shared(report, over_folds=num_folds is not None)
    elif given.model:
        written = write_model(report, pdf=given.pdf)
    else:
        written = write_comparison(report, over_folds=num_folds is not None, pdf=given.pdf)
    print("\n".join(f"wrote {path}" for path in written))


def _refuse_ignored(given: argparse.Namespace) -> None:
    """Raise `UserError` for flags that would have no effect beside others."""
    without_effect = {
        "model": ("compare_kfold", "models", "runs", "with_published", "share"),
        "compare_kfold": ("split",),
        "share": ("pdf",),
    }
    words = {
        name: f"--{name.replace('_', '-')}"
        for name, value in vars(given).items()
        if not (value is None or value is False)
    }
    for name, others in without_effect.items():
        ignored = [words[other] for other in others if other in words]
        if name in words and ignored:
            raise UserError(f"{' and '.join(ignored)} would have no effect with {words[name]}; leave out one of them")
    if given.run is not None and given.model is None:
        raise UserError(f"--run goes with --model; to compare that run of all models, give --runs {given.run}")


if __name__ == "__main__":
    run_main(main)
