"""`common.segment` from images to a table: train, resume, predict, score; what is said of unsuitable input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.base import paths
from common.base.locks import Held, hold
from common.base.runtime import UserError
from common.dataset.masks import read_mask
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.segment import main
from common.tasks.segmentation.network import read_segmentation_file
from common.tasks.summary import task_summaries

CLASSES = ("background", "disc", "stick")
GROUPS = tuple(f"eye_{number}" for number in range(8))
SMALL = [
    "--size",
    "64",
    "--pyramid_channels",
    "8",
    "--segmentation_channels",
    "32",
    "--batch_size",
    "4",
    "--lr",
    "0.01",
]
SIDES = (40, 56)  # of the images: other than those of the network, and not square


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a red disc and a green stick somewhere, and its mask."""
    rows, columns = np.indices(SIDES)
    ids = np.zeros(SIDES, np.uint8)
    ids[np.hypot(rows - random.uniform(14, 26), columns - random.uniform(18, 38)) < random.uniform(8, 12)] = 1
    column = int(random.uniform(4, 44))
    ids[:, column : column + 6] = 2
    colours = np.array([(60, 60, 90), (200, 40, 40), (40, 190, 60)])
    image = colours[ids] + random.normal(0, 8, (*SIDES, 3))
    return np.clip(image, 0, 255).astype(np.uint8), ids


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of a small data set: eight groups of two images, six to learn from."""
    dataset, random = paths.Dataset(tmp_path_factory.mktemp("drawn") / "discs"), np.random.default_rng(0)
    for group in GROUPS:
        for number in range(2):
            for folder, pixels in zip((dataset.images, dataset.masks), draw(random), strict=True):
                path = folder / group / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    dataset.mapping.write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES)))
    dataset.description.write_text("task: segmentation\n")
    for part, groups in (("train", GROUPS[:6]), ("val", GROUPS[6:7]), ("test", GROUPS[7:])):
        path = dataset.bundle(part, 1, "own")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{group}\n" for group in groups))
    return dataset.root


@pytest.fixture
def dataset(drawn, workspace) -> paths.Dataset:
    shutil.copytree(drawn, workspace / "data" / "discs")
    return paths.Dataset(workspace / "data" / "discs")


def segment(action: str, *words: str) -> int:
    usual = ["--dataset", "discs", "--model", "EfficientNet-Lite0", "--weights", "random", "--splits", "own"]
    return main([action, *usual, *SMALL, "--device", "cpu", "--num_epochs", "3", *words])


def run_folder(run: str = "splits=own-random-size64x64-decoder8+32"):
    model = paths.model("EfficientNet-Lite0")
    return model.split_results("discs", 1, run), model.segmentation_checkpoint("discs", 1, run)


@pytest.mark.slow
def test_train_predict_evaluate(dataset, capsys):
    """A few steps on six drawn groups beat the most frequent class of each pixel, also by random maps."""
    for action in ("train", "predict", "evaluate"):
        assert segment(action, "--num_epochs", "12") == 0
    results, checkpoint = run_folder()
    assert [entry["epoch"] for entry in read_segmentation_file(checkpoint).history] == list(range(1, 13))
    written = sorted(path.relative_to(results).as_posix() for path in results.rglob("*.png"))
    assert written == ["eye_7/0.png", "eye_7/1.png"]
    assert read_mask(results / written[0], CLASSES).shape == SIDES
    (summary,) = task_summaries(dataset)
    assert (summary.task, summary.num_splits, summary.units, summary.num_units) == ("segmentation", 1, "groups", 1)
    assert summary.random_weights
    floor = summary.floors["most frequent class of each pixel"]["IoU, pooled"].value
    assert summary.best.value > floor + 0.1
    printed = capsys.readouterr().out
    assert "no intervals: 1 groups are fewer than 5; IoU, pooled of each:\n  eye_7:" in printed
    assert "the encoder has random weights" in printed
    record = json.loads((results / paths.SEGMENTATION_RECORD).read_text())
    assert record["images"] == ["eye_7/0", "eye_7/1"]
    assert record["weights"]["source"] == "random"


def state(checkpoint) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["decoder"]


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bits(dataset, monkeypatch):
    from common.tasks.segmentation.training import SegmentationLoop

    segment("train")
    _, checkpoint = run_folder()
    whole = state(checkpoint)
    checkpoint.unlink()
    epoch = SegmentationLoop.epoch

    def stopped(self, number, batches):
        if number == 1:
            raise KeyboardInterrupt
        return epoch(self, number, batches)

    with monkeypatch.context() as patched:
        patched.setattr(SegmentationLoop, "epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            segment("train")
    assert read_segmentation_file(checkpoint).epoch == 1
    segment("train", "--resume")
    assert all(torch.equal(value, state(checkpoint)[name]) for name, value in whole.items())


@pytest.mark.slow
def test_fine_tuning_changes_the_encoder_resumes_and_predicts(dataset):
    segment("train", "--finetune", "--num_epochs", "1", "--encoder_lr", "0.01")
    results, checkpoint = run_folder("splits=own-random-finetune-size64x64-decoder8+32")
    trained = torch.load(checkpoint, weights_only=True)["encoder"]
    segment("train", "--finetune", "--num_epochs", "1", "--encoder_lr", "0.01", "--resume")  # nothing is left to do
    again = torch.load(checkpoint, weights_only=True)["encoder"]
    assert all(torch.equal(value, again[name]) for name, value in trained.items())
    segment("predict", "--finetune", "--encoder_lr", "0.01")
    assert (results / "eye_7" / "0.png").is_file()
    config = read_encoder_config(paths.model("EfficientNet-Lite0").config)
    before = build_encoder(config, "random").network.state_dict()
    assert not torch.equal(trained["network.conv_stem.weight"], before["conv_stem.weight"])
    assert torch.equal(trained["network.bn1.running_mean"], before["bn1.running_mean"])  # statistics stay
    segment("train", "--num_epochs", "1")
    assert torch.load(run_folder()[1], weights_only=True)["encoder"] is None


def test_a_resumed_training_with_other_settings_is_an_error_and_changed_images_start_over(dataset, caplog):
    segment("train", "--num_epochs", "1")
    with pytest.raises(UserError, match=r"segmentation\.pt: trained with another configuration \(lr: 0\.01 -> 0\.02\)"):
        segment("train", "--num_epochs", "1", "--lr", "0.02", "--resume")
    path = dataset.masks / "eye_0" / "0.png"
    Image.fromarray(np.zeros(SIDES, np.uint8)).save(path)
    segment("train", "--num_epochs", "1", "--resume")
    assert "training starts over" in caplog.text


def test_two_trainings_of_the_same_run_are_not_at_once(dataset):
    _, checkpoint = run_folder()
    checkpoint.parent.mkdir(parents=True)
    with hold(checkpoint), pytest.raises(Held):
        segment("train")


def test_the_validation_list_is_predicted_apart(dataset):
    segment("train", "--num_epochs", "1")
    segment("predict", "--part", "val")
    results, _ = run_folder()
    assert sorted(path.name for path in (results / "part_val").iterdir() if path.is_dir()) == ["eye_6"]
    assert not (results / paths.SEGMENTATION_RECORD).exists()


def test_all_splits_of_generated_folds(dataset, checkout, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location("folds_script", checkout / "generate_k_folds.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([str(dataset.root), "2"]) == 0
    words = ["--dataset", "discs", "--model", "EfficientNet-Lite0", "--weights", "random", *SMALL, "--device", "cpu"]
    for action in ("train", "predict"):
        main([action, *words, "--num_epochs", "1", "--split", "all"])
    main(["evaluate", *words, "--num_epochs", "1"])
    (summary,) = task_summaries(dataset)
    assert (summary.num_splits, summary.num_units) == (2, 8)
    assert summary.best.low <= summary.best.value <= summary.best.high
    assert "95 % intervals: bootstrap over 8 groups" in capsys.readouterr().out


# --- masks from elsewhere -----------------------------------------------------------------------------------------


def test_masks_made_elsewhere_are_scored(dataset, tmp_path, capsys):
    shutil.copytree(dataset.masks, tmp_path / "theirs")
    assert segment("evaluate", "--predictions", str(tmp_path / "theirs")) == 0
    assert "mean of IoU, pooled: 100.0 %, 3 of 3 classes" in capsys.readouterr().out
    assert task_summaries(dataset) == []  # no run of ours


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"eye_7/0\.png: expected the size of .*, 56 x 40, found 4 x 4"),
        (np.full(SIDES, 3, np.uint8), r"eye_7/0\.png: expected ids 0 to 2, found 3"),
        (np.full(SIDES, 255, np.uint8), r"eye_7/0\.png: expected ids 0 to 2, found 255"),
        (None, r"found none for 1 \(.*eye_7/0\.png"),
    ],
    ids=["size", "id", "unlabelled", "missing"],
)
def test_unsuitable_masks_are_named(values, message, dataset, tmp_path):
    shutil.copytree(dataset.masks, tmp_path / "theirs")
    path = tmp_path / "theirs" / "eye_7" / "0.png"
    path.unlink()
    if values is not None:
        Image.fromarray(values).save(path)
    with pytest.raises(UserError, match=message):
        segment("evaluate", "--predictions", str(tmp_path / "theirs"))


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_a_mask_of_another_size_stops_before_the_training(dataset):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(dataset.masks / "eye_1" / "0.png")
    with pytest.raises(UserError, match=r"masks/eye_1/0\.png: expected the size of its image, 56 x 40, found 4 x 4"):
        segment("train")
    assert not run_folder()[1].exists()


@pytest.mark.parametrize("group", [GROUPS[0], GROUPS[-1]], ids=["of the training", "of the test"])
def test_an_unknown_id_stops_before_the_training(group, dataset):
    Image.fromarray(np.full(SIDES, 7, np.uint8)).save(dataset.masks / group / "0.png")
    with pytest.raises(UserError, match=rf"masks/{group}/0\.png: expected ids 0 to 2 and 255 .*, found 7"):
        segment("train")
    assert not run_folder()[1].exists()


def test_a_patient_on_both_sides_of_a_list_is_told(dataset, caplog, capsys):
    names = [path.name for path in sorted(dataset.images.iterdir())]
    dataset.patients.write_text("video,patient\n" + "".join(f"{name},someone\n" for name in names))
    segment("train")
    told = "list own, split 1: learned from and tested: 1 patient (someone)"
    assert told in caplog.text
    segment("predict")
    segment("evaluate")
    assert f"note: {told}" in capsys.readouterr().out


def test_a_group_that_is_listed_and_has_no_images_is_named(dataset):
    with dataset.bundle("train", 1, "own").open("a") as bundle:
        bundle.write("eye_9\n")
    with pytest.raises(UserError, match="'eye_9' has no labels in"):
        segment("train")


def test_a_class_without_a_training_pixel_is_told(dataset, caplog):
    for group in GROUPS[:6]:
        for path in (dataset.masks / group).iterdir():
            Image.fromarray(np.zeros(SIDES, np.uint8)).save(path)
    segment("train", "--num_epochs", "1")
    assert "split 1: no training pixel of disc, stick: never predicted" in caplog.text


def test_training_masks_without_any_label_are_an_error(dataset):
    for group in GROUPS[:6]:
        for path in (dataset.masks / group).iterdir():
            Image.fromarray(np.full(SIDES, 255, np.uint8)).save(path)
    with pytest.raises(UserError, match="expected pixels with a class in training masks, found none"):
        segment("train")


def test_a_class_of_ignored_is_neither_learned_nor_scored(dataset, tmp_path, capsys):
    dataset.description.write_text("task: segmentation\nignored: [stick]\n")
    shutil.copytree(dataset.masks, tmp_path / "theirs")
    for path in (tmp_path / "theirs").rglob("*.png"):
        ids = np.asarray(Image.open(path)).copy()
        ids[ids == 2] = 0  # whatever is predicted there
        Image.fromarray(ids).save(path)
    segment("evaluate", "--predictions", str(tmp_path / "theirs"))
    printed = capsys.readouterr().out
    assert "mean of IoU, pooled: 100.0 %, 2 of 2 classes" in printed
    assert "stick" not in printed


def test_images_that_changed_after_the_prediction_are_told(dataset):
    segment("train", "--num_epochs", "1")
    segment("predict")
    Image.fromarray(np.zeros(SIDES, np.uint8)).save(dataset.masks / "eye_7" / "0.png")
    with pytest.raises(UserError, match="images, masks or classes have changed since this prediction"):
        segment("evaluate")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--size", "100"], r"size must be HEIGHTxWIDTH .* found '100'; try 96x96"),
        (["train", "--size", "big"], "found 'big'; try 256x448"),
        (["train", "--segmentation_channels", "40"], "segmentation_channels must be a multiple of 32"),
        (["train", "--split", "2"], r"split 2: .* has splits 1 to 1"),
        (["train", "--part", "val"], "a validation list is never learned from"),
        (["predict"], r"segmentation\.pt: no such checkpoint; run common\.segment train first"),
        (["predict", "--resume"], "--resume would have no effect with predict; it is for train"),
        (["evaluate"], "no split is predicted; run common.segment predict first"),
        (["train", "--model", "V-JEPA2-Tiny"], "expected an encoder of single frames, found one of clips"),
        (["train", "--model", "DinoV2-ViT-S14", "--size", "256"], "whole patches of 14 pixels"),
        (["train", "--splits", "official"], "no official list of splits; there are: own"),
    ],
)
def test_words_that_cannot_be_are_told(words, message, dataset):
    usual = ["--dataset", "discs", "--model", "EfficientNet-Lite0", "--weights", "random", "--splits", "own"]
    with pytest.raises(UserError, match=message):
        main([words[0], *usual, *SMALL, "--device", "cpu", *words[1:]])


def test_the_background_may_be_left_out_where_there_is_one(dataset, tmp_path, capsys):
    segment("evaluate", "--predictions", str(dataset.masks), "--ignore_background")
    assert "mean without background of IoU, pooled: 100.0 %, 2 of 2 classes" in capsys.readouterr().out
    dataset.description.write_text("task: segmentation\nbackground: null\n")
    with pytest.raises(UserError, match=r"--ignore_background: no class of .* is the background"):
        segment("evaluate", "--predictions", str(dataset.masks), "--ignore_background")


def test_the_own_rule_of_a_data_set_is_named_beside(dataset, capsys):
    dataset.description.write_text("task: segmentation\nown_rule: cadis\n")
    segment("evaluate", "--predictions", str(dataset.masks))
    assert "an undefined one as 0): 100.0 %" in capsys.readouterr().out


def test_a_data_set_of_phases_is_for_another_command(dataset):
    dataset.description.write_text("label_fps: 1\n")
    with pytest.raises(UserError, match=r"task: expected segmentation, found none \(phases\), which is for python -m common\.train"):  # fmt: skip
        segment("train")
