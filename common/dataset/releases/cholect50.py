"""CholecT50 (Nwoye et al., Medical Image Analysis 2022): the phases of 50 cholecystectomies, for every image, one a second."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.images import image_folders, numbered_entry
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(
    (
        "preparation",
        "carlot-triangle-dissection",  # spelled so
        "clipping-and-cutting",
        "gallbladder-dissection",
        "gallbladder-packaging",
        "cleaning-and-coagulation",
        "gallbladder-extraction",
    )
)
SHAPE = {"annotations": {str: [list]}}
NUM_VALUES = 15  # of an instance: triplet, instrument (6), verb, target (6), and last the phase
NO_PHASE = -1  # "null or absence"
DIGITS = 6  # of an image's number
CHOLEC80 = range(1, 81)  # whose videos they are; docs/README-Splits.md of the owners warns of the overlap


def _read(reading: Reading) -> Iterator[Entry]:
    """`labels/VID01.json`: instances of each image, by its number; images `videos/VID01/000000.png`."""
    files = {path.stem: path for path in reading.require("labels/VID*.json")}
    folders = image_folders(reading, "videos/VID*", "data/VID*")
    for name, path, folder in reading.pair(files, folders, "labels/<video>.json"):
        with reading.naming_problems():
            entry = numbered_entry(reading, name, _labels(path, reading.phases), path, folder, DIGITS)
            number = int(name.removeprefix("VID")) if name[3:].isdecimal() else None
            yield replace(entry, public_id=f"cholec80/{number}" if number in CHOLEC80 else None)


def _labels(path: Path, phases: Phases) -> dict[int, str | None]:
    """The phase of each image by its number, the same in all its instances; None for an image without any."""
    content = read_json(path, "take the file of the release again")
    if wrong := misfit(content, SHAPE):
        raise UserError(f"{path}: not labels of CholecT50 ({wrong}); take the file of the release again")
    labels: dict[int, str | None] = {}
    for key, instances in content["annotations"].items():
        where = f"{path}, annotations.{key}"
        if not (key.isascii() and key.isdecimal()):
            raise UserError(f"{where}: expected the number of an image, found {shown(key)}")
        if any(len(instance) != NUM_VALUES for instance in instances):
            raise UserError(f"{where}: expected {NUM_VALUES} values of each instance, the phase last")
        found = sorted({str(instance[-1]) for instance in instances} - {str(NO_PHASE)})
        if len(found) > 1:
            raise UserError(f"{where}: expected one phase an image, found {listed(found)}")
        labels[int(key)] = phases.numbered(found[0], where) if found else None
    if not labels:
        raise UserError(f"{path}: no image in its annotations; expected one at least")
    return labels


RELEASES = (
    Release(
        title="CholecT50",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="Nwoye et al., Medical Image Analysis 2022; CAMMA-public/cholect50@354020e docs/README-Format.md; names of the "
        "phases: code of others",
        ask="form, linked in github.com/CAMMA-public/cholect50",
        num_videos=50,
        hours=28,
        tried="miniature; form by the owners' page",
        frames_fps=1,
        notes=("VID01 to VID80 are videos of Cholec80: never train on the one and test on the other",),
    ),
)
