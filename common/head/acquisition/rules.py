"""Rules that put unlabelled videos in the order in which to label them, each with its reason in words.

They look at a vector per video (the mean of its features) and at what a head says of its frames; no torch, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.base.runtime import counted

RULES = {
    "uncertainty": "the head's mean uncertainty",
    "disagreement": "how much several heads disagree",
    "coverage": "the distance to everything that is labelled or chosen",
    "clusters": "groups of similar videos, by how uncertain they are",
}
NEED_HEAD = ("uncertainty", "clusters")
MOST_STEPS = 100  # of k-means; a few videos settle in ten
CLOSEST = 1e-6  # in standard deviations: vectors that are equal but for rounding
LEAST_WEIGHT = 1e-6  # of a video in its cluster: where all are certain, all are equal


@dataclass(frozen=True, eq=False)
class Candidate:
    """An unlabelled video: `vector` `(D,)` the mean of its features; what heads say of it is None without one.

    `uncertainty`: mean over frames of the entropy of the head's answer, as a share of the highest possible; `disagreement`:
    by how much the entropy of the mean of several heads' answers exceeds the mean of theirs, likewise.
    """

    vector: np.ndarray
    minutes: float
    uncertainty: float | None = None
    disagreement: float | None = None


class Suggestion(NamedTuple):
    """A video that should be labelled, and why."""

    video: str
    minutes: float
    reason: str


def mean_uncertainty(probabilities: np.ndarray) -> float:
    """Mean over frames of the entropy of `(T, num_classes)`, as a share of the highest: 0 certain, 1 all equally likely."""
    return float(_entropies(probabilities).mean()) if len(probabilities) else 0.0


def mean_disagreement(answers: Sequence[np.ndarray]) -> float:
    """Mean over frames of the mutual information of an answer and the head that gives it, as a share of the highest entropy.

    `answers` of several heads are `(T, num_classes)`. Entropy of the mean less the mean of entropies (Houlsby et al., 2011).
    """
    together = _entropies(np.mean(answers, axis=0))
    return max(0.0, float((together - np.mean([_entropies(each) for each in answers], axis=0)).mean()))


def _entropies(probabilities: np.ndarray) -> np.ndarray:
    """Of each frame `(T,)`, as a share of the highest."""
    rows = np.asarray(probabilities, dtype=float)
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    return -(rows * logs).sum(axis=1) / np.log(max(rows.shape[1], 2))


def suggest(
    rule: str, candidates: Mapping[str, Candidate], labelled: Mapping[str, np.ndarray], num_wanted: int
) -> list[Suggestion]:
    """All candidates in the order in which a rule of `RULES` would label them.

    `labelled`: vectors of the videos that have labels; `num_wanted`: how many are to be labelled now, which `clusters` goes
    by. Depends on names and values alone: equal ones go by name.
    """
    names = sorted(candidates)
    order = _ORDERS[rule](names, candidates, labelled, max(1, num_wanted)) if names else []
    return [Suggestion(name, candidates[name].minutes, reason) for name, reason in order]


def within_budget(
    ranked: Sequence[Suggestion], *, num_videos: int | None = None, minutes: float | None = None
) -> list[Suggestion]:
    """The first of a ranking that a budget allows: so many videos, or each that still fits into so many minutes."""
    chosen: list[Suggestion] = []
    for each in ranked:
        if num_videos is not None and len(chosen) >= num_videos:
            break
        if minutes is None or sum(other.minutes for other in chosen) + each.minutes <= minutes:
            chosen.append(each)
    return chosen


def _by_uncertainty(
    names: list[str], candidates: Mapping[str, Candidate], labelled: Mapping[str, np.ndarray], num_wanted: int
) -> list[tuple[str, str]]:
    order = sorted(names, key=lambda name: (-candidates[name].uncertainty, name))
    return [(name, f"mean uncertainty {candidates[name].uncertainty:.3f} of 1") for name in order]


def _by_disagreement(
    names: list[str], candidates: Mapping[str, Candidate], labelled: Mapping[str, np.ndarray], num_wanted: int
) -> list[tuple[str, str]]:
    order = sorted(names, key=lambda name: (-candidates[name].disagreement, name))
    return [(name, f"the heads' disagreement {candidates[name].disagreement:.3f} of 1") for name in order]


def _by_coverage(
    names: list[str], candidates: Mapping[str, Candidate], labelled: Mapping[str, np.ndarray], num_wanted: int
) -> list[tuple[str, str]]:
    """Greedy k-centre (Sener and Savarese, ICLR 2018): always the video that is farthest from all that are labelled or chosen."""
    known = sorted(labelled)
    vectors = _scaled([candidates[name].vector for name in names], [labelled[name] for name in known])
    own, others = vectors[: len(names)], vectors[len(names) :]
    order: list[tuple[str, str]] = []
    left = list(range(len(names)))
    if not known:  # the one in the middle: the best single answer to what the others look like
        first = int(np.argmin(np.linalg.norm(own - own.mean(axis=0), axis=1)))
        order.append((names[first], "the most typical one: no labelled video to compare with"))
        left.remove(first)
        known, others = [names[first]], own[[first]]
    distances = _distances(own, others)
    nearest, closest = distances.min(axis=1), [known[place] for place in distances.argmin(axis=1)]
    while left:
        farthest = max(left, key=lambda place: (nearest[place], -place))
        order.append(
            (names[farthest], f"{nearest[farthest]:.2f} from {closest[farthest]}, the nearest labelled or chosen video")
        )
        left.remove(farthest)
        to_it = np.linalg.norm(own - own[farthest], axis=1)
        closest = [names[farthest] if new < old else was for new, old, was in zip(to_it, nearest, closest, strict=True)]
        nearest = np.minimum(nearest, to_it)
    return order


def _by_clusters(
    names: list[str], candidates: Mapping[str, Candidate], labelled: Mapping[str, np.ndarray], num_wanted: int
) -> list[tuple[str, str]]:
    """As many clusters as videos are wanted, weighted by uncertainty; of each the video nearest to its middle.

    After Prabhu et al. (ICCV 2021). The cluster with most of the uncertainty comes first; then the others, by uncertainty.
    """
    own = _scaled([candidates[name].vector for name in names], [])
    weights = np.maximum([candidates[name].uncertainty for name in names], LEAST_WEIGHT)
    centres, member_of = weighted_means(own, weights, min(num_wanted, len(names)))
    found = []
    for number, centre in enumerate(centres):
        members = np.flatnonzero(member_of == number)
        middle = members[np.argmin(np.linalg.norm(own[members] - centre, axis=1))]
        share = weights[members].sum() / weights.sum()
        similar = f"in the middle of {counted(len(members), 'similar video')}" if len(members) > 1 else "like no other"
        found.append((share, names[middle], f"{similar}, with {100 * share:.0f} % of all uncertainty"))
    found.sort(key=lambda each: (-each[0], each[1]))
    order = [(name, reason) for _, name, reason in found]
    rest = [name for name in names if name not in {name for name, _ in order}]
    return order + _by_uncertainty(rest, candidates, labelled, num_wanted)


_ORDERS: dict[str, Callable[..., list[tuple[str, str]]]] = {
    "uncertainty": _by_uncertainty,
    "disagreement": _by_disagreement,
    "coverage": _by_coverage,
    "clusters": _by_clusters,
}


def _scaled(own: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """All vectors `(n, D)`, each dimension in its standard deviations, so that no single one decides; 1 is a usual distance."""
    vectors = np.array([*own, *others], dtype=float)
    deviation = vectors.std(axis=0)
    varies = deviation > 1e-12 * np.abs(vectors).max(initial=1)
    scaled = (vectors - vectors.mean(axis=0))[:, varies] / deviation[varies]
    return scaled / np.sqrt(max(scaled.shape[1], 1))


def _distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distances `(n, m)` of `(n, D)` to `(m, D)`, without a table of all differences."""
    squares = (vectors**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * vectors @ others.T
    return np.sqrt(np.maximum(squares, 0))


def weighted_means(vectors: np.ndarray, weights: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted k-means of `(n, D)`: centres `(clusters, D)`, and the cluster of each `(n,)`; none of them is empty.

    Begins with the heaviest vector and then always the farthest from all centres: the same every time. Clusters that
    equal vectors would leave empty are left out.
    """
    centres = [vectors[int(np.argmax(weights))]]
    while len(centres) < num_clusters:
        nearest = _distances(vectors, np.array(centres)).min(axis=1)
        if nearest.max() <= CLOSEST:
            break
        centres.append(vectors[int(np.argmax(nearest))])
    found = np.array(centres)
    member_of = np.full(len(vectors), -1)
    for _ in range(MOST_STEPS):
        now = _distances(vectors, found).argmin(axis=1)
        if (now == member_of).all():
            break
        member_of = now
        used = [number for number in range(len(found)) if (member_of == number).any()]
        member_of = np.searchsorted(used, member_of)  # renumbered without the empty ones
        found = np.array(
            [
                np.average(vectors[member_of == place], axis=0, weights=weights[member_of == place])
                for place in range(len(used))
            ]
        )
    return found, member_of
