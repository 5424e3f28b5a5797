"""Images with the class of each pixel: `images/<group>/<image>` and `masks/<group>/<image>.png`, read and checked.

A group is what must not be in two parts of a split: a video, a case, a patient. A mask is an index PNG: its values are ids
of `mapping.txt`, and 255 says that a pixel is not labelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.base.entries import IMAGE_SUFFIXES, nfc, reason_against, same_name, visible, warn_once
from common.base.files import atomic_path, require_regular
from common.base.paths import Dataset
from common.base.runtime import UserError, first_line, listed, printable, shown

UNLABELLED_PIXEL = 255
MASK_SUFFIX = ".png"
MOST_CLASSES = UNLABELLED_PIXEL  # ids 0 to 254
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
LOSSY = ("JPEG", "WEBP")  # an id would come back as its neighbours
# what Pillow raises for files that are no images, cut off, or say impossible sizes
IMAGE_ERRORS = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError),
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class MaskedImage:
    """An image of a group with its mask."""

    group: str
    name: str
    image: Path
    mask: Path

    @property
    def key(self) -> str:
        """`<group>/<image>` without a suffix, by which predictions are called too."""
        return f"{self.group}/{self.name}"


def masked_images(dataset: Dataset) -> dict[str, list[MaskedImage]]:
    """Images with their masks by group, both sorted by name.

    What is no image is named in a warning. Raises `UserError` for a data set without any, an image without a mask and a mask
    without an image, two images of one name, and names that no file may have.
    """
    images, masks = _by_group(dataset.images, IMAGE_SUFFIXES), _by_group(dataset.masks, (MASK_SUFFIX,))
    found: dict[str, list[MaskedImage]] = {}
    for group in sorted(images.keys() | masks.keys()):
        pictures, labels = images.get(group, {}), masks.get(group, {})
        for one, other, folder in ((pictures, labels, dataset.masks), (labels, pictures, dataset.images)):
            if lacking := sorted(one.keys() - other.keys()):
                raise UserError(
                    f"{folder / group}: expected a file for each of {dataset.images.name}/ and {dataset.masks.name}/, found "
                    f"none of {listed(lacking)}; add it, or move its partner away"
                )
        found[group] = [MaskedImage(group, name, pictures[name], labels[name]) for name in sorted(pictures)]
    if not found:
        raise UserError(
            f"{dataset.images}: no images here; expected {dataset.images.name}/<group>/<image>.png with "
            f"{dataset.masks.name}/<group>/<image>.png, a group for each video or case"
        )
    return found


def _by_group(folder: Path, suffixes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Files `<folder>/<group>/<name>` with one of the suffixes, by group and name without suffix; empty groups are none."""
    groups: dict[str, dict[str, Path]] = {}
    first_of: dict[str, Path] = {}
    strays = [path.name for path in visible(folder) if not path.is_dir()]
    for place in filter(Path.is_dir, visible(folder)):
        group = nfc(place.name)
        if first_of.setdefault(same_name(group), place) != place:
            raise UserError(f"{place}: a group of the same name as {first_of[same_name(group)]}; rename one")
        files = groups.setdefault(group, {})
        names: dict[str, Path] = {}
        for path in visible(place):
            if path.suffix.lower() not in suffixes or path.is_dir():
                strays.append(f"{place.name}/{path.name}")
                continue
            name = nfc(path.stem)
            if names.setdefault(same_name(name), path) != path:
                raise UserError(f"{path}: of the same name as {names[same_name(name)].name}; keep one of them")
            files[name] = path
        for name in (group, *files):
            if reason := reason_against(name):
                raise UserError(f"{place}: {shown(name)}: {reason}")
    if strays:
        warn_once(f"{folder}: {len(strays)} left out, no {', '.join(suffixes)}: {listed(strays)}")
    return {group: files for group, files in groups.items() if files}


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image, turned as its EXIF data says, as features see it too; what goes wrong is a `UserError` that names it."""
    try:
        require_regular(path)  # a pipe would be waited for
        with Image.open(path, formats=FORMATS) as image:
            if image.format != "PNG":  # of which Pillow would decode every pixel to look for a turn that none has
                ImageOps.exif_transpose(image, in_place=True)
            yield image
    except IMAGE_ERRORS as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        # Pillow repeats the path, or names an object in memory
        reason = "no image that can be read" if isinstance(error, UnidentifiedImageError) else printable(reason)
        raise UserError(f"{path}: damaged or missing image ({reason}); copy it again") from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image by its header. Raises `UserError` for a damaged file."""
    with _opened(path) as image:
        return image.height, image.width


