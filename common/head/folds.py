"""Every fold of one encoder: trained, predicted, scored; finished folds are not run again."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from common.base import paths
from common.base.children import num_cores, side_by_side
from common.base.failures import noting_failure
from common.base.gpu_sharing import shared_gpu
from common.base.locks import Held, hold
from common.base.runtime import UserError, progress, select_device
from common.dataset.kfold import how_to_remake
from common.dataset.split_lists import open_splits
from common.head.config import TrainConfig
from common.head.controls.choice import choose
from common.head.controls.floors import run_floors
from common.head.controls.temperature import add_temperature
from common.head.experiment import Experiment, load_experiment
from common.head.prediction import predict
from common.head.run_record import as_chosen, is_finished, read_run_record
from common.head.training import train

log = logging.getLogger(__name__)


def run_folds(configs: list[TrainConfig], given: dict[str, Any]) -> bool:
    """Train and predict the folds of each run that are not finished; `given` are the command's own flags.

    `parallel` of them run at the same time, each in a process of its own that has its share of the cores.

    Returns whether all are there now: a fold that another process is at is left to it.

    Raises `UserError` when the data set is divided into another number of folds.
    """
    asked, numbers = fold_range(configs[0], given)
    folds = [(config, number, asked) for config in configs for number in numbers]
    if given["parallel"] < 1:
        raise UserError(f"--parallel {given['parallel']}: expected a number of folds from 1")
    num_processes = min(given["parallel"], len(folds))
    # processes take seconds to start, which what is finished is not worth
    there = [fold for fold in folds if num_processes > 1 and _is_there(given, fold)]
    finished = [_fold_of_run(given, fold, is_there=True) for fold in there]
    to_run = [fold for fold in folds if fold not in there]
    num_processes = min(num_processes, len(to_run))
    work = side_by_side(_fold_beside_others, to_run, given | {"parallel": num_processes}, num_processes=num_processes)
    with work as results, contextlib.ExitStack() as stack:
        if num_processes > 1:
            # whose own bars are silent
            results = progress(results, total=len(to_run), description=f"{num_processes} at a time", unit="folds")
            if select_device(given["device"]).type == "cuda":
                stack.enter_context(shared_gpu())
        finished += [result() for result in results]  # all of them: an unfinished one stops no other
    return all(finished)


def _fold_beside_others(given: dict[str, Any], fold: tuple[TrainConfig, int, int]) -> bool:
    """`_fold_of_run` in a process of its own, with its share of the cores."""
    if given["parallel"] > 1:  # else each process had as many threads as there are cores
        torch.set_num_threads(max(1, num_cores() // given["parallel"]))
        if given["brief"]:
            logging.getLogger().setLevel(logging.WARNING)
    return _fold_of_run(given, fold)


def _experiment_of(given: dict[str, Any], fold: tuple[TrainConfig, int, int]) -> Experiment:
    config, number, _ = fold
    return load_experiment(replace(config, split=str(number)), verify=not given["no_verify"])


def _is_there(given: dict[str, Any], fold: tuple[TrainConfig, int, int]) -> bool:
    """Whether a fold is finished, and nothing is asked for beside it that takes as long as training."""
    if given["force"] or given["temperature"]:
        return False
    try:
        return is_finished(_experiment_of(given, fold))
    except UserError:  # which the fold itself will tell
        return False


def _fold_of_run(given: dict[str, Any], fold: tuple[TrainConfig, int, int], *, is_there: bool = False) -> bool:
    """Everything of one fold (a configuration, its number, of how many); whether it is there now.

    `is_there`: it was found finished a moment ago, and is not looked at again.
    """
    config, number, asked = fold
    experiment = _experiment_of(given, fold)
    name = " ".join(part for part in (experiment.model.name, config.run_name) if part)
    title = f"{name} fold {number} of {asked}"
    try:
        with hold(experiment.results):
            ran = _run_fold(experiment, title, given, is_there=is_there)
            if given["temperature"]:
                add_temperature(ran, device=given["device"])
        record = read_run_record(ran.results / paths.RUN_RECORD)
        if not given["no_floors"]:  # what was chosen for a run may be other features than those under its floors
            run_floors(experiment, title, force=given["force"], beside=None if record.get("choice") else record)
        if given["decode"] != "argmax":
            decoded = replace(ran, decode=given["decode"])
            with hold(decoded.results):
                if given["force"] or not is_finished(decoded, beside=record):
                    predict(decoded, device=given["device"])
                else:
                    log.info("%s, %s: finished, not decoded again", title, given["decode"])
    except Held as error:
        log.warning("%s: skipped: %s", title, error)
        return False
    return True


def fold_range(config: TrainConfig, given: dict[str, Any]) -> tuple[int, Sequence[int]]:
    """How many folds a data set has, and which of them were asked for.

    Raises `UserError` when it is divided into another number of folds.
    """
    dataset = paths.dataset(config.dataset)
    splits = open_splits(dataset, config.splits)
    found, asked = len(splits), splits.count(given["folds"])
    if found != asked:
        other = ""
        if splits.name is None and 2 <= asked <= sum(map(len, splits.tests)):
            other = f", or {how_to_remake(dataset, asked)}"
        raise UserError(
            f"--folds {asked}: {dataset.split_list(splits.name)} has {found} {splits.noun}; use --folds {found}{other}"
        )
    return asked, [given["only"]] if given["only"] is not None else range(1, asked + 1)


def _run_fold(experiment: Experiment, title: str, given: dict[str, Any], *, is_there: bool) -> Experiment:
    """Run a fold that is not finished; returns it with what was chosen for it."""
    path = experiment.results / paths.RUN_RECORD
    if is_there or (not given["force"] and is_finished(experiment)):
        log.info("%s: finished, not run again", title)
        return as_chosen(experiment, read_run_record(path))
    chosen = experiment
    with noting_failure(experiment.results):
        if experiment.config.choose != "none":
            chosen = experiment.with_choice(choose(experiment, title, device=given["device"]))
        # after an interruption the fold resumes in the middle; forced, it starts over
        train(chosen, device=given["device"], resume=not given["force"], wandb=given["wandb"])
        predict(chosen, device=given["device"])
    return chosen
