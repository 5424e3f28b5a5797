"""What every self-supervised pretraining on videos can be told about its data, besides how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.options import option
from common.runtime import UserError
from pretrain.cataracts1k import RELEASE
from pretrain.ssl_config import SslModel, TrainingOptions
from pretrain.video_data.clusters import read_clusters
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.sampling import BalancedSampling


@dataclass(frozen=True)
class PretrainingOptions(TrainingOptions):
    """The options of a recipe are a subclass of this; one that trains on clips has `fps` too."""

    videos: tuple[str, ...] = option(
        (RELEASE,), f"corpora: folders of videos, or names of data sets under data/ (default: {RELEASE})"
    )
    corpus_alpha: float = option(
        0.5, "a corpus is drawn in proportion to its hours to this power: 1 every clip alike, 0 every corpus alike"
    )
    corpus_weights: str | None = option(
        None, "how often each corpus is drawn, in place of --corpus_alpha: NAME=WEIGHT,NAME=WEIGHT"
    )
    clusters: str | None = option(
        None, "file of clusters of the corpora (cluster_videos.py), between which draws are balanced inside a corpus"
    )
    cluster_alpha: float = option(0.5, "as --corpus_alpha, for the clusters of a corpus")
    open_videos: int = option(8, "videos that each reading process keeps open")
    crop_size: int | None = option(None, "side of the square input in pixels (default: the model's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("corpus_alpha", "cluster_alpha"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.crop_size is not None and self.crop_size < 1:
            raise UserError(f"crop_size must be greater than 0, found {self.crop_size}")
        if self.open_videos < 1:
            raise UserError(f"open_videos must be greater than 0, found {self.open_videos}")

    def crop_size_of(self, model: SslModel) -> int:
        """Side of the square input in pixels, of the global crops where there are several."""
        return self.crop_size or model.crop_size

    def clip_len_of(self, model: SslModel) -> int:
        """Frames of a sample."""
        return model.clip_len

    def sampling(self, corpora: Sequence[Corpus]) -> BalancedSampling:
        """Which clip is which sample.

        Raises `UserError` for weights or clusters that do not fit the corpora.
        """
        return BalancedSampling(
            corpora,
            alpha=self.corpus_alpha,
            weights=read_weights(self.corpus_weights) if self.corpus_weights else None,
            clusters=read_clusters(Path(self.clusters).expanduser()) if self.clusters else None,
            cluster_alpha=self.cluster_alpha,
        )


def read_weights(text: str) -> dict[str, float]:
    """`a=1,b=0.5` as numbers by name; raises `UserError` for anything else."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = None
        if not name.strip() or weight is None or name.strip() in weights:
            raise UserError(f"--corpus_weights {text}: expected NAME=WEIGHT,NAME=WEIGHT, found {part!r}")
        weights[name.strip()] = weight
    return weights
