"""GraSP (Ayobi et al., arXiv 2401.11174): 13 prostatectomies, a phase and a step for every image, one a second.

The JSON files name phases and steps themselves, and say which cases train and test.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.images import image_folders, numbered_entry
from common.dataset.importing.release import Entry, Phases, Reading, Release

PARTS, FOLDS = ("train", "test"), ("fold1", "fold2")  # the folds are halves of train
NAME = "grasp_long-term_{}.json"
CATEGORIES = [{"id": int, "name": str}]
SHAPE = {
    "phases_categories": CATEGORIES,
    "steps_categories": CATEGORIES,
    "images": [{"id": int, "file_name": str}],
    "annotations": [{"image_id": int, "phases": int, "steps": int}],
}
DIGITS = 5  # of an image's number
PSI_AVA = {f"CASE{number:03}": f"psiava/{number}" for number in (1, 2, 3, 4, 7, 14, 15, 21)}  # cases of both sets
Rows = dict[str, list[tuple[str, int, int]]]
"""Of each case, where a label stands, the number of its image, and its id."""


def _read(reading: Reading) -> Iterator[Entry]:
    """`GraSP_1fps/annotations/grasp_long-term_{train,test}.json`; images `GraSP_1fps/frames/CASE001/00000.jpg`."""
    names = [NAME.format(part) for part in PARTS]
    places = ("GraSP_1fps/annotations/", "annotations/", "")
    first, *_ = reading.require(*(place + name for place in places for name in names))
    rows: Rows = {}
    sources: dict[str, Path] = {}
    cases: dict[str, list[str]] = {}
    for part in (*PARTS, *FOLDS):
        path = first.with_name(NAME.format(part))
        if part in FOLDS and not path.is_file():
            continue
        with reading.naming_problems():
            content = _content(path)
            _take_phases(reading, content, path, is_first=not cases)
            here = _rows(content, reading.level, path)
            cases[part] = sorted(here)
            if part in PARTS:
                rows |= here
                sources |= dict.fromkeys(here, path)
    if cases.keys() >= set(PARTS):
        reading.one_split("official", {part: cases[part] for part in PARTS})
    if cases.keys() >= set(FOLDS):
        one, other = (cases[fold] for fold in FOLDS)
        reading.splits["folds"] = [{"train": one, "test": other}, {"train": other, "test": one}]
    folders = image_folders(reading, "GraSP_1fps/frames/*", "frames/*")
    for name, path, folder in reading.pair(sources, folders, f"images of it in {NAME.format('{train,test}')}"):
        with reading.naming_problems():
            entry = numbered_entry(reading, name, _labels(rows[name], reading.phases), path, folder, DIGITS)
            yield replace(entry, public_id=PSI_AVA.get(name))


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path, "take the file of the release again")
    if wrong := misfit(content, SHAPE):
        raise UserError(f"{path}: not the annotations of GraSP ({wrong}); take the file of the release again")
    return content


def _take_phases(reading: Reading, content: dict[str, Any], path: Path, *, is_first: bool) -> None:
    """Take the names of the first file; those of the others must be the same."""
    names = {entry["id"]: entry["name"] for entry in content[f"{reading.level}_categories"]}
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{path}: expected ids of {reading.level} from 0 without gaps, found {shown(sorted(names))}")
    found = tuple(names[number] for number in range(len(names)))
    if is_first:
        reading.phases = Phases(found)
    elif found != reading.phases.names:
        raise UserError(
            f"{path}: names {reading.level} {listed(found)}, but other files {listed(reading.phases.names)}; take files of "
            "one version of the release"
        )


def _rows(content: dict[str, Any], level: str, path: Path) -> Rows:
    """The rows of each case with images; an annotation finds its case by the id of its image."""
    rows: Rows = {}
    images: dict[int, tuple[str, int]] = {}
    for place, image in enumerate(content["images"]):
        case, _, file = image["file_name"].partition("/")
        stem = file.partition(".")[0]
        if not (
            case and len(stem) == DIGITS and stem.isascii() and stem.isdecimal()
        ):  # longer: of the images at 30 fps
            raise UserError(
                f"{path}, images[{place}]: expected CASE001/00000.jpg, as in GraSP_1fps, found {shown(image['file_name'])}"
            )
        images[image["id"]] = (case, int(stem))
        rows.setdefault(case, [])
    for place, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotations[{place}]"
        if annotation["image_id"] not in images:
            raise UserError(
                f"{where}: no image has the id {annotation['image_id']}; take the file of the release again"
            )
        case, number = images[annotation["image_id"]]
        rows[case].append((where, number, annotation[level]))
    return rows


def _labels(rows: list[tuple[str, int, int]], phases: Phases) -> dict[int, str]:
    """The phase of each image by its number. Raises `UserError` for an unknown id, and for an image of two phases."""
    labels: dict[int, str] = {}
    for where, number, phase_id in rows:
        phase = phases.numbered(str(phase_id), where)
        if labels.setdefault(number, phase) != phase:
            raise UserError(f"{where}: image {number} is {phase} here, above {labels[number]}")
    return labels


RELEASES = (
    Release(
        title="GraSP",
        read=_read,
        # of code by others (names of phases and steps as the JSON of the release has them are taken when it is read)
        phases=Phases(
            (
                "Idle",
                "LPIL",
                "RPIL",
                "Retzius_Space",
                "Dorsal_Venous_Complex",
                "Id_Bladder_Neck",
                "Seminal_Vesicles",
                "Denonvilliers_Fascia",
                "Pedicle_Control",
                "Severing_Prostate_Urethra",
                "Bladder_Neck_Rec",
            )
        ),
        steps=Phases(()),
        licence="not stated for the data",
        source="Ayobi et al., arXiv 2401.11174; BCV-Uniandes/GraSP@dbbd61d README.md; form of the JSON: code of others",
        ask="Google Drive, linked in github.com/BCV-Uniandes/GraSP",
        num_videos=13,
        hours=32.4,  # 116,516 images
        tried="miniature; form by the owners' page and code of others",
        background="Idle",
        frames_fps=1,
        notes=(
            "the eight cases of train are all of PSI-AVA; labels of phases and steps were revised in December 2024",
        ),
    ),
)
