"""SAR-RARP50 (Psychogyios et al., EndoVis 2022): an action for every 6th decoded frame of 60 a second, by number.

`action_discrete.txt` is what is scored; it has at frame f the label that `action_continuous.txt` has at f + 5.
"""

import re
from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

FOLDERS = {"train": ("train1", "train2"), "test": ("test",)}
EVERY = 6
PHASES = Phases(
    (
        "Other",
        "Picking-up the needle",
        "Positioning the needle tip",
        "Pushing the needle through the tissue",
        "Pulling the needle out of the tissue",
        "Tying a knot",
        "Cutting the suture",
        "Returning/dropping the needle",
    )
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`train1/video_01/action_discrete.txt`, `000000006,0` without a head; a clip is called by its folder.

    Operations 11, 15, 17 and 29 come in two parts (`video_11_1`), one patient.
    """
    parts = {
        part: [path for folder in folders for path in reading.find(f"{folder}/video_*/action_discrete.txt")]
        for part, folders in FOLDERS.items()
    }
    if not any(parts.values()):
        reading.require("train1/video_*/action_discrete.txt")
    found = [(path.parent.name, path) for files in parts.values() for path in files]
    labels = reading.named_once(found, "labels")
    videos = [
        path
        for folders in FOLDERS.values()
        for folder in folders
        for path in reading.find_media(f"{folder}/video_*/video_left.*")
    ]
    media = {path.parent.name: path for path in videos}
    reading.one_split("release", {part: [path.parent.name for path in files] for part, files in parts.items()})
    for name, path, video in reading.pair(labels, media, "action_discrete.txt beside it"):
        read = partial(numbered_labels, path, reading.phases.numbered, delimiter=",", step=EVERY)
        patient = re.match(r"video_\d+", name)
        yield Entry(name, read, path, video, patient=patient[0] if patient else None)


RELEASES = (
    Release(
        title="SAR-RARP50",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="Psychogyios et al., EndoVis 2022; surgical-vision/SAR_RARP50-evaluation@519280b",
        ask="Synapse syn27618412, and UCL research data",
        num_videos=54,
        hours=4.5,
        tried="miniature; label files of all 54 clips, as another repository has them",
        label_every=EVERY,
        notes=("54 clips of 50 operations: the parts of one share a patient",),
    ),
)
