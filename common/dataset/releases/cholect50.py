"""CholecT50 (Nwoye et al., Medical Image Analysis 2022): 50 cholecystectomies, an image a second, with its phase.

And which instruments, verbs, targets and triplets of these are seen in it. What is scored of triplets are the 94 that do something:
94 to 99 are an instrument without verb and target. Verbs and targets keep theirs, as in the owners' evaluation (ivtmetrics).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.base.entries import IMAGE_SUFFIXES, visible
from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.images import image_folders, images_called, numbered_entry
from common.dataset.importing.imported import MOST_MISSING
from common.dataset.importing.release import Entry, Phases, Reading, Release
from common.dataset.importing.task_release import TaskContent, TaskRelease, presence_content

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
            yield replace(entry, public_id=_cholec80_id(name))


def _cholec80_id(name: str) -> str | None:
    """The public id of a video that is Cholec80's; None for another."""
    number = int(name.removeprefix("VID")) if name[3:].isdecimal() else None
    return f"cholec80/{number}" if number in CHOLEC80 else None


def _labels(path: Path, phases: Phases) -> dict[int, str | None]:
    """The phase of each image by its number, the same in all its instances; None for an image without any."""
    labels: dict[int, str | None] = {}
    for number, where, instances in _images_of(path):
        found = sorted({str(instance[-1]) for instance in instances} - {str(NO_PHASE)})
        if len(found) > 1:
            raise UserError(f"{where}: expected one phase an image, found {listed(found)}")
        labels[number] = phases.numbered(found[0], where) if found else None
    return labels


def _images_of(path: Path) -> Iterator[tuple[int, str, list[list[Any]]]]:
    """Number, words for messages and instances of each image. Raises `UserError` for what is no file of the release."""
    content = read_json(path, "take the file of the release again")
    if wrong := misfit(content, SHAPE):
        raise UserError(f"{path}: not labels of CholecT50 ({wrong}); take the file of the release again")
    if not content["annotations"]:
        raise UserError(f"{path}: no image in its annotations; expected one at least")
    for key, instances in content["annotations"].items():
        where = f"{path}, annotations.{key}"
        if not (key.isascii() and key.isdecimal()):
            raise UserError(f"{where}: expected the number of an image, found {shown(key)}")
        if any(len(instance) != NUM_VALUES for instance in instances):
            raise UserError(f"{where}: expected {NUM_VALUES} values of each instance, the phase last")
        yield int(key), where, instances


