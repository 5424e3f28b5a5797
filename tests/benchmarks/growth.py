"""Growth of each command with its work: at 1, 4 and 16 times as much, the exponent of its processor seconds.

python -m tests.benchmarks.growth                     all of them, in minutes
python -m tests.benchmarks.growth audit "head over T" --size 4        some, at four times the usual sizes

Seconds are those of processors, of the command and its children, so that a busy machine decides nothing. A command's fixed start (imports,
networks) falls out: with s + a n^p seconds the step from 4 to 16 times is 4^p times the step from 1 to 4, which gives the
exponent p. Where 12 times the base adds less than half a second, or 3 times less than a quarter, there is none: a note says how
much it adds. What takes a few seconds is run three times, each time on the set as it was made, and the least counts. The peak is the
memory of the largest process at 16 times, children included. Everything is made and synthetic. Exits with 1 where an exponent is above the limit.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.base import paths
from common.base.runtime import UserError, run_main
from tests.benchmarks.made_set import ENCODER, make_dataset, write_long_video

STEPS = (1, 4, 16)
LARGEST_EXPONENT = 1.05
LONG_AGO = 1_600_000_000  # seconds since 1970: the date of made files
SHORT_SECONDS, SHORT_TURNS = 8.0, 3  # what takes no longer is run so often: a tenth of a second decides its exponent
SMALLEST_SECONDS = 0.5  # that the work must add from 4 to 16 times, half of it from 1 to 4: less is noise
HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "16"]
HEAD += ["--num_epochs", "3", "--features_dim", "48", "--device", "cpu"]

Made = Callable[[Path, int], list[str]]


@dataclass(frozen=True)
class Subject:
    """One command and what grows: `make` puts a set of so many at `data/<folder>` and returns the command's words."""

    base: int
    unit: str
    make: Made
    finds: bool = False
    """Whether its exit code 1 says that it found something, as a check's does."""
    note: str = ""
    """What explains its figures."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="of " + ", ".join(SUBJECTS))
    parser.add_argument("--size", type=float, default=1.0, help="times the usual sizes (default: %(default)s)")
    given = parser.parse_args(argv)
    if unknown := set(given.subjects) - SUBJECTS.keys():
        raise UserError(f"{', '.join(sorted(unknown))}: no subject; expected some of {', '.join(SUBJECTS)}")
    print(f"{'command':<24} {'at 1 x':>16} {'processor seconds at 1, 4, 16 x':>34} {'exponent':>9} {'peak':>8}")
    largest = 0.0
    for name in given.subjects or SUBJECTS:
        subject = SUBJECTS[name]
        base = max(1, round(subject.base * given.size))
        seconds, peaks = zip(*(measure(subject, base * step) for step in STEPS), strict=True)
        found = exponent(seconds)
        largest = max(largest, found if found is not None else 0.0)
        said = "too short" if found is None else f"{found:.2f}"
        numbers = " ".join(f"{each:.2f}" for each in seconds)
        print(
            f"{name:<24} {f'{base:,} {subject.unit}':>16} {numbers:>34} {said:>9} {peaks[-1] / 1e6:>5.0f} MB",
            flush=True,
        )
        if found is None:
            more = base * (STEPS[2] - STEPS[1])
            print(f"  {more:,} {subject.unit} more add {seconds[2] - seconds[1]:.2f} s, too little for an exponent")
        if subject.note:
            print(f"  {subject.note}")
    return int(largest > LARGEST_EXPONENT)


def exponent(seconds: Sequence[float]) -> float | None:
    """p of `s + a n^p` from the seconds at 1, 4 and 16 times the work; None where the work is too little to tell."""
    first, second = seconds[1] - seconds[0], seconds[2] - seconds[1]
    if second < SMALLEST_SECONDS or first < SMALLEST_SECONDS / 2:
        return None
    return math.log(second / first, STEPS[1] / STEPS[0])


def measure(subject: Subject, count: int) -> tuple[float, int]:
    """Processor seconds and peak bytes of the command on a set that is made for it, with its children."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "models" / ENCODER).mkdir(parents=True)
        shutil.copy(paths.CHECKOUT / "models" / ENCODER / "config.yaml", root / "models" / ENCODER)
        words = subject.make(root, count)
        for path in (root / "data").rglob("*"):  # as old in every set: what has just been written is not remembered
            os.utime(path, (LONG_AGO, LONG_AGO))
        environment = {"SICS155_ROOT": name, "SICS155_CACHE": f"{name}/cache", "PYTHONPATH": str(paths.CHECKOUT)}
        there, costs = set(root.rglob("*")), []
        while not costs or (len(costs) < SHORT_TURNS and costs[0][0] < SHORT_SECONDS):
            costs.append(cost_of(words, os.environ | environment, finds=subject.finds))
            for path in set(root.rglob("*")) - there:  # what it remembers or wrote
                if path.is_file() or path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path, ignore_errors=True)  # it may have gone with its folder
        return min(costs)


