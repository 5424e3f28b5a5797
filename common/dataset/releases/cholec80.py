"""Cholec80 (Twinanda et al., 80 cholecystectomies): a phase for every frame at 25 frames a second, by name."""

from collections.abc import Iterator
from functools import partial

from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(
    (
        "Preparation",
        "CalotTriangleDissection",
        "ClippingCutting",
        "GallbladderDissection",
        "GallbladderPackaging",
        "CleaningCoagulation",
        "GallbladderRetraction",
    )
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`phase_annotations/video01-phase.txt`: tab, `Frame Phase`, from 0. Tool files and `-timestamp.txt` are passed over."""
    labels = {
        path.stem.removesuffix("-phase"): path
        for path in reading.require("phase_annotations/*-phase.txt", "**/*-phase.txt")
    }
    media = {path.stem: path for path in reading.find_media("videos/video*", "video*")}
    for name, path, video in reading.pair(labels, media, "phase_annotations/<video>-phase.txt"):
        read = partial(numbered_labels, path, reading.phases.named, columns=("Frame", "Phase"))
        yield Entry(name, read, path, video)


RELEASES = (
    Release(
        title="Cholec80",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="CAMMA, Strasbourg (Twinanda et al., IEEE TMI 2017)",
        ask="form on camma.unistra.fr",
        num_videos=80,
        hours=51,
        tried="miniature; form by code of others",
        kept_every=25,
        notes=("ids are a convention: the files hold names, and some code exchanges 4 and 6",),
    ),
)
