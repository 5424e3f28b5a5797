"""Counts of one video: distances of phase changes to predicted ones."""

import numpy as np

from common.dataset.segments import find_segments
from common.scoring.video_score import boundary_distances


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
