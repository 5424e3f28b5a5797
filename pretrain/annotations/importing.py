"""Common to the importers of annotated releases: options, tables, video names, and the data set that they write."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import (
    LEFT_OUT_BY_KIND,
    is_frame_folder,
    list_videos,
    nfc,
    reason_against,
    video_name_of,
    visible,
)
from common.base.files import misfit, read_json, read_text, write_json, write_text
from common.base.options import CommandParser
from common.base.runtime import UserError, listed, progress, shown
from common.dataset.importing.writer import link_in_place
from common.dataset.phases import PhaseMapping
from common.video.probe import VideoError, probe
from pretrain.annotations.phase_classes import PhaseClasses

UNLABELLED = 0  # its id in the mapping.txt of every imported data set: frames that nobody learns from
FPS_TOLERANCE = 0.01  # of labels against a video's header, relative; other rates would shift every label


@dataclass(frozen=True, eq=False)
class AnnotatedVideo:
    """Phase ids `(T,)` of a video's frames, its rate in frames a second, and what splits spread over both sides."""

    labels: np.ndarray
    fps: float
    stratum: str = ""


def importer_parser(doc: str, release: str) -> CommandParser:
    """The options of every importer; `doc` is the command's docstring, `release` the name of the data set it makes."""
    parser = CommandParser(None, doc)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("release", type=Path, metavar="RELEASE_FOLDER", help="folder of the unpacked release")
    data.add_argument(
        "--videos", type=Path, metavar="DIR", help="folder with the video files, at any depth (default: RELEASE_FOLDER)"
    )
    data.add_argument("--annotations_only", action="store_true", help="write the labels without looking for videos")
    output.add_argument(
        "--output", default=release, metavar="NAME", help="data set to make under data/ (default: %(default)s)"
    )
    return parser


def video_name(text: str) -> str:
    """The data set's name for a case number or a video file's stem: `case_269` for 269, case269, Case-269.

    Other names stay as they are.
    """
    match = re.fullmatch(r"(?:case)?[\s_-]*(\d+)", text.strip(), re.IGNORECASE)
    return f"case_{int(match[1])}" if match else nfc(text.strip())


def phase_id_in(classes: PhaseClasses, release: str, phase: str, *, where: str) -> int:
    """The id of a phase in the `mapping.txt` of `release`. Raises `UserError` that begins with `where`."""
    try:
        return classes.phase_index(release, phase)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def find_release_videos(folder: Path) -> dict[str, Path]:
    """Video files at any depth in `folder`, by `video_name`; folders of images are annotated frames in these releases.

    Raises `UserError` for two of one name and for no folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    listing = list_videos(folder, below=True)
    for reason in listing.left_out.keys() - LEFT_OUT_BY_KIND:  # a release is full of other files
        print(f"note: {folder}: left out: {listed(listing.left_out[reason])} ({reason})")
    found: dict[str, Path] = {}
    for path in (path for same in listing.files.values() for path in same if not is_frame_folder(path)):
        name = video_name(video_name_of(path))
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
    """Write `mapping.txt`, `groundTruth/`, links to videos, and last the import record: where it is, all is there.

    The record holds `origin` and of each video frames, rate, labelled frames and stratum. Raises `UserError` when the
    folder holds a data set with other phases, or another file in the place of a link.
    """
    record = dataset.import_record
    for name in annotated:
        if reason := reason_against(name):
            raise UserError(f"the annotations name a video {shown(name)}, which no file may be called: {reason}")
    names = "".join(f"{index} {name}\n" for index, name in enumerate(mapping.names))
    if dataset.mapping.is_file() and read_text(dataset.mapping) != names:
        raise UserError(f"{dataset.mapping}: another data set is here already; choose another --output or remove it")
    if record.is_file():
        former = read_json(record)
        if wrong := misfit(former, {"videos": dict}):
            raise UserError(
                f"{record}: not the record of an import ({wrong}); remove it, and the labels that are no more"
            )
        for name in sorted(name for name in former["videos"].keys() - annotated.keys() if not reason_against(name)):
            print(f"note: {name}: imported before, now left out; its labels are removed")
            (dataset.ground_truth / f"{name}.txt").unlink(missing_ok=True)
    record.unlink(missing_ok=True)  # an import that stops half-way must not look finished
    write_text(dataset.mapping, names)
    entries = {}
    for name, video in progress(annotated.items(), description="labels", unit="video"):
        text = "".join(f"{mapping.names[phase_id]}\n" for phase_id in video.labels.tolist())
        write_text(dataset.ground_truth / f"{name}.txt", text)
        entries[name] = {
            "frames": len(video.labels),
            "fps": video.fps,
            "labelled_frames": int(np.count_nonzero(video.labels != UNLABELLED)),
            "stratum": video.stratum,
        }
    link_videos(dataset.videos, links)
    write_json(record, {"format": 1, **origin, "videos": entries})


def link_videos(folder: Path, links: Mapping[str, Path]) -> None:
    """Make `<name><suffix>` in `folder` a link to each video; links that lead nowhere are removed.

    Raises `UserError` for another file in the place of a link.
    """
    for path in visible(folder):
        if path.is_symlink() and not path.exists():
            print(f"note: {path}: link removed, {os.readlink(path)} is gone")
            path.unlink()
    for name, source in links.items():
        link_in_place(folder / f"{name}{source.suffix}", source)


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
        if info.fps and abs(info.fps / video.fps - 1) > FPS_TOLERANCE:
            problems.append(
                f"problem: {path}: {info.fps:.2f} frames a second, but the labels were made at {video.fps:g}"
            )
        if info.header_frames not in (None, len(video.labels)):
            differing.append(f"{name} {info.header_frames} ({len(video.labels)} labels)")
    if links:
        print("hint: header and labels differ in frames (headers are often wrong):", ", ".join(differing) or "none")
    return problems


def print_phase_counts(
    dataset: paths.Dataset, mapping: PhaseMapping, annotated: Mapping[str, AnnotatedVideo], *, num_links: int
) -> None:
    """Print how many frames and videos have each phase."""
    # (videos, phases): a phase without a single frame in a video does not count as being in it
    counts = np.stack([np.bincount(video.labels, minlength=mapping.num_classes) for video in annotated.values()])
    total = int(counts.sum())
    print(f"{dataset.root}: {len(annotated)} annotated videos, {num_links} linked, {total:,} frames")
    width = max(map(len, mapping.names))
    print(f"   {'':{width}} {'videos':>7} {'frames':>10} {'% of all':>9}")
    for index, (name, column) in enumerate(zip(mapping.names, counts.T, strict=True)):
        frames = int(column.sum())
        print(f"{index:2} {name:{width}} {np.count_nonzero(column):7} {frames:10,} {100 * frames / total:9.2f}")
