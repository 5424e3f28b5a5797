"""`dataset.yaml`: what a data set says of itself where it differs from the usual; an absent file says nothing.

label_fps: 1                          # or label_every: 25
ignored: [unlabelled]
source: https://example.org/release
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from common.base import paths
from common.base.entries import nfc, same_name, visible
from common.base.files import read_yaml
from common.base.options import check_ranges, from_mapping, option
from common.base.runtime import UserError, listed, naming, nearest_name, shown
from common.dataset.phases import BACKGROUND, UNLABELLED, PhaseMapping, read_mapping

MOST_FPS = 1000  # a higher rate is a slip
Task = Literal["multilabel", "clips", "segmentation"]
TASK_COMMANDS: dict[Task | None, str] = {
    None: "common.train",
    "multilabel": "common.probe",
    "clips": "common.probe",
    "segmentation": "common.segment",
}

# keys that some tasks have no use for, with those that have
TASKS_OF_KEYS: dict[str, tuple[Task | None, ...]] = {
    "ignored": (None, "segmentation"),
    "own_rule": ("segmentation",),
    "measure": ("multilabel", "clips"),
}


@dataclass(frozen=True)
class DatasetDescription:
    """The keys of `dataset.yaml`; made by `read_description`."""

    label_fps: float | None = option(None, group="data", unit="labels a second", above=0, maximum=MOST_FPS)
    """Labels a second. None, `label_every` too: one label a decoded frame."""
    label_every: int | None = option(None, group="data", unit="decoded frames", minimum=1)
    """Decoded frames from one label to the next: label k belongs to frame k x `label_every`."""
    frames_fps: float | None = option(None, group="data", unit="frames a second", above=0, maximum=MOST_FPS)
    """Rate of the videos that are folders of numbered images."""
    feature_fps: float | None = option(None, group="data", unit="features a second", above=0, maximum=MOST_FPS)
    """Rate of features that were made elsewhere and came without sidecars."""
    background: str | None = BACKGROUND
    """Phase that counts as background, where `mapping.txt` has it; None: no phase does."""
    ignored: tuple[str, ...] = ()
    """Names in label files that nobody learns from or is scored on: phases of `mapping.txt`, or `unlabelled`."""
    release_names: dict[str, str] | None = None
    """Phase of `mapping.txt` -> its name in the release."""
    features_of: str | None = None
    """Another data set, which has the videos and features."""
    source: str | None = None
    """Where the data is from."""
    licence: str | None = None
    """Terms of use of the data."""
    ids: dict[str, str] | None = None
    """Video -> its id in the public set, for overlaps with other sets."""
    task: Task | None = None
    """What its labels say in place of the phase of each frame (docs/tasks.md); None: phases."""
    own_rule: Literal["cadis", "sar-rarp50"] | None = None
    """How the users of this set of masks measure (`scoring.masks.OWN_RULES`), which is named beside the measures of all."""
    measure: str | None = None
    """Of a task, the measure that a table of several data sets shows: that of its owners (docs/tasks.md)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.label_fps is not None and self.label_every is not None:
            raise UserError(
                f"expected label_fps or label_every, found both ({self.label_fps:g} and {self.label_every}); keep the "
                "one by which the labels were made"
            )
        twice = sorted({name for name in self.ignored if self.ignored.count(name) > 1})
        if twice:
            raise UserError(f"ignored: expected each name once, found {listed(twice)} several times")


def read_description(dataset: paths.Dataset) -> DatasetDescription:
    """Read and check the `dataset.yaml` of a data set; without the file, all is as usual.

    Raises `UserError` naming the file for one that is damaged, an unknown or repeated key, a value of a wrong type or
    outside its range, phases that `mapping.txt` lacks, and a data set of features that is this one or has none itself.
    """
    description = _read_keys(dataset)
    try:
        if description.features_of is not None:
            _check_features_of(dataset, description.features_of)
        if dataset.mapping.is_file() and (description.ignored or description.background != BACKGROUND):
            description = _with_phases(description, read_mapping(dataset.mapping))
    except UserError as error:
        raise UserError(naming(dataset.description, error)) from error
    return description


def read_phases(dataset: paths.Dataset) -> PhaseMapping:
    """The `mapping.txt` of a data set, with the phase that its `dataset.yaml` names as background.

    Raises `UserError` as `read_mapping` and `require_task` do.
    """
    description = require_task(dataset, None)
    return replace(read_mapping(dataset.mapping), background=description.background, ignored=description.ignored)


