"""Turn Cataracts-1K into the data set `data/Cataracts-1K`: links to all videos, labels for the annotated cases.

    python pretrain/cataracts1k/import_annotations.py RELEASE_FOLDER --videos VIDEO_FOLDER
    python -m pretrain.cataracts1k.import_annotations RELEASE_FOLDER --annotations_only

RELEASE_FOLDER holds the phase annotations, one CSV file a case, at any depth; other CSV files are passed over.
VIDEO_FOLDER holds all videos, the unlabelled ones included. Cases with wrong annotations are left out, named by file
and line, and make the exit code 1; all else is imported. The release is only read.
"""

from common.base.files import sha256_of_file
from common.base.runtime import UserError, run_main
from common.dataset.importing.writer import output_dataset
from pretrain.annotations.cataracts1k import RELEASE, find_end_rule, label_cases, read_cases
from pretrain.annotations.importing import find_release_videos, importer_parser, print_phase_counts, write_dataset
from pretrain.annotations.phase_classes import read_phase_classes

PUBLISHED_CASES = 56


def main(argv: list[str] | None = None) -> int:
    """Import and summarise; returns 1 when a case had to be left out, else 0."""
    given = importer_parser(__doc__, RELEASE).parse_args(argv)
    dataset = output_dataset(given.output)
    classes = read_phase_classes()
    problems: list[str] = []
    cases = read_cases(given.release, classes, problems)
    videos = None if given.annotations_only else find_release_videos(given.videos or given.release)
    rule = find_end_rule(list(cases.values()))
    annotated = label_cases(cases, videos, rule, problems)
    if not annotated:
        raise UserError("\n  ".join(["no case could be imported:", *problems]))
    mapping, links = classes.mapping(RELEASE), videos or {}
    sources = [cases[name].path for name in annotated]
    origin = {
        "release": RELEASE,
        "licence": "see the release",
        "source_sha256": {path.relative_to(given.release).as_posix(): sha256_of_file(path) for path in sources},
        "end_frame": "inclusive" if rule.inclusive else "exclusive",
        "unannotated_videos": sorted(links.keys() - annotated.keys()),
    }
    write_dataset(dataset, mapping, annotated, links=links, origin=origin)
    print_phase_counts(dataset, mapping, annotated, num_links=len(links))
    print(f"{rule}; videos without annotations: {len(origin['unannotated_videos'])}")
    if len(annotated) != PUBLISHED_CASES:
        print(f"note: {len(annotated)} annotated cases; the published release has {PUBLISHED_CASES}")
    print(*(f"problem: {problem}\n" for problem in problems), sep="", end="")
    return 1 if problems else 0


if __name__ == "__main__":
    run_main(main)
