"""M2CAI16-workflow (41 cholecystectomies): a phase for every frame at 25 frames a second, by name; labels may end early."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.dataset.importing.label_tables import filled_up, numbered_labels
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release
from common.dataset.releases.cholec80 import PHASES

FOLDERS = {"train": "train_dataset", "test": "test_dataset"}
OTHER_FILES = ("_timestamp", "_pred")  # a second source of the phases, and a sample of the challenge's form


def _labels(reading: Reading, path: Path, video: Path | None) -> Labels:
    labels = numbered_labels(path, reading.phases.named, columns=("Frame", "Phase"))
    return labels if video is None else filled_up(labels, reading.measure(video).num_frames)


def _read(reading: Reading) -> Iterator[Entry]:
    """`train_dataset/workflow_video_01.{mp4,txt}`, `test_dataset/test_workflow_video_01.{mp4,txt}`; `Frame Phase` from 0."""
    parts = {part: reading.find(f"{folder}/*workflow_video_*.txt") for part, folder in FOLDERS.items()}
    if not any(parts.values()):
        reading.require("train_dataset/workflow_video_*.txt")
    labels = {path.stem: path for part in parts.values() for path in part if not path.stem.endswith(OTHER_FILES)}
    media = {path.stem: path for folder in FOLDERS.values() for path in reading.find_media(f"{folder}/*")}
    splits = {part: [path.stem for path in files if path.stem in labels] for part, files in parts.items()}
    reading.one_split("convention", splits)
    for name, path, video in reading.pair(labels, media, "<video>.txt beside it"):
        yield Entry(name, partial(_labels, reading, path, video), path, video)


RELEASES = (
    Release(
        title="M2CAI16",
        aliases=("M2CAI16-workflow",),
        read=_read,
        phases=Phases(("TrocarPlacement", *PHASES.names)),
        licence="CC BY-NC-SA 4.0",
        source="CAMMA, Strasbourg, and others: challenge of M2CAI 2016; Cadene/torchnet-m2caiworkflow@79bb112",
        ask="form on camma.unistra.fr",
        num_videos=41,
        hours=None,
        tried="miniature; form by code of others",
        kept_every=25,
        notes=("labels that end before the video are filled up with labels that do not count",),
    ),
)
