"""Endoscapes2023 (Murali et al.): the three criteria of the critical view of safety, as three raters saw them every 5 seconds.

A criterion counts as met where at least two of the three raters saw it, as the owners' code rounds their average. Images are
one a second, called by the frame of the 25 frames-a-second video; those between two labels have none.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from common.base.entries import IMAGE_SUFFIXES, visible
from common.base.files import parse_json, read_text
from common.base.runtime import UserError, counted, listed, shown
from common.dataset.importing.imported import MOST_MISSING
from common.dataset.importing.label_tables import whole_number
from common.dataset.importing.release import Phases, Reading
from common.dataset.importing.task_release import TaskContent, TaskRelease, presence_content
from common.dataset.tables import csv_rows, table_titles

CRITERIA = Phases(("C1", "C2", "C3"))
RATERS = tuple(f"cvs_annotator_{rater}" for rater in (1, 2, 3))
COLUMNS = ("vid", "frame", *CRITERIA.names)
PARTS = {"train": "train_vids.txt", "val": "val_vids.txt", "test": "test_vids.txt"}
ENOUGH = 2  # raters
THIRDS = 1e-3  # by which an average of three raters may miss a third


def _read(reading: Reading) -> TaskContent:
    """`all_metadata.csv`, a row an image; images `{train,val,test}/<vid>_<frame>.jpg`; parts `*_vids.txt`."""
    (source, *_) = reading.require("all_metadata.csv", "*/all_metadata.csv", "**/all_metadata.csv")
    folder = source.parent
    found: dict[str, dict[int, list[int] | None]] = {}
    for where, row in _rows(source):
        video, frame = str(whole_number(row, "vid", where)), whole_number(row, "frame", where)
        if frame in found.setdefault(video, {}):
            raise UserError(f"{where}: frame {frame} of video {video} again; expected each once")
        with reading.naming_problems():
            found[video][frame] = _criteria(row, where)
    reading.one_split("official", dict(_parts(folder, reading)))
    images = _images(reading, folder) if reading.with_videos else {}
    labels, links = {}, {}
    for video, rows in sorted(found.items(), key=lambda item: int(item[0])):
        places = _places(reading, source, video, rows, images.get(video, {}))
        labelled = {places[frame]: present for frame, present in rows.items() if present and frame in places}
        if labelled:
            labels[video] = labelled
            links |= {f"videos/{video}/{path.name}": path for path in images.get(video, {}).values()}
    content = presence_content(CRITERIA.names, labels)
    content.description["measure"] = "pooled_ap"
    content.links = links
    return content


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows by column, lists of raters too, which hold commas in quotes."""
    titles = table_titles(path)
    if lacking := [column for column in COLUMNS if column not in titles]:
        raise UserError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, found no {listed(lacking)}")
    rows = csv_rows(path, read_text(path), ",")
    next(rows)
    for line, cells in rows:
        where = f"{path}, line {line}"
        if len(cells) != len(titles):
            raise UserError(f"{where}: expected {len(titles)} cells as in line 1, found {len(cells)}")
        row = dict(zip(titles, cells, strict=True))
        # of some copies numbers are floats
        yield where, row | {column: row[column].removesuffix(".0") for column in ("vid", "frame")}


def _criteria(row: Mapping[str, str], where: str) -> list[int] | None:
    """Whether each criterion is met; None for an image that nobody rated.

    By the raters where the table has them, else by their average. Raises `UserError` where the two disagree.
    """
    raters = [_list_of(row[rater], rater, where) for rater in RATERS if row.get(rater)]
    averages = [row[criterion] for criterion in CRITERIA.names]
    if not raters and not any(averages):
        return None
    votes = [sum(of_rater) for of_rater in zip(*raters, strict=True)] if len(raters) == len(RATERS) else None
    if not all(averages):
        if votes is None:
            raise UserError(f"{where}: expected a label of every criterion or of none, found {listed(averages)}")
        return [int(count >= ENOUGH) for count in votes]
    met = []
    for place, (criterion, text) in enumerate(zip(CRITERIA.names, averages, strict=True)):
        try:
            count = float(text) * len(RATERS)
        except ValueError:
            count = -1.0
        if abs(count - round(count)) > THIRDS or not 0 <= round(count) <= len(RATERS):
            raise UserError(f"{where}: {criterion}: expected an average of three raters of 0 or 1, found {shown(text)}")
        if votes is not None and votes[place] != round(count):
            raise UserError(
                f"{where}: {criterion}: {votes[place]} of three raters saw it, but the average says {shown(text)}"
            )
        met.append(int(round(count) >= ENOUGH))
    return met


