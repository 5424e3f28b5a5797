"""Phase names and ids, ground-truth and prediction files."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from common.base.paths import label_paths
from common.base.runtime import UserError, write_text

LENGTH_TOLERANCE = 16  # frames by which labels and frames of a video may differ: training trims the longer at its end
HEADER_WORDS = "Frame level recognition"  # by these the challenge's form of a label file is known
CHALLENGE_HEADER = f"### {HEADER_WORDS}: ###"


@dataclass(frozen=True)
class PhaseMapping:
    """The phases of a data set: `names[i]` is the phase with id i."""

    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def nearest(self, label: str) -> str | None:
        """The known name most like `label`, for error messages."""
        lowered = {name.lower(): name for name in self.names}
        close = difflib.get_close_matches(label.lower(), lowered, n=1, cutoff=0.5)
        return lowered[close[0]] if close else None


def read_mapping(path: Path) -> PhaseMapping:
    """Read `mapping.txt`: lines `ID NAME`, ids 0 to n-1 in any order, names without blanks.

    Raises `UserError` naming the file and line for a missing file, a malformed line, a repeated or missing id or name.
    """
    if not path.is_file():
        raise UserError(f"{path}: no mapping file; expected lines such as '0 background'")
    by_id: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal():
            raise UserError(f"{path}, line {number}: expected 'ID NAME', found {line!r}")
        phase_id, name = int(words[0]), words[1]
        if phase_id in by_id or name in by_id.values():
            raise UserError(f"{path}, line {number}: {line!r} repeats an id or a name")
        by_id[phase_id] = name
    if not by_id or sorted(by_id) != list(range(len(by_id))):
        raise UserError(f"{path}: ids must run from 0 without gaps, found {sorted(by_id)}")
    return PhaseMapping(tuple(by_id[index] for index in range(len(by_id))))


class UnknownPhases(UserError):
    """Names in a label file that the mapping lacks: `places` holds the line (from 1) and frame (from 0) of each use."""

    def __init__(self, path: Path, text: str, mapping: PhaseMapping):
        self.places: dict[str, list[tuple[int, int]]] = {}
        frame = 0
        for number, line in enumerate(text.splitlines(), 1):
            if number == 1 and HEADER_WORDS in line:
                continue
            for name in line.split():
                if name not in mapping.ids:
                    self.places.setdefault(name, []).append((number, frame))
                frame += 1
        first, ((number, _), *_) = next(iter(self.places.items()))
        near = mapping.nearest(first)
        hint = f"; nearest known name: {near!r}" if near else f"; known: {', '.join(mapping.names)}"
        super().__init__(f"{path}, line {number}: unknown phase {first!r}{hint}")


def read_labels(path: Path, mapping: PhaseMapping) -> np.ndarray:
    """Read a ground-truth or prediction file as phase ids, `(T,)` int64.

    Both forms are read: one name a line, and the challenge's header line followed by one line of names.

    Raises `UserError` for a missing, empty or binary file, and `UnknownPhases` (with line and nearest known name).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such label file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error}); save it as plain text again") from error
    first_line, _, rest = text.partition("\n")
    names = (rest if HEADER_WORDS in first_line else text).split()
    if not names:
        raise UserError(f"{path}: the label file is empty; expected one phase name a line, one line a video frame")
    ids = mapping.ids
    try:  # hundreds of files of tens of thousands of names: only a file with an unknown one is looked at line by line
        return np.fromiter((ids[name] for name in names), dtype=np.int64, count=len(names))
    except KeyError:
        raise UnknownPhases(path, text, mapping) from None


def write_prediction(path: Path, phase_ids: Sequence[int] | np.ndarray, mapping: PhaseMapping) -> None:
    """Write predicted phase ids `(T,)` in the challenge's form, atomically."""
    write_text(path, f"{CHALLENGE_HEADER}\n{' '.join(mapping.names[index] for index in phase_ids)}\n")


def require_labels(folder: Path) -> dict[str, Path]:
    """`label_paths`, but a folder without label files is a `UserError`."""
    found = label_paths(folder)
    if not found:
        raise UserError(f"{folder}: no label files (<video>.txt) here")
    return found
