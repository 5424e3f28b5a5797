"""Turn a published data set, as its owners release it, into a folder of data/: links to its videos, labels, lists.

    python data/import_dataset.py --list                             # what can be read, and where to ask for it
    python data/import_dataset.py Cholec80 FOLDER                    # the folder that the release was unpacked into
    python data/import_dataset.py MultiBypass140 FOLDER --videos DIR --splits bern multi
    python data/import_dataset.py Cholec80-tools FOLDER              # another task on the same videos: docs/tasks.md
    python data/import_dataset.py --description FILE FOLDER          # any table of video, frame or time, and label
    python data/import_dataset.py annotations FOLDER                 # files of ELAN, BORIS, VIA, Label Studio; --help for more

Videos with something wrong are left out and listed at the end with file and line (exit code 1). The release is only read;
a second run changes what has changed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, counted, listed, progress, run_main
from common.base.wording import format_table
from common.dataset.importing.catalogue import known_releases, known_task_releases, release_called
from common.dataset.importing.described import described_release
from common.dataset.importing.imported import Imported, cut_lists, read_imported
from common.dataset.importing.lists import ReleaseLists, SplitList
from common.dataset.importing.release import LEVELS, Extent, Reading, Release
from common.dataset.importing.task_release import TaskRelease
from common.dataset.importing.task_writer import cut_task_lists, write_task
from common.dataset.importing.writer import output_dataset, write_imported
from common.dataset.phases import UNLABELLED
from common.video.decode import decode
from common.video.label_grid import LabelGrid
from common.video.probe import VideoError, probe


def main(argv: list[str] | None = None) -> int:
    """Import, or list what can be; returns 1 when something in the release is wrong, else 0."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["annotations"]:
        from import_annotations import import_annotations

        return import_annotations(words[1:])
    parser = release_parser()
    given = parser.parse_args(words)
    if given.list:
        print_catalogue()
        return 0
    release, lists, folder = chosen_release(given)
    part = release.chosen_part({"--set": given.set, "--task": given.task})
    reading = Reading(
        release,
        folder,
        measured if given.exact else promised,
        videos_folder=given.videos,
        level=given.level,
        with_videos=not given.annotations_only,
        names_file=given.names,
        part=part,
    )
    if isinstance(release, TaskRelease):
        import_task(given, reading, lists)
    else:
        import_phases(given, reading, lists)
    if reading.problems:
        print(f"\nproblems ({len(reading.problems)}):", *reading.problems, sep="\n  ")
    return 1 if reading.problems else 0


def import_phases(given: argparse.Namespace, reading: Reading, lists: ReleaseLists) -> None:
    """Import phases, or another level of such labels, and print what there is of each."""
    release = reading.release
    suffix = "" if given.level == "phases" else f"-{given.level}"
    dataset = output_dataset(given.output or f"{release.title}{suffix}")
    features_of = None if given.level == "phases" else paths.dataset(given.features_of or release.title).name
    chosen = lists.chosen(given.splits, release.title)
    imported = read_imported(reading, native_rate=given.native_rate)
    imported.lists.extend(cut_lists(chosen, imported.videos, reading))
    write_imported(dataset, imported, official=lists.official, features_of=features_of)
    if reading.with_videos and features_of is None and not given.no_probe:
        compare_headers(imported)
    print_summary(dataset, imported, lists)


def import_task(given: argparse.Namespace, reading: Reading, lists: ReleaseLists) -> None:
    """Import labels of another task than phases, and print what there is of each class."""
    release = reading.release
    if refused := [f"--{name}" for name in ("names", "native_rate", "exact") if getattr(given, name)]:
        raise UserError(f"{listed(refused)}: {release.title} has no phases; leave it out")
    content = release.read(reading)  # which may find out what the set is called
    dataset = output_dataset(given.output or "-".join(filter(None, [release.title, reading.part])))
    features_of = features_of_task(given, release, dataset)
    if features_of is not None:
        print(f"note: videos and features are those of data/{features_of}")
    written = cut_task_lists(lists.chosen(given.splits, release.title), content, reading)
    write_task(dataset, reading, content, written, official=lists.official, features_of=features_of)
    print(f"{dataset.root}: {release.title}, task {release.task}")
    print(format_table(content.rows))
    print_lists(written, lists)
    for note in (*release.notes, *reading.notes):
        print(f"note: {note}")
    print(f"licence: {release.licence}")


def features_of_task(given: argparse.Namespace, release: TaskRelease, dataset: paths.Dataset) -> str | None:
    """The data set whose videos and features a task uses: that of the flag, else that of the same release where it is here."""
    if given.features_of:
        return paths.dataset(given.features_of).name
    usual = paths.Dataset(paths.repository_root() / "data" / (release.features_of or ""))
    is_there = release.features_of is not None and usual.import_record.is_file() and usual.root != dataset.root
    return usual.name if is_there else None


