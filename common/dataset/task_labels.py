"""Labels of tasks other than phases: `labels.csv` (the classes that a frame has) and `clips.csv` (the one class of a clip).

labels.csv: video,frame,<class>...               0, 1, or empty: nobody learns from it or is scored on it
clips.csv:  clip,label,group,split,video,start,end

Frames are decoded ones, from 0. A clip is a file of its own, or with `video,start,end` a part of one, in seconds, the end not
included. Its `group` is what must not be both learned from and tested (a patient, a recording); `split` is train, val or test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base.entries import nfc, reason_against, same_name, video_named, visible
from common.base.files import read_text
from common.base.paths import Dataset
from common.base.runtime import UserError, listed, shown
from common.dataset.tables import csv_rows

PRESENT = {"0": 0.0, "1": 1.0, "": math.nan, "0.0": 0.0, "1.0": 1.0}  # a column with empty cells is written as floats
FRAME_COLUMNS = ("video", "frame")
CLIP_COLUMNS = ("clip", "label")  # without which there is no table of clips
FURTHER_CLIP_COLUMNS = ("group", "split", "video", "start", "end")
PLACES = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """Labelled frames of a video: `frames` `(n,)` decoded frames, rising; `present` `(n, num_classes)` 0, 1 or NaN (unlabelled)."""

    frames: np.ndarray
    present: np.ndarray


@dataclass(frozen=True, eq=False)
class PresenceTable:
    """A `labels.csv` that was read: its classes, and the labels of each video."""

    path: Path
    classes: tuple[str, ...]
    videos: dict[str, FrameLabels]


@dataclass(frozen=True)
class TaskClip:
    """A clip: its class, and where the table says so its group, its part of the split, and the video that it is a part of."""

    name: str
    label: str
    group: str | None
    part: str | None
    video: str | None
    start: float
    end: float
    """Seconds from the first frame of `video`; the frame at `end` is not of the clip."""


@dataclass(frozen=True, eq=False)
class ClipTable:
    """A `clips.csv` that was read: its classes in order, and its clips by name."""

    path: Path
    classes: tuple[str, ...]
    clips: dict[str, TaskClip]

    @property
    def groups(self) -> dict[str, str]:
        """The group of each clip that has one."""
        return {name: clip.group for name, clip in self.clips.items() if clip.group is not None}


def read_presence(path: Path) -> PresenceTable:
    """Read and check a `labels.csv`.

    Raises `UserError` naming file and line for a missing column, a class without a name or there twice, a frame that is no
    whole number or labelled twice, and a label other than 0, 1 or nothing.
    """
    titles, rows = _table(path, FRAME_COLUMNS)
    classes = tuple(nfc(title) for title in titles if title.casefold() not in FRAME_COLUMNS)
    _require_names(path, titles, classes)
    order = [titles.index(title) for title in titles if title.casefold() not in FRAME_COLUMNS]
    video_place, frame_place = (_place(titles, column) for column in FRAME_COLUMNS)
    found: dict[str, dict[int, list[float]]] = {}
    for line, cells in rows:
        where = f"{path}, line {line}"
        video, frame = _video(cells[video_place], where), _frame(cells[frame_place], where)
        labels = [PRESENT.get(cells[place]) for place in order]
        if None in labels:
            place = labels.index(None)
            raise UserError(
                f"{where}: {classes[place]}: expected 0, 1 or nothing (unlabelled), found {shown(cells[order[place]])}"
            )
        if frame in found.setdefault(video, {}):
            raise UserError(
                f"{where}: frame {frame} of {video} again; expected each frame once, remove one of the rows"
            )
        found[video][frame] = labels
    if not found:
        raise UserError(f"{path}: no label in it; expected a row for each labelled frame")
    _require_distinct(path, "video", found)
    videos = {}
    for video, labels_of in sorted(found.items()):
        frames = np.array(sorted(labels_of), dtype=np.int64)
        videos[video] = FrameLabels(frames, np.array([labels_of[frame] for frame in frames.tolist()]))
    return PresenceTable(path, classes, videos)


def read_clip_table(path: Path) -> ClipTable:
    """Read and check a `clips.csv`; its classes are sorted, numbers by their value.

    Raises `UserError` naming file and line for a missing column, a clip without a class or there twice, a split other than
    train, val and test, and an interval that is none.
    """
    titles, rows = _table(path, CLIP_COLUMNS)
    known = {*CLIP_COLUMNS, *FURTHER_CLIP_COLUMNS}
    places = {title.casefold(): place for place, title in enumerate(titles) if title.casefold() in known}
    clips: dict[str, TaskClip] = {}
    for line, cells in rows:
        where = f"{path}, line {line}"
        clip = _clip({name: cells[place] for name, place in places.items()}, where)
        if clip.name in clips:
            raise UserError(f"{where}: clip {shown(clip.name)} again; expected each clip once, remove one of the rows")
        clips[clip.name] = clip
    if not clips:
        raise UserError(f"{path}: no clip in it; expected a row for each")
    _require_distinct(path, "clip", clips)
    labels = {clip.label for clip in clips.values()}
    classes = tuple(sorted(labels, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))
    return ClipTable(path, classes, clips)


def task_units(dataset: Dataset, task: str) -> tuple[Path, list[str]]:
    """Where the labels of a task are, and the names that splits are lists of: videos, for clips and masks their groups.

    A clip without a group is a unit of its own.
    """
    if task == "multilabel":
        return dataset.presence, list(read_presence(dataset.presence).videos)
    if task == "clips":
        table = read_clip_table(dataset.clips)
        return dataset.clips, list(dict.fromkeys(clip.group or name for name, clip in table.clips.items()))
    return dataset.masks, [nfc(folder.name) for folder in visible(dataset.masks) if folder.is_dir()]


def _table(path: Path, columns: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Titles, and line and cells of each row that is not blank, all as long as the titles."""
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    read = csv_rows(path, text, delimiter)
    _, titles = next(read, (1, [""]))
    if lacking := [column for column in columns if column not in [title.casefold() for title in titles]]:
        raise UserError(f"{path}, line 1: expected the column {' and '.join(lacking)}, found {shown(first)}")
    known = [title.casefold() for title in titles]
    if twice := [title for title in (*FRAME_COLUMNS, *CLIP_COLUMNS, *FURTHER_CLIP_COLUMNS) if known.count(title) > 1]:
        raise UserError(f"{path}, line 1: expected each column once, found {listed(sorted(set(twice)))} several times")
    rows = []
    for line, cells in read:
        if not any(cells):
            continue
        if len(cells) != len(titles):
            raise UserError(f"{path}, line {line}: expected {len(titles)} cells as in line 1, found {len(cells)}")
        rows.append((line, cells))
    return titles, rows


