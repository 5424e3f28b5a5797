"""AutoLaparo, task 1 (Wang et al., 21 hysterectomies): the number of a phase for every second."""

from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(
    (
        "Preparation",
        "Dividing Ligament and Peritoneum",
        "Dividing Uterine Vessels and Ligament",
        "Transecting the Vagina",
        "Specimen Removal",
        "Suturing",
        "Washing",
    ),
    first_id=1,
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`task1/labels/label_01.txt`: tab, `Frame Phase`, numbers from 1; row k is second k - 1, decoded frame 25 (k - 1)."""
    labels = {
        path.stem.removeprefix("label_"): path
        for path in reading.require("task1/labels/label_*.txt", "labels/label_*.txt")
    }
    media = {path.stem: path for path in reading.find_media("task1/videos/*", "videos/*", "*")}
    for name, path, video in reading.pair(labels, media, "labels/label_<video>.txt"):
        read = partial(numbered_labels, path, reading.phases.numbered, columns=("Frame", "Phase"), first=1)
        yield Entry(name, read, path, video)


RELEASES = (
    Release(
        title="AutoLaparo",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="Wang et al., MICCAI 2022; ziyiwangx/AutoLaparo@82995df README.md, t1_video2frame.py",
        ask="form on autolaparo.github.io",
        num_videos=21,
        hours=23.1,
        tried="miniature; form by the owners' text and script",
        label_fps=1,
    ),
)
