"""Counts of one video: distances of phase changes to predicted ones."""

import pickle

import numpy as np
import pytest

from common.dataset.phases import IGNORED
from common.dataset.segments import find_segments
from common.scoring.protocols import PROTOCOLS, summarise
from common.scoring.video_score import SegmentRule, VideoScore, boundary_distances


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


# --- labels that do not count ---------------------------------------------------------------------------------------


def scored(true, predicted, probabilities=None) -> VideoScore:
    load = None if probabilities is None else lambda: probabilities
    return VideoScore(np.array(true), np.array(predicted), 3, fps=1.0, load_probabilities=load)


NOT = IGNORED


def test_frames_that_do_not_count_are_in_no_frame_measure():
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 3, 60), random.integers(0, 3, 60)
    probabilities = random.dirichlet(np.ones(3), 60)
    true[[0, 1, 2, 20, 21, 59]] = NOT
    counts = true != NOT
    score, without = (
        scored(true, predicted, probabilities),
        scored(true[counts], predicted[counts], probabilities[counts]),
    )
    assert np.array_equal(score.confusion, without.confusion)
    assert score.accuracy == without.accuracy == pytest.approx((true == predicted)[counts].mean())
    assert np.array_equal(score.average_precision, without.average_precision)
    assert np.array_equal(score.calibration, without.calibration)
    assert score.num_frames == 60


def test_they_cut_segments_of_truth_and_prediction_alike():
    true = [NOT, NOT, 0, 0, NOT, NOT, 0, 0, 1, 1]
    predicted = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    found = [[(label, start, end) for label, start, end in each] for each in scored(true, predicted).segments]
    assert found == [[(0, 2, 4), (0, 6, 8), (1, 8, 10)]] * 2


def test_a_prediction_that_is_right_wherever_labels_count_is_perfect():
    true, predicted = np.repeat([NOT, 1, NOT, 2, 0], 30), np.repeat([0, 1, 1, 2, 0], 30)
    score = scored(true, predicted, np.eye(3)[predicted])
    summary = summarise([score], PROTOCOLS["pooled"])
    assert {key: value for key, value in summary.items() if value != 1.0} == {}


def test_a_phase_after_frames_that_do_not_count_is_no_change():
    true = np.array([0, 0, NOT, NOT, 1, 1, 2, 2])
    assert scored(true, np.array([0, 0, 0, 0, 0, 1, 1, 2])).boundary_seconds.tolist() == [1.0]


def test_the_last_segment_ends_early_only_where_the_video_ends():
    """As in the original code, where frames without a label would be a class that is left out after the trimming."""
    legacy = SegmentRule(background=True, last_segment="legacy")
    # overlaps 5 of 10 frames; a frame less would be 4 of 9
    true, predicted = np.repeat([0, 1, NOT], 10), np.repeat([0, 1], [15, 15])
    assert scored(true, predicted).segment_score(legacy).overlap_counts[2].tolist() == [2, 0, 0]
    assert scored(true[:20], predicted[:20]).segment_score(legacy).overlap_counts[2].tolist() == [1, 1, 1]


# --- counts that are taken once ---------------------------------------------------------------------------------------


def test_probabilities_are_read_once_for_all_that_is_asked_of_them():
    true, predicted = np.repeat([0, 1, NOT, 2], 5), np.repeat([0, 1, 1, 0], 5)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    read = []
    score = VideoScore(true, predicted, 3, fps=1.0, load_probabilities=lambda: read.append(1) or probabilities)
    for protocol in PROTOCOLS.values():
        summarise([score], protocol)
    assert len(read) == 2, "once for the video, once for all frames of all videos, which are asked for first"
    assert score.from_probabilities.of_segments[0] == pytest.approx(probabilities[:5, 0].mean())
    assert score.from_probabilities.at_changes[0] == pytest.approx(probabilities[4:6].max(axis=1).mean())
    assert score.from_probabilities.mean_highest == pytest.approx(probabilities.max(axis=1).mean())

    read.clear()
    again = VideoScore(true, predicted, 3, fps=1.0, load_probabilities=lambda: read.append(1) or probabilities)
    pooled = summarise([again], PROTOCOLS["pooled"])
    assert np.array_equal(again.average_precision, score.average_precision)
    assert pooled["pr_auc"] == pytest.approx(np.nanmean(again.average_precision))
    assert len(read) == 1


def test_a_score_that_went_to_another_process_is_the_same():
    score = scored([0, 0, 1, 1, NOT, 2], [0, 1, 1, 1, 1, 2])
    score.count([SegmentRule(background=True, last_segment="legacy")])
    again = pickle.loads(pickle.dumps(score))
    assert again.true.tolist() == score.true.tolist()
    assert again.predicted.tolist() == score.predicted.tolist()
    assert again.true.dtype == score.true.dtype
    assert summarise([again], PROTOCOLS["mstcn"]) == pytest.approx(summarise([score], PROTOCOLS["mstcn"]), nan_ok=True)
