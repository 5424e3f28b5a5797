"""Train, predict and score every fold of one encoder; finished folds are not run again.

python -m common.run_k_folds --dataset SICS155 --folds 5 --num_epochs 100
python -m common.run_k_folds --train_fraction 0.1,0.25,0.5,1 --seed 42,43,44        # every pair, each a run of its own
python -m common.run_k_folds --variants default published spacing1                  # windows of other lengths in time
python -m common.run_k_folds --splits official                                      # the lists that a release comes with
python -m common.run_k_folds --acquire random,coverage,uncertainty --rounds 5       # which videos should have been labelled first?
python -m common.run_k_folds --reproduce models/Base/results/SICS155/split_1/run.json
"""

import argparse
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import UserError, run_main
from common.head.acquisition.plan import AcquisitionPlan
from common.head.config import CHOICES, FLOORS, TrainConfig, add_train_options, read_series

log = logging.getLogger(__name__)

PLAN = [entry.name for entry in fields(AcquisitionPlan)]


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.run_k_folds`."""
    given = vars(_parser().parse_args(argv))
    if "choose" in given:
        given["choose"] = "+".join(name for name in CHOICES if name in given["choose"])
    if given["reproduce"]:
        _refuse_settings(given)
        from common.head.reproduce import reproduce

        return reproduce(given["reproduce"], device=given["device"], keep=given["keep"])
    if given["keep"]:
        raise UserError("--keep goes with --reproduce only; a run's results stay in its model folder")
    if given["brief"]:
        logging.getLogger().setLevel(logging.WARNING)
    configs = read_series(given)
    if any(config.splits for config in configs):  # runs are called as the list is, whatever alias names it
        from common.dataset.split_lists import resolve_name

        dataset = paths.dataset(configs[0].dataset)
        configs = [replace(config, splits=resolve_name(dataset, config.splits)) for config in configs]

    if beside := [name for name in PLAN if name in given]:
        if "acquire" not in given:
            raise UserError(f"--{beside[0]} would have no effect without --acquire RULES")
        return _acquire(configs, given)
    # torch and the tables load only now: --help and wrong words are answered at once
    from common.head.folds import run_folds

    are_there = run_folds(configs, given)
    if given["only"] is not None:
        return 0  # one task of several, whose fold may be another's
    if not are_there:
        log.error("error: not all folds are there yet (above: who is at them); run this again when they are")
        return 1
    _print_summary(configs, given)
    return 0


def _parser() -> CommandParser:
    """Every option."""
    parser = CommandParser("common.run_k_folds", __doc__)
    add_train_options(parser, series=True)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("--folds", type=int, help="number of folds (default: 5, with --splits all of the list)")
    data.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="several feature variants, a run for each; 'default' is features/<Encoder>/ itself",
    )
    parser.groups["training"].add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="so many folds at the same time, each in a process of its own with its share of the cores: for short videos, and for a "
        "GPU that one fold does not fill. The numbers are those of one after another, on a CPU of as many threads (default: 1)",
    )
    data.add_argument("--only", type=int, metavar="K", help="run fold K alone, for job arrays")
    add_options(parser, AcquisitionPlan)
    data.add_argument(
        "--reproduce",
        type=Path,
        metavar="RUN_JSON",
        help="repeat this finished run in a temporary place and compare the numbers; exit code 1 when they differ",
    )
    parser.groups["training"].add_argument(
        "--choose",
        nargs="+",
        choices=CHOICES,
        default=argparse.SUPPRESS,
        metavar="SETTING",
        help=f"of {', '.join(CHOICES)}: each fold chooses on a fifth of its training videos, then learns from all of them; "
        "the test is never looked at. lr: times 1, 0.3, 3; pooling: of the variants there are",
    )
    parser.groups["training"].add_argument(
        "--temperature",
        action="store_true",
        help="one more head on four fifths of the training videos tells how much too sure it is: calibration before and after",
    )
    output.add_argument(
        "--no_floors",
        action="store_true",
        help="without the runs floor=majority and floor=linear, which take seconds a fold and are what a head must beat",
    )
    output.add_argument("--brief", action="store_true", help="print one line a run, not every fold and the table")
    output.add_argument("--force", action="store_true", help="run finished folds again, replacing other configurations")
    output.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --reproduce: leave checkpoint and predictions in this new folder"
    )
    return parser


def _acquire(configs: list[TrainConfig], given: dict[str, Any]) -> int:
    """Try rules for what to label next, and say where the curve is."""
    plan = resolve(AcquisitionPlan, given)
    if len(configs) > 1:
        raise UserError(
            f"--acquire with {len(configs)} runs; give one variant, fraction and seed (each draw has a seed of its own)"
        )

    from common.head.acquisition.simulation import refuse_beside_acquire, run_acquisition

    refuse_beside_acquire(configs[0], given)
    if run_acquisition(configs[0], plan, given):
        print(f"the curves: python compute_results.py --dataset {configs[0].dataset} --compare-kfold")
    return 0


def _print_summary(configs: list[TrainConfig], given: dict[str, Any]) -> None:
    """A row for each run, and below them their floors; with `--brief` a line for each run."""
    from common.reports.results import collect_folds
    from common.reports.text import brief_line, print_summary

    dataset, model = paths.dataset(configs[0].dataset), paths.model(configs[0].model)
    runs = [
        (config.splits, config.decoded_name(decode)) for decode in ("argmax", given["decode"]) for config in configs
    ]
    if not given["no_floors"]:
        runs += [(config.splits, config.of_floor(kind).run_name) for kind in FLOORS for config in configs]
    results = [
        collect_folds(model, dataset, given["folds"], run=run, splits=splits) for splits, run in dict.fromkeys(runs)
    ]
    if given["brief"]:
        print("\n".join(brief_line(result) for result in results if result.floor is None))
    else:
        print_summary(dataset, results)


def _refuse_settings(given: dict[str, Any]) -> None:
    """A repetition takes everything from the record."""
    settings = [name for name in (*(entry.name for entry in fields(TrainConfig)), *PLAN) if name in given]
    switches = [
        name
        for name in ("config", "variants", "only", "force", "no_floors", "temperature", "wandb", "brief")
        if given[name]
    ]
    switches += ["decode"] if given["decode"] != "argmax" else []
    if settings or switches:
        words = ", ".join(f"--{name}" for name in switches + settings)
        raise UserError(f"--reproduce takes the configuration from the record; leave out {words}")


if __name__ == "__main__":
    run_main(main)
