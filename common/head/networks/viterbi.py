"""Decoding of a whole video: the most probable sequence of phases, by what the training videos' labels do.

Staying and leaving are counted and smoothed; no weight is tuned. The path sees every frame of a video, so that it is
offline whatever the head is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from common.dataset.phases import IGNORED


@dataclass(frozen=True, eq=False)
class Transitions:
    """Probabilities of phases by counting.

    `start` `(C,)`: of the first phase; `leave` `(C,)`: that the next frame is of another phase; `change` `(C, C)`: which
    one it then is, 0 on the diagonal.
    """

    start: np.ndarray
    leave: np.ndarray
    change: np.ndarray


def count_transitions(targets: Iterable[np.ndarray], num_classes: int) -> Transitions:
    """`Transitions` of training labels `(T,)` a video, at the rate of the features that the head reads.

    Of phase c there are n_c segments, f_c frames and F_c videos that begin with it, and N_ij changes from i to j, in V
    videos and C phases; n and f are sums over phases:

        leave_c   = (n_c + n / (f + 1)) / (f_c + 1)
        change_ij = (N_ij + 1 / (C - 1)) / (sum_j N_ij + 1)
        start_c   = (F_c + 1 / C) / (V + 1)

    Frames that do not count are left out and cut segments, as they do in every measure: no change is counted over them.
    """
    segments, frames, starts = np.zeros((3, num_classes))
    changes, num_videos = np.zeros((num_classes, num_classes)), 0
    for target in targets:
        counts = target != IGNORED
        if not counts.any():
            continue
        num_videos += 1
        starts[target[counts][0]] += 1
        frames += np.bincount(target[counts], minlength=num_classes)
        # a frame begins a segment where the one before it is of another phase, or does not count
        differs = np.concatenate(([True], target[1:] != target[:-1]))
        segments += np.bincount(target[counts & differs], minlength=num_classes)
        is_change = counts[1:] & counts[:-1] & differs[1:]
        np.add.at(changes, (target[:-1][is_change], target[1:][is_change]), 1)
    leave = (segments + segments.sum() / (frames.sum() + 1)) / (frames + 1)
    # of a single phase there is nothing to change to
    change = (changes + 1 / max(num_classes - 1, 1)) / (changes.sum(axis=1, keepdims=True) + 1)
    np.fill_diagonal(change, 0)
    return Transitions((starts + 1 / num_classes) / (num_videos + 1), leave, change)


def most_probable_path(log_probabilities: np.ndarray, transitions: Transitions) -> np.ndarray:
    """The phases `(T,)` of highest score, from log probabilities `(T, C)` of the frames (Viterbi, 1967).

    The score is log start + the sum of log p + log(1 - leave) for a step that stays, log leave + log change for one that
    does not. Of paths that are equal the lowest phase is taken, from the last frame back.
    """
    num_frames, num_classes = log_probabilities.shape
    with np.errstate(divide="ignore"):  # the diagonal of `change` is 0, and filled right below
        steps = np.log(transitions.leave)[:, None] + np.log(transitions.change)
    np.fill_diagonal(steps, np.log1p(-transitions.leave))
    scores = np.log(transitions.start) + log_probabilities[0].astype(np.float64)
    before = np.zeros((num_frames, num_classes), dtype=np.int32)
    for frame in range(1, num_frames):
        candidates = scores[:, None] + steps
        before[frame] = candidates.argmax(axis=0)  # of equal ones the first, the lowest phase
        scores = candidates.max(axis=0) + log_probabilities[frame]
    path = np.empty(num_frames, dtype=np.int64)
    path[-1] = scores.argmax()
    for frame in range(num_frames - 1, 0, -1):
        path[frame - 1] = before[frame, path[frame]]
    return path
