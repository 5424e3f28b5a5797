"""MultiBypass140 (Lavanchy et al., 2024): phases and steps of gastric bypasses in two centres, intervals in milliseconds.

Labels are one a second as the owners make them: second s has the phase with floor(start / 1000) <= s < floor(end / 1000). This
rule gives 479,166 of the 479,250 seconds of the owners' own tables of 90 videos. Those are pickles, which nobody opens.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from common.base.files import misfit, read_json
from common.base.runtime import UserError
from common.dataset.importing.label_tables import PhaseInterval, interval_labels, table_rows, with_duration
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release

CENTRES = {"bern": ("BernBypass70", "BBP"), "strasbourg": ("StrasBypass70", "SBP")}
# no phases: the camera outside, which never wins over a phase; the severity of an adverse event
DROPPED = ("out_of_body", "severe_index")
SHAPE = {"start": float, "end": float, "label_name": str}
PHASES = Phases(
    (
        "preparation",
        "gastric_pouch_creation",
        "omentum_division",
        "gastrojejunal_anastomosis",
        "anastomosis_test",
        "jejunal_separation",
        "closure_petersen_space",
        "jejunojejunal_anastomosis",
        "closure_mesenteric_defect",
        "cleaning_coagulation",
        "disassembling",
        "other_intervention",
    )
)


def _labels(reading: Reading, path: Path, video: Path | None) -> Labels:
    content = read_json(path, "copy it again from the owners' repository")
    if wrong := misfit(content, {reading.level: [SHAPE]}):
        raise UserError(f"{path}: expected the owners' intervals ({wrong}); copy it again from their repository")
    intervals = []
    for index, row in enumerate(content[reading.level]):
        where = f"{path}, {reading.level}[{index}]"
        if row["label_name"] not in DROPPED:
            phase = reading.phases.named(row["label_name"], where)
            intervals.append(PhaseInterval(where, row["start"], row["end"], phase))
    # what begins and ends within one second has no label of its own
    lasting = [
        replace(interval, start=interval.start // 1000, end=interval.end // 1000)
        for interval in with_duration(intervals, reading.notes)
        if interval.start // 1000 < interval.end // 1000
    ]
    if not lasting:
        raise UserError(f"{path}: none of its {reading.level} lasts a second")
    length = max(int(interval.end) for interval in lasting)
    if video is not None:
        length = reading.measure(video).num_points(1)
    return interval_labels(lasting, np.arange(length))


def _read(reading: Reading) -> Iterator[Entry]:
    """`labels/{bern,strasbourg}/labels_by70/<video>.mp4.json`, `tables/`; videos as the zips of the centres have them."""
    if reading.level == "steps":
        (table,) = reading.require("tables/step.csv", "tables/steps.csv")
        names = [row["name"] for _, row in table_rows(table, ("id", "name"), ",")]
        reading.phases = Phases(tuple(name for name in names if name not in DROPPED))
    for centre, (folder, prefix) in CENTRES.items():
        files = reading.find(f"labels/{centre}/labels_by70/{prefix}*.json", f"{centre}/labels_by70/{prefix}*.json")
        labels = {path.name.partition(".")[0]: path for path in files}
        places = (f"{folder}/videos/{prefix}*", f"videos/{prefix}*", f"{prefix}*", f"**/{prefix}*")
        # at the level of steps the videos are those of the data set of phases, but they say how long the labels are
        media = {path.stem: path for path in reading.find_media(*places)}
        for name, path, video in reading.pair(labels, media, f"labels/{centre}/labels_by70/<video>.mp4.json"):
            yield Entry(name, partial(_labels, reading, path, video), path, video, group=centre)


RELEASES = (
    Release(
        title="MultiBypass140",
        read=_read,
        phases=PHASES,
        steps=Phases(()),
        licence="CC BY-NC-SA 4.0",
        source="Lavanchy et al., 2024; CAMMA-public/MultiBypass140@d3ace46",
        ask="open zips on s3.unistra.fr, by the repository's README; labels are in the repository",
        num_videos=140,
        hours=215,
        tried="miniature; the owners' 140 label files",
        label_fps=1,
        notes=(
            "the owners' splits are no k-fold: tests of neighbouring splits share videos, ten of a centre are in none",
        ),
    ),
)
