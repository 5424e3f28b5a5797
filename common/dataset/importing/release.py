"""A release: what is known of it, and what its reader finds in the folder that was unpacked.

A reader is a module of `common/dataset/releases/` with `RELEASES`; its function gets a `Reading` and yields an `Entry` for
each video. Nothing here opens a video: how long one is, the command measures, where a reader asks for it.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from common.base.entries import VIDEO_SUFFIXES, nfc, visible
from common.base.runtime import UserError, listed, nearest_name, shown

LEVELS = ("phases", "steps")
NUMBERED_NAME = re.compile(r"(?:video|vid|case|workflow_video|hei-chole)?[_-]?0*(\d+)", re.IGNORECASE)
REACH_SECONDS = 1e-6  # times are rounded

Labels = Sequence[str | None]
"""Labels of a video in order, under the release's own names; None where the release has none."""
Splits = list[dict[str, list[str]]]
"""The splits of a list in order, each part -> videos."""


@dataclass(frozen=True, eq=False)
class Extent:
    """How long a video is: its decoded frames, frames a second, and the frames' times in seconds where these are known."""

    num_frames: int
    fps: float
    times: np.ndarray | None = None

    @property
    def seconds(self) -> np.ndarray:
        """Time of each frame from the first, `(num_frames,)`."""
        return np.arange(self.num_frames) / self.fps if self.times is None else self.times - self.times[0]

    def num_points(self, label_fps: float) -> int:
        """Labels at `label_fps` a second from the first frame that a frame reaches, the last one by half of the gap before it.

        As such labels are counted wherever they are used (`common.video.label_grid`).
        """
        seconds = self.seconds
        gap = float(seconds[-1] - seconds[-2]) if len(seconds) > 1 else 0.0
        return math.floor((float(seconds[-1]) + gap / 2 + REACH_SECONDS) * label_fps) + 1


@dataclass(frozen=True)
class Phases:
    """Names of phases as a release spells them, in the order of their ids; `aliases` are further spellings of one."""

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    first_id: int = 0

    @cached_property
    def _exact(self) -> dict[str, str]:
        return {name: name for name in self.names} | dict(self.aliases)

    @cached_property
    def _by_letters(self) -> dict[str, str]:
        return {letters(spelling): name for spelling, name in self._exact.items()}

    @cached_property
    def _by_id(self) -> dict[str, str]:
        return {str(number): name for number, name in enumerate(self.names, self.first_id)}

    def named(self, text: str, where: object) -> str:
        """The phase called `text`, whatever its case, blanks and punctuation.

        Raises `UserError` that begins with `where` and has the nearest known name.
        """
        if text in self._exact:  # of nearly all rows
            return self._exact[text]
        if letters(text) in self._by_letters:
            return self._by_letters[letters(text)]
        near = nearest_name(letters(text), self._by_letters)
        hint = f"nearest known phase: {self._by_letters[near]!r}" if near else f"known: {listed(self.names)}"
        raise UserError(f"{where}: unknown phase {shown(text)}; {hint}")

    def numbered(self, text: str, where: object) -> str:
        """The phase with the id `text`. Raises `UserError` that begins with `where` and has the known ids."""
        name = self._by_id.get(text) or self._by_id.get(text.lstrip("0") or "0")
        if name is None:
            last = self.first_id + len(self.names) - 1
            raise UserError(f"{where}: unknown phase {shown(text)}; expected a number from {self.first_id} to {last}")
        return name


def letters(name: str) -> str:
    """A name without case, blanks and punctuation, by which spellings of one meet."""
    return "".join(filter(str.isalnum, nfc(name).casefold()))


def mapping_name(phase: str) -> str:
    """The name of a release's phase in `mapping.txt`: stripped, `_` for blanks."""
    return "_".join(nfc(phase).split())


@dataclass(frozen=True, eq=False)
class Entry:
    """A video of a release. `labels()` reads its labels, and may raise `UserError`: then this video alone is left out."""

    name: str
    labels: Callable[[], Labels]
    source: Path
    """The file that the labels come from."""
    media: Path | None = None
    """The video file, or the folder of images that has an image for each label; for features made elsewhere their file."""
    images: Sequence[Path] | None = None
    """The image of each label, in place of `media`, where a folder has more or those of several videos."""
    patient: str | None = None
    group: str | None = None
    is_validation: bool = False
    """Whether it belongs to a separate validation part (`groundTruth_val/`)."""
    public_id: str | None = None
    """Its `<set>/<id>` where it is a video of another set (default: `Release.public_id`)."""


class KnownRelease(Protocol):
    """What a reading needs to know of a release, whether of phases or of another task."""

    title: str
    phases: Phases
    steps: Phases | None


