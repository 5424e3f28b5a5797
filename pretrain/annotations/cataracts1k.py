"""The phase annotations of Cataracts-1K (Ghamsarian et al., Scientific Data 2024), read and laid onto frames.

One CSV file a case with the columns `caseId, comment, frame, endFrame, sec, endSec`: a row is a phase, `comment` its name.
Frames between two phases are idle; those before the first and after the last phase are unlabelled.

Whether `endFrame` belongs to the phase is read off all rows together (`find_end_rule`). Where rows overlap, the one that
starts later holds the shared frames: a short phase inside a long one is kept, and the long one goes on after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.base.runtime import UserError
from pretrain.annotations.cataract101 import UNLABELLED, number, read_rows, video_name, whole_number
from pretrain.annotations.phase_classes import PhaseClasses

RELEASE = "Cataracts-1K"
COLUMNS = ("caseId", "comment", "frame", "endFrame", "sec", "endSec")
IDLE = 1  # its id in mapping.txt
SECONDS_TOLERANCE = 1.0  # between a row's frame and its second; larger is a wrong row
LENGTH_TOLERANCE = 16  # frames that annotations may reach beyond a video, as everywhere in this project
FPS_TOLERANCE = 0.02


@dataclass(frozen=True)
class Row:
    """A phase as annotated: frames, seconds, id in mapping.txt; `where` names file and line."""

    where: str
    start: int
    end: int
    start_seconds: float
    end_seconds: float
    phase_id: int


@dataclass(frozen=True)
class Case:
    """The rows of one case in order of their starts, and the frame rate that their frames and seconds give."""

    name: str
    path: Path
    rows: tuple[Row, ...]
    fps: float


@dataclass(frozen=True)
class EndRule:
    """Whether `endFrame` is a phase's last frame (inclusive) or the first one after it, and the rows that say so."""

    inclusive_rows: int
    exclusive_rows: int

    @property
    def inclusive(self) -> bool:
        return self.inclusive_rows > self.exclusive_rows

    def __str__(self) -> str:
        meaning = "the last frame of a phase" if self.inclusive else "the first frame after a phase"
        return f"endFrame is {meaning} ({self.inclusive_rows} rows show the former, {self.exclusive_rows} the latter)"


def is_case_file(path: Path) -> bool:
    """Whether a file's first line names `comment` and `endFrame`; other CSV files of the release do not."""
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        first_line = stream.readline()
    return {"comment", "endFrame"} <= {word.strip(' "\r\n') for word in first_line.replace(";", ",").split(",")}


def read_case(path: Path, classes: PhaseClasses) -> Case:
    """Read the CSV file (comma or semicolon) of one case.

    Raises `UserError` naming file and line for numbers that are none, a phase that ends before it starts, unknown phases,
    a second case in the file, and a frame that is more than a second from its `sec`.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        delimiter = ";" if ";" in stream.readline() else ","
    names, rows = set(), []
    for where, row in read_rows(path, COLUMNS, delimiter):
        names.add(video_name(row["caseId"]))
        rows.append(_read_row(row, where, classes))
        if len(names) > 1:
            raise UserError(f"{where}: case {row['caseId']} in a file of another case; expected one case a file")
    if not rows:
        raise UserError(f"{path}: no phase in it; expected a row for each")
    rows.sort(key=lambda row: (row.start, -row.end))
    return Case(names.pop(), path, tuple(rows), _frame_rate(path, rows))


def _read_row(row: dict[str, str], where: str, classes: PhaseClasses) -> Row:
    frames = [whole_number(row, column, where) for column in ("frame", "endFrame")]
    seconds = [number(row, column, where) for column in ("sec", "endSec")]
    try:
        phase_id = classes.phase_index(RELEASE, row["comment"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if frames[1] < frames[0]:
        raise UserError(f"{where}: endFrame {frames[1]} is before frame {frames[0]}")
    return Row(where, *frames, *seconds, phase_id)


def _frame_rate(path: Path, rows: Sequence[Row]) -> float:
    """Frames a second from all starts and ends together; rounded seconds average out."""
    frames = sum(row.start + row.end for row in rows)
    seconds = sum(row.start_seconds + row.end_seconds for row in rows)
    if not frames or not seconds:
        raise UserError(f"{path}: frames or seconds are all 0, so there is no frame rate")
    fps = frames / seconds

    def error(row: Row) -> float:
        return max(abs(row.start / fps - row.start_seconds), abs(row.end / fps - row.end_seconds))

    worst = max(rows, key=error)
    if error(worst) > SECONDS_TOLERANCE:
        raise UserError(f"{worst.where}: frames and seconds do not agree with the file's {fps:.2f} frames a second")
    return fps


def find_end_rule(cases: Sequence[Case]) -> EndRule:
    """What `endFrame` means, by all cases together.

    Inclusive shows in a next phase that starts at `endFrame + 1` and in an `endSec` that is the time of `endFrame + 1`
    while `sec` is that of `frame`; exclusive in a next phase that starts at `endFrame`. Without evidence: exclusive, which
    differs by one frame a phase.
    """
    inclusive = exclusive = 0
    for case in cases:
        for row, following in pairwise(case.rows):
            exclusive += following.start == row.end
            inclusive += following.start == row.end + 1
        fps = _rate_of_starts(case)
        for row in case.rows if fps else ():
            start_error = abs(row.start_seconds * fps - row.start)
            end_error = abs(row.end_seconds * fps - (row.end + 1))
            inclusive += max(start_error, end_error) < 0.25
    return EndRule(inclusive, exclusive)


def _rate_of_starts(case: Case) -> float | None:
    """The frame rate by the starts alone: that of the ends depends on what is to be found out."""
    seconds = sum(row.start_seconds for row in case.rows)
    return sum(row.start for row in case.rows) / seconds if seconds else None


def label_frames(case: Case, rule: EndRule, num_frames: int | None = None) -> tuple[np.ndarray, int]:
    """Phase ids `(T,)` of a case, and how many frames more than one row claims.

    T is `num_frames`, or without it the end of the last phase. Ends up to 16 frames beyond the video are cut.

    Raises `UserError` naming file and line for a phase that reaches further beyond the video.
    """
    spans = [(row.start, row.end + rule.inclusive, row) for row in case.rows]
    length = num_frames or max(end for _, end, _ in spans)
    labels = np.full(length, UNLABELLED)
    labels[spans[0][0] : max(end for _, end, _ in spans)] = IDLE
    claims = np.zeros(length, dtype=np.int64)
    for start, end, row in spans:  # in order of starts: the later one wins
        if start >= length or end > length + LENGTH_TOLERANCE:
            raise UserError(f"{row.where}: frames {row.start} to {row.end} are beyond the video of {length} frames")
        labels[start:end] = row.phase_id
        claims[start:end] += 1
    return labels, int(np.count_nonzero(claims > 1))


def check_frame_rate(case: Case, video_fps: float | None) -> None:
    """Raise `UserError` for a video that runs at another rate than the one that was annotated."""
    if video_fps and abs(video_fps / case.fps - 1) > FPS_TOLERANCE:
        raise UserError(
            f"{case.path}: annotated at {case.fps:.2f} frames a second, but the video has {video_fps:.2f}; "
            "is it the video of the annotated part of the release?"
        )
