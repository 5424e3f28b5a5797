"""Measures of counts: hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from common.scoring import metrics
from common.scoring.metrics import confusion_matrix


def random_labels(seed: int, num_classes: int = 6, num_frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    true = np.repeat(generator.integers(0, num_classes, 20), num_frames // 20)
    predicted = np.where(generator.random(num_frames) < 0.7, true, generator.integers(0, num_classes, num_frames))
    return true, predicted


def test_confusion_rows_are_true_and_columns_predicted():
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_narrow_label_types_do_not_overflow():
    labels = np.full(10, 18, dtype=np.int8)
    assert confusion_matrix(labels, labels, 19)[18, 18] == 10


@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_scikit_learn(seed):
    true, predicted = random_labels(seed)
    confusion = confusion_matrix(true, predicted, 19)  # 13 of the 19 classes are neither true nor predicted
    assert metrics.accuracy(confusion) == pytest.approx((true == predicted).mean())
    assert metrics.mean_of_defined(metrics.f1_per_class(confusion)) == pytest.approx(
        f1_score(true, predicted, average="macro")
    )
    assert metrics.mean_of_defined(metrics.jaccard_per_class(confusion)) == pytest.approx(
        jaccard_score(true, predicted, average="macro")
    )
    assert metrics.jaccard_micro(confusion) == pytest.approx(jaccard_score(true, predicted, average="micro"))
    assert metrics.balanced_accuracy(confusion) == pytest.approx(balanced_accuracy_score(true, predicted))
    classes = np.unique(true)
    assert metrics.precision_per_class(confusion)[classes] == pytest.approx(
        precision_score(true, predicted, average=None, labels=classes)
    )
    assert metrics.recall_per_class(confusion)[classes] == pytest.approx(
        recall_score(true, predicted, average=None, labels=classes)
    )


def test_many_confusion_matrices_are_measured_at_once():
    confusions = np.stack([confusion_matrix(*random_labels(seed), 8) for seed in range(4)])
    for measure in (metrics.accuracy, metrics.f1_per_class, metrics.jaccard_per_class, metrics.balanced_accuracy):
        together, apart = measure(confusions), [measure(confusion) for confusion in confusions]
        assert np.allclose(together, apart, equal_nan=True)


def test_one_hallucinated_frame_costs_a_class():
    """100 frames, 2 phases, one frame of a third: 0.66. (Over true classes alone it would be 0.995, over all 19 0.10.)"""
    true = np.repeat([0, 1], 50)
    predicted = true.copy()
    predicted[99] = 2
    confusion = confusion_matrix(true, predicted, 19)
    assert metrics.mean_of_defined(metrics.f1_per_class(confusion)) == pytest.approx((1 + 98 / 99 + 0) / 3)


def test_per_class_measures_are_nan_for_a_class_neither_true_nor_predicted():
    confusion = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 4)
    assert metrics.f1_per_class(confusion)[:2] == pytest.approx([2 / 3, 2 / 3])
    assert metrics.jaccard_per_class(confusion)[:2] == pytest.approx([1 / 2, 1 / 2])
    assert np.isnan(metrics.f1_per_class(confusion)[2:]).all()
    assert np.isnan(metrics.jaccard_per_class(confusion)[2:]).all()


def test_missed_class_counts_as_0_not_as_undefined():
    confusion = confusion_matrix(np.array([0, 1]), np.array([0, 0]), 2)
    assert metrics.f1_per_class(confusion)[1] == 0
    assert np.isnan(metrics.precision_per_class(confusion)[1])


def test_measures_without_frames_are_undefined():
    nothing = np.zeros((3, 3), int)
    for measure in (metrics.accuracy, metrics.jaccard_micro, metrics.balanced_accuracy):
        assert np.isnan(measure(nothing))


def test_mean_of_defined_leaves_nan_out():
    assert metrics.mean_of_defined([1.0, float("nan"), 0.0]) == 0.5
    assert np.isnan(metrics.mean_of_defined([float("nan")]))
    assert np.isnan(metrics.mean_of_defined([]))


def test_average_precision_by_hand():
    """Ranked: hit, miss, hit, miss -> precision 1 at recall 1/2, 2/3 at recall 1."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    result = metrics.average_precision_per_class(np.array([0, 1, 0, 1]), probabilities)
    assert result[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_average_precision_is_undefined_for_an_absent_class():
    true, _ = random_labels(7)
    true = np.where(true == 2, 3, true)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), len(true))
    per_class = metrics.average_precision_per_class(true, probabilities)
    assert np.isnan(per_class).tolist() == [False, False, True, False, False, False]
    assert per_class[4] == pytest.approx(average_precision_score(true == 4, probabilities[:, 4]))


def test_segmental_f1_adds_counts_before_dividing():
    counts = np.array([(1, 0, 0), (1, 3, 5)])
    assert metrics.segmental_f1(counts.sum(axis=0)) == pytest.approx(2 * 2 / (2 * 2 + 3 + 5))
    assert metrics.segmental_f1(counts) == pytest.approx([1, 2 / 10])
    assert np.isnan(metrics.segmental_f1(np.zeros(3)))


def test_calibration_error_by_hand():
    """Four frames at confidence 0.9 of which two are right, one at 0.6 that is right: (4 x 0.4 + 1 x 0.4) / 5."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    bins = metrics.calibration_bins(np.array([0, 0, 1, 1, 0]), probabilities)
    assert bins[:, 0].sum() == 5
    assert metrics.calibration_error(bins) == pytest.approx(0.4)


def test_calibration_has_fifteen_bins_that_are_closed_above():
    """0.78 (wrong) and 0.8 = 12/15 (right) share a bin, in which 0.72 (right) is not: (|1.58 - 1| + |0.72 - 1|) / 3."""
    confidence = np.array([0.72, 0.78, 0.8])
    bins = metrics.calibration_bins(np.array([0, 1, 0]), np.stack([confidence, 1 - confidence], axis=1))
    assert len(bins) == 15
    assert np.flatnonzero(bins[:, 0]).tolist() == [10, 11]
    assert metrics.calibration_error(bins) == pytest.approx(0.86 / 3)


def test_certain_and_right_is_perfectly_calibrated():
    bins = metrics.calibration_bins(np.array([0, 1]), np.eye(2))
    assert metrics.calibration_error(bins) == 0
    assert np.isnan(metrics.calibration_error(np.zeros_like(bins)))
