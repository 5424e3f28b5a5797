"""A data set that is a table of video, frame or time, and label: its reader is a YAML file that says so.

title: MySet
table: annotations/*.csv              # one for all videos, or one for each, which is called as its file then
columns: {video: case, start: from, end: to, label: phase}
videos: videos/*                      # video files, called as in the table

Columns say what a row is: `frame`: the label of a frame, none missing; with `rows: starts`, and for `time` always, where a
phase starts that lasts to the next row; `start` and `end`: an interval, seconds or with `unit: frames` frames.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from common.base.entries import video_named
from common.base.files import read_yaml
from common.base.options import from_mapping
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.label_tables import (
    PhaseInterval,
    interval_labels,
    number,
    table_rows,
    whole_number,
    with_duration,
)
from common.dataset.importing.release import Entry, Extent, Labels, Phases, Reading, Release

DELIMITERS = ",;\t"
PLACES = ({"frame"}, {"time"}, {"start", "end"})
Row = tuple[str, dict[str, str]]
"""Words for messages, and the cells of a row by what they are."""


@dataclass(frozen=True)
class TableDescription:
    """The keys of a description; those that are not named above are as in `dataset.yaml`."""

    title: str
    table: str
    columns: dict[str, str]
    videos: str = "videos/*"
    rows: Literal["labels", "starts"] = "labels"
    unit: Literal["seconds", "frames"] = "seconds"
    first: int = 0
    phases: tuple[str, ...] | None = None
    """In the order of their ids; None: all that are found, sorted."""
    gap: str | None = None
    """The phase between intervals; None: none."""
    label_fps: float | None = None
    label_every: int | None = None
    background: str | None = None
    ignored: tuple[str, ...] = ()
    licence: str = "not stated"
    source: str = "not stated"


def described_release(path: Path) -> Release:
    """The release that a description says how to read. Raises `UserError` naming the file and the key."""
    described = from_mapping(TableDescription, read_yaml(path), path)
    given = set(described.columns)
    if given - {"video"} - {"label"} not in PLACES or "label" not in given:
        raise UserError(
            f"{path}: columns: expected label and frame, or time, or start and end, with video or not, found "
            f"{listed(sorted(given))}"
        )
    for key in ("table", "videos"):
        pattern = Path(getattr(described, key))
        if pattern.is_absolute() or not pattern.parts or ".." in pattern.parts:
            raise UserError(
                f"{path}: {key}: expected a place in the release such as annotations/*.csv, found {shown(str(pattern))}"
            )
    if described.label_fps is not None and described.label_every is not None:
        raise UserError(f"{path}: expected label_fps or label_every, found both; keep one")
    named = Phases(described.phases or ())
    return Release(
        title=described.title,
        read=partial(_read, described),
        phases=named,
        licence=described.licence,
        source=described.source,
        ask="-",
        num_videos=0,
        hours=None,
        tried="-",
        background=described.background,
        ignored=described.ignored,
        label_fps=described.label_fps,
        label_every=described.label_every,
    )


def _read(described: TableDescription, reading: Reading) -> Iterator[Entry]:
    rows: dict[str, list[Row]] = defaultdict(list)
    sources: dict[str, Path] = {}
    known_problems = len(reading.problems)
    for path in reading.require(described.table):
        with reading.naming_problems():
            advice = "`columns:` of the description names them as they are here"
            for where, cells in table_rows(path, list(described.columns.values()), DELIMITERS, advice=advice):
                row = {key: cells[column] for key, column in described.columns.items()}
                video = video_named(row.get("video") or path.name.removesuffix(path.suffix))
                rows[video].append((where, row))
                sources.setdefault(video, path)
    if described.phases is None:
        found = {row["label"] for of_video in rows.values() for _, row in of_video if row["label"]}
        reading.phases = Phases(tuple(sorted(found | ({described.gap} if described.gap else set()))))
    media = {video_named(path.name): path for path in reading.find_media(described.videos)}
    # what a table that cannot be read would have said is not known
    for name in sorted(media.keys() - rows.keys()) if len(reading.problems) == known_problems else ():
        reading.problems.append(f"{media[name]}: no row of {name} in {described.table}; not imported")
    for name, of_video in sorted(rows.items()):
        read = partial(_labels, described, reading, of_video, media.get(name))
        yield Entry(name, read, sources[name], media.get(name))


def _labels(described: TableDescription, reading: Reading, rows: list[Row], video: Path | None) -> Labels:
    """Labels of a video; an empty cell is no phase."""

    def phase(where: str, text: str) -> str | None:
        return reading.phases.named(text, where) if text else None

    if "frame" in described.columns and described.rows == "labels":
        for index, (where, row) in enumerate(rows):
            expected = described.first + index * (described.label_every or 1)
            if whole_number(row, "frame", where) != expected:
                raise UserError(
                    f"{where}: expected the label of {expected}, found {row['frame']}; rows must not be missing"
                )
        return [phase(where, row["label"]) for where, row in rows]
    if video is None:
        raise UserError(f"{rows[0][0]}: times and intervals become labels by the video alone, which is not there")
    extent = reading.measure(video)
    in_frames = "frame" in described.columns or described.unit == "frames"
    points = np.arange(extent.num_frames) if in_frames else extent.seconds
    labels = interval_labels(_intervals(described, reading, rows), points, gap=described.gap)
    return [labels[index] for index in _kept(extent, described.label_fps, described.label_every)]


def _intervals(described: TableDescription, reading: Reading, rows: list[Row]) -> list[PhaseInterval]:
    """The interval of each row that names a phase, in seconds, or in frames from 0."""
    shift = described.first if "frame" in described.columns or described.unit == "frames" else 0
    keys = (
        ("start", "end")
        if "start" in described.columns
        else (("frame",) if "frame" in described.columns else ("time",))
    )
    places = [[number(row, key, where) - shift for key in keys] for where, row in rows]
    if len(keys) == 1:
        starts = [place[0] for place in places]
        for index, (before, after) in enumerate(pairwise(starts), 1):
            if after <= before:
                raise UserError(f"{rows[index][0]}: {keys[0]} {after:g} after {before:g}; expected ascending rows")
        places = [list(bounds) for bounds in pairwise([*starts, math.inf])]
    intervals = [
        PhaseInterval(where, start, end, reading.phases.named(row["label"], where))
        for (where, row), (start, end) in zip(rows, places, strict=True)
        if row["label"]
    ]
    return with_duration(intervals, reading.notes)


def _kept(extent: Extent, label_fps: float | None, label_every: int | None) -> np.ndarray:
    """The frame of each label: all, every n-th, or those nearest to the points of a rate, of two the earlier."""
    if label_fps is None:
        return np.arange(0, extent.num_frames, label_every or 1)
    seconds = extent.seconds
    points = np.arange(extent.num_points(label_fps)) / label_fps
    after = np.clip(np.searchsorted(seconds, points), 1, max(len(seconds) - 1, 1))
    nearer_before = points - seconds[after - 1] <= seconds[np.minimum(after, len(seconds) - 1)] - points
    return np.where(nearer_before, after - 1, np.minimum(after, len(seconds) - 1))
