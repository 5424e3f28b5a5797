"""Annotations of a person as labels of a data set: ELAN, BORIS, VIA 3, Label Studio, tables, WebVTT.

    python data/import_dataset.py annotations theatre_elan                              # what common.prelabel handed out
    python data/import_dataset.py annotations FOLDER --output mine --videos theatre     # anyone's own annotation
    python data/import_dataset.py annotations export.json --format labelstudio --fps 25

Each time becomes the nearest frame start by the video's own timestamps. Labels that are there and differ are kept unless
--force. Videos with something wrong are left out and listed at the end with file and place (exit code 1).
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.entries import list_videos, same_name, visible
from common.base.files import cached_fingerprint, read_text, write_text
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, counted, listed, progress, shown
from common.base.wording import format_table
from common.dataset.annotations.annotated import Annotated, KnownPhases, known_media, phases_of
from common.dataset.annotations.known_formats import (
    FORMATS,
    annotation_files,
    annotation_format,
    read_annotations,
    spellings_of,
)
from common.dataset.annotations.prelabelled import mark_done, read_prelabel_record
from common.dataset.annotations.tiling import SNAP_SECONDS, Tiling, tile
from common.dataset.description import read_description, read_phases
from common.dataset.importing.writer import link_in_place
from common.dataset.phases import UNLABELLED, PhaseMapping, read_mapping
from common.video.label_grid import LabelGrid

if TYPE_CHECKING:
    import numpy as np

IGNORE = "ignore"
SAME_RATE = 1e-3  # by which rates may differ relatively: 29.97 is 30000/1001
OPERATIONS = ("move", "insert", "delete", "relabel")


def import_annotations(argv: Sequence[str]) -> int:
    """Import, and print what came back; returns 1 when something is wrong with a file or a video, else 0."""
    given = _parser().parse_args(argv)
    place = given.place.resolve()
    files = annotation_files(place)
    folder = place if place.is_dir() else place.parent
    record = read_prelabel_record(given.prelabelled or folder)
    target = _Target.opened(given, folder, record)
    gathered = _gathered(files, given, target)
    for video, those in progress(sorted(gathered.by_video.items()), description="import", unit="video"):
        try:
            target.take(video, gathered.chosen(video, those, given.annotator, target))
        except UserError as error:
            gathered.problems.append(str(error))
    target.finish(folder)
    _print_summary(target, gathered)
    return 1 if gathered.problems else 0


def _parser() -> CommandParser:
    parser = CommandParser(None, __doc__)
    parser.prog = f"{Path(parser.prog).name} annotations"
    data, output = parser.groups["data"].add_argument, parser.groups["output"].add_argument
    data("place", type=Path, metavar="FOLDER", help="folder of annotation files, or one of them")
    data("--format", choices=FORMATS, help="format of all files (default: of each by its content)")
    data(
        "--videos",
        type=Path,
        metavar="DIR",
        help="folder of the videos (default: where the files link to, FOLDER, and the data set's own)",
    )
    data("--accept_damaged", action="store_true", help="take videos that lack frames or do not decode throughout")
    data(
        "--annotator",
        metavar="NAME",
        help="whose annotation to take where there are several: tier, subject, person or file",
    )
    data(
        "--snap",
        type=float,
        action=Positive,
        default=SNAP_SECONDS,
        metavar="SECONDS",
        help="gaps and overlaps up to this are closed at their middle (default: %(default)s s)",
    )
    data(
        "--gaps",
        metavar="ignore|NAME",
        help="larger gaps: not to be learned from nor scored, or this phase (default: the background, where there is one)",
    )
    data("--leave_out", nargs="+", default=[], metavar="NAME", help="names in the files that are no phases")
    data("--fps", type=float, action=Positive, help="Label Studio: frames a second of exports that do not say it")
    data("--predictions", action="store_true", help="Label Studio: take predictions where nobody has annotated")
    data(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="mapping.txt of a new data set (default: of FOLDER, else the 19 phases)",
    )
    data("--prelabelled", type=Path, metavar="DIR", help="folder that common.prelabel wrote (default: FOLDER)")
    output(
        "--output",
        metavar="NAME",
        help="data set under data/ (default: that of the head that predicted, else FOLDER's name)",
    )
    output("--force", action="store_true", help="replace labels that are there and differ")
    return parser


@dataclass(frozen=True, eq=False)
class _Found:
    """An annotation of a video that is at hand; the file's time begins at second `start` of it."""

    annotated: Annotated
    start: float


