"""JIGSAWS (Gao et al., M2CAI 2014): gestures of three tasks on a bench, from frame to frame, both ends inside, from 1."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from common.base.files import read_text
from common.base.runtime import UserError, shown
from common.dataset.importing.label_tables import PhaseInterval, interval_labels, with_duration
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release

GESTURES = {
    "Suturing": (1, 2, 3, 4, 5, 6, 8, 9, 10, 11),
    "Needle_Passing": (1, 2, 3, 4, 5, 6, 8, 11),
    "Knot_Tying": (1, 11, 12, 13, 14, 15),
}
EVERY_GESTURE = tuple(sorted({number for numbers in GESTURES.values() for number in numbers}))
LINE = re.compile(r"(\d+)\s+(\d+)\s+(G\d+)")
SURGEON = re.compile(r"_([A-Z])\d+$")


def _labels(reading: Reading, path: Path, video: Path | None) -> Labels:
    intervals = []
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        found = LINE.fullmatch(text.strip())
        if found is None or int(found[1]) < 1:
            raise UserError(f"{where}: expected 'first last G<n>', frames from 1, found {shown(text.strip())}")
        phase = reading.phases.named(found[3], where)
        intervals.append(PhaseInterval(where, int(found[1]) - 1, int(found[2]), phase))
    if not intervals:
        raise UserError(f"{path}: no gesture in it; expected a line for each")
    lasting = with_duration(intervals, reading.notes)
    end = max(int(interval.end) for interval in lasting)
    num_frames = end if video is None else reading.measure(video).num_frames
    return interval_labels(lasting, range(num_frames))


def _reader(tasks: Iterable[str]) -> Callable[[Reading], Iterator[Entry]]:
    def read(reading: Reading) -> Iterator[Entry]:
        """`<Task>/transcriptions/<Task>_B001.txt`; of two views the first, `<Task>/video/<Task>_B001_capture1.avi`."""
        labels, media = {}, {}
        for task in tasks:
            labels |= {path.stem: path for path in reading.find(f"{task}/transcriptions/{task}_*.txt")}
            views = reading.find_media(f"{task}/video/{task}_*_capture1.*")
            media |= {path.stem.removesuffix("_capture1"): path for path in views}
        if not labels:
            reading.require(*(f"{task}/transcriptions/{task}_*.txt" for task in tasks))
        surgeons = {name: found[1] for name in labels if (found := SURGEON.search(name))}
        reading.splits["user_out"] = [
            {
                "train": [name for name, surgeon in surgeons.items() if surgeon != left_out],
                "test": [name for name, surgeon in surgeons.items() if surgeon == left_out],
            }
            for left_out in sorted(set(surgeons.values()))
        ]
        for name, path, video in reading.pair(labels, media, "transcriptions/<video>.txt"):
            yield Entry(name, partial(_labels, reading, path, video), path, video, patient=surgeons.get(name))

    return read


def _release(title: str, tasks: tuple[str, ...], gestures: tuple[int, ...], num_videos: int) -> Release:
    return Release(
        title=title,
        read=_reader(tasks),
        phases=Phases(tuple(f"G{number}" for number in gestures)),
        licence="own terms, no redistribution",
        source="Gao et al., M2CAI 2014; readme of the release",
        ask="cirl.lcsr.jhu.edu, registration",
        num_videos=num_videos,
        hours=None,
        tried="miniature; form by files in repositories of others",
        notes=(
            "a surgeon counts as a patient: folds keep his or her videos together",
            "before the first and after the last gesture labels do not count",
        ),
    )


RELEASES = (
    _release("JIGSAWS", tuple(GESTURES), EVERY_GESTURE, 103),
    _release("JIGSAWS-Suturing", ("Suturing",), GESTURES["Suturing"], 39),
    _release("JIGSAWS-Needle_Passing", ("Needle_Passing",), GESTURES["Needle_Passing"], 28),
    _release("JIGSAWS-Knot_Tying", ("Knot_Tying",), GESTURES["Knot_Tying"], 36),
)
