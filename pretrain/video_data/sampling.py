"""The clip that is sample number k of a training: corpus, cluster, video and time, a pure function of seed and k.

A corpus, and a cluster inside it, is drawn in proportion to a power of its seconds of video: with the power 1 every
clip is equally likely, with 0 every corpus (or cluster), and between them small ones are seen more often than their
size gives.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from common.base.runtime import UserError
from pretrain.video_data.clusters import Clusters
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.video_index import VideoEntry


class Moment(NamedTuple):
    """Where a clip is taken: `start_seconds` is a presentation time; `cluster` is None without clusters."""

    corpus: str
    cluster: int | None
    video: VideoEntry
    start_seconds: float


@dataclass(frozen=True, eq=False)
class Pool:
    """Stretches of video between which only their length counts."""

    corpus: str
    cluster: int | None
    share: float
    """Of all samples."""
    videos: list[VideoEntry]
    starts: np.ndarray
    """`(n,)` seconds after the video's first frame."""
    ends: np.ndarray
    """`(n,)` running total of the stretches' seconds."""

    def at(self, fraction: float) -> tuple[VideoEntry, float]:
        """The video and the seconds after its first frame that lie at this fraction, in [0, 1), of the pool."""
        position = fraction * self.ends[-1]
        # the product may round up to the end itself, which belongs to no stretch
        index = min(int(np.searchsorted(self.ends, position, side="right")), len(self.ends) - 1)
        before = self.ends[index - 1] if index else 0.0
        return self.videos[index], float(self.starts[index] + position - before)


class BalancedSampling:
    """Draws moments. `pools` and `corpus_shares` say how often what is drawn."""

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        alpha: float = 0.5,
        weights: Mapping[str, float] | None = None,
        clusters: Clusters | None = None,
        cluster_alpha: float = 0.5,
    ):
        """`alpha` is the power for corpora, unless their `weights` (any scale) are given; `cluster_alpha` for clusters.

        Raises `UserError` for weights that do not fit the corpora, videos without a cluster, and a corpus of no length.
        """
        sizes = {corpus.name: corpus.seconds for corpus in corpora}
        for name, seconds in sizes.items():
            if not seconds > 0:
                raise UserError(f"corpus {name}: its videos are single frames without a duration; leave it out")
        given = _weights_of(sizes, weights) if weights else [size**alpha for size in sizes.values()]
        self.corpus_shares = dict(zip(sizes, shares_of(given), strict=True))
        self.pools: list[Pool] = []
        for corpus in corpora:
            stretches = _stretches(corpus, clusters)
            sizes_inside = [sum(end - start for _, start, end in stretch) for stretch in stretches.values()]
            inside = shares_of([size**cluster_alpha for size in sizes_inside])
            for (cluster, stretch), share in zip(stretches.items(), inside, strict=True):
                videos, starts, ends = zip(*stretch, strict=True)
                share_of_all = self.corpus_shares[corpus.name] * share
                totals = np.cumsum(np.array(ends) - np.array(starts))
                self.pools.append(Pool(corpus.name, cluster, share_of_all, list(videos), np.array(starts), totals))
        self._bounds = np.cumsum([pool.share for pool in self.pools])

    def draw(
        self,
        random: torch.Generator,
        clip_seconds: float = 0.0,
        *,
        near: torch.Generator | None = None,
        spread_seconds: float = 0.0,
    ) -> Moment:
        """A moment for a clip whose last frame comes `clip_seconds` after its first.

        An instant is drawn, and the clip laid around it so that it stays inside the video: as far through the clip as
        it is through the video. Starts are thus uniform over those possible. A clip longer than the video starts with
        it.

        With `near`, equal for neighbours, the place is drawn from it, and from `random` an instant uniform in the
        `spread_seconds` around the place, mirrored at the ends of the video. Each for itself is as likely anywhere as without.
        """
        which, where = torch.rand(2, dtype=torch.float64, generator=random if near is None else near).tolist()
        index = int(np.searchsorted(self._bounds, which * self._bounds[-1], side="right"))
        pool = self.pools[min(index, len(self.pools) - 1)]
        video, instant = pool.at(where)
        duration = video.duration_seconds
        if near is not None:
            instant += spread_seconds * (torch.rand((), dtype=torch.float64, generator=random).item() - 0.5)
            instant = abs((instant + duration) % (2 * duration) - duration)
        # the share of the video in which a clip can start: instants 0 to the end become starts 0 to end minus clip
        room = max(0.0, 1 - clip_seconds / duration)
        return Moment(pool.corpus, pool.cluster, video, video.start_seconds + instant * room)


def shares_of(weights: Sequence[float]) -> list[float]:
    """Weights scaled to the sum 1."""
    total = sum(weights)
    return [weight / total for weight in weights]


def _weights_of(sizes: Mapping[str, float], weights: Mapping[str, float]) -> list[float]:
    if set(weights) != set(sizes):
        raise UserError(
            f"corpus weights are given for {', '.join(sorted(weights))}; expected one for each of {', '.join(sizes)}"
        )
    wrong = [name for name, weight in weights.items() if not (weight >= 0 and np.isfinite(weight))]
    if wrong or not any(weights.values()):
        raise UserError(f"corpus weights must be at least 0 and not all 0; found {dict(weights)}")
    return [weights[name] for name in sizes]


Stretch = tuple[VideoEntry, float, float]
"""A video, and start and end in seconds after its first frame."""


def _stretches(corpus: Corpus, clusters: Clusters | None) -> dict[int | None, list[Stretch]]:
    """Cluster -> its stretches of a corpus; without clusters all videos under None."""
    if clusters is None:
        return {None: [(video, 0.0, video.duration_seconds) for video in corpus.videos if video.duration_seconds > 0]}
    missing = [video.name for video in corpus.videos if f"{corpus.name}/{video.name}" not in clusters]
    if missing:
        raise UserError(
            f"corpus {corpus.name}: {len(missing)} videos have no cluster, first {', '.join(missing[:3])}; make the "
            "clusters again for these corpora"
        )
    found: dict[int, list[Stretch]] = {}
    for video in corpus.videos:
        for segment in clusters[f"{corpus.name}/{video.name}"]:
            end = min(segment.end_seconds, video.duration_seconds)
            if end > segment.start_seconds:
                found.setdefault(segment.cluster, []).append((video, segment.start_seconds, end))
    if not found:
        raise UserError(f"corpus {corpus.name}: its clusters hold no stretch of its videos; make the clusters again")
    return dict(sorted(found.items()))


class SampleOrder(Sampler[int]):
    """The sample numbers of one process: of each global batch the `batch_size` from `rank * batch_size` on, endlessly.

    Global batches follow each other from sample `start` on, so that several processes together see what one process
    with batches as large as all theirs sees. `batch_size` counts what a process takes of an optimiser step, all
    micro-batches.
    """

    def __init__(self, batch_size: int, *, rank: int = 0, world_size: int = 1, start: int = 0):
        if batch_size < 1 or not 0 <= rank < world_size or start < 0:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}, start {start}: not possible")
        self.batch_size, self.rank, self.world_size, self.start = batch_size, rank, world_size, start

    def __iter__(self) -> Iterator[int]:
        for global_batch in itertools.count():
            own = self.start + (global_batch * self.world_size + self.rank) * self.batch_size
            yield from range(own, own + self.batch_size)
