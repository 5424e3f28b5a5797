"""Measures: hand-computed cases, scikit-learn, and the answers of the official scorers."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from common.metrics import (
    MEASURES,
    accuracy,
    average_precision_per_class,
    challenge_summary,
    confusion_matrix,
    f1_per_class,
    jaccard_per_class,
    mean_of_defined,
    score_video,
    segmental_f1,
)
from common.segments import SegmentCounts

PRINTED_DIGITS = 5e-5  # the official scorer prints four decimals


def expand(run_length: list[list[int]]) -> np.ndarray:
    """Labels of a run-length list `[class, length]`."""
    classes, lengths = zip(*run_length, strict=True)
    return np.repeat(classes, lengths)


def random_video(seed: int, num_classes: int = 6, num_frames: int = 400):
    generator = np.random.default_rng(seed)
    true = np.repeat(generator.integers(0, num_classes, 20), num_frames // 20)
    predicted = np.where(generator.random(num_frames) < 0.7, true, generator.integers(0, num_classes, num_frames))
    probabilities = generator.dirichlet(np.ones(num_classes), num_frames)
    probabilities[np.arange(num_frames), predicted] += 1
    return true, predicted, probabilities / probabilities.sum(1, keepdims=True)


def test_confusion_rows_are_true_and_columns_predicted():
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_one_hallucinated_frame_costs_a_whole_class():
    """100 frames, 2 phases, one frame of a third phase: macro F1 over true or predicted classes is 0.66."""
    true = np.repeat([0, 1], 50)
    predicted = true.copy()
    predicted[99] = 2
    score = score_video(true, predicted, None, 19)
    assert score.accuracy == 0.99
    assert score.f1_macro == pytest.approx((1 + 98 / 99 + 0) / 3)
    assert round(score.f1_macro, 2) == 0.66
    assert score.miou == pytest.approx((1 + 49 / 50 + 0) / 3)


def test_perfect_prediction_scores_1_in_every_measure():
    true, _, _ = random_video(0)
    summary = challenge_summary([score_video(true, true, np.eye(6)[true], 6)])
    # the shortened last segment is shortened on both sides, so F1@k is whole too
    assert summary == dict.fromkeys(MEASURES, 1.0)


def test_nothing_right_scores_0():
    score = score_video(np.zeros(10, int), np.ones(10, int), None, 3)
    assert (score.accuracy, score.f1_macro, score.edit, score.miou) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_frame_measures_equal_scikit_learn(seed):
    true, predicted, _ = random_video(seed)
    score = score_video(true, predicted, None, 19)  # 13 of the 19 classes are neither true nor predicted
    assert score.accuracy == pytest.approx((true == predicted).mean())
    assert score.f1_macro == pytest.approx(f1_score(true, predicted, average="macro"))
    assert score.miou == pytest.approx(jaccard_score(true, predicted, average="macro"))


def test_pr_auc_equals_scikit_learn_where_every_class_is_present():
    true, predicted, probabilities = random_video(7)
    assert len(np.unique(true)) == 6
    score = score_video(true, predicted, probabilities, 6)
    assert score.pr_auc == pytest.approx(average_precision_score(np.eye(6)[true], probabilities, average="macro"))


def test_pr_auc_takes_the_classes_present_in_the_video():
    true, _, probabilities = random_video(7)
    true = np.where(true == 2, 3, true)
    per_class = average_precision_per_class(true, probabilities)
    assert np.isnan(per_class).tolist() == [False, False, True, False, False, False]
    present = [average_precision_score(true == k, probabilities[:, k]) for k in (0, 1, 3, 4, 5)]
    assert score_video(true, true, probabilities, 6).pr_auc == pytest.approx(np.mean(present))


def test_average_precision_by_hand():
    """Ranked: hit, miss, hit, miss -> precision 1 at recall 1/2, 2/3 at recall 1."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    result = average_precision_per_class(np.array([0, 1, 0, 1]), probabilities)
    assert result[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_pr_auc_without_probabilities_is_undefined():
    assert np.isnan(score_video(np.zeros(4, int), np.zeros(4, int), None, 2).pr_auc)


def test_pr_auc_of_a_set_is_undefined_when_one_video_lacks_probabilities():
    true, predicted, probabilities = random_video(1)
    scores = [score_video(true, predicted, each, 6) for each in (probabilities, None)]
    summary = challenge_summary(scores)
    assert np.isnan(summary["pr_auc"])
    assert summary["accuracy"] == scores[0].accuracy


def test_per_class_measures_are_nan_for_a_class_neither_true_nor_predicted():
    confusion = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 4)
    assert f1_per_class(confusion)[:2] == pytest.approx([2 / 3, 2 / 3])
    assert jaccard_per_class(confusion)[:2] == pytest.approx([1 / 2, 1 / 2])
    assert np.isnan(f1_per_class(confusion)[2:]).all()
    assert np.isnan(jaccard_per_class(confusion)[2:]).all()


