"""Link the SICS-155 release into `data/SICS155`, check it, and print what is in it.

    python data/prepare_sics155.py RELEASE                # the folder with SICS_155_train/ (default: this repository)
    python data/prepare_sics155.py --patient_column NAME  # also writes patients.csv, so that folds split no patient

Only videos whose labels are correct are linked; all else is listed at the end (exit code 1). A second run changes
nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import VIDEO_SUFFIXES, is_frame_folder, same_name
from common.base.files import read_text, write_text
from common.base.options import CommandParser
from common.base.paths import label_paths
from common.base.runtime import UserError, progress, run_main
from common.dataset.importing.writer import link_in_place, output_dataset, remove_stale_links
from common.dataset.kfold import prefix_stratum
from common.dataset.phases import PhaseMapping, read_labels, read_mapping, require_labels
from common.dataset.tables import csv_rows
from common.video.probe import VideoError, probe

PARTS = {"train": "SICS_155_train/train", "val": "SICS_155_validation/val"}
PREFIXES = ("BL", "BN", "SD")


@dataclass
class Part:
    """One part of the release; `labels` holds the phase ids `(T,)` of the videos that are sound, the ones to link."""

    name: str
    folder: Path
    label_files: dict[str, Path]
    videos: dict[str, Path]
    labels: dict[str, np.ndarray]


def main(argv: list[str] | None = None) -> int:
    """Check, link and summarise; returns 1 when something in the release is wrong, else 0."""
    given = release_parser().parse_args(argv)
    problems: list[str] = []
    mapping = read_mapping(given.mapping)
    dataset = output_dataset(given.output)
    parts = [read_part(name, folder, mapping, problems) for name, folder in part_folders(given)]
    for val in parts[1:]:
        repeated = {*parts[0].label_files, *parts[0].videos} & {*val.label_files, *val.videos}
        problems += _listing("in both train and val, left out of val", repeated)
        val.labels = {video: labels for video, labels in val.labels.items() if video not in repeated}
    write_patients(dataset.patients, parts, given, problems)
    link_dataset(dataset, parts, given.mapping, problems)
    if not given.no_probe:
        compare_headers(parts, problems)
    print_summary(dataset, parts, mapping)
    if problems:
        print(f"\nproblems ({len(problems)}):", *problems, sep="\n  ")
    return 1 if problems else 0


def release_parser() -> CommandParser:
    """The options of this command."""
    parser = CommandParser(None, __doc__)
    add = parser.groups["data"].add_argument
    add("release", type=Path, nargs="?", help="the folder that holds SICS_155_train/ (default: this repository)")
    add("--train", type=Path, metavar="DIR", help="folder with groundTruth/ and videos/, in place of RELEASE's")
    add("--val", type=Path, metavar="DIR", help="the same for the validation part, which may be absent")
    add("--mapping", type=Path, default=paths.default_mapping(), metavar="FILE", help="phases (default: %(default)s)")
    add("--patient_column", metavar="NAME", help="column of {train,val}_annotations.csv that names the patient")
    add("--video_column", metavar="NAME", help="column that names the video (default: the only one that can be it)")
    add("--no_probe", action="store_true", help="do not compare the videos' headers with the labels")
    parser.groups["output"].add_argument(
        "--output", default="data/SICS155", help="data set to make (default: %(default)s)"
    )
    return parser


def part_folders(given: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Name and folder of each part that is there. Raises `UserError` for an absent one that is not optional."""
    for name, default in PARTS.items():
        chosen = getattr(given, name)
        folder = chosen or (given.release or paths.repository_root()) / default
        if folder.is_dir():
            yield name, folder
        elif name == "val" and not chosen:
            print(f"note: no validation part: {folder} does not exist (--val DIR names another place)")
        else:
            place = f"name the folder that holds {PARTS[name].split('/')[0]}/, or add --{name} DIR"
            raise UserError(f"{folder}: no such folder; expected groundTruth/ and videos/ in it; {place}")


