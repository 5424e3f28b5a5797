"""Trials of rules for what to label next: nested lists inside the training part, counted beforehand, resumed."""

import json

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.head.acquisition import simulation
from common.head.acquisition.plan import AcquisitionPlan, acquired_name, acquired_names, random_order
from common.head.config import is_acquired
from common.head.experiment import load_experiment
from common.run_k_folds import main
from tests.common.conftest import FOLD_WORDS

HEAD = ["--num_layers_PG", "2", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "4", "--num_epochs", "1"]
TRIAL = ["--acquire", "coverage,uncertainty", "--rounds", "2", "--draws", "2", "--first_videos", "1"]


def record(made, rule: str, draw: int, number: int, fold: int = 1) -> dict:
    folder = load_experiment(made.config()).model.split_results("made", fold, acquired_name(None, rule, draw, number))
    return json.loads((folder / paths.RUN_RECORD).read_text())


# --- before anything is trained -----------------------------------------------------------------------------------


def test_the_number_of_trainings_counts_a_shared_first_list_once():
    plan = AcquisitionPlan(acquire="random,coverage,uncertainty")
    assert plan.num_trainings(5) == 5 * 5 * (1 + 3 * 4) == len(list(acquired_names(None, plan.rules, 5, 5))) * 5
    assert plan.in_words(5).startswith("325 trainings")
    with pytest.raises(UserError, match=r"--max_trainings 10: 325 trainings: .* fewer rules"):
        AcquisitionPlan(acquire=plan.acquire, max_trainings=10).require_few(5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"acquire": "coverage,best"}, "expected some of random, uncertainty, coverage, clusters"),
        ({"acquire": "coverage,coverage"}, "each once"),
        ({"acquire": ""}, "found ''"),
        ({"acquire": "random", "draws": 4}, "at least 5 with --acquire random"),
        ({"acquire": "coverage", "rounds": 1}, "rounds"),
    ],
)
def test_plans_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        AcquisitionPlan(**wrong)


def test_sizes_end_at_half_of_the_training_videos_unless_told_otherwise():
    assert AcquisitionPlan().sizes(124) == [12, 24, 36, 48, 60]
    assert AcquisitionPlan().sizes(16) == [2, 3, 4, 5, 6]
    assert AcquisitionPlan(rounds=3, first_videos=4, videos_a_round=5).sizes(14) == [4, 9, 14]
    with pytest.raises(UserError, match="need 14 training videos, found 13 in a fold"):
        AcquisitionPlan(rounds=3, first_videos=4, videos_a_round=5).sizes(13)


def test_a_random_order_depends_on_names_and_draw_alone():
    names = [f"v{number}" for number in range(20)]
    assert random_order(names, 1) == random_order(reversed(names), 1) != random_order(names, 2)
    assert sorted(random_order(names, 3)) == sorted(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "3"], "--rounds would have no effect without --acquire"),
        ([*TRIAL, "--train_fraction", "0.5"], "leave --train_fraction out"),
        ([*TRIAL, "--seed", "42,43"], "--acquire with 2 runs"),
        ([*TRIAL, "--decode", "viterbi"], "leave --decode out"),
        ([*TRIAL, "--max_trainings", "11"], r"--max_trainings 11: 12 trainings"),
        ([*TRIAL, "--first_videos", "3"], "need 4 training videos, found 3"),
    ],
)
def test_nothing_is_trained_where_a_trial_cannot_be(made, monkeypatch, words, message):
    monkeypatch.setattr(simulation, "train", lambda *given, **more: pytest.fail("trained"))
    with pytest.raises(UserError, match=message):
        main([*FOLD_WORDS, *HEAD, *words])


# --- a trial ------------------------------------------------------------------------------------------------------


