"""Where encoders fail: which videos, which phases for which, in which hospital's videos, how near a phase change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.dataset.kfold import prefix_stratum
from common.dataset.phases import IGNORED
from common.reports.results import EncoderResult
from common.scoring.video_score import VideoScore

NUM_WORST = 15  # videos
NUM_CONFUSIONS = 15  # pairs of phases
LENGTH_GROUPS = 5  # of true segments, about equally many in each
NEAR_SECONDS = (1, 2, 5, 10, 20, 40)
NEAR_FRAMES = (10, 25, 50, 100, 250, 500)  # where frame rates are unknown


@dataclass(frozen=True)
class VideoAccuracies:
    """A video and each encoder's share of correct frames in it."""

    name: str
    accuracies: dict[str, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.accuracies.values())))


@dataclass(frozen=True)
class ConfusedPair:
    """Frames of the phase `true` that one encoder takes for `predicted`."""

    true: int
    predicted: int
    frames: int
    seconds: float
    """NaN where a frame rate is unknown."""
    share_of_phase: float
    share_of_errors: float
    share_elsewhere: float
    """Mean over all encoders of `share_of_phase`: whether the phases are hard or this encoder is."""


@dataclass(frozen=True)
class Strata:
    """Errors by group of frames: `errors[encoder]` is the share of wrong frames of each group, NaN for an empty one."""

    axis: str
    groups: list[str]
    frames: np.ndarray
    """True frames of each group `(groups,)`."""
    errors: dict[str, np.ndarray]

    @property
    def filled(self) -> "Strata":
        """Without groups that no frame lies in: in a short video nothing is 40 s away from a phase change."""
        kept = np.flatnonzero(self.frames)
        errors = {name: shares[kept] for name, shares in self.errors.items()}
        return Strata(self.axis, [self.groups[place] for place in kept], self.frames[kept], errors)


@dataclass(frozen=True)
class FailureAtlas:
    """`pairs` are of one encoder, the best; everything else is of all of them."""

    encoder: str
    worst: list[VideoAccuracies]
    pairs: list[ConfusedPair]
    by_prefix: Strata
    by_length: Strata
    by_distance: Strata


def failure_atlas(results: Sequence[EncoderResult]) -> FailureAtlas:
    """The atlas of the encoders of a comparison, the best of them first."""
    truths = _truths(results)
    return FailureAtlas(
        encoder=results[0].name,
        worst=sorted(video_accuracies(results), key=lambda video: video.mean)[:NUM_WORST],
        pairs=confused_pairs(results),
        by_prefix=by_prefix(results, truths),
        by_length=by_segment_length(results, truths),
        by_distance=by_distance(results, truths),
    )


def _truths(results: Sequence[EncoderResult]) -> dict[str, VideoScore]:
    """A score of each video, for its true labels."""
    return {name: score for result in reversed(results) for name, score in result.scores.items()}


def video_accuracies(results: Sequence[EncoderResult]) -> list[VideoAccuracies]:
    """Every video, by name."""
    accuracies: dict[str, dict[str, float]] = {name: {} for name in sorted(_truths(results))}
    for result in results:
        for name, score in result.scores.items():
            accuracies[name][result.name] = score.accuracy
    return [VideoAccuracies(name, of_encoders) for name, of_encoders in accuracies.items()]


def confused_pairs(results: Sequence[EncoderResult]) -> list[ConfusedPair]:
    """The `NUM_CONFUSIONS` pairs of phases that the first encoder confuses on most frames."""
    best = results[0]
    has_times = all(score.fps for score in best.scores.values())
    seconds = sum(score.confusion / (score.fps or np.nan) for score in best.scores.values())
    errors = best.confusion - np.diag(np.diagonal(best.confusion))
    # each true phase's frames by predicted phase; 0, not NaN, for a phase without a true frame
    shares = [result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1) for result in results]
    elsewhere = np.mean(shares, axis=0)
    pairs = []
    for place in np.argsort(-errors, axis=None, kind="stable")[:NUM_CONFUSIONS].tolist():
        true, predicted = divmod(place, len(errors))
        if frames := int(errors[true, predicted]):
            pairs.append(
                ConfusedPair(
                    true=true,
                    predicted=predicted,
                    frames=frames,
                    seconds=float(seconds[true, predicted]) if has_times else float("nan"),
                    share_of_phase=float(shares[0][true, predicted]),
                    share_of_errors=frames / int(errors.sum()),
                    share_elsewhere=float(elsewhere[true, predicted]),
                )
            )
    return pairs


