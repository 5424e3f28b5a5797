"""The phase probe: the same clips at every check, shared out among processes."""

import math

import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from common.base.runtime import UserError
from common.video.preprocess import Preprocessing
from pretrain.engine.distributed import Processes
from pretrain.phase_probe import NearestPhases, evenly, knn_accuracy

ALONE = Processes(0, 1, torch.device("cpu"))


def probe(processes=ALONE, batch_size=3, clip_len=1, fps=4.0) -> NearestPhases:
    rule = Preprocessing(size=32)
    return NearestPhases("Cataract-101", rule, processes, clip_len=clip_len, fps=fps, batch_size=batch_size)


def colour(batch):
    """`(N, 3)`: the mean colour of a clip, on its way through a recipe as `features`."""
    return batch["clip"].float().mean(dim=(1, 3, 4))


def test_features_that_show_the_phase_find_it(cataract101):
    assert probe()(colour) == {"balanced_accuracy": 1.0, "accuracy": 1.0}


def test_features_of_nothing_do_not(cataract101):
    scores = probe()(lambda batch: torch.ones(len(batch["clip"]), 4))
    assert scores["balanced_accuracy"] == 0.5


def test_the_first_score_is_the_balanced_one(cataract101):
    assert next(iter(probe()(colour))) == "balanced_accuracy"


def test_clips_have_the_shape_of_the_recipe(cataract101):
    shapes = set()

    def features(batch):
        shapes.add((batch["clip"].shape, batch["clip"].dtype))
        return colour(batch)

    probe(batch_size=2, clip_len=4, fps=2.0)(features)
    assert shapes == {(torch.Size([2, 4, 3, 32, 32]), torch.uint8)}


def test_a_last_batch_is_filled_up_and_cut_again(cataract101):
    whole, one_by_one = probe(batch_size=64), probe(batch_size=1)
    numbers = list(range(5))
    torch.testing.assert_close(
        whole._features(colour, whole.bank, numbers), one_by_one._features(colour, one_by_one.bank, numbers)
    )
    assert whole._features(colour, whole.bank, numbers).shape == (5, 3)


def test_two_processes_share_the_clips_and_agree_with_one(two, cataract101):
    alone = probe(batch_size=3)
    expected = alone._features(colour, alone.bank, list(range(8)))
    for found, seen in two(shared, str(cataract101.root), 8):
        torch.testing.assert_close(found, expected)
        assert seen == 6  # 8 clips in batches of 2 x 3


def shared(root: str, count: int):
    """Features of `count` clips, and how many of them this process computed."""
    processes, seen = Processes(dist.get_rank(), 2, torch.device("cpu")), []
    own = NearestPhases(root, Preprocessing(size=32), processes, clip_len=1, fps=4.0, batch_size=3)

    def features(batch):
        seen.append(len(batch["clip"]))
        return colour(batch)

    return own._features(features, own.bank, list(range(count))), sum(seen)


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (9, [0, 4, 8]), (1, [0])])
def test_numbers_are_spread_evenly(count, expected):
    assert evenly(count, most=3) == expected


def test_a_data_set_needs_no_record_of_an_import(cataract101):
    (cataract101.root / "manifest.json").unlink()
    assert probe()(colour)["balanced_accuracy"] == 1.0


# the vote, against hand-computed ones and against scikit-learn


def at_angles(*degrees: float) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def blobs(num: int, seed: int, num_classes: int = 5, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping clusters of unequal sizes around directions that do not depend on `seed`."""
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.arange(1.0, num_classes + 1), num, replacement=True, generator=random)
    return centres[labels] + 2 * torch.randn(num, dim, generator=random), labels


def test_hand_case_temperature_decides_between_one_near_and_two_far():
    """One neighbour of class 0 at 0 degrees (s = 1), two of class 1 at 60 degrees (s = .5): they tie at T = .5 / ln 2."""
    train, labels = at_angles(0, 60, -60), torch.tensor([0, 1, 1])
    query, truth = at_angles(0), torch.tensor([0])
    tie = 0.5 / math.log(2)
    assert knn_accuracy(train, labels, query, truth, k=3, temperature=0.95 * tie) == (1.0, 1.0)
    assert knn_accuracy(train, labels, query, truth, k=3, temperature=1.05 * tie) == (0.0, 0.0)
    assert knn_accuracy(train, labels, query, truth, k=1, temperature=1.05 * tie) == (1.0, 1.0)


def test_hand_case_balanced_accuracy():
    """Three of class 0 right, the one of class 2 wrong: 3/4 of the clips, half of the classes; class 1 is not tested."""
    train, labels = at_angles(0, 90, 180), torch.tensor([0, 1, 2])
    test, truth = at_angles(5, -5, 10, 20), torch.tensor([0, 0, 0, 2])
    assert knn_accuracy(train, labels, test, truth, k=1) == (0.75, 0.5)


def test_lengths_of_features_do_not_matter():
    train, labels = blobs(200, 0)
    test, truth = blobs(100, 1)
    scale = torch.rand(200, 1, generator=torch.Generator().manual_seed(2)) + 0.1
    assert knn_accuracy(train * scale, labels, test * 7, truth) == knn_accuracy(train, labels, test, truth)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (400, 0.02)])
def test_same_as_scikit_learn_with_the_same_weights(k, temperature):
    train, labels = blobs(400, 0)
    test, truth = blobs(300, 1)
    other = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: torch.tensor((1 - distance) / temperature).exp().numpy(),
    ).fit(train.double().numpy(), labels.numpy())
    predicted = other.predict(test.double().numpy())
    accuracy, balanced = knn_accuracy(train, labels, test, truth, k=k, temperature=temperature)
    assert 0.3 < accuracy < 0.98  # neither trivial nor hopeless
    assert accuracy == pytest.approx((predicted == truth.numpy()).mean(), abs=1e-12)
    assert balanced == pytest.approx(balanced_accuracy_score(truth.numpy(), predicted), abs=1e-12)


def test_chunks_give_the_same():
    train, labels = blobs(200, 0)
    test, truth = blobs(101, 1)
    assert knn_accuracy(train, labels, test, truth, chunk_size=7) == knn_accuracy(train, labels, test, truth)


def test_small_temperatures_do_not_overflow():
    train, labels = at_angles(0, 90), torch.tensor([0, 1])
    assert knn_accuracy(train, labels, at_angles(1, 89), labels, k=2, temperature=1e-4) == (1.0, 1.0)


def test_half_precision_features_are_compared_in_fp32():
    train, labels = blobs(200, 0)
    test, truth = blobs(100, 1)
    rounded = knn_accuracy(train.bfloat16().float(), labels, test.bfloat16().float(), truth)
    assert knn_accuracy(train.bfloat16(), labels, test.bfloat16(), truth) == rounded


def test_test_labels_unknown_to_training_are_wrong():
    train, labels = at_angles(0, 90), torch.tensor([0, 1])
    assert knn_accuracy(train, labels, at_angles(0, 90), torch.tensor([0, 5]), k=1) == (0.5, 0.5)


def test_errors():
    train, labels = blobs(5, 0)
    with pytest.raises(UserError, match="k = 20 neighbours cannot be found among 5 training features"):
        knn_accuracy(train, labels, train, labels)
    with pytest.raises(UserError, match="no test features"):
        knn_accuracy(train, labels, train[:0], labels[:0], k=1)
    with pytest.raises(UserError, match="NaN or infinity"):
        knn_accuracy(train, labels, train * math.nan, labels, k=1)
