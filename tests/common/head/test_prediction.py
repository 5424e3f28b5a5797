"""Predictions: the challenge's files, one time grid, the run's record, original checkpoints."""

import json

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError
from common.dataset.phases import read_labels
from common.head.checkpoint import build_head, load_head
from common.head.config import TrainConfig
from common.head.experiment import load_experiment
from common.head.prediction import phase_probabilities, predict
from common.head.training import train
from common.scoring.folder import score_folder
from common.scoring.protocols import CHALLENGE, summarise
from common.train import main


@pytest.fixture
def trained(made):
    experiment = load_experiment(made.config())
    train(experiment, device="cpu")
    return experiment


def test_files_have_a_row_for_each_label_in_the_challenge_form(trained):
    predict(trained, device="cpu")
    for name, labels in trained.test_labels.items():
        num_labels = len(labels.read_text().split())
        header, names = (trained.results / f"{name}.txt").read_text().splitlines()
        probabilities = np.load(trained.results / f"{name}.npy")
        assert header == "### Frame level recognition: ###"
        assert len(names.split()) == num_labels
        assert probabilities.shape == (num_labels, 4)
        assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert [trained.mapping.names[i] for i in probabilities.argmax(axis=1)] == names.split()


def test_an_independent_reader_of_the_challenge_form_gets_the_same_labels(trained):
    """The official scorer's way: drop a first line with the header, split a single remaining line at blanks."""
    predict(trained, device="cpu")
    name = next(iter(trained.test_labels))
    lines = (trained.results / f"{name}.txt").read_text().splitlines()
    assert "Frame level recognition" in lines.pop(0)
    assert len(lines) == 1
    ids = [trained.mapping.ids[word] for word in lines[0].split()]
    assert ids == read_labels(trained.results / f"{name}.txt", trained.mapping).tolist()


def test_run_record_says_what_was_run_and_its_metrics_are_those_of_the_files(trained):
    record = predict(trained, device="cpu")
    on_disk = json.loads((trained.results / paths.RUN_RECORD).read_text())
    assert on_disk == record
    scores = score_folder(trained.test_labels, trained.results, trained.mapping, trained.results)
    again = summarise(scores.values(), CHALLENGE)
    assert record["metrics"]["challenge"] == pytest.approx(again)
    assert record["config"]["num_f_maps"] == 8
    assert record["seed"] == 42
    assert record["folds_hash"]
    assert record["features"]["identity"]["encoder"] == "ColorHistogram"
    assert len(record["history"]) == 3
    assert {"python", "torch", "numpy"} <= record["versions"].keys()
    assert record["peak_memory_bytes"] > 0
    assert record["device"].startswith("cpu (")
    assert record["num_train_videos"] == 3


def test_the_record_knows_the_labels_apart_from_the_features(trained):
    before = predict(trained, device="cpu")["labels_hash"]
    for labels in trained.train_labels.values():  # the same phases in the challenge's form
        labels.write_text(f"### Frame level recognition: ###\n{' '.join(labels.read_text().split())}\n")
    assert predict(trained, device="cpu")["labels_hash"] == before
    labels.write_text(labels.read_text().replace("wash", "suture", 1))  # also those that the head learned from
    assert predict(trained, device="cpu")["labels_hash"] != before


def test_last_row_is_repeated_where_the_video_is_shorter_than_its_labels(made):
    experiment = load_experiment(made.config())
    name = next(iter(experiment.test_labels))
    num_labels = 400
    made.write_labels(name, np.arange(num_labels) // 100)
    made.write_features(name, np.random.default_rng(0).normal(size=(num_labels - 3, 48)))
    train(experiment, device="cpu")
    record = predict(experiment, device="cpu")
    rows = np.load(experiment.results / f"{name}.npy")
    assert record["repeated_rows"] == {name: 3}
    assert len(rows) == num_labels
    assert (rows[-4:] == rows[-4]).all()


def test_predictions_of_every_third_feature_are_expanded_to_the_label_rate(made):
    experiment = load_experiment(made.config(sample_rate=3))
    train(experiment, device="cpu")
    predict(experiment, device="cpu")
    name, labels = next(iter(experiment.test_labels.items()))
    rows = np.load(experiment.results / f"{name}.npy")
    assert len(rows) == len(labels.read_text().split())
    # features stand at frames 0, 3, 6 ...: frame 1 is nearest to 0, frames 2 and 4 to 3
    assert (rows[0] == rows[1]).all()
    assert (rows[2] == rows[3]).all()
    assert (rows[3] == rows[4]).all()
    assert not (rows[1] == rows[2]).all()


def test_predicting_before_training_says_so(made):
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint; run --action train first"):
        predict(load_experiment(made.config()), device="cpu")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named(trained, share):
    content = trained.checkpoint.read_bytes()
    trained.checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"last\.pt: damaged or unsafe checkpoint"):
        predict(trained, device="cpu")


