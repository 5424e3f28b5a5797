"""Lists of videos for training and testing, as owners or papers have them: the YAML files beside the readers.

official: A                  # the list that the owners state; null where they state none
video: video{:02}            # how a number becomes a name; without it the words are names
all: 1-80                    # needed for `rest`
lists:
  A:
    standing: convention     # official, convention, one paper's, ours
    source: where it was read
    splits:
      - {train: 1-40, val: 41-48, test: rest}

In place of `splits`, `of: {train: [bern], test: [strasbourg]}` joins parts of other lists split by split; with neither the
release's own folders or tables make the list.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.base.entries import nfc
from common.base.files import read_yaml
from common.base.options import from_mapping
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.release import Reading, Splits
from common.dataset.split_lists import OFFICIAL, PARTS

REST = "rest"  # all videos that no other part of the split names
RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class _ListEntry:
    standing: Literal["official", "convention", "one paper's", "ours"]
    source: str
    video: str | None = None
    all: str | None = None
    splits: tuple[dict, ...] | None = None
    of: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class _ListsFile:
    official: str | None
    lists: dict[str, dict]
    video: str | None = None
    all: str | None = None


@dataclass(frozen=True)
class SplitList:
    """A list of videos by name: what standing it has, where it was read, and its splits (None: the release makes them)."""

    name: str
    standing: str
    source: str
    splits: Splits | None

    def __str__(self) -> str:
        return f"{self.name} ({self.standing})"


@dataclass(frozen=True)
class ReleaseLists:
    """The lists of a release, and the name of the one that its owners state (None: they state none)."""

    official: str | None
    lists: dict[str, SplitList]

    def chosen(self, names: Sequence[str] | None, title: str) -> list[SplitList]:
        """The lists called so, `official` among them; all without names. Raises `UserError` for one that is not there."""
        chosen = []
        for name in self.lists if names is None else names:
            wanted = self.official if name == OFFICIAL and self.official else name
            if wanted not in self.lists:
                there = listed([*map(str, self.lists.values())], len(self.lists)) or "none"
                none = "its owners state no official list; " if name == OFFICIAL else ""
                raise UserError(f"--splits {name}: no such list of {title}; {none}there are: {there}")
            chosen.append(self.lists[wanted])
        return chosen


def cut_list(one: SplitList, reading: Reading, meant: Callable[[str], Sequence[str]]) -> SplitList | None:
    """A list with what the data set has; None where no split is left. What is missing is noted in the reading.

    `meant` gives the videos (or groups) that a name of the list stands for: none, itself, or all of a patient. A split without
    train or test is left out, and those after it move up, since splits are numbered from 1 without gaps; `source` says which they
    were. A list whose `val` is its `test` loses it; one with something else in two parts is a problem, and its split left out.
    """
    splits = one.splits if one.splits is not None else reading.splits.get(one.name, [])
    kept: dict[int, dict[str, list[str]]] = {}
    for number, split in enumerate(splits, 1):
        here = {part: [video for name in split.get(part, ()) for video in meant(nfc(name))] for part in PARTS}
        if set(here["val"]) == set(here["test"]):
            here["val"] = []
        taken = Counter(name for names in here.values() for name in set(names))
        if twice := sorted(name for name, count in taken.items() if count > 1):
            reading.problems.append(
                f"list {one.name}, split {number}: {listed(twice)}: expected in one part, found in two; left out"
            )
        elif here["train"] and here["test"]:
            kept[number] = here
    named = {nfc(name) for split in splits for names in split.values() for name in names}
    absent = sum(not meant(name) for name in named)
    left_out = len(splits) - len(kept)
    numbers = f"split {listed([*map(str, kept)], len(kept))} of {len(splits)}"
    said = [f"{absent} of {len(named)} are not here"] if absent else []
    if left_out:
        said.append(f"{left_out} of {len(splits)} splits left out")
    if kept and max(kept) > len(kept):
        said.append(f"numbered from 1 here: {numbers}")
    if said:
        reading.notes.append(f"list {one.name}: {'; '.join(said)}")
    if not kept:
        return None
    return replace(one, splits=[*kept.values()], source=f"{one.source} ({numbers})" if left_out else one.source)


def read_lists(path: Path) -> ReleaseLists:
    """Read the lists of a release; an absent file says that there are none.

    Raises `UserError` naming the file and the list for what cannot be: a video in two parts, `rest` without `all`.
    """
    if not path.is_file():
        return ReleaseLists(None, {})
    content = from_mapping(_ListsFile, read_yaml(path), path)
    entries = {name: from_mapping(_ListEntry, entry, f"{path}, {name}") for name, entry in content.lists.items()}
    if content.official is not None and content.official not in entries:
        raise UserError(f"{path}: official: expected one of {listed([*entries])}, found {shown(content.official)}")
    splits: dict[str, Splits | None] = {}
    for name, entry in entries.items():
        template, everything = entry.video or content.video, entry.all or content.all
        where = f"{path}, {name}"
        if entry.splits is not None:
            splits[name] = [_split(split, template, everything, where) for split in entry.splits]
        else:
            splits[name] = _joined(entry.of, splits, where) if entry.of else None
    lists = {name: SplitList(name, entry.standing, entry.source, splits[name]) for name, entry in entries.items()}
    return ReleaseLists(content.official, lists)


def _split(parts: Mapping[str, Any], template: str | None, everything: str | None, where: str) -> dict[str, list[str]]:
    """One split with the names of its videos. Raises `UserError` for a video in two parts."""
    unknown = parts.keys() - set(PARTS)
    if unknown or not {"train", "test"} <= parts.keys():
        raise UserError(f"{where}: expected train and test, and val or not, found {listed(sorted(map(str, parts)))}")
    named = {part: _videos(str(parts[part]), template) for part in PARTS if part in parts and parts[part] != REST}
    taken = [video for videos in named.values() for video in videos]
    if len(set(taken)) != len(taken):
        twice = sorted({video for video in taken if taken.count(video) > 1})
        raise UserError(f"{where}: expected each video in one part of a split, found {listed(twice)} twice")
    for part in parts.keys() - named.keys():
        if everything is None:
            raise UserError(f"{where}: {part}: {REST} needs `all`, the list of all videos")
        named[part] = [video for video in _videos(everything, template) if video not in taken]
    return {part: named[part] for part in PARTS if part in named}


def _videos(words: str, template: str | None) -> list[str]:
    """Names of `1-3, 7` or of `a b`: numbers, ranges and names, parted by blanks or commas."""
    if template is None:
        return words.replace(",", " ").split()
    numbers: list[int] = []
    for word in words.replace(",", " ").split():
        bounds = RANGE.fullmatch(word)
        numbers += range(int(bounds[1]), int(bounds[2]) + 1) if bounds else [int(word)]
    return [template.format(number) for number in numbers]


def _joined(of: Mapping[str, Sequence[str]], splits: Mapping[str, Splits | None], where: str) -> Splits:
    """Splits whose parts are those of other lists, named above this one."""
    others = [name for names in of.values() for name in names]
    if missing := [name for name in others if not splits.get(name)]:
        raise UserError(f"{where}: of: expected lists with splits above this one, found {listed(missing)}")
    count = min(len(splits[name]) for name in others)
    return [
        {part: [video for name in names for video in splits[name][index][part]] for part, names in of.items()}
        for index in range(count)
    ]
