"""An experiment: which videos it trains on."""

import pytest

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
