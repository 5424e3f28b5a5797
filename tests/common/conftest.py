"""A small data set of made features, which a head learns in seconds without any video; a sound one to audit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common.base import paths
from common.dataset.kfold import make_folds, write_folds
from common.features.files import FeatureWriter
from common.head.config import TrainConfig
from common.video.timeline import Timeline
from tests.common import cohort as audited
from tests.common.cohort import Cohort

PHASES = ("background", "incision", "wash", "suture")
FOLD_WORDS = ["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu"]
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
        **changes,
    ) -> None:
        """A feature file with its sidecar, in which `changes` are other than usual; `rows` `(T, FEATURE_DIM)`."""
        num_frames = num_frames or len(rows)
        timeline = Timeline(np.arange(num_frames) / fps, np.arange(num_frames) if sampled is None else sampled)
        weights = {"source": "none", "file": None, "sha256": None}
        sidecar = {
            "encoder": "ColorHistogram", "weights": weights, "pooling": "made", "window": None, "preprocessing": {},
            "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav", "timeline": timeline.to_json(),
        }  # fmt: skip
        with FeatureWriter(self.features / f"{name}.npy", rows.shape[1], "float32") as writer:
            writer.append(rows.astype(np.float32))
            writer.finish(sidecar | changes)

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


@pytest.fixture(scope="session")
def clean_files(tmp_path_factory, make_clip) -> Path:
    """A sound data set: 24 videos and 2 for validation, each of its own colour, with labels and patients."""
    cohort = Cohort(paths.Dataset(tmp_path_factory.mktemp("clean") / "set"))
    dataset = cohort.dataset
    dataset.ground_truth.mkdir(parents=True)
    dataset.ground_truth_val.mkdir()
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(audited.PHASES)))
    for number, video in enumerate(audited.NAMES + audited.VALIDATION):
        cohort.write(video, audited.labels_of(number))
        picture = np.full((16, 16, 3), (9 * number, 255 - 9 * number, 40), np.uint8)
        make_clip(cohort.video(video), [picture] * len(audited.labels_of(number)), fps=audited.FPS)
    patients = {video: f"p{number // 2}" for number, video in enumerate(audited.NAMES)} | {audited.VALIDATION[0]: "p90"}
    rows = "".join(f"{video},{patient}\n" for video, patient in patients.items())
    dataset.patients.write_text(f"video,patient\n{rows}")
    return dataset.root


@pytest.fixture
def cohort(workspace, clean_files) -> Cohort:
    """A copy of the sound data set, without folds and features."""
    root = workspace / "data" / "set"
    shutil.copytree(clean_files, root)
    return Cohort(paths.Dataset(root))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos whose features were made, in order."""
    from common.features.extract import ExtractionLoop

    names: list[str] = []
    run_loop = ExtractionLoop.run
    monkeypatch.setattr(
        ExtractionLoop, "run", lambda self, videos, *rest: (names.extend(videos), run_loop(self, videos, *rest))
    )
    return names
