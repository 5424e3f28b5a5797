"""What a reader of masks makes: links to images, masks of ids in index PNGs, the pixels of each class for the summary."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.base.entries import nfc, reason_against
from common.base.runtime import UserError, shown
from common.dataset.importing.release import Reading, mapping_name
from common.dataset.importing.task_release import TaskContent
from common.dataset.masks import MASK_SUFFIX, UNLABELLED_PIXEL, image_size


class MaskContent:
    """Collects the images of a release with their masks; an image with something wrong is left out, and named."""

    def __init__(self, reading: Reading, classes: Sequence[str]):
        self.reading, self.classes = reading, list(classes)
        self._content = TaskContent(texts={"mapping.txt": self._mapping()})
        self._pixels = np.zeros(UNLABELLED_PIXEL + 1, dtype=np.int64)
        self._images = np.zeros(UNLABELLED_PIXEL + 1, dtype=np.int64)

    def _mapping(self) -> str:
        return "".join(f"{number} {mapping_name(name)}\n" for number, name in enumerate(self.classes))

    def add(self, group: str, name: str, image: Path, ids: np.ndarray, source: Path) -> None:
        """Take an image with its ids `(H, W)` uint8, which were read from `source`.

        Raises `UserError` for masks of another size than the image, and for a name that no file may have.
        """
        group, name = nfc(group), nfc(name)
        for each in (group, name):
            if reason := reason_against(each):
                raise UserError(f"{source}: {shown(each)}: {reason}")
        height, width = image_size(image)
        if (height, width) != ids.shape:
            raise UserError(
                f"{source}: expected a mask of the size of {image}, {width} x {height}, found {ids.shape[1]} x {ids.shape[0]}; "
                "copy both again"
            )
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(ids)).save(stream, format="PNG")
        self._content.links[f"images/{group}/{name}{image.suffix.lower()}"] = image
        self._content.made[f"masks/{group}/{name}{MASK_SUFFIX}"] = stream.getvalue
        self._content.units[group] = None
        counts = np.bincount(ids.ravel(), minlength=len(self._pixels))
        self._pixels += counts
        self._images += counts > 0

    def finish(self, **description: object) -> TaskContent:
        """All that was added, with further keys of `dataset.yaml`."""
        names = {mapping_name(name): name for name in self.classes}
        renamed = {ours: theirs for ours, theirs in names.items() if ours != theirs}
        self._content.description = description | ({"release_names": renamed} if renamed else {})
        total = int(self._pixels.sum())
        rows = [(name, self._images[k], self._pixels[k]) for k, name in enumerate(names)]
        rows += [("unlabelled", self._images[UNLABELLED_PIXEL], self._pixels[UNLABELLED_PIXEL])]
        self._content.rows = [
            ["", "images", "pixels", "% of all"],
            *(
                [name, f"{images:,}", f"{pixels:,}", f"{100 * pixels / total:.2f}" if total else "n/a"]
                for name, images, pixels in rows
            ),
        ]
        return self._content


def translated(values: np.ndarray, table: dict[int, int], source: Path) -> np.ndarray:
    """Ids of a release's values `(H, W)`, by a table of them.

    Raises `UserError` that names `source`, a value that the table lacks, where it is first and how often it is there.
    """
    lookup = np.full(256, -1, dtype=np.int64)
    lookup[list(table)] = list(table.values())
    known = (values >= 0) & (values < len(lookup))
    ids = np.where(known, lookup[np.where(known, values, 0)], -1)
    if (ids < 0).any():
        row, column = map(int, np.argwhere(ids < 0)[0])
        value = int(values[row, column])
        raise UserError(
            f"{source}: unknown value {value} in {int((values == value).sum()):,} pixels, the first at row {row}, column "
            f"{column}; expected {', '.join(map(str, sorted(table)))}; copy the file again"
        )
    return ids.astype(np.uint8)