def test_lists_are_nested_and_stay_in_the_training_part_of_their_fold(made):
    assert main([*FOLD_WORDS, *HEAD, *TRIAL]) == 0
    for fold in (1, 2):
        training = set(load_experiment(made.config(split=str(fold))).train_labels)
        for draw in (1, 2):
            first = record(made, "start", draw, 1, fold)
            assert first["acquired"]["videos"] == random_order(training, draw)[:1]
            for rule in ("coverage", "uncertainty"):
                second = record(made, rule, draw, 2, fold)
                assert set(first["acquired"]["videos"]) < set(second["acquired"]["videos"]) <= training
                assert second["num_train_videos"] == 2
                assert second["seed"] == first["seed"] == 42 + draw - 1
    # not among the rows of a table, and nothing is left that the next trial could trip over
    model = load_experiment(made.config()).model
    assert all(is_acquired(path.parents[1].name) for path in model.results("made").glob("*/split_*/run.json"))
    assert not list(model.trained_heads())


def test_coverage_takes_the_video_that_is_least_like_the_first(made):
    """The features of one training video are moved away from all others."""
    training = sorted(load_experiment(made.config()).train_labels)
    first = random_order(training, 1)[0]
    far = next(name for name in reversed(random_order(training, 1)))
    labels = (made.dataset.ground_truth / f"{far}.txt").read_text().splitlines()
    made.write_features(far, np.full((len(labels), 48), 50.0))
    words = ["--acquire", "coverage", "--rounds", "2", "--draws", "1", "--first_videos", "1", "--only", "1"]
    main([*FOLD_WORDS, *HEAD, *words])
    assert record(made, "coverage", 1, 2)["acquired"]["videos"] == sorted([first, far])


def test_uncertainty_asks_the_head_of_the_round_before_and_of_its_own_fold(made, monkeypatch):
    asked = []
    doubt = {name: number / 10 for number, name in enumerate(sorted(load_experiment(made.config()).train_labels), 1)}

    def answer(head, video):
        asked.append(video.name)
        return np.full((4, 4), [doubt[video.name], 1 - doubt[video.name], 0, 0])

    monkeypatch.setattr(simulation, "phase_probabilities", answer)
    words = ["--acquire", "uncertainty", "--rounds", "2", "--draws", "1", "--first_videos", "1", "--only", "1"]
    main([*FOLD_WORDS, *HEAD, *words])
    (first,) = record(made, "start", 1, 1)["acquired"]["videos"]
    assert set(asked) == doubt.keys() - {first}  # never a test video, nor one that is learned from
    chosen = set(record(made, "uncertainty", 1, 2)["acquired"]["videos"]) - {first}
    assert chosen == {max(asked, key=doubt.get)}


def test_a_finished_trial_is_not_run_again_and_an_interrupted_one_goes_on(made, monkeypatch):
    words = ["--acquire", "coverage", "--rounds", "3", "--draws", "1", "--first_videos", "1", "--only", "1"]
    main([*FOLD_WORDS, *HEAD, *words])
    lists = [record(made, "coverage", 1, number)["acquired"]["videos"] for number in (2, 3)]
    trained, train = [], simulation.train
    monkeypatch.setattr(
        simulation, "train", lambda learner, **more: (trained.append(learner.acquired["round"]), train(learner, **more))
    )
    main([*FOLD_WORDS, *HEAD, *words])
    assert trained == []
    folder = load_experiment(made.config()).model.split_results("made", 1, acquired_name(None, "coverage", 1, 3))
    (folder / paths.RUN_RECORD).unlink()
    main([*FOLD_WORDS, *HEAD, *words])
    assert trained == [3]
    assert [record(made, "coverage", 1, number)["acquired"]["videos"] for number in (2, 3)] == lists


def test_a_run_on_chosen_videos_is_reproduced_on_the_same(made, capsys):
    words = ["--acquire", "coverage", "--rounds", "2", "--draws", "1", "--first_videos", "1", "--only", "1"]
    main([*FOLD_WORDS, *HEAD, *words])
    folder = load_experiment(made.config()).model.split_results("made", 1, acquired_name(None, "coverage", 1, 2))
    assert main(["--reproduce", str(folder / paths.RUN_RECORD), "--device", "cpu"]) == 0