def read_part(name: str, folder: Path, mapping: PhaseMapping, problems: list[str]) -> Part:
    """Read the labels and find the videos of one part; what is wrong is added to `problems`.

    Raises `UserError` when the training part has no labels at all or two videos of a part share a name.
    """
    label_folder, video_folder = folder / "groundTruth", folder / "videos"
    files = require_labels(label_folder) if name == "train" else label_paths(label_folder)
    videos = {
        name: path for name, path in paths.find_videos(video_folder).items() if path.is_file() or is_frame_folder(path)
    }
    labels: dict[str, np.ndarray] = {}
    for video, path in progress(files.items(), description=f"{name} labels", unit="file"):
        try:
            labels[video] = read_labels(path, mapping)
        except (UserError, OSError) as error:
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if not files:
        problems.append(f"{label_folder}: no label files (<video>.txt) here")
    problems += _listing(f"{name}: ground truth without a video in {video_folder}", files.keys() - videos.keys())
    problems += _listing(f"{name}: video without labels in {label_folder}", videos.keys() - files.keys())
    return Part(name, folder, files, videos, {video: labels[video] for video in labels if video in videos})


def _listing(text: str, names: Collection[str]) -> list[str]:
    return [f"{text}: {', '.join(sorted(names))}"] if names else []


def read_table(path: Path) -> dict[str, list[str]]:
    """Columns of a CSV file (comma, semicolon or tab) by name; none when it is absent or empty."""
    text = read_text(path) if path.is_file() else ""
    try:
        delimiter = csv.Sniffer().sniff(text[:65536], delimiters=",;\t").delimiter or ","
    except csv.Error:  # a single column has no delimiter to find
        delimiter = ","
    rows = [cells for _, cells in csv_rows(path, text, delimiter) if cells]
    columns = itertools.zip_longest(*rows, fillvalue="")  # short rows are filled up
    return {name: cells for name, *cells in columns}


def read_patients(part: Part, path: Path, *, patient_column: str, video_column: str | None) -> dict[str, str]:
    """Video -> patient from the CSV file at `path`, in which a video may have several rows.

    Raises `UserError` for an absent column, when it is not clear which names the video, and for a video of two
    patients.
    """
    table = read_table(path)
    listed = f"columns: {', '.join(table) or 'none'}"
    for name in filter(None, (patient_column, video_column)):
        if name not in table:
            raise UserError(f"{path}: no column {name!r} ({'' if path.is_file() else 'no such file; '}{listed})")
    # a cell may hold the video's name alone, or that of its labels or of its file
    spellings = itertools.product(part.label_files, ("", ".txt", *VIDEO_SUFFIXES))
    video_of = {same_name(f"{video}{suffix}"): video for video, suffix in spellings}
    videos = {name: [video_of.get(same_name(cell)) for cell in cells] for name, cells in table.items()}
    if video_column:
        candidates = [video_column]
    else:
        candidates = [name for name in table if part.label_files.keys() <= set(videos[name])]
    if len(candidates) != 1:
        found = f"columns {' and '.join(candidates)} each name" if candidates else "no column names"
        raise UserError(f"{path}: {found} every video of groundTruth/; choose one with --video_column ({listed})")
    patients: dict[str, str] = {}
    for video, patient in zip(videos[candidates[0]], table[patient_column], strict=True):
        if video and patient and patients.setdefault(video, patient) != patient:
            raise UserError(f"{path}: column {patient_column!r} gives two patients for {video} ({listed})")
    return patients


