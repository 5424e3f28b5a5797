"""The data set that an importer of a task writes: tables, links, files that are made, description, lists, record.

As with releases of phases what an earlier import wrote is written again, and a file that somebody else made stays and is named.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.base import paths
from common.base.files import write_json
from common.base.runtime import UserError
from common.dataset.importing.lists import SplitList, cut_list
from common.dataset.importing.release import NUMBERED_NAME, Reading, letters
from common.dataset.importing.task_release import TaskContent, TaskRelease
from common.dataset.importing.writer import (
    former_import,
    place_links,
    synthetic_mark,
    texts_of_lists,
    write_files_of_import,
    yaml_text,
)
from common.dataset.tables import csv_line


def cut_task_lists(lists: Iterable[SplitList], content: TaskContent, reading: Reading) -> list[SplitList]:
    """Lists with the units that the data set has (`lists.cut_list`)."""

    def meant(name: str) -> list[str]:
        return [name] if name in content.units else []

    return [cut for one in lists if (cut := cut_list(one, reading, meant)) is not None]


def write_task(
    dataset: paths.Dataset,
    reading: Reading,
    content: TaskContent,
    lists: Sequence[SplitList],
    *,
    official: str | None,
    features_of: str | None,
) -> None:
    """Write a data set of a task: files, then links, the record last. What is in the way becomes a problem of the reading.

    Raises `UserError` where nothing was read, and when the folder holds another data set.
    """
    release = reading.release
    assert isinstance(release, TaskRelease)
    if not content.units:
        raise UserError("\n  ".join([f"{reading.folder}: nothing could be imported:", *reading.problems]))
    description = {"task": release.task} | content.description
    if features_of is not None:
        description["features_of"] = features_of
    elif release.frames_fps is not None:
        description["frames_fps"] = release.frames_fps
    if (
        release.task == "multilabel" and "ids" not in description
    ):  # whose units are videos, which other sets may have too
        description["ids"] = {name: _public_id(release, name) for name in content.units}
    description |= {"source": release.source, "licence": release.licence}
    files: dict[Path, object] = synthetic_mark(dataset, reading.folder) | {dataset.description: yaml_text(description)}
    files |= {dataset.root / place: text for place, text in content.texts.items()}
    patients = [(name, patient) for name, patient in content.units.items() if patient]
    if patients:
        files[dataset.patients] = "".join(map(csv_line, [("video", "patient"), *patients]))
    files |= texts_of_lists(dataset, lists, official)
    files |= {dataset.root / place: make for place, make in content.made.items()}
    former = former_import(dataset, dataset.description, yaml_text(description))
    written = write_files_of_import(dataset, files, former, reading.problems)
    links = {dataset.root / place: source for place, source in content.links.items()} if features_of is None else {}
    place_links(reading, links, {dataset.videos, dataset.images} & {place for path in links for place in path.parents})
    origin = {"release": release.title, "task": release.task, "part": reading.part, "licence": release.licence}
    units: Mapping[str, dict] = {name: {} for name in content.units}
    write_json(dataset.import_record, {"format": 1, **origin, "videos": units, "written": written})


def _public_id(release: TaskRelease, video: str) -> str:
    """`<set>/<id>` of a video, as `Release.public_id`."""
    number = NUMBERED_NAME.fullmatch(video)
    return f"{release.public_set or letters(release.title)}/{number[1] if number else video}"
