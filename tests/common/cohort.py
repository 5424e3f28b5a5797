"""A sound data set with everything that an audit looks at, to put faults into."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base import paths
from common.checks.dataset import audit_dataset
from common.dataset.kfold import make_folds, write_folds
from common.features.files import FeatureWriter, sidecar_path
from common.video.timeline import Timeline

PHASES = ("background", "cut", "open", "inject", "remove", "wash", "close")
NUM_VIDEOS, FPS = 24, 25
NAMES = [f"{'BL' if n % 2 else 'SD'}_{n:02}" for n in range(NUM_VIDEOS)]
VALIDATION = ["BL_90", "SD_91"]
WAY = {
    "encoder": "Made", "weights": {"source": "none", "file": None, "sha256": None}, "pooling": "made", "window": None,
    "preprocessing": {}, "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav",
}  # fmt: skip


def course(number: int) -> list[str]:
    """A video's phases in order: `inject` and `remove` in either order, `wash` at times, `close` again at times."""
    middle = ["remove", "inject"] if number % 3 == 0 else ["inject", "remove"]
    wash = ["wash"] if number % 2 else []
    again = ["open", "close"] if number % 5 == 0 else []
    return ["background", "cut", "open", *middle, *wash, "close", *again, "background"]


def labels_of(number: int) -> list[str]:
    """One phase name a frame, every phase 10 to 14 frames (0.4 to 0.56 s) long."""
    lengths = np.random.default_rng(number).integers(10, 15, 20)
    return [phase for phase, length in zip(course(number), lengths, strict=False) for _ in range(length)]


@dataclass(frozen=True)
class Cohort:
    """A sound data set to put faults into, and what an audit finds then."""

    dataset: paths.Dataset

    def label_file(self, video: str) -> Path:
        folder = self.dataset.ground_truth_val if video in VALIDATION else self.dataset.ground_truth
        return folder / f"{video}.txt"

    def labels(self, video: str) -> list[str]:
        return self.label_file(video).read_text().split()

    def write(self, video: str, labels: list[str]) -> None:
        self.label_file(video).write_text("".join(f"{name}\n" for name in labels))

    def reorder(self, video: str, phases: str) -> list[int]:
        """Other phases in the same video, all of one length; returns the frames at which they start."""
        names = phases.split()
        length, rest = divmod(len(self.labels(video)), len(names))
        self.write(video, [name for name in names for _ in range(length)] + names[-1:] * rest)
        return [length * number for number in range(len(names))]

    def video(self, name: str) -> Path:
        return self.dataset.videos / f"{name}.mp4"

    def add_features(
        self,
        video: str,
        *,
        encoder: str = "Made",
        frames: int | None = None,
        seconds=None,
        sidecar: bool = True,
        **changes,
    ) -> Path:
        """Features of a video as an extraction leaves them: by default a vector for every label."""
        count = len(self.labels(video)) if frames is None else frames
        times = np.arange(count) / FPS if seconds is None else np.asarray(seconds)
        path = self.dataset.features(encoder) / f"{video}.npy"
        timeline = Timeline(times, np.arange(len(times))).to_json()
        with FeatureWriter(path, 2, "float32") as writer:
            writer.append(np.zeros((len(times), 2), np.float32))
            writer.finish(WAY | {"timeline": timeline} | changes)
        if not sidecar:
            sidecar_path(path).unlink()
        return path

    def audit(self, **options) -> list[tuple[str, str, str | None]]:
        """`(severity, kind, video)` of every finding."""
        return [(finding.severity, finding.kind, finding.video) for finding in self.findings(**options)]

    def findings(self, **options):
        return audit_dataset(self.dataset, **options).findings

    def only(self, **options):
        """The one finding that there must be."""
        findings = self.findings(**options)
        assert len(findings) == 1, findings
        return findings[0]


def make_and_write_folds(cohort, num_folds=3, patients=None):
    """Folds that keep the patients of `patients.csv`, or other ones, together."""
    patients = patients_of(cohort) if patients is None else patients
    folds = make_folds(NAMES, num_folds, patients=patients)
    write_folds(cohort.dataset, folds, seed=42, stratify="prefix", patients=patients)
    return folds


def patients_of(cohort):
    return dict(line.split(",") for line in cohort.dataset.patients.read_text().split()[1:])


def write_manifest(folder: Path, videos: list[dict]) -> Path:
    folder.mkdir(parents=True)
    record = {"format": 1, "stage": "ssl", "model": folder.name, "videos": videos, "based_on": []}
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder / "manifest.json"