def by_prefix(results: Sequence[EncoderResult], truths: Mapping[str, VideoScore]) -> Strata:
    """Errors by the letters that a video's name begins with, which name the kind of operation."""
    names = sorted({prefix_stratum(name) for name in truths})
    places = {name: np.full(s.num_frames, names.index(prefix_stratum(name))) for name, s in truths.items()}
    counts = [sum(prefix_stratum(video) == name for video in truths) for name in names]
    groups = [f"{name or 'no prefix'} ({count})" for name, count in zip(names, counts, strict=True)]
    return stratify(results, places, groups, "name prefix (videos)")


def by_segment_length(results: Sequence[EncoderResult], truths: Mapping[str, VideoScore]) -> Strata:
    """Errors by the length of the true segment that a frame lies in."""
    rates, unit = _rates(truths)
    lengths = {name: (s.segments[1].ends - s.segments[1].starts) / rates[name] for name, s in truths.items()}
    every = np.concatenate(list(lengths.values()))
    edges = np.unique(np.quantile(every, np.linspace(0, 1, LENGTH_GROUPS + 1)[1:-1]))
    places = {name: np.zeros(s.num_frames, dtype=int) for name, s in truths.items()}
    for name, score in truths.items():
        for group, (_, start, end) in zip(np.digitize(lengths[name], edges), score.segments[1], strict=True):
            places[name][start:end] = group
    return stratify(results, places, _between(edges, unit), "length of the true segment")


def by_distance(results: Sequence[EncoderResult], truths: Mapping[str, VideoScore]) -> Strata:
    """Errors by a frame's distance to the nearest true phase change; without a change, the farthest group."""
    rates, unit = _rates(truths)
    edges = np.array(NEAR_SECONDS if unit == "s" else NEAR_FRAMES, dtype=float)
    places = {name: np.digitize(change_distances(s.true) / rates[name], edges) for name, s in truths.items()}
    return stratify(results, places, _between(edges, unit), "distance to the nearest true phase change")


def change_distances(true: np.ndarray) -> np.ndarray:
    """Frames from the middle of each frame to the nearest change between two phases `(T,)`; infinite without one."""
    is_change = (true[1:] != true[:-1]) & (true[1:] != IGNORED) & (true[:-1] != IGNORED)
    changes = np.flatnonzero(is_change) + 1
    if not changes.size:
        return np.full(len(true), np.inf)
    middles = np.arange(len(true)) + 0.5
    after = np.searchsorted(changes, middles)
    right = changes[np.minimum(after, len(changes) - 1)]
    left = changes[np.maximum(after - 1, 0)]
    return np.minimum(np.abs(right - middles), np.abs(middles - left))


def _rates(truths: Mapping[str, VideoScore]) -> tuple[dict[str, float], str]:
    """Frames per unit of time, and the unit: seconds where every frame rate is known, else frames."""
    in_seconds = all(score.fps for score in truths.values())
    return {name: score.fps if in_seconds else 1.0 for name, score in truths.items()}, "s" if in_seconds else "frames"


def _between(edges: np.ndarray, unit: str) -> list[str]:
    """Names of the groups that edges part."""
    marks = [f"{edge:.1f}".removesuffix(".0") for edge in edges]
    inner = [f"{low} to {high} {unit}" for low, high in pairwise(marks)]
    return [f"under {marks[0]} {unit}", *inner, f"{marks[-1]} {unit} and more"]


def stratify(
    results: Sequence[EncoderResult], places: Mapping[str, np.ndarray], groups: list[str], axis: str
) -> Strata:
    """Share of wrong frames of every group and encoder, of those whose label counts.

    `places` holds the group of each frame `(T,)` of each video.
    """
    frames = np.zeros(len(groups), dtype=int)
    for name, score in _truths(results).items():
        frames += np.bincount(places[name][score.counts], minlength=len(groups))
    errors = {}
    for result in results:
        wrong, total = np.zeros(len(groups)), np.zeros(len(groups))
        for name, score in result.scores.items():
            wrong += np.bincount(places[name], weights=score.is_wrong, minlength=len(groups))
            total += np.bincount(places[name][score.counts], minlength=len(groups))
        errors[result.name] = np.divide(wrong, total, out=np.full(len(groups), np.nan), where=total > 0)
    return Strata(axis, groups, frames, errors)
