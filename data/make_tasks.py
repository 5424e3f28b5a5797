"""Make `data/sample-tools` and `data/sample-clips`: other labels of the drawn videos in `data/sample`, for `common.probe`.

    python data/make_tasks.py            # seconds; after python data/make_sample.py, whose videos and features both use

Tools are those that the drawing of a phase has; while hands come in or leave a tool is unlabelled. Clips are the phases, cut where
they begin and end. A third of the videos is the test. Results on them say nothing of surgery.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from common.base import paths
from common.base.entries import visible
from common.base.files import read_json, read_text, write_json, write_text
from common.base.options import CommandParser
from common.base.paths import Dataset, repository_root
from common.base.runtime import UserError, run_main
from common.dataset.tables import csv_line

VERSION = 2  # raise it when the labels change
LIST = "drawn"
NOTICE = (
    "Synthetic: labels of the drawn videos of data/sample, by `python data/make_tasks.py`; no patient, no surgery.\n"
)
RAMP = 2  # frames in which hands come in or leave (`sample_video.reach_of`)
TEST_EVERY = 3
# what the scene of each phase draws (`sample_phases`)
TOOLS_OF = {
    "peritomy": ("scissors", "forceps"),
    "cautery": ("cautery pencil",),
    "scleral_groove": ("blade", "forceps"),
    "incision": ("blade",),
    "tunnel": ("blade", "forceps"),
    "sideport": ("blade", "forceps"),
    "main_incision_entry": ("blade", "forceps"),
    "AB_injection_and_wash": ("cannula",),
    "OVD_injection": ("cannula",),
    "hydroprocedure": ("cannula",),
    "stromal_hydration": ("cannula",),
    "capsulorrhexis": ("hook",),
    "nucleus_prolapse": ("hook",),
    "nucleus_delivery": ("vectis", "forceps"),
    "cortical_wash": ("Simcoe cannula",),
    "OVD_wash": ("Simcoe cannula",),
    "tunnel_suture": ("needle holder", "forceps"),
}
EITHER = {"OVD_IOL_insertion": ("forceps", "hook")}  # one after the other: which, the phase does not say
TOOLS = tuple(dict.fromkeys(tool for tools in TOOLS_OF.values() for tool in tools))


def segments_of(labels: Path) -> list[tuple[str, int, int]]:
    """Phase, first frame and the frame after the last of each run of equal labels."""
    found, start = [], 0
    for phase, run in groupby(read_text(labels).split()):
        length = sum(1 for _ in run)
        found.append((phase, start, start + length))
        start += length
    return found


def tool_rows(video: str, segments: list[tuple[str, int, int]]) -> list[tuple[object, ...]]:
    """Rows of `labels.csv`: 1 where a tool is at work, nothing while hands come in or leave or where it may be either."""
    rows = []
    for phase, begin, end in segments:
        tools, unsure = TOOLS_OF.get(phase, ()), EITHER.get(phase, ())
        for frame in range(begin, end):
            is_moving = frame - begin < RAMP or end - frame <= RAMP
            cells = ["" if tool in unsure or (tool in tools and is_moving) else int(tool in tools) for tool in TOOLS]
            rows.append((video, frame, *cells))
    return rows


def clip_rows(video: str, segments: list[tuple[str, int, int]], part: str) -> list[tuple[object, ...]]:
    """Rows of `clips.csv`: every phase."""
    from sample_procedure import FPS

    return [
        (f"{video}_{number:02d}", phase, video, part, video, f"{begin / FPS:g}", f"{end / FPS:g}")
        for number, (phase, begin, end) in enumerate(segments, 1)
    ]


def write_set(
    dataset: Dataset, sample: Dataset, task: str, table: Path, text: str, parts: dict[str, list[str]]
) -> None:
    """Write one of the sets. Raises `UserError` where its folder holds something else."""
    notice = dataset.root / "README.txt"
    if dataset.root.is_dir() and visible(dataset.root) and not (notice.is_file() and read_text(notice) == NOTICE):
        raise UserError(f"{dataset.root} is not empty and not a made set of labels; move it away")
    write_text(notice, NOTICE)
    write_text(table, text)
    write_text(
        dataset.description,
        f"task: {task}\nfeatures_of: {sample.name}\nsource: labels by data/make_tasks.py\nlicence: as the code\n",
    )
    for part, videos in parts.items():
        write_text(dataset.bundle(part, 1, LIST), "".join(f"{video}.txt\n" for video in videos))
    write_json(dataset.sample_record, {"made_by": "data/make_tasks.py", "version": VERSION})


def main(argv: list[str] | None = None) -> int:
    """Make both sets from the labels of the drawn sample; returns the exit code."""
    parser = CommandParser(None, __doc__)
    parser.parse_args(argv)
    sample = Dataset(repository_root() / "data" / "sample")
    if not sample.is_synthetic:
        raise UserError(f"{sample.root}: no drawn sample set; make it first: python data/make_sample.py")
    read_json(sample.sample_record)
    segments = {video: segments_of(path) for video, path in paths.label_paths(sample.ground_truth).items()}
    test = list(segments)[1::TEST_EVERY]
    parts = {"train": [video for video in segments if video not in test], "test": test}
    part_of = {video: part for part, videos in parts.items() for video in videos}
    tools, clips = (Dataset(repository_root() / "data" / name) for name in ("sample-tools", "sample-clips"))
    lines = [("video", "frame", *TOOLS), *(row for video, found in segments.items() for row in tool_rows(video, found))]
    write_set(tools, sample, "multilabel", tools.presence, "".join(map(csv_line, lines)), parts)
    head = ("clip", "label", "group", "split", "video", "start", "end")
    rows = [row for video, found in segments.items() for row in clip_rows(video, found, part_of[video])]
    write_set(clips, sample, "clips", clips.clips, "".join(map(csv_line, [head, *rows])), parts)
    print(
        f"{tools.root}, {clips.root}: {len(lines) - 1:,} frames and {len(rows)} clips of {len(segments)} drawn videos"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
