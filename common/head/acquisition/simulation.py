"""A trial of rules for what to label next, inside the training part of each fold: the test is looked at by nobody but the table.

Every rule begins with the same videos, and each round adds as many: those that it ranks first by the fold's own head and
features. Labels of the others are not looked at. What a rule is worth is how its heads do on the fold's test videos.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.base import paths
from common.base.locks import Held, hold
from common.base.runtime import UserError, select_device
from common.head.acquisition.plan import RANDOM_RULE, START, AcquisitionPlan, acquired_name, random_order
from common.head.acquisition.rules import NEED_HEAD, Candidate, mean_uncertainty, suggest
from common.head.batch_gen import VideoFeatures
from common.head.checkpoint import load_head, remove_training
from common.head.config import TrainConfig
from common.head.experiment import Experiment, load_experiment
from common.head.folds import fold_range
from common.head.prediction import phase_probabilities, predict
from common.head.run_record import is_finished, read_run_record
from common.head.training import train

log = logging.getLogger(__name__)


def run_acquisition(config: TrainConfig, plan: AcquisitionPlan, given: dict[str, Any]) -> bool:
    """Train and predict every rule, draw and round in every fold, but for what is finished; `given` are the command's flags.

    Returns whether all are there now: a fold that another process is at is left to it. Raises `UserError` where there are
    more trainings than allowed, or too few videos.
    """
    _, numbers = fold_range(config, given)
    plan.require_few(len(numbers))
    log.info(plan.in_words(len(numbers)))
    folds = [load_experiment(replace(config, split=str(number)), verify=not given["no_verify"]) for number in numbers]
    sizes = plan.sizes(
        min(len(fold.train_labels) for fold in folds)
    )  # the same in all folds, so that they can be averaged
    is_complete = True
    for fold in folds:
        pool = {video.name: video for video in fold.open(fold.train_labels)}
        for draw in range(1, plan.draws + 1):
            try:
                _Draw(fold, pool, draw, sizes, given).run(plan.rules)
            except Held as error:
                log.info("fold %s, draw %d: skipped: %s", fold.config.split, draw, error)
                is_complete = False
    return is_complete


class _Draw:
    """One first list in one fold, and the lists that rules grow from it."""

    def __init__(
        self, fold: Experiment, pool: dict[str, VideoFeatures], draw: int, sizes: Sequence[int], given: dict[str, Any]
    ):
        self.fold, self.pool, self.draw, self.sizes, self.given = fold, pool, draw, sizes, given
        self.order = random_order(pool, draw)
        self.vectors = {name: np.asarray(video.rows).mean(axis=0, dtype=float) for name, video in pool.items()}

    def run(self, rules: Sequence[str]) -> None:
        """Learn from every list; checkpoints go at the end, when no list depends on them any more."""
        start = self._learner(START, 1, self.order[: self.sizes[0]])
        ran_start = self._learn(start)
        learned = [start]
        for rule in rules:
            last, ran = start, ran_start
            for number in range(2, len(self.sizes) + 1):
                last = self._learner(rule, number, self._next_list(last, rule, number, ran))
                ran = self._learn(last)
                learned.append(last)
        for each in learned:
            remove_training(each.checkpoint)

    def _learner(self, rule: str, number: int, videos: Sequence[str]) -> Experiment:
        """The fold on some of its training videos, with the draw's own seed."""
        # the name says which draw it is, and the record which seed that was
        name = acquired_name(self.fold.config.run_name, rule, self.draw, number)
        seeded = replace(self.fold, config=replace(self.fold.config, seed=self.fold.config.seed + self.draw - 1))
        acquired = {"rule": rule, "draw": self.draw, "round": number, "videos": sorted(videos)}
        return seeded.with_acquired(acquired, name)

    def _learn(self, learner: Experiment) -> bool:
        """Train and predict what is not finished; returns whether anything had to be done."""
        with hold(learner.results):
            if not self.given["force"] and is_finished(learner):
                return False
            acquired = learner.acquired
            log.info(
                "fold %s, draw %d, %s, round %d: %d videos",
                learner.config.split, self.draw, acquired["rule"], acquired["round"], len(acquired["videos"]),
            )  # fmt: skip
            train(learner, device=self.given["device"], resume=not self.given["force"])
            predict(learner, device=self.given["device"])
        return True

    def _next_list(self, last: Experiment, rule: str, number: int, ran: bool) -> list[str]:
        """The videos of a round: those of the last one, and as many more as a rule ranks first.

        The list that is on record is taken where the round before it stands as it was.
        """
        known, size = last.acquired["videos"], self.sizes[number - 1]
        name = acquired_name(self.fold.config.run_name, rule, self.draw, number)
        record = last.model.split_results(last.dataset.name, last.config.split, name) / paths.RUN_RECORD
        if not ran and not self.given["force"] and record.is_file():
            found = (read_run_record(record).get("acquired") or {}).get("videos", [])
            if set(known) < set(found) <= self.pool.keys() and len(found) == size:
                return found
        if rule == RANDOM_RULE:
            return self.order[:size]
        candidates = self._candidates(last, rule)
        labelled = {video: self.vectors[video] for video in known}
        ranked = suggest(rule, candidates, labelled, size - len(known))
        return [*known, *(each.video for each in ranked[: size - len(known)])]

    def _candidates(self, last: Experiment, rule: str) -> dict[str, Candidate]:
        """The training videos that have not been learned from, and what the last round's head says of them."""
        waiting = [name for name in self.pool if name not in last.acquired["videos"]]
        doubts: dict[str, float] = {}
        if rule in NEED_HEAD:
            if not last.checkpoint.is_file():  # removed since
                train(last, device=self.given["device"])
            head = load_head(last.checkpoint, last.config, last.mapping.num_classes)
            head = head.to(select_device(self.given["device"]))
            doubts = {name: mean_uncertainty(phase_probabilities(head, self.pool[name])) for name in waiting}
        return {name: Candidate(self.vectors[name], 0.0, doubts.get(name)) for name in waiting}


def refuse_beside_acquire(config: TrainConfig, given: dict[str, Any]) -> None:
    """Raise `UserError` for settings that a trial of rules has no use for, or that would look at videos not yet labelled."""
    wrong = {
        "--train_fraction": config.train_fraction != 1,
        "--choose": config.choose != "none",
        "--temperature": given["temperature"],
        "--decode": given["decode"] != "argmax",
    }
    if refused := [flag for flag, is_given in wrong.items() if is_given]:
        raise UserError(f"--acquire chooses the training videos itself; leave {' and '.join(refused)} out")
