"""Dice and IoU of masks: hand-computed cases, the reference cases, undefined classes, intervals over groups."""

import json

import numpy as np
import pytest

from common.scoring.masks import OWN_RULES, MaskScores, confusion, dice, iou

KEYS = {"dice_pooled": "dice_pooled", "iou_pooled": "iou_pooled", "dice_images": "dice_mean_over_images", "iou_images": "iou_mean_over_images"}  # fmt: skip
MEANS = {"dice_pooled": "mean_dice_pooled", "iou_pooled": "miou_pooled", "dice_images": "mean_dice_over_images", "iou_images": "miou_over_images"}  # fmt: skip


def scores_of(truths, predictions, num_classes, groups=None) -> MaskScores:
    pairs = [
        confusion(np.array(truth, np.uint8), np.array(prediction, np.uint8), num_classes)
        for truth, prediction in zip(truths, predictions, strict=True)
    ]
    names = [str(number) for number in range(len(pairs))]
    return MaskScores(tuple(map(str, range(num_classes))), names, groups or ["v"] * len(pairs), np.stack(pairs))


def test_two_small_images_by_hand():
    """Class 1: 1 of 1 true and 2 predicted pixels, Dice 2/3 and IoU 1/2; class 2 is only predicted: 0."""
    scores = scores_of([[[0, 0], [0, 1]], [[0, 0], [0, 0]]], [[[0, 0], [1, 1]], [[0, 0], [0, 2]]], 3)
    assert scores.by_class("dice_pooled") == pytest.approx([10 / 12, 2 / 3, 0])
    assert scores.by_class("iou_pooled") == pytest.approx([5 / 7, 1 / 2, 0])
    # class 1 is in the first image alone, class 2 in the second: neither image counts for the other's
    assert scores.by_class("iou_images") == pytest.approx([(2 / 3 + 3 / 4) / 2, 1 / 2, 0])
    assert scores.mean("iou_pooled") == (pytest.approx((5 / 7 + 1 / 2) / 3), 3)
    assert scores.mean("iou_pooled", left_out=0) == (pytest.approx(1 / 4), 2)
    assert scores.image_means("dice") == pytest.approx([(0.8 + 2 / 3) / 2, (6 / 7 + 0) / 2])


def test_ignored_pixels_count_nowhere():
    truth = [[0, 255], [1, 255]]
    wild, tame = ([[0, other], [1, other]] for other in (1, 0))
    for measure in KEYS:
        assert scores_of([truth], [wild], 2).by_class(measure).tolist() == [1, 1]
        assert scores_of([truth], [tame], 2).by_class(measure).tolist() == [1, 1]


def test_a_class_in_neither_mask_is_undefined_and_in_no_mean():
    scores = scores_of([[[0, 0]]], [[[0, 0]]], 3)
    assert np.isnan(scores.by_class("dice_images")[1:]).all()
    assert scores.mean("dice_pooled") == (1.0, 1)
    mean, count = scores.mean("dice_pooled", left_out=0)
    assert (np.isnan(mean), count) == (True, 0)


def test_dice_follows_from_iou():
    """D = 2J / (1 + J) for every class of one image (counted from 1000 random pixels)."""
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 4, (2, 50, 20))
    counts = scores_of([truth], [prediction], 4).counts
    assert dice(counts) == pytest.approx(2 * iou(counts) / (1 + iou(counts)))


def test_counts_are_those_of_sets_of_pixels():
    """An independent way: sets of places instead of a confusion matrix."""
    random = np.random.default_rng(1)
    truth, prediction = random.integers(0, 3, (2, 9, 7)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.2] = 255
    scores = scores_of([truth], [prediction], 3)
    counted = set(np.flatnonzero(truth != 255))
    for number in range(3):
        true = set(np.flatnonzero(truth == number))
        predicted = set(np.flatnonzero(prediction == number)) & counted
        assert scores.by_class("iou_pooled")[number] == pytest.approx(len(true & predicted) / len(true | predicted))


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_there_is_an_interval_from_five_groups_on():
    random = np.random.default_rng(2)
    truths = random.integers(0, 2, (10, 6, 6))
    predictions = np.where(random.random(truths.shape) < 0.8, truths, 1 - truths)
    few = scores_of(truths, predictions, 2, groups=[f"v{number % 4}" for number in range(10)])
    many = scores_of(truths, predictions, 2, groups=[f"v{number % 5}" for number in range(10)])
    for measure in KEYS:
        bounds = many.interval(measure)
        assert np.isnan(few.interval(measure).low)
        assert bounds.low < bounds.estimate < bounds.high
        assert bounds.estimate == pytest.approx(many.mean(measure)[0], abs=1e-12)
        assert few.interval(measure).estimate == many.mean(measure)[0]


def test_images_of_a_group_are_drawn_together():
    """Ten copies of five images say no more than the five: the interval over groups stays as wide."""
    random = np.random.default_rng(3)
    truths = random.integers(0, 2, (5, 6, 6))
    predictions = np.where(random.random(truths.shape) < 0.7, truths, 1 - truths)
    once = scores_of(truths, predictions, 2, groups=list("abcde"))
    often = scores_of(np.repeat(truths, 10, 0), np.repeat(predictions, 10, 0), 2, groups=sorted("abcde" * 10))
    assert often.interval("iou_images").low == pytest.approx(once.interval("iou_images").low)


@pytest.fixture(scope="module")
def cases(reference_data) -> dict:
    content = json.loads((reference_data / "golden" / "task_metrics_cases.json").read_text())["cases"]
    return {name: case for name, case in content.items() if case["kind"] == "segmentation"}


def undefined(values: list) -> list[float]:
    return [np.nan if value is None else value for value in values]


def test_the_reference_cases(cases):
    for name, case in cases.items():
        scores = scores_of(case["truth"], case["prediction"], case["classes"])
        expected = case["expected"]
        for overlap, measured in (("dice", dice), ("iou", iou)):
            wanted = [undefined(row) for row in expected[f"{overlap}_by_image"]]
            np.testing.assert_allclose(measured(scores.counts), wanted, rtol=0, atol=1e-9, err_msg=name)
        for measure in KEYS:
            by_class = undefined(expected[KEYS[measure]])
            np.testing.assert_allclose(scores.by_class(measure), by_class, rtol=0, atol=1e-9, err_msg=name)
            mean, _ = scores.mean(measure, case.get("background"))
            assert mean == pytest.approx(expected[MEANS[measure]], abs=1e-9), name
        if "sar_rarp50_rule" in expected:
            own = OWN_RULES["sar-rarp50"].measure(scores)
            assert own == pytest.approx(expected["sar_rarp50_rule"]["video_miou"], abs=1e-9), name
    assert len(cases) >= 4
