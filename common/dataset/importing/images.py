"""Images of releases in place of videos: a folder of them for each video, and the image that each label belongs to."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from common.base.entries import IMAGE_SUFFIXES, visible
from common.base.runtime import listed
from common.dataset.importing.release import Entry, Reading

DEFAULT_SUFFIX = ".jpg"  # of an image that is not there, in messages


def image_folders(reading: Reading, *patterns: str) -> dict[str, Path]:
    """Folders of images by name, by the first pattern that any matches in the folder of the videos, else in the release.

    In the folder of the videos, which may be named more closely, the end of a pattern counts too: `*` of `frames/*`.
    """
    if not reading.with_videos:
        return {}
    places = [(reading.folder, patterns)]
    if reading.videos_folder:
        places.insert(0, (reading.videos_folder, (*patterns, *(pattern.rpartition("/")[2] for pattern in patterns))))
    for folder, wanted in places:
        for pattern in wanted:
            if found := {path.name: path for path in visible(folder, pattern) if path.is_dir()}:
                return found
    return {}


def images_called(folder: Path, names: Iterable[str]) -> list[Path]:
    """The image of each name without its suffix; one that is not there, as it should be called.

    Numbers are equal whatever zeros stand before them.
    """
    there = {_key(path.stem): path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES}
    return [there.get(_key(name), folder / f"{name}{DEFAULT_SUFFIX}") for name in names]


def _key(stem: str) -> str:
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem


def numbered_entry(
    reading: Reading, name: str, labels: Mapping[int, str | None], source: Path, folder: Path | None, digits: int
) -> Entry:
    """A video of numbered images, `digits` long, with the label of each number.

    What lies between two numbers is a problem where it has no row: its image, if there is one, is unlabelled. Images
    before the first and after the last are left out.
    """
    numbers = range(min(labels), max(labels) + 1) if labels else range(0)
    if lacking := [f"{number:0{digits}}" for number in numbers if number not in labels]:
        reading.problems.append(f"{source}: {name}: no label of {listed(lacking)}, expected one an image; unlabelled")
    values = [labels.get(number) for number in numbers]
    if folder is None:
        return Entry(name, lambda: values, source)
    images = images_called(folder, (f"{number:0{digits}}" for number in numbers))
    others = {path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES} != set(images)
    # a link to a whole folder where it holds these images and no others
    return Entry(name, lambda: values, source, None if others else folder, images if others else None)
