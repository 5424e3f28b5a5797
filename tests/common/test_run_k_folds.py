"""Folds of one encoder: run once, kept apart, told apart."""

import json

import pytest

from common import kfold_summary
from common.experiment import load_experiment
from common.predict import RUN_RECORD
from common.run_k_folds import main
from common.runtime import UserError

WORDS = ["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu"]
HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]


def records(made):
    return [load_experiment(made.config(split=str(k))).results / RUN_RECORD for k in (1, 2)]


def test_all_folds_are_run_and_summarised(made, capsys):
    assert main([*WORDS, *HEAD]) == 0
    printed = capsys.readouterr().out
    assert all(path.is_file() for path in records(made))
    assert "ColorHistogram" in printed
    assert "ddof 1" in printed
    kfold_summary.main(["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--verbose"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[2:5]] == ["1", "2", "mean"]


def test_finished_folds_are_not_run_again(made):
    main([*WORDS, *HEAD])
    before = [path.stat().st_mtime_ns for path in records(made)]
    main([*WORDS, *HEAD])
    assert before == [path.stat().st_mtime_ns for path in records(made)]


def test_an_unfinished_fold_is_run_again(made):
    main([*WORDS, *HEAD])
    records(made)[1].unlink()
    kept = records(made)[0].stat().st_mtime_ns
    main([*WORDS, *HEAD])
    assert records(made)[1].is_file()
    assert records(made)[0].stat().st_mtime_ns == kept


def test_only_runs_one_fold(made):
    main([*WORDS, *HEAD, "--only", "2"])
    assert [path.is_file() for path in records(made)] == [False, True]


def test_another_configuration_does_not_overwrite_results(made):
    main([*WORDS, *HEAD])
    with pytest.raises(UserError, match=r"run with another configuration \(lr: 0.0005 -> 0.01\).*--run NAME"):
        main([*WORDS, *HEAD, "--lr", "0.01"])
    main([*WORDS, *HEAD, "--lr", "0.01", "--run", "fast"])
    rates = [json.loads(path.read_text())["config"]["lr"] for path in records(made)]
    assert rates == [5e-4, 5e-4]


def test_force_replaces_another_configuration(made):
    main([*WORDS, *HEAD])
    main([*WORDS, *HEAD, "--lr", "0.01", "--force"])
    assert json.loads(records(made)[0].read_text())["config"]["lr"] == 0.01


def test_changed_labels_make_a_fold_run_again(made):
    main([*WORDS, *HEAD])
    path = made.dataset.ground_truth / "BL_1.txt"
    path.write_text(path.read_text().replace("wash", "suture"))
    before = [path.stat().st_mtime_ns for path in records(made)]
    main([*WORDS, *HEAD])
    assert all(new.stat().st_mtime_ns > old for new, old in zip(records(made), before, strict=True))


def test_another_number_of_folds_is_an_error_with_both(made):
    with pytest.raises(UserError, match=r"--folds 5: .* has 2 folds"):
        main([*WORDS[:4], "--folds", "5", *HEAD])
