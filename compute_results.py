"""Compare encoders, or show one encoder's split.

python compute_results.py --dataset SICS155                    # all models, split 1
python compute_results.py --compare-kfold 5                    # all models, 5 folds: page, workbook, pictures
python compute_results.py --compare-kfold --splits official    # over the lists that a release comes with
python compute_results.py --models Base I3D --runs default     # two models' runs without a name
python compute_results.py --model Base --split 1               # one model: workbook, ribbons, confusion matrix
python compute_results.py --benchmark --splits official        # every data set with finished runs: ranks over all of them
python compute_results.py --compare-kfold 5 --with_predictions TeCNO=../tecno/predictions # made elsewhere too
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.locks import hold
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import UserError, listed, run_main
from common.base.wording import format_table, written_line
from common.scoring.effort import EffortRule
from common.scoring.protocols import PROTOCOLS, add_protocol_options, chosen_protocols

if TYPE_CHECKING:
    from common.reports.benchmark.table import Benchmark
    from common.reports.comparison import Report
    from common.reports.results import Collection

ALL_SPLITS = -1
HYPHENATED = {"compare_kfold", "with_published"}  # flags that have kept their first spelling


def main(argv: list[str] | None = None) -> int:
    """Write the reports that were asked for, print the table and where the files are."""
    given = _parser().parse_args(argv)
    _refuse_ignored(given)
    if given.verify:
        return _verify(given)
    target = paths.model(given.model).workbook if given.model else paths.comparison_results() / "report"
    with hold(target):
        _write_benchmark(given) if given.benchmark is not None else _write_reports(given)
    return 0


def _parser() -> CommandParser:
    """Every option."""
    parser = CommandParser(None, __doc__)
    data = parser.groups["data"]
    data.add_argument("--dataset", help=f"(default: {paths.USUAL_DATASET})")
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
    data.add_argument(
        "--benchmark",
        nargs="*",
        metavar="DATASET",
        help="compare encoders over several data sets (default: all that have finished runs)",
    )
    data.add_argument(
        "--with_predictions",
        nargs="+",
        metavar="NAME=DIR",
        help="predictions made elsewhere as further rows: DIR/<video>.txt, one phase a label, and <video>.npy "
        "probabilities if there are any; or DIR/split_<k>/ of these; with --benchmark DIR/<data set>/ of either",
    )
    data.add_argument("--models", nargs="+", metavar="MODEL", help="compare these models alone (default: all)")
    data.add_argument(
        "--runs", nargs="+", metavar="NAME", help="compare these runs alone; 'default' is the one without a name"
    )
    data.add_argument(
        "--against",
        metavar="BASELINE",
        help="test every row against this one alone, by its name in the table: fewer pairs than all, so that smaller "
        "differences show (default: all pairs, and letters of ties)",
    )
    data.add_argument(
        "--exclude_seen",
        action="store_true",
        help="score all encoders without the videos that the weights of any of them were trained on",
    )
    data.add_argument("--model", help="show this model's split instead of a comparison")
    data.add_argument("--run", help="with --model: name of a run (default: the one without a name)")
    _add_outputs(parser)
    return parser


def _add_outputs(parser: CommandParser) -> None:
    """What is written, and what is checked."""
    output = parser.groups["output"]
    add_protocol_options(parser)
    output.add_argument("--with-published", action="store_true", help="the study's table beside ours, marked as quoted")
    output.add_argument(
        "--share", action="store_true", help="page and workbook alone, without paths, host names and patients"
    )
    output.add_argument(
        "--bundle",
        metavar="OUT.zip",
        help="write what the table rests on too: predictions, records, numbers; no videos, features, labels and paths",
    )
    output.add_argument(
        "--verify",
        metavar="BUNDLE",
        help="compute every number of a bundle again against the labels here, and say what differs (exit code 1)",
    )
    output.add_argument(
        "--all_ribbons",
        action="store_true",
        help="large ribbons of every video, in the page and as pictures (default: of 12 from the worst to the best)",
    )
    output.add_argument(
        "--no_thumbnails", action="store_true", help="no frames of videos in the page (with --share there are none)"
    )
    output.add_argument("--brief", action="store_true", help="print where the files are, not the table")
    add_options(parser, EffortRule)
    output.add_argument("--pdf", action="store_true", help="every picture as PDF too")


def _collect(given: argparse.Namespace, dataset: paths.Dataset) -> Collection:
    """The rows that were asked for on one data set, other people's among them."""
    from common.dataset.split_lists import open_splits
    from common.reports.caveats import exclude_seen
    from common.reports.exchange.foreign import named_folders, with_foreign
    from common.reports.labelling.acquired import with_acquired
    from common.reports.results import Collection, chosen_runs, collect_all, collect_one, collect_split
    from common.reports.robustness.floors import with_floors

    foreign = named_folders(given.with_predictions or [])
    if given.benchmark is not None:  # those of each set in a folder of its name; a set without has no such row
        foreign = {name: folder / dataset.name for name, folder in foreign.items() if (folder / dataset.name).is_dir()}
    models = given.models and [paths.model(name) for name in given.models]
    chosen = {"models": models, "runs": given.runs, "splits": given.splits}
    split, over_folds = given.split or "1", given.compare_kfold is not None or given.benchmark is not None
    names = [split]
    if over_folds:
        lists = open_splits(dataset, given.splits)
        num_folds = None if given.compare_kfold in (None, ALL_SPLITS) else given.compare_kfold
        names = [str(number) for number in range(1, (num_folds or len(lists)) + 1)]
    if given.model:
        model = paths.model(given.model)
        found = Collection([collect_one(model, dataset, split, run=given.run, splits=given.splits)], [])
    elif foreign and not chosen_runs(dataset, models, given.runs, lists.name if over_folds else given.splits):
        found = Collection([], [])  # a table of nothing but these
    elif over_folds:
        found = collect_all(dataset, num_folds, **chosen)
    else:
        found = collect_split(dataset, split, **chosen)
    found = with_foreign(found, foreign, dataset, names, given.splits)
    found = with_floors(found, dataset, given.splits)
    if over_folds and found.results:
        found = with_acquired(found, dataset, names, given.splits)
    return exclude_seen(dataset, found) if given.exclude_seen else found


