"""A trial of rules that choose what to label next: its options, how many videos each round has, how many trainings it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.base.options import check_ranges, option
from common.base.runtime import UserError, shown
from common.head.acquisition.rules import RULES
from common.head.config import ACQUIRED_MARK

RANDOM_RULE = "random"
START = "start"  # what the first list of a draw is called, which all rules share
SIMULATED = (RANDOM_RULE, *(rule for rule in RULES if rule != "disagreement"))  # a fold has one head a round
LEAST_DRAWS = 5  # of the random rule: what a single draw of a few videos gives says little
FIRST_SHARE, LAST_SHARE = 0.1, 0.5  # of the training videos of a fold, in the first and the last round


@dataclass(frozen=True)
class AcquisitionPlan:
    """The flags of `run_k_folds --acquire`."""

    acquire: str | None = option(None, group="data")
    """Instead of all training videos: lists that grow by rules, of random, uncertainty, coverage, clusters with commas."""
    rounds: int = option(5, group="data", minimum=2, maximum=1000)
    """With --acquire: trainings of each rule, on more videos each time."""
    draws: int = option(5, group="data", minimum=1, maximum=1000)
    """With --acquire: first lists, drawn at random, from which every rule begins, each with a seed of its own."""
    first_videos: int | None = option(None, group="data", minimum=1)
    """With --acquire: videos of a first list (default: a tenth of the training videos, at least 2)."""
    videos_a_round: int | None = option(None, group="data", minimum=1)
    """With --acquire: videos that each further round adds (default: so that the last one has half of the training videos)."""
    max_trainings: int = option(500, group="data", minimum=1)
    """With --acquire: refuse to begin where there would be more."""

    def __post_init__(self) -> None:
        check_ranges(self)
        names = [] if self.acquire is None else self.acquire.split(",")
        for name in names:
            if name not in SIMULATED or names.count(name) > 1:
                raise UserError(
                    f"--acquire {shown(self.acquire)}: expected some of {', '.join(SIMULATED)} with commas between them, each "
                    f"once, found {shown(name)}"
                )
        if RANDOM_RULE in names and self.draws < LEAST_DRAWS:
            raise UserError(
                f"--draws {self.draws}: expected at least {LEAST_DRAWS} with --acquire {RANDOM_RULE}, since one draw of a few "
                f"videos says little; leave it out, or leave {RANDOM_RULE} out"
            )

    @property
    def rules(self) -> list[str]:
        """Names of the rules, in the order in which they were asked for."""
        return self.acquire.split(",") if self.acquire else []

    def sizes(self, num_videos: int) -> list[int]:
        """How many videos are learned from in each round, of a fold with so many.

        Raises `UserError` where there are too few.
        """
        first = self.first_videos or max(2, round(FIRST_SHARE * num_videos))
        step = self.videos_a_round or max(1, (round(LAST_SHARE * num_videos) - first) // (self.rounds - 1))
        sizes = [first + step * number for number in range(self.rounds)]
        if sizes[-1] > num_videos:
            raise UserError(
                f"--acquire: {self.rounds} rounds from {first} videos on, {step} more each time, need {sizes[-1]} training "
                f"videos, found {num_videos} in a fold; give fewer --rounds, --first_videos or --videos_a_round"
            )
        return sizes

    def num_trainings(self, num_folds: int) -> int:
        """Trainings of the whole trial: the first list of each draw is learned once for all rules."""
        return num_folds * self.draws * (1 + len(self.rules) * (self.rounds - 1))

    def in_words(self, num_folds: int) -> str:
        """How many trainings there are, and why."""
        return (
            f"{self.num_trainings(num_folds)} trainings: {num_folds} folds x {self.draws} draws x "
            f"(1 first list + {len(self.rules)} rules x {self.rounds - 1} further rounds)"
        )

    def require_few(self, num_folds: int) -> None:
        """Raise `UserError` where there would be more than `max_trainings`."""
        if self.num_trainings(num_folds) > self.max_trainings:
            raise UserError(
                f"--max_trainings {self.max_trainings}: {self.in_words(num_folds)}; give fewer rules, --rounds or --draws, or a "
                "higher --max_trainings"
            )


def random_order(videos: Iterable[str], draw: int) -> list[str]:
    """Videos in an order that depends on their names and the number of the draw alone; its beginnings are nested."""
    names = sorted(videos)
    return [names[place] for place in np.random.default_rng(draw).permutation(len(names))]


def acquired_name(base: str | None, rule: str, draw: int, number: int) -> str:
    """The name of the run of a rule, a draw and a round (both from 1) beside the run called `base`."""
    return "-".join(filter(None, [base, f"{ACQUIRED_MARK}{rule}+draw{draw}+round{number}"]))


def acquired_names(base: str | None, rules: Sequence[str], draws: int, rounds: int) -> Iterator[str]:
    """The names of all runs of a trial."""
    for draw in range(1, draws + 1):
        yield acquired_name(base, START, draw, 1)
        yield from (acquired_name(base, rule, draw, number) for rule in rules for number in range(2, rounds + 1))
