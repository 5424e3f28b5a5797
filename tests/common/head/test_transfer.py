"""A head of one data set on another: phases that both have, one rule for both sides, what is lost and how sure that is."""

import json
import shutil

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.phases import IGNORED, PhaseMapping
from common.head.experiment import load_experiment
from common.head.training import train
from common.head.transfer import predict_elsewhere, read_shared
from common.scoring.intervals import difference_interval
from common.train import main

HEAD = PhaseMapping(("background", "incision", "wash", "suture"))


@pytest.fixture
def other(made):
    """The same videos and features under another name, with its own names of phases; `suture` is called `close`."""
    target = paths.Dataset(made.dataset.root.with_name("other"))
    shutil.copytree(made.dataset.root, target.root)
    names = made.dataset.mapping.read_text().split()[1::2]
    renamed = {name: name.upper() for name in names}
    target.mapping.write_text("".join(f"{index} {renamed[name]}\n" for index, name in enumerate(names)))
    target.description.write_text(f"background: {renamed[names[0]]}\n")
    for path in [*target.ground_truth.glob("*.txt"), *target.ground_truth_val.glob("*.txt")]:
        path.write_text("".join(f"{renamed[name]}\n" for name in path.read_text().split()))
    return target


@pytest.fixture
def trained(made):
    experiment = load_experiment(made.config())
    train(experiment, device="cpu")
    return experiment


@pytest.fixture
def classes(trained, tmp_path):
    """All phases, each under its name of the other set."""
    path = tmp_path / "map.yaml"
    path.write_text("".join(f"{name}: {name.upper()}\n" for name in trained.mapping.names))
    return path


# --- which phases are shared ------------------------------------------------------------------------------------------


def write_map(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return path


def test_several_phases_of_the_head_may_be_one_of_the_other_set(tmp_path):
    test = PhaseMapping(("idle", "cut", "rinse", "pack"), background="idle")
    shared = read_shared(write_map(tmp_path, "incision: cut\nwash: rinse\nsuture: cut\n"), HEAD, test)
    assert shared.names == ("cut", "rinse")
    assert shared.of_head.tolist() == [IGNORED, 0, 1, 0]
    assert shared.of_test.tolist() == [IGNORED, 0, 1, IGNORED]
    assert shared.background is None
    likely = shared.probabilities(np.array([[0.5, 0.1, 0.2, 0.2], [1.0, 0.0, 0.0, 0.0]]))
    assert likely == pytest.approx(np.array([[0.6, 0.4], [0.5, 0.5]]))


def test_without_a_file_phases_of_the_same_name_are_shared():
    shared = read_shared(None, HEAD, PhaseMapping(("wash", "incision", "other"), background=None))
    assert shared.names == ("wash", "incision")
    assert shared.of_head.tolist() == [IGNORED, 1, 0, IGNORED]


def test_what_the_other_set_ignores_is_not_shared(tmp_path):
    test = PhaseMapping(("cut", "rinse", "pack"), background=None, ignored=("pack",))
    shared = read_shared(write_map(tmp_path, "incision: cut\nwash: rinse\nsuture: pack\n"), HEAD, test)
    assert shared.names == ("cut", "rinse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("incision: cut\n", "expected at least two phases"),
        ("incison: cut\nwash: rinse\n", "'incison' is no phase of the head"),
        ("incision: cat\nwash: rinse\n", "'cat' is no phase of the test set"),
        ("incision: [cut]\nwash: rinse\n", "expected lines PHASE OF THE HEAD: PHASE OF THE TEST SET"),
    ],
)
def test_a_map_that_fits_no_set_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_shared(write_map(tmp_path, text), HEAD, PhaseMapping(("cut", "rinse"), background=None))


# --- what is lost -----------------------------------------------------------------------------------------------------


def test_on_the_same_videos_nothing_is_lost(trained, other, classes):
    """The other set's list tests what the head's own split does: equal numbers on both sides."""
    named = other.split_list("same")
    named.mkdir()
    for part in ("train", "test"):
        shutil.copy(other.bundle(part, 1), named / f"{part}.split1.bundle")
    path, table = predict_elsewhere(trained, "other", classes, test_splits="same", device="cpu")
    record = json.loads(path.read_text())
    assert path == trained.model.transfer_results("other", "made", "1") / "transfer.json"
    assert record["metrics"]["own"] == record["metrics"]["elsewhere"]
    assert record["drop"]["accuracy"]["mean"] == 0
    assert record["drop"]["accuracy"]["low"] <= 0 <= record["drop"]["accuracy"]["high"]
    assert record["videos"]["own"] == record["videos"]["elsewhere"] == list(trained.test_labels)
    assert table[1][0] == "Accuracy"
    assert {entry.name for entry in path.parent.iterdir()} >= {f"{video}.txt" for video in trained.test_labels}


