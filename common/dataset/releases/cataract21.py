"""Cataract-21 (ITEC, Klagenfurt): the name of a phase for every frame, 25 a second, without a head."""

from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

FOLDERS = {"train": "training", "test": "validation"}
PHASES = Phases(
    (
        "not_initialized",
        "Incision",
        "Viscoelasticum",
        "Rhexis",
        "Hydrodissektion",
        "Phako",
        "Irrigation-Aspiration",
        "Kapselpolishing",
        "Linsenimplantation",
        "Visco-Absaugung",
        "Tonisieren",
    ),
    aliases={"Antibiotikum": "Tonisieren"},  # one phase on the owners' page, as in Cataract-101
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`training/case_01_training.csv` and `validation/case_18_validation.csv`, `frame,name` from 0, videos beside them."""
    parts = {part: reading.find(f"{folder}/case_*.csv") for part, folder in FOLDERS.items()}
    if not any(parts.values()):
        reading.require("training/case_*_training.csv")
    labels = {path.stem: path for part in parts.values() for path in part}
    media = {path.stem: path for folder in FOLDERS.values() for path in reading.find_media(f"{folder}/case_*")}
    reading.one_split("release", {part: [path.stem for path in files] for part, files in parts.items()})
    for name, path, video in reading.pair(labels, media, "<video>.csv beside it"):
        yield Entry(name, partial(numbered_labels, path, reading.phases.named, delimiter=","), path, video)


RELEASES = (
    Release(
        title="Cataract-21",
        read=_read,
        phases=PHASES,
        licence="research only, by the owners' page; CC BY-NC-SA 4.0 by others",
        source="Primus et al., ITEC Klagenfurt; ftp.itec.aau.at/datasets/ovid/cat-21",
        ask="ftp.itec.aau.at/datasets/ovid/cat-21, open",
        num_videos=21,
        hours=None,
        tried="miniature; form by the owners' page and code of others",
        background="not_initialized",
        notes=(
            "Antibiotikum counts as Tonisieren, one phase on the owners' page; SurgRec keeps both and drops not_initialized",
        ),
    ),
)
