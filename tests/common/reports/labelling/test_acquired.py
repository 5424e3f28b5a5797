"""Trials of what to label next, of made predictions: curves, intervals, and whether a rule beats random choice."""

from dataclasses import replace

import numpy as np
import pytest

from common.head.acquisition.plan import acquired_name
from common.reports.labelling.acquired import acquisition_trials
from common.reports.results import SplitResult
from common.scoring.protocols import CHALLENGE
from tests.common.reports.rows import row

DRAWS, FOLDS = 3, 2


def run(rule: str, draw: int, number: int, accuracy: float, *, jitter: float = 0.0):
    """Predictions of five videos a fold, this accurate; `jitter` differs by draw and fold."""
    splits = []
    for fold in range(1, FOLDS + 1):
        accuracies = [accuracy + jitter * (draw - 2 + fold - 1.5) - 0.01 * video for video in range(5)]
        videos = [f"fold{fold}_{video}" for video in range(5)]
        acquired = {"rule": rule, "draw": draw, "round": number, "videos": [f"v{n}" for n in range(2 * number)]}
        (split,) = row("A", accuracies, videos=videos, split=str(fold), acquired=acquired).splits
        splits.append(SplitResult(split.record, split.scores))
    result = row("A", [1.0])
    return replace(result, run=acquired_name(None, rule, draw, number), splits=splits)


def trial_of(**accuracy_of: tuple[float, float]):
    """A trial of two further rounds: rule -> its accuracies in them; all begin at 0.7."""
    runs = [run("start", draw, 1, 0.7) for draw in range(1, DRAWS + 1)]
    runs += [
        run(rule, draw, number, accuracies[number - 2], jitter=0.004)
        for rule, accuracies in accuracy_of.items()
        for draw in range(1, DRAWS + 1)
        for number in (2, 3)
    ]
    return runs


def test_curves_begin_at_the_same_list_and_are_means_over_folds_and_draws():
    (trial,) = acquisition_trials(trial_of(random=(0.75, 0.8), coverage=(0.85, 0.95)), CHALLENGE)
    assert (trial.name, trial.num_folds, trial.num_draws) == ("A", FOLDS, DRAWS)
    assert trial.num_videos == [2, 4, 6]
    assert [round(cell.estimate, 3) for cell in trial.accuracy["random"]] == [0.68, 0.73, 0.78]
    assert [round(cell.estimate, 3) for cell in trial.accuracy["coverage"]] == [0.68, 0.83, 0.93]
    assert all(cell.low <= cell.estimate <= cell.high for cells in trial.accuracy.values() for cell in cells)
    assert trial.accuracy["coverage"][2].low < trial.accuracy["coverage"][2].high
    assert all(np.isfinite(cell.estimate) for cell in trial.saved["coverage"])


def test_a_rule_that_is_always_better_beats_random_and_one_that_is_not_does_not():
    (trial,) = acquisition_trials(
        trial_of(random=(0.75, 0.8), coverage=(0.85, 0.95), uncertainty=(0.75, 0.8)), CHALLENGE
    )
    assert trial.gains["coverage"].difference.estimate == pytest.approx(0.125)
    assert trial.gains["coverage"].p_holm == pytest.approx(2 * 2 / 2**10)  # ten videos, two rules
    assert [rule for rule, gain in trial.gains.items() if gain.beats_random] == ["coverage"]
    assert "coverage beats random choice (2 folds, 3 draws): coverage +12.5 points" in trial.sentence


def test_where_no_rule_beats_random_the_report_says_so():
    (trial,) = acquisition_trials(trial_of(random=(0.85, 0.9), coverage=(0.75, 0.8)), CHALLENGE)
    assert "no rule beats random choice" in trial.sentence
    assert "-10.0 points" in trial.sentence


def test_without_random_nothing_is_held_against_it():
    (trial,) = acquisition_trials(trial_of(coverage=(0.75, 0.8)), CHALLENGE)
    assert trial.gains == {}
    assert "random choice was not tried" in trial.sentence


def test_a_draw_that_lacks_a_round_is_left_out():
    runs = trial_of(random=(0.75, 0.8), coverage=(0.85, 0.95))
    (trial,) = acquisition_trials(runs[:-1], CHALLENGE)
    assert trial.num_draws == DRAWS - 1
    assert acquisition_trials([runs[0]], CHALLENGE) == []