@dataclass(frozen=True)
class Release:
    """What is known of a release beforehand. Rates are as in `dataset.yaml`; without any, a label is a decoded frame's."""

    title: str
    """Its name, and that of the data set that is made of it."""
    read: Callable[["Reading"], Iterable[Entry]]
    phases: Phases
    licence: str
    source: str
    """Who made it, and what is known of its form from where."""
    ask: str
    """Where to get it."""
    num_videos: int
    hours: float | None
    tried: str
    """What the reader was tried on."""
    background: str | None = None
    ignored: tuple[str, ...] = ()
    label_fps: float | None = None
    label_every: int | None = None
    kept_every: int | None = None
    """Of labels of every frame, those of frames 0, `kept_every`, ... are kept, as published figures do, unless asked."""
    frames_fps: float | None = None
    feature_fps: float | None = None
    num_phases: int | None = None
    """Where the reader finds their names in the release's files."""
    steps: Phases | None = None
    """A second, finer level of labels; names that the release's files hold are put in by the reader."""
    lists: str | None = None
    """Stem of the file with its lists, where several releases share one; default: that of the reader's module."""
    notes: tuple[str, ...] = ()
    """Sentences for the summary."""
    aliases: tuple[str, ...] = ()
    """Further names under which the command knows it."""
    public_set: str | None = None
    """The public set that its videos are of, as `seen` of encoders calls it (default: the title's letters and digits)."""

    def chosen_part(self, given: Mapping[str, str | None]) -> None:
        """As `TaskRelease.chosen_part`: a release of phases has none."""
        if refused := [flag for flag, value in given.items() if value is not None]:
            raise UserError(f"{listed(refused)}: {self.title} has no such choice; leave it out")

    def public_id(self, video: str) -> str:
        """`<set>/<id>` of a video, by which overlaps are found: its number where its name is a usual word and a number."""
        number = NUMBERED_NAME.fullmatch(video)
        return f"{self.public_set or letters(self.title)}/{number[1] if number else video}"


@dataclass
class Reading:
    """One reading of a release: the folders and options given, and what the reader tells besides entries."""

    release: "KnownRelease"
    folder: Path
    measure: Callable[[Path], Extent]
    """How long a video is, raises `UserError`; a reader asks only where the labels depend on it."""
    videos_folder: Path | None = None
    level: str = "phases"
    with_videos: bool = True
    """False: labels alone are wanted, no video is looked for."""
    names_file: Path | None = None
    part: str | None = None
    """Of a release of several tasks or lists the one that is wanted (`TaskRelease.parts`)."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, Splits] = field(default_factory=dict)
    """Lists that the release itself holds, by name."""
    phases: Phases = field(init=False)
    """Phases of the chosen level; a reader that finds them in the release's files replaces them."""

    def __post_init__(self) -> None:
        chosen = self.release.phases if self.level == "phases" else self.release.steps
        if chosen is None:
            raise UserError(f"--level {self.level}: {self.release.title} has one level of labels; leave it out")
        self.phases = chosen

    def find(self, *patterns: str) -> list[Path]:
        """Files of the release by the first pattern that any matches; none hidden, sorted."""
        return next(filter(None, (visible(self.folder, pattern) for pattern in patterns)), [])

    def require(self, *patterns: str) -> list[Path]:
        """As `find`; none at all is a `UserError`."""
        found = self.find(*patterns)
        if not found:
            raise UserError(
                f"{self.folder}: expected {' or '.join(patterns)} of {self.release.title}, found none; name the folder "
                "that the release was unpacked into"
            )
        return found

    def find_media(self, *patterns: str) -> list[Path]:
        """Video files by the first pattern that any matches in the folder of the videos, else in that of the release.

        A pattern without a suffix (`videos/*`) takes every suffix of videos.
        """
        if not self.with_videos:
            return []
        for folder in filter(None, (self.videos_folder, self.folder)):
            for pattern in patterns:
                found = visible(folder, pattern)
                if "." not in pattern.rpartition("/")[2]:
                    found = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
                if found:
                    return found
        return []

    def named_once(self, files: Iterable[tuple[str, Path]], what: str) -> dict[str, Path]:
        """Files by name; a second one of a name is a problem, and left out."""
        found: dict[str, Path] = {}
        for name, path in files:
            if found.setdefault(name, path) != path:
                self.problems.append(f"{path}: {what} of {name}, as is {found[name]}; keep one of them")
        return found

    def pair(
        self, labels: Mapping[str, Path], media: Mapping[str, Path], expected: str
    ) -> Iterator[tuple[str, Path, Path | None]]:
        """Name, labels and video of every label file; a video without labels is a problem.

        `expected` says how its label file would be called, with `<video>` for its name.
        """
        for name in sorted(media.keys() - labels.keys()):
            wanted = expected.replace("<video>", name)
            self.problems.append(f"{media[name]}: no labels of {name}, expected {wanted}; not imported")
        for name, path in labels.items():
            yield name, path, media.get(name)

    @contextlib.contextmanager
    def naming_problems(self) -> Iterator[None]:
        """What is wrong inside the block becomes a problem of the reading; other videos go on."""
        try:
            yield
        except UserError as error:
            self.problems.append(str(error))

    def one_split(self, name: str, parts: Mapping[str, Sequence[str]]) -> None:
        """Note a list of one split that the release's folders or tables make."""
        self.splits[name] = [{part: list(videos) for part, videos in parts.items() if videos}]
