"""Measures beside the study's eight, by hand."""

import numpy as np
import pytest

from common.scoring.further_measures import (
    FURTHER_MEASURES,
    TEMPERED,
    further_name,
    further_summary,
    jaccard_phases,
    per_phase,
    relaxed_confusion,
    relaxed_prediction,
)
from common.scoring.video_score import VideoScore


def scored(true, predicted, probabilities=None, *, fps=2.0, num_classes=3) -> VideoScore:
    load = None if probabilities is None else lambda: probabilities
    return VideoScore(np.array(true), np.array(predicted), num_classes, background=0, fps=fps, load_probabilities=load)


def test_jaccard_over_videos_counts_a_phase_in_the_videos_that_have_it():
    """Phase 1: 1/2 in the first video, 1 in the second; phase 0: 2/3 in the first only."""
    videos = [scored([0, 0, 0, 1], [0, 0, 1, 1]), scored([1, 1], [1, 1])]
    assert jaccard_phases(videos) == pytest.approx((np.mean([1 / 2, 1]) + 2 / 3) / 2)


def test_a_video_that_only_predicts_a_phase_has_no_say_in_it():
    """Phase 1 is right in the first video, and in the second only predicted, for a frame of phase 0: (1 + 1/2) / 2."""
    assert jaccard_phases([scored([1, 1], [1, 1]), scored([0, 0], [0, 1])]) == pytest.approx((1 + 1 / 2) / 2)


def test_micro_jaccard_of_a_video_is_right_frames_over_their_union():
    videos = [scored([0, 0, 0, 1], [0, 0, 1, 1])]
    assert further_summary(videos)["jaccard_micro"] == pytest.approx(3 / 5)


def test_boundary_errors_are_seconds_and_misses_are_shares():
    """At 2 fps a change that is 3 frames late is 1.5 s late; the change to phase 2 is never predicted."""
    summary = further_summary([scored([0] * 4 + [1] * 6 + [2] * 2, [0] * 7 + [1] * 5)])
    assert summary["boundary_error"] == 1.5
    assert summary["boundaries_missed"] == 0.5


def test_relaxed_accuracy_forgives_frames_near_a_true_change():
    video = scored([0] * 4 + [1] * 6, [0] * 7 + [1] * 3)
    assert further_summary([video], relaxed_seconds=1.0)["relaxed_accuracy"] == pytest.approx(0.9)
    assert further_summary([video], relaxed_seconds=1.5)["relaxed_accuracy"] == 1
    assert np.trace(relaxed_confusion(video, 1.0)) == 9


def test_what_needs_the_frame_rate_is_undefined_without_it():
    summary = further_summary([scored([0, 1], [0, 1], fps=None)])
    for key in ("boundary_error", "boundaries_missed", "relaxed_accuracy", "relaxed_miou"):
        assert np.isnan(summary[key])
    assert summary["balanced_accuracy"] == 1


def test_calibration_needs_the_probabilities_of_every_video():
    certain = np.eye(3)[[0, 1]]
    videos = [scored([0, 1], [0, 1], certain), scored([0, 1], [0, 1])]
    assert np.isnan(further_summary(videos)["calibration_error"])
    assert further_summary(videos[:1])["calibration_error"] == 0


def test_segments_without_background():
    summary = further_summary([scored([0, 0, 1, 1, 0], [2, 2, 1, 1, 0])])
    assert summary["edit_without_background"] == 0.5
    assert summary["f1@50_without_background"] == pytest.approx(2 / 3)


def test_each_phase_alone():
    phases = per_phase([scored([0, 0, 1, 1], [0, 1, 1, 1]), scored([0, 0], [0, 0])])
    assert phases["precision"][:2] == pytest.approx([1, 2 / 3])
    assert phases["recall"][:2] == pytest.approx([3 / 4, 1])
    assert phases["iou"][:2] == pytest.approx([3 / 4, 2 / 3])
    assert phases["frames"].tolist() == [4, 2, 0]
    assert phases["videos"].tolist() == [2, 1, 0]
    assert np.isnan(phases["f1"][2])


def test_every_further_measure_has_a_name_and_a_unit():
    summary = further_summary([scored([0, 1], [0, 1])])
    assert list(summary) == list(FURTHER_MEASURES)
    assert "±2 s" in further_name("relaxed_accuracy")
    units = {key: each.unit for key, each in FURTHER_MEASURES.items() if each.unit not in ("%", "s", "1/h")}
    assert not units, (
        f"FURTHER_MEASURES: expected the unit %, s or 1/h, found {units}; a share is in %, as a fraction of 1"
    )
    assert {each.unit for each in FURTHER_MEASURES.values()} == {"%", "s", "1/h"}


def test_every_further_measure_has_a_value():
    """But for that of a run's record."""
    summary = further_summary([scored([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], np.eye(3)[[0, 1, 1, 1, 2, 2]])])
    missing = [key for key, value in summary.items() if np.isnan(value) and key != TEMPERED]
    assert not missing, f"further_summary: expected a value of {', '.join(missing)}, found none; add it to `values`"


def test_a_measure_in_percent_is_a_fraction_of_one_and_perfection_is_its_best():
    """A tenth wrong in one video, all wrong in another; a value in percent may be below 0 and is never above 1."""
    true = [0] * 5 + [1] * 5 + [2] * 5
    by_name = {
        name: further_summary([scored(true, predicted, np.eye(3)[predicted])])
        for name, predicted in {
            "perfect": true,
            "worse": [0] * 7 + [1] * 5 + [2] * 3,
            "wrong": [1] * 5 + [2] * 5 + [0] * 5,
        }.items()
    }
    for key, measure in FURTHER_MEASURES.items():
        values = {name: summary[key] for name, summary in by_name.items() if not np.isnan(summary[key])}
        said = f"FURTHER_MEASURES: {key} in {measure.unit} has the values {values}"
        assert measure.unit != "%" or all(value <= 1 for value in values.values()), f"{said}: give a fraction of 1"
        if "perfect" in values:
            best = min(values.values()) if measure.lower_is_better else max(values.values())
            assert values["perfect"] == best, f"{said}: say `lower_is_better` where a perfect prediction has the lowest"


def test_a_value_without_an_entry_is_named(monkeypatch):
    monkeypatch.delitem(FURTHER_MEASURES, "jaccard_micro")
    with pytest.raises(KeyError, match="only one has"):
        further_summary([scored([0, 1], [0, 1])])


# --- relaxed scoring, frame by frame ----------------------------------------------------------------------------


def runs(*lengths_by_label: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(length, label) for label, length in lengths_by_label])


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
