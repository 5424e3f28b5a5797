"""Videos that pretraining has seen and that are scored: named by content, under whatever name each set knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.paths import label_paths
from common.base.runtime import progress
from common.base.wording import counted, listed
from common.dataset.manifest import Manifest, cached_fingerprint, manifests_of_weights


@dataclass(frozen=True)
class Leak:
    """Scored videos that a stage of pretraining has seen; `where` is `test fold 2` or `the validation part`."""

    manifest: Manifest
    where: str
    videos: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.manifest.title} saw {counted(len(self.videos), 'video')} of {self.where}: {listed(list(self.videos))}"


def video_files(dataset: paths.Dataset) -> list[Path]:
    """Every video file, also two of one name, which `paths.find_videos` refuses."""
    found = sorted(dataset.videos.glob("[!.]*"))
    return [path for path in found if path.suffix.lower() in paths.VIDEO_SUFFIXES]


def leaked_videos(dataset: paths.Dataset, manifest: Manifest) -> list[str]:
    """Labelled videos of a data set whose content is in a manifest, sorted.

    A video whose file is not on this machine is known by its name, if the manifest's corpus is this data set.
    """
    labelled = label_paths(dataset.ground_truth).keys() | label_paths(dataset.ground_truth_val).keys()
    there = [path for path in video_files(dataset) if path.stem in labelled and path.is_file()]
    sizes = {video.size_bytes for video in manifest.videos}
    seen = {video.fingerprint for video in manifest.videos}
    suspects = [path for path in there if path.stat().st_size in sizes]
    same = {
        path.stem
        for path in progress(suspects, description="fingerprints", unit="video")
        if cached_fingerprint(path) in seen
    }
    absent = labelled - {path.stem for path in there}
    names = {video.name for video in manifest.videos if video.corpus.lower() == dataset.name.lower()}
    return sorted(same | (absent & names))


def leaks_of_record(dataset: paths.Dataset, record: Mapping[str, Any]) -> list[Leak]:
    """What pretraining of a run's features has seen of the videos that the run was scored on (`run.json`).

    Raises `UserError` for a damaged or missing manifest.
    """
    identity = record["features"]["identity"] or {}
    split, scored = record["split"], set(record["videos"])
    where = "the validation part" if split == "val" else f"test fold {split}"
    leaks = []
    for manifest in manifests_of_weights(identity.get("weights")):
        videos = tuple(video for video in leaked_videos(dataset, manifest) if video in scored)
        leaks += [Leak(manifest, where, videos)] if videos else []
    return leaks


def leaks_of_dataset(dataset: paths.Dataset, manifest: Manifest, folds: list[list[str]]) -> Iterator[Leak]:
    """What one stage has seen of each test fold and of the validation part; without folds, of the labelled videos."""
    leaked = leaked_videos(dataset, manifest)
    validation = label_paths(dataset.ground_truth_val).keys() - label_paths(dataset.ground_truth).keys()
    parts = {f"test fold {number}": set(fold) for number, fold in enumerate(folds, 1)}
    parts["the validation part"] = set(validation)
    parts["the labelled videos"] = set(leaked).difference(*parts.values())
    for where, members in parts.items():
        videos = tuple(video for video in leaked if video in members)
        if videos:
            yield Leak(manifest, where, videos)