def _list_of(text: str, rater: str, where: str) -> list[int]:
    """The answers of a rater, a list as text; some copies write its numbers as floats."""
    values = parse_json(text, f"{where}: {rater}", "expected a list of three numbers 0 or 1")
    if (
        not isinstance(values, list)
        or len(values) != len(CRITERIA.names)
        or any(value not in (0, 1) for value in values)
    ):
        raise UserError(f"{where}: {rater}: expected a list of three numbers 0 or 1, found {shown(text)}")
    return [int(value) for value in values]


def _parts(folder: Path, reading: Reading) -> Iterator[tuple[str, list[str]]]:
    """The videos of each part; the lists may hold floats, as numpy writes them."""
    for part, name in PARTS.items():
        path = folder / name
        if not path.is_file():
            reading.problems.append(f"{path}: no such file; expected the videos of this part, one a line")
            continue
        videos = []
        for line, text in enumerate(read_text(path).split("\n"), 1):
            if not text.strip():
                continue
            try:
                number = float(text)
            except ValueError:
                number = -1.0
            if not (number >= 0 and number.is_integer()):
                raise UserError(f"{path}, line {line}: expected the number of a video, found {shown(text.strip())}")
            videos.append(str(int(number)))
        yield part, videos


def _images(reading: Reading, folder: Path) -> dict[str, dict[int, Path]]:
    """Images by video and frame, from the folders of all parts."""
    found: dict[str, dict[int, Path]] = {}
    for place in filter(None, (reading.videos_folder, folder)):
        for path in (path for part in PARTS for path in visible(place, f"{part}/*")):
            video, _, frame = path.stem.partition("_")
            if path.suffix.lower() in IMAGE_SUFFIXES and video.isdecimal() and frame.isdecimal():
                found.setdefault(str(int(video)), {}).setdefault(int(frame), path)
    return found


def _places(
    reading: Reading, source: Path, video: str, rows: Iterable[int], images: Mapping[int, Path]
) -> dict[int, int]:
    """Which image of its video, counted from 0, each frame of the table is: that is what features are made of.

    Images that are missing are named; without any the video is left out, and that is a problem.
    """
    if not reading.with_videos:
        return {frame: place for place, frame in enumerate(sorted(rows))}
    missing = [f"{video}_{frame}.jpg" for frame in sorted(rows) if frame not in images]
    if missing:
        said = reading.problems if len(missing) > MOST_MISSING * len(list(rows)) else reading.notes
        said.append(
            f"{source}: {counted(len(missing), 'image')} of video {video} not there ({listed(missing, 3)}); left out"
        )
    return {frame: place for place, frame in enumerate(sorted(images))}


TASK_RELEASES = (
    TaskRelease(
        title="Endoscapes-CVS",
        task="multilabel",
        read=_read,
        licence="CC BY-NC-SA 4.0",
        source="Murali et al., Endoscapes2023; CAMMA-public/Endoscapes@3120e73 README; columns by code of others",
        ask="link in github.com/CAMMA-public/Endoscapes",
        num_videos=201,
        tried="miniature; form by the owners' page and code of others",
        frames_fps=1,
        aliases=("Endoscapes", "Endoscapes2023"),
        phases=CRITERIA,
        public_set="endoscapes",
        notes=(
            "a criterion is met where at least two of three raters saw it; images between two labels have none",
            "the owners' measure is the average precision pooled over all frames, mean of the three criteria",
            "SurgVISTA's CVS is another task: the number of criteria that any rater saw, one of four classes",
        ),
    ),
)
