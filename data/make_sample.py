"""Make `data/sample`: a small synthetic data set, drawn, in the layout of the real one.

    python data/make_sample.py            # 23 videos, well under a minute, the same bytes each time
    python data/make_sample.py --force    # the same again, from nothing

The 19 phases differ by what is in the picture (instruments, the state of the eye), while exposure, tint, eye colour and
position vary from video to video. Results on it say nothing of surgery.
"""

from __future__ import annotations

import cmath
import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from sample_eye import HEIGHT, WIDTH, Look, Wander, draw_eye, draw_reflections, expose, paint_still_eye, view
from sample_phases import Scene
from sample_procedure import PREFIXES, Segment, generator, labels_of, make_schedule

from common.base.options import CommandParser
from common.base.paths import CHECKOUT, Dataset, repository_root
from common.base.runtime import UserError, atomic_path, progress, read_json, run_main, write_json, write_text

GENERATOR_VERSION = 2  # raise it when the drawing changes: sets made by an older one are made again
FPS = 10
PREFIX_CYCLE = ("BL", "BN", "SD", "BL", "BN", "SD", "BL", "BN", "SD", "BL")
NOTICE = """Synthetic: every frame here is drawn by `python data/make_sample.py`; no patient, no camera, no surgery.
The set is for trying the programs out. Results on it say nothing of surgery.
"""


def frames_of(name: str, schedule: list[Segment], seed: int) -> Iterator[np.ndarray]:
    """Draw the frames of one video, (HEIGHT, WIDTH, 3) uint8 RGB."""
    look = Look(generator(seed, name, "look"))
    still_eye = paint_still_eye(look, generator(seed, name, "eye"))
    rng = generator(seed, name, "motion")
    drift, shake, tremor, light = Wander(rng, 0.02, 0.08), Wander(rng, 0.6, 1.8), Wander(rng, 0.2, 0.9), Wander(rng)
    total = Counter(labels_of(schedule))
    seen: Counter[str] = Counter()
    magnification = 1.0
    for segment in schedule:
        aim = rng.uniform(0.9, 1.15)
        defocus = rng.choice([0.0, 0.0, 0.0, 1.2])
        pause = rng.uniform(0.25, 0.75)
        away = 0j
        if segment.phase == "background" and rng.random() < 0.6:  # the microscope is moved off the eye, out of focus
            away = cmath.rect(rng.uniform(60, 240), rng.uniform(-math.pi, math.pi))
            defocus = rng.uniform(0, 5)
        for index in range(segment.length):
            seconds = seen.total() / FPS
            seen[segment.phase] += 1
            # a Counter, so that phases which have not come yet are done to 0
            done = Counter({phase: seen[phase] / total[phase] for phase in seen})
            magnification += 0.25 * (aim - magnification)  # the surgeon turns the zoom, it does not jump
            zoom = cmath.rect(look.scale * magnification, look.tilt + 0.05 * drift(seconds + 99).real)
            gone = math.sin(math.pi * (index + 0.5) / segment.length)
            canvas = view(still_eye, zoom, look.centre + 9 * drift(seconds) + 1.3 * shake(seconds) + gone * away)
            draw_eye(canvas, look, done)
            reach = reach_of(index, segment.length, pause)
            scene = Scene(canvas, look, done, done[segment.phase], seconds, reach, tremor, rng)
            getattr(scene, segment.phase)()
            draw_reflections(canvas, 0.12 * drift(seconds + 50) + 0.03 * shake(seconds))
            brightness = 1 + 0.08 * light(seconds).real
            yield expose(canvas.image, look, defocus=defocus * (gone if away else 1), brightness=brightness, rng=rng)


def reach_of(index: int, length: int, pause: float) -> float:
    """The share 0..1 of the hands in the picture: they come in, may draw back once for a moment, and leave."""
    ramp = min(3.0, length / 4)
    if length > 12 and abs(index / length - pause) < 0.06:
        return 0.25
    return min(1.0, (index + 1) / ramp, (length - index) / ramp)


def encode(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Write RGB frames as H.264, the same bytes for the same frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "27", "preset": "superfast", "g": "30"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1  # slicing over threads would make the bytes depend on the machine's load
        for frame in frames:
            # RGB handed straight to the encoder gives other bytes from run to run.
            stream_frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(stream_frame))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class Job:
    """One video to make: where it goes, and where its labels go."""

    name: str
    seed: int
    video: Path
    labels: Path

    def run(self) -> None:
        """Draw and encode the video, then write its labels."""
        cv2.setNumThreads(1)  # the processes share the cores already
        schedule = make_schedule(self.name, self.seed)
        with atomic_path(self.video) as temporary:
            encode(temporary, frames_of(self.name, schedule, self.seed))
        write_text(self.labels, "\n".join(labels_of(schedule)) + "\n")


def video_names(num_videos: int) -> list[str]:
    """`num_videos` names for groundTruth, then one a prefix for groundTruth_val, numbered within their prefix."""
    counts: Counter[str] = Counter()
    names = []
    for prefix in [PREFIX_CYCLE[index % len(PREFIX_CYCLE)] for index in range(num_videos)] + list(PREFIXES):
        counts[prefix] += 1
        names.append(f"{prefix}_{counts[prefix]:04d}")
    return names


def plan(dataset: Dataset, num_videos: int, seed: int) -> list[Job]:
    """One job a video of the set."""
    folders = [dataset.ground_truth] * num_videos + [dataset.ground_truth_val] * len(PREFIXES)
    return [
        Job(name, seed, dataset.videos / f"{name}.mp4", folder / f"{name}.txt")
        for name, folder in zip(video_names(num_videos), folders, strict=True)
    ]


def prepare_folder(dataset: Dataset, jobs: list[Job]) -> None:
    """Write the notice and the mapping; remove what a sample set of other parameters left. Never touches other data."""
    notice = dataset.root / "README.txt"
    ours = notice.is_file() and notice.read_text(encoding="utf-8").startswith("Synthetic:")
    if not ours and dataset.root.is_dir() and any(dataset.root.iterdir()):
        raise UserError(f"{dataset.root} is not empty and not a sample set; name another folder with --output")
    write_text(notice, NOTICE)
    write_text(dataset.mapping, (CHECKOUT / "mapping.txt").read_text(encoding="utf-8"))
    wanted = {path for job in jobs for path in (job.video, job.labels)}
    for folder in (dataset.videos, dataset.ground_truth, dataset.ground_truth_val):
        for path in set(folder.glob("*.*")) - wanted:
            path.unlink()


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
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(todo) or 1)) as pool:
        list(progress(pool.imap_unordered(Job.run, todo), total=len(todo), description="drawing", unit="video"))
    write_json(record, parameters)
    print(f"{dataset.root}: made {len(todo)} of {len(jobs)} synthetic videos")
    return 0


if __name__ == "__main__":
    run_main(main)
