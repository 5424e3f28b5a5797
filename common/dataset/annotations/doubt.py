"""Predicted phases as a person is to correct them: flicker merged, and the segments named that deserve a look."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from common.dataset.annotations.prelabelled import PrelabelledSegment
from common.dataset.segments import find_segments

DOUBTFUL_BELOW = 0.5  # less likely than all other phases together
FLICKER_SECONDS, FLICKER_SHARE = (
    2.0,
    0.01,
)  # of a short video; a shorter phase is more often a slip of the head than of the surgeon


def merge_flicker(
    phase_ids: np.ndarray, probabilities: np.ndarray, edges: np.ndarray, min_seconds: float
) -> np.ndarray:
    """Phases `(T,)` in which no segment is shorter than `min_seconds`, unless the video is.

    The shortest segment goes first, and takes the phase of the neighbour that has the higher mean of the `probabilities`
    `(T, num_classes)` over its frames, of two equal ones the earlier; then the next one. `edges` `(T + 1,)` in seconds.
    """
    merged = np.array(phase_ids)
    while len(segments := find_segments(merged)) > 1:
        lengths = edges[segments.ends] - edges[segments.starts]
        shortest = int(lengths.argmin())
        if lengths[shortest] >= min_seconds:
            break
        own = slice(segments.starts[shortest], segments.ends[shortest])
        neighbours = [segments.labels[place] for place in (shortest - 1, shortest + 1) if 0 <= place < len(segments)]
        means = probabilities[own].mean(axis=0, dtype=np.float64)
        merged[own] = max(neighbours, key=lambda phase: means[phase])
    return merged


def doubtful_segments(
    phase_ids: np.ndarray,
    probabilities: np.ndarray,
    edges: np.ndarray,
    names: Sequence[str],
    usual_changes: Collection[tuple[int, int]] | None,
) -> tuple[PrelabelledSegment, ...]:
    """The segments of phases `(T,)` with their mean probability, and what makes one doubtful.

    That is a mean below one half, a duration below `FLICKER_SECONDS` and `FLICKER_SHARE` of the video, or a change of phase
    that is not among `usual_changes`, those of the videos that the head has learned from (None: not known).
    """
    segments, flicker = find_segments(phase_ids), min(FLICKER_SECONDS, FLICKER_SHARE * float(edges[-1] - edges[0]))
    found = []
    for index, (phase, start, end) in enumerate(segments):
        means = probabilities[start:end].mean(axis=0, dtype=np.float64)
        reasons = []
        if means[phase] < DOUBTFUL_BELOW:
            others = [other for other in np.argsort(-means, kind="stable") if other != phase]
            reasons.append(f"low confidence {means[phase]:.2f}" + (f", or {names[others[0]]}?" if others else ""))
        if (seconds := float(edges[end] - edges[start])) < flicker:
            reasons.append(f"only {seconds:.2g} s long")
        before = int(segments.labels[index - 1]) if index else None
        if usual_changes is not None and before is not None and (before, phase) not in usual_changes:
            reasons.append(f"unusual after {names[before]}")
        found.append(PrelabelledSegment(start, end, names[phase], float(means[phase]), "; ".join(reasons)))
    return tuple(found)


def changes_of(labels: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    """Pairs of phases that follow each other in any of the label sequences `(T,)`."""
    found: set[tuple[int, int]] = set()
    for ids in labels:
        order = find_segments(ids).labels.tolist()
        found |= set(pairwise(order))
    return found
