"""Phase names and ids, ground-truth and prediction files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from common.base.entries import CHALLENGE_HEADER, list_labels
from common.base.files import read_text, sha256_of_json, write_text
from common.base.paths import Dataset, label_paths
from common.base.runtime import UserError, listed, nearest_name, shown

BACKGROUND = "background"  # the phase that counts as background where a data set names no other
UNLABELLED = "unlabelled"  # in place of a phase where a release has none; `ignored` may name it without a phase of it
IGNORED = -100  # the id of a label that nobody learns from or is scored on; the one that torch's losses leave out
LENGTH_TOLERANCE = 16  # frames by which labels and frames of a video may differ, but see `allowed_difference`
MOST_DIGITS = 9  # of an id
RATIO_TOLERANCE = 0.01  # of a whole number of labels for each frame, or the other way round


@dataclass(frozen=True)
class PhaseMapping:
    """The phases of a data set: `names[i]` is the phase with id i; `background` is the one that counts as background.

    A background that is no phase is None: then every phase counts in every measure. Labels called as one of `ignored`,
    phases or not, are neither learned from nor scored on.
    """

    names: tuple[str, ...]
    background: str | None = BACKGROUND
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.background not in self.names:
            object.__setattr__(self, "background", None)  # the one assignment that a frozen dataclass does not know

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """The id of each name that a ground truth may hold: `IGNORED` for those that do not count."""
        return self.ids | dict.fromkeys(self.ignored, IGNORED)

    @property
    def background_id(self) -> int | None:
        return None if self.background is None else self.ids[self.background]

    def advice(self, label: str) -> str:
        """Words on what to write in place of an unknown label: the known name most like it, or the known names."""
        if label in map(str, range(self.num_classes)):
            return f"labels are names, not ids: {label} is {self.names[int(label)]!r} in mapping.txt"
        if label == UNLABELLED:
            return f"it stands for no phase where dataset.yaml says `ignored: [{UNLABELLED}]`"
        lowered = {name.lower(): name for name in self.names}
        near = nearest_name(label.lower(), lowered, cutoff=0.5)
        return f"nearest known name: {lowered[near]!r}" if near else f"known: {listed(self.names)}"


def read_mapping(path: Path) -> PhaseMapping:
    """Read `mapping.txt`: lines `ID NAME`, ids 0 to n-1 in any order, names without blanks.

    Raises `UserError` naming the file and line for a missing file, a malformed line, a repeated or missing id or name.
    """
    if not path.is_file():
        raise UserError(f"{path}: no mapping file; expected lines such as '0 background'")
    by_id: dict[int, str] = {}
    names: set[str] = set()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal() or len(words[0]) > MOST_DIGITS:
            joined = f"; a name has no blanks: {shown('_'.join(words[1:]))}" if len(words) > 2 else ""
            raise UserError(f"{path}, line {number}: expected 'ID NAME', found {shown(line)}{joined}")
        phase_id, name = int(words[0]), words[1]
        if not name.isprintable():
            raise UserError(f"{path}, line {number}: a control character in the name {shown(name)}; write it again")
        if phase_id in by_id or name in names:
            raise UserError(f"{path}, line {number}: {shown(line)} repeats an id or a name")
        by_id[phase_id] = name
        names.add(name)
    if not by_id or sorted(by_id) != list(range(len(by_id))):
        raise UserError(f"{path}: ids must run from 0 without gaps, found {shown(sorted(by_id))}")
    return PhaseMapping(tuple(by_id[index] for index in range(len(by_id))))


class UnknownPhases(UserError):
    """Names in a label file that the mapping lacks: `places` holds the line (from 1) and frame (from 0) of each use."""

    def __init__(self, path: Path, names: Sequence[str], lines: Sequence[int], mapping: PhaseMapping):
        self.places: dict[str, list[tuple[int, int]]] = {}
        for frame, (name, line) in enumerate(zip(names, lines, strict=True)):
            if name not in mapping.label_ids:
                self.places.setdefault(name, []).append((line, frame))
        first, ((line, _), *_) = next(iter(self.places.items()))
        super().__init__(f"{path}, line {line}: unknown phase {shown(first)}; {mapping.advice(first)}")


def read_predictions(path: Path, mapping: PhaseMapping) -> np.ndarray:
    """As `read_labels`, of a file of predictions: whatever a head predicts is a phase, one that is not scored too."""
    return read_labels(path, replace(mapping, ignored=()))


def read_labels(path: Path, mapping: PhaseMapping) -> np.ndarray:
    """Read a ground truth as phase ids, `(T,)` int64, with `IGNORED` for the labels that do not count.

    Both forms are read: one name a line, and the challenge's header line followed by one line of names.

    Raises `UserError` for a missing file and one in another encoding than UTF-8, `NotLabels` for an empty one and
    another form (with its line), and `UnknownPhases` (with line and nearest known name).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such label file")
    text, ids = read_text(path), mapping.label_ids
    names: Sequence[str] = [line.strip() for line in text.rstrip().split("\n")]
    if len(names) == 2 and names[0] == CHALLENGE_HEADER:
        names = names[1].split()
    try:
        return _phase_ids(names, ids)
    except KeyError:  # few files: another spelling of the header, or what is no labels
        from common.dataset.label_forms import frame_names

        names, lines = frame_names(path, text, list(ids))
        if not ids.keys() >= set(names):
            raise UnknownPhases(path, names, lines, mapping) from None
        return _phase_ids(names, ids)