def _place(titles: Sequence[str], column: str) -> int:
    return [title.casefold() for title in titles].index(column)


def _require_names(path: Path, titles: Sequence[str], classes: Sequence[str]) -> None:
    if not classes:
        raise UserError(f"{path}, line 1: expected columns of classes after video and frame, found none")
    if "" in classes:
        raise UserError(
            f"{path}, line 1: column {list(titles).index('') + 1} has no name; name the class, or take it out"
        )
    twice = sorted({name for name in classes if list(map(same_name, classes)).count(same_name(name)) > 1})
    if twice:
        raise UserError(f"{path}, line 1: expected each class once, found {listed(twice)} several times")


def _require_distinct(path: Path, noun: str, names: Sequence[str] | dict) -> None:
    """Names become those of files, which not every disk tells apart by case."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(same_name(name), name)) != name:
            raise UserError(f"{path}: two {noun}s are called {other!r} and {name!r}; spell them alike, or rename one")


def _video(text: str, where: str) -> str:
    video = video_named(text)
    if reason := reason_against(video):
        raise UserError(f"{where}: video: expected the name of a video, found {shown(text)} ({reason})")
    return video


def _frame(text: str, where: str) -> int:
    digits = text.removesuffix(".0")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise UserError(f"{where}: frame: expected the number of a decoded frame, from 0, found {shown(text)}")
    return int(digits)


def _clip(row: dict[str, str], where: str) -> TaskClip:
    """A row of `clips.csv` by column."""
    name, label = video_named(row["clip"]), nfc(row["label"])
    if reason := reason_against(name):
        raise UserError(f"{where}: clip: expected a name, found {shown(row['clip'])} ({reason})")
    if not label:
        raise UserError(f"{where}: label: expected the class of {name}, found nothing; name it, or take the row out")
    part = row.get("split", "").casefold() or None
    if part not in (None, *PLACES):
        raise UserError(f"{where}: split: expected {', '.join(PLACES)} or nothing, found {shown(row['split'])}")
    given = [column for column in ("video", "start", "end") if row.get(column)]
    video, start, end = None, 0.0, math.inf
    if given:
        if len(given) < 3:
            raise UserError(
                f"{where}: expected video, start and end, or none of them, found {' and '.join(given)} alone"
            )
        video = _video(row["video"], where)
        start, end = (_seconds(row[column], column, where) for column in ("start", "end"))
        if end <= start:
            raise UserError(f"{where}: {name} ends at {end:g} s, where it starts at {start:g} s; correct one of them")
    return TaskClip(name, label, nfc(row.get("group", "")) or None, part, video, start, end)


def _seconds(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{where}: {column}: expected seconds from 0, found {shown(text)}")
    return value
