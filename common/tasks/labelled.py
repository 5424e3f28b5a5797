"""The two kinds of labels that a probe learns: frames with several classes, clips with one; as examples and as answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from common.base import paths
from common.base.files import atomic_path, write_text
from common.base.runtime import UserError, listed
from common.dataset.tables import csv_line
from common.dataset.task_labels import ClipTable, FrameLabels, PresenceTable, TaskClip
from common.tasks.inputs import OpenedFeatures, frames_reached, rows_of_clips, rows_of_frames, video_of
from common.tasks.logistic import Examples, Probe
from common.tasks.scores import Answers, Scores, score_clips, score_presence


class ProbedTask(Protocol):
    """What a probe needs of a kind of labels; splits are lists of `units`."""

    classes: tuple[str, ...]
    groups: Mapping[str, str]
    noun: str

    def files_of(self, units: Sequence[str]) -> list[str]:
        """The videos whose features are needed."""

    def examples(self, units: Sequence[str], features: OpenedFeatures, most: int) -> Examples:
        """What is learned from, about `most` rows of it."""

    def answers(
        self, probe: Probe, units: Sequence[str], features: OpenedFeatures, shares: np.ndarray, folder: Path
    ) -> Answers:
        """What a probe says, which is written to `folder` too; `shares` of the classes in training."""

    def score(self, splits: Sequence[Answers], *, with_intervals: bool = True) -> Scores:
        """Measures of the answers to all splits."""


@dataclass(frozen=True, eq=False)
class FramesTask:
    """Frames of videos, each with several classes; `groups` are the patients of videos where these are known."""

    table: PresenceTable
    groups: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.table.classes

    @property
    def noun(self) -> str:
        return "patients" if self.groups else "videos"

    def files_of(self, units: Sequence[str]) -> list[str]:
        return list(units)

    def _reached(self, units: Sequence[str], features: OpenedFeatures) -> dict[str, FrameLabels]:
        return frames_reached({video: self.table.videos[video] for video in units}, features, self.table.path)

    def examples(self, units: Sequence[str], features: OpenedFeatures, most: int) -> Examples:
        """Every n-th frame of each set of classes: neighbours say nearly the same, and a rare set keeps one frame at least.

        Raises `UserError` where no frame has a label.
        """
        reached = self._reached(units, features)
        names = np.repeat(list(reached), [len(labels.frames) for labels in reached.values()])
        present = np.concatenate([labels.present for labels in reached.values()])
        if np.isnan(present).all():
            raise UserError(
                f"{self.table.path}: expected labels of what is learned from, found none in {listed(list(units))}; label some "
                "frames, or choose another list"
            )
        step = max(1, -(-len(present) // most))
        _, kinds = np.unique(np.nan_to_num(present, nan=2.0), axis=0, return_inverse=True)
        chosen = np.zeros(len(present), dtype=bool)
        for kind in range(int(kinds.max()) + 1):
            chosen[np.flatnonzero(kinds.ravel() == kind)[::step]] = True
        rows = []
        for video, labels in reached.items():
            rows.append(rows_of_frames(features[video], labels.frames[chosen[names == video]]))
        return Examples(np.concatenate(rows), present[chosen], names[chosen])

    def answers(
        self, probe: Probe, units: Sequence[str], features: OpenedFeatures, shares: np.ndarray, folder: Path
    ) -> Answers:
        """Logits of each video's labelled frames, `<video>.npy` `(n, num_classes)` float32."""
        reached = self._reached(units, features)
        logits = []
        for video, labels in reached.items():
            logits.append(probe.logits(rows_of_frames(features[video], labels.frames)).astype(np.float32))
            with atomic_path(folder / f"{video}.npy") as temporary:
                np.save(temporary, logits[-1])
        names = np.repeat(list(reached), [len(labels.frames) for labels in reached.values()])
        truth = np.concatenate([labels.present for labels in reached.values()])
        return Answers(truth, np.concatenate(logits).astype(float), names, shares)

    def score(self, splits: Sequence[Answers], *, with_intervals: bool = True) -> Scores:
        return score_presence(splits, self.groups, with_intervals=with_intervals)


@dataclass(frozen=True, eq=False)
class ClipsTask:
    """Clips, each of one class; a unit is a group of clips, or a clip that has none, or with `by_clip` every clip."""

    table: ClipTable
    by_clip: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.table.classes

    @property
    def groups(self) -> Mapping[str, str]:
        return self.table.groups

    @property
    def noun(self) -> str:
        return "groups" if self.groups else "clips"

    def _clips(self, units: Sequence[str]) -> list[TaskClip]:
        wanted = set(units)
        clips = self.table.clips.items()
        return [clip for name, clip in clips if (name if self.by_clip else clip.group or name) in wanted]

    def files_of(self, units: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(video_of(clip) for clip in self._clips(units)))

    def examples(self, units: Sequence[str], features: OpenedFeatures, most: int) -> Examples:
        clips = self._clips(units)
        return Examples(rows_of_clips(clips, features), self._targets(clips), np.array([clip.name for clip in clips]))

    def _targets(self, clips: Sequence[TaskClip]) -> np.ndarray:
        ids = {name: place for place, name in enumerate(self.classes)}
        return np.array([ids[clip.label] for clip in clips])

    def answers(
        self, probe: Probe, units: Sequence[str], features: OpenedFeatures, shares: np.ndarray, folder: Path
    ) -> Answers:
        """Probabilities of each clip, `predictions.csv`."""
        clips = self._clips(units)
        logits = probe.logits(rows_of_clips(clips, features)).astype(np.float32).astype(float)
        answers = Answers(self._targets(clips), logits, np.array([clip.name for clip in clips]), shares)
        lines = [csv_line(("clip", "label", "answer", *self.classes))]
        for clip, likely in zip(clips, answers.probabilities, strict=True):
            answer = self.classes[int(likely.argmax())]
            lines.append(csv_line((clip.name, clip.label, answer, *(f"{share:.6f}" for share in likely))))
        write_text(folder / paths.TASK_PREDICTIONS, "".join(lines))
        return answers

    def score(self, splits: Sequence[Answers], *, with_intervals: bool = True) -> Scores:
        return score_clips(splits, self.groups, with_intervals=with_intervals)
