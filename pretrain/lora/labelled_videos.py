"""Annotated videos for Stage 2 and the phase probe: those of the two releases, and of any data set under `data/`.

The phases of a data set become classes through `phase_classes.yaml`, where it stands under the name of its release or of its
folder. Videos may be read from packed folders (`pretrain.video_data.packed`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import nfc, on_disk
from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, progress
from common.dataset.description import features_owner, frames_fps_of, read_description, read_phases
from common.dataset.kfold import prefix_stratum
from common.dataset.patients import read_patients
from common.dataset.phases import IGNORED, PhaseMapping, allowed_difference, read_labels
from common.dataset.segments import Segments, find_segments
from common.video.label_grid import LabelGrid
from common.video.seek import stored_seconds
from common.video.timeline import nearest_in_time
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.video_data.packed import is_shard, read_packed_corpus, seconds_of_shard

# of the record of an import: `videos` are described by the importers of pretrain/, whose releases run at constant rates
IMPORTED = {"release": str}
DESCRIBED = {"release": str, "videos": {str: {"fps": float, "stratum": str}}}
EXCLUDED = -1  # frames that are not learned from


@dataclass(frozen=True, eq=False)
class SegmentedVideo:
    """A video with its runs of classes; `stratum` is what the split spreads over both sides (a surgeon).

    Frames have the times `seconds` `(num_frames,)`, or where that is None run at `fps` from 0 on. `patient` is whose videos stay
    together (None: nobody else's).
    """

    name: str
    path: Path
    fps: float
    num_frames: int
    stratum: str
    segments: Segments
    seconds: np.ndarray | None = None
    patient: str | None = None

    def class_at(self, frame: int) -> int:
        """The class of a frame, -1 for one that is not learned from."""
        return int(self.segments.labels[np.searchsorted(self.segments.ends, frame, side="right")])

    def seconds_at(self, frame: int) -> float:
        """The time of a frame."""
        return frame / self.fps if self.seconds is None else float(self.seconds[frame])

    def grid(self, step_seconds: float) -> list[int]:
        """The frames shown in the middle of each stretch of `step_seconds`."""
        if self.seconds is None:
            return np.arange(step_seconds * self.fps / 2, self.num_frames, step_seconds * self.fps).astype(int).tolist()
        times = np.arange(self.seconds[0] + step_seconds / 2, self.seconds[-1] + 1 / self.fps, step_seconds)
        return (np.searchsorted(self.seconds, times, side="right") - 1).tolist()


def read_labelled_videos(
    dataset: paths.Dataset, classes: PhaseClasses, packed: Sequence[Path] = ()
) -> list[SegmentedVideo]:
    """The annotated videos of a data set, by name; of `packed` folders the one of its name is read in place of the videos.

    Raises `UserError` for a folder without labels, a video without a file, phases without a class, and labels that are not of
    their video.
    """
    record = _import_record(dataset)
    described: Mapping[str, Any] = {}
    if not misfit(record, DESCRIBED):
        described = {nfc(name): entry for name, entry in record["videos"].items()}
    mapping, class_of = _classes_of(dataset, classes, record.get("release"))
    labels = {name: dataset.ground_truth / f"{name}.txt" for name in described} or paths.label_paths(
        dataset.ground_truth
    )
    if not labels:
        raise UserError(f"{dataset.ground_truth}: expected label files <video>.txt, found none; import the data set")
    files = _files(dataset, packed)
    if missing := sorted(labels.keys() - files.keys()):
        raise UserError(
            f"{dataset.videos}: {len(missing)} annotated videos have no file: {listed(missing)}; pack them, or import the "
            "data set again without --annotations_only"
        )
    description, patients = read_description(dataset), read_patients(dataset)
    grid = LabelGrid(description.label_fps, description.label_every)
    videos = []
    for name, path in progress(sorted(labels.items()), description=dataset.name, unit="videos"):
        phase_ids = read_labels(on_disk(path), mapping)
        if entry := described.get(name):
            fps, seconds = entry["fps"], None
            phase_ids = _at_constant_rate(phase_ids, grid, fps)
        else:
            seconds, phase_ids = _in_time(phase_ids, grid, files[name], path)
            fps = 1 / float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
        ids = np.where(phase_ids == IGNORED, EXCLUDED, class_of[np.maximum(phase_ids, 0)])
        stratum = entry["stratum"] if entry else prefix_stratum(name)
        title, segments = f"{dataset.name}/{name}", find_segments(ids)
        videos.append(SegmentedVideo(title, files[name], fps, len(ids), stratum, segments, seconds, patients.get(name)))
    return videos


def _import_record(dataset: paths.Dataset) -> dict[str, Any]:
    """What an importer said of a data set; nothing of one that was put there by hand."""
    path = dataset.import_record
    if not path.is_file():
        if not dataset.mapping.is_file():
            raise UserError(
                f"{dataset.root}: expected a data set with labels, found neither {path.name} nor {dataset.mapping.name}; import "
                "it with pretrain/<data set>/import_annotations.py or data/import_dataset.py"
            )
        return {}
    record = read_json(path, "import the data set again")
    if wrong := misfit(record, IMPORTED):
        raise UserError(f"{path}: not the record of an import ({wrong}); import the data set again")
    return record


def _classes_of(dataset: paths.Dataset, classes: PhaseClasses, release: str | None) -> tuple[PhaseMapping, np.ndarray]:
    """The mapping of a data set, and the class of each of its phases, `(num_classes,)`.

    Raises `UserError` where the table of classes has neither the release nor the folder.
    """
    name = next((name for name in (release, dataset.name) if name in classes.datasets), None)
    if name is None:
        raise UserError(
            f"{classes.source}: expected the phases of {release or dataset.name}, found only those of "
            f"{', '.join(classes.datasets)}; write a table of your own with a class for each phase in {dataset.mapping}, and "
            "name it by --classes"
        )
    mapping = read_phases(dataset)
    found = [classes.class_of(name, phase) for phase in mapping.names]
    return mapping, np.array([EXCLUDED if index is None else index for index in found])


def _files(dataset: paths.Dataset, packed: Sequence[Path]) -> dict[str, Path]:
    owner = features_owner(dataset)
    for folder in packed:
        corpus = read_packed_corpus(folder)
        if corpus.name in (owner.name, dataset.name):
            return corpus.shards()
    return paths.find_videos(owner.videos)


def _at_constant_rate(phase_ids: np.ndarray, grid: LabelGrid, fps: float) -> np.ndarray:
    """The label nearest to each frame of a video at `fps`, `(num_frames,)`, of labels on a `grid` of their own."""
    if grid.is_every_frame:
        return phase_ids
    num_frames = int(np.ceil(len(phase_ids) * fps / grid.rate(fps)))
    return phase_ids[_nearest_label(np.arange(num_frames) / fps, grid, len(phase_ids))]


def _nearest_label(seconds: np.ndarray, grid: LabelGrid, num_labels: int) -> np.ndarray:
    """The label nearest in time to each frame, `(T,)`, of frames at `seconds` `(T,)`."""
    reached = grid.frames(seconds)[:num_labels]
    return nearest_in_time(seconds[reached], seconds)


def _in_time(phase_ids: np.ndarray, grid: LabelGrid, video: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """The times of a video's frames, and their labels, `(T,)` each.

    Raises `UserError` where there are more or fewer labels than the video has frames for.
    """
    seconds = seconds_of_shard(video) if is_shard(video) else stored_seconds(video, frames_fps_of(video))
    expected = len(grid.frames(seconds)) if len(seconds) else 0
    if abs(expected - len(phase_ids)) > allowed_difference(expected):
        raise UserError(
            f"{labels}: expected a label for each of {expected} frames ({grid}) of {video}, found {len(phase_ids)}; is it of "
            "another video, or is label_fps of dataset.yaml another?"
        )
    if grid.is_every_frame:
        num_frames = min(len(seconds), len(phase_ids))
        return seconds[:num_frames], phase_ids[:num_frames]
    return seconds, phase_ids[_nearest_label(seconds, grid, len(phase_ids))]


def choose_validation(videos: Sequence[SegmentedVideo], share: float) -> set[str]:
    """Names of the videos that validate: about `share` of them and of each stratum, chosen by names alone.

    All videos of a patient are on one side. Raises `UserError` when either side would be empty.
    """
    of_patient: dict[str, list[SegmentedVideo]] = {}
    for video in sorted(videos, key=lambda video: video.name):
        of_patient.setdefault(video.name if video.patient is None else f"patient {video.patient}", []).append(video)

    def order(name: str) -> tuple[str, str]:
        first = of_patient[name][0]
        return first.stratum, hashlib.sha256(first.name.encode()).hexdigest()

    # every 1/share-th of a list that is sorted by stratum takes the same share of each
    steps = np.floor(np.arange(len(of_patient) + 1) * share + 1e-9)
    chosen = [name for name, step in zip(sorted(of_patient, key=order), np.diff(steps), strict=True) if step]
    if not 0 < len(chosen) < len(of_patient):
        raise UserError(f"validation share {share:g} of {len(of_patient)} videos leaves one side without a video")
    return {video.name for name in chosen for video in of_patient[name]}
