"""A data set that annotations become labels of: its phases, its videos and their frames' times, and what was handed out."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import list_videos, same_name, visible
from common.base.files import atomic_path, cached_fingerprint, read_text, write_text
from common.base.runtime import UserError, listed, progress
from common.dataset.annotations.annotated import Annotated, KnownPhases, media_name, phases_of
from common.dataset.annotations.tiling import Tiling, nearest_edges, tile
from common.dataset.description import features_owner, read_description, read_phases
from common.dataset.importing.writer import link_in_place
from common.dataset.label_forms import frame_names
from common.dataset.phases import BACKGROUND, UNLABELLED, PhaseMapping, read_mapping
from common.dataset.segments import Segments, find_segments
from common.video.decode import Decoding
from common.video.label_grid import LabelGrid
from common.video.timeline import Timeline, frame_edges

IGNORE = "ignore"  # in place of a phase: gaps are neither learned from nor scored
SAME_RATE = 1e-3  # by which rates may differ relatively: 29.97 is 30000/1001


@dataclass(frozen=True, eq=False)
class Found:
    """An annotation of a video that is at hand; the file's time begins at second `start` of it."""

    annotated: Annotated
    start: float


@dataclass(frozen=True, eq=False)
class Taken:
    """A video whose labels were taken: the annotation, its frames, and `state`, what was there before.

    `corrected` and `predicted` are the segments of both as ids (`predicted` None: nothing was handed out).
    """

    found: Found
    tiling: Tiling
    edges: np.ndarray
    state: str
    corrected: Segments
    predicted: Segments | None

    @property
    def is_unchanged(self) -> bool:
        return self.predicted is not None and list(self.predicted) == list(self.corrected)

    @property
    def seconds_filled(self) -> float:
        """Duration of the gaps that were filled."""
        return float(sum(self.edges[end] - self.edges[start] for start, end in self.tiling.gaps))


