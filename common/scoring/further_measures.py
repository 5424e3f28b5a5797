"""Measures beside the study's eight: other conventions of the field, calibration, phase changes, each phase alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.dataset.segments import find_segments
from common.scoring import metrics
from common.scoring.effort import DEFAULT_EFFORT, OPERATIONS, TIME_SAVED, EffortRule, saving, video_effort
from common.scoring.metrics import MEASURES
from common.scoring.protocols import OVERLAP_MEASURES
from common.scoring.video_score import SegmentRule, VideoScore

RELAXED_SECONDS = 2.0
WITHOUT_BACKGROUND = SegmentRule(background=False, last_segment="fixed")

TEMPERED = "calibration_error_tempered"  # what a run's record knows of itself (`run_k_folds --temperature`)


class FurtherMeasure(NamedTuple):
    """How a measure is named in tables, its unit (`%` of a fraction of 1, `s` or `1/h`), and which values are good."""

    title: str
    unit: str
    lower_is_better: bool = False


# by key in files
FURTHER_MEASURES = {
    "balanced_accuracy": FurtherMeasure("Balanced accuracy, all frames", "%"),
    "jaccard_phases": FurtherMeasure("Jaccard: mean over videos of each phase, then over phases", "%"),
    "jaccard_micro": FurtherMeasure("Jaccard: all frames of a video, mean over videos", "%"),
    "calibration_error": FurtherMeasure("Expected calibration error, 15 bins, all frames", "%", lower_is_better=True),
    TEMPERED: FurtherMeasure(
        "The same after temperature, fitted on training videos kept aside", "%", lower_is_better=True
    ),
    "boundary_error": FurtherMeasure("Phase start error, median over found starts", "s", lower_is_better=True),
    "boundaries_missed": FurtherMeasure(
        "Phase starts of a phase never predicted in the video", "%", lower_is_better=True
    ),
    "relaxed_accuracy": FurtherMeasure("Accuracy, boundaries relaxed by ±{seconds:g} s, mean over videos", "%"),
    "relaxed_miou": FurtherMeasure("mIoU, boundaries relaxed by ±{seconds:g} s, mean over videos", "%"),
    "edit_without_background": FurtherMeasure("Edit without background, mean over videos", "%"),
    "corrections": FurtherMeasure("Operations to correct a prediction, an hour of video", "1/h", lower_is_better=True),
    TIME_SAVED: FurtherMeasure("Labelling time saved by predictions, by assumed costs of an operation", "%"),
    **{
        f"{key}_without_background": FurtherMeasure(f"{MEASURES[key]} without background, pooled", "%")
        for key in OVERLAP_MEASURES
    },
}


def further_summary(
    scores: Sequence[VideoScore], relaxed_seconds: float = RELAXED_SECONDS, effort: EffortRule = DEFAULT_EFFORT
) -> dict[str, float]:
    """The measures of `FURTHER_MEASURES` over videos: fractions of 1, seconds, counts; NaN where undefined."""
    pooled = sum(score.confusion for score in scores)
    calibration = [score.calibration for score in scores]
    distances = np.concatenate([score.boundary_seconds for score in scores])
    has_times = all(score.fps for score in scores)
    segments = [score.segment_score(WITHOUT_BACKGROUND) for score in scores]
    relaxed = np.stack([relaxed_confusion(score, relaxed_seconds) for score in scores]) if has_times else None
    overlap_f1 = metrics.segmental_f1(sum(segment.overlap_counts for segment in segments))
    values = {
        "balanced_accuracy": metrics.balanced_accuracy(pooled),
        "jaccard_phases": jaccard_phases(scores),
        "jaccard_micro": np.mean([metrics.jaccard_micro(score.confusion) for score in scores]),
        "calibration_error": np.nan
        if any(bins is None for bins in calibration)
        else metrics.calibration_error(sum(calibration)),
        "boundary_error": np.nanmedian(distances) if np.isfinite(distances).any() else np.nan,
        "boundaries_missed": np.isnan(distances).mean() if has_times and distances.size else np.nan,
        "relaxed_accuracy": np.nan if relaxed is None else metrics.accuracy(relaxed).mean(),
        "relaxed_miou": np.nan
        if relaxed is None
        else metrics.mean_of_defined(metrics.jaccard_per_class(relaxed)).mean(),
        "edit_without_background": np.mean([segment.edit for segment in segments]),
        **_effort_summary(scores, effort),
        **{f"{key}_without_background": value for key, value in zip(OVERLAP_MEASURES, overlap_f1, strict=True)},
    }
    values |= {TEMPERED: np.nan}  # that of a run's record
    if unlike := values.keys() ^ FURTHER_MEASURES.keys():
        raise KeyError(
            f"expected the same keys in FURTHER_MEASURES and in `values` of further_summary; only one has {unlike}"
        )
    return {key: float(values[key]) for key in FURTHER_MEASURES}


def _effort_summary(scores: Sequence[VideoScore], rule: EffortRule) -> dict[str, float]:
    """Operations an hour and the share of the time saved, of all videos together; NaN where a video's rate is unknown."""
    efforts = [video_effort(score, rule) for score in scores]
    if None in efforts or not efforts:
        return {"corrections": np.nan, TIME_SAVED: np.nan}
    hours = sum(each.video_seconds for each in efforts) / 3600
    operations = sum(each.counts[kind] for each in efforts for kind in OPERATIONS)
    return {"corrections": operations / hours, TIME_SAVED: saving(efforts, rule).share}