def test_a_checkpoint_with_code_in_it_is_not_run(trained, tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("never printed",))

    torch.save({"model": Payload()}, trained.checkpoint)
    with pytest.raises(UserError, match="damaged or unsafe checkpoint"):
        predict(trained, device="cpu")


def test_a_bare_state_dict_of_the_original_implementation_loads(made, tmp_path):
    config = TrainConfig(features_dim=48, num_layers_PG=4, num_layers_R=3, num_R=1, num_f_maps=8, seed=5)
    original = build_head(config, 4)
    torch.save(original.state_dict(), tmp_path / "epoch-100.model")
    loaded = load_head(tmp_path / "epoch-100.model", load_experiment(made.config()).config, 4)
    assert all(torch.equal(a, b) for a, b in zip(original.parameters(), loaded.parameters(), strict=True))


def test_a_state_dict_of_another_size_is_refused(made, tmp_path):
    torch.save(build_head(TrainConfig(features_dim=12), 4).state_dict(), tmp_path / "epoch-1.model")
    with pytest.raises(UserError, match="these parameters do not fit the head"):
        load_head(tmp_path / "epoch-1.model", load_experiment(made.config()).config, 4)


def test_probabilities_do_not_depend_on_the_other_videos(trained):
    head = load_head(trained.checkpoint, trained.config, 4)
    videos = trained.open(trained.test_labels)
    first = phase_probabilities(head, videos[0])
    phase_probabilities(head, videos[1])
    assert np.array_equal(first, phase_probabilities(head, videos[0]))


def test_validation_split_trains_on_all_labels_and_scores_the_validation_set(made):
    experiment = load_experiment(made.config(split="val"))
    assert sorted(experiment.train_labels) == ["BL_1", "BL_2", "BL_3", "SD_1", "SD_2", "SD_3"]
    train(experiment, device="cpu")
    record = predict(experiment, device="cpu")
    assert sorted(path.stem for path in experiment.results.glob("*.txt")) == ["BL_8", "SD_8"]
    assert record["folds_hash"] is None


def test_a_fraction_of_the_validation_splits_training_videos_is_scored_on_all_its_test_videos(made):
    experiment = load_experiment(made.config(split="val", train_fraction=0.5))
    train(experiment, device="cpu")
    record = predict(experiment, device="cpu")
    assert experiment.results.parent.name == "fraction0.5"
    assert (record["num_train_videos"], record["config"]["train_fraction"]) == (3, 0.5)
    assert record["videos"] == ["BL_8", "SD_8"]