def write_patients(target: Path, parts: list[Part], given: argparse.Namespace, problems: list[str]) -> None:
    """Write `patients.csv` by the chosen columns, or print which there are; a file with other content is a problem."""
    rows: list[tuple[str, str]] = []
    for part in parts:
        path = part.folder / f"{part.name}_annotations.csv"
        if given.patient_column and part.label_files and (part.name == "train" or path.is_file()):
            found = read_patients(part, path, patient_column=given.patient_column, video_column=given.video_column)
            rows += [(video, found[video]) for video in part.labels if video in found]
        elif path.is_file():
            print(f"note: columns of {path.name} (for --patient_column): {', '.join(read_table(path))}")
    if given.patient_column:
        lacking = {video for part in parts for video in part.labels} - dict(rows).keys()
        print("note: videos without a patient:", ", ".join(sorted(lacking)) or "none")
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows([("video", "patient"), *sorted(rows)])
        if not target.exists():
            write_text(target, content.getvalue())
        elif read_text(target) != content.getvalue():  # made by hand, perhaps
            problems.append(f"{target}: differs from what the column gives; delete it and run this again")


def link_dataset(dataset: paths.Dataset, parts: list[Part], mapping_path: Path, problems: list[str]) -> None:
    """Make the data set's folders hold a link to all that is sound, and no other link into the release."""
    wanted = {dataset.mapping: mapping_path}
    for part in parts:
        ground_truth = dataset.ground_truth if part.name == "train" else dataset.ground_truth_val
        for video in part.labels:
            wanted[dataset.videos / part.videos[video].name] = part.videos[video]
            wanted[ground_truth / f"{video}.txt"] = part.label_files[video]
    release = [part.folder.resolve() for part in parts]
    for folder in (dataset.videos, dataset.ground_truth, dataset.ground_truth_val):
        for path in remove_stale_links(folder, wanted, release):
            print(f"note: {path}: not of this release, kept")
    for target, source in wanted.items():
        try:
            link_in_place(target, source)
        except UserError as error:
            problems.append(str(error))


def compare_headers(parts: list[Part], problems: list[str]) -> None:
    """Print the videos whose header, which is often wrong, promises another number of frames than there are labels."""
    differing = []
    linked = [(part, video) for part in parts for video in part.labels]
    for part, video in progress(linked, unit="video"):
        path, num_labels = part.videos[video], len(part.labels[video])
        try:
            frames = probe(path).header_frames
        except VideoError as error:
            problems.append(f"{path}: not readable as a video ({error.reason})")
            continue
        if frames not in (None, num_labels):
            differing.append(f"{video} {frames} ({num_labels} labels)")
    print("hint: header and labels differ in frames (headers are often wrong):", ", ".join(differing) or "none")


def print_summary(dataset: paths.Dataset, parts: list[Part], mapping: PhaseMapping) -> None:
    """Print videos per prefix, labelled frames, video lengths and phase shares of what is linked, for each part."""
    strata = {part.name: Counter(map(prefix_stratum, part.labels)) for part in parts}
    prefixes = [*PREFIXES, *sorted(set().union(*strata.values()) - set(PREFIXES))]
    print(f"{dataset.root}: videos by prefix, labelled frames, video lengths in frames")
    titles = (*(prefix or "none" for prefix in prefixes), "videos", "frames", "min", "median", "max")
    print(" " * 5, *(f"{title:>8}" for title in titles))
    shares = {}
    for part in parts:
        lengths = [len(labels) for labels in part.labels.values()] or [0]
        sizes = (len(part.labels), sum(lengths), min(lengths), np.median(lengths), max(lengths))
        videos_by_prefix = [strata[part.name][prefix] for prefix in prefixes]
        print(f"{part.name:5}", *(f"{number:8.10g}" for number in (*videos_by_prefix, *sizes)))
        # the empty list stands for a part without a sound video, which cannot be concatenated
        counts = np.bincount(np.concatenate([[], *part.labels.values()]).astype(int), minlength=mapping.num_classes)
        shares[part.name] = 100 * counts / max(sum(lengths), 1)
    width = max(map(len, ("% of the frames", *mapping.names)))
    print(f"\n   {'% of the frames':{width}}", *(f"{name:>6}" for name in shares))
    for index, phase in enumerate(mapping.names):
        print(f"{index:2} {phase:{width}}", *(f"{share[index]:6.1f}" for share in shares.values()))


if __name__ == "__main__":
    run_main(main)
