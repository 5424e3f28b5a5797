"""Measures of tools and clips: the reference cases, scikit-learn where it defines them, draws of units by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from common.scoring.metrics import accuracy, balanced_accuracy, confusion_matrix, mean_of_defined
from common.scoring.task_measures import (
    average_precision_of_counts,
    average_precisions,
    balanced_accuracies,
    largest_share,
    macro_f1_of_truth,
    mean_of_classes,
    presence_calibration,
    rank_frames,
    roc_area_of_counts,
    roc_areas,
    unweighted_logits,
)

NAN = float("nan")


def reference_cases(reference_data, kind: str) -> list[dict]:
    cases = json.loads((reference_data / "golden" / "task_metrics_cases.json").read_text())["cases"]
    found = [case for case in cases.values() if case["kind"] == kind]
    assert found
    return found


def numbers(values) -> np.ndarray:
    """Numbers of a case, whose null is our NaN."""
    return np.array([NAN if value is None else value for value in values], dtype=float)


def test_several_classes_as_the_reference_cases_say(reference_data):
    for case in reference_cases(reference_data, "multilabel"):
        truth, scores, expected = np.array(case["truth"], float), np.array(case["scores"]), case["expected"]
        videos = np.array(case["video"])
        pooled = average_precisions(truth, scores)
        np.testing.assert_allclose(pooled, numbers(expected["ap_pooled"]), atol=1e-9)
        assert mean_of_defined(pooled) == pytest.approx(expected["map_pooled"], abs=1e-9)
        by_video = {video: average_precisions(truth[videos == video], scores[videos == video]) for video in set(videos)}
        for video, values in by_video.items():
            np.testing.assert_allclose(values, numbers(expected["ap_by_video"][video]), atol=1e-9)
        over_videos = mean_of_defined(np.stack(list(by_video.values())), axis=0)
        np.testing.assert_allclose(over_videos, numbers(expected["ap_mean_over_videos"]), atol=1e-9)
        assert mean_of_defined(over_videos) == pytest.approx(expected["map_videowise"], abs=1e-9)
        balanced = balanced_accuracies(truth, scores)
        np.testing.assert_allclose(balanced, numbers(expected["balanced_accuracy_at_0.5"]), atol=1e-9)


def test_tools_of_cataracts_as_the_reference_case_says(reference_data):
    for case in reference_cases(reference_data, "tools_auc"):
        truth, scores = np.array(case["truth"]), np.array(case["scores"])
        evaluated = np.array(case["to_be_evaluated"]) == 1
        truth = np.where(truth == 0.5, NAN, truth)
        areas = roc_areas(truth[evaluated], scores[evaluated])
        np.testing.assert_allclose(areas, case["expected"]["auc"], atol=1e-9)
        assert mean_of_defined(areas) == pytest.approx(case["expected"]["mean_auc"], abs=1e-9)


def test_clips_as_the_reference_cases_say(reference_data):
    for case in reference_cases(reference_data, "clips"):
        truth, scores, expected = np.array(case["truth"]), np.array(case["scores"]), case["expected"]
        confusion = confusion_matrix(truth, scores.argmax(axis=1), scores.shape[1])
        assert accuracy(confusion) == pytest.approx(expected["top1"], abs=1e-9)
        assert macro_f1_of_truth(confusion) == pytest.approx(expected["macro_f1_classes_in_truth"], abs=1e-9)
        assert balanced_accuracy(confusion) == pytest.approx(expected["balanced_accuracy"], abs=1e-9)
        assert largest_share(confusion) == pytest.approx(expected["majority_share"], abs=1e-9)


def test_parts_of_triplets_as_the_reference_case_says(reference_data):
    """A triplet stands for its instrument, verb and target: each is as sure as the surest triplet that has it."""
    parts = {17: (0, 1, 0), 60: (2, 2, 0), 79: (4, 4, 2), 94: (0, 9, 14)}
    for case in reference_cases(reference_data, "triplets"):
        for place, key in enumerate(("i", "v", "t", "ivt")):
            part_of = {triplet: triplet if key == "ivt" else part[place] for triplet, part in parts.items()}
            classes = sorted({part for triplet, part in part_of.items() if key != "ivt" or triplet < 94})
            videos = []
            for video in case["videos"]:
                truth = np.array(
                    [[float(c in [part_of[t] for t in frame]) for c in classes] for frame in video["truth"]]
                )
                answered = [{int(t): score for t, score in frame.items()} for frame in video["scores"]]
                scores = np.array(
                    [
                        [max([s for t, s in frame.items() if part_of[t] == c], default=0.0) for c in classes]
                        for frame in answered
                    ]
                )
                videos.append((truth, scores))
            over_videos = mean_of_defined(np.stack([average_precisions(*video) for video in videos]), axis=0)
            expected = case["expected"][key]
            assert dict(zip(map(str, classes), over_videos, strict=True)) == pytest.approx(
                expected["ap_video"], abs=1e-9
            )
            assert mean_of_defined(over_videos) == pytest.approx(expected["video_mAP"], abs=1e-9)
            pooled = average_precisions(*(np.concatenate(side) for side in zip(*videos, strict=True)))
            assert mean_of_defined(pooled) == pytest.approx(expected["pooled_mAP"], abs=1e-9)


def test_a_positive_weight_is_taken_off_as_the_reference_case_says(reference_data):
    for case in reference_cases(reference_data, "calibration"):
        answered = np.array(case["answered"])
        logits = unweighted_logits(np.log(answered / (1 - answered)), case["weight"])
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), case["expected"]["probability"], atol=1e-9)


def test_random_rankings_with_ties_are_scored_as_scikit_learn_does():
    random = np.random.default_rng(0)
    for _ in range(20):
        truth = (random.random((60, 3)) < 0.3).astype(float)
        scores = random.integers(0, 8, (60, 3)) / 8
        expected = [average_precision_score(*columns) for columns in zip(truth.T, scores.T, strict=True)]
        np.testing.assert_allclose(average_precisions(truth, scores), expected, atol=1e-12)
        areas = [roc_auc_score(*columns) for columns in zip(truth.T, scores.T, strict=True)]
        np.testing.assert_allclose(roc_areas(truth, scores), areas, atol=1e-12)


def test_unlabelled_frames_are_left_out():
    truth, scores = np.array([[1.0], [NAN], [0.0], [1.0]]), np.array([[0.9], [0.95], [0.5], [0.4]])
    assert average_precisions(truth, scores)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(roc_areas(np.array([[1.0], [NAN]]), scores[:2])[0])


def test_a_unit_drawn_twice_counts_like_its_frames_written_twice():
    random = np.random.default_rng(1)
    units = np.repeat([0, 1, 2], [5, 7, 9])
    truth, scores = (random.random(21) < 0.5).astype(float), random.integers(0, 5, 21) / 5
    ranking = rank_frames(truth, scores, units)
    counts = np.array([[2, 0, 1], [1, 1, 1], [0, 3, 2]])
    for measure, of_sklearn in (
        (average_precision_of_counts, average_precision_score),
        (roc_area_of_counts, roc_auc_score),
    ):
        times = [np.repeat(np.arange(21), of_draw[units]) for of_draw in counts]
        expected = [of_sklearn(truth[rows], scores[rows]) for rows in times]
        np.testing.assert_allclose(measure(ranking, counts), expected, atol=1e-12)


def test_a_draw_without_a_positive_is_undefined():
    ranking = rank_frames(np.array([1.0, 0.0]), np.array([0.7, 0.2]), np.array([0, 1]))
    assert np.isnan(average_precision_of_counts(ranking, np.array([[0, 2]])))[0]


def test_a_mean_over_splits_leaves_out_what_one_of_them_lacks():
    """Class a: 0.2 in one split, 0.6 in the other; class b in the second alone; class c nowhere."""
    splits = [lambda counts, row=row: np.tile(row, (len(counts), 1)) for row in ([0.2, NAN, NAN], [0.6, 0.5, NAN])]
    values, mean = mean_of_classes(splits, [np.array([0]), np.array([1])], 2, draws=10)
    np.testing.assert_allclose(values, [0.4, 0.5, NAN])
    assert (mean.interval.estimate, mean.classes, mean.of) == (pytest.approx(0.45), 2, 3)


def test_calibration_by_hand():
    """Three frames at 0.9, of which two are positive, in one bin: 2.7 expected, 2 found, over 3 frames."""
    truth, likely = np.array([[1.0], [1.0], [0.0], [NAN]]), np.array([[0.9], [0.9], [0.9], [0.1]])
    assert presence_calibration(truth, likely)[0] == pytest.approx(0.7 / 3)
    assert np.isnan(presence_calibration(np.array([[NAN]]), np.array([[0.5]])))[0]