def release_parser() -> CommandParser:
    """The options of this command."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"].add_argument, parser.groups["output"].add_argument
    data("name", nargs="?", metavar="NAME", help="the release, as --list has it")
    data("folder", nargs="?", type=Path, metavar="FOLDER", help="the folder that the release was unpacked into")
    data("--list", action="store_true", help="print every release that can be read, and its lists")
    data("--description", type=Path, metavar="FILE", help="YAML file that says how a table is to be read, for NAME")
    data("--videos", type=Path, metavar="DIR", help="folder of the videos (default: FOLDER)")
    data("--splits", nargs="+", metavar="LIST", help="lists to write, official too (default: all that there are)")
    data("--level", choices=LEVELS, default="phases", help="labels to import, where there are two (default: phases)")
    data("--task", metavar="N", help="for a release of several tasks: which (CaDIS: 1, 2 or 3)")
    data("--set", metavar="NAME", help="for a collection of lists: which (SurgRec: the name of its folder)")
    data(
        "--features_of",
        metavar="NAME",
        help="for steps and other tasks: the data set that has the videos and features (default: that of the release)",
    )
    data("--native_rate", action="store_true", help="keep the labels of all frames where a part is usual")
    data("--names", type=Path, metavar="FILE", help="names of phases where the release has ids: a table of id, name")
    data("--annotations_only", action="store_true", help="write the labels without looking for videos")
    data("--exact", action="store_true", help="decode videos for the times of their frames, not by their headers")
    data("--no_probe", action="store_true", help="do not compare the videos' headers with the labels")
    output("--output", metavar="NAME", help="data set to make under data/ (default: the name of the release)")
    return parser


def chosen_release(given: argparse.Namespace) -> tuple[Release | TaskRelease, ReleaseLists, Path]:
    """The release that the options name, its lists, and its folder. Raises `UserError` for one that is not there."""
    if given.description is not None:
        if given.name is None or given.folder is not None:
            raise UserError("expected --description FILE FOLDER: the description says the name of the data set")
        release, lists, folder = described_release(given.description), ReleaseLists(None, {}), Path(given.name)
    elif given.name is None or given.folder is None:
        raise UserError("expected NAME and FOLDER: the name of the release (--list) and where it was unpacked")
    else:
        (release, lists), folder = release_called(given.name), given.folder
    for place in filter(None, (folder, given.videos)):
        if not place.is_dir():
            raise UserError(f"{place}: no such folder")
    return release, lists, folder


@cache
def promised(video: Path) -> Extent:
    """How long a video is by its header. Raises `UserError` where that does not say."""
    info = probe(video)
    if not info.promised_frames or not info.fps:
        raise UserError(
            f"{video}: the header does not say how many frames at which rate; add --exact, which decodes it"
        )
    return Extent(info.promised_frames, info.fps)


@cache
def measured(video: Path) -> Extent:
    """How long a video is by decoding it. Raises `UserError` for one that does not decode."""
    import numpy as np

    times = np.array([frame.seconds for frame in progress(decode(video), description=video.name, unit="frame")])
    span = float(times[-1] - times[0])
    return Extent(len(times), (len(times) - 1) / span if span else 1.0, times)


def compare_headers(imported: Imported) -> None:
    """Print the videos whose header, which is often wrong, promises frames for another number of labels."""
    release, differing = imported.reading.release, []
    if release.feature_fps is not None:
        return
    grid = LabelGrid(release.label_fps, imported.label_every)
    for name, video in progress(imported.videos.items(), description="headers", unit="video"):
        if video.entry.media is None:
            continue
        try:
            info = probe(video.entry.media)
        except VideoError as error:
            imported.reading.problems.append(f"{video.entry.media}: not readable as a video ({error.reason})")
            continue
        expected = grid.count(info.promised_frames, info.fps) if info.promised_frames else None
        if expected not in (None, len(video.labels)):
            differing.append(f"{name} {expected} ({len(video.labels)} labels)")
    if differing:
        print("hint: labels by the header and in the release differ (headers are often wrong):", listed(differing))


def print_summary(dataset: paths.Dataset, imported: Imported, lists: ReleaseLists) -> None:
    """Print videos, labels and the share of each phase, the lists, and what is to be known of the release."""
    reading = imported.reading
    counts = Counter(label for video in imported.videos.values() for label in video.labels)
    there = {label: sum(label in video.labels for video in imported.videos.values()) for label in counts}
    total = sum(counts.values())
    print(f"{dataset.root}: {reading.release.title}, {counted(len(imported.videos), 'video')}, {total:,} labels")
    names = [*imported.names, *([UNLABELLED] if counts[UNLABELLED] else [])]
    rows = [[n, str(there.get(n, 0)), f"{counts[n]:,}", f"{100 * counts[n] / total:.2f}"] for n in names]
    print(format_table([["", "videos", "labels", "% of all"], *rows]))
    print_lists(imported.lists, lists)
    for note in (*reading.release.notes, *reading.notes):
        print(f"note: {note}")
    print(f"licence: {reading.release.licence}")


def print_lists(written: Sequence[SplitList], lists: ReleaseLists) -> None:
    """Print every list that was written with the sizes of its splits."""
    for one in written:
        splits = [f"{len(s['train'])}/{len(s['val'])}/{len(s['test'])}" for s in one.splits]
        official = ", official" if one.name == lists.official else ""
        print(f"list {one.name} ({one.standing}{official}): train/val/test {listed(splits)}")
    if lists.official is None:
        print("its owners state no official list")


def print_catalogue() -> None:
    """Print every release: videos, phases, hours, lists with their standing, licence, and where to ask."""
    for title, (release, lists) in known_releases().items():
        hours = f", about {release.hours:g} h" if release.hours else ""
        print(f"{title}: {release.num_videos} videos, {release.num_phases or len(release.phases.names)} phases{hours}")
        print(f"  lists: {', '.join(map(str, lists.lists.values())) or 'none'}; official: {lists.official or 'none'}")
        print(f"  licence: {release.licence}; ask: {release.ask}")
    print("\nother tasks (docs/tasks.md):")
    for title, (release, lists) in known_task_releases().items():
        choice = f", {release.part_flag} {' | '.join(release.parts) or 'NAME'}" if release.part_flag else ""
        print(f"{title}{choice}: {release.task}")
        print(f"  lists: {', '.join(map(str, lists.lists.values())) or 'none'}; official: {lists.official or 'none'}")
        print(f"  licence: {release.licence}; ask: {release.ask}")


if __name__ == "__main__":
    run_main(main)