def cost_of(words: Sequence[str], environment: dict[str, str], *, finds: bool) -> tuple[float, int]:
    """Processor seconds and peak bytes of a command that succeeds, or of one that `finds` something and says so (1)."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *words], env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in ((0, 1) if finds else (0,)):
            said.seek(0)
            raise UserError(f"{' '.join(words)}: exit code {process.returncode}: {said.read().decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def script(name: str) -> str:
    return str(paths.CHECKOUT / name)


def made(root: Path, num_videos: int, num_frames: int, **more: object) -> str:
    """A data set of this size; returns its name."""
    make_dataset(root / "data" / "made", num_videos, num_frames, **more)
    return "made"


def extract_long(root: Path, num_frames: int) -> list[str]:
    write_long_video(root / "data" / "made" / "videos" / "BL_1.mp4", num_frames)
    return ["-m", "common.extract_features", "--model", ENCODER, "--dataset", "made", "--num_decoders", "1"]


def extract_many(root: Path, num_videos: int) -> list[str]:
    made(root, num_videos, 8, videos=True)
    return ["-m", "common.extract_features", "--model", ENCODER, "--dataset", "made", "--num_decoders", "1"]


def train(root: Path, num_videos: int, num_frames: int) -> list[str]:
    made(root, num_videos, num_frames, feature_dim=48, folds=2)
    return ["-m", "common.train", "--action", "train", "--dataset", "made", "--model", ENCODER, "--split", "1", *HEAD]


def label_efficiency(root: Path, num_videos: int) -> list[str]:
    made(root, num_videos, 60, feature_dim=48, folds=2)
    words = ["-m", "common.run_k_folds", "--dataset", "made", "--model", ENCODER, "--folds", "2", *HEAD]
    return [*words, "--train_fraction", "0.25,0.5,1.0"]


def compare(root: Path, num_encoders: int, num_videos: int) -> list[str]:
    from tests.benchmarks import report_scale

    os.environ["SICS155_ROOT"] = str(root)
    shutil.rmtree(root / "models")
    encoders = sorted(path.parent.name for path in (paths.CHECKOUT / "models").glob("*/config.yaml"))[:num_encoders]
    report_scale.make_set(encoders, 2, num_videos, 600)
    words = [script("compute_results.py"), "--dataset", report_scale.WHOLE, "--compare-kfold", "2"]
    return [*words, "--models", *encoders]


def pack(root: Path, num_videos: int) -> list[str]:
    made(root, num_videos, 8, videos=True)
    return [script("pretrain/pack_videos.py"), "--videos", "made", "--num_processes", "0"]


def check(*words: str, features: bool = True) -> Made:
    """A command that looks at a data set of videos."""

    def make(root: Path, num_videos: int) -> list[str]:
        made(root, num_videos, 8, videos=True, feature_dim=4 * features, folds=5 * features)
        return [script(words[0]) if words[0].endswith(".py") else words[0], *words[1:]]

    return make


SUBJECTS = {
    "extraction over frames": Subject(1000, "frames", extract_long),
    "extraction over videos": Subject(160, "videos", extract_many),
    "head over T": Subject(
        16_000,
        "frames",
        lambda root, count: train(root, 4, count),
        note="above the limit where its tensors leave the processor's caches: with --size 6 seconds a frame rise less",
    ),
    "head over videos": Subject(120, "videos", lambda root, count: train(root, count, 60)),
    "folds": Subject(
        600,
        "videos",
        check("generate_k_folds.py", "made", "5", features=False),
        note="a third of it is the file system's time for a link to each label file, which varies from run to run",
    ),
    "audit": Subject(200, "videos", check("-m", "common.audit", "made"), finds=True),
    "doctor": Subject(
        600,
        "videos",
        check("-m", "common.doctor", "--dataset", "made", "--model", ENCODER, "--no_timing", features=False),
        finds=True,
        note="its peak is that of the process that loads torch and torchvision, for seconds and whatever the number of videos",
    ),
    "status": Subject(1000, "videos", check("-m", "common.status", "made")),
    "report over encoders": Subject(
        2,
        "encoders",
        lambda root, count: compare(root, count, 8),
        note="each pair of encoders is compared, in tests and on the page: 2,016 pairs of 64",
    ),
    "report over videos": Subject(10, "videos", lambda root, count: compare(root, 2, count)),
    "label efficiency": Subject(8, "videos", label_efficiency),
    "packing": Subject(160, "videos", pack),
}

if __name__ == "__main__":
    run_main(main)