@dataclass(eq=False)
class _Gathered:
    """All annotations by video, and what is wrong."""

    by_video: dict[str, list[_Found]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def chosen(self, video: str, those: list[_Found], wanted: str | None, target: _Target) -> _Found:
        """The annotation to take. Raises `UserError` where there are several and none is chosen, after saying how they agree."""
        names = [found.annotated.annotator for found in those]
        if len(set(names)) < len(names):  # one name in several files: then these tell
            names = [found.annotated.source.name.partition(".")[0] for found in those]
        if wanted is not None:
            matching = [found for name, found in zip(names, those, strict=True) if name == wanted]
            if len(matching) == 1:
                return matching[0]
            raise UserError(
                f"{those[0].annotated.where}: no annotation of {video} by {shown(wanted)}; there are {listed(names)}"
            )
        if len(those) == 1:
            return those[0]
        _print_agreement(video, dict(zip(names, those, strict=True)), target)
        raise UserError(
            f"{those[0].annotated.where}: {video} is annotated {len(those)} times, by {listed(names)}; choose one with "
            "--annotator NAME"
        )


def _gathered(files: Sequence[Path], given: argparse.Namespace, target: _Target) -> _Gathered:
    """What all files say, by video; a file or an annotation with something wrong is a problem, the others go on."""
    gathered = _Gathered()
    for path in progress(files, description="read", unit="file"):
        try:
            kind = given.format or annotation_format(path)
            if kind is None:
                gathered.left_out.append(path.name)
                continue
            for annotated in read_annotations(path, target.known, kind, fps=given.fps, predictions=given.predictions):
                target.add_linked(annotated)
                try:
                    video, start = known_media(
                        annotated, target.videos, lambda medium, kind=kind: spellings_of(medium, kind)
                    )
                    gathered.by_video[video].append(_Found(annotated, start))
                except UserError as error:
                    gathered.problems.append(str(error))
        except UserError as error:
            gathered.problems.append(str(error))
    if not gathered.by_video and not gathered.problems:
        raise UserError(
            f"{given.place}: no annotation in {listed(gathered.left_out)}; name --format, or another folder"
        )
    return gathered


@dataclass(frozen=True, eq=False)
class _Taken:
    """A video whose labels were taken: how, and the predicted segments that had been handed out (None: none)."""

    found: _Found
    tiling: Tiling
    edges: np.ndarray
    state: str
    predicted: list[tuple[int, int, str]] | None

    @property
    def is_unchanged(self) -> bool:
        return self.predicted is not None and list(self.tiling.segments) == self.predicted


@dataclass(eq=False)
class _Target:
    """The data set that is written to, the videos that are at hand, and what was handed out."""

    dataset: paths.Dataset
    mapping: PhaseMapping
    given: argparse.Namespace
    record: Mapping[str, Any] | None
    videos: dict[str, Path]
    taken: dict[str, _Taken] = field(default_factory=dict)
    is_new: bool = False

    @classmethod
    def opened(cls, given: argparse.Namespace, folder: Path, record: Mapping[str, Any] | None) -> _Target:
        """The data set by name, its phases, and every video that may be meant. Raises `UserError` for phases that differ."""
        name = given.output or (record or {}).get("dataset") or folder.name
        root = paths.repository_root()
        dataset = paths.Dataset(root / "data" / name if len(Path(name).parts) == 1 else root / name)
        paths.require_name("data set", dataset.name)
        for inner in (dataset.videos, dataset.ground_truth):
            if inner.is_symlink():  # what is written there would be written elsewhere
                raise UserError(f"{inner}: is itself a link; remove it and run this again, which makes a folder")
        mapping, is_new = _mapping_of(dataset, given, folder, record)
        if given.gaps not in (None, IGNORE) and given.gaps not in mapping.ids:
            raise UserError(f"--gaps {given.gaps}: expected ignore, or a phase: {listed(mapping.names)}")
        if given.gaps == IGNORE and not is_new and UNLABELLED not in mapping.ignored:
            raise UserError(
                f"--gaps ignore: {dataset.description} must say `ignored: [{UNLABELLED}]`, which is what gaps are called; add it"
            )
        handed = (record or {}).get("videos_folder")
        folders = [given.videos, (given.prelabelled or folder) / handed if handed else None, folder, dataset.videos]
        if given.videos is not None and not given.videos.is_dir():
            raise UserError(f"{given.videos}: no such folder; expected the videos that are annotated")
        videos: dict[str, Path] = {}
        for place in filter(None, folders):
            # what else lies there is no video's business; two files of one name are, where they are of this set alone
            there = {same_name(name) for name in videos}
            videos |= {n: p for n, p in list_videos(place).first.items() if same_name(n) not in there}
        return cls(dataset, mapping, given, record, videos, is_new=is_new)

    @property
    def known(self) -> KnownPhases:
        return KnownPhases(self.mapping.names, self.given.leave_out)

    def add_linked(self, annotated: Annotated) -> None:
        """Have the video at hand that a file links to from where it lies."""
        from common.dataset.annotations.annotated import media_name

        for medium in annotated.media:
            linked = annotated.source.parent / medium
            name = media_name(medium)
            is_known = same_name(name) in map(same_name, self.videos)
            if not is_known and linked != annotated.source and os.path.isfile(linked):
                self.videos[name] = linked.resolve()

    def tiling(self, video: str, found: _Found) -> tuple[Tiling, np.ndarray]:
        """The phases of an annotation on the frames of its video, and the times of these."""
        edges = self.edges(video)
        return tile(phases_of(found.annotated, self.known), edges - found.start, snap_seconds=self.given.snap), edges

    def edges(self, video: str) -> np.ndarray:
        """Times of a video's frames and its end: of what was handed out, of features, else by decoding it."""
        import numpy as np

        from common.video.decode import Decoding
        from common.video.timeline import Timeline, frame_edges

        path = self.videos[video]
        handed = (self.record or {}).get("videos", {}).get(video)
        if handed is not None and handed["fingerprint"] == cached_fingerprint(path):
            return frame_edges(Timeline.from_json(handed["timeline"]).seconds)
        for features in visible(self.dataset.root / "features", f"*/{video}.npy"):
            if (timeline := _timeline_of(features, path)) is not None:
                return frame_edges(timeline.seconds)
        frames = progress(
            Decoding(path, accept_damaged=self.given.accept_damaged, frames_fps=self.frames_fps),
            description=video,
            unit="frame",
        )
        return frame_edges(np.array([frame.seconds for frame in frames]))

    @cached_property
    def frames_fps(self) -> float | None:
        return read_description(self.dataset).frames_fps

    def take(self, video: str, found: _Found) -> None:
        """Write the labels of a video. Raises `UserError` for what is wrong with them, or with what is there already."""
        tiling, edges = self.tiling(video, found)
        labels = tiling.labels(self._gap(video, tiling))
        if found.annotated.fps is not None:
            rate = (len(edges) - 1) / float(edges[-1] - edges[0])
            if abs(found.annotated.fps / rate - 1) > SAME_RATE:
                found.annotated.notes.append(
                    f"{found.annotated.where}: says {found.annotated.fps:g} frames a second, {video} has {rate:.5g}; times count"
                )
        description = read_description(self.dataset)
        grid = LabelGrid(description.label_fps, description.label_every)
        chosen = [labels[frame] for frame in grid.frames(edges[:-1])]
        state = self._write(video, chosen)
        handed = (self.record or {}).get("videos", {}).get(video)
        predicted = [tuple(segment) for segment in handed["segments"]] if handed else None
        self.taken[video] = _Taken(found, tiling, edges, state, predicted)

    def _gap(self, video: str, tiling: Tiling) -> str:
        """The label between segments."""
        if self.given.gaps is not None:
            return UNLABELLED if self.given.gaps == IGNORE else self.given.gaps
        if self.mapping.background is None and tiling.gaps:
            spans = listed([f"{start} to {end}" for start, end in tiling.gaps])
            raise UserError(
                f"{video}: frames {spans} have no phase, and the mapping has no background; add --gaps ignore, or --gaps NAME "
                "with a phase for them"
            )
        return self.mapping.background or UNLABELLED

    def _write(self, video: str, labels: list[str]) -> str:
        """Write the label file and link the video; what was there in words."""
        text = "\n".join([*labels, ""])
        there = {
            same_name(name): path
            for part in (self.dataset.ground_truth, self.dataset.ground_truth_val)
            for name, path in paths.label_paths(part).items()
        }
        path = there.get(same_name(video), self.dataset.ground_truth / f"{video}.txt")
        state = "new"
        if path.exists():
            is_equal = _names_in(path) == labels
            if not is_equal and not self.given.force:
                raise UserError(
                    f"{path}: labels of {video} are there and differ from {self.videos[video].name}'s annotation; --force replaces them"
                )
            state = "as before" if is_equal else "replaced"
        if state != "as before":
            write_text(path, text)
        if self.is_new:
            self._begin()
        if (
            same_name(video) not in map(same_name, paths.find_videos(self.dataset.videos))
            and read_description(self.dataset).features_of is None
        ):
            source = self.videos[video]
            link_in_place(self.dataset.videos / (source.name if source.is_file() else video), source)
        return state

    def _begin(self) -> None:
        """Write what a new data set needs besides labels."""
        self.is_new = False
        write_text(self.dataset.mapping, "".join(f"{index} {name}\n" for index, name in enumerate(self.mapping.names)))
        if self.given.gaps == IGNORE and not self.dataset.description.exists():
            write_text(self.dataset.description, f"ignored: [{UNLABELLED}]\n")

    def finish(self, folder: Path) -> None:
        """Note in the list of what waits which videos are done."""
        mark_done(paths.todo_list(self.given.prelabelled or folder), self.taken.keys())


def _mapping_of(
    dataset: paths.Dataset, given: argparse.Namespace, folder: Path, record: Mapping[str, Any] | None
) -> tuple[PhaseMapping, bool]:
    """The phases of the data set, and whether it is to be made. Raises `UserError` where --mapping says others."""
    wanted = read_mapping(given.mapping) if given.mapping else None
    if dataset.mapping.is_file():
        mapping = read_phases(dataset)
        if wanted is not None and wanted.names != mapping.names:
            raise UserError(
                f"{given.mapping}: other phases than {dataset.mapping}, where the labels go; choose another --output"
            )
        return mapping, False
    if wanted is None and record is not None:
        wanted = PhaseMapping(tuple(record["phases"]), record.get("background"))
    if wanted is None:
        own = paths.Dataset(folder).mapping
        wanted = read_mapping(own if own.is_file() else paths.default_mapping())
    return wanted, True


def _timeline_of(features: Path, video: Path):
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
    from common.dataset.label_forms import frame_names

    try:
        return list(frame_names(path, read_text(path), [])[0])
    except UserError:
        return None


def _print_agreement(video: str, those: Mapping[str, _Found], target: _Target) -> None:
    """A row for each pair of annotators: accuracy, kappa, how far boundaries lie apart."""
    import numpy as np

    from common.scoring.agreement import rater_agreement

    ids, edges = {}, None
    for name, found in those.items():
        try:
            tiling, edges = target.tiling(video, found)
        except UserError as error:
            print(f"{video}: {name} is left out of the comparison: {error}")
            continue
        known = {phase: index for index, phase in enumerate([*target.mapping.names, UNLABELLED])}
        ids[name] = np.array([known[label] for label in tiling.labels(target.mapping.background or UNLABELLED)])
    rows = [[f"{video}: agreement", "accuracy", "kappa", "boundaries apart"]]
    for one, other in itertools.combinations(ids, 2):
        found = rater_agreement(ids[one], ids[other], target.mapping.num_classes + 1, edges)
        values = [f"{100 * found.accuracy:.1f} %", f"{found.kappa:.3f}", f"{found.boundary_seconds:.2f} s"]
        rows.append([f"{one} and {other}", *values])
    if len(rows) > 1:
        print(format_table(rows))


def _print_summary(target: _Target, gathered: _Gathered) -> None:
    """What was taken and closed, what the person changed, what is unchanged, notes and problems."""
    taken = target.taken
    print(f"{target.dataset.root}: labels of {counted(len(taken), 'video')}")
    if taken:
        rows = [["", "segments", "gaps closed", "overlaps closed", "filled (s)", "labels", "at work (s)"]]
        for name, one in taken.items():
            filled = sum(float(one.edges[end] - one.edges[start]) for start, end in one.tiling.gaps)
            work = one.found.annotated.work_seconds
            tiling = one.tiling
            counts = [len(tiling.segments), tiling.num_closed_gaps, tiling.num_closed_overlaps]
            rows.append(
                [name, *map(str, counts), f"{filled:.1f}", one.state, f"{work:.0f}" if work is not None else "-"]
            )
        print(format_table(rows))
    unchanged = [name for name, one in taken.items() if one.is_unchanged]
    if unchanged:
        print(f"came back unchanged: {listed(unchanged)}")
    if gathered.left_out:
        print(f"left out, no annotations: {listed(gathered.left_out)}")
    for note in [note for one in taken.values() for note in (*one.found.annotated.notes, *one.tiling.notes)]:
        print(f"note: {note}")
    if gathered.problems:
        print(f"\nproblems ({len(gathered.problems)}):", *gathered.problems, sep="\n  ")