@dataclass(eq=False)
class LabelTarget:
    """The data set that is written to, the videos that are at hand, and the record of `common.prelabel`."""

    dataset: paths.Dataset
    mapping: PhaseMapping
    is_new: bool
    record: Mapping[str, Any]
    videos: dict[str, Path]
    gaps: str | None
    """`IGNORE` or a phase; None: the background."""
    snap_seconds: float
    left_out: tuple[str, ...] = ()
    accept_damaged: bool = False
    force: bool = False
    taken: dict[str, Taken] = field(default_factory=dict)

    @property
    def known(self) -> KnownPhases:
        return KnownPhases(self.mapping.names, self.left_out)

    @cached_property
    def owner(self) -> paths.Dataset:
        """The data set that has the videos and features."""
        return self.dataset if self.is_new else features_owner(self.dataset)

    def check(self) -> None:
        """Raise `UserError` for a way with gaps that the data set does not know."""
        for inner in (self.dataset.videos, self.dataset.ground_truth):
            if inner.is_symlink():  # what is written there would be written elsewhere
                raise UserError(f"{inner}: is itself a link; remove it and run this again, which makes a folder")
        if self.gaps not in (None, IGNORE) and self.gaps not in self.mapping.ids:
            raise UserError(f"--gaps {self.gaps}: expected {IGNORE}, or a phase: {listed(self.mapping.names)}")
        if self.gaps == IGNORE and not self.is_new and UNLABELLED not in self.mapping.ignored:
            raise UserError(
                f"--gaps {IGNORE}: {self.dataset.description} must say `ignored: [{UNLABELLED}]`, which is what gaps are then "
                "called; add it"
            )

    def add_videos(self, folder: Path) -> None:
        """Have the videos of a folder at hand, but those of a name that is there already."""
        there = {same_name(name) for name in self.videos}
        self.videos |= {name: path for name, path in list_videos(folder).first.items() if same_name(name) not in there}

    def add_linked(self, annotated: Annotated) -> None:
        """Have the video at hand that a file links to from where it lies."""
        for medium in annotated.media:
            linked, name = annotated.source.parent / medium, media_name(medium)
            is_known = same_name(name) in map(same_name, self.videos)
            if not is_known and linked != annotated.source and os.path.isfile(linked):
                self.videos[name] = linked.resolve()

    def tiling(self, video: str, found: Found, *, any_overlap: bool = False) -> tuple[Tiling, np.ndarray]:
        """The phases of an annotation on the frames of its video, and the times of these `(T + 1,)`."""
        intervals, edges = phases_of(found.annotated, self.known), self.edges(video)
        return tile(intervals, edges - found.start, snap_seconds=self.snap_seconds, any_overlap=any_overlap), edges

    def edges(self, video: str) -> np.ndarray:
        """Times of a video's frames and its end: of what was handed out, of features, else by decoding it."""
        path = self.videos[video]
        handed = self._handed_out(video)
        if handed is not None:
            return frame_edges(Timeline.from_json(handed["timeline"]).seconds)
        for features in visible(self.owner.root / "features", f"*/{glob.escape(video)}.npy"):
            if (timeline := _timeline_of(features, path)) is not None:
                return frame_edges(timeline.seconds)
        rate = None if self.is_new else read_description(self.dataset).frames_fps
        frames = Decoding(path, accept_damaged=self.accept_damaged, frames_fps=rate)
        return frame_edges(np.array([frame.seconds for frame in progress(frames, description=video, unit="frame")]))

    def _handed_out(self, video: str) -> dict[str, Any] | None:
        """What the record says of this very video."""
        handed = self.record.get("videos", {}).get(video)
        return handed if handed and handed["fingerprint"] == cached_fingerprint(self.videos[video]) else None

    def take(self, video: str, found: Found) -> None:
        """Write the labels of a video. Raises `UserError` for what is wrong with them, or with what is there already."""
        tiling, edges = self.tiling(video, found)
        labels = tiling.labels(self._gap(video, tiling))
        annotated, rate = found.annotated, (len(edges) - 1) / float(edges[-1] - edges[0])
        if annotated.fps is not None and abs(annotated.fps / rate - 1) > SAME_RATE:
            annotated.notes.append(
                f"{annotated.where}: says {annotated.fps:g} frames a second, {video} has {rate:.5g}; its times count"
            )
        if self.is_new:
            self._begin()
        self._link(video)
        self._bring_features(video)
        description = read_description(self.dataset)
        grid = LabelGrid(description.label_fps, description.label_every)
        state = self._write(video, [labels[frame] for frame in grid.frames(edges[:-1])])
        ids = {UNLABELLED: -1} | self.mapping.ids
        corrected = find_segments(np.array([ids[label] for label in labels]))
        predicted = self._predicted(video, annotated, edges)
        self.taken[video] = Taken(found, tiling, edges, state, corrected, predicted)

    def _gap(self, video: str, tiling: Tiling) -> str:
        """The label between segments."""
        if self.gaps is not None:
            return UNLABELLED if self.gaps == IGNORE else self.gaps
        if self.mapping.background is None and tiling.gaps:
            spans = listed([f"{start} to {end}" for start, end in tiling.gaps])
            raise UserError(
                f"{video}: frames {spans} have no phase, and the mapping has no background; add --gaps {IGNORE}, or --gaps NAME "
                "with a phase for them"
            )
        return self.mapping.background or UNLABELLED

    def _predicted(self, video: str, annotated: Annotated, edges: np.ndarray) -> Segments | None:
        """The segments that were handed out, as they come back from a tool that nobody touched."""
        handed = self._handed_out(video)
        if handed is None or not {phase for *_, phase in handed["segments"]} <= self.mapping.ids.keys():
            return None
        ids = np.empty(len(edges) - 1, dtype=np.int64)
        for start, end, phase in handed["segments"]:
            bounds = np.array([start, end])
            if annotated.is_in_frames:  # of a grid of one rate, which are not always those of the video
                bounds = nearest_edges(edges, np.round((edges[bounds] - edges[0]) * annotated.fps) / annotated.fps)
            ids[bounds[0] : bounds[1]] = self.mapping.ids[phase]
        return find_segments(ids)

    def _begin(self) -> None:
        """Write what a new data set needs besides labels."""
        import yaml

        keys: dict[str, Any] = {}
        if self.mapping.background != BACKGROUND and (self.mapping.background or BACKGROUND in self.mapping.names):
            keys["background"] = self.mapping.background
        if self.gaps == IGNORE:
            keys["ignored"] = [UNLABELLED]
        if keys and not self.dataset.description.exists():
            write_text(self.dataset.description, yaml.safe_dump(keys, allow_unicode=True))
        write_text(self.dataset.mapping, "".join(f"{index} {name}\n" for index, name in enumerate(self.mapping.names)))
        self.is_new = False

    def _link(self, video: str) -> None:
        """Have the video in the data set. Raises `UserError` where it has another one of this name."""
        source = self.videos[video]
        there = {same_name(name): path for name, path in list_videos(self.owner.videos).first.items()}
        own = there.get(same_name(video))
        if own is None and self.owner == self.dataset:
            link_in_place(self.dataset.videos / (source.name if source.is_file() else video), source)
        elif own is not None and not own.samefile(source) and cached_fingerprint(own) != cached_fingerprint(source):
            raise UserError(
                f"{own}: another video than {source}, which was annotated; choose another --output, or rename one"
            )

    def _bring_features(self, video: str) -> None:
        """Features that `common.prelabel` has made of this very video are those of the head's data set, unless it has its own."""
        if self.record.get("dataset") != self.dataset.name or self.owner != self.dataset:
            return
        for folder in self._features_made:
            made, own = folder / f"{video}.npy", self.owner.root / "features" / folder.name / f"{video}.npy"
            if own.parent.is_dir() and not own.exists() and _timeline_of(made, self.videos[video]) is not None:
                for suffix in (".npy", ".json"):  # in this order: features are finished with their sidecar
                    with atomic_path(own.with_suffix(suffix)) as temporary:
                        shutil.copyfile(made.with_suffix(suffix), temporary)

    @cached_property
    def _features_made(self) -> list[Path]:
        return [folder for model in paths.all_models() for folder in model.unlabelled_features(self.dataset.name)]

    @cached_property
    def _label_files(self) -> dict[str, Path]:
        parts = (self.dataset.ground_truth, self.dataset.ground_truth_val)
        return {same_name(name): path for part in parts for name, path in paths.label_paths(part).items()}

    def _write(self, video: str, labels: list[str]) -> str:
        """Write the label file; what was there before in words. Raises `UserError` where it differs, unless `force`."""
        path = self._label_files.get(same_name(video))
        if path is not None and _names_in(path) == labels:
            return "as before"
        if path is not None and not self.force:
            raise UserError(
                f"{path}: labels of {video} are there, and differ from the annotation; --force replaces them"
            )
        write_text(path or self.dataset.ground_truth / f"{video}.txt", "\n".join([*labels, ""]))
        return "new" if path is None else "replaced"


