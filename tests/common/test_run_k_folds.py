"""Folds of one encoder: run once, kept apart, told apart."""

import json
import logging

import pytest
import torch

from common import kfold_summary
from common.base import paths
from common.base.children import num_cores
from common.base.locks import hold
from common.base.runtime import UserError
from common.head.config import is_floor
from common.head.experiment import load_experiment
from common.run_k_folds import main
from tests.common.conftest import FOLD_WORDS
from tests.common.work import counting

HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]


def records(made, **changes):
    return [load_experiment(made.config(split=str(k), **changes)).results / paths.RUN_RECORD for k in (1, 2)]


def run_folders(made):
    """Run name -> number of finished folds; floors apart."""
    root = records(made)[0].parents[1]
    return {
        folder.name: len(list(folder.glob("split_*/run.json")))
        for folder in root.iterdir()
        if "split" not in folder.name and not is_floor(folder.name)
    }


def test_all_folds_are_run_and_summarised(made, capsys):
    assert main([*FOLD_WORDS, *HEAD]) == 0
    printed = capsys.readouterr().out
    assert all(path.is_file() for path in records(made))
    assert "ColorHistogram" in printed
    assert "ddof 1" in printed
    kfold_summary.main(["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--verbose"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[2:5]] == ["1", "2", "mean"]


def predictions(made):
    """The bytes of what the folds predicted."""
    folders = [record.parent for record in records(made)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {path: path.read_bytes() for path in files}


@pytest.mark.slow
def test_folds_at_the_same_time_are_those_one_after_another(made):
    """Each in a process of its own, which gets its share of the cores: here as many threads as this one."""
    threads = max(1, num_cores() // 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        main([*FOLD_WORDS, *HEAD])
        first = predictions(made)
        assert main([*FOLD_WORDS, *HEAD, "--force", "--parallel", "2"]) == 0
    finally:
        torch.set_num_threads(before)
    assert len(first) >= 12  # phases and probabilities of six videos
    assert predictions(made) == first


def test_no_process_is_started_for_folds_that_are_finished(made):
    main([*FOLD_WORDS, *HEAD])
    first = predictions(made)
    with counting() as work:
        assert main([*FOLD_WORDS, *HEAD, "--parallel", "2"]) == 0
    assert (work.processes_but_git, sum(work.built.values())) == ([], 0)
    assert predictions(made) == first


@pytest.mark.slow
def test_a_fold_alone_has_all_cores_whatever_parallel_says(made):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        main([*FOLD_WORDS, *HEAD, "--only", "1", "--parallel", "9"])
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_less_than_one_fold_at_a_time_is_an_error(made):
    with pytest.raises(UserError, match="--parallel 0: expected"):
        main([*FOLD_WORDS, "--parallel", "0"])


def test_brief_is_one_line_a_run(made, capsys, caplog):
    caplog.set_level(logging.INFO)
    main([*FOLD_WORDS, *HEAD, "--seed", "42,43", "--brief"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": Accuracy ")[0] for line in lines] == [
        "ColorHistogram, 2 folds",
        "ColorHistogram (seed43), 2 folds",
    ]
    assert [record.message for record in caplog.records if record.levelname == "INFO"] == []


def test_finished_folds_are_not_run_again(made):
    main([*FOLD_WORDS, *HEAD])
    before = [path.stat().st_mtime_ns for path in records(made)]
    main([*FOLD_WORDS, *HEAD])
    assert before == [path.stat().st_mtime_ns for path in records(made)]


def test_an_unfinished_fold_is_run_again(made):
    main([*FOLD_WORDS, *HEAD])
    records(made)[1].unlink()
    kept = records(made)[0].stat().st_mtime_ns
    main([*FOLD_WORDS, *HEAD])
    assert records(made)[1].is_file()
    assert records(made)[0].stat().st_mtime_ns == kept


def test_a_fold_that_another_process_is_at_is_an_error_of_all_but_of_a_task(made, caplog, capsys):
    with hold(paths.model("ColorHistogram").split_results("made", "1", None)):
        assert main([*FOLD_WORDS, *HEAD]) == 1
        assert "fold 1 of 2: skipped: " in caplog.text
        assert "not all folds are there yet" in caplog.text
        assert "±" not in capsys.readouterr().out
        assert main([*FOLD_WORDS, *HEAD, "--only", "1"]) == 0
    assert main([*FOLD_WORDS, *HEAD]) == 0


def test_only_runs_one_fold(made):
    main([*FOLD_WORDS, *HEAD, "--only", "2"])
    assert [path.is_file() for path in records(made)] == [False, True]


def test_another_configuration_does_not_overwrite_results(made):
    main([*FOLD_WORDS, *HEAD])
    with pytest.raises(UserError, match=r"run with another configuration \(lr: 0.0005 -> 0.01\).*--run NAME"):
        main([*FOLD_WORDS, *HEAD, "--lr", "0.01"])
    main([*FOLD_WORDS, *HEAD, "--lr", "0.01", "--run", "fast"])
    rates = [json.loads(path.read_text())["config"]["lr"] for path in records(made)]
    assert rates == [5e-4, 5e-4]


def test_force_replaces_another_configuration(made):
    main([*FOLD_WORDS, *HEAD])
    main([*FOLD_WORDS, *HEAD, "--lr", "0.01", "--force"])
    assert json.loads(records(made)[0].read_text())["config"]["lr"] == 0.01


def test_changed_labels_make_a_fold_run_again(made):
    main([*FOLD_WORDS, *HEAD])
    path = made.dataset.ground_truth / "BL_1.txt"
    path.write_text(path.read_text().replace("wash", "suture"))
    before = [path.stat().st_mtime_ns for path in records(made)]
    main([*FOLD_WORDS, *HEAD])
    assert all(new.stat().st_mtime_ns > old for new, old in zip(records(made), before, strict=True))


def test_another_number_of_folds_is_an_error_with_both(made):
    with pytest.raises(UserError, match=r"--folds 5: .* has 2 folds"):
        main([*FOLD_WORDS[:4], "--folds", "5", *HEAD])


# --- several fractions and seeds ----------------------------------------------------------------------------------


def test_every_pair_of_fraction_and_seed_is_a_run_with_a_row(made, capsys):
    main([*FOLD_WORDS, *HEAD, "--train_fraction", "0.34,1", "--seed", "42,43"])
    assert run_folders(made) == {"fraction0.34": 2, "fraction0.34-seed43": 2, "seed43": 2}
    assert all(path.is_file() for path in records(made))
    rows = capsys.readouterr().out.splitlines()[2:6]
    assert [row.split("  ")[0] for row in rows] == [
        "ColorHistogram (fraction0.34)",
        "ColorHistogram (fraction0.34-seed43)",
        "ColorHistogram",
        "ColorHistogram (seed43)",
    ]
    record = json.loads(records(made, train_fraction=0.34, seed=43)[1].read_text())
    assert (record["config"]["train_fraction"], record["seed"], record["num_train_videos"]) == (0.34, 43, 1)


def test_finished_runs_of_a_series_are_not_run_again(made):
    main([*FOLD_WORDS, *HEAD, "--seed", "43"])
    before = [path.stat().st_mtime_ns for path in records(made, seed=43)]
    main([*FOLD_WORDS, *HEAD, "--seed", "42,43"])
    assert [path.stat().st_mtime_ns for path in records(made, seed=43)] == before
    assert all(path.is_file() for path in records(made))


def test_a_named_series_keeps_its_runs_apart(made):
    main([*FOLD_WORDS, *HEAD, "--train_fraction", "0.34,1.0", "--run", "curve", "--only", "1"])
    assert run_folders(made) == {"curve": 1, "curve-fraction0.34": 1}


def test_a_single_value_leaves_the_name_as_it_is(made):
    main([*FOLD_WORDS, *HEAD, "--seed", "43", "--run", "mine", "--only", "1"])
    assert run_folders(made) == {"mine": 1}


def test_values_of_a_configuration_file_give_way_to_a_list(made, tmp_path):
    path = tmp_path / "head.yaml"
    path.write_text("seed: 7\ntrain_fraction: 0.67\n")
    main([*FOLD_WORDS, *HEAD, "--config", str(path), "--seed", "42,43", "--only", "1"])
    assert run_folders(made) == {"fraction0.67": 1, "fraction0.67-seed43": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "42,x"], r"--seed 42,x: expected one number, or several .* such as 42,43,44"),
        (["--seed", "42,"], r"--seed 42,: expected one number"),
        (["--seed", "1.5"], r"--seed 1\.5: expected one number"),
        (["--train_fraction", "0.1;0.5"], r"--train_fraction 0\.1;0\.5: expected .* such as 0\.1,0\.25,1"),
        (["--train_fraction", "0.5,2"], "train_fraction must be greater than 0 and at most 1, found 2.0"),
        (["--train_fraction", "0.5,0.50"], r"ask twice for fraction0\.5"),
        (["--seed", "42,7,42"], "ask twice for the default run"),
        (["--seed", "7,8,7", "--run", "mine"], "ask twice for mine-seed7"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_runs(made, words, message):
    with pytest.raises(UserError, match=message):
        main([*FOLD_WORDS, *HEAD, *words])
    assert not records(made)[0].parents[1].exists()


def test_a_run_recorded_before_a_setting_existed_counts_as_finished(made):
    main([*FOLD_WORDS, *HEAD])
    for path in records(made):
        record = json.loads(path.read_text())
        del record["config"]["train_fraction"]
        path.write_text(json.dumps(record))
    before = [path.stat().st_mtime_ns for path in records(made)]
    main([*FOLD_WORDS, *HEAD])
    assert [path.stat().st_mtime_ns for path in records(made)] == before


def test_help_lists_both_settings_with_their_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "(default: 1.0); several with commas, a run for each" in text
    assert "(default: 42); several with commas, a run for each" in text


# --- repetition: the words; what it does is in test_reproduce.py ----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--lr", "0.1", "--seed", "7"], "--lr, --seed"),
        (["--force"], "--force"),
        (["--only", "1"], "--only"),
        (["--decode", "viterbi"], "--decode"),
    ],
)
def test_settings_beside_a_record_are_refused_rather_than_left_out(made, words, named):
    with pytest.raises(UserError, match=f"takes the configuration from the record; leave out {named}$"):
        main(["--reproduce", "run.json", *words])


def test_keep_without_a_record_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="--keep goes with --reproduce only"):
        main([*FOLD_WORDS, *HEAD, "--keep", str(tmp_path / "kept")])


def test_a_fold_builds_its_head_for_training_and_for_prediction_and_a_finished_one_does_nothing(made):
    words = [*FOLD_WORDS, *HEAD, "--no_floors"]
    with counting() as first:
        main(words)
    assert first.built == {"MS_TCN2": 2 * 2}
    assert first.processes_but_git == []
    assert len(first.processes) <= 1, "one question to git, whose answer all records have"
    with counting() as again:
        main(words)
    assert not again.built
    assert not again.processes
    results = paths.model("ColorHistogram").results("made")
    assert set(again.reads_of(results, "*_?.txt").values()) == {1}, "for the table alone"
