"""Reproduction of a run: the same numbers from the same inputs, every difference named, nothing of the run touched."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError, versions
from common.head.experiment import load_experiment
from common.head.prediction import predict
from common.head.training import train
from common.run_k_folds import main


def finished(made, **changes):
    """Train and predict; returns the experiment and the path of its record."""
    experiment = load_experiment(made.config(**changes))
    train(experiment, device="cpu")
    predict(experiment, device="cpu")
    return experiment, experiment.results / paths.RUN_RECORD


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def reproduce(path, *words):
    return main(["--reproduce", str(path), "--device", "cpu", *words])


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(made):
    return finished(made)


@pytest.mark.parametrize("changes", [{}, {"split": "val", "train_fraction": 0.5, "seed": 7, "bz": 2, "causal": True}])
def test_a_run_is_reproduced_to_the_byte(made, capsys, changes):
    experiment, path = finished(made, **changes)
    files = 2 * len(experiment.test_labels)
    assert reproduce(path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "Other surroundings than recorded: none"
    assert lines[-1] == f"Reproduced: all {files} prediction files are equal to the byte, and so is every measure."
    table = {line.split("  ")[0]: line.split()[-3:] for line in lines[2:-2]}
    accuracy = json.loads(path.read_text())["metrics"]["challenge"]["accuracy"]
    assert table["challenge accuracy"] == [f"{accuracy:.6f}", f"{accuracy:.6f}", "0"]


def test_nothing_below_the_root_is_written(made, run):
    before = contents(paths.repository_root())
    reproduce(run[1])
    assert contents(paths.repository_root()) == before


def test_a_copy_of_a_run_elsewhere_is_compared_with_the_files_beside_it(run, tmp_path):
    shutil.copytree(run[0].results, tmp_path / "archive")
    shutil.rmtree(run[0].results)
    shutil.rmtree(run[0].checkpoint.parent)
    assert reproduce(tmp_path / "archive" / paths.RUN_RECORD) == 0


def test_keep_leaves_what_was_made_in_a_new_folder(run, tmp_path):
    assert reproduce(run[1], "--keep", str(tmp_path / "kept")) == 0
    kept = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert {"last.pt", paths.RUN_RECORD, *(f"{name}.npy" for name in run[0].test_labels)} <= kept


def test_keep_overwrites_nothing(run):
    with pytest.raises(UserError, match=r"--keep .*: expected a new or empty folder"):
        reproduce(run[1], "--keep", str(run[0].results))


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_a_changed_prediction_is_reported_with_its_name(run, capsys, suffix):
    name = f"{next(iter(run[0].test_labels))}{suffix}"
    content = (run[0].results / name).read_bytes()
    (run[0].results / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert reproduce(run[1]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Not reproduced: 1 of 6 prediction files differ ({name}); of 8 measures 0 differ."
    )


def test_a_missing_prediction_is_no_equal_one(run, capsys):
    (run[0].results / f"{next(iter(run[0].test_labels))}.npy").unlink()
    assert reproduce(run[1]) == 1
    assert "1 of 6 prediction files differ" in capsys.readouterr().out


def test_a_changed_measure_is_reported_with_both_values(run, capsys):
    def raise_accuracy(record):
        record["metrics"]["challenge"]["accuracy"] += 0.125
        record["metrics"]["challenge"]["edit"] = None

    was = json.loads(run[1].read_text())["metrics"]["challenge"]
    edit(run[1], raise_accuracy)
    assert reproduce(run[1]) == 1
    lines = capsys.readouterr().out.splitlines()
    table = {line.split("  ")[0]: line.split()[-3:] for line in lines[2:-2]}
    assert table["challenge accuracy"] == [f"{was['accuracy'] + 0.125:.6f}", f"{was['accuracy']:.6f}", "-0.12"]
    assert table["challenge edit"] == ["n/a", f"{was['edit']:.6f}", "n/a"]
    assert lines[-1] == (
        "Not reproduced: all 6 prediction files are equal to the byte, but the record has other values of challenge "
        "accuracy, challenge edit."
    )


def test_another_seed_in_the_record_gives_other_numbers(run, capsys):
    edit(run[1], lambda record: record["config"].update(seed=43))
    assert reproduce(run[1]) == 1
    assert re.search(r"^Not reproduced: [3-6] of 6 prediction files differ", capsys.readouterr().out, re.MULTILINE)


def test_changed_features_are_an_error_that_says_which(made, run):
    name = next(iter(run[0].train_labels))
    num_labels = len(run[0].train_labels[name].read_text().splitlines())
    made.write_features(name, np.zeros((num_labels, 48)))
    with pytest.raises(UserError, match=r"run\.json: cannot be reproduced.* features or labels of the train videos\. "):
        reproduce(run[1])


def test_features_made_in_another_way_are_an_error_that_says_how(made, run):
    for path in made.features.glob("*.npy"):
        made.write_features(path.stem, 2 * np.load(path).T, pooling="other")
    with pytest.raises(UserError, match=r"train videos \(pooling: 'made' .*\), .* test videos \(pooling"):
        reproduce(run[1])


def test_changed_test_labels_are_an_error_that_says_which(run):
    path = next(iter(run[0].test_labels.values()))
    path.write_text(path.read_text().replace("wash", "suture"))
    with pytest.raises(UserError, match=r"changed: features or labels of the test videos\. Put them back"):
        reproduce(run[1])


def test_changed_folds_and_phases_are_errors(run):
    edit(run[1], lambda record: record.update(folds_hash="0" * 64))
    with pytest.raises(UserError, match=r"changed: the folds in .*splits"):
        reproduce(run[1])
    edit(run[1], lambda record: record.update(phases=["a", "b"]))
    with pytest.raises(UserError, match=r"changed: the phases in .*mapping\.txt"):
        reproduce(run[1])


def test_a_record_from_before_the_training_fraction_reproduces(run, capsys):
    def age(record):
        for key in ("device", "num_train_videos"):
            del record[key]
        del record["config"]["train_fraction"]

    edit(run[1], age)
    assert reproduce(run[1]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("Other surroundings than recorded: device: not recorded -> cpu")
    assert lines[-1].startswith("Reproduced")


def test_other_surroundings_are_named(run, capsys):
    def elsewhere(record):
        record["versions"]["torch"] = "0.4.1"
        record["git"] = {"commit": "abc", "dirty": True}
        record["device"] = "cuda (Some GPU)"

    edit(run[1], elsewhere)
    reproduce(run[1])
    line = capsys.readouterr().out.splitlines()[-2]
    assert f"torch: 0.4.1 -> {versions()['torch']}" in line
    assert "commit: abc with uncommitted changes -> " in line
    assert "device: cuda (Some GPU) -> cpu (" in line


@pytest.mark.parametrize(("by", "code"), [(3e-7, 0), (1e-3, 1)])
def test_another_processor_may_differ_in_the_last_digits_alone(run, capsys, by, code):
    path = run[0].results / f"{next(iter(run[0].test_labels))}.npy"
    rows = np.load(path)
    rows[0, rows[0].argmin()] += by
    np.save(path, rows)
    assert reproduce(run[1]) == 1  # in the same surroundings nothing may differ
    edit(run[1], lambda record: record.update(device="cpu (SSE2)"))
    assert reproduce(run[1]) == code
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(
        "Not reproduced: 1 of 6" if code else "Reproduced but for the last digits, as other surroundings give"
    )
    assert code or "1 differ, by at most 3e-07 in a probability" in said


def test_the_recorded_number_of_threads_is_used_and_put_back(run, monkeypatch):
    before = torch.get_num_threads()

    def say_threads(experiment, device):
        raise UserError(f"{torch.get_num_threads()} threads")

    monkeypatch.setattr("common.head.reproduce.train", say_threads)
    edit(run[1], lambda record: record.update(num_threads=before + 1))
    with pytest.raises(UserError, match=f"^{before + 1} threads$"):
        reproduce(run[1])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"run\.json: no such file; expected the run\.json of a finished run"),
        ("{}", r"run\.json: not the record of a finished run"),
        ("[1]", r"run\.json: not the record of a finished run"),
        ("{", r"run\.json: not a readable JSON file"),
    ],
)
def test_what_is_no_record_is_named(made, tmp_path, content, message):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        reproduce(path)


def test_a_prediction_with_a_given_checkpoint_cannot_be_reproduced(run):
    predict(run[0], device="cpu", checkpoint=run[0].checkpoint)
    with pytest.raises(UserError, match="it is not recorded what that was trained on"):
        reproduce(run[1])