def _write_reports(given: argparse.Namespace) -> None:
    # --help answers without pandas, matplotlib and plotly
    from common.reports.comparison import make_report
    from common.reports.published import read_published
    from common.reports.text import leaderboard_rows
    from common.reports.written import write_comparison, write_model, write_shared

    dataset, over_folds = paths.dataset(given.dataset or paths.default_dataset()), given.compare_kfold is not None
    found = _collect(given, dataset)
    # those asked for first, the first of them on every picture; the page shows the others too
    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    published = read_published() if given.with_published else []
    report = make_report(
        dataset,
        found.results,
        protocols,
        published=published,
        left_out=found.left_out,
        floors=found.floors,
        against=given.against,
        effort=resolve(EffortRule, vars(given)),
        acquired=found.acquired,
    )
    if not given.brief:
        print(format_table(leaderboard_rows(report.board, report.floors)))
        print("\n".join([*filter(None, [report.board.separation]), *map(str, report.remarks)]))
    if given.share:
        written = write_shared(report, over_folds=over_folds)
    elif given.model:
        written = write_model(report, pdf=given.pdf)
    else:
        written = write_comparison(
            report,
            over_folds=over_folds,
            pdf=given.pdf,
            all_ribbons=given.all_ribbons,
            thumbnails=not given.no_thumbnails,
        )
    if given.bundle:
        written.append(_write_bundle(given, [report], None))
    _print_written(written)


