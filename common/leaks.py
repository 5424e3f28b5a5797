"""Videos that pretraining has seen and that are scored: named by content, under whatever name each set knows them.

Pretraining writes `manifest.json` beside its weights:

    {"format": 1, "stage": "ssl" or "lora", "model": "vjepa2-vitl-fpc64-256",
     "videos": [{"corpus": "cataract1k", "name": "case_0012", "size_bytes": 73400320, "fingerprint": "9f2c..."}],
     "based_on": ["../ssl/vjepa2-vitl-fpc64-256/manifest.json"]}

`based_on` names the manifests of earlier stages, absolute, or relative to the manifest or to the repository. Weights
that come without a manifest, as published ones do, say nothing of what they have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import paths
from common.findings import counted, listed
from common.fingerprint import video_fingerprint
from common.phases import label_paths
from common.runtime import UserError, progress, read_json

FORMAT = 1
FILE_NAME = "manifest.json"
STAGES = {"ssl": "self-supervised pretraining", "lora": "LoRA fine-tuning"}
KEYS = {"format": int, "stage": str, "model": str, "videos": list, "based_on": list}
VIDEO_KEYS = {"corpus": str, "name": str, "size_bytes": int, "fingerprint": str}


@dataclass(frozen=True)
class SeenVideo:
    """A video that pretraining has seen."""

    corpus: str
    name: str
    size_bytes: int
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """What one stage of pretraining has seen, and the manifests of the stages before it."""

    path: Path
    stage: str
    model: str
    videos: tuple[SeenVideo, ...]
    based_on: tuple[Path, ...]

    @property
    def title(self) -> str:
        """The stage and its folder: `LoRA fine-tuning (vjepa2-l/best_lora)`."""
        root = paths.pretraining_checkpoints().resolve()
        folder = self.path.parent.resolve()
        return f"{STAGES[self.stage]} ({folder.relative_to(root) if folder.is_relative_to(root) else folder})"


@dataclass(frozen=True)
class Leak:
    """Scored videos that a stage of pretraining has seen; `where` is `test fold 2` or `the validation part`."""

    manifest: Manifest
    where: str
    videos: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.manifest.title} saw {counted(len(self.videos), 'video')} of {self.where}: {listed(list(self.videos))}"


def read_manifest(path: Path) -> Manifest:
    """Read what a stage of pretraining has seen.

    Raises `UserError` naming the file when it is absent, damaged, or not such a manifest.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such manifest; run this stage of pretraining again, or copy it with the weights")
    record = read_json(path)
    wrong = _what_is_wrong(record)
    if wrong:
        raise UserError(
            f"{path}: not a manifest of pretraining ({wrong}), so leaks cannot be found; run that stage again, or move "
            "the file away if it is of something else"
        )
    videos = tuple(SeenVideo(**{key: entry[key] for key in VIDEO_KEYS}) for entry in record["videos"])
    guesses = [_guesses(str(name), path.parent) for name in record["based_on"]]
    earlier = tuple(next(filter(Path.is_file, places), places[0]) for places in guesses)
    return Manifest(path, record["stage"], record["model"], videos, earlier)


def _what_is_wrong(record: Any) -> str:
    """Why a record is no manifest; empty for one that is."""
    if wrong := _lacking(record, KEYS):
        return wrong
    if record["format"] != FORMAT:
        return f"format {record['format']}, expected {FORMAT}"
    if record["stage"] not in STAGES:
        return f"stage {record['stage']!r}, expected one of {', '.join(STAGES)}"
    lacking = ((index, _lacking(video, VIDEO_KEYS)) for index, video in enumerate(record["videos"]))
    return next((f"videos[{index}]: {wrong}" for index, wrong in lacking if wrong), "")


def _lacking(record: Any, keys: Mapping[str, type]) -> str:
    """Which of `keys` a record has not, or not with a value of its type; empty when it has all."""
    if not isinstance(record, dict):
        return "not an object"
    wrong = [key for key, kind in keys.items() if not isinstance(record.get(key), kind)]
    return f"without a proper {', '.join(wrong)}" if wrong else ""


def _guesses(name: str, start: Path) -> list[Path]:
    """Where the file or folder called `name` may be: absolute, relative to `start`, relative to the repository.

    One of another checkout's `pretrain/checkpoints` may have come into this one's.
    """
    path = Path(name).expanduser()
    guesses = [start / path, paths.repository_root() / path]
    for index, parts in enumerate(pairwise(path.parts)):
        if parts == ("pretrain", "checkpoints"):
            guesses.append(paths.pretraining_checkpoints().joinpath(*path.parts[index + 2 :]))
    return guesses


def manifests_of_weights(identity: Mapping[str, Any] | None) -> list[Manifest]:
    """Every stage that made the weights of a sidecar (`identity["weights"]`: `source`, perhaps `adapter`), latest first.

    Raises `UserError` for a damaged manifest, and when one that another is based on is missing.
    """
    if not identity:
        return []
    adapter = identity.get("adapter") or {}
    found = [path for record in (adapter, identity) if record for path in _beside(str(record["source"]))]
    return _with_earlier_stages(found)


def _beside(source: str) -> list[Path]:
    """The manifest in, beside or above a weight source that is on this disk; at most one."""
    kind, _, name = source.partition(":")
    if kind == "pretrain":
        places = [paths.pretrained_adapter(name)]
    elif kind in ("hub", "package", "torchvision", "http", "https") or source in ("random", "none", "local"):
        return []
    else:
        places = _guesses(source, Path.cwd())
    for place in places:
        folders = (place, place.parent, place.parent.parent) if place.is_file() else (place, place.parent)
        for folder in folders:
            if (folder / FILE_NAME).is_file():
                return [folder / FILE_NAME]
    return []


def _with_earlier_stages(found: Iterable[Path]) -> list[Manifest]:
    """Manifests and, after each, those it is based on; every one once, whatever circle they form."""
    manifests: dict[Path, Manifest] = {}
    waiting = list(found)
    while waiting:
        path = waiting.pop(0).resolve()
        if path not in manifests:
            manifests[path] = read_manifest(path)
            waiting += manifests[path].based_on
    return list(manifests.values())


def all_manifests() -> list[Path]:
    """The manifests of everything under `pretrain/checkpoints/`."""
    return sorted(paths.pretraining_checkpoints().rglob(FILE_NAME))


def without_manifest() -> list[Path]:
    """Folders of finished weights under `pretrain/checkpoints/` that do not say what they have seen."""
    root = paths.pretraining_checkpoints()
    names = [path.name for path in sorted(root.glob("*"))]
    backbones = sorted(paths.pretrained_backbone("any").parent.glob("*/final.pt"))
    folders = [path.parent for path in backbones] + [paths.pretrained_adapter(name) for name in names]
    return [folder for folder in folders if folder.is_dir() and not (folder / FILE_NAME).is_file()]


def cached_fingerprint(path: Path) -> str:
    """`video_fingerprint`, computed once in a run for a file that does not change."""
    status = path.stat()
    return _fingerprint(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.cache
def _fingerprint(path: Path, size_bytes: int, modified_ns: int) -> str:
    return video_fingerprint(path)


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
