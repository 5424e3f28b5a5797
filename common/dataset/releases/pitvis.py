"""PitVis-2023 (Das et al., 25 pituitary operations): the number of a step for every second.

Rows are ceil(frames / round(fps)) + 1: the last second, always background, has no frame
(wylliamunlimited/pitvis-phase-recognition@c409af8 notes/reference, counted in all 24).
"""

from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

BACKGROUND = "background"  # -1, which the release calls operation_not_started, operation_ended and out_of_patient
STEPS = Phases(
    (
        "nasal corridor creation",
        "anterior sphenoidotomy",
        "septum displacement",
        "sphenoid sinus clearance",
        "sellotomy",
        "durotomy",
        "tumour excision",
        "haemostasis",
        "synthetic_graft_placement",
        "fat graft placement",
        "gasket seal construct",
        "dural sealant",
        "nasal packing",
        "debris clearance",
    ),
    first_id=1,
)


def _step(text: str, where: object) -> str:
    return BACKGROUND if text == "-1" else STEPS.numbered(text, where)


def _read(reading: Reading) -> Iterator[Entry]:
    """`annotations_01.csv` beside `video_01.mp4`: seconds from 0, the step, instruments. There is no annotations_19.csv."""
    labels = {
        path.stem.removeprefix("annotations_"): path
        for path in reading.require("annotations_[0-9]*.csv", "*/annotations_[0-9]*.csv")
    }
    media = {path.stem.removeprefix("video_"): path for path in reading.find_media("video_[0-9]*", "*/video_[0-9]*")}
    for number, path, video in reading.pair(labels, media, "annotations_<video>.csv"):
        read = partial(numbered_labels, path, _step, columns=("int_time", "int_step"), delimiter=",")
        yield Entry(f"video_{number}", read, path, video)


RELEASES = (
    Release(
        title="PitVis-2023",
        read=_read,
        phases=Phases((BACKGROUND, *STEPS.names)),
        licence="CC BY-NC-ND 4.0",
        source="Das et al., arXiv 2409.01184; the release's text; form: wylliamunlimited/pitvis-phase-recognition@c409af8",
        ask="UCL research data 26531686, open",
        num_videos=25,
        hours=32,  # 115,586 labelled seconds of 24 videos
        tried="miniature; form by notes of others who hold the files",
        background=BACKGROUND,
        # dreets/pitvis@b1cb307 helper_scripts: what the challenge's measures leave out
        ignored=(BACKGROUND, "gasket seal construct", "nasal packing"),
        label_fps=1,
        notes=("the release itself has no labels of video_19",),
        aliases=("PitVis",),
        public_set="pitvis",
    ),
)