def _print_written(written: Sequence[Path]) -> None:
    """Where the files are, and which to open."""
    line = written_line(written)
    print(line if written[0].suffix != ".html" else f"{line}\nopen {written[0]}")


def _write_benchmark(given: argparse.Namespace) -> None:
    from common.reports.benchmark.table import collect_sets, has_phase_runs, make_benchmark
    from common.reports.benchmark.tasks import task_columns, task_datasets, task_text_rows, write_task_cells
    from common.reports.benchmark.written import text_rows, ties_caption, write_benchmark
    from common.reports.exchange.foreign import named_folders

    protocols = chosen_protocols([*given.protocol, *PROTOCOLS], given.segments)
    of_phases, of_tasks = task_datasets(given.benchmark)
    tasks, said = task_columns(of_tasks, given.splits, given.models) if of_tasks or not given.benchmark else ([], [])
    if not of_phases and (of_tasks or (tasks and not has_phase_runs())):
        if not tasks:
            raise UserError(f"--benchmark: nothing to compare ({'; '.join(map(str, said))})")
        print(format_table(task_text_rows(tasks)))
        print("\n".join([*map(str, said), f"wrote {write_task_cells(tasks)}"]))
        return
    sets, remarks = collect_sets(of_phases, given.splits, partial(_collect, given), protocols)
    for name, folder in named_folders(given.with_predictions or []).items():
        if not any((folder / each.name).is_dir() for each in sets):
            raise UserError(
                f"--with_predictions {name}: {folder} has no folder of {listed([each.name for each in sets])}; with --benchmark "
                "predictions of each data set are in a folder of its name"
            )
    made = make_benchmark(sets, protocols, [*remarks, *said], tasks)
    print(format_table(text_rows(made)))
    if caption := ties_caption(made.headline):
        print(caption)
    print("\n".join(map(str, made.remarks)))
    written = write_benchmark(made, pdf=given.pdf)
    if given.bundle:
        written.append(_write_bundle(given, [each.report for each in sets], made))
    _print_written(written)


def _write_bundle(given: argparse.Namespace, reports: Sequence[Report], benchmark: Benchmark | None) -> Path:
    from common.reports.exchange.bundle import write_bundle

    return write_bundle(Path(given.bundle), reports, benchmark=benchmark, segments=given.segments)


def _verify(given: argparse.Namespace) -> int:
    """Compute a bundle's numbers again; returns 0 when all are equal, else 1."""
    from common.reports.exchange.bundle import verify

    checked = verify(Path(given.verify), lambda name: paths.dataset(given.dataset or name))
    print(f"{given.verify}: {checked.num_equal:,} numbers are equal")
    print("\n".join(["differs: " + text for text in checked.differences] or ["nothing differs"]))
    return 1 if checked.differences else 0


def _refuse_ignored(given: argparse.Namespace) -> None:
    """Raise `UserError` for flags that would have no effect beside others."""
    without_effect: dict[str, tuple[str, ...]] = {
        "benchmark": (
            "dataset",
            "compare_kfold",
            "split",
            "model",
            "with_published",
            "share",
            "all_ribbons",
            "against",
            "brief",
            "no_thumbnails",
        ),
        "model": (
            "against",
            "compare_kfold",
            "models",
            "runs",
            "with_published",
            "share",
            "with_predictions",
            "all_ribbons",
            "no_thumbnails",
        ),
        "compare_kfold": ("split",),
        "share": ("pdf", "all_ribbons", "no_thumbnails"),
        "verify": (
            "benchmark",
            "compare_kfold",
            "split",
            "splits",
            "models",
            "runs",
            "model",
            "exclude_seen",
            "with_predictions",
            "against",
            "segments",
            "with_published",
            "share",
            "bundle",
            "pdf",
            "all_ribbons",
            "brief",
            "no_thumbnails",
        ),
    }
    words = {
        name: "--" + (name.replace("_", "-") if name in HYPHENATED else name)
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
