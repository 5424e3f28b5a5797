"""Manifests: the videos that a pretrained network has seen, known by a fingerprint of their content.

A stage of `pretrain/` writes `manifest.json` beside its weights, and `checks/leaks.py` holds it against a data set:

    {"format": 1, "stage": "ssl" or "lora", "model": "vjepa2-vitl-fpc64-256",
     "videos": [{"corpus": "cataract1k", "name": "case_0012", "size_bytes": 73400320, "fingerprint": "9f2c..."}],
     "based_on": ["../ssl/vjepa2-vitl-fpc64-256/manifest.json"]}

`based_on` names the manifests of earlier stages, absolute, or relative to the manifest or to the repository. Weights
that come without a manifest, as published ones do, say nothing of what they have seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.entries import visible
from common.base.files import misfit, read_json
from common.base.runtime import UserError, shown

FORMAT = 1
STAGES = {"ssl": "self-supervised pretraining", "lora": "LoRA fine-tuning"}
VIDEO_KEYS = {"corpus": str, "name": str, "size_bytes": int, "fingerprint": str}
SHAPE = {"format": int, "stage": str, "model": str, "videos": [VIDEO_KEYS], "based_on": [str]}


@dataclass(frozen=True)
class SeenVideo:
    """A video that pretraining has seen."""

    corpus: str
    name: str
    size_bytes: int
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """The videos that one stage of pretraining has seen, and the manifests of the stages before it."""

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


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a stage of pretraining.

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
    guesses = [_guesses(name, path.parent) for name in record["based_on"]]
    earlier = tuple(next(filter(Path.is_file, places), places[0]) for places in guesses)
    return Manifest(path, record["stage"], record["model"], videos, earlier)


def _what_is_wrong(record: Any) -> str:
    """The reason that a record is no manifest; empty for one that is."""
    if wrong := misfit(record, SHAPE):
        return wrong
    if record["format"] != FORMAT:
        return f"format {record['format']}, expected {FORMAT}"
    if record["stage"] not in STAGES:
        return f"stage {shown(record['stage'])}, expected one of {', '.join(STAGES)}"
    return ""


def _guesses(name: str, start: Path) -> list[Path]:
    """Places where the file or folder called `name` may be: absolute, relative to `start`, relative to the repository.

    One of another checkout's `pretrain/checkpoints` may have come into this one's.
    """
    path = Path(name).expanduser()
    guesses = [start / path, paths.repository_root() / path]
    for index, parts in enumerate(pairwise(path.parts)):
        if parts == ("pretrain", "checkpoints"):
            guesses.append(paths.pretraining_checkpoints().joinpath(*path.parts[index + 2 :]))
    return guesses


def manifests_of_weights(identity: Mapping[str, Any] | None) -> list[Manifest]:
    """Every stage that made the weights of a sidecar (`identity["weights"]`), the latest first.

    `identity` holds their `source`, perhaps an `adapter`. After the manifests of these come those that they are based
    on; every one once, whatever circle they form.

    Raises `UserError` for a damaged manifest, and when one that another is based on is missing.
    """
    if not identity:
        return []
    adapter = identity.get("adapter") or {}
    waiting = [path for record in (adapter, identity) if record for path in _beside(str(record["source"]))]
    manifests: dict[Path, Manifest] = {}
    while waiting:
        path = waiting.pop(0).resolve()
        if path not in manifests:
            manifests[path] = read_manifest(path)
            waiting += manifests[path].based_on
    return list(manifests.values())


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
        # a file may be `final.pt` beside its manifest, or one inside `export/`, whose manifest is a folder above
        folders = (place, place.parent, place.parent.parent) if place.is_file() else (place, place.parent)
        for folder in folders:
            if (folder / paths.MANIFEST).is_file():
                return [folder / paths.MANIFEST]
    return []


def all_manifests() -> list[Path]:
    """The manifests of everything under `pretrain/checkpoints/`."""
    return visible(paths.pretraining_checkpoints(), f"**/{paths.MANIFEST}")


def without_manifest() -> list[Path]:
    """Folders of finished weights under `pretrain/checkpoints/` that do not say what they have seen."""
    root = paths.pretraining_checkpoints()
    names = [path.name for path in visible(root)]
    backbones = visible(paths.pretrained_backbone("any").parent, f"*/{paths.FINAL_FOLDER}*")
    finished = (paths.FINAL_STATE, paths.FINAL_FOLDER)
    folders = [path.parent for path in backbones if path.name in finished] + [
        paths.pretrained_adapter(name) for name in names
    ]
    return [folder for folder in folders if folder.is_dir() and not (folder / paths.MANIFEST).is_file()]
