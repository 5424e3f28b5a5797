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
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from label_target import Found, LabelTarget, phases_of_target

from common.base import paths
from common.base.options import CommandParser, NotNegative, Positive
from common.base.runtime import UserError, counted, listed, progress, shown
from common.base.wording import format_table
from common.dataset.annotations.annotated import known_media
from common.dataset.annotations.known_formats import (
    FORMATS,
    annotation_files,
    annotation_format,
    read_annotations,
    spellings_of,
)
from common.dataset.annotations.prelabelled import mark_done, read_prelabel_record
from common.dataset.annotations.tiling import SNAP_SECONDS
from common.dataset.phases import UNLABELLED, read_mapping

log = logging.getLogger(__name__)


def import_annotations(argv: Sequence[str]) -> int:
    """Import, and print what came back; returns 1 when something is wrong with a file or a video, else 0."""
    given = _parser().parse_args(argv)
    place = given.place.resolve()
    files = annotation_files(place)
    folder = place if place.is_dir() else place.parent
    target = _target(given, folder)
    gathered = _gathered(files, given, target)
    for video, those in progress(sorted(gathered.by_video.items()), description="import", unit="video"):
        try:
            target.take(video, gathered.chosen(video, those, given.annotator, target))
        except UserError as error:
            gathered.problems.append(str(error))
    todo = paths.todo_list(given.prelabelled or folder)
    try:
        mark_done(todo, target.taken.keys())
    except (UserError, OSError) as error:  # the labels are written, whatever somebody has made of this list
        gathered.problems.append(f"{todo}: what is done was not noted ({error})")
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
        action=NotNegative,
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


def _target(given: argparse.Namespace, folder: Path) -> LabelTarget:
    """The data set that is asked for, with all videos that may be meant. Raises `UserError` for what cannot be."""
    if given.videos is not None and not given.videos.is_dir():
        raise UserError(f"{given.videos}: no such folder; expected the videos that are annotated")
    handed_out = given.prelabelled or folder
    record = read_prelabel_record(handed_out) or {}
    name, root = given.output or record.get("dataset") or folder.name, paths.repository_root()
    dataset = paths.Dataset(root / "data" / name if len(Path(name).parts) == 1 else root / name)
    paths.require_name("data set", dataset.name)
    mapping, is_new = phases_of_target(dataset, given.mapping, folder, record)
    target = LabelTarget(
        dataset,
        mapping,
        is_new,
        record,
        {},
        given.gaps,
        given.snap,
        tuple(given.leave_out),
        given.accept_damaged,
        given.force,
    )
    target.check()
    linked = record.get("videos_folder")
    for place in (given.videos, linked and handed_out / linked, folder, target.owner.videos):
        if place is not None:
            target.add_videos(place)
    return target


@dataclass(eq=False)
class _Gathered:
    """All annotations by video, and what is wrong."""

    by_video: dict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def chosen(self, video: str, those: list[Found], wanted: str | None, target: LabelTarget) -> Found:
        """The annotation to take. Raises `UserError` where there are several and none is chosen, after saying how they agree."""
        names = [found.annotated.annotator for found in those]
        if len(set(names)) < len(names):  # one name in several files: then these tell
            names = [found.annotated.source.name.rpartition(".")[0] for found in those]
        if len(set(names)) < len(names):  # one file has them all: twice by one person, or in two observations
            names = [f"{name} #{number}" for number, name in enumerate(names, 1)]
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


def _gathered(files: Sequence[Path], given: argparse.Namespace, target: LabelTarget) -> _Gathered:
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
                    gathered.by_video[video].append(Found(annotated, start))
                except UserError as error:
                    gathered.problems.append(str(error))
        except UserError as error:
            gathered.problems.append(str(error))
    if not gathered.by_video and not gathered.problems:
        raise UserError(
            f"{given.place}: no annotation in {listed(gathered.left_out)}; name --format, or another folder"
        )
    return gathered


def _print_agreement(video: str, those: Mapping[str, Found], target: LabelTarget) -> None:
    """A row for each pair of annotators: accuracy, kappa, how far boundaries lie apart."""
    import numpy as np

    from common.scoring.agreement import rater_agreement

    ids, edges = {}, None
    for name, found in those.items():
        try:
            # an overlap that keeps it from being taken does not keep it from being compared
            tiling, edges = target.tiling(video, found, any_overlap=True)
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


def _print_summary(target: LabelTarget, gathered: _Gathered) -> None:
    """What was taken and closed, what the person changed, what came back unchanged, notes and problems."""
    taken = target.taken
    print(f"{target.dataset.root}: labels of {counted(len(taken), 'video')}")
    if taken:
        rows = [["", "segments", "gaps closed", "overlaps closed", "gaps filled", "labels"]]
        for name, one in taken.items():
            tiling = one.tiling
            counts = [len(tiling.segments), tiling.num_closed_gaps, tiling.num_closed_overlaps]
            rows.append([name, *map(str, counts), f"{one.seconds_filled:.1f} s", one.state])
        print(format_table(rows))
    _print_changes(target)
    if left_out := [name for name in gathered.left_out if name != target.dataset.mapping.name]:
        print(f"left out, no annotations: {listed(left_out)}")
    for note in [note for one in taken.values() for note in (*one.found.annotated.notes, *one.tiling.notes)]:
        print(f"note: {note}")
    if gathered.problems:
        print(f"\nproblems ({len(gathered.problems)}):", *gathered.problems, sep="\n  ")
        if target.is_new and target.mapping.names == read_mapping(paths.default_mapping()).names:
            print(
                f"the phases are the {len(target.mapping.names)} of mapping.txt in the repository: put a mapping.txt of yours (lines "
                "`ID NAME`,\nnames without blanks) beside the annotations, or name it with --mapping FILE"
            )


def _print_changes(target: LabelTarget) -> None:
    """What a person did to the predictions that were handed out, and the time that their tool measured."""
    from common.scoring.effort import DEFAULT_EFFORT, OPERATIONS, correction_effort

    handed_out = {name: one for name, one in target.taken.items() if one.predicted is not None}
    changed = {name: one for name, one in handed_out.items() if not one.is_unchanged}
    if changed:
        rows = [["corrected", "segments handed out", *OPERATIONS]]
        for name, one in changed.items():
            counts = correction_effort(one.predicted, one.corrected, DEFAULT_EFFORT.costs, tolerance_frames=0)
            rows.append([name, str(len(one.predicted)), *(str(counts[kind]) for kind in OPERATIONS)])
        print(format_table(rows))
    if len(changed) < len(handed_out):
        unchanged = listed([name for name in handed_out if name not in changed])
        print(f"came back unchanged: {unchanged}")
        log.warning(
            "these labels are the head's own words: %s. Where nobody has looked at them, remove their files from %s: a head would learn "
            "and be scored on its own mistakes",
            unchanged,
            target.dataset.ground_truth,
        )
    worked = {name: one.found.annotated.work_seconds for name, one in target.taken.items()}
    if measured := {name: seconds for name, seconds in worked.items() if seconds is not None}:
        minutes = sum(measured.values()) / 60
        hours = sum(float(target.taken[name].edges[-1] - target.taken[name].edges[0]) for name in measured) / 3600
        print(
            f"at work: {minutes:.1f} minutes on {counted(len(measured), 'video')} of {60 * hours:.1f} minutes, as the tool measured "
            f"(longest: {max(measured, key=measured.get)}, {max(measured.values()):.0f} s)"
        )
