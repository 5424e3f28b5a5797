"""Feature folders: files that cannot be used, or that were made in another way than their neighbours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import video_name_of, visible
from common.base.runtime import UserError, listed, progress
from common.checks.findings import Finding
from common.features.files import identity_differences, open_features, video_change
from common.video.probe import lost_frames

KIND = "features"
JITTER = 0.5  # of the usual frame duration: what clocks are off by


@dataclass(frozen=True)
class UnevenStep:
    """The longest time between two frames, in seconds: `frame` is shown at `start`, the next `step` later, not `usual`."""

    frame: int
    start: float
    step: float
    usual: float


@dataclass(frozen=True, eq=False)
class ExtractedVideo:
    """The video of a feature file, as its `sidecar` tells.

    Of its times there is the `uneven` step alone: those of ten thousand videos fit in no memory.
    """

    folder: str
    num_frames: int
    fps: float | None
    uneven: UnevenStep | None
    """None where frames come at a constant rate."""
    identity: dict[str, Any] | None
    sidecar: dict[str, Any]
    """Without the timeline; empty for features that came without one."""


def feature_folders(dataset: paths.Dataset) -> list[Path]:
    """`features/<Encoder>[@<variant>]`, sorted."""
    return [path for path in visible(dataset.features("any").parent) if path.is_dir()]


def open_all_features(folders: list[Path], findings: list[Finding]) -> dict[str, list[ExtractedVideo]]:
    """Every readable feature file, by video; what is wrong with the others is added to `findings`."""
    extracted: dict[str, list[ExtractedVideo]] = {}
    files = [path for folder in folders for path in visible(folder, "*.npy")]
    for path in progress(files, description="features", unit="file"):
        try:
            file = open_features(path)
            file.verify()
        except (UserError, OSError) as error:
            advice = "extract this video again with --force"
            findings.append(
                Finding("error", KIND, f"{video_name_of(path)}: {error}", advice, video=video_name_of(path))
            )
            continue
        sidecar, timeline = file.sidecar or {}, file.timeline
        variable = bool(sidecar) and sidecar["timeline"]["timestamps"]["policy"] != "constant"
        video = ExtractedVideo(
            folder=f"features/{path.parent.name}",
            num_frames=timeline.num_frames,
            fps=timeline.fps if sidecar else None,
            uneven=uneven_step(timeline.seconds) if variable else None,
            identity=file.identity(),
            sidecar={key: value for key, value in sidecar.items() if key != "timeline"},
        )
        extracted.setdefault(video_name_of(path), []).append(video)
    return extracted


def uneven_step(seconds: np.ndarray) -> UnevenStep | None:
    """The longest step of times `(num_frames,)`, where some step is further from the usual one than clocks are."""
    if len(seconds) < 3:
        return None
    steps = np.diff(seconds)
    frame, usual = int(steps.argmax()), float(np.median(steps))
    if np.abs(steps - usual).max() <= JITTER * usual:
        return None
    return UnevenStep(frame, float(seconds[frame]), float(steps[frame]), usual)


def feature_findings(extracted: Mapping[str, list[ExtractedVideo]], videos: Mapping[str, Path]) -> Iterator[Finding]:
    """Features of one folder that were made in different ways, and features of a file that has changed since."""
    by_folder: dict[str, dict[str, ExtractedVideo]] = {}
    for video, entries in extracted.items():
        for entry in entries:
            by_folder.setdefault(entry.folder, {})[video] = entry
    for folder, entries in sorted(by_folder.items()):
        yield from _made_differently(folder, entries)
    for video, entries in extracted.items():
        told: dict[tuple[str, str, str], list[str]] = {}  # what all folders of a video tell is one finding
        for entry in entries:
            for remark in _remarks(entry, videos.get(video)):
                told.setdefault(remark, []).append(entry.folder)
        for (severity, text, advice), folders in told.items():
            yield Finding(severity, KIND, f"{video}: {listed(folders)}: {text}", advice, video=video)


def _remarks(entry: ExtractedVideo, path: Path | None) -> Iterator[tuple[str, str, str]]:
    """Severity, text and advice: another file, and what had to be mended or accepted when the video was decoded.

    Sidecars of earlier versions do not tell the latter.
    """
    try:
        change = video_change(entry.sidecar, path) if path else None
    except OSError:  # named among the files
        change = None
    if change:
        yield (
            "warning",
            change,
            "the video was replaced: extract it again, and check that its labels are for the new file",
        )
    record = entry.sidecar.get("decoding") or {}
    if damage := record.get("damage"):
        advice = "look for a whole copy; labels made on another copy are shifted behind the damaged place"
        yield "warning", f"made from a damaged video: {damage}", advice
    elif lacking := lost_frames(record.get("header_frames"), entry.num_frames):
        advice = "compare with the number of labels, where there are some"
        yield "note", f"{lacking}, by a header that is an estimate", advice
    if mended := record.get("times_mended"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in mended.items())
        advice = "times in plots and tables are counted from these; wrap the video again with a tool that writes times"
        yield "note", f"times of frames were mended ({kinds}): they go on at the stream's rate", advice
    for remark in record.get("notes", ()):
        yield "note", remark, "check that this is what was labelled"


def _made_differently(folder: str, entries: Mapping[str, ExtractedVideo]) -> Iterator[Finding]:
    """Compared with the way in which most of the folder was made."""
    # videos that were made alike; what is alike is no equality of records, so no key of a dict
    ways: list[list[str]] = []
    for video, entry in entries.items():
        for way in ways:
            if not identity_differences(entry.identity, entries[way[0]].identity):
                way.append(video)
                break
        else:
            ways.append([video])
    usual, *others = sorted(ways, key=len, reverse=True)
    for way in others:
        differences = identity_differences(entries[way[0]].identity, entries[usual[0]].identity)
        # worded for one file against a command's options; here the one file stands against the others
        ours = [
            text.replace(" in the file,", " here,").replace(" now", f" in {len(usual)} others") for text in differences
        ]
        message = f"{listed(way)}: {folder} was made in another way than most: {'; '.join(ours)}"
        advice = "extract these again with the options of the others and --force; training refuses such a mixture"
        yield Finding("error", KIND, message, advice, video=way[0] if len(way) == 1 else None)
