"""Cataract-1K, anatomy and instruments (Ghamsarian et al., Scientific Data 2024): polygons on 2,256 frames of 30 cases.

The release has no masks: polygons are painted cornea, pupil, lens, instruments, later ones over earlier ones, holes and all
(`json_to_network_mask_anatomy_instrument.py` of Negin-Ghamsarian/Cataract-1K@0ab514b).
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from common.base.files import misfit, read_json, read_text
from common.base.runtime import UserError, listed, nearest_name, progress, shown
from common.dataset.importing.mask_content import MaskContent
from common.dataset.importing.release import Reading, Splits, letters
from common.dataset.importing.task_release import TaskContent, TaskRelease

INSTRUMENTS = (
    *("Slit Knife", "Gauge", "Capsulorhexis Cystotome", "Spatula", "Phacoemulsification Tip", "Irrigation-Aspiration"),
    *("Lens Injector", "Incision Knife", "Katena Forceps", "Capsulorhexis Forceps"),
)
CLASSES = ("background", "cornea", "pupil", "lens", "instrument")
CLASS_OF = {"Cornea": 1, "Pupil": 2, "Lens": 3} | dict.fromkeys(INSTRUMENTS, 4)
TITLES = {letters(title): value for title, value in CLASS_OF.items()}
STRAYS = ("cornea1", "pupil1")  # in some files, which the owners' script paints nowhere
FEWEST_POINTS = 3  # of an area; the release has polygons of one
SHAPE = {"size": {"height": int, "width": int}, "objects": [{"classTitle": str, "points": {"exterior": [[float]]}}]}
MOST_PIXELS = 1 << 26  # of an image that is no slip
LIST = "official"
FOLD = re.compile(r"anatomy_instrument_(\d+)_(train|test)$")
CASE = re.compile(r"case_\d+")
# tests of the owners' five folds, which `TrainIDs_SemanticSegmentation_FiveFold` holds image by image
OFFICIAL_TESTS = (
    "5013 5014 5057 5058 5104 5334",
    "5063 5299 5316 5317 5319 5335",
    "5017 5032 5301 5309 5315 5325",
    "5015 5300 5303 5304 5305 5329",
    "5016 5051 5072 5180 5340 5353",
)


def _read(reading: Reading) -> TaskContent:
    """`case_5013/{img,ann}/case5013_01.png[.json]`, in Supervisely's form."""
    found, strays = MaskContent(reading, CLASSES), Counter[str]()
    files = reading.require(
        "Annotations/Images-and-Supervisely-Annotations/case_*/ann/*.json",
        "Images-and-Supervisely-Annotations/case_*/ann/*.json",
        "**/case_*/ann/*.json",
    )
    for file in progress(files, description=reading.release.title, unit="masks"):
        case = file.parents[1]
        with reading.naming_problems():
            image = case / "img" / file.stem
            if not image.is_file():
                raise UserError(f"{image}: no image of {file}; add it; not imported")
            ids = painted(file, strays)
            found.add(case.name, image.stem, image, ids, file)
    for name, count in strays.items():
        reading.notes.append(f"{count} x {name}: painted nowhere, as in the owners' script")
    cases = [f"case_{number}" for test in OFFICIAL_TESTS for number in test.split()]
    reading.splits[LIST] = _folds(reading) or [
        {"train": [case for case in cases if case not in test], "test": test}
        for test in ([f"case_{number}" for number in numbers.split()] for numbers in OFFICIAL_TESTS)
    ]
    return found.finish(background="background")


def painted(file: Path, strays: Counter[str]) -> np.ndarray:
    """The ids `(H, W)` uint8 of an annotation; what is painted nowhere is counted in `strays`.

    Raises `UserError` naming file and object for a title that is unknown and for what is no polygon.
    """
    content = read_json(file, "copy it again")
    if wrong := misfit(content, SHAPE):
        raise UserError(f"{file}: not an annotation of Supervisely ({wrong}); copy it again")
    height, width = content["size"]["height"], content["size"]["width"]
    if not 0 < height * width <= MOST_PIXELS or min(height, width) < 1:
        raise UserError(f"{file}: expected the size of an image, found {width} x {height}; copy it again")
    layers: list[tuple[int, list[tuple[float, float]]]] = []
    for number, entry in enumerate(content["objects"]):
        outline = _outline(entry, f"{file}, object {number}", strays)
        if outline is not None:
            layers.append(outline)
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    for value, points in sorted(layers, key=lambda layer: layer[0]):  # stable: within a class as in the file
        draw.polygon(points, fill=value, outline=value)
    return np.asarray(canvas)


def _outline(entry: dict[str, Any], where: str, strays: Counter[str]) -> tuple[int, list[tuple[float, float]]] | None:
    """Class and points of an object; None for one that is painted nowhere."""
    title = entry["classTitle"]
    if title in STRAYS:
        strays[f"polygon called {title}"] += 1
        return None
    value = TITLES.get(letters(title))
    if value is None:
        near = nearest_name(title, CLASS_OF)
        hint = f"nearest known title: {near!r}" if near else f"known: {listed([*CLASS_OF], len(CLASS_OF))}"
        raise UserError(f"{where}: unknown title {shown(title)}; {hint}")
    kind = entry.get("geometryType", "polygon")
    if kind != "polygon":
        raise UserError(f"{where}: expected a polygon, found {kind!r}; export it as one")
    points = entry["points"]["exterior"]
    if any(len(point) != 2 for point in points):
        raise UserError(f"{where}: expected points of x and y; copy the file again")
    if len(points) < FEWEST_POINTS:
        strays["polygon of one or two points"] += 1
        return None
    return value, [(x, y) for x, y in points]


def _folds(reading: Reading) -> Splits:
    """The folds that the release's lists hold, by the cases in their paths; [] without any list."""
    parts: dict[int, dict[str, list[str]]] = {}
    for path in reading.find("**/*anatomy_instrument_*_*.csv"):
        if not (match := FOLD.search(path.stem)):
            continue
        with reading.naming_problems():
            found = [CASE.search(line) for line in read_text(path).splitlines()[1:] if line.strip()]
            if None in found or not found:
                line = found.index(None) + 2 if found else 2
                raise UserError(f"{path}, line {line}: expected the path of an image of a case_<number>, found none")
            parts.setdefault(int(match[1]), {})[match[2]] = list(dict.fromkeys(case[0] for case in found))
    shared = [(k, sorted(set(part.get("train", [])) & set(part.get("test", [])))) for k, part in parts.items()]
    for number, cases in shared:
        if cases:
            reading.problems.append(
                f"fold {number} of the release: {listed(cases)} is learned from and tested; left out"
            )
            parts[number] = {}
    return [parts.get(number, {}) for number in range(max(parts, default=-1) + 1)]


TASK_RELEASES = (
    TaskRelease(
        title="Cataract-1K-seg",
        aliases=("Cataract-1K-segmentation", "Cataracts-1K-seg", "Cataract-1K-masks"),
        task="segmentation",
        read=_read,
        licence="CC BY 4.0",
        source="Ghamsarian et al., Scientific Data 2024; Negin-Ghamsarian/Cataract-1K@0ab514b",
        ask="Synapse syn53395146",
        num_videos=30,
        tried="miniature; form by the owners' code",
        notes=(
            "polygons painted cornea, pupil, lens, instruments (all ten as one class), later ones over earlier ones, holes ignored",
            "folds as the release's lists have them, else those of its owners; none has a part for validation",
        ),
    ),
)