def test_all_labelled_videos_of_the_other_set_are_tested_unless_a_list_is_named(trained, other, classes):
    path, _ = predict_elsewhere(trained, "other", classes, device="cpu")
    assert set(json.loads(path.read_text())["videos"]["elsewhere"]) == set(paths.label_paths(other.ground_truth))


def test_videos_of_one_patient_are_drawn_together(trained, other, classes):
    """All of the other set are of one patient: of a single unit there is no interval."""
    videos = paths.label_paths(other.ground_truth)
    other.patients.write_text("video,patient\n" + "".join(f"{video},P1\n" for video in videos))
    drop = json.loads(predict_elsewhere(trained, "other", classes, device="cpu")[0].read_text())["drop"]["accuracy"]
    assert drop["mean"] is not None
    assert (drop["low"], drop["high"]) == (None, None)


def test_labels_that_are_not_shared_count_on_neither_side(trained, other, tmp_path):
    head = list(trained.mapping.names)
    path = write_map(tmp_path, "".join(f"{name}: {name.upper()}\n" for name in head[1:]))
    record = json.loads(predict_elsewhere(trained, "other", path, device="cpu")[0].read_text())
    idle = {
        name: sum(line == head[0].upper() for line in labels.read_text().split())
        for name, labels in paths.label_paths(other.ground_truth).items()
    }
    assert record["labels_not_shared"] == {
        "own": sum(idle[v] for v in trained.test_labels),
        "elsewhere": sum(idle.values()),
    }
    assert record["phases"] == [name.upper() for name in head[1:]]


def test_a_video_without_a_shared_label_is_neither_scored_nor_drawn(trained, other, tmp_path):
    head = list(trained.mapping.names)
    path = write_map(tmp_path, "".join(f"{name}: {name.upper()}\n" for name in head[1:]))
    first = next(iter(paths.label_paths(other.ground_truth).values()))

    def found():
        record = json.loads(predict_elsewhere(trained, "other", path, device="cpu")[0].read_text())
        return (
            record["drop"]["accuracy"],
            record["metrics"]["elsewhere"]["accuracy"],
            len(record["videos"]["elsewhere"]),
        )

    first.write_text(f"{head[0].upper()}\n" * len(first.read_text().split()))
    drop, accuracy, num_videos = found()
    assert None not in drop.values()
    other.description.write_text(f"background: {head[0].upper()}\n")
    first.unlink()
    without, accuracy_without, one_less = found()
    assert (without, accuracy_without, one_less) == (drop, accuracy, num_videos - 1)


def test_features_that_were_made_otherwise_are_refused(trained, made, other, classes):
    for path in other.features("ColorHistogram").glob("*.json"):
        path.write_text(path.read_text().replace('"pyav"', '"opencv"'))
    with pytest.raises(UserError, match="were made in different ways"):
        predict_elsewhere(trained, "other", classes, device="cpu")


def test_the_own_set_is_refused(trained):
    with pytest.raises(UserError, match="the head was trained on this set"):
        predict_elsewhere(trained, "made", None, device="cpu")


def test_reports_do_not_take_it_for_a_run(trained, other, classes):
    from common.reports.results import run_names

    predict_elsewhere(trained, "other", classes, device="cpu")
    assert run_names(trained.model, other) == []


def test_the_command_prints_what_is_lost(trained, made, other, classes, capsys):
    words = ["--action", "predict", "--dataset", "made", "--model", "ColorHistogram", "--device", "cpu"]
    assert main([*words, "--test_dataset", "other", "--classes", str(classes)]) == 0
    printed = capsys.readouterr().out
    assert "lost, points" in printed
    assert "on made, %" in printed
    assert "transfer.json" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test_dataset", "other"], "add --action predict"),
        (["--action", "predict", "--classes", "map.yaml"], "without --test_dataset"),
        (["--action", "predict", "--test_dataset", "b", "--videos", "c"], "two different things"),
    ],
)
def test_words_without_effect(words, message):
    with pytest.raises(UserError, match=message):
        main(words)


def test_the_interval_of_a_difference_covers_it():
    """Two sets of normal values: in 93 to 97 percent of 400 trials the interval holds the true difference of 1."""
    random = np.random.default_rng(0)

    def mean(sums):
        return sums[..., 0] / sums[..., 1]

    held = []
    for _ in range(400):
        sides = [np.stack([random.normal(centre, 1, 40), np.ones(40)], axis=1) for centre in (3, 2)]
        found = difference_interval(*sides, mean, draws=400)
        held.append(found.low <= 1 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.98
