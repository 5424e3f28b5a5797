"""A release whose labels are not phases: what is known of it, and the content of the data set that its reader makes.

A reader is a module of `common/dataset/releases/` with `TASK_RELEASES`; its function gets a `Reading` and returns a `TaskContent`,
whatever the task: tables as text, links to what the release has, files that are made when they are written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.base.runtime import UserError, listed, shown
from common.dataset.description import Task
from common.dataset.importing.release import Phases, Reading, letters
from common.dataset.tables import csv_line

FramesOfVideo = Mapping[int, Sequence[int | None]]
"""Labels of a video by decoded frame: 0, 1 or None (unlabelled) of each class."""


@dataclass
class TaskContent:
    """What a data set of a task holds, by place in it (`labels.csv`, `videos/a.mp4`, `masks/case_1/0001.png`)."""

    texts: dict[str, str] = field(default_factory=dict)
    """Text files: tables of labels, `mapping.txt`."""
    links: dict[str, Path] = field(default_factory=dict)
    """Files and folders of the release, each in the place of a link to it."""
    made: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    """Files that the release has in another form, such as masks: what returns the bytes of each, and may raise `UserError`."""
    units: dict[str, str | None] = field(default_factory=dict)
    """What split lists name (videos, groups), each with its patient where that is known."""
    description: dict[str, object] = field(default_factory=dict)
    """Further keys of `dataset.yaml`."""
    rows: list[list[str]] = field(default_factory=list)
    """A table for the summary, its head first: how much there is of each class."""


@dataclass(frozen=True)
class TaskRelease:
    """What is known of such a release beforehand; what it shares with a `Release` has the same names."""

    title: str
    """Its name, and that of the data set that is made of it."""
    task: Task
    read: Callable[[Reading], TaskContent]
    licence: str
    source: str
    ask: str
    num_videos: int
    tried: str
    parts: tuple[str, ...] = ()
    """Which tasks or lists it has of which one is imported; named by `part_flag`."""
    part_flag: str | None = None
    """The flag that says which (`--task`, `--set`); None: it has one."""
    features_of: str | None = None
    """The data set of phases that has the same videos: its features are used where it is there."""
    frames_fps: float | None = None
    lists: str | None = None
    notes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    public_set: str | None = None
    phases: Phases = field(default=Phases(()))
    """Its classes, where they are known beforehand; a reader finds a class by any spelling."""
    steps: None = None

    def chosen_part(self, given: Mapping[str, str | None]) -> str | None:
        """Which of its parts is meant by the flags of the command, by name of the flag.

        Raises `UserError` for a flag that another release has, for none where one is needed, and for a part that there is not.
        """
        for flag, value in given.items():
            if value is not None and flag != self.part_flag:
                raise UserError(f"{flag}: {self.title} has no such choice; leave it out")
        if self.part_flag is None:
            return None
        value, there = given.get(self.part_flag), listed(self.parts, len(self.parts))
        if value is None:
            if self.parts:
                raise UserError(f"{self.part_flag}: expected one of {there} for {self.title}, found none")
            return None
        by_letters = {letters(part): part for part in self.parts}
        if self.parts and letters(value) not in by_letters:
            raise UserError(f"{self.part_flag} {value}: {self.title} has {there}; name one of them")
        return by_letters.get(letters(value), value)


def presence_content(classes: Sequence[str], labels: Mapping[str, FramesOfVideo]) -> TaskContent:
    """Text of `labels.csv`, units and summary of a multilabel set: of each video its frames, each with a label of every class."""
    content = TaskContent(units=dict.fromkeys(labels))
    lines = [csv_line(("video", "frame", *classes))]
    positives, labelled = [0] * len(classes), [0] * len(classes)
    for video, frames in labels.items():
        start = csv_line((video,)).rstrip("\n")
        for frame, present in sorted(frames.items()):
            lines.append(f"{start},{frame},{','.join('' if value is None else str(value) for value in present)}\n")
            for place, value in enumerate(present):
                positives[place] += value == 1
                labelled[place] += value is not None
    content.texts["labels.csv"] = "".join(lines)
    content.rows = share_rows(classes, positives, labelled, "frames")
    return content


def read_present(text: str, column: str, where: str) -> int:
    """A label that must be 0 or 1. Raises `UserError` that begins with `where`."""
    if text not in ("0", "1"):
        raise UserError(f"{where}: {column}: expected 0 or 1, found {shown(text)}")
    return int(text)


def share_rows(classes: Sequence[str], positives: Sequence[int], labelled: Sequence[int], noun: str) -> list[list[str]]:
    """A table of classes for the summary: how many of the labelled have each, and which share that is."""
    return [
        ["", noun, "labelled", "%"],
        *(
            [name, f"{count:,}", f"{total:,}", f"{100 * count / total:.2f}" if total else "n/a"]
            for name, count, total in zip(classes, positives, labelled, strict=True)
        ),
    ]