def test_missed_class_counts_as_0_not_as_undefined():
    confusion = confusion_matrix(np.array([0, 1]), np.array([0, 0]), 2)
    assert f1_per_class(confusion)[1] == 0


def test_accuracy_without_frames_is_undefined():
    assert np.isnan(accuracy(np.zeros((3, 3), int)))


def test_mean_of_defined_leaves_nan_out():
    assert mean_of_defined([1.0, float("nan"), 0.0]) == 0.5
    assert np.isnan(mean_of_defined([float("nan")]))
    assert np.isnan(mean_of_defined([]))


def test_segmental_f1_adds_counts_before_dividing():
    counts = [SegmentCounts(1, 0, 0), SegmentCounts(1, 3, 5)]
    assert segmental_f1(counts) == pytest.approx(2 * 2 / (2 * 2 + 3 + 5))
    assert segmental_f1(counts) != pytest.approx(np.mean([1, 2 / 10]))


def test_segmental_f1_without_segments_is_undefined():
    assert np.isnan(segmental_f1([SegmentCounts(0, 0, 0)]))


def test_summary_of_no_video_is_undefined_throughout():
    summary = challenge_summary([])
    assert list(summary) == list(MEASURES)
    assert all(np.isnan(value) for value in summary.values())


def test_frame_measures_of_a_set_are_means_over_videos_whatever_their_length():
    short = score_video(np.zeros(2, int), np.zeros(2, int), None, 2)
    long = score_video(np.zeros(200, int), np.ones(200, int), None, 2)
    assert challenge_summary([short, long])["accuracy"] == 0.5


def test_overlap_counts_keep_the_background():
    labels = np.repeat([0, 3, 0], 10)
    assert score_video(labels, labels, None, 4).overlap_counts == {10: (3, 0, 0), 25: (3, 0, 0), 50: (3, 0, 0)}


def test_last_segment_ends_a_frame_early_as_in_the_mstcn_evaluation():
    """True last segment of 2 frames counts 1; the prediction 1 of 2 frames counts 0: no match at any threshold."""
    true, predicted = np.array([0] * 8 + [1] * 2), np.array([0] * 9 + [1])
    assert score_video(true, predicted, None, 2).overlap_counts[10] == (1, 1, 1)


# Carried in the suite, so that it proves the same without the reference data: the first golden case, as
# (true, predicted) run-length lists "class x frames", with the numbers that the two official evaluators give it.
CARRIED_VIDEOS = (
    (
        "12x82 10x124 12x43 6x37 12x59 6x71 0x66 6x42 8x18 9x18",
        "12x8 18x4 12x62 10x23 8x8 10x16 0x24 10x52 11x37 12x7 6x20 5x27 12x27 18x36 6x25 3x3 6x23 11x10 0x36 16x35 6x17 8x12 6x4 8x18 9x6 14x6 9x6 12x8",
    ),
    (
        "17x162 1x56 17x43 10x133 7x31 13x63 8x250 13x55 16x21",
        "17x18 16x34 17x34 6x8 17x64 1x15 13x26 1x27 17x3 11x39 10x49 16x28 10x45 7x14 14x13 10x35 13x32 8x33 7x28 8x66 4x21 8x59 14x25 10x7 0x1 10x9 8x1 13x54 9x26",
    ),
    (
        "0x10 17x29 6x21 0x33 17x28 8x25 6x52 9x51 15x108 8x158 6x163 15x97 0x48 14x93",
        "14x7 0x10 17x17 11x23 0x43 17x28 8x25 7x37 6x15 9x4 10x16 7x16 10x5 9x10 15x12 1x16 15x80 8x1 7x18 8x23 5x3 8x65 1x12 8x4 6x7 8x25 6x14 8x32 6x24 18x3 6x90 2x27 17x8 15x40 8x15 15x7 0x48 14x20 6x21 14x39 18x6",
    ),
)
CARRIED_CHALLENGE = {"accuracy": 0.594, "f1_macro": 0.2988, "edit": 0.3167}
CARRIED_MSTCN_PERCENT = {"f1@10": 44.2748, "f1@25": 39.6947, "f1@50": 13.7405}


