"""Train, predict and score every fold of one encoder; finished folds are not run again.

python -m common.run_k_folds --dataset SICS155 --folds 5 --num_epochs 100
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

from common import paths
from common.config import TrainConfig
from common.experiment import Experiment, config_differences, config_record, load_experiment
from common.kfold import read_folds
from common.kfold_summary import print_summary
from common.options import resolve
from common.predict import RUN_RECORD, predict
from common.reports.collect import collect_folds
from common.runtime import UserError, read_json, run_main
from common.train import add_train_options, train

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.run_k_folds`."""
    parser = argparse.ArgumentParser(prog="python -m common.run_k_folds", description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="K", help="run fold K alone, for job arrays")
    parser.add_argument("--force", action="store_true", help="run finished folds again, replacing other configurations")
    add_train_options(parser, skip=("split",))
    given = vars(parser.parse_args(argv))
    config = resolve(TrainConfig, given, given["config"])
    _check_folds(paths.dataset(config.dataset), given["folds"])
    numbers = [given["only"]] if given["only"] is not None else range(1, given["folds"] + 1)
    for number in numbers:
        experiment = load_experiment(replace(config, split=str(number)))
        if not given["force"] and is_finished(experiment):
            log.info("%s fold %d of %d: finished, not run again", experiment.model.name, number, given["folds"])
            continue
        log.info("%s fold %d of %d", experiment.model.name, number, given["folds"])
        train(experiment, device=given["device"], resume=not given["force"], wandb=given["wandb"])
        predict(experiment, device=given["device"])
    if given["only"] is None:
        print_summary(collect_folds(experiment.model, experiment.dataset, given["folds"], run=config.run_name))
    return 0


def _check_folds(dataset: paths.Dataset, num_folds: int) -> None:
    found = len(read_folds(dataset))
    if found != num_folds:
        raise UserError(
            f"--folds {num_folds}: {dataset.splits} has {found} folds; use --folds {found}, or make new ones: "
            f"python generate_k_folds.py {dataset.root} {num_folds}"
        )


def is_finished(experiment: Experiment) -> bool:
    """Whether a split's run is complete, with this configuration and the features and labels as they are now.

    Raises `UserError` when it was run with another configuration, naming the differences.
    """
    path = experiment.results / RUN_RECORD
    if not path.is_file():
        return False
    record = read_json(path)
    differences = config_differences(config_record(experiment.config), record["config"])
    if differences:
        raise UserError(
            f"{path}: run with another configuration ({'; '.join(differences)}). "
            "Give --run NAME to keep both, or --force to replace it"
        )
    train_videos, test_videos = experiment.open(experiment.train_labels), experiment.open(experiment.test_labels)
    return (
        record["train_inputs_hash"] == experiment.inputs_hash(train_videos, experiment.train_labels)
        and record["test_inputs_hash"] == experiment.inputs_hash(test_videos, experiment.test_labels)
        and all((experiment.results / f"{name}.txt").is_file() for name in experiment.test_labels)
    )


if __name__ == "__main__":
    run_main(main)
