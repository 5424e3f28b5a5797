"""Runs of equal labels and their comparison."""

import numpy as np
import pytest

from common.dataset.segments import count_overlaps, edit_similarity, find_segments, legacy_last_end, without


def runs(*lengths_by_label: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(length, label) for label, length in lengths_by_label])


def naive_edit_distance(first: list[int], second: list[int]) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def test_segments_of_a_sequence():
    assert list(find_segments(np.array([3, 3, 1, 1, 1, 3]))) == [(3, 0, 2), (1, 2, 5), (3, 5, 6)]


def test_constant_sequence_is_one_segment():
    assert list(find_segments(np.zeros(5, int))) == [(0, 0, 5)]


def test_empty_sequence_has_no_segment():
    assert len(find_segments(np.array([], int))) == 0


def test_segments_rebuild_the_sequence():
    labels = np.random.default_rng(1).integers(0, 3, 300)
    segments = find_segments(labels)
    assert np.array_equal(np.repeat(segments.labels, segments.ends - segments.starts), labels)
    assert (segments.labels[1:] != segments.labels[:-1]).all()


def test_legacy_end_shortens_the_last_segment_only():
    segments = find_segments(np.array([0, 0, 1, 1]))
    assert list(legacy_last_end(segments)) == [(0, 0, 2), (1, 2, 3)]
    assert list(segments) == [(0, 0, 2), (1, 2, 4)]


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 1, 2], [0, 2], 2 / 3),  # one deletion of three
        ([0, 1, 0, 1], [0, 1], 0.5),
        ([1], [0], 0.0),
        ([], [], np.nan),
        ([], [0], 0.0),
    ],
)
def test_edit_similarity_by_hand(predicted, true, expected):
    similarity = edit_similarity(find_segments(np.array(predicted, int)), find_segments(np.array(true, int)))
    assert similarity == pytest.approx(expected, nan_ok=True)


def test_edit_similarity_ignores_durations():
    short, long = find_segments(runs((0, 1), (1, 1))), find_segments(runs((0, 90), (1, 7)))
    assert edit_similarity(short, long) == 1.0


def test_edit_similarity_equals_a_naive_levenshtein():
    generator = np.random.default_rng(2)
    for _ in range(50):
        first, second = (find_segments(generator.integers(0, 4, generator.integers(1, 30))) for _ in range(2))
        longer = max(len(first), len(second))
        expected = 1 - naive_edit_distance(first.labels.tolist(), second.labels.tolist()) / longer
        assert edit_similarity(first, second) == pytest.approx(expected)


def counts(predicted: np.ndarray, true: np.ndarray, threshold: float) -> tuple[int, int, int]:
    """True positives, false positives, false negatives."""
    return tuple(count_overlaps(find_segments(predicted), find_segments(true), [threshold])[0].tolist())


def test_segments_of_a_label_can_be_left_out():
    segments = find_segments(runs((0, 2), (1, 3), (0, 1), (2, 4)))
    assert list(without(segments, 0)) == [(1, 2, 5), (2, 6, 10)]
    assert list(without(segments, None)) == list(segments)
    assert len(without(find_segments(np.zeros(4, int)), 0)) == 0


def test_every_threshold_is_counted_at_once():
    true, predicted = runs((0, 10), (1, 10)), runs((0, 4), (2, 6), (1, 10))
    several = count_overlaps(find_segments(predicted), find_segments(true), [0.1, 0.25, 0.5])
    assert several.tolist() == [list(counts(predicted, true, threshold)) for threshold in (0.1, 0.25, 0.5)]


def test_perfect_prediction_is_all_true_positives():
    labels = runs((0, 10), (1, 20), (0, 5))
    assert counts(labels, labels, 0.5) == (3, 0, 0)


def test_overlap_at_the_threshold_counts():
    true, predicted = runs((0, 10), (1, 10)), runs((0, 5), (2, 5), (1, 10))
    assert counts(predicted, true, 0.5) == (2, 1, 0)
    assert counts(predicted, true, 0.51) == (1, 2, 1)


def test_a_true_segment_is_matched_once():
    true, predicted = runs((1, 20)), runs((1, 9), (0, 2), (1, 9))
    assert counts(predicted, true, 0.25) == (1, 2, 0)


def test_right_time_of_another_phase_is_no_match():
    assert counts(runs((1, 10)), runs((0, 10)), 0.1) == (0, 1, 1)


def test_without_true_segments_every_prediction_is_false():
    assert counts(runs((1, 10)), np.array([], int), 0.1) == (0, 1, 0)


def test_without_predictions_every_true_segment_is_missed():
    assert counts(np.array([], int), runs((1, 10), (0, 3)), 0.1) == (0, 0, 2)


def test_a_prediction_takes_its_one_best_segment_even_if_that_is_matched():
    """MS-TCN's rule: the second prediction overlaps the first true segment best, and does not fall back."""
    true = runs((1, 10), (0, 1), (1, 10))
    predicted = runs((1, 6), (2, 1), (1, 4), (0, 10))
    assert counts(predicted, true, 0.1)[0] == 1


def test_of_equally_good_segments_a_prediction_takes_the_first():
    """Its overlap with both is 2 of 8 frames; the second is left for the prediction at the end, 1 of 4."""
    true = runs((1, 4), (0, 2), (1, 4))
    predicted = runs((2, 2), (1, 6), (2, 1), (1, 1))
    assert counts(predicted, true, 0.25) == (2, 2, 1)
