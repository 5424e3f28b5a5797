"""Trials of rules that choose what to label next (`run_k_folds --acquire`): their curves, and whether a rule beats chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.base import paths
from common.base.runtime import UserError, counted, listed
from common.head.acquisition.plan import RANDOM_RULE, START
from common.head.config import is_acquired
from common.reports.leaderboard import ALPHA, HEADLINE
from common.reports.results import (
    Collection,
    EncoderResult,
    Present,
    Unscored,
    check_split,
    finished_splits,
    run_names,
    score_runs,
    splits_of,
)
from common.scoring.effort import saving
from common.scoring.intervals import Interval, crossed_interval, resampled_units
from common.scoring.protocols import Protocol
from common.scoring.significance import holm, paired_permutation_test, smallest_p


@dataclass(frozen=True)
class Gain:
    """By how much a rule is better than random choice in accuracy, the mean of all rounds but the first, a fraction of 1."""

    difference: Interval
    """Over folds and draws."""
    p_holm: float
    """Paired permutation test over test videos, corrected over the rules."""

    @property
    def beats_random(self) -> bool:
        """Beyond chance both over folds and draws and over videos."""
        return self.difference.low > 0 and self.p_holm < ALPHA


@dataclass(frozen=True)
class AcquisitionTrial:
    """One encoder's trial; each of the curves has an interval for each of `num_videos`, over folds and draws."""

    name: str
    num_folds: int
    num_draws: int
    num_videos: list[int]
    accuracy: dict[str, list[Interval]]
    saved: dict[str, list[Interval]]
    """The share of the labelling time saved; NaN where the rate of the labels is unknown."""
    gains: dict[str, Gain]
    """Of each rule but random; empty where random was not tried."""
    can_separate: bool
    """Whether so few test videos could have told a rule from random."""

    @property
    def sentence(self) -> str:
        """What came of it, in words."""
        scheme = f"{counted(self.num_folds, 'fold')}, {counted(self.num_draws, 'draw')}"
        if not self.gains:
            return f"What to label next with {self.name} ({scheme}): random choice was not tried, so no rule is held against it."
        ahead = [rule for rule, gain in self.gains.items() if gain.beats_random]
        verdict = (
            f"{listed(ahead)} {'beats' if len(ahead) == 1 else 'beat'} random choice"
            if ahead
            else "no rule beats random choice"
        )
        found = "; ".join(
            f"{rule} {100 * gain.difference.estimate:+.1f} points of accuracy (95 % interval {100 * gain.difference.low:.1f} to "
            f"{100 * gain.difference.high:.1f}, p {gain.p_holm:.2g})"
            for rule, gain in self.gains.items()
        )
        short = "" if self.can_separate else "; so few test videos could not have told them apart"
        return f"What to label next with {self.name}: {verdict} ({scheme}): {found}{short}."


def with_acquired(
    found: Collection, dataset: paths.Dataset, names: Sequence[str], splits: str | None = None
) -> Collection:
    """The same with the runs of trials of its encoders, of those that have all of the splits called `names`."""
    present = Present(dataset, splits)
    wanted = present.lists.name if splits else None

    def check(model: paths.Model, run: str | None) -> list[Unscored]:
        folders = finished_splits(model, dataset, run, names)
        if missing := [name for name in names if name not in folders]:
            raise UserError(f"{model.results(dataset.name, run)}: fold {', '.join(missing)} of a trial is not finished")
        return [check_split(folder, name, present) for name, folder in folders.items()]

    models = {result.model.name: result.model for result in found.results if not result.is_foreign}
    pairs = [
        (model, run)
        for model in models.values()
        for run in run_names(model, dataset)
        if is_acquired(run) and splits_of(model, dataset, run) == wanted
    ]
    acquired, left_out = score_runs(pairs, present, check)
    note = [f"{counted(len(left_out), 'run')} of trials (--acquire): {left_out[0]}"] if left_out else []
    return replace(found, acquired=acquired, left_out=[*found.left_out, *note])


