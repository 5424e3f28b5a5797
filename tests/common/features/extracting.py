"""Extracting any files together, and what came of each."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base import paths
from common.features.config import ExtractionConfig
from common.features.extract import Summary, extract
from common.features.files import FeatureFile, open_features

MODEL = "ColorHistogram"


@dataclass(frozen=True)
class Extracted:
    """What an extraction made of some videos."""

    summary: Summary
    folder: Path

    def features(self, name: str) -> FeatureFile:
        """The features of a video."""
        return open_features(self.folder / f"{name}.npy")

    def note(self, name: str) -> dict:
        """The note on a video without features; there must be no features then."""
        assert not (self.folder / f"{name}.npy").exists()
        return json.loads(paths.quarantine_note(self.folder, name).read_text())


def extract_all(root: Path, videos: dict[str, Path], **options) -> Extracted:
    """Extract `videos`, which are linked into a data set's folder under their names, whatever they are."""
    dataset = paths.Dataset(root / "others")
    dataset.videos.mkdir(parents=True)
    for name, path in videos.items():
        (dataset.videos / f"{name}{path.suffix}").symlink_to(path)
    config = ExtractionConfig(dataset=str(dataset.root), **options)
    return Extracted(extract(paths.model(MODEL), config, device="cpu"), dataset.features(MODEL))


def times_and_indices(file: FeatureFile) -> tuple[np.ndarray, list[int]]:
    """Times of all decoded frames, and the frames that have a vector."""
    return file.timeline.seconds, file.timeline.sampled.tolist()