@dataclass(frozen=True)
class _Component:
    """A part of what an instance says: its place among the values, and its classes by number."""

    place: int
    names: tuple[str, ...]
    nulls: range = range(0)
    """Classes that are no part of the task."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name for number, name in enumerate(self.names) if number not in self.nulls)


INSTRUMENTS = ("grasper", "bipolar", "hook", "scissors", "clipper", "irrigator")
VERBS = ("grasp", "retract", "dissect", "coagulate", "clip", "cut", "aspirate", "irrigate", "pack", "null_verb")
TARGETS = (
    *("gallbladder", "cystic_plate", "cystic_duct", "cystic_artery", "cystic_pedicle", "blood_vessel", "fluid"),
    *("abdominal_wall_cavity", "liver", "adhesion", "omentum", "peritoneum", "gut", "specimen_bag", "null_target"),
)
# targets of each instrument and verb, in the order of the triplets' numbers
TRIPLETS = tuple(
    f"{instrument}-{verb}-{target}"
    for instrument, verb, targets in (
        ("grasper", "dissect", "cystic_plate gallbladder omentum"),
        (
            *("grasper", "grasp"),
            "cystic_artery cystic_duct cystic_pedicle cystic_plate gallbladder gut liver omentum peritoneum specimen_bag",
        ),
        ("grasper", "pack", "gallbladder"),
        ("grasper", "retract", "cystic_duct cystic_pedicle cystic_plate gallbladder gut liver omentum peritoneum"),
        (
            *("bipolar", "coagulate"),
            "abdominal_wall_cavity blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate gallbladder liver omentum "
            "peritoneum",
        ),
        ("bipolar", "dissect", "adhesion cystic_artery cystic_duct cystic_plate gallbladder omentum"),
        ("bipolar", "grasp", "cystic_plate liver specimen_bag"),
        ("bipolar", "retract", "cystic_duct cystic_pedicle gallbladder liver omentum"),
        (
            *("hook", "coagulate"),
            "blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate gallbladder liver omentum",
        ),
        ("hook", "cut", "blood_vessel peritoneum"),
        ("hook", "dissect", "blood_vessel cystic_artery cystic_duct cystic_plate gallbladder omentum peritoneum"),
        ("hook", "retract", "gallbladder liver"),
        ("scissors", "coagulate", "omentum"),
        ("scissors", "cut", "adhesion blood_vessel cystic_artery cystic_duct cystic_plate liver omentum peritoneum"),
        ("scissors", "dissect", "cystic_plate gallbladder omentum"),
        ("clipper", "clip", "blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate"),
        ("irrigator", "aspirate", "fluid"),
        ("irrigator", "dissect", "cystic_duct cystic_pedicle cystic_plate gallbladder omentum"),
        ("irrigator", "irrigate", "abdominal_wall_cavity cystic_pedicle liver"),
        ("irrigator", "retract", "gallbladder liver omentum"),
        *((instrument, "null_verb", "null_target") for instrument in INSTRUMENTS),
    )
    for target in targets.split()
)
COMPONENTS = {
    "tools": _Component(1, INSTRUMENTS),
    "verbs": _Component(7, VERBS),
    "targets": _Component(8, TARGETS),
    "triplets": _Component(0, TRIPLETS, range(94, 100)),
}


def _read_component(reading: Reading, component: _Component) -> TaskContent:
    """`labels/VID01.json`, as for phases: an image has every class that one of its instances has."""
    files = {path.stem: path for path in reading.require("labels/VID*.json")}
    folders = image_folders(reading, "videos/VID*", "data/VID*")
    labels, links = {}, {}
    for name, path, folder in reading.pair(files, folders, "labels/<video>.json"):
        with reading.naming_problems():
            if reading.with_videos and folder is None:
                raise UserError(f"{path}: labels of {name}, but no folder of images; --videos DIR names another folder")
            present = _present(path, component)
            # images without labels have a place too, as with the phases: features are of them all
            numbers = range(min(present), max(present) + 1)
            images = (
                dict(zip(numbers, images_called(folder, (f"{n:0{DIGITS}}" for n in numbers)), strict=True))
                if folder
                else {}
            )
            there = [number for number in numbers if folder is None or images[number].is_file()]
            places = {number: place for place, number in enumerate(there)}
            if missing := [f"{number:0{DIGITS}}" for number in present if number not in places]:
                said = reading.problems if len(missing) > MOST_MISSING * len(present) else reading.notes
                said.append(f"{path}: {name} without images {listed(missing, 3)}; their labels are left out")
            labels[name] = {places[number]: row for number, row in present.items() if number in places}
            if folder and len(there) == len(
                [path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
            ):
                links[f"videos/{name}"] = folder
            elif folder:
                links |= {f"videos/{name}/{images[number].name}": images[number] for number in there}
    content = presence_content(component.classes, labels)
    content.description["measure"] = "video_ap"
    content.links = links
    content.description["ids"] = {name: _cholec80_id(name) or f"cholect50/{name}" for name in labels}
    return content


def _present(path: Path, component: _Component) -> dict[int, list[int]]:
    """Which classes each image has, by its number. Raises `UserError` naming the file and the image."""
    present: dict[int, list[int]] = {}
    for number, where, instances in _images_of(path):
        found = {instance[component.place] for instance in instances}
        known = {NO_PHASE, *range(len(component.names))}
        if strange := [value for value in found if value not in known]:
            raise UserError(
                f"{where}: expected numbers from -1 to {len(component.names) - 1}, found {shown(strange[0])}"
            )
        kept = (place for place in range(len(component.names)) if place not in component.nulls)
        present[number] = [int(place in found) for place in kept]
    return present


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

TASK_RELEASES = tuple(
    TaskRelease(
        title=f"CholecT50-{name}",
        task="multilabel",
        read=partial(_read_component, component=component),
        licence="CC BY-NC-SA 4.0",
        source="Nwoye et al., Medical Image Analysis 2022; CAMMA-public/cholect50@354020e docs/README-Format.md; names of classes: "
        "code of others",
        ask="form, linked in github.com/CAMMA-public/cholect50",
        num_videos=50,
        tried="miniature; form by the owners' page",
        features_of="CholecT50",
        frames_fps=1,
        phases=Phases(component.classes),
        public_set="cholect50",
        notes=(
            "a measure of each video, then of each class, then their mean, as ivtmetrics in its repository; triplets 94 to 99 (null) "
            "are left out",
        ),
    )
    for name, component in COMPONENTS.items()
)