def acquisition_trials(
    acquired: Iterable[EncoderResult], protocol: Protocol, patients: Mapping[str, str] | None = None
) -> list[AcquisitionTrial]:
    """The trials that runs belong to, by encoder; draws that lack a round of some rule are left out."""
    of_trials: dict[str, dict[tuple[str, int, int], EncoderResult]] = {}
    for result in acquired:
        told = result.record["acquired"]
        base = "-".join((result.run or "").split("-")[:-1]) or None
        name = replace(result, run=base).name
        of_trials.setdefault(name, {})[told["rule"], told["draw"], told["round"]] = result
    trials = (_trial(name, runs, protocol, patients) for name, runs in sorted(of_trials.items()))
    return [trial for trial in trials if trial]


def _trial(
    name: str,
    runs: Mapping[tuple[str, int, int], EncoderResult],
    protocol: Protocol,
    patients: Mapping[str, str] | None,
) -> AcquisitionTrial | None:
    rules = list(dict.fromkeys(rule for rule, *_ in runs if rule != START))
    rules.sort(key=lambda rule: (rule != RANDOM_RULE, rule))
    rounds = range(2, 1 + max(number for *_, number in runs))
    draws = [
        draw
        for draw in sorted({draw for _, draw, _ in runs})
        if (START, draw, 1) in runs and all((rule, draw, number) in runs for rule in rules for number in rounds)
    ]
    if not draws or not rules:
        return None
    grown = {
        rule: [[runs[START, draw, 1] for draw in draws], *([runs[rule, draw, n] for draw in draws] for n in rounds)]
        for rule in rules
    }
    first = grown[rules[0]]
    values = {
        rule: np.array([[result.values(HEADLINE, protocol) for result in of_round] for of_round in lists])
        for rule, lists in grown.items()  # (rounds, draws, folds)
    }
    gains = _gains(grown, values, protocol, patients) if RANDOM_RULE in rules else {}
    units = len(set(resampled_units(list(first[0][0].scores), patients) or first[0][0].scores))
    return AcquisitionTrial(
        name,
        len(first[0][0].splits),
        len(draws),
        [len(of_round[0].record["acquired"]["videos"]) for of_round in first],
        {rule: [crossed_interval(of_round.T) for of_round in found] for rule, found in values.items()},
        {rule: [crossed_interval(_saved(of_round).T) for of_round in lists] for rule, lists in grown.items()},
        gains,
        len(gains) * smallest_p(units) < ALPHA,
    )


def _saved(of_round: Sequence[EncoderResult]) -> np.ndarray:
    """The share of the labelling time saved `(draws, folds)`; NaN where the rate of the labels is unknown."""

    def of_split(result: EncoderResult, place: int) -> float:
        efforts = result.split_efforts(result.splits[place])
        return np.nan if None in efforts else saving(efforts, result.effort_rule).share

    return np.array([[of_split(result, place) for place in range(len(result.splits))] for result in of_round])


def _gains(
    grown: Mapping[str, list[list[EncoderResult]]],
    values: Mapping[str, np.ndarray],
    protocol: Protocol,
    patients: Mapping[str, str] | None,
) -> dict[str, Gain]:
    """Every rule but random against random: the mean over all rounds but the first, in which lists are the same."""
    means = {rule: _of_videos(lists[1:], protocol) for rule, lists in grown.items()}
    differences, p_values = {}, []
    for rule in (rule for rule in grown if rule != RANDOM_RULE):
        differences[rule] = crossed_interval((values[rule] - values[RANDOM_RULE])[1:].mean(axis=0).T)
        videos = sorted(name for name in means[rule] if np.isfinite(means[rule][name] + means[RANDOM_RULE][name]))
        sides = ([means[each][name] for name in videos] for each in (rule, RANDOM_RULE))
        p_values.append(paired_permutation_test(*sides, groups=resampled_units(videos, patients)))
    return {
        rule: Gain(difference, float(p_value))
        for (rule, difference), p_value in zip(differences.items(), holm(p_values), strict=True)
    }


def _of_videos(rounds: Sequence[Sequence[EncoderResult]], protocol: Protocol) -> dict[str, float]:
    """Accuracy of each test video, the mean over rounds and draws."""
    found: dict[str, list[float]] = {}
    for result in (result for of_round in rounds for result in of_round):
        for video, row in result.video_values(protocol).items():
            found.setdefault(video, []).append(row[HEADLINE])
    return {video: float(np.mean(row)) for video, row in found.items()}
