"""Training: it learns, resumes bit-identically (`tests/faults` kills it at any moment), and stops on bad numbers with a name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping
from common.head.batch_gen import VideoFeatures
from common.head.checkpoint import Checkpoint, load_checkpoint
from common.head.config import TrainConfig
from common.head.experiment import load_experiment
from common.head.prediction import predict
from common.head.training import class_weights, learning_rate, train
from common.train import main


class PowerCut(Exception):
    """Stands for whatever ends a process between two epochs."""


def same_parameters(first, second):
    return all(torch.equal(first.model[name], second.model[name]) for name in first.model)


def test_a_head_learns_separable_phases(made):
    history = train(load_experiment(made.config(num_epochs=25, num_f_maps=32)), device="cpu").history
    assert history[-1]["accuracy"] > 0.95
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others(made):
    first, again = (train(load_experiment(made.config()), device="cpu") for _ in range(2))
    other = train(load_experiment(made.config(seed=7)), device="cpu")
    assert same_parameters(first, again)
    assert not same_parameters(first, other)


SMALL_OTHERS = {
    "linear": {},
    "gru": {"hidden": 6, "layers": 2},
    "tecno": {"layers": 3, "maps": 8},
    "asformer": {"decoders": 1, "layers": 3, "maps": 8},
}
OTHER_HEADS = [{"head": name, "head_options": options, "bz": 2} for name, options in SMALL_OTHERS.items()]
BF16 = {"precision": "bf16", "bz": 2}


@pytest.mark.parametrize("head", ["mstcn++", *SMALL_OTHERS])
def test_a_standardised_head_does_not_see_scale_and_origin_of_the_features(made, head):
    own = {"head": head, "head_options": SMALL_OTHERS.get(head, {}), "standardise": "train", "num_epochs": 2}
    probabilities = []
    for scale, origin in ((1, 0), (300, -7)):
        for path in sorted(made.features.glob("*.npy")):
            rows = np.load(path).T
            made.write_features(path.stem, scale * rows + origin if scale != 1 else rows)
        experiment = load_experiment(made.config(run=f"times{scale}", **own))
        train(experiment, device="cpu")
        predict(experiment, device="cpu")
        name = next(iter(experiment.test_labels))
        probabilities.append(np.load(experiment.results / f"{name}.npy"))
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-3)


def test_statistics_are_of_the_training_part_alone_and_serve_every_later_prediction(made):
    experiment = load_experiment(made.config(standardise="train", num_epochs=1))
    assert experiment.run_name == "standardised"
    checkpoint = train(experiment, device="cpu")
    joined = np.concatenate([video.rows for video in experiment.open(experiment.train_labels)])
    assert checkpoint.model["mean"].numpy() == pytest.approx(joined.mean(axis=0), abs=1e-6)
    assert checkpoint.model["deviation"].numpy() == pytest.approx(joined.std(axis=0), rel=1e-5)
    # a fold's test videos with other features are predicted with the same numbers
    predict(experiment, device="cpu")
    assert torch.equal(load_checkpoint(experiment.checkpoint).model["mean"], checkpoint.model["mean"])


@pytest.mark.parametrize(
    "options", [{}, BF16, {"standardise": "train"}, *OTHER_HEADS, OTHER_HEADS[1] | BF16, OTHER_HEADS[3] | BF16]
)
def test_resume_is_bit_identical_to_an_undisturbed_training(made, monkeypatch, options):
    whole = train(load_experiment(made.config(num_epochs=4, run="whole", **options)), device="cpu")
    experiment = load_experiment(made.config(num_epochs=4, run="stopped", **options))

    save = Checkpoint.save

    def save_twice_then_stop(checkpoint, path):
        save(checkpoint, path)
        if checkpoint.epoch == 2:
            raise PowerCut

    monkeypatch.setattr(Checkpoint, "save", save_twice_then_stop)
    with pytest.raises(PowerCut):
        train(experiment, device="cpu")
    monkeypatch.setattr(Checkpoint, "save", save)
    assert load_checkpoint(experiment.checkpoint).epoch == 2
    resumed = train(experiment, device="cpu", resume=True)
    assert same_parameters(whole, resumed)
    assert [entry["loss"] for entry in whole.history] == [entry["loss"] for entry in resumed.history]


@pytest.mark.slow
@pytest.mark.parametrize("options", OTHER_HEADS, ids=SMALL_OTHERS)
def test_every_head_learns_separable_phases_and_is_predicted_from_its_checkpoint(made, options):
    experiment = load_experiment(made.config(num_epochs=40, lr=2e-2, **options))
    history = train(experiment, device="cpu").history
    assert history[-1]["accuracy"] > 0.9
    record = predict(experiment, device="cpu")
    assert record["run"] == experiment.results.parent.name == experiment.config.run_name
    assert record["config"]["head"] == options["head"]
    assert record["metrics"]["challenge"]["accuracy"] > 0.8


def test_resume_refuses_another_head_by_name(made):
    train(load_experiment(made.config(run="a")), device="cpu")
    with pytest.raises(UserError, match=r"head: mstcn\+\+ -> linear"):
        train(load_experiment(made.config(run="a", head="linear")), device="cpu", resume=True)


def test_a_head_is_chosen_by_flags_or_by_yaml(made, tmp_path):
    words = ["--dataset", "made", "--model", "ColorHistogram", "--device", "cpu", "--num_epochs", "1"]
    main([*words, "--head", "gru", "--head_options", "hidden=5", "layers=1"])
    path = tmp_path / "head.yaml"
    path.write_text("head: gru\nhead_options:\n  hidden: 5\n  layers: 1\n")
    main([*words, "--config", str(path), "--resume"])  # the same configuration: another would be refused
    options = {"hidden": 5, "layers": 1}
    of_both = load_experiment(made.config(head="gru", head_options=options))
    assert of_both.config.run_name == "head=gru+hidden=5+layers=1"
    assert load_checkpoint(of_both.checkpoint).config["head_options"] == options


def test_resume_refuses_another_configuration_and_names_the_difference(made):
    train(load_experiment(made.config(run="a")), device="cpu")
    with pytest.raises(UserError, match=r"num_f_maps: 8 -> 16.*--run NAME"):
        train(load_experiment(made.config(run="a", num_f_maps=16)), device="cpu", resume=True)


def test_resume_starts_over_when_labels_changed(made, caplog):
    experiment = load_experiment(made.config())
    train(experiment, device="cpu")
    name = next(iter(experiment.train_labels))
    labels = experiment.train_labels[name]
    labels.write_text(labels.read_text().replace("wash", "suture"))
    assert train(experiment, device="cpu", resume=True).epoch == 3
    assert "features or labels have changed" in caplog.text


def test_an_exploding_loss_stops_with_the_names_of_the_videos(made):
    path = made.features / "BL_1.npy"
    array = np.lib.format.open_memmap(path, mode="r+")
    array[:] = 3e38  # finite, but not its products
    array.flush()
    split = next(k for k in ("1", "2") if "BL_1" in load_experiment(made.config(split=k)).train_labels)
    with pytest.raises(UserError, match=r"the loss became (nan|inf) in epoch 1 on BL_1"):
        train(load_experiment(made.config(split=split), verify=False), device="cpu")


def test_phases_without_a_training_frame_in_a_subset_are_named_once(made, caplog):
    experiment = load_experiment(made.config(train_fraction=0.34, num_epochs=2))
    (labels,) = experiment.train_labels.values()
    labels.write_text(labels.read_text().replace("wash", "incision").replace("suture", "incision"))
    train(experiment, device="cpu")
    assert [message for message in caplog.messages if "no training frame" in message] == [
        "split 1 (train_fraction 0.34): no training frame of wash, suture: it is never predicted"
    ]


def test_a_fold_without_a_phase_names_it_too(made, caplog):
    experiment = load_experiment(made.config(num_epochs=1))
    for labels in experiment.train_labels.values():
        labels.write_text(labels.read_text().replace("wash", "incision"))
    train(experiment, device="cpu")
    assert "split 1: no training frame of wash: it is never predicted" in caplog.messages


def test_a_subset_with_every_phase_gives_no_warning(made, caplog):
    train(load_experiment(made.config(train_fraction=0.67, num_epochs=1)), device="cpu")
    assert "no training frame" not in caplog.text


def test_resume_does_not_go_on_with_another_fraction(made):
    train(load_experiment(made.config(run="a")), device="cpu")
    with pytest.raises(UserError, match=r"train_fraction: 1\.0 -> 0\.67"):
        train(load_experiment(made.config(run="a", train_fraction=0.67)), device="cpu", resume=True)


def test_features_made_in_different_ways_are_not_mixed(made):
    experiment = load_experiment(made.config())
    name = list(experiment.train_labels)[1]
    sidecar = made.features / f"{name}.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"dtype": "float16"}))
    with pytest.raises(UserError, match=f"{name}.npy.* made in different ways"):
        train(experiment, device="cpu")


def test_learning_rate_drops_at_60_and_90_percent():
    config = TrainConfig(num_epochs=100, lr=1.0)
    rates = [learning_rate(config, epoch) for epoch in (0, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx([1, 1, 0.3, 0.3, 0.09, 0.09])


def video_with(target):
    return VideoFeatures("v", None, None, None, None, len(target), np.array(target))


def test_inverse_class_weights_by_hand():
    mapping = PhaseMapping(("a", "b", "c"))
    weights = class_weights("inverse", [video_with([0, 0, 0]), video_with([0, 1])], mapping)
    # frames 4 and 1 -> 1/4 and 1, mean 0.625; c does not occur
    assert weights.tolist() == pytest.approx([0.4, 1.6, 0.0])


def test_class_weights_from_a_file_and_its_errors(tmp_path):
    mapping = PhaseMapping(("a", "b"))
    path = tmp_path / "weights.txt"
    path.write_text("b 2\na 0.5\n")
    assert class_weights(str(path), [], mapping).tolist() == [0.5, 2.0]
    path.write_text("a 1\nbb 2\n")
    with pytest.raises(UserError, match=r"weights\.txt.*wrong or missing: b, bb"):
        class_weights(str(path), [], mapping)


def test_wrong_features_dim_is_an_error(made):
    with pytest.raises(UserError, match="expected feature_dim 1024, found 48"):
        train(load_experiment(made.config(features_dim=1024)), device="cpu")


def test_a_split_that_does_not_exist_names_those_that_do(made):
    with pytest.raises(UserError, match="folds 1 to 2"):
        load_experiment(made.config(split="3"))


def test_asking_for_cuda_without_one_is_an_error(made):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UserError, match="no usable CUDA device"):
        train(load_experiment(made.config()), device="cuda:0")


def test_the_study_command_line_still_works(made, capsys):
    words = (
        "--action train --dataset made --split 1 --features_dim 48 --num_epochs 1 --num_layers_PG 3 --num_layers_R 3"
    )
    words += " --num_R 1 --loss_mse 0.35 --adaptive_mse --device cpu --bz 2 --lr 5e-4 --num_f_maps 8 --loss_focal 2"
    words += " --class_weights inverse --window_mse 10 --sample_rate 2 --causal --model ColorHistogram"
    assert main(words.split()) == 0
    path = capsys.readouterr().out.strip()
    assert path.endswith("checkpoints/made/causal/split_1/last.pt")
    assert load_checkpoint(Path(path)).config["loss_focal"] == 2


def test_yaml_settings_give_way_to_flags(made, tmp_path):
    path = tmp_path / "head.yaml"
    path.write_text("num_epochs: 2\nnum_layers_PG: 2\nnum_layers_R: 2\nnum_R: 1\nnum_f_maps: 4\ndataset: made\n")
    main(["--config", str(path), "--model", "ColorHistogram", "--num_f_maps", "6", "--device", "cpu"])
    config = load_checkpoint(load_experiment(made.config()).checkpoint).config
    assert (config["num_epochs"], config["num_f_maps"]) == (2, 6)


def test_wandb_logs_offline(made, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(load_experiment(made.config(num_epochs=2)), device="cpu", wandb=True)
    runs = list((made.dataset.root.parents[1] / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1
    assert runs[0].stat().st_size > 0


def test_run_names_keep_other_seeds_apart(made):
    config = load_experiment(made.config()).config
    folders = {load_experiment(replace(config, run=None, seed=seed)).checkpoint for seed in (42, 7)}
    assert len(folders) == 2
