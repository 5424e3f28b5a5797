"""Cataract-101 (Schoeffmann et al., ACM MMSys 2018): a row where a phase starts, which lasts to the video's next row.

Frames are counted from 0, the last phase ends at `Frames` of `videos.csv`; before the first row nothing is labelled.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from common.base.runtime import UserError
from common.dataset.importing.label_tables import number, start_labels, table_rows, whole_number
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release

DELIMITER = ";"
PHASES = Phases(
    (
        "Incision",
        "Viscous agent injection",
        "Rhexis",
        "Hydrodissection",
        "Phacoemulsificiation",  # spelled so
        "Irrigation and aspiration",
        "Capsule polishing",
        "Lens implant setting-up",
        "Viscous agent removal",
        "Tonifying and antibiotics",
    ),
    first_id=1,
)


def read_cataract101_videos(path: Path, name: Callable[[str], str] = str) -> dict[str, dict[str, str]]:
    """Rows of `videos.csv` by `name(VideoID)`, `Frames` and `FPS` checked; raises `UserError` naming file and line."""
    videos: dict[str, dict[str, str]] = {}
    for where, row in table_rows(path, ("VideoID", "Frames", "FPS", "Surgeon"), DELIMITER):
        if name(row["VideoID"]) in videos:
            raise UserError(f"{where}: video {row['VideoID']} is there twice")
        if not whole_number(row, "Frames", where) or not number(row, "FPS", where):
            raise UserError(f"{where}: Frames and FPS must be above 0, found {row['Frames']} and {row['FPS']}")
        videos[name(row["VideoID"])] = row
    return videos


def read_cataract101_starts(
    path: Path,
    videos: dict[str, dict[str, str]],
    num_phases: int,
    wrong: dict[str, UserError],
    name: Callable[[str], str] = str,
) -> dict[str, list[tuple[int, int]]]:
    """Rows `(first frame, phase id)` of every video, as the table gives them: the same phase may follow itself.

    What is wrong in a video's rows is added to `wrong`, the first of each. Raises `UserError` for a damaged table.
    """
    starts: dict[str, list[tuple[int, int]]] = {video: [] for video in videos}
    for where, row in table_rows(path, ("VideoID", "FrameNo", "Phase"), DELIMITER):
        video = name(row["VideoID"])
        try:
            if video not in videos:
                raise UserError(f"{where}: video {row['VideoID']} is not in videos.csv")
            starts[video].append(_start(row, where, int(videos[video]["Frames"]), starts[video], num_phases))
        except UserError as error:
            wrong.setdefault(video, error)
    for video, rows in starts.items():
        if not rows and video not in wrong:
            wrong[video] = UserError(f"{path}: no row for {video}, which videos.csv lists")
    return starts


def _start(
    row: dict[str, str], where: str, num_frames: int, rows: list[tuple[int, int]], num_phases: int
) -> tuple[int, int]:
    """First frame and phase id of a row that follows `rows` of its video."""
    video, frame, phase_id = row["VideoID"], whole_number(row, "FrameNo", where), whole_number(row, "Phase", where)
    if not 1 <= phase_id <= num_phases:
        raise UserError(f"{where}: unknown phase {phase_id}; phases.csv numbers them 1 to {num_phases}")
    if rows and frame <= rows[-1][0]:
        raise UserError(f"{where}: frame {frame} after frame {rows[-1][0]} of video {video}; expected ascending frames")
    if frame >= num_frames:
        raise UserError(f"{where}: frame {frame} is beyond video {video} of {num_frames} frames")
    return frame, phase_id


def _read(reading: Reading) -> Iterator[Entry]:
    """`annotations.csv`, `phases.csv`, `videos.csv`; a video is called by its number, its file `videos/case_269.mp4`."""
    (source,) = reading.require("annotations.csv")
    for where, row in table_rows(source.with_name("phases.csv"), ("Phase", "Meaning"), DELIMITER):
        if reading.phases.numbered(row["Phase"], where) != reading.phases.named(row["Meaning"], where):
            raise UserError(f"{where}: {row['Meaning']} has the number {row['Phase']}; expected that of the release")
    videos = read_cataract101_videos(source.with_name("videos.csv"))
    wrong: dict[str, UserError] = {}
    starts = read_cataract101_starts(source, videos, len(reading.phases.names), wrong)
    reading.problems += [str(error) for video, error in wrong.items() if video not in videos]
    found = ((path.stem.removeprefix("case_"), path) for path in reading.find_media("videos/case_*", "case_*"))
    media = reading.named_once(found, "a video")
    for name in sorted(media.keys() - videos.keys()):
        reading.problems.append(f"{media[name]}: no row of {name} in videos.csv; not imported")

    def labels(video: str) -> Labels:
        if video in wrong:
            raise wrong[video]
        rows = [(frame, reading.phases.names[phase_id - 1]) for frame, phase_id in starts[video]]
        return start_labels(rows, int(videos[video]["Frames"]))

    for video in videos:
        yield Entry(video, partial(labels, video), source, media.get(video))


RELEASES = (
    Release(
        title="Cataract-101",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC 4.0",
        source="Schoeffmann et al., ACM MMSys 2018; the owners' files",
        ask="ftp.itec.aau.at/datasets/ovid/cat-101, open",
        num_videos=101,
        hours=14,
        tried="miniature; the release's own tables",
    ),
)
