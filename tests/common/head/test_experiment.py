"""An experiment: which videos it trains on, and at which rate their features are."""

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.kfold import nested_subset
from common.head.experiment import load_experiment


@pytest.mark.parametrize("split", ["1", "2", "val"])
def test_a_training_fraction_leaves_out_training_videos_and_no_test_video(made, split):
    whole = load_experiment(made.config(split=split))
    part = load_experiment(made.config(split=split, train_fraction=0.67))
    assert list(part.train_labels) == nested_subset(list(whole.train_labels), 0.67)
    assert len(part.train_labels) == round(0.67 * len(whole.train_labels))
    assert part.train_labels.items() < whole.train_labels.items()
    assert part.test_labels == whole.test_labels
    assert part.folds_hash == whole.folds_hash


def test_the_subset_does_not_depend_on_the_training_seed(made):
    subsets = [load_experiment(made.config(train_fraction=0.67, seed=seed)).train_labels for seed in (42, 43)]
    assert subsets[0] == subsets[1]


def test_the_identity_of_the_training_inputs_covers_the_subset(made):
    hashes = set()
    for fraction in (0.34, 0.67, 1.0):
        experiment = load_experiment(made.config(train_fraction=fraction))
        hashes.add(experiment.inputs_hash(experiment.open(experiment.train_labels), experiment.train_labels))
    assert len(hashes) == 3


def from_elsewhere(made, stride):
    """Every `stride`-th feature of each video, without a sidecar."""
    for path in made.features.glob("*.npy"):
        array = np.load(path)[:, ::stride]
        path.with_suffix(".json").unlink()
        np.save(path, array)


def targets(made, **changes):
    experiment = load_experiment(made.config(split="val", **changes))
    return [video.target.tolist() for video in experiment.open(experiment.train_labels)]


def test_the_rate_of_features_from_elsewhere_is_said_by_a_flag_or_by_the_data_set(made):
    whole = targets(made)
    from_elsewhere(made, 5)
    with pytest.raises(UserError, match="add --feature_stride 5"):
        targets(made)
    expected = [target[::5] for target in whole]
    assert targets(made, feature_stride=5) == expected
    made.dataset.description.write_text("feature_fps: 5\nlabel_fps: 25\n")
    assert targets(made) == expected
    assert targets(made, feature_stride=5) == expected


def test_a_rate_that_is_no_whole_part_takes_the_nearest_labels(made):
    whole = targets(made)
    for path in made.features.glob("*.npy"):
        array = np.load(path)
        path.with_suffix(".json").unlink()
        np.save(path, array[:, np.rint(np.arange(0, array.shape[1], 2.5)).clip(max=array.shape[1] - 1).astype(int)])
    made.dataset.description.write_text("feature_fps: 10\nlabel_fps: 25\n")
    for target, labels in zip(targets(made), whole, strict=True):
        places = np.rint(np.arange(len(target)) * 2.5).astype(int)
        assert target == [labels[place] for place in places if place < len(labels)]


def test_the_rate_of_the_labels_may_be_that_of_the_video(made, make_clip):
    whole = targets(made)
    from_elsewhere(made, 5)
    made.dataset.description.write_text("feature_fps: 5\n")
    with pytest.raises(
        UserError, match=r"not how many labels a second BL_1 has.*add label_fps, or give --feature_stride"
    ):
        targets(made)
    for path in made.features.glob("*.npy"):
        make_clip(made.dataset.videos / f"{path.stem}.mp4", [np.zeros((16, 16, 3), np.uint8)] * 4, fps=25)
    assert targets(made) == [target[::5] for target in whole]


def test_a_rate_above_that_of_the_labels_is_refused(made):
    from_elsewhere(made, 1)
    made.dataset.description.write_text("feature_fps: 25\nlabel_fps: 1\n")
    with pytest.raises(UserError, match="feature_fps 25 is more than the 1 labels a second of BL_1"):
        targets(made)


def test_sidecars_say_more_than_the_data_set(made):
    whole = targets(made)
    made.dataset.description.write_text("feature_fps: 5\n")
    assert targets(made) == whole
    made.dataset.description.write_text("feature_fps: 5\nlabel_fps: 25\n")
    assert targets(made) == whole


def test_another_rate_is_another_input(made):
    from_elsewhere(made, 5)
    hashes = set()
    for stride in (5, 5.02):  # within the last frame alike
        made.dataset.description.write_text(f"feature_fps: {25 / stride}\nlabel_fps: 25\n")
        experiment = load_experiment(made.config())
        hashes.add(experiment.inputs_hash(experiment.open(experiment.train_labels), experiment.train_labels))
    assert len(hashes) == 2


def test_folds_that_split_a_patient_are_not_trained_on(made):
    first, second = (fold[0] for fold in load_experiment(made.config()).splits.tests)
    made.dataset.patients.write_text(f"video,patient\n{first},p1\n{second}.mp4,p1\n")
    with pytest.raises(UserError, match="patient p1 is in 2 test folds"):
        load_experiment(made.config())
    load_experiment(made.config(split="val"))


def test_features_that_are_not_what_was_written_are_refused_unless_nobody_looks(made):
    """A bit that a disk has flipped: neither the header nor any shape tells."""
    path = made.features / "BL_1.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    experiment = load_experiment(made.config(split="val"))
    with pytest.raises(UserError, match=r"BL_1\.npy: its content is not what was written"):
        experiment.open(experiment.train_labels)
    assert len(experiment.open(experiment.test_labels)) == 2
    hasty = load_experiment(made.config(split="val"), verify=False)
    assert len(hasty.open(hasty.train_labels)) == 6
