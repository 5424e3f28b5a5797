"""Many short clips: the time of an extraction's decoding with two decoder processes, against that with one thread.

python -m tests.benchmarks.short_clips [--num_clips 23] [--num_frames 40]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from common.base.runtime import run_main
from common.features.decode_ahead import DecodePlan, decode_in_processes, decode_in_thread
from common.video.preprocess import Preprocessing

NUM_CLIPS, NUM_FRAMES = 23, 40
WAYS = ("one thread", "two processes")
LARGEST_RATIO = 1.2
REPEATS = 3


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_clips", type=int, default=NUM_CLIPS)
    parser.add_argument("--num_frames", type=int, default=NUM_FRAMES)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    plan = DecodePlan(decoder="pyav", fps=None, chunk_frames=16, rule=Preprocessing())
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or make_clips(Path(temporary), given.num_clips, given.num_frames)
        videos = {path.stem: path for path in sorted(folder.glob("*.mp4"))}
        decoders = (
            lambda: decode_in_thread(videos.items(), plan),
            lambda: decode_in_processes(videos.items(), plan, 2),
        )
        ways = dict(zip(WAYS, decoders, strict=True))
        if given.one:
            print(json.dumps(timed(ways[given.one])))
            return 0
        seconds = {name: min(timed(decode) for _ in range(REPEATS)) for name, decode in ways.items()}
    for name, taken in seconds.items():
        print(f"{name:<15} {taken:.2f} s")
    ratio = seconds["two processes"] / seconds["one thread"]
    print(f"ratio {ratio:.2f}, at most {LARGEST_RATIO}")
    return int(ratio > LARGEST_RATIO)


def make_clips(folder: Path, num_clips: int = NUM_CLIPS, num_frames: int = NUM_FRAMES) -> Path:
    """Clips of the same drawn noise in a folder, which is given back."""
    from tests.conftest import write_clip  # here: the processes read this file too, and need none of it

    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (num_frames, 45, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    first = write_clip(folder / "clip_0.mp4", frames, options={"crf": "23"})
    for number in range(1, num_clips):
        shutil.copy(first, folder / f"clip_{number}.mp4")
    return folder


def timed(decode) -> float:
    started = time.monotonic()
    assert sum(1 for _ in decode())
    return time.monotonic() - started


if __name__ == "__main__":
    run_main(main)
