"""The phase annotations of Cataracts-1K (Ghamsarian et al., Scientific Data 2024), read and laid onto frames.

One CSV file a case with the columns `caseId, comment, frame, endFrame, sec, endSec`: a row is a phase, `comment` its
name. Frames between two phases are idle; those before the first and after the last phase are unlabelled.

Whether `endFrame` belongs to the phase is read off all rows together (`find_end_rule`). Where rows overlap, the one
that starts later holds the shared frames: a short phase inside a long one is kept, and the long one continues after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.base.entries import visible
from common.base.runtime import UserError, listed, progress
from common.dataset.importing.label_tables import number, table_rows, whole_number
from common.dataset.phases import LENGTH_TOLERANCE
from common.video.probe import VideoInfo, probe
from pretrain.annotations.importing import UNLABELLED, AnnotatedVideo, phase_id_in, video_name
from pretrain.annotations.phase_classes import PhaseClasses

RELEASE = "Cataracts-1K"
LONGEST_HEAD = 10_000  # characters of a first line that may be one
COLUMNS = ("caseId", "comment", "frame", "endFrame", "sec", "endSec")
IDLE = 1  # its id in mapping.txt
SECONDS_TOLERANCE = 1.0  # between a row's frame and its second; larger is a wrong row
FPS_TOLERANCE = 0.02  # of a video's header against a case's frames and seconds, relative
END_TOLERANCE = 0.25  # frames between a row's second and its frame, for the second to be exact


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
    if not path.is_file():  # a pipe would be waited for
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        first_line = stream.readline(LONGEST_HEAD)
    return {"comment", "endFrame"} <= {word.strip(' "\r\n') for word in first_line.replace(";", ",").split(",")}


def read_case(path: Path, classes: PhaseClasses) -> Case:
    """Read the CSV file (comma or semicolon) of one case.

    Raises `UserError` naming file and line for numbers that are none, a phase that ends before it starts, unknown
    phases, a second case in the file, and a frame that is more than a second from its `sec`.
    """
    names, rows = set(), []
    for where, row in table_rows(path, COLUMNS, ",;"):
        names.add(video_name(row["caseId"]))
        rows.append(_read_row(row, where, classes))
        if len(names) > 1:
            raise UserError(f"{where}: case {row['caseId']} in a file of another case; expected one case a file")
    if not rows:
        raise UserError(f"{path}: no phase in it; expected a row for each")
    rows.sort(
        key=lambda row: (row.start, -row.end)
    )  # of two that start together the shorter one comes last and is kept
    return Case(names.pop(), path, tuple(rows), _frame_rate(path, rows))


def _read_row(row: dict[str, str], where: str, classes: PhaseClasses) -> Row:
    start, end = (whole_number(row, column, where) for column in ("frame", "endFrame"))
    start_seconds, end_seconds = (number(row, column, where) for column in ("sec", "endSec"))
    phase_id = phase_id_in(classes, RELEASE, row["comment"], where=where)
    if end < start:
        raise UserError(f"{where}: endFrame {end} is before frame {start}")
    return Row(where, start, end, start_seconds, end_seconds, phase_id)


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
    """The meaning of `endFrame`, by all cases together.

    Inclusive shows in a next phase that starts at `endFrame + 1` and in an `endSec` that is the time of `endFrame + 1`
    while `sec` is that of `frame`; exclusive in a next phase that starts at `endFrame`. Without evidence: exclusive,
    which differs by one frame per phase.
    """
    inclusive = exclusive = 0
    for case in cases:
        for row, following in pairwise(case.rows):
            exclusive += following.start == row.end
            inclusive += following.start == row.end + 1
        # the frame rate by the starts alone: that of the ends depends on what is to be found out
        seconds = sum(row.start_seconds for row in case.rows)
        if not seconds:
            continue
        fps = sum(row.start for row in case.rows) / seconds
        for row in case.rows:
            start_error = abs(row.start_seconds * fps - row.start)
            end_error = abs(row.end_seconds * fps - (row.end + 1))
            inclusive += max(start_error, end_error) < END_TOLERANCE
    return EndRule(inclusive, exclusive)


def label_frames(case: Case, rule: EndRule, num_frames: int | None = None) -> tuple[np.ndarray, int]:
    """Phase ids `(T,)` of a case, and how many frames more than one row claims.

    T is `num_frames`, or without it the end of the last phase. Ends up to 16 frames beyond the video are cut.

    Raises `UserError` naming file and line for a phase that reaches further beyond the video.
    """
    spans = [(row.start, row.end + rule.inclusive, row) for row in case.rows]
    last_end = max(end for _, end, _ in spans)
    length = num_frames or last_end
    labels = np.full(length, UNLABELLED)
    labels[spans[0][0] : last_end] = IDLE  # between the phases, which are laid over it; outside of them unlabelled
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


def read_cases(folder: Path, classes: PhaseClasses, problems: list[str]) -> dict[str, Case]:
    """Every case annotated below `folder`, by name; what is wrong with one is added to `problems`.

    Raises `UserError` when there is no file of a case at all, and for two files of one case.
    """
    cases: dict[str, Case] = {}
    tables = visible(folder, "**/*.csv")
    files = [path for path in tables if is_case_file(path)]
    if not files:
        raise UserError(f"{folder}: no CSV file with the columns {','.join(COLUMNS)} here or below")
    if others := [str(path.relative_to(folder)) for path in tables if path not in files]:
        print(f"note: {folder}: left out, without the columns of a case: {listed(others)}")
    for path in files:
        try:
            case = read_case(path, classes)
        except UserError as error:
            problems.append(str(error))
            continue
        if case.name in cases:
            raise UserError(f"two files of {case.name}: {cases[case.name].path} and {path}; keep one of them")
        cases[case.name] = case
    return cases


def label_cases(
    cases: Mapping[str, Case], videos: Mapping[str, Path] | None, rule: EndRule, problems: list[str]
) -> dict[str, AnnotatedVideo]:
    """Labels by video name; without `videos` a case ends with its last phase.

    Cases that are left out are added to `problems`.
    """
    annotated = {}
    for name, case in progress(cases.items(), description="cases", unit="case"):
        try:
            if videos is not None and name not in videos:
                raise UserError(f"{case.path}: no video file of {name}; --videos DIR names the folder that holds it")
            info = probe(videos[name]) if videos is not None else None
            annotated[name] = _label_case(case, rule, info)
        except UserError as error:
            problems.append(str(error))
    return annotated


def _label_case(case: Case, rule: EndRule, info: VideoInfo | None) -> AnnotatedVideo:
    if info:
        check_frame_rate(case, info.fps)
    labels, shared = label_frames(case, rule, info.header_frames if info else None)
    if shared:
        print(f"note: {case.path}: {shared} frames in more than one row; the phase that starts later holds them")
    return AnnotatedVideo(labels, (info and info.fps) or case.fps)
