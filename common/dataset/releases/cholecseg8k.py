"""CholecSeg8k (Hong et al., 2020): masks of 8,080 frames of 17 videos of Cholec80, 13 classes.

A class is a value of the watershed masks, or a colour of the colour masks. White edges and pixels without a class are
unlabelled here; of the readers there are, DominikBatic/EndoViT leaves them out too, and torch-em calls them background.
"""

import re
from pathlib import Path

import numpy as np

from common.base.runtime import UserError, listed, progress
from common.dataset.importing.mask_content import MaskContent, translated
from common.dataset.importing.release import Reading
from common.dataset.importing.task_release import TaskContent, TaskRelease
from common.dataset.masks import UNLABELLED_PIXEL, read_colour_image, read_index_image

# name, value in the watershed mask, colour in the colour mask
CLASSES: tuple[tuple[str, int, tuple[int, int, int]], ...] = (
    ("Black Background", 50, (127, 127, 127)),
    ("Abdominal Wall", 11, (210, 140, 140)),
    ("Liver", 21, (255, 114, 114)),
    ("Gastrointestinal Tract", 13, (231, 70, 156)),
    ("Fat", 12, (186, 183, 75)),
    ("Grasper", 31, (170, 255, 0)),
    ("Connective Tissue", 23, (255, 85, 0)),
    ("Blood", 24, (255, 0, 0)),
    ("Cystic Duct", 25, (255, 255, 0)),
    ("L-hook Electrocautery", 32, (169, 255, 184)),
    ("Gallbladder", 22, (255, 160, 165)),
    ("Hepatic Vein", 33, (0, 50, 128)),
    ("Liver Ligament", 5, (111, 74, 0)),
)
WHITE, NOTHING = 255, 0  # the edge of the watershed masks, and what they leave out; white in colour masks too
LIST = "endovit"
LIST_PARTS = {"val": ("video17", "video52"), "test": ("video12", "video27")}
IMAGE = re.compile(r"frame_(\d+)_endo")


def _read(reading: Reading) -> TaskContent:
    """`video01/video01_00080/frame_80_endo.png` with `..._endo_watershed_mask.png` or `..._endo_color_mask.png`."""
    found = MaskContent(reading, [name for name, _, _ in CLASSES])
    images = reading.require("video*/video*_*/frame_*_endo.png", "**/video*/video*_*/frame_*_endo.png")
    for image in progress(images, description=reading.release.title, unit="masks"):
        with reading.naming_problems():
            number = IMAGE.fullmatch(image.stem)
            if number is None:
                raise UserError(f"{image}: expected frame_<number>_endo.png; copy the release again")
            mask, ids = _ids(image)
            # numbers are not padded in the release: here the order of names is that of frames
            found.add(image.parents[1].name, f"{image.parent.name}_frame_{int(number[1]):06d}", image, ids, mask)
    _name_strays(reading, images)
    content = found.finish(background="Black_Background")
    videos = list(content.units)
    content.description["ids"] = {video: f"cholec80/{video.removeprefix('video').lstrip('0')}" for video in videos}
    taken = {video for part in LIST_PARTS.values() for video in part}
    reading.one_split(LIST, {"train": [video for video in videos if video not in taken], **LIST_PARTS})
    return content


def _ids(image: Path) -> tuple[Path, np.ndarray]:
    """The mask of an image that is there, and its ids `(H, W)`. Raises `UserError`."""
    watershed, colour = (image.with_name(f"{image.stem}_{kind}_mask.png") for kind in ("watershed", "color"))
    if watershed.is_file():
        table = {value: place for place, (_, value, _) in enumerate(CLASSES)}
        table |= {WHITE: UNLABELLED_PIXEL, NOTHING: UNLABELLED_PIXEL}
        return watershed, translated(read_index_image(watershed), table, watershed)
    if not colour.is_file():
        raise UserError(f"{watershed}: no mask of {image.name}, expected it or {colour.name}; not imported")
    pixels = read_colour_image(colour).astype(np.int64)
    codes = pixels @ (1 << 16, 1 << 8, 1)
    ids = np.full(codes.shape, -1, dtype=np.int64)
    known = {rgb: place for place, (_, _, rgb) in enumerate(CLASSES)} | {(255, 255, 255): UNLABELLED_PIXEL}
    for (red, green, blue), place in known.items():
        ids[codes == (red << 16) + (green << 8) + blue] = place
    if (ids < 0).any():
        row, column = map(int, np.argwhere(ids < 0)[0])
        raise UserError(
            f"{colour}: unknown colour {tuple(pixels[row, column].tolist())} at row {row}, column {column}; copy the file again"
        )
    return colour, ids.astype(np.uint8)


def _name_strays(reading: Reading, images: list[Path]) -> None:
    """Masks whose image is not there are a problem."""
    there = {image.with_suffix("") for image in images}
    masks = reading.find("video*/video*_*/frame_*_endo_watershed_mask.png", "**/frame_*_endo_watershed_mask.png")
    bare = [path.name for path in masks if path.with_name(path.name.removesuffix("_watershed_mask.png")) not in there]
    if bare:
        reading.problems.append(f"{reading.folder}: no image of {listed(bare)}; not imported")


TASK_RELEASES = (
    TaskRelease(
        title="CholecSeg8k",
        task="segmentation",
        read=_read,
        licence="CC BY-NC-SA 4.0",
        source="Hong et al. 2020; forms as in DominikBatic/EndoViT@9d30d4e and constantinpape/torch-em",
        ask="kaggle.com/datasets/newslab/cholecseg8k, open",
        num_videos=17,
        tried="miniature; form by code of others",
        public_set="cholec80",
        notes=(
            "white edges and pixels without a class are unlabelled (255); other readers differ",
            "frames of a clip are 1/25 s apart: 8,080 images say much less than so many",
            "videos are Cholec80's: an encoder that was trained on that has seen them",
        ),
    ),
)
