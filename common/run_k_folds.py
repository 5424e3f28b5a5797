"""Train, predict and score every fold of one encoder; finished folds are not run again.

python -m common.run_k_folds --dataset SICS155 --folds 5 --num_epochs 100
python -m common.run_k_folds --train_fraction 0.1,0.25,0.5,1 --seed 42,43,44        every pair, each a run of its own
python -m common.run_k_folds --reproduce models/Base/results/SICS155/split_1/run.json
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.options import CommandParser, resolve
from common.base.runtime import UserError, run_main
from common.dataset.kfold import read_folds
from common.head.config import TrainConfig, add_train_options
from common.head.folds import run_folds
from common.head.reproduce import reproduce
from common.reports.results import collect_folds
from common.reports.text import print_summary

# settings that take several values: their type, and what a list looks like
LISTED: dict[str, tuple[type[float] | type[int], str]] = {
    "train_fraction": (float, "0.1,0.25,1"),
    "seed": (int, "42,43,44"),
}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.run_k_folds`."""
    given = vars(_parser().parse_args(argv))
    if given["reproduce"]:
        _refuse_settings(given)
        return reproduce(given["reproduce"], device=given["device"], keep=given["keep"])
    if given["keep"]:
        raise UserError("--keep goes with --reproduce only; a run's results stay in its model folder")
    configs = read_series(given)
    dataset, model = paths.dataset(configs[0].dataset), paths.model(configs[0].model)
    _check_folds(dataset, given["folds"])
    for config in configs:
        run_folds(config, given)
    if given["only"] is None:
        print_summary([collect_folds(model, dataset, given["folds"], run=config.run_name) for config in configs])
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("common.run_k_folds", __doc__)
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="K", help="run fold K alone, for job arrays")
    parser.add_argument("--force", action="store_true", help="run finished folds again, replacing other configurations")
    parser.add_argument(
        "--reproduce", type=Path, metavar="RUN_JSON",
        help="repeat this finished run in a temporary place and compare the numbers; exit code 1 when they differ",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --reproduce: leave checkpoint and predictions in this new folder"
    )
    add_train_options(parser, skip=("split", *LISTED))
    for entry in fields(TrainConfig):
        if entry.name in LISTED:
            parser.add_argument(
                f"--{entry.name}", default=argparse.SUPPRESS, metavar="LIST",
                help=f"{entry.metadata['help']}; several with commas, a run for each (default: {entry.default})",
            )  # fmt: skip
    return parser


def read_series(given: dict[str, Any]) -> list[TrainConfig]:
    """A configuration for every training fraction and seed that were asked for, each with a run name of its own.

    Raises `UserError` for a list that is not one of numbers, or names a run twice.
    """
    listed = {name: _numbers(name, given[name]) for name in LISTED if name in given}
    first = {name: values[0] for name, values in listed.items()}
    config = resolve(TrainConfig, given | first, given["config"])
    values = [listed[name] if name in listed else [getattr(config, name)] for name in LISTED]
    configs = [replace(config, **dict(zip(LISTED, chosen, strict=True))) for chosen in product(*values)]
    if config.run and len(configs) > 1:
        configs = [replace(each, run=_joined(config.run, replace(each, run=None).run_name)) for each in configs]
    names = [each.run_name or "the default run" for each in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--train_fraction and --seed ask twice for {', '.join(twice)}; give each value once")
    return configs


def _joined(*names: str | None) -> str:
    return "-".join(name for name in names if name)


def _numbers(name: str, text: str) -> list[float]:
    number, example = LISTED[name]
    try:
        return [number(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--{name} {text}: expected one number, or several with commas between them, such as {example}"
        ) from error


def _refuse_settings(given: dict[str, Any]) -> None:
    """A repetition takes everything from the record."""
    settings = [entry.name for entry in fields(TrainConfig) if entry.name in given]
    switches = [name for name in ("config", "only", "force", "wandb") if given[name]]
    if settings or switches:
        words = ", ".join(f"--{name}" for name in switches + settings)
        raise UserError(f"--reproduce takes the configuration from the record; leave out {words}")


def _check_folds(dataset: paths.Dataset, num_folds: int) -> None:
    found = len(read_folds(dataset))
    if found != num_folds:
        raise UserError(
            f"--folds {num_folds}: {dataset.splits} has {found} folds; use --folds {found}, or make new ones: "
            f"python generate_k_folds.py {dataset.root} {num_folds}"
        )


if __name__ == "__main__":
    run_main(main)