def require_task(dataset: paths.Dataset, *tasks: Task | None) -> DatasetDescription:
    """The description of a data set whose task is one of `tasks` (None: phases).

    Raises `UserError` as `read_description` does, for another task with the command that is for it, and for keys that this
    task has no use for.
    """
    description = read_description(dataset)
    if description.task not in tasks:
        expected = " or ".join("none (phases)" if task is None else task for task in tasks)
        raise UserError(
            f"{dataset.description}: task: expected {expected}, found {description.task or 'none (phases)'}, which is for "
            f"python -m {TASK_COMMANDS[description.task]}"
        )
    idle = [key for key, of in TASKS_OF_KEYS.items() if getattr(description, key) and description.task not in of]
    if idle:
        raise UserError(
            f"{dataset.description}: {listed(idle)}: would have no effect with the task {description.task or 'phases'}; leave it out"
        )
    return description


def labelled_units(dataset: paths.Dataset) -> tuple[Path, list[str]]:
    """Where a data set has its labels, and what its splits are lists of: its labelled videos, or what its task has for them.

    Raises `UserError` as `read_description` does, and for damaged labels of a task.
    """
    task = read_description(dataset).task
    if task is None:
        return dataset.ground_truth, list(paths.label_paths(dataset.ground_truth))
    from common.dataset.task_labels import task_units  # few data sets have a task

    return task_units(dataset, task)


def features_owner(dataset: paths.Dataset) -> paths.Dataset:
    """The data set whose videos and features this one uses: that of `features_of`, or itself."""
    name = read_description(dataset).features_of
    return dataset if name is None else paths.dataset(name)


def frames_fps_of(video: Path) -> float | None:
    """Images a second of a video that is a folder of images, by the `dataset.yaml` of the data set that it lies in.

    A video may lie at any depth below `videos/`; in a folder that is no data set, the file may be beside the videos.
    """
    parents = Path(os.path.abspath(video)).parents
    places = [parents[1], *(folder.parent for folder in parents if folder.name == "videos"), parents[0]]
    said = (place for place in places if os.path.lexists(paths.Dataset(place).description))
    return read_description(paths.Dataset(next(said, parents[1]))).frames_fps


def _read_keys(dataset: paths.Dataset) -> DatasetDescription:
    """The description for itself: what it says of phases and of other data sets is not looked up."""
    path = dataset.description
    if not os.path.lexists(path):
        near = [entry.name for entry in visible(dataset.root) if same_name(entry.stem) == path.stem and _is_yaml(entry)]
        if near:
            raise UserError(
                f"{dataset.root}: expected {path.name}, found {listed(near)}, which nobody reads; rename it"
            )
        return DatasetDescription()
    try:
        description = from_mapping(DatasetDescription, read_yaml(path), path)
    except UserError as error:
        raise UserError(naming(path, error)) from error
    ids = description.ids and {nfc(video): public for video, public in description.ids.items()}
    return replace(description, ids=ids)


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _check_features_of(dataset: paths.Dataset, name: str) -> None:
    if not name.strip():
        raise UserError("features_of: expected the name of a data set, found nothing")
    other = paths.dataset(name)
    if other.root == dataset.root.resolve():
        raise UserError(f"features_of: expected another data set, found this one ({name})")
    further = _read_keys(other).features_of
    if further is not None:
        raise UserError(
            f"features_of: expected a data set with videos and features of its own, found {name}, which has those of "
            f"{further}; name that one"
        )


def _with_phases(description: DatasetDescription, mapping: PhaseMapping) -> DatasetDescription:
    """The description with phases spelled as in the mapping."""
    phases = [name for name in description.ignored if name != UNLABELLED]
    ignored = _spelled("ignored", phases, mapping)
    if len(ignored) == mapping.num_classes:
        raise UserError("ignored: expected some phases of mapping.txt, found all of them: nothing is left to learn")
    background = description.background
    if background not in (None, BACKGROUND):
        (background,) = _spelled("background", [background], mapping)
    of_none = (UNLABELLED,) if UNLABELLED in description.ignored else ()
    return replace(description, ignored=ignored + of_none, background=background)


def _spelled(key: str, names: Sequence[str], mapping: PhaseMapping) -> tuple[str, ...]:
    """`names` as the mapping has them, whichever way the accents of either are encoded."""
    known = {nfc(name): name for name in mapping.names}
    for name in names:
        if nfc(name) not in known:
            near = nearest_name(nfc(name), known)
            nearest = f"; did you mean {near!r}?" if near else ""
            raise UserError(
                f"{key}: expected phases of mapping.txt, found {shown(name)}{nearest}; known: {listed(mapping.names)}"
            )
    return tuple(known[nfc(name)] for name in names)
