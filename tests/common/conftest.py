"""A small data set of made features: a head learns it in seconds, without any video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common.base import paths
from common.dataset.kfold import make_folds, write_folds
from common.features.files import FeatureWriter
from common.head.config import TrainConfig
from common.video.timeline import Timeline

PHASES = ("background", "incision", "wash", "suture")
FEATURE_DIM = 48  # that of models/ColorHistogram
SMALL_HEAD = {"num_layers_PG": 4, "num_layers_R": 3, "num_R": 1, "num_f_maps": 8, "num_epochs": 3, "lr": 5e-3}


@dataclass(frozen=True)
class MadeDataset:
    """A made data set: where it lies, and how to write more of it."""

    dataset: paths.Dataset

    @property
    def features(self) -> Path:
        return self.dataset.features("ColorHistogram")

    def write_labels(self, name: str, phase_ids: np.ndarray, folder: str = "groundTruth") -> None:
        """A label file, one phase name a line."""
        path = self.dataset.root / folder / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{PHASES[phase]}\n" for phase in phase_ids))

    def write_features(
        self,
        name: str,
        rows: np.ndarray,
        *,
        sampled: np.ndarray | None = None,
        fps: float = 25.0,
        num_frames: int | None = None,
    ) -> None:
        """A feature file with its sidecar; `rows` `(T, FEATURE_DIM)`."""
        num_frames = num_frames or len(rows)
        timeline = Timeline(np.arange(num_frames) / fps, np.arange(num_frames) if sampled is None else sampled)
        weights = {"source": "none", "file": None, "sha256": None}
        sidecar = {
            "encoder": "ColorHistogram", "weights": weights, "pooling": "made", "window": None, "preprocessing": {},
            "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav", "timeline": timeline.to_json(),
        }  # fmt: skip
        with FeatureWriter(self.features / f"{name}.npy", rows.shape[1], "float32") as writer:
            writer.append(rows.astype(np.float32))
            writer.finish(sidecar)

    def write_video(self, name: str, seed: int, folder: str = "groundTruth", *, length: int = 60) -> np.ndarray:
        """Labels and features that tell the phases apart; returns the phase ids `(T,)`."""
        random = np.random.default_rng(seed)
        inner = random.permutation([1, 2, 3])
        phase_ids = np.repeat([0, *inner, 0], random.multinomial(length - 25, [0.2] * 5) + 5)
        rows = random.normal(0, 0.3, (len(phase_ids), FEATURE_DIM))
        rows[np.arange(len(phase_ids)), phase_ids] += 2
        self.write_labels(name, phase_ids, folder)
        self.write_features(name, rows)
        return phase_ids

    def config(self, **changes) -> TrainConfig:
        """A small head on this data set."""
        return TrainConfig(**({"dataset": self.dataset.name, "model": "ColorHistogram"} | SMALL_HEAD | changes))


@pytest.fixture
def made(workspace: Path) -> MadeDataset:
    """Six videos of two prefixes in two folds and two validation videos, 4 phases, features of `ColorHistogram`."""
    root = workspace / "data" / "made"
    root.mkdir()
    (root / "mapping.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    result = MadeDataset(paths.Dataset(root))
    names = ["BL_1", "BL_2", "BL_3", "SD_1", "SD_2", "SD_3"]
    for seed, name in enumerate(names):
        result.write_video(name, seed, length=60 + 7 * seed)
    for seed, name in enumerate(["BL_8", "SD_8"], 20):
        result.write_video(name, seed, "groundTruth_val")
    write_folds(result.dataset, make_folds(names, 2), seed=42, stratify="prefix", patients={})
    return result
