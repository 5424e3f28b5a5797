"""HeiChole (Wagner et al., the 24 public cholecystectomies): the number of a phase for every frame, 25 or 50 a second.

Older copies have every name in lower case. Censored frames keep their labels.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

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
LABELS = re.compile(r"hei-chole(\d+)_annotation_phase", re.IGNORECASE)
VIDEO = re.compile(r"hei-chole(\d+)", re.IGNORECASE)


def _numbered(files: Iterable[Path], form: re.Pattern) -> Iterator[tuple[str, Path]]:
    for path in files:
        if match := form.fullmatch(path.stem):  # not the clips for skill: Hei-Chole1_calot.mp4
            yield f"Hei-Chole{int(match[1])}", path


def _read(reading: Reading) -> Iterator[Entry]:
    """`Annotations/Phase/Hei-Chole1_Annotation_Phase.csv`: frame from 0, phase. `Raw_annotations/` is passed over.

    `Videos/Full/` has a second copy of some videos, larger, in `HD/`: the smaller one is taken.
    """
    found = reading.require("[Aa]nnotations/[Pp]hase/*.csv", "[Pp]hase/*.csv", "*_[Aa]nnotation_[Pp]hase.csv")
    labels = reading.named_once(_numbered(found, LABELS), "labels")
    videos = reading.find_media(
        *(
            "[Vv]ideos/[Ff]ull/[Hh]ei-*",
            "[Vv]ideos/[Ff]ull/HD/[Hh]ei-*",
            "[Vv]ideos/[Hh]ei-*",
            "[Ff]ull/[Hh]ei-*",
            "[Hh]ei-*",
        )
    )
    media = reading.named_once(_numbered(videos, VIDEO), "a video")
    for name, path, video in reading.pair(labels, media, "<video>_Annotation_Phase.csv"):
        yield Entry(name, partial(numbered_labels, path, reading.phases.numbered, delimiter=","), path, video)


RELEASES = (
    Release(
        title="HeiChole",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA by memory; the terms are on Synapse",
        source="Wagner et al., Medical Image Analysis 2023; form: anitarau/SurgBenchKit@1614e04 vlmeval/dataset/heichole_tasks.py",
        ask="synapse.org syn25101790, registration",
        num_videos=24,
        hours=15,
        tried="miniature; form by code of others",
        notes=(
            "ids are Cholec80's; where the videos lie in the release is not certain: --videos names another folder",
        ),
    ),
)