def test_predict_from_the_command_line(trained, capsys):
    words = ["--action", "predict", "--dataset", "made", "--model", "ColorHistogram", "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(trained.results)
    assert (trained.results / paths.RUN_RECORD).is_file()


# --- online ---------------------------------------------------------------------------------------------------------


def with_window(made, **window) -> None:
    """All features again, with vectors of windows of frames."""
    for path in list(made.features.glob("*.npy")):
        made.write_features(path.stem, np.load(path).T.copy(), window=window)


def test_a_causal_head_gives_a_frame_the_last_feature_at_or_before_it(made):
    experiment = load_experiment(made.config(causal=True, sample_rate=4))
    train(experiment, device="cpu")
    predict(experiment, device="cpu")
    for name, labels in experiment.test_labels.items():
        rows = np.load(experiment.results / f"{name}.npy")
        frames = np.arange(len(labels.read_text().split()))
        assert np.array_equal(rows, rows[frames // 4 * 4])
        assert not np.array_equal(rows[0], rows[4])


@pytest.mark.parametrize(
    ("window", "seconds"),
    [
        ({"clip_len": 16, "mode": "window", "stride": 1}, 7 / 25),
        ({"clip_len": 16, "mode": "window", "stride": 4}, 10 / 25),
        ({"clip_len": 16, "mode": "tokens", "tubelet": 2}, 15 / 25),
    ],
    ids=["window", "stride", "tokens"],
)
def test_features_that_look_ahead_are_refused_under_a_causal_head_or_named(made, caplog, window, seconds):
    with_window(made, **window)
    for changes, flag in (({"causal": True}, "--causal"), ({"lookahead": 0.5}, r"--lookahead 0\.5")):
        with pytest.raises(
            UserError, match=rf"{flag}: expected features .* look ahead by {seconds:g} s .*--allow_future_features"
        ):
            train(load_experiment(made.config(**changes)), device="cpu")
    experiment = load_experiment(made.config(causal=True, allow_future_features=True))
    train(experiment, device="cpu")
    assert f"features of ColorHistogram look ahead by {seconds:g} s" in caplog.text
    assert predict(experiment, device="cpu")["look_ahead_seconds"] == pytest.approx(seconds)


def test_a_look_ahead_in_frames_is_that_of_the_slowest_test_video(made):
    first, second, *_ = load_experiment(made.config()).test_labels
    for name, fps in ((first, 12.5), (second, 10.0)):
        rows = np.load(made.features / f"{name}.npy").T.copy()
        made.write_features(name, rows, fps=fps)
    assert load_experiment(made.config(lookahead=0.6)).config.lookahead_frames == 6
    assert load_experiment(made.config(lookahead=0.69)).config.lookahead_frames == 6
    # of every second feature half as many
    assert load_experiment(made.config(lookahead=0.6, sample_rate=2)).config.lookahead_frames in (2, 3)
    assert load_experiment(made.config(lookahead=0.6, lookahead_frames=4)).config.lookahead_frames == 4


def test_a_look_ahead_needs_to_know_how_many_features_a_second_has(made):
    for path in made.features.glob("*.json"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"--lookahead 2: .*\.npy does not say how many features a second it has; write `label_fps: N`"
    ):
        load_experiment(made.config(lookahead=2))
    made.dataset.description.write_text("label_fps: 5\n")
    assert load_experiment(made.config(lookahead=2)).config.lookahead_frames == 10


def test_a_look_ahead_is_part_of_the_run_and_its_predictions_use_no_later_feature(made):
    experiment = load_experiment(made.config(lookahead=0.2, sample_rate=4))
    train(experiment, device="cpu")
    record = predict(experiment, device="cpu")
    assert experiment.results.parts[-2] == "lookahead0.2"
    assert record["config"]["lookahead"] == 0.2
    assert record["config"]["lookahead_frames"] == int(0.2 * 25 / 4)
    for name, labels in experiment.test_labels.items():
        rows = np.load(experiment.results / f"{name}.npy")
        frames = np.arange(len(labels.read_text().split()))
        assert np.array_equal(rows, rows[frames // 4 * 4])  # held from the last sample, as in a causal one


def test_features_of_single_frames_do_not_look_ahead(made, caplog):
    experiment = load_experiment(made.config(causal=True))
    train(experiment, device="cpu")
    assert "look ahead" not in caplog.text


def test_damaged_videos_are_named_and_recorded(made, caplog):
    name = next(iter(load_experiment(made.config()).test_labels))
    rows = np.load(made.features / f"{name}.npy").T.copy()
    made.write_features(name, rows, decoding={"damage": "60 frames promised, 50 decoded"})
    experiment = load_experiment(made.config())
    train(experiment, device="cpu")
    record = predict(experiment, device="cpu")
    assert record["damaged_videos"] == {name: "60 frames promised, 50 decoded"}
    assert f"features of damaged videos, taken as they were: {name}" in caplog.text
