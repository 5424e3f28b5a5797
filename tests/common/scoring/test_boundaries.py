"""Phase changes: distances to predicted ones, and relaxed scoring."""

import numpy as np
import pytest

from common.dataset.segments import find_segments
from common.scoring.boundaries import boundary_distances, relaxed_prediction


def runs(*lengths_by_label: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(length, label) for label, length in lengths_by_label])


def distances(predicted: np.ndarray, true: np.ndarray) -> list[float]:
    return boundary_distances(find_segments(predicted), find_segments(true)).tolist()


def test_distance_of_each_change_to_the_nearest_start_of_its_phase():
    true, predicted = runs((0, 10), (1, 10), (2, 10)), runs((0, 13), (1, 5), (2, 12))
    assert distances(predicted, true) == [3, 2]


def test_the_nearest_of_several_starts_counts():
    true, predicted = runs((0, 10), (1, 10)), runs((0, 2), (1, 1), (0, 8), (1, 9))
    assert distances(predicted, true) == [1]


def test_a_phase_that_is_never_predicted_is_missed_not_near():
    true, predicted = runs((0, 10), (1, 10), (2, 5)), runs((0, 20), (2, 5))
    found = distances(predicted, true)
    assert np.isnan(found[0])
    assert found[1] == 0


def test_a_video_of_one_phase_has_no_change():
    assert distances(runs((1, 5)), runs((1, 5))) == []
    assert distances(runs((1, 5)), np.array([], int)) == []


def test_a_late_change_within_the_tolerance_is_forgiven():
    true, predicted = runs((0, 10), (1, 10)), runs((0, 12), (1, 8))
    assert relaxed_prediction(true, predicted, 2).tolist() == true.tolist()
    assert (relaxed_prediction(true, predicted, 1) != true).sum() == 1


def test_a_phase_that_is_not_true_nearby_is_not_forgiven():
    true, predicted = runs((0, 10), (1, 10)), runs((0, 9), (2, 2), (1, 9))
    assert relaxed_prediction(true, predicted, 5).tolist() == predicted.tolist()


def test_without_tolerance_nothing_changes():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 3, 50), generator.integers(0, 3, 50)
    assert relaxed_prediction(true, predicted, 0).tolist() == predicted.tolist()


@pytest.mark.parametrize("tolerance", [1, 4, 11])
def test_relaxing_equals_a_look_at_every_frame(tolerance):
    generator = np.random.default_rng(tolerance)
    true, predicted = np.repeat(generator.integers(0, 4, 20), 7), np.repeat(generator.integers(0, 4, 28), 5)
    near = [predicted[t] in true[max(0, t - tolerance) : t + tolerance + 1] for t in range(len(true))]
    assert relaxed_prediction(true, predicted, tolerance).tolist() == np.where(near, true, predicted).tolist()


def test_inputs_stay_as_they_are():
    true, predicted = runs((0, 3), (1, 3)), runs((0, 4), (1, 2))
    relaxed_prediction(true, predicted, 3)
    assert predicted.tolist() == [0, 0, 0, 0, 1, 1]