def naive_segments(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """MS-TCN's segments: (label, start, end), the last one ending a frame early."""
    found, start = [], 0
    for t in range(1, len(labels)):
        if labels[t] != labels[t - 1]:
            found.append((labels[t - 1], start, t))
            start = t
    return [*found, (labels[-1], start, len(labels) - 1)]


def naive_f1(videos: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> float:
    hits = false_positives = false_negatives = 0
    for true, predicted in videos:
        references, used = naive_segments(true), set()
        for label, start, end in naive_segments(predicted):
            overlaps = []
            for other, other_start, other_end in references:
                shared = min(end, other_end) - max(start, other_start)
                joined = max(end, other_end) - min(start, other_start)
                overlaps.append(shared / joined if label == other else 0.0)
            best = max(range(len(overlaps)), key=overlaps.__getitem__)
            if overlaps[best] >= threshold and best not in used:
                hits += 1
                used.add(best)
            else:
                false_positives += 1
        false_negatives += len(references) - len(used)
    precision, recall = hits / (hits + false_positives), hits / (hits + false_negatives)
    return 2 * precision * recall / (precision + recall)


def carried_labels(text: str) -> np.ndarray:
    return expand([[int(number) for number in run.split("x")] for run in text.split()])


def test_carried_golden_case_scores_as_both_official_evaluators():
    videos = [
        score_video(carried_labels(true), carried_labels(predicted), None, 19) for true, predicted in CARRIED_VIDEOS
    ]
    summary = challenge_summary(videos)
    for key, value in CARRIED_CHALLENGE.items():
        assert summary[key] == pytest.approx(value, abs=PRINTED_DIGITS)
    for key, percent in CARRIED_MSTCN_PERCENT.items():
        assert 100 * summary[key] == pytest.approx(percent, abs=5e-3)


@pytest.mark.parametrize("seed", range(8))
def test_f1_at_k_equals_a_naive_restatement(seed):
    videos = [random_video(seed * 10 + n)[:2] for n in range(3)]
    summary = challenge_summary([score_video(t, p, None, 6) for t, p in videos])
    for percent in (10, 25, 50):
        assert summary[f"f1@{percent}"] == pytest.approx(naive_f1(videos, percent / 100))


def golden_summary(reference_data, index: int, *, with_probabilities: bool = False) -> tuple[dict, dict]:
    """What the official scorers say of a golden case, and our summary of it."""
    case = json.loads((reference_data / "golden" / "scorer_cases.json").read_text())[index]
    scores = []
    with np.load(reference_data / "golden" / "scorer_probabilities.npz") as arrays:
        for number, video in enumerate(case["videos"]):
            probabilities = arrays[f"case{index}_video{number}"] if with_probabilities else None
            labels = expand(video["ground_truth_rle"]), expand(video["prediction_rle"])
            scores.append(score_video(*labels, probabilities, 19))
    return case, challenge_summary(scores)


@pytest.mark.parametrize("index", range(4))
def test_golden_case_scores_as_the_official_challenge_scorer(reference_data, index):
    case, summary = golden_summary(reference_data, index)
    assert summary["accuracy"] == pytest.approx(case["challenge"]["Accuracy"], abs=PRINTED_DIGITS)
    assert summary["f1_macro"] == pytest.approx(case["challenge"]["F1 Score"], abs=PRINTED_DIGITS)
    assert summary["edit"] == pytest.approx(case["challenge"]["Edit Score"], abs=PRINTED_DIGITS)


@pytest.mark.parametrize("index", range(4))
def test_golden_case_has_the_mstcn_f1_with_background_kept(reference_data, index):
    case, summary = golden_summary(reference_data, index)
    for key in ("f1@10", "f1@25", "f1@50"):
        assert 100 * summary[key] == pytest.approx(case["mstcn_background_kept"][key], abs=5e-3)


@pytest.mark.parametrize("index", [1, 3])
def test_golden_pr_auc_equals_the_official_one_where_every_class_is_present(reference_data, index):
    case, summary = golden_summary(reference_data, index, with_probabilities=True)
    official = case["challenge_with_probabilities"]
    assert summary["pr_auc"] == pytest.approx(official["PR AUC"], abs=PRINTED_DIGITS)
    assert summary["accuracy"] == pytest.approx(official["Accuracy"], abs=PRINTED_DIGITS)
