"""Cataracts-1K, phases (Ghamsarian et al., Scientific Data 2024): intervals in seconds, a file for each annotated case.

Frames and rates that the files state are those of another rate in case_4863: `sec` and `endSec` alone are right.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.base.runtime import UserError, counted
from common.dataset.importing.label_tables import PhaseInterval, interval_labels, number, table_rows, with_duration
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release

IDLE = "idle"  # between two phases; before the first and after the last nothing is said
PHASES = Phases(
    (
        IDLE,
        "Incision",
        "Viscoelastic",
        "Capsulorhexis",
        "Hydrodissection",
        "Phacoemulsification",
        "Irrigation/Aspiration",
        "Capsule Pulishing",  # spelled so
        "Lens Implantation",
        "Lens positioning",
        "Viscoelastic_Suction",
        "Anterior_Chamber Flushing",
        "Tonifying/Antibiotics",
    ),
    aliases={"Capsule Polishing": "Capsule Pulishing"},
)


def _labels(reading: Reading, path: Path, video: Path | None) -> Labels:
    rows = list(table_rows(path, ("comment", "sec", "endSec"), ",;"))
    if not rows:
        raise UserError(f"{path}: no phase in it; expected a row for each")
    intervals = [
        PhaseInterval(
            where, number(row, "sec", where), number(row, "endSec", where), reading.phases.named(row["comment"], where)
        )
        for where, row in rows
    ]
    if video is None:
        raise UserError(
            f"{path}: intervals become labels of frames by the video's rate alone; leave --annotations_only out"
        )
    lasting = with_duration(intervals, reading.notes)
    return interval_labels(lasting, reading.measure(video).seconds, gap=IDLE)


def _read(reading: Reading) -> Iterator[Entry]:
    """`annotations/case_4687/case_4687_annotations_phases.csv`; most videos have none."""
    labels = {
        path.stem.removesuffix("_annotations_phases"): path
        for path in reading.require("annotations/*/*_annotations_phases.csv", "**/*_annotations_phases.csv")
    }
    media = reading.named_once(
        ((path.stem, path) for path in reading.find_media("videos/case_*", "**/case_*")), "a video"
    )
    if bare := media.keys() - labels.keys():
        reading.notes.append(f"{counted(len(bare), 'video')} without phase annotations, not imported")
    for name, path in labels.items():
        yield Entry(name, partial(_labels, reading, path, media.get(name)), path, media.get(name))


RELEASES = (
    Release(
        title="Cataracts-1K",
        aliases=("Cataract-1K",),
        read=_read,
        phases=PHASES,
        licence="CC BY 4.0",
        source="Ghamsarian et al., Scientific Data 2024; Negin-Ghamsarian/Cataract-1K@0ab514b Dataset_codes",
        ask="Synapse syn53395146",
        num_videos=56,
        hours=None,
        tried="miniature; form by the owners' code and by audits of others",
        background=IDLE,
        notes=("by sec and endSec: the frames that the files state are those of another rate in case_4863",),
    ),
)
