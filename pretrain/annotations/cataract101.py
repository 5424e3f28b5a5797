"""The Cataract-101 release (Schoeffmann et al., ACM MMSys 2018) read from its three tables.

A row of `annotations.csv` starts a phase at `FrameNo`, counted from 0; the phase runs to the video's next row, the last
one to `Frames` of `videos.csv`. What comes before the first row is unlabelled.
"""

from pathlib import Path

import numpy as np

from common.base.runtime import UserError
from common.dataset.importing.label_tables import table_rows, whole_number
from common.dataset.phases import PhaseMapping
from common.dataset.releases.cataract101 import DELIMITER, read_cataract101_starts, read_cataract101_videos
from pretrain.annotations.importing import UNLABELLED, AnnotatedVideo, phase_id_in, video_name
from pretrain.annotations.phase_classes import read_phase_classes

RELEASE = "Cataract-101"
SOURCES = ("annotations.csv", "phases.csv", "videos.csv")

Starts = dict[str, list[tuple[int, int]]]
"""Video name -> rows `(first frame, phase id)`."""


def read_release(folder: Path, mapping: PhaseMapping) -> tuple[dict[str, AnnotatedVideo], Starts]:
    """Every annotated video by name, and the rows that its labels come from.

    Raises `UserError` naming file and line for what is wrong in a table.
    """
    check_phases(folder / "phases.csv")
    videos = read_cataract101_videos(folder / "videos.csv", video_name)
    wrong: dict[str, UserError] = {}
    starts = read_cataract101_starts(folder / "annotations.csv", videos, mapping.num_classes - 1, wrong, video_name)
    if wrong:
        raise next(iter(wrong.values()))
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
