"""CATARACTS, steps of the 2020 challenge: the number of a step for every frame, counted from 1.

The folder of a label file is its part: files of `dev_gt` and `test_gt` alike are called `test<NN>`.
"""

from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

FOLDERS = {"train": "train_gt", "val": "dev_gt", "test": "test_gt"}
PHASES = Phases(
    (
        "Idle",
        "Toric Marking",
        "Implant Ejection",
        "Incision",
        "Viscodilatation",
        "Capsulorhexis",
        "Hydrodissetion",  # so in the owners' script
        "Nucleus Breaking",
        "Phacoemulsification",
        "Vitrectomy",
        "Irrigation/Aspiration",
        "Preparing Implant",
        "Manual Aspiration",
        "Implantation",
        "Positioning",
        "OVD Aspiration",
        "Suturing",
        "Sealing Control",
        "Wound Hydratation",
    )
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`ground_truth/CATARACTS_2020/{train,dev,test}_gt/<video>.csv`, `Frame,Steps`; videos of the eye in `videos/micro/`."""
    parts = {
        part: reading.find(
            f"ground_truth/CATARACTS_2020/{folder}/*.csv", f"**/CATARACTS_2020/{folder}/*.csv", f"{folder}/*.csv"
        )
        for part, folder in FOLDERS.items()
    }
    if not any(parts.values()):
        reading.require("ground_truth/CATARACTS_2020/{train,dev,test}_gt/*.csv")
    found = [(path.stem, path) for part in parts.values() for path in part]
    labels = reading.named_once(found, "labels")
    media = {path.stem: path for path in reading.find_media("videos/micro/*", "micro/*", "*")}
    reading.one_split("official", {part: [path.stem for path in files] for part, files in parts.items()})
    for name, path, video in reading.pair(labels, media, "CATARACTS_2020/{train,dev,test}_gt/<video>.csv"):
        read = partial(
            numbered_labels, path, reading.phases.numbered, columns=("Frame", "Steps"), delimiter=",", first=1
        )
        yield Entry(name, read, path, video)


RELEASES = (
    Release(
        title="CATARACTS",
        read=_read,
        phases=PHASES,
        licence="not seen",
        source="Al Hajj et al., challenge of 2020; jdlaurence/phacosight@8a03b17 docs",
        ask="IEEE DataPort, free account",
        num_videos=50,
        hours=None,
        tried="miniature; form by two audits of others who hold the files",
        background="Idle",
    ),
)
