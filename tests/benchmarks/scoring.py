"""Read and score many label files: all segment and frame measures, against the reading alone.

python -m tests.benchmarks.scoring                     1,700 videos, 3.6 million frames
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.files import write_text
from common.base.paths import label_paths
from common.dataset.phases import PhaseMapping, read_labels, read_mapping, write_prediction
from common.scoring.folder import score_folder
from common.scoring.further_measures import further_summary, per_phase
from common.scoring.protocols import PROTOCOLS, summarise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_videos", type=int, default=1700, help="(default: %(default)s)")
    parser.add_argument("--num_frames", type=int, default=3_600_000, help="in all videos (default: %(default)s)")
    parser.add_argument("--one", choices=("reading", "scoring"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    mapping = read_mapping(paths.default_mapping())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_videos(folder, mapping, given.num_videos, given.num_frames // given.num_videos)
        if given.one:
            print(json.dumps(read_all(folder, mapping) if given.one == "reading" else score_all(folder, mapping)))
            return 0
        reading = read_all(folder, mapping)
        seconds = score_all(folder, mapping)
    print(f"{given.num_videos} videos, {given.num_frames:,} frames, {mapping.num_classes} phases")
    print(f"reading ground truth and predictions alone: {reading:6.2f} s")
    print(
        f"reading and scoring, {len(PROTOCOLS)} protocols:          {seconds:6.2f} s, {seconds / reading:.2f} of the reading"
    )
    return 0


def write_videos(folder: Path, mapping: PhaseMapping, num_videos: int, num_frames: int) -> None:
    """Ground truth in about 40 segments a video, and a prediction with 60 wrong stretches."""
    random = np.random.default_rng(0)
    for index in range(num_videos):
        cuts = np.sort(random.integers(1, num_frames, 40))
        true = random.integers(0, mapping.num_classes, 41)[np.searchsorted(cuts, np.arange(num_frames), side="right")]
        predicted = true.copy()
        for start in random.integers(0, num_frames, 60):
            predicted[start : start + random.integers(1, 60)] = random.integers(0, mapping.num_classes)
        write_text(folder / "true" / f"{index}.txt", "".join(f"{mapping.names[phase]}\n" for phase in true))
        write_prediction(folder / "predicted" / f"{index}.txt", predicted, mapping)


def read_all(folder: Path, mapping: PhaseMapping) -> float:
    """Seconds to read every file."""
    started = time.perf_counter()
    for part in ("true", "predicted"):
        for path in label_paths(folder / part).values():
            read_labels(path, mapping)
    return time.perf_counter() - started


def score_all(folder: Path, mapping: PhaseMapping) -> float:
    """Seconds to read and score every file: every protocol, the further measures, every phase."""
    started = time.perf_counter()
    labels = label_paths(folder / "true")
    rates = dict.fromkeys(labels, 25.0)
    scores = list(score_folder(labels, folder / "predicted", mapping, folder / "predicted", fps=rates).values())
    for protocol in PROTOCOLS.values():
        summarise(scores, protocol)
    further_summary(scores)
    per_phase(scores)
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
