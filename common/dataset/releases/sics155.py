"""SICS-155 (MedVisBonn's challenge, MICCAI 2025): a label file a video, for training and for validation.

`data/prepare_sics155.py` reads the same release with more options: patients, other places of the parts, copies.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.base import paths
from common.base.entries import list_labels
from common.dataset.importing.release import Entry, Labels, Phases, Reading, Release
from common.dataset.phases import PhaseMapping, read_labels, read_mapping

PARTS_OF_RELEASE = {"train": "SICS_155_train/train", "val": "SICS_155_validation/val"}


def _read(reading: Reading) -> Iterator[Entry]:
    """`SICS_155_train/train/groundTruth/<video>.txt` in either form; the validation part may be absent."""
    mapping = PhaseMapping(reading.phases.names)

    def labels(path: Path) -> Labels:
        return [mapping.names[phase_id] for phase_id in read_labels(path, mapping)]

    reading.require(f"{PARTS_OF_RELEASE['train']}/groundTruth/*.txt")
    for part, folder in PARTS_OF_RELEASE.items():
        files = list_labels(reading.folder / folder / "groundTruth").one_each()
        media = {path.stem: path for path in reading.find_media(f"{folder}/videos/*")}
        for name, path, video in reading.pair(files, media, f"{folder}/groundTruth/<video>.txt"):
            yield Entry(name, partial(labels, path), path, video, is_validation=part == "val")


RELEASES = (
    Release(
        title="SICS155",
        aliases=("SICS-155",),
        read=_read,
        phases=Phases(read_mapping(paths.default_mapping()).names),
        licence="the organisers' terms",
        source="SICS-155 challenge, MedVisBonn, MICCAI 2025",
        ask="medvisbonn.github.io, after registration",
        num_videos=155,
        hours=None,
        tried="miniature; form by the owners' scorer",
        background="background",
    ),
)
