"""CATARACTS, steps of the 2020 challenge: the number of a step for every frame, counted from 1.

The folder of a label file is its part: files of `dev_gt` and `test_gt` alike are called `test<NN>`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

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


def challenge_files(reading: Reading, challenge: str, parts_named: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Label files and videos of the eye by name, of the challenge of one year; its parts become the official split.

    `parts_named`: its folders in a message.
    """
    parts = {
        part: reading.find(
            f"ground_truth/{challenge}/{folder}/*.csv", f"**/{challenge}/{folder}/*.csv", f"{folder}/*.csv"
        )
        for part, folder in FOLDERS.items()
    }
    if not any(parts.values()):
        reading.require(f"ground_truth/{challenge}/{parts_named}/*.csv")
    labels = reading.named_once(((path.stem, path) for files in parts.values() for path in files), "labels")
    media = {path.stem: path for path in reading.find_media("videos/micro/*", "micro/*", "*")}
    reading.one_split("official", {part: [path.stem for path in files] for part, files in parts.items()})
    return labels, media


def _read(reading: Reading) -> Iterator[Entry]:
    """`ground_truth/CATARACTS_2020/{train,dev,test}_gt/<video>.csv`, `Frame,Steps`; videos of the eye in `videos/micro/`."""
    labels, media = challenge_files(reading, "CATARACTS_2020", "{train,dev,test}_gt")
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
