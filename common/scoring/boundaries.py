"""Phase changes: how far predicted ones are from true ones, and scoring that forgives frames near a true change."""

from __future__ import annotations

import numpy as np

from common.dataset.segments import Segments, find_segments


def boundary_distances(predicted: Segments, true: Segments) -> np.ndarray:
    """For each true change into a phase, frames to the nearest predicted start of that phase; NaN where it has none.

    A start of the video is no change. Labels made to the second make distances below one second meaningless.
    """
    distances = np.full(max(len(true) - 1, 0), np.nan)
    for index, (label, start, _) in enumerate(list(true)[1:]):
        starts = predicted.starts[predicted.labels == label]
        if starts.size:
            distances[index] = np.abs(starts - start).min()
    return distances


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
