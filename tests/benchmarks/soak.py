"""Memory and open descriptors of one extraction over many short videos: what is finished must leave nothing behind.

python -m tests.benchmarks.soak [--num_videos 1000] [--num_decoders 1]

Prints both against the number of finished videos and fails where they grow after the first 50.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from common.base.runtime import run_main

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL = "ColorHistogram"
NUM_FRAMES = 5
WARM_UP_VIDEOS = 50  # libraries are loaded and caches filled by then
MOST_GROWTH_MB = 20
MOST_MORE_DESCRIPTORS = 4  # the files of the video in work, which a sample may meet open or closed
SECONDS_BETWEEN_SAMPLES = 0.05
ENDING_SECONDS = 60


@dataclass(frozen=True)
class Sample:
    """The extraction and its children when so many videos were finished."""

    num_videos: int
    megabytes: float
    descriptors: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_videos", type=int, default=1000)
    parser.add_argument("--num_decoders", type=int, default=1)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        samples = extract_and_sample(Path(folder), given.num_videos, given.num_decoders)
    print(f"{'videos':>8} {'MB':>8} {'descriptors':>12}")
    for milestone in np.linspace(WARM_UP_VIDEOS, given.num_videos, 11).round():
        sample = next((sample for sample in samples if sample.num_videos >= milestone), samples[-1])
        print(f"{sample.num_videos:>8} {sample.megabytes:>8.1f} {sample.descriptors:>12}")
    megabytes, descriptors = growth(samples)
    print(
        f"after the first {WARM_UP_VIDEOS}: {megabytes:+.1f} MB (at most {MOST_GROWTH_MB}), {descriptors:+d} descriptors"
    )
    return int(megabytes > MOST_GROWTH_MB or descriptors > MOST_MORE_DESCRIPTORS)


def extract_and_sample(root: Path, num_videos: int, num_decoders: int = 1) -> list[Sample]:
    """Extract that many made videos below `root` by one real process, which is looked at again and again.

    Raises `RuntimeError` with what it said where it fails.
    """
    from tests.conftest import write_clip

    videos, features = root / "data" / "soak" / "videos", root / "data" / "soak" / "features" / MODEL
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    clip = write_clip(root / "clip.mp4", [np.roll(picture, shift, axis=1) for shift in range(NUM_FRAMES)])
    videos.mkdir(parents=True)
    for number in range(num_videos):
        os.link(clip, videos / f"clip_{number:05}.mp4")
    (root / "models" / MODEL).mkdir(parents=True)
    (root / "models" / MODEL / "config.yaml").write_bytes((CHECKOUT / "models" / MODEL / "config.yaml").read_bytes())
    words = ["-m", "common.extract_features", "--model", MODEL, "--dataset", "soak", "--device", "cpu"]
    words += ["--num_decoders", str(num_decoders)]
    own = {"SICS155_ROOT": str(root), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with (root / "said").open("w+") as said:
        process = subprocess.Popen([sys.executable, *words], cwd=root, env=os.environ | own, stdout=said, stderr=said)
        try:
            samples = list(_samples(process, features, num_videos))
            process.wait(ENDING_SECONDS)
        finally:
            process.kill()
            process.wait()
    num_done = len(list(features.glob("*.npy")))
    if num_done != num_videos:
        raise RuntimeError(f"{num_done} of {num_videos} videos were extracted: {(root / 'said').read_text()[-2000:]}")
    return samples


def _samples(process: subprocess.Popen, features: Path, num_videos: int) -> Iterator[Sample]:
    """Samples of a process until all is done: an interpreter that ends touches memory all over again."""
    parent = psutil.Process(process.pid)
    while process.poll() is None and (num_done := sum(1 for _ in features.glob("*.npy"))) < num_videos:
        try:
            family = [parent, *parent.children(recursive=True)]
            megabytes = sum(each.memory_info().rss for each in family) / 1e6
            descriptors = sum(each.num_fds() for each in family)
        except psutil.Error:  # one of them has just ended
            continue
        yield Sample(num_done, megabytes, descriptors)
        time.sleep(SECONDS_BETWEEN_SAMPLES)


def growth(samples: Sequence[Sample]) -> tuple[float, int]:
    """Megabytes and descriptors by which the most of the last tenth of the videos exceeds what 50 to 100 needed.

    Of memory the median of the early samples: a video in work may need a moment's more. Of descriptors their most.
    """
    last = samples[-1].num_videos
    early = [sample for sample in samples if WARM_UP_VIDEOS <= sample.num_videos <= 2 * WARM_UP_VIDEOS]
    late = [sample for sample in samples if sample.num_videos >= last - last // 10]
    return (
        max(sample.megabytes for sample in late) - float(np.median([sample.megabytes for sample in early])),
        max(sample.descriptors for sample in late) - max(sample.descriptors for sample in early),
    )


if __name__ == "__main__":
    run_main(main)
