"""Predictions of a folder scored against a folder of ground truths."""

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from common.base.entries import on_disk
from common.base.files import map_array
from common.base.runtime import UserError, progress
from common.dataset.phases import IGNORED, PhaseMapping, read_labels, read_predictions
from common.scoring.video_score import VideoScore

log = logging.getLogger(__name__)


def to_json(summary: Mapping[str, float]) -> dict[str, float | None]:
    """Measures with null where one is not defined: JSON has no NaN."""
    return {key: None if math.isnan(value) else value for key, value in summary.items()}


def score_folder(
    labels: Mapping[str, Path],
    predictions: Path,
    mapping: PhaseMapping,
    probabilities: Path,
    *,
    fps: Mapping[str, float | None] | None = None,
    unreached: Mapping[str, int] | None = None,
    known: Mapping[Path, np.ndarray] | None = None,
) -> dict[str, VideoScore]:
    """Score every video of `labels` (name -> file) against `<video>.txt` and, where it is there, `<video>.npy`.

    `unreached`: labels at the end of a video that none of its frames reaches; they do not count. `known`: phases of
    label files that were read before.

    Raises `UserError` naming the video for a missing prediction, another length, or unsuitable probabilities.
    """
    scores = {}
    for name, path in progress(labels.items(), description="score", unit="videos"):
        true = known[path].copy() if known and path in known else read_labels(path, mapping)
        if beyond := (unreached or {}).get(name, 0):
            true[-beyond:] = IGNORED
        predicted_path = on_disk(predictions / f"{name}.txt")
        predicted = read_predictions(predicted_path, mapping)
        if len(predicted) != len(true):
            raise UserError(
                f"{predicted_path}: {len(predicted)} frames, but {len(true)} labels in {path}; predict again"
            )
        probability_path = on_disk(probabilities / f"{name}.npy")
        shape = (len(true), mapping.num_classes)
        scores[name] = VideoScore(
            true.astype(np.int16),
            predicted.astype(np.int16),
            mapping.num_classes,
            background=mapping.background_id,
            fps=fps[name] if fps and name in fps else None,
            load_probabilities=partial(read_probabilities, probability_path, *shape)
            if probability_path.is_file()
            else None,
        )
    without = [name for name, score in scores.items() if score.load_probabilities is None]
    if 0 < len(without) < len(scores):
        log.warning("no PR-AUC: %d videos have no probabilities, for example %s", len(without), without[0])
    return scores


def read_probabilities(path: Path, num_frames: int, num_classes: int) -> np.ndarray:
    """Read `<video>.npy`, `(num_frames, num_classes)`, a class's column in one piece.

    Raises `UserError` for another shape and for values that are not finite. Values outside 0..1 (raw logits) too:
    ranked within a class over frames, they give another PR-AUC than probabilities.
    """
    values = map_array(path, "predict again")
    if values.shape != (num_frames, num_classes):
        raise UserError(f"{path}: expected shape {(num_frames, num_classes)} (frames, phases), found {values.shape}")
    # in memory: those of a thousand videos would be as many open maps; by class: measures sort and compare its frames
    values = np.array(values, order="F")
    lowest, highest = values.min(), values.max()  # NaN where there is one, which is neither
    if not (lowest >= 0 and highest <= 1 + 1e-6):
        raise UserError(f"{path}: expected probabilities between 0 and 1, found {lowest:g} to {highest:g}")
    return values