def phases_of_target(
    dataset: paths.Dataset, mapping_file: Path | None, folder: Path, record: Mapping[str, Any]
) -> tuple[PhaseMapping, bool]:
    """The phases of the data set, and whether it is to be made: by `mapping_file`, the record, or a mapping in `folder`.

    Raises `UserError` where the data set is there with other phases than `mapping_file`.
    """
    wanted = read_mapping(mapping_file) if mapping_file else None
    if dataset.mapping.is_file():
        mapping = read_phases(dataset)
        if wanted is not None and wanted.names != mapping.names:
            raise UserError(
                f"{mapping_file}: other phases than {dataset.mapping}, where the labels go; choose another --output"
            )
        return mapping, False
    if wanted is not None:
        return wanted, True
    if record:
        return PhaseMapping(tuple(record["phases"]), record.get("background")), True
    own = paths.Dataset(folder).mapping
    return read_mapping(own if own.is_file() else paths.default_mapping()), True


def _timeline_of(features: Path, video: Path) -> Timeline | None:
    """The timeline of features that were made of this very video; None of others, and of damaged ones."""
    from common.features.files import open_features, video_change

    try:
        opened = open_features(features)
        is_same = opened.sidecar is not None and video_change(opened.sidecar, video) is None
    except (UserError, OSError):
        return None
    return opened.timeline if is_same else None


def _names_in(path: Path) -> list[str] | None:
    """The names in a label file as they stand there; None where it is damaged."""
    try:
        return list(frame_names(path, read_text(path), [])[0])
    except UserError:
        return None
