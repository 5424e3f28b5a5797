"""SurgRec's lists (Lu et al., arXiv 2603.29966): clips that were cut at the borders of their class, one class each.

A list is lines of a path, a blank and the number of a class, without a head; `__DATA_ROOT__` stands for the folder of the data.
What a clip was cut from is known by its name alone, and only of some sets: a clip's group must not be learned from and tested.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.base.entries import reason_against, same_name, video_named
from common.base.files import read_json, read_text
from common.base.runtime import UserError, counted, listed, shown
from common.dataset.importing.release import Reading, letters
from common.dataset.importing.task_release import TaskContent, TaskRelease
from common.dataset.split_lists import PARTS
from common.dataset.tables import csv_line

ROOT = "__DATA_ROOT__"
LINE = re.compile(r'"?(?P<path>[^"]+?)"?\s+(?P<label>\d+)')
LABEL_FILES = ("label_map.json", "label_mapping.json")
ORDER_IN_NAME = re.compile(r"^(?:phase|label)?[_-]?\d+[_-]+", re.IGNORECASE)  # of a folder called as its class
# what the clips of a recording share in their names, by set; SurgicalActions160's 59 recordings nobody maps, AlxSuture has students
RECORDINGS = {
    "cataract-101": r"case_\d+",
    "cataract-1k-phase": r"case_\d+",
    "cataract-1k": r"case_\d+",
    "cat-21": r"case_\d+",
    "cholec80": r"cholec80_\d+",
    "AutoLaparo": r"label_\d+",
    "M2CAI16-Workflow": r"(?:train|test)_dataset_(?:test_)?workflow_video_\d+",
    "MultiBypass140": r"[BS]BP\d+",
    "PitVis": r"video_\d+",
    "SAR-RARP50": r"video_\d+",
    "JIGSAWS": r"(?:Suturing|Needle_Passing|Knot_Tying)_[A-Z]\d+",
    "LapGyn_dataset": r"case_\d+",
    "LDPolyVideo": r"^\d+(?:_\d+)?(?=_\d+_\d+_(?:no_)?polyps)",
    "hyper-kvasir": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "kvasir-capsule": r"^[0-9a-f]{16}",
}


@dataclass(frozen=True)
class _Listed:
    """A line of a list."""

    where: str
    path: PurePosixPath
    number: int

    @property
    def name(self) -> str:
        return video_named(self.path.name)


def _read(reading: Reading) -> TaskContent:
    """`splits/<set>/{train,val,test}.csv`, and `label_map.json` where the set has one."""
    folder = _folder(reading)
    lists = {
        part: _read_list(folder / f"{part}.csv") for part in PARTS if part != "val" or (folder / "val.csv").is_file()
    }
    _note_equal_lists(reading, lists)
    part_of = _one_part_each(reading, lists)
    names = _class_names(folder, [line for of_part in lists.values() for line in of_part])
    rule = next((rule for name, rule in RECORDINGS.items() if letters(name) == letters(folder.name)), None)
    if rule is None:
        reading.notes.append(f"{folder.name}: no recording is known of a clip: intervals are over clips")
    content, rows, missing = TaskContent(), [], []
    roots = _roots(reading, folder)
    for line in part_of:
        media = _media(line.path, roots) if reading.with_videos else None
        if reading.with_videos and media is None:
            missing.append(line.path.name)
            continue
        group = re.search(rule, line.path.stem) if rule else None
        unit = group[0] if group else None
        rows.append((line.name, names[line.number], unit or "", part_of[line]))
        content.units[unit or line.name] = None
        if media is not None:
            content.links[f"videos/{line.name}{media.suffix}"] = media
    sides = [{group for _, _, group, of in rows if group and of == part} for part in ("train", "test")]
    if shared := sorted(sides[0] & sides[1]):
        reading.notes.append(
            f"{counted(len(shared), 'recording')} with clips in train and in test: {listed(shared, 3)}"
        )
    if missing:
        reading.problems.append(
            f"{folder}: {len(missing)} of {counted(len(part_of), 'clip')} not in {listed([str(root) for root in roots])} "
            f"({listed(missing, 3)}); left out: --videos DIR names the folder that {ROOT} stands for"
        )
    content.texts["clips.csv"] = "".join(map(csv_line, [("clip", "label", "group", "split"), *sorted(rows)]))
    content.rows = _summary(list(names.values()), rows)
    return content


def _folder(reading: Reading) -> Path:
    """The folder of the set that is wanted."""
    found = reading.require("splits/*/train.csv", "*/train.csv", "train.csv")
    folders = {path.parent.name: path.parent for path in found}
    if reading.part is None:
        if len(folders) > 1:
            raise UserError(f"--set: expected one of {listed(sorted(folders), len(folders))}, found none; name one")
        reading.part = next(iter(folders))
    by_letters = {letters(name): folder for name, folder in folders.items()}
    if letters(reading.part) not in by_letters:
        raise UserError(
            f"--set {reading.part}: {reading.folder} has {listed(sorted(folders), len(folders))}; name one of them"
        )
    found = by_letters[letters(reading.part)]
    reading.part = found.name  # by which the data set is called, however it was typed
    return found


def _read_list(path: Path) -> list[_Listed]:
    """The lines of a list. Raises `UserError` naming file and line for another form, and for a clip that is there twice."""
    if not path.is_file():
        raise UserError(f"{path}: no such list; expected lines of a path, a blank and the number of a class")
    lines: dict[str, _Listed] = {}
    for number, text in enumerate(read_text(path).split("\n"), 1):
        where = f"{path}, line {number}"
        if not text.strip():
            continue
        match = LINE.fullmatch(text.strip())
        if match is None:
            raise UserError(f"{where}: expected a path, a blank and the number of a class, found {shown(text.strip())}")
        line = _Listed(where, PurePosixPath(match["path"].replace("\\", "/")), int(match["label"]))
        if reason := reason_against(line.name):
            raise UserError(f"{where}: a clip called {shown(line.name)}: {reason}")
        if lines.setdefault(same_name(line.name), line) is not line:
            first = lines[same_name(line.name)]
            raise UserError(f"{where}: clip {line.name} again, as in {first.where}; expected each clip once")
    if not lines:
        raise UserError(f"{path}: no clip in it; expected lines of a path, a blank and the number of a class")
    return list(lines.values())


def _note_equal_lists(reading: Reading, lists: Mapping[str, Sequence[_Listed]]) -> None:
    """Say where what is called validation is the test, line for line: nothing may be chosen on it."""
    val, test = ({(line.name, line.number) for line in lists.get(part, ())} for part in ("val", "test"))
    if val and val == test:
        reading.notes.append(
            f"the val list is the test list, {counted(len(test), 'clip')}: it is taken as the test, and nothing is chosen on it"
        )


def _one_part_each(reading: Reading, lists: Mapping[str, Sequence[_Listed]]) -> dict[_Listed, str]:
    """The part of each clip: one that is tested is neither learned from nor chosen on, and where lists differ it is named."""
    part_of: dict[str, tuple[_Listed, str]] = {}
    for part in ("test", "train", "val"):
        twice = []
        for line in lists.get(part, ()):
            first, there = part_of.setdefault(same_name(line.name), (line, part))
            if first.number != line.number:
                raise UserError(
                    f"{line.where}: {line.name} is of class {line.number}, but of {first.number} in {first.where}"
                )
            if there != part:
                twice.append(f"{line.name} ({there})")
        is_copy = part == "val" and len(twice) == len(lists.get("val", ()))
        if twice and not is_copy:
            reading.problems.append(
                f"{part}.csv: {counted(len(twice), 'clip')} of another list too: {listed(twice, 3)}; left there"
            )
    return dict(part_of.values())


def _class_names(folder: Path, lines: Sequence[_Listed]) -> dict[int, str]:
    """The name of each class: by the map of the set, else by the folder that all its clips and no others lie in, else its number."""
    numbers = sorted({line.number for line in lines})
    for path in (folder / name for name in LABEL_FILES):
        if path.is_file():
            names = _mapped(path)
            if unknown := [str(number) for number in numbers if number not in names]:
                raise UserError(f"{path}: no name of class {listed(unknown)}, which the lists have; add it")
            return {number: names[number] for number in sorted(names)}
    folders: dict[int, set[str]] = defaultdict(set)
    for line in lines:
        folders[line.number].add(ORDER_IN_NAME.sub("", line.path.parent.name))
    of_class = {number: next(iter(found)) for number, found in folders.items() if len(found) == 1}
    if len(set(of_class.values())) == len(numbers):
        return {number: of_class[number] for number in numbers}
    return {number: str(number) for number in numbers}


def _mapped(path: Path) -> dict[int, str]:
    """Names by number of a map: `index_to_label`, `label_to_index`, or a flat one of either."""
    content = read_json(path, "take the file of the repository again")
    wrong = UserError(f"{path}: expected numbers of classes and their names, found another form")
    if not isinstance(content, dict):
        raise wrong
    pairs = content.get("index_to_label") or content.get("label_to_index") or content
    if not isinstance(pairs, dict):
        raise wrong
    names: dict[int, str] = {}
    for key, value in pairs.items():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if not str(number).isdecimal():
            raise wrong
        names.setdefault(int(number), name)
    return names


def _roots(reading: Reading, folder: Path) -> list[Path]:
    """Folders that the root of the lists may stand for."""
    places = [
        reading.videos_folder,
        reading.folder,
        reading.folder / "data",
        folder.parents[1],
        folder.parents[1] / "data",
    ]
    return [place for place in dict.fromkeys(filter(None, places)) if place.is_dir()]


def _media(path: PurePosixPath, roots: Sequence[Path]) -> Path | None:
    """The file of a clip: below a root by the end of its path, whatever the path begins with; None where there is none."""
    if path.is_absolute() and Path(path).is_file():
        return Path(path)
    parts = [part for part in path.parts if part not in (ROOT, "/", "..")]
    for root in roots:
        for start in range(len(parts)):
            found = root.joinpath(*parts[start:])
            if found.is_file():
                return found
    return None


def _summary(classes: Sequence[str], rows: Sequence[tuple[str, str, str, str]]) -> list[list[str]]:
    """Clips of each class by part, and the share of the largest class of each."""
    counts = {part: Counter(label for _, label, _, of in rows if of == part) for part in PARTS}
    table = [["", *PARTS], *([name, *(str(counts[part][name]) for part in PARTS)] for name in dict.fromkeys(classes))]
    shares = [100 * max(each.values()) / each.total() if each else None for each in counts.values()]
    table.append(["largest class, %", *("n/a" if share is None else f"{share:.2f}" for share in shares)])
    return table


TASK_RELEASES = (
    TaskRelease(
        title="SurgRec",
        task="clips",
        read=_read,
        licence="lists CC BY-NC 4.0; each set's own terms",
        source="SurgRec (arXiv 2603.29966), Siiichenggg/SurgRec-open-source@25d01e4 splits",
        ask="github.com/Siiichenggg/SurgRec-open-source; the videos from the owners of each set, cut as the lists say",
        num_videos=0,
        tried="miniature; all 17 lists",
        part_flag="--set",
        notes=(
            "clips are cut where their class begins and ends: no task that a whole video poses",
            "in ten of the 17 sets the val list is the test list; no owner states an official list of clips",
        ),
    ),
)
