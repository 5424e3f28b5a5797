"""Which videos each split learns from and is scored on: generated folds, or lists by name (official, published, one's own).

A named list is a folder `splits/<NAME>/` of `{train,val,test}.split<k>.bundle`; `val` may be absent. Its splits need be
disjoint only each within itself: published ones may test a video several times. `splits/lists.yaml` says where lists
are from, and which of them `official` stands for.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from common.base.entries import visible
from common.base.files import misfit, read_yaml, sha256_of_json
from common.base.paths import Dataset, require_name
from common.base.runtime import UserError, listed, shown
from common.dataset.description import labelled_units
from common.dataset.kfold import folds_hash, read_bundle, read_folds

DEFAULT_FOLDS = 5
OFFICIAL = "official"  # what the release's description stands it for
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
LIST_NAME = re.compile(r"(train|val|test)\.split(0|[1-9][0-9]*)\.bundle")
RECORD_SHAPE = {"official?": str, "lists": {str: {"standing": str, "source?": str}}}


@dataclass(frozen=True, eq=False)
class SplitLists:
    """The splits of a data set, numbered from 1: `tests[k - 1]` are the videos that split k is scored on.

    `name` is that of a named list, None for generated folds. Made by `open_splits`.
    """

    dataset: Dataset
    name: str | None
    tests: list[list[str]]
    trains: list[list[str]] = field(repr=False)
    vals: Mapping[int, list[str]] = field(default_factory=dict, repr=False)
    """Validation videos by number of the split, where it has a list of them."""

    def __len__(self) -> int:
        return len(self.tests)

    @property
    def noun(self) -> str:
        """What its splits are called."""
        return "folds" if self.name is None else "splits"

    def count(self, asked: int | None) -> int:
        """How many splits are meant: as many as are `asked` for, else all of a named list, and of folds the usual five."""
        if asked is not None:
            return asked
        return DEFAULT_FOLDS if self.name is None else len(self)

    def videos(self, part: Part, number: int) -> list[str]:
        """The videos of a part of split `number` (from 1).

        Raises `UserError` for a number that there is not, and a `val` list that the split lacks.
        """
        if not 1 <= number <= len(self):
            folder = self.dataset.split_list(self.name)
            raise UserError(f"split {number}: {folder} has {self.noun} 1 to {len(self)}")
        if part == "val":
            if number not in self.vals:
                raise UserError(
                    f"{self.dataset.bundle('val', number, self.name)}: no such list; split {number} has no videos for "
                    "validation"
                )
            return self.vals[number]
        return (self.tests if part == "test" else self.trains)[number - 1]

    @cached_property
    def hash(self) -> str:
        """Identity: SHA-256 over what is learned from and scored on."""
        if self.name is None:
            return folds_hash(self.tests)
        return sha256_of_json(
            [[sorted(train), sorted(test)] for train, test in zip(self.trains, self.tests, strict=True)]
        )

    @property
    def tests_overlap(self) -> bool:
        """Whether some video is tested by several splits."""
        return sum(map(len, self.tests)) > len({video for test in self.tests for video in test})


def open_splits(dataset: Dataset, name: str | None = None) -> SplitLists:
    """The generated folds, verified (`kfold.verify_folds`), or the lists called `name`, each disjoint within itself.

    `official` is the list that the release's description calls so. Raises `UserError` naming the file: without such
    lists, with the ones that there are and their standing; for a video without labels; for one in two parts of a split.
    """
    if name is None:
        tests = read_folds(dataset)
        trains = [read_bundle(dataset.bundle("train", number)) for number in range(1, len(tests) + 1)]
        return SplitLists(dataset, None, tests, trains)
    name = resolve_name(dataset, name)
    folder = dataset.split_list(name)
    numbers: dict[Part, set[int]] = {part: set() for part in PARTS}
    for path in visible(folder, "*.bundle"):
        if match := LIST_NAME.fullmatch(path.name):
            numbers[match[1]].add(int(match[2]))
    count = len(numbers["test"])
    for part in ("test", "train"):
        if numbers[part] != set(range(1, count + 1)) or not count:
            found = listed([f"{part}.split{number}" for number in sorted(numbers[part])]) or "none"
            raise UserError(f"{folder}: expected a train and a test list for split 1, 2 and so on, found {found}")
    if strange := numbers["val"] - numbers["test"]:
        raise UserError(f"{dataset.bundle('val', min(strange), name)}: there is no test list of this split")
    read = {part: {k: read_bundle(dataset.bundle(part, k, name)) for k in sorted(numbers[part])} for part in PARTS}
    lists = SplitLists(dataset, name, list(read["test"].values()), list(read["train"].values()), read["val"])
    _verify(lists)
    return lists


def _verify(lists: SplitLists) -> None:
    place, units = labelled_units(lists.dataset)
    there = set(units)
    for number in range(1, len(lists) + 1):
        where: dict[str, Part] = {}
        for part in PARTS:
            path = lists.dataset.bundle(part, number, lists.name)
            for video in [] if part == "val" and number not in lists.vals else lists.videos(part, number):
                if video not in there:
                    raise UserError(
                        f"{path}: {shown(video)} has no labels in {place}; add this video, or choose another list"
                    )
                if where.setdefault(video, part) != part:
                    raise UserError(
                        f"{path}: {shown(video)} is in the {where[video]} list of this split too; a video belongs to one part"
                    )


def resolve_name(dataset: Dataset, name: str) -> str:
    """The name of a list that is there. Raises `UserError` naming those that are, with their standing."""
    record = read_record(dataset)
    chosen = name
    if name == OFFICIAL and not dataset.split_list(name).is_dir():
        if not record.get("official"):
            raise UserError(f"{dataset.root}: no official list of splits; {_there(dataset, record)}")
        chosen = record["official"]
    if not dataset.split_list(require_name("list of splits", chosen)).is_dir():
        raise UserError(f"{dataset.split_list(chosen)}: no such list of splits; {_there(dataset, record)}")
    return chosen


def list_names(dataset: Dataset) -> list[str]:
    """The named lists of a data set."""
    return [path.name for path in visible(dataset.splits) if path.is_dir() and visible(path, "test.split*.bundle")]


def read_record(dataset: Dataset) -> dict:
    """What `splits/lists.yaml` says; nothing where it is absent. Raises `UserError` for a damaged one."""
    path = dataset.split_lists
    if not os.path.lexists(path):
        return {"lists": {}}
    record = read_yaml(path)
    if wrong := misfit(record, RECORD_SHAPE) or _unknown_key(record):
        raise UserError(f"{path}: not a record of lists ({wrong}); import the data set again, or remove it")
    return record


def _unknown_key(record: Mapping) -> str:
    """A key of `lists.yaml` that means nothing, in words; empty without any."""
    known = {"": {"official", "lists"}} | {f"lists.{name}": {"standing", "source"} for name in record["lists"]}
    parts = {"": record} | {f"lists.{name}": entry for name, entry in record["lists"].items()}
    unknown = [f"{place and f'{place}.'}{key}" for place, part in parts.items() for key in part.keys() - known[place]]
    return f"unknown {listed(sorted(unknown))}" if unknown else ""


def _there(dataset: Dataset, record: Mapping) -> str:
    """The lists that there are, in words."""
    standings = {name: entry["standing"] for name, entry in record["lists"].items()}
    names = [f"{name} ({standings[name]})" if name in standings else name for name in list_names(dataset)]
    return f"there are: {', '.join(names)}; choose one with --splits NAME" if names else "there are no named lists"


def split_line(dataset: Dataset, name: str) -> str:
    """Where a list is from, in a line for reports: its standing and source."""
    entry = read_record(dataset)["lists"].get(name)
    if entry is None:
        return f"list {name}"
    return f"list {name} ({entry['standing']}{'; ' + entry['source'] if entry.get('source') else ''})"
