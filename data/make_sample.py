"""Make `data/sample`: a small synthetic data set, drawn, in the layout of the real one.

    python data/make_sample.py            # 23 videos, half a minute, the same bytes each time
    python data/make_sample.py --force    # the same again, from nothing

The 19 phases differ by what is in the picture (instruments, the state of the eye), while exposure, tint, eye colour and
position vary from video to video. Results on it say nothing of surgery.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.children import end_with_parent
from common.base.entries import visible
from common.base.files import read_json, read_text, write_json, write_text
from common.base.options import CommandParser
from common.base.paths import CHECKOUT, Dataset, repository_root
from common.base.runtime import UserError, progress, run_main

if TYPE_CHECKING:
    from sample_video import Job

GENERATOR_VERSION = 3  # raise it when the drawing changes: sets made by an older one are made again
NOTICE = """Synthetic: every frame here is drawn by `python data/make_sample.py`; no patient, no camera, no surgery.
The set is for trying the programs out. Results on it say nothing of surgery.
"""


def prepare_folder(dataset: Dataset, jobs: list[Job]) -> None:
    """Write the notice and the mapping; remove what a sample set of other parameters left. Never touches other data."""
    notice = dataset.root / "README.txt"
    ours = notice.is_file() and read_text(notice).startswith("Synthetic:")
    if not ours and dataset.root.is_dir() and visible(dataset.root):
        raise UserError(f"{dataset.root} is not empty and not a sample set; name another folder with --output")
    write_text(notice, NOTICE)
    write_text(dataset.mapping, read_text(CHECKOUT / "mapping.txt"))
    wanted = {path for job in jobs for path in (job.video, job.labels)}
    for folder in (dataset.videos, dataset.ground_truth, dataset.ground_truth_val):
        for path in set(folder.glob("*.*")) - wanted:
            path.unlink(missing_ok=True)  # macOS removes `._x.txt` with `x.txt`


def sample_parser() -> CommandParser:
    """The options of this command."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument(
        "--num_videos", type=int, default=20, help="videos besides 3 for validation (default: %(default)s)"
    )
    data.add_argument("--seed", type=int, default=7, help="another seed, another set (default: %(default)s)")
    default_output = repository_root() / "data" / "sample"
    output.add_argument("--output", type=Path, default=default_output, help="folder (default: %(default)s)")
    output.add_argument("--force", action="store_true", help="make every file again")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Make what is missing of the set; returns the exit code."""
    parser = sample_parser()
    given = parser.parse_args(argv)
    if given.num_videos < 1 or given.seed < 0:
        parser.error("--num_videos must be at least 1 and --seed at least 0")

    # after --help, which needs no codec
    from sample_video import Job, plan

    dataset = Dataset(given.output.resolve())
    jobs = plan(dataset, given.num_videos, given.seed)
    record = dataset.sample_record
    parameters = {"generator_version": GENERATOR_VERSION, "num_videos": given.num_videos, "seed": given.seed}
    same = record.is_file() and read_json(record) == parameters and not given.force
    todo = [job for job in jobs if not (same and job.video.is_file() and job.labels.is_file())]
    if not todo and dataset.mapping.is_file():
        print(f"{dataset.root}: finished already ({len(jobs)} videos); --force makes it again")
        return 0
    prepare_folder(dataset, jobs)
    record.unlink(missing_ok=True)
    num_processes = min(os.cpu_count() or 1, len(todo) or 1)
    with multiprocessing.get_context("spawn").Pool(num_processes, initializer=end_with_parent) as pool:
        list(progress(pool.imap_unordered(Job.run, todo), total=len(todo), description="drawing", unit="video"))
    write_json(record, parameters)
    print(f"{dataset.root}: made {len(todo)} of {len(jobs)} synthetic videos")
    return 0


if __name__ == "__main__":
    run_main(main)
