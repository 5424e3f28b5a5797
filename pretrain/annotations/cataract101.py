"""The Cataract-101 release (Schoeffmann et al., ACM MMSys 2018) read from its three tables.

A row of `annotations.csv` starts a phase at `FrameNo`, counted from 0; the phase runs to the video's next row, the last
one to `Frames` of `videos.csv`. What comes before the first row is unlabelled.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping
from pretrain.annotations.phase_classes import read_phase_classes

RELEASE = "Cataract-101"
SOURCES = ("annotations.csv", "phases.csv", "videos.csv")
UNLABELLED = 0  # its id in mapping.txt, here and in Cataracts-1K


@dataclass(frozen=True, eq=False)
class AnnotatedVideo:
    """Phase ids `(T,)` of a video's frames, its rate in frames a second, and what splits spread over both sides."""

    labels: np.ndarray
    fps: float
    stratum: str = ""


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
        frames, phase_ids = zip((0, UNLABELLED), *rows, strict=True)
        labels = np.repeat(phase_ids, np.diff([*frames, int(videos[name]["Frames"])]))
        surgeon = videos[name]["Surgeon"]
        annotated[name] = AnnotatedVideo(labels, float(videos[name]["FPS"]), f"surgeon {surgeon}")
    return annotated, starts


def check_phases(path: Path) -> None:
    """Raise `UserError` unless the release numbers its phases as `pretrain/phase_classes.yaml` does."""
    classes = read_phase_classes()
    for where, row in read_rows(path, ("Phase", "Meaning"), ";"):
        try:
            expected = classes.phase_index(RELEASE, row["Meaning"])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if whole_number(row, "Phase", where) != expected:
            raise UserError(f"{where}: {row['Meaning']!r} has the number {row['Phase']}, expected {expected}")


def read_videos(path: Path) -> dict[str, dict[str, str]]:
    """Rows of `videos.csv` by video name, `Frames` and `FPS` checked."""
    videos: dict[str, dict[str, str]] = {}
    for where, row in read_rows(path, ("VideoID", "Frames", "FPS", "Surgeon"), ";"):
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
    for where, row in read_rows(path, ("VideoID", "FrameNo", "Phase"), ";"):
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


def video_name(text: str) -> str:
    """The data set's name for a case number or a video file's stem: `case_269` for 269, case269, Case-269.

    Other names stay as they are.
    """
    match = re.fullmatch(r"(?:case)?[\s_-]*(\d+)", text.strip(), re.IGNORECASE)
    return f"case_{int(match[1])}" if match else text.strip()


def read_rows(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, each with the words `FILE, line N` for error messages.

    Raises `UserError` for a missing or binary file, a missing column and a row that is too short.
    """
    wanted = delimiter.join(columns)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a table with the columns {wanted}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter)
            header = reader.fieldnames or ()
            if not set(columns) <= set(header):
                raise UserError(
                    f"{path}, line 1: expected the columns {wanted}, found {delimiter.join(header) or 'none'}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                lacking = [column for column in columns if row[column] is None]
                if lacking:
                    raise UserError(f"{where}: no value for {', '.join(lacking)}")
                yield where, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error}); save it as plain text again") from error


def number(row: dict[str, str], column: str, where: str) -> float:
    """A value that must be a finite number, not below 0."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{where}: {column} must be a number from 0, found {row[column]!r}")
    return value


def whole_number(row: dict[str, str], column: str, where: str) -> int:
    """A value that must be a whole number, not below 0."""
    value = number(row, column, where)
    if not value.is_integer():
        raise UserError(f"{where}: {column} must be a whole number, found {row[column]!r}")
    return int(value)