def read_colour_image(path: Path) -> np.ndarray:
    """An image `(H, W, 3)` uint8, whatever its mode; transparent pixels as they are stored. Raises `UserError`."""
    with _opened(path) as image:
        # four files of one release have an alpha channel; 16-bit grey would be cut at 255 by Pillow
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(np.int64)
            grey = (values >> 8 if values.max(initial=0) > 255 else values).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def read_index_image(path: Path) -> np.ndarray:
    """The values of an image with one number a pixel `(H, W)`: indices of a palette as they are, equal channels as one.

    Raises `UserError` for a damaged file, for one whose format changes numbers, and for one of colours with a pixel of it.
    """
    with _opened(path) as image:
        if image.format in LOSSY:
            raise UserError(
                f"{path}: expected a mask of ids (index PNG), found {image.format}, which changes numbers; export it again as PNG"
            )
        values = np.array(image)
        bands = image.getbands()
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind not in "ui" and not (values == values.round()).all():
        raise UserError(f"{path}: expected whole numbers, found {image.mode}; save it as an index PNG")
    if values.ndim == 2:
        return values
    colours = values[..., :-1] if bands[-1] in "Aa" else values
    unequal = (colours != colours[..., :1]).any(axis=2)
    if unequal.any():
        row, column = map(int, np.argwhere(unequal)[0])
        raise UserError(
            f"{path}: expected a mask of ids (index PNG), found the colour {tuple(colours[row, column].tolist())} at row "
            f"{row}, column {column}; translate its palette first (data/import_dataset.py does so for known releases)"
        )
    return colours[..., 0]


def read_mask(path: Path, classes: Sequence[str], *, unlabelled: bool = True) -> np.ndarray:
    """A mask of ids `(H, W)` uint8, with `UNLABELLED_PIXEL` where `unlabelled` pixels may be.

    Raises `UserError` naming the file, an unknown id and how many pixels have it.
    """
    values = read_index_image(path)
    known = values < len(classes)
    if values.dtype.kind == "i":
        known &= values >= 0
    if unlabelled:
        known |= values == UNLABELLED_PIXEL
    if not known.all():
        value, count = int(values[~known][0]), int((values == values[~known][0]).sum())
        row, column = map(int, np.argwhere(~known)[0])
        also = f" and {UNLABELLED_PIXEL} for pixels without a label" if unlabelled else ""
        raise UserError(
            f"{path}: expected ids 0 to {len(classes) - 1}{also}, found {value} in {count:,} pixels, the first at row {row}, "
            f"column {column}; correct it, or mapping.txt"
        )
    return values.astype(np.uint8)


def require_sizes(pairs: Sequence[MaskedImage]) -> None:
    """Raise `UserError` for the first mask that has another size than its image, by their headers."""
    for pair in pairs:
        (height, width), (mask_height, mask_width) = image_size(pair.image), image_size(pair.mask)
        if (height, width) != (mask_height, mask_width):
            raise UserError(
                f"{pair.mask}: expected the size of its image, {width} x {height}, found {mask_width} x {mask_height}; "
                "export it again at the image's size"
            )


def write_mask(path: Path, ids: np.ndarray) -> None:
    """Write ids `(H, W)` uint8 as an index PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8), mode="L").save(temporary, format="PNG")


def pixels_by_class(masks: Mapping[str, np.ndarray], num_classes: int) -> np.ndarray:
    """Pixels of each class `(C,)` in masks of ids."""
    counts = sum((np.bincount(mask.ravel(), minlength=UNLABELLED_PIXEL + 1) for mask in masks.values()), np.zeros(256))
    return counts[:num_classes].astype(np.int64)
