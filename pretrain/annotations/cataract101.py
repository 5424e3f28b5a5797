"""The Cataract-101 release (Schoeffmann et al., ACM MMSys 2018) read from its three tables.

A row of `annotations.csv` starts a phase at `FrameNo`, counted from 0; the phase runs to the video's next row, the last
one to `Frames` of `videos.csv`. What comes before the first row is unlabelled.
"""

from pathlib import Path

import numpy as np

from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping
from pretrain.annotations.importing import (
    UNLABELLED,
    AnnotatedVideo,
    number,
    phase_id_in,
    table_rows,
    video_name,
    whole_number,
)
from pretrain.annotations.phase_classes import read_phase_classes

RELEASE = "Cataract-101"
SOURCES = ("annotations.csv", "phases.csv", "videos.csv")
DELIMITER = ";"

Starts = dict[str, list[tuple[int, int]]]
"""Video name -> rows `(first frame, phase id)`."""


def read_release(folder: Path, mapping: PhaseMapping) -> tuple[dict[str, AnnotatedVideo], Starts]:
    """Every annotated video by name, and the rows that its labels come from.

    Raises `UserError` naming file and line for what is wrong in a table.
    """
    check_phases(folder / "phases.csv")
    videos = read_videos(folder / "videos.csv")
    starts = read_starts(folder / "annotations.csv", videos, mapping.num_classes - 1)
    annotated = {}
    for name, rows in starts.items():
        video = videos[name]
        # a row before all others makes the head unlabelled: of no frames where the first phase starts at frame 0
        frames, phase_ids = zip((0, UNLABELLED), *rows, strict=True)
        labels = np.repeat(phase_ids, np.diff([*frames, int(video["Frames"])]))
        annotated[name] = AnnotatedVideo(labels, float(video["FPS"]), f"surgeon {video['Surgeon']}")
    return annotated, starts


def check_phases(path: Path) -> None:
    """Raise `UserError` unless the release numbers its phases as `pretrain/annotations/phase_classes.yaml` does."""
    classes = read_phase_classes()
    for where, row in table_rows(path, ("Phase", "Meaning"), DELIMITER):
        expected = phase_id_in(classes, RELEASE, row["Meaning"], where=where)
        if whole_number(row, "Phase", where) != expected:
            raise UserError(f"{where}: {row['Meaning']!r} has the number {row['Phase']}, expected {expected}")


def read_videos(path: Path) -> dict[str, dict[str, str]]:
    """Rows of `videos.csv` by video name, `Frames` and `FPS` checked."""
    videos: dict[str, dict[str, str]] = {}
    for where, row in table_rows(path, ("VideoID", "Frames", "FPS", "Surgeon"), DELIMITER):
        name = video_name(row["VideoID"])
        if name in videos:
            raise UserError(f"{where}: video {row['VideoID']} is there twice")
        if not whole_number(row, "Frames", where) or not number(row, "FPS", where):
            raise UserError(f"{where}: Frames and FPS must be above 0, found {row['Frames']} and {row['FPS']}")
        videos[name] = row
    return videos


def read_starts(path: Path, videos: dict[str, dict[str, str]], num_phases: int) -> Starts:
    """The phase starts of every video, as the table gives them: the same phase may follow itself."""
    starts: Starts = {name: [] for name in videos}
    for where, row in table_rows(path, ("VideoID", "FrameNo", "Phase"), DELIMITER):
        name = video_name(row["VideoID"])
        frame, phase_id = whole_number(row, "FrameNo", where), whole_number(row, "Phase", where)
        if name not in videos:
            raise UserError(f"{where}: video {row['VideoID']} is not in videos.csv")
        if not 1 <= phase_id <= num_phases:
            raise UserError(f"{where}: unknown phase {phase_id}; phases.csv numbers them 1 to {num_phases}")
        if starts[name] and frame <= starts[name][-1][0]:
            previous = f"frame {starts[name][-1][0]} of video {row['VideoID']}"
            raise UserError(f"{where}: frame {frame} after {previous}; expected ascending frames")
        if frame >= int(videos[name]["Frames"]):
            raise UserError(
                f"{where}: frame {frame} is beyond video {row['VideoID']} of {videos[name]['Frames']} frames"
            )
        starts[name].append((frame, phase_id))
    bare = [name for name, rows in starts.items() if not rows]
    if bare:
        raise UserError(f"{path}: no row for {', '.join(bare)}, which videos.csv lists")
    return starts
