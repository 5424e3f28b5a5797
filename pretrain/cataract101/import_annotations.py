"""Turn the Cataract-101 release into the data set `data/Cataract-101`: a label for every frame, links to the videos.

    python pretrain/cataract101/import_annotations.py RELEASE_FOLDER
    python -m pretrain.cataract101.import_annotations RELEASE_FOLDER --annotations_only

RELEASE_FOLDER holds annotations.csv, phases.csv and videos.csv. A wrong row stops the import and is named by file and
line. Videos that cannot be read are listed at the end (exit code 1). The release is only read.
"""

from collections.abc import Mapping
from itertools import pairwise

from common.base.files import sha256_of_file
from common.base.runtime import UserError, run_main
from common.dataset.importing.writer import output_dataset
from pretrain.annotations.cataract101 import RELEASE, SOURCES, Starts, read_release
from pretrain.annotations.importing import (
    AnnotatedVideo,
    find_release_videos,
    header_problems,
    importer_parser,
    print_phase_counts,
    write_dataset,
)
from pretrain.annotations.phase_classes import read_phase_classes

PUBLISHED = {"videos": 101, "rows": 1_266, "frames": 1_263_116}


def main(argv: list[str] | None = None) -> int:
    """Import and summarise; returns 1 when a video cannot be read, else 0."""
    given = importer_parser(__doc__, RELEASE).parse_args(argv)
    dataset = output_dataset(given.output)
    mapping = read_phase_classes().mapping(RELEASE)
    annotated, starts = read_release(given.release, mapping)
    found = {} if given.annotations_only else find_release_videos(given.videos or given.release)
    missing = annotated.keys() - found.keys()
    if missing and not given.annotations_only:
        raise UserError(
            f"{given.videos or given.release}: {len(missing)} of {len(annotated)} videos are missing: "
            f"{', '.join(sorted(missing)[:8])}; --videos DIR names another folder, --annotations_only does without"
        )
    links = {name: found[name] for name in annotated if name in found}
    hashes = {name: sha256_of_file(given.release / name) for name in SOURCES}
    origin = {"release": RELEASE, "licence": "CC BY-NC 4.0", "source_sha256": hashes}
    write_dataset(dataset, mapping, annotated, links=links, origin=origin)
    print_phase_counts(dataset, mapping, annotated, num_links=len(links))
    print_totals(annotated, starts)
    problems = header_problems(annotated, links)
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


def print_totals(annotated: Mapping[str, AnnotatedVideo], starts: Starts) -> None:
    """Print what was merged and left unlabelled, and whether this is the release as published."""

    def listed(totals: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in totals.items())

    heads = sum(rows[0][0] > 0 for rows in starts.values())
    repeats = [any(row[1] == following[1] for row, following in pairwise(rows)) for rows in starts.values()]
    print(f"unlabelled head: {heads} videos; a phase in consecutive rows, merged: {sum(repeats)} videos")
    frames = sum(len(video.labels) for video in annotated.values())
    found = {"videos": len(annotated), "rows": sum(map(len, starts.values())), "frames": frames}
    agreement = "as published" if found == PUBLISHED else f"the published release has {listed(PUBLISHED)}"
    print(f"every frame is accounted for: {listed(found)} ({agreement})")


if __name__ == "__main__":
    run_main(main)
