"""Floors: what they answer, when they are made again, and how far rows are above them."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import compute_results
from common.base import paths
from common.base.runtime import UserError
from common.dataset.phases import read_labels, read_predictions
from common.head.config import is_floor
from common.head.controls.floors import every_nth, run_floors
from common.head.experiment import load_experiment
from common.reports.results import collect_all, run_names
from common.reports.robustness.floors import points_above, with_floors
from common.run_k_folds import main
from common.scoring.protocols import CHALLENGE
from tests.common.conftest import FOLD_WORDS

WORDS = [*FOLD_WORDS, "--head", "linear", "--num_epochs", "1"]


@pytest.fixture
def experiment(made):
    return load_experiment(made.config())


def floor_folder(experiment, kind):
    return experiment.model.split_results(experiment.dataset.name, "1", f"floor={kind}")


def test_the_majority_floor_answers_with_the_shares_of_the_training_phases(experiment):
    run_floors(experiment, "")
    folder = floor_folder(experiment, "majority")
    labels = np.concatenate([read_labels(path, experiment.mapping) for path in experiment.train_labels.values()])
    shares = np.bincount(labels, minlength=4) / len(labels)
    for name, path in experiment.test_labels.items():
        num_labels = len(read_labels(path, experiment.mapping))
        assert np.load(folder / f"{name}.npy") == pytest.approx(np.tile(shares, (num_labels, 1)), abs=1e-6)
        assert set(read_predictions(folder / f"{name}.txt", experiment.mapping)) == {shares.argmax()}
    record = json.loads((folder / paths.RUN_RECORD).read_text())
    assert record["floor"] == "majority"
    assert record["train_majority_share"] == pytest.approx(shares.max())


def test_the_linear_floor_is_a_logistic_regression_of_standardised_frames(experiment):
    run_floors(experiment, "")
    videos = experiment.open(experiment.train_labels)
    rows, phases = np.concatenate([v.rows for v in videos]), np.concatenate([v.target for v in videos])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(rows.astype(np.float64), phases)
    for video in experiment.open(experiment.test_labels):
        found = np.load(floor_folder(experiment, "linear") / f"{video.name}.npy")
        assert found == pytest.approx(model.predict_proba(video.rows), abs=0.02)


def test_every_phase_keeps_its_share_and_at_least_one_frame(made):
    made.write_video("BL_1", 0, length=400)
    labels = made.dataset.ground_truth / "BL_1.txt"
    names = labels.read_text().splitlines()
    names[7] = "suture"  # once
    labels.write_text(
        "\n".join("suture" if place == 7 else "wash" if place % 4 else "incision" for place in range(len(names)))
    )
    experiment = load_experiment(made.config())
    videos = [
        video for video in experiment.open(experiment.train_labels | experiment.test_labels) if video.name == "BL_1"
    ]
    rows, phases = every_nth(videos, 40)
    counts = np.bincount(phases, minlength=4)
    assert len(rows) == len(phases) <= 43
    assert counts[3] == 1
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.1)


def test_floors_depend_on_the_data_alone_so_that_runs_share_them(made):
    plain = made.config()
    for other in (
        made.config(lr=0.1),
        made.config(head="gru", seed=7),
        made.config(run="mine", sample_rate=3, standardise="train"),
    ):
        assert other.of_floor("linear") == plain.of_floor("linear")
    assert made.config(train_fraction=0.5).of_floor("linear").run_name == "fraction0.5-floor=linear"
    assert is_floor("fraction0.5-floor=linear")
    assert not is_floor("floor")
    assert not is_floor(None)


def test_finished_floors_stay_and_those_of_other_labels_are_made_again(experiment, made):
    run_floors(experiment, "")
    record = floor_folder(experiment, "linear") / paths.RUN_RECORD
    before = record.stat().st_mtime_ns
    run_floors(experiment, "")
    assert record.stat().st_mtime_ns == before
    name = next(iter(experiment.train_labels))
    path = made.dataset.ground_truth / f"{name}.txt"
    path.write_text(path.read_text().replace("wash", "suture"))
    run_floors(load_experiment(made.config()), "")
    assert record.stat().st_mtime_ns > before


def test_a_feature_that_is_not_finite_is_named(experiment, made):
    name = next(iter(experiment.train_labels))
    path = made.features / f"{name}.npy"
    np.save(path, np.full_like(np.load(path), np.inf))
    experiment = load_experiment(made.config(), verify=False)
    with pytest.raises(UserError, match=rf"a feature of {name} is NaN or infinite"):
        run_floors(experiment, "")


@pytest.mark.slow
def test_rows_say_how_far_they_are_above_floors_that_are_no_rows(made, capsys):
    main(WORDS)
    found = with_floors(collect_all(made.dataset, 2), made.dataset)
    assert [result.name for result in found.results] == ["ColorHistogram (head=linear)"]
    own = found.results[0]
    above = points_above(own, found.floors, "accuracy", CHALLENGE)
    assert above["linear"] == own.mean("accuracy") - found.floors[own.name]["linear"].mean("accuracy")
    capsys.readouterr()
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    printed = capsys.readouterr().out
    assert "Above majority class" in printed
    assert f"{100 * above['majority']:+.1f}" in printed
    assert "floor=" not in printed


def test_a_floor_of_other_features_is_left_out_by_name(made):
    main(WORDS)
    record = floor_folder(load_experiment(made.config()), "linear") / paths.RUN_RECORD
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"test_inputs_hash": "0" * 64}))
    found = with_floors(collect_all(made.dataset, 2), made.dataset)
    assert "of other features or labels than ColorHistogram" in found.left_out[0]
    assert set(found.floors["ColorHistogram (head=linear)"]) == {"majority"}


@pytest.mark.slow
def test_without_floors_nothing_is_written_and_no_column_promises_them(made, capsys):
    main([*WORDS, "--no_floors"])
    assert run_names(paths.model("ColorHistogram"), made.dataset) == ["head=linear"]
    capsys.readouterr()
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    assert "Above" not in capsys.readouterr().out
