"""Clusters of clips by what they show, for sampling that sees rare scenes more often.

SurgRec (arXiv 2603.29966) balances its corpus by hierarchical clustering of clips: features of a pretrained encoder are
clustered, and clips are drawn so that large clusters do not drown small ones. The features, the numbers of clusters and
the rule of drawing were not published. Ours: unit-length features, k-means with many clusters, then k-means of their
centroids with fewer (as in Vo et al., arXiv 2405.15613: centroids lie more evenly over what is shown than clips do, so
the upper clusters follow meaning more than frequency), and draws in proportion to a power of a cluster's seconds
(`pretrain.video_data.sampling`). The numbers of clusters are a guess for some 100,000 clips.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.base.entries import nfc
from common.base.files import read_json, write_json
from common.base.runtime import UserError

FORMAT = 1
LEVELS = (1024, 64)
FITTED_AT_ONCE = 8192  # clips a step of the lowest level


class Segment(NamedTuple):
    """A stretch of a video, in seconds after its first frame, and its cluster."""

    start_seconds: float
    end_seconds: float
    cluster: int


class Clip(NamedTuple):
    """The stretch of `<corpus>/<video>` that one feature stands for, in seconds after its first frame."""

    video: str
    start_seconds: float
    end_seconds: float


Clusters = dict[str, list[Segment]]
"""`<corpus>/<video>` -> its segments in order."""


def cluster_features(features: np.ndarray, levels: Sequence[int] = LEVELS, *, seed: int = 42) -> np.ndarray:
    """The cluster `(N,)` of each of the features `(N, D)` at the last, coarsest of `levels` (numbers of clusters).

    Raises `UserError` where levels do not shrink from below the number of clips, and for features that are not finite.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.preprocessing import normalize

    sizes = (len(features), *levels)
    if any(fewer >= more for more, fewer in itertools.pairwise(sizes)) or sizes[-1] < 1:
        raise UserError(
            f"levels of {', '.join(map(str, levels))} clusters for {len(features)} clips: each must be fewer"
        )
    if not np.isfinite(features).all():
        raise UserError("features of clips to cluster: some are not finite; extract them again")
    # unit length: Euclidean k-means then follows the angle between features, as cosine similarity does
    lowest = MiniBatchKMeans(levels[0], batch_size=FITTED_AT_ONCE, n_init=3, random_state=seed)
    labels = lowest.fit_predict(normalize(features))
    centroids = lowest.cluster_centers_
    for count in levels[1:]:
        # clusters of centroids: a clip goes where the centroid of its cluster goes
        level = KMeans(count, n_init=3, random_state=seed).fit(centroids)
        labels, centroids = level.labels_[labels], level.cluster_centers_
    return labels


def segments_of(clips: Sequence[Clip], labels: np.ndarray) -> Clusters:
    """Clips `N` with their clusters `(N,)` by video, in order; neighbours of one cluster become one segment."""
    clusters: Clusters = {}
    for clip, label in sorted(zip(clips, labels.tolist(), strict=True)):
        segments = clusters.setdefault(clip.video, [])
        if segments and segments[-1].cluster == label and segments[-1].end_seconds == clip.start_seconds:
            segments[-1] = segments[-1]._replace(end_seconds=clip.end_seconds)
        else:
            segments.append(Segment(clip.start_seconds, clip.end_seconds, label))
    return clusters


def write_clusters(path: Path, clusters: Clusters, made_by: dict[str, Any]) -> None:
    """Write clusters as JSON: `videos` maps each to `[[start_seconds, end_seconds, cluster], ...]`.

    `made_by` (encoder, levels, seed ...) says how they were made.
    """
    videos = {video: [list(segment) for segment in segments] for video, segments in clusters.items()}
    write_json(path, {"format": FORMAT, "made_by": made_by, "videos": videos})


def read_clusters(path: Path) -> Clusters:
    """Read what `write_clusters` wrote. Raises `UserError` naming the file when it is absent or something else."""
    if not path.is_file():
        raise UserError(f"{path}: no such file of clusters; make it first, or sample without clusters")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("videos"), dict):
        raise UserError(f"{path}: not a file of clusters of format {FORMAT}; make it again")
    try:
        return {
            nfc(video): [Segment(float(start), float(end), int(cluster)) for start, end, cluster in segments]
            for video, segments in record["videos"].items()
        }
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected [start_seconds, end_seconds, cluster] lists ({error}); make it again"
        ) from error
