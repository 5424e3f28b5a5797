"""OphNet2024 (Hu et al., ECCV 2024), phases of the localization challenge: intervals in seconds in one table."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.base.runtime import UserError, counted
from common.dataset.importing.label_tables import PhaseInterval, interval_labels, number, table_rows, with_duration
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release

NUM_PHASES = 52  # 51 is "others", not the 51 of OphNet2024_loca_all.csv
PARTS_OF_RELEASE = ("train", "val", "test")


def _named_phases(path: Path) -> Phases:
    """The phases by the user's table of `id,name`. Raises `UserError` for an id that is missing or twice, and equal names."""
    names: dict[str, str] = {}
    for where, row in table_rows(path, ("id", "name"), ",;\t"):
        if row["id"] in names or row["name"] in names.values():
            raise UserError(f"{where}: {row['id']} or its name is there twice")
        names[row["id"]] = row["name"]
    wanted = [str(number) for number in range(NUM_PHASES)]
    if missing := [phase for phase in wanted if not names.get(phase)]:
        raise UserError(f"{path}: expected a name for each id from 0 to {NUM_PHASES - 1}, found none for {missing[0]}")
    return Phases(tuple(names[phase] for phase in wanted))


def _read(reading: Reading) -> Iterator[Entry]:
    """`OphNet2024_loca_challenge_phase.csv`; of 1,969 videos 743 have phases."""
    (source,) = reading.require("annotation/OphNet2024_loca_challenge_phase.csv", "OphNet2024_loca_challenge_phase.csv")
    if reading.names_file:
        reading.phases = _named_phases(reading.names_file)
    intervals: dict[str, list[PhaseInterval]] = defaultdict(list)
    part_of: dict[str, str] = {}
    wrong: dict[str, UserError] = {}
    for where, row in table_rows(source, ("video_id", "start", "end", "split", "phase_id"), ","):
        video = row["video_id"]
        try:
            start, end = number(row, "start", where), number(row, "end", where)
            intervals[video].append(PhaseInterval(where, start, end, reading.phases.numbered(row["phase_id"], where)))
            if row["split"] not in PARTS_OF_RELEASE or part_of.setdefault(video, row["split"]) != row["split"]:
                raise UserError(f"{where}: {video} in {row['split']!r}; expected train, val or test, one for a video")
        except UserError as error:
            wrong.setdefault(video, error)
    splits = {part: [video for video in part_of if part_of[video] == part] for part in PARTS_OF_RELEASE}
    reading.one_split("official", splits)
    media = {path.stem: path for path in reading.find_media("OphNet2024_all/case_*", "videos/case_*", "**/case_*")}
    if bare := media.keys() - intervals.keys() - wrong.keys():
        reading.notes.append(f"{counted(len(bare), 'video')} without phases, not imported")

    def labels(video: str) -> Labels:
        if video in wrong:
            raise wrong[video]
        if video not in media:
            raise UserError(f"{source}: intervals of {video} become labels of frames by the video's rate alone")
        lasting = with_duration(intervals[video], reading.notes)
        return interval_labels(lasting, reading.measure(media[video]).seconds)

    for video in sorted(intervals.keys() | wrong.keys()):
        yield Entry(video, partial(labels, video), source, media.get(video))


RELEASES = (
    Release(
        title="OphNet2024",
        read=_read,
        phases=Phases(tuple(str(number) for number in range(NUM_PHASES))),
        licence="repository MIT; of the data not stated",
        source="Hu et al., ECCV 2024; minghu0830/OphNet-benchmark@1fcc3d1 annotation/",
        ask="Hugging Face archives, by the repository",
        num_videos=743,
        hours=89.3,
        tried="miniature; the owners' annotation files",
        notes=("phases are called by their ids unless --names gives them: the owners' names are in a spreadsheet",),
    ),
)
