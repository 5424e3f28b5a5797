"""Turn Cataracts-1K into the data set `data/Cataracts-1K`: links to all videos, labels for the annotated cases.

    python pretrain/cataracts1k/import_annotations.py RELEASE_FOLDER --videos VIDEO_FOLDER
    python -m pretrain.cataracts1k.import_annotations RELEASE_FOLDER --annotations_only

RELEASE_FOLDER holds the phase annotations, one CSV file a case, at any depth; other CSV files are passed over. VIDEO_FOLDER
holds all videos, the unlabelled ones included. Cases with wrong annotations are left out, named by file and line, and make
the exit code 1; all else is imported. The release is only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.base.runtime import UserError, progress, run_main, sha256_of_file
from common.video.headers import VideoInfo, probe
from pretrain.annotations.cataract101 import AnnotatedVideo
from pretrain.annotations.cataracts1k import (
    COLUMNS,
    RELEASE,
    Case,
    EndRule,
    check_frame_rate,
    find_end_rule,
    is_case_file,
    label_frames,
    read_case,
)
from pretrain.annotations.importing import find_release_videos, importer_parser, output_dataset, write_dataset
from pretrain.annotations.phase_classes import PhaseClasses, read_phase_classes
from pretrain.cataract101.import_annotations import print_summary

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
    origin = {
        "release": RELEASE,
        "licence": "see the release",
        "source_sha256": source_hashes(given.release, cases, annotated),
        "end_frame": "inclusive" if rule.inclusive else "exclusive",
        "unannotated_videos": sorted(links.keys() - annotated.keys()),
    }
    write_dataset(dataset, mapping, annotated, links=links, origin=origin)
    print_summary(dataset, mapping, annotated, num_links=len(links))
    print(f"{rule}; videos without annotations: {len(origin['unannotated_videos'])}")
    if len(annotated) != PUBLISHED_CASES:
        print(f"note: {len(annotated)} annotated cases; the published release has {PUBLISHED_CASES}")
    print(*(f"problem: {problem}\n" for problem in problems), sep="", end="")
    return 1 if problems else 0


def read_cases(folder: Path, classes: PhaseClasses, problems: list[str]) -> dict[str, Case]:
    """Every case annotated below `folder`, by name; what is wrong with one is added to `problems`.

    Raises `UserError` when there is no file of a case at all, and for two files of one case.
    """
    cases: dict[str, Case] = {}
    paths = [path for path in sorted(folder.rglob("[!.]*.csv")) if is_case_file(path)]
    if not paths:
        raise UserError(f"{folder}: no CSV file with the columns {','.join(COLUMNS)} here or below")
    for path in paths:
        try:
            case = read_case(path, classes)
        except UserError as error:
            problems.append(str(error))
            continue
        if case.name in cases:
            raise UserError(f"two files of {case.name}: {cases[case.name].path} and {path}; keep one of them")
        cases[case.name] = case
    return cases


def label_cases(
    cases: Mapping[str, Case], videos: Mapping[str, Path] | None, rule: EndRule, problems: list[str]
) -> dict[str, AnnotatedVideo]:
    """Labels by video name; without `videos` a case ends with its last phase. What is left out is added to `problems`."""
    annotated = {}
    for name, case in progress(cases.items(), description="cases", unit="case"):
        try:
            if videos is not None and name not in videos:
                raise UserError(f"{case.path}: no video file of {name}; --videos DIR names the folder that holds it")
            info = probe(videos[name]) if videos is not None else None
            annotated[name] = _label_case(case, rule, info)
        except UserError as error:
            problems.append(str(error))
    return annotated


def _label_case(case: Case, rule: EndRule, info: VideoInfo | None) -> AnnotatedVideo:
    if info:
        check_frame_rate(case, info.fps)
    labels, shared = label_frames(case, rule, info.header_frames if info else None)
    if shared:
        print(f"note: {case.path}: {shared} frames in more than one row; the phase that starts later holds them")
    return AnnotatedVideo(labels, (info and info.fps) or case.fps)


def source_hashes(folder: Path, cases: Mapping[str, Case], annotated: Mapping[str, AnnotatedVideo]) -> dict[str, str]:
    """SHA-256 of the annotation files, by path inside the release."""
    used = [cases[name].path for name in annotated]
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in used}


if __name__ == "__main__":
    run_main(main)
