"""Heads that did not learn are named by their signs, and others are not."""

from dataclasses import replace

import numpy as np
import pytest

from common.head.config import TrainConfig
from common.reports.caveats import remarks
from common.reports.results import EncoderResult, SplitResult
from common.reports.robustness.learning import unlearned
from common.scoring.video_score import VideoScore
from tests.common.reports.rows import PHASES, TRUE, record_of, row

VIDEOS = ["video000", "video001"]


def history(losses, accuracies):
    return [{"loss": loss, "accuracy": accuracy} for loss, accuracy in zip(losses, accuracies, strict=True)]


LEARNED = history(np.linspace(3, 1, 30), np.linspace(0.3, 0.9, 30))
STUCK = history(np.linspace(3, 2.95, 30), [0.6] * 30)
CHANCE = history(np.linspace(3, 2, 30), [0.601] * 30)
WEAK = history(np.linspace(3.1, 2.7, 30), np.minimum(np.linspace(0.1, 0.9, 30), 0.606))


def signs(**changes) -> str:
    return unlearned([row("A", [0.8, 0.9], **changes)]).get("A", "")


def test_a_head_that_learned_shows_no_sign():
    assert signs(history=LEARNED, train_majority_share=0.6) == ""


def test_a_linear_head_that_learned_the_little_there_is_shows_none():
    """As on colour histograms of the sample set: a little above the majority class, a loss that fell by an eighth."""
    assert signs(history=WEAK, train_majority_share=0.6) == ""


def test_training_accuracy_near_the_majority_class():
    found = signs(history=CHANCE, train_majority_share=0.6)
    assert found == "training accuracy no better than the majority class (60.1 % to 60.0 %)"
    assert signs(history=CHANCE, train_majority_share=0.5) == ""


def test_weighted_classes_may_stay_below_the_majority_class():
    config = TrainConfig(model="A", features_dim=8, class_weights="inverse")
    assert signs(history=CHANCE, train_majority_share=0.6, config=config) == ""


def test_without_the_majoritys_share_its_sign_is_not_judged():
    assert signs(history=CHANCE) == ""


def test_a_loss_that_hardly_fell():
    assert signs(history=STUCK) == "the loss hardly fell (3 to 2.95 in 30 epochs)"
    assert "the loss hardly fell (3 to nan" in signs(history=[*STUCK[:-1], {"loss": float("nan"), "accuracy": 0.6}])
    assert signs(history=STUCK[:3]) == ""  # in three epochs no loss falls much


def of_predictions(predicted: np.ndarray, likely: np.ndarray | None = None) -> EncoderResult:
    load = None if likely is None else lambda: likely
    scores = {name: VideoScore(TRUE, predicted, len(PHASES), 0, 5.0, load) for name in VIDEOS}
    record = record_of("A", VIDEOS, history=LEARNED)
    return replace(row("A", [1.0, 1.0]), splits=[SplitResult(record, scores)])


def test_one_phase_throughout_every_video():
    assert unlearned([of_predictions(np.full_like(TRUE, 2))]) == {"A": "one phase throughout every video"}
    result = of_predictions(TRUE)
    constant = of_predictions(np.full_like(TRUE, 2)).splits[0].scores
    result.splits[0].scores[VIDEOS[0]] = constant[VIDEOS[0]]
    assert unlearned([result]) == {}  # one such video says nothing


@pytest.mark.parametrize(("highest", "shown"), [(1 / 3, True), (0.34, True), (0.4, False), (0.9, False)])
def test_equal_probabilities(highest, shown):
    likely = np.where(np.eye(3)[TRUE] == 1, highest, (1 - highest) / 2)
    found = unlearned([of_predictions(TRUE, likely)])
    assert found == ({"A": f"equal probabilities (the highest is {100 * highest:.1f} % on average)"} if shown else {})


def test_folds_are_named_and_the_advice_is_in_a_red_remark():
    first, second = row("A", [0.8], history=LEARNED).splits[0], row("A", [0.8], history=STUCK).splits[0]
    second = SplitResult(second.record | {"split": "2"}, second.scores)
    result = replace(row("A", [0.8]), splits=[first, second])
    assert unlearned([result]) == {"A": "the loss hardly fell (fold 2: 3 to 2.95 in 30 epochs)"}
    (remark,) = [remark for remark in remarks([result]) if "Did not learn" in str(remark)]
    assert remark.alarming
    assert "Did not learn: A: the loss hardly fell (fold 2" in str(remark)
    for advice in ("--standardise train", "--lr", "--num_epochs"):
        assert advice in str(remark)


def test_rows_without_a_training_of_their_own_are_not_judged():
    """Floors, predictions made elsewhere and records of early versions have no history."""
    constant = of_predictions(np.full_like(TRUE, 2))
    record = constant.splits[0].record | {"history": None}
    assert unlearned([replace(constant, splits=[SplitResult(record, constant.splits[0].scores)])]) == {}