def _phase_ids(names: Sequence[str], ids: Mapping[str, int]) -> np.ndarray:
    return np.fromiter(map(ids.__getitem__, names), dtype=np.int64, count=len(names))


def labels_hash(dataset: Dataset, split: str, mapping: PhaseMapping) -> str:
    """Identity of the labels that a split is learned from and scored on: SHA-256 over the phases of every video.

    Equal for equal phases, in whatever form the files have them. Every fold learns from or is scored on all of
    `groundTruth/`; the split `val` takes both parts. A file that cannot be read counts as other labels.
    """

    def phases(path: Path) -> str | None:
        try:
            return hashlib.sha256(read_labels(path, mapping).astype("<i4").tobytes()).hexdigest()
        except UserError:
            return None

    parts = [dataset.ground_truth, *([dataset.ground_truth_val] if split == "val" else [])]
    return sha256_of_json([{name: phases(path) for name, path in list_labels(part).first.items()} for part in parts])


def allowed_difference(num_frames: int, most: int = LENGTH_TOLERANCE) -> int:
    """Frames by which labels and frames of a video may differ: training trims the longer at its end.

    At most 1 % of the video, however many are asked for, since more would be labels of another video; but one always.
    """
    return min(most, max(1, num_frames // 100))


def length_ratio(num_labels: int, num_frames: int) -> tuple[int, str] | None:
    """How often the smaller count is in the larger where that is near a whole number from 2, and what it may mean."""
    small, large = sorted((num_labels, num_frames))
    times = round(large / small) if small else 0
    # of a short video every n-th is a little more than the n-th part: 19 of 37
    if times < 2 or abs(large - times * small) >= max(times, RATIO_TOLERANCE * large):
        return None
    return times, f"1 label every {times} frames?" if num_labels < num_frames else f"{times} labels a frame?"


def write_prediction(path: Path, phase_ids: Sequence[int] | np.ndarray, mapping: PhaseMapping) -> None:
    """Write predicted phase ids `(T,)` in the challenge's form, atomically."""
    write_text(path, f"{CHALLENGE_HEADER}\n{' '.join(mapping.names[index] for index in phase_ids)}\n")


def require_labels(folder: Path) -> dict[str, Path]:
    """`label_paths`, but a folder without label files is a `UserError`."""
    found = label_paths(folder)
    if not found:
        raise UserError(f"{folder}: no label files (<video>.txt) here")
    return found
