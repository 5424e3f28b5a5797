"""Nested, stratified subsets of a training list, for learning curves over the number of labelled videos."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from common.kfold import prefix_stratum
from common.runtime import sha256_of_json

SUBSET_SEED = 42


def nested_subset(videos: Sequence[str], fraction: float, *, seed: int = SUBSET_SEED) -> list[str]:
    """The first `round(fraction * len(videos))` videos, at least one, of `stratified_order`; in the order of `videos`.

    A smaller fraction of the same list gives a part of what a larger one gives.
    """
    size = max(1, round(fraction * len(videos)))
    chosen = set(stratified_order(videos, seed=seed)[:size])
    return [video for video in videos if video in chosen]


def stratified_order(videos: Sequence[str], *, seed: int = SUBSET_SEED) -> list[str]:
    """All videos in an order whose every beginning is stratified by prefix, and random within a stratum.

    Among k strata the first n videos hold each to within 1 - 1 / (2k - 2) videos of its exact share of n, the best
    that can be promised: next comes, of the strata that lag enough, the one that would soonest lag too much (Tijdeman,
    The chairman assignment problem, Discrete Mathematics 32, 1980).

    Depends on the set of names and the seed only. Another list is shuffled anew, so that folds do not share one draw.
    """
    draw = sha256_of_json(sorted(videos))

    def shuffled(video: str) -> str:
        return hashlib.sha256(f"{seed}:{draw}:{video}".encode()).hexdigest()

    waiting: dict[str, list[str]] = {}
    for video in sorted(videos, key=shuffled):
        waiting.setdefault(prefix_stratum(video), []).append(video)
    sizes = {stratum: len(members) for stratum, members in waiting.items()}
    enough = Fraction(1, max(2 * len(sizes) - 2, 1))
    taken: Counter[str] = Counter()
    order = []
    for length in range(1, len(videos) + 1):
        lags = {stratum: Fraction(length * size, len(videos)) - taken[stratum] for stratum, size in sizes.items()}
        _, stratum = min(((1 - enough - lag) / sizes[name], name) for name, lag in lags.items() if lag >= enough)
        order.append(waiting[stratum][taken[stratum]])
        taken[stratum] += 1
    return order