def further_name(key: str, relaxed_seconds: float = RELAXED_SECONDS) -> str:
    """The name of a further measure in tables."""
    return FURTHER_MEASURES[key].title.format(seconds=relaxed_seconds)


def relaxed_confusion(score: VideoScore, seconds: float) -> np.ndarray:
    """Frame counts `(num_classes, num_classes)` with boundaries relaxed by `seconds`; the video's fps must be known."""
    relaxed = relaxed_prediction(score.true, score.predicted, round(seconds * score.fps))
    return metrics.confusion_matrix(score.true[score.counts], relaxed[score.counts], score.num_classes)


def jaccard_phases(scores: Sequence[VideoScore]) -> float:
    """Jaccard index of each phase averaged over the videos that have it, then over phases (Funke et al., 2023)."""
    # a video counts for a phase that is true in it: one that merely predicts the phase has no say
    per_video = [
        np.where(score.confusion.sum(-1) > 0, metrics.jaccard_per_class(score.confusion), np.nan) for score in scores
    ]
    return float(metrics.mean_of_defined(metrics.mean_of_defined(np.stack(per_video), axis=0)))


def per_phase(scores: Sequence[VideoScore]) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and IoU `(num_classes,)` of each phase over all frames, with its frames and videos."""
    pooled = sum(score.confusion for score in scores)
    return {
        "precision": metrics.precision_per_class(pooled),
        "recall": metrics.recall_per_class(pooled),
        "f1": metrics.f1_per_class(pooled),
        "iou": metrics.jaccard_per_class(pooled),
        "frames": pooled.sum(axis=1),
        "videos": sum((score.confusion.sum(axis=1) > 0).astype(int) for score in scores),
    }


def relaxed_prediction(true: np.ndarray, predicted: np.ndarray, tolerance_frames: int) -> np.ndarray:
    """`predicted` `(T,)` with a frame set to the truth where its phase is true within `tolerance_frames` of it.

    The relaxed boundaries of the Cholec80 evaluation (Twinanda et al., 2017) as they were meant: its script indexes the
    wrong end of arrays, and counts seconds as frames of 25 fps (field reports TMRNet#8, Trans-SVNet#11).
    """
    relaxed = np.array(predicted)
    for label, start, end in find_segments(true):
        reach = slice(max(start - tolerance_frames, 0), end + tolerance_frames)
        forgiven = predicted[reach] == label
        relaxed[reach][forgiven] = true[reach][forgiven]
    return relaxed
