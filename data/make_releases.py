"""Make `data/releases/`: three small synthetic data sets, drawn, in the folders and files of three public releases.

    python data/make_releases.py                      # 11 videos each, a minute
    python data/make_releases.py --output FOLDER --num_videos 2

For trying out the way from a release to a table over data sets (`make demo-benchmark`). They differ as real ones do: CATARACTS
has a label for every decoded frame, AutoLaparo one a second, PmLR50 folders of images; each has its owners' lists. Several
drawn phases become one where a release has fewer. Results say nothing of surgery.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.children import end_with_parent
from common.base.files import read_json, read_text, write_json, write_text
from common.base.options import CommandParser
from common.base.paths import CHECKOUT, Dataset, repository_root
from common.base.runtime import UserError, progress, run_main
from common.dataset.phases import read_mapping

if TYPE_CHECKING:
    import numpy as np

VERSION = 2  # raise it when what is drawn changes
SEED = 11
NOTICE = "Synthetic: every frame here is drawn by `python data/make_releases.py`; no patient, no camera, no surgery.\n"
# of each part: the first number of its videos in the owners' list
FIRST = {
    "cataracts": {"train": 1, "dev": 1, "test": 3},
    "autolaparo": {"train": 1, "val": 11, "test": 15},
    "pmlr50": {"train": 1, "val": 34, "test": 38},
}
NUM_PHASES = {"cataracts": 19, "autolaparo": 7, "pmlr50": 5}


def main(argv: list[str] | None = None) -> int:
    """Draw what is missing; returns the exit code."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument(
        "--num_videos",
        type=int,
        default=5,
        help="for training, and as many for the test, one besides (default: %(default)s)",
    )
    default = repository_root() / "data" / "releases"
    output.add_argument("--output", type=Path, default=default, help="folder (default: %(default)s)")
    given = parser.parse_args(argv)
    if not 1 <= given.num_videos <= 7:  # as many as every owners' list has for the test
        parser.error("--num_videos must be 1 to 7")
    parameters = {"made_by": "data/make_releases.py", "version": VERSION, "num_videos": given.num_videos, "seed": SEED}
    for name, write in WRITERS.items():
        folder = given.output / name
        record = Dataset(folder).sample_record
        if record.is_file() and read_json(record) == parameters:
            print(f"{folder}: finished already")
            continue
        notice = folder / "README.txt"
        if folder.is_dir() and not (notice.is_file() and read_text(notice) == NOTICE):
            raise UserError(f"{folder} is there and was not made by this command; name another folder with --output")
        shutil.rmtree(folder, ignore_errors=True)
        write_text(notice, NOTICE)
        parts = {part: 1 if part in ("val", "dev") else given.num_videos for part in FIRST[name]}
        videos = [(part, FIRST[name][part] + index) for part, count in parts.items() for index in range(count)]
        with multiprocessing.get_context("spawn").Pool(initializer=end_with_parent) as pool:
            jobs = pool.imap_unordered(partial(write, folder), videos)
            list(progress(jobs, total=len(videos), description=name, unit="video"))
        write_json(record, parameters)  # last: what is without it is made again
        print(f"{folder}: made {len(videos)} synthetic videos")
    return 0


def _draw(release: str, part: str, number: int) -> tuple[Iterator[np.ndarray], Sequence[int]]:
    """The frames of a drawn video, and the number of the phase (from 0) of each."""
    from sample_procedure import PREFIXES, labels_of, make_schedule
    from sample_video import frames_of

    name = f"{PREFIXES[number % len(PREFIXES)]}_{release}_{part}_{number}"
    schedule = make_schedule(name, SEED)
    drawn = read_mapping(CHECKOUT / "mapping.txt").names
    # neighbours in the list of phases become one where a release has fewer
    phases = [drawn.index(label) * NUM_PHASES[release] // len(drawn) for label in labels_of(schedule)]
    return frames_of(name, schedule, SEED), phases


def _cataracts(folder: Path, video: tuple[str, int]) -> None:
    """`Frame,Steps` of every frame, both from 1 and 0; the folder of the labels is the part."""
    part, number = video
    frames, phases = _draw("cataracts", part, number)
    stem = f"{'train' if part == 'train' else 'test'}{number:02}"
    _into(folder / "videos" / "micro" / f"{stem}.mp4", frames)
    rows = "".join(f"{frame},{phase}\n" for frame, phase in enumerate(phases, 1))
    write_text(folder / "ground_truth" / "CATARACTS_2020" / f"{part}_gt" / f"{stem}.csv", f"Frame,Steps\n{rows}")


def _autolaparo(folder: Path, video: tuple[str, int]) -> None:
    """`Frame Phase` of every second, both from 1."""
    from sample_procedure import FPS

    part, number = video
    frames, phases = _draw("autolaparo", part, number)
    _into(folder / "task1" / "videos" / f"{number:02}.mp4", frames)
    rows = "".join(f"{second}\t{phase + 1}\n" for second, phase in enumerate(phases[::FPS], 1))
    write_text(folder / "task1" / "labels" / f"label_{number:02}.txt", f"Frame\tPhase\n{rows}")


def _pmlr50(folder: Path, video: tuple[str, int]) -> None:
    """An image and a line of every second, both from 0."""
    import cv2
    from sample_procedure import FPS

    part, number = video
    frames, phases = _draw("pmlr50", part, number)
    images = folder / "frames" / f"{number:02}"
    images.mkdir(parents=True)
    seconds = range(0, len(phases), FPS)
    for index, frame in enumerate(frames):
        if index in seconds:
            cv2.imwrite(str(images / f"{index // FPS:08}.jpg"), frame[:, :, ::-1])
    rows = "".join(f"{second} {phases[index]}\n" for second, index in enumerate(seconds))
    write_text(folder / "phase_annotations" / f"{number:02}.txt", f"Frame Phase\n{rows}")


def _into(path: Path, frames: Iterator[np.ndarray]) -> None:
    from sample_video import encode

    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, frames)


WRITERS = {"cataracts": _cataracts, "autolaparo": _autolaparo, "pmlr50": _pmlr50}

if __name__ == "__main__":
    run_main(main)
