"""What the importers of annotated releases share: the data set that they write, links to videos, header checks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.runtime import (
    UserError,
    link_file,
    progress,
    read_json,
    write_json,
    write_text,
)
from common.dataset.phases import PhaseMapping
from common.video.decoders import VideoError
from common.video.headers import probe
from pretrain.annotations.cataract101 import (
    UNLABELLED,
    AnnotatedVideo,
    video_name,
)


def importer_parser(description: str | None, release: str) -> argparse.ArgumentParser:
    """The options of both importers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("release", type=Path, metavar="RELEASE_FOLDER", help="folder of the unpacked release")
    add(
        "--videos", type=Path, metavar="DIR", help="folder with the video files, at any depth (default: RELEASE_FOLDER)"
    )
    add("--output", default=release, metavar="NAME", help="data set to make under data/ (default: %(default)s)")
    add("--annotations_only", action="store_true", help="write the labels without looking for videos")
    return parser


def output_dataset(name: str) -> paths.Dataset:
    """The data set to write. Raises `UserError` where that would overwrite the sample or write through a link."""
    root = paths.repository_root()
    dataset = paths.Dataset((root / "data" if len(Path(name).parts) == 1 else root) / name)
    if dataset.is_synthetic:
        raise UserError(f"{dataset.root}: holds the synthetic sample set; choose another --output")
    for folder in (dataset.videos, dataset.ground_truth):
        if folder.is_symlink():
            raise UserError(f"{folder}: is itself a link; remove it and run this again, which makes a folder of links")
    return dataset


def find_release_videos(folder: Path) -> dict[str, Path]:
    """Video files at any depth in `folder`, by `video_name`. Raises `UserError` for two of one name and for no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.suffix.lower() not in paths.VIDEO_SUFFIXES or not path.is_file():
            continue
        name = video_name(path.stem)
        if name in found:
            raise UserError(f"two videos of {name}: {found[name]} and {path}; name a folder that holds one of them")
        found[name] = path
    return found


def write_dataset(
    dataset: paths.Dataset,
    mapping: PhaseMapping,
    annotated: Mapping[str, AnnotatedVideo],
    *,
    links: Mapping[str, Path],
    origin: dict[str, Any],
) -> None:
    """Write `mapping.txt`, `groundTruth/`, links to videos, and last `manifest.json`, whose presence says that all is there.

    Raises `UserError` when the folder holds a data set with other phases, or another file in the place of a link.
    """
    manifest = dataset.root / "manifest.json"
    names = "".join(f"{index} {name}\n" for index, name in enumerate(mapping.names))
    if dataset.mapping.is_file() and dataset.mapping.read_text(encoding="utf-8-sig") != names:
        raise UserError(f"{dataset.mapping}: another data set is here already; choose another --output or remove it")
    if manifest.is_file():
        for name in sorted(read_json(manifest)["videos"].keys() - annotated.keys()):
            print(f"note: {name}: imported before, now left out; its labels are removed")
            (dataset.ground_truth / f"{name}.txt").unlink(missing_ok=True)
    manifest.unlink(missing_ok=True)
    write_text(dataset.mapping, names)
    for name, video in progress(annotated.items(), description="labels", unit="video"):
        text = "".join(f"{mapping.names[phase_id]}\n" for phase_id in video.labels.tolist())
        write_text(dataset.ground_truth / f"{name}.txt", text)
    link_videos(dataset.videos, links)
    write_json(manifest, {"format": 1, **origin, "videos": {name: _entry(video) for name, video in annotated.items()}})


def _entry(video: AnnotatedVideo) -> dict[str, Any]:
    labelled = int(np.count_nonzero(video.labels != UNLABELLED))
    return {"frames": len(video.labels), "fps": video.fps, "labelled_frames": labelled, "stratum": video.stratum}


def link_videos(folder: Path, links: Mapping[str, Path]) -> None:
    """Make `<name><suffix>` in `folder` a link to each video; links that lead nowhere are removed.

    A file of the same size counts as the copy of an earlier run on a system without links; another one is a `UserError`.
    """
    for path in folder.glob("*"):
        if path.is_symlink() and not path.exists():
            print(f"note: {path}: link removed, {os.readlink(path)} is gone")
            path.unlink()
    for name, source in links.items():
        target = folder / f"{name}{source.suffix}"
        if os.path.realpath(target) == os.path.realpath(source):
            continue
        if target.is_symlink():
            print(f"note: {target}: pointed to {os.readlink(target)}, now to {source}")
            target.unlink()
        if not target.exists():
            link_file(source, target)
        elif target.stat().st_size != source.stat().st_size:
            raise UserError(f"{target}: a real file is in the way of the link to {source}; move it away")


def _listed(totals: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in totals.items())


def header_problems(annotated: Mapping[str, AnnotatedVideo], links: Mapping[str, Path]) -> list[str]:
    """Videos that cannot be read or have another frame rate; other frame counts in headers are printed as a hint."""
    problems, differing = [], []
    for name, path in progress(links.items(), description="headers", unit="video"):
        try:
            info = probe(path)
        except VideoError as error:
            problems.append(f"problem: {path}: not readable as a video ({error.reason})")
            continue
        video = annotated[name]
        if info.fps and abs(info.fps / video.fps - 1) > 0.01:
            problems.append(
                f"problem: {path}: {info.fps:.2f} frames a second, but the labels were made at {video.fps:g}"
            )
        if info.header_frames not in (None, len(video.labels)):
            differing.append(f"{name} {info.header_frames} ({len(video.labels)} labels)")
    if links:
        print("hint: header and labels differ in frames (headers are often wrong):", ", ".join(differing) or "none")
    return problems
