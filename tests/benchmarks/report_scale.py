"""`compute_results --compare-kfold` from run folders: seconds, memory, size of the page, and growth.

python -m tests.benchmarks.report_scale                                     4 encoders, 5 folds, 60 videos, 6,000 frames
python -m tests.benchmarks.report_scale --encoders 20 --videos 155 --frames 12000       the size of the study: 3 GB of files

The run folders are synthetic: made labels, made predictions. Each command is a process of its own that starts from the run
folders; it and its children are counted, and of memory that several of them share (code of libraries, files) each its part,
where the system tells (Linux's proportional set size). Growth compares all with half of the encoders, and with half of the videos.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from common.base import paths
from common.base.files import write_json, write_text
from common.dataset.kfold import folds_hash, make_folds, read_folds, write_folds
from common.dataset.phases import PhaseMapping, read_mapping, write_prediction
from common.features.files import IDENTITY
from common.head.config import TrainConfig

FPS = 25.0
NUM_SEGMENTS, NUM_WRONG = 40, 60  # of a video
POLL_SECONDS = 0.2
WHOLE, HALF = "scale", "scale-half"
OPTIONS = ("encoders", "folds", "videos", "frames")


@dataclass(frozen=True)
class Cost:
    """Of one command with its children."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    page_bytes: int


def main() -> int:
    """Make the set, run the command, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in zip(OPTIONS, (4, 5, 60, 6000), strict=True):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--no_growth", action="store_true", help="the whole set alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the set here, or use the one that is here")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further words for compute_results.py")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        os.environ["SICS155_ROOT"] = str(root)
        encoders = sorted(path.parent.name for path in (paths.CHECKOUT / "models").glob("*/config.yaml"))
        encoders = encoders[: given.encoders]
        if not (root / "data" / HALF).is_dir():
            make_set(encoders, given.folds, given.videos, given.frames)
        print(", ".join(f"{getattr(given, name):,} {name}" for name in OPTIONS) + f" on {os.cpu_count()} cores")
        whole = measured("all", WHOLE, given.folds, encoders, given.more)
        if not given.no_growth:
            fewer = measured("half the encoders", WHOLE, given.folds, encoders[: len(encoders) // 2], given.more)
            shorter = measured("half the videos", HALF, given.folds, encoders, given.more)
            for name, part in (("encoders", fewer), ("videos", shorter)):
                print(
                    f"twice the {name}: {whole.seconds / part.seconds:.2f} x the seconds, "
                    f"{whole.cpu_seconds / part.cpu_seconds:.2f} x those of processors, "
                    f"{whole.peak_bytes / part.peak_bytes:.2f} x the memory, {whole.page_bytes / part.page_bytes:.2f} x the page"
                )
    return 0


def measured(name: str, dataset: str, num_folds: int, encoders: list[str], more: list[str]) -> Cost:
    """Run the command in a process that has no cache, and print its cost."""
    command = [sys.executable, str(paths.CHECKOUT / "compute_results.py"), "--dataset", dataset]
    command += ["--compare-kfold", str(num_folds), "--models", *encoders, *more]
    with tempfile.TemporaryDirectory() as cache:
        started = time.monotonic()
        process = psutil.Popen(
            command, env=os.environ | {"SICS155_CACHE": cache}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        peak, cpu = [0], {}
        watcher = threading.Thread(target=watch, args=(process, peak, cpu))
        watcher.start()
        _, complaints = process.communicate()
        seconds = time.monotonic() - started
        watcher.join()
    if process.returncode:
        sys.exit(complaints.decode())
    page = (paths.comparison_results() / "report.html").stat().st_size
    cost = Cost(seconds, sum(cpu.values()), peak[0], page)
    print(
        f"{name:18} {seconds:7.1f} s, {cost.cpu_seconds:7.1f} s of processors, {cost.peak_bytes / 1e9:5.2f} GB, "
        f"page {cost.page_bytes / 1e6:5.1f} MB",
        flush=True,
    )
    return cost


def watch(process: psutil.Popen, peak: list[int], cpu: dict[int, float]) -> None:
    """Note the most memory that a process and its children have at once, and the processor time of each, until it ends."""
    while process.poll() is None:
        total = 0
        try:
            for each in (process, *process.children(recursive=True)):
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.rss)  # elsewhere shared pages count once for each process
                times = each.cpu_times()
                cpu[each.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], total)
        time.sleep(POLL_SECONDS)


def make_set(encoders: list[str], num_folds: int, num_videos: int, num_frames: int) -> None:
    """Data set, splits and finished runs; the set of half the videos has the same files by links."""
    mapping = read_mapping(paths.default_mapping())
    for encoder in encoders:
        config = Path("models", encoder, "config.yaml")
        (paths.repository_root() / config).parent.mkdir(parents=True)
        shutil.copy(paths.CHECKOUT / config, paths.repository_root() / config)
    names = [f"{('BL', 'BN', 'SD')[index % 3]}_{index:03}" for index in range(num_videos)]
    # half of each prefix: the folds of both sets are stratified alike
    for dataset, videos in ((WHOLE, names), (HALF, names[: len(names) // 2])):
        folder = paths.Dataset(paths.repository_root() / "data" / dataset)
        folder.ground_truth.mkdir(parents=True)
        shutil.copy(paths.default_mapping(), folder.mapping)
        write_json(folder.sample_record, {"made_by": "tests/benchmarks/report_scale.py"})
        truths = {name: true_phases(name, num_frames, mapping) for name in videos}
        for name, true in truths.items():
            write_text(folder.ground_truth / f"{name}.txt", "".join(f"{mapping.names[phase]}\n" for phase in true))
        write_folds(folder, make_folds(videos, num_folds), seed=42, stratify="prefix", patients={})
        for place, encoder in enumerate(encoders):
            for number, tested in enumerate(read_folds(folder), 1):
                results = paths.model(encoder).split_results(dataset, number)
                results.mkdir(parents=True)
                for name in tested:
                    if dataset == HALF:
                        link_prediction(encoder, name, num_folds, results)
                    else:
                        write_run(results / name, truths[name], [place, number, int(name[3:])], mapping)
                write_record(results, encoder, number, dataset, mapping, tested)


def true_phases(name: str, num_frames: int, mapping: PhaseMapping) -> np.ndarray:
    """Phases in about 40 segments."""
    random = np.random.default_rng(int(name[3:]))
    cuts = np.sort(random.choice(np.arange(1, num_frames), NUM_SEGMENTS, replace=False))
    phases = random.integers(0, mapping.num_classes, NUM_SEGMENTS + 1)
    return phases[np.searchsorted(cuts, np.arange(num_frames), side="right")]


def write_run(stem: Path, true: np.ndarray, seed: list[int], mapping: PhaseMapping) -> None:
    """A prediction with 60 wrong stretches, more of them for later encoders, and its probabilities."""
    random = np.random.default_rng(seed)
    predicted = true.copy()
    for start in random.integers(0, len(true), NUM_WRONG + 2 * seed[0]):
        predicted[start : start + random.integers(1, 60)] = random.integers(0, mapping.num_classes)
    logits = random.standard_normal((len(true), mapping.num_classes), dtype=np.float32)
    logits[np.arange(len(true)), predicted] += 4
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    np.save(stem.with_suffix(".npy"), logits)
    write_prediction(stem.with_suffix(".txt"), predicted, mapping)


def link_prediction(encoder: str, name: str, num_folds: int, folder: Path) -> None:
    """The files of a video's prediction in the whole set, whatever its fold there."""
    for number in range(1, num_folds + 1):
        found = paths.model(encoder).split_results(WHOLE, number)
        if (found / f"{name}.npy").is_file():
            for suffix in (".npy", ".txt"):
                os.link(found / f"{name}{suffix}", folder / f"{name}{suffix}")


def write_record(
    folder: Path, encoder: str, number: int, dataset: str, mapping: PhaseMapping, videos: list[str]
) -> None:
    """The `run.json` of a finished run, called synthetic."""
    identity = dict.fromkeys(IDENTITY) | {"encoder": encoder, "preprocessing": {}, "sampling": {"fps": None}}
    identity |= {"weights": {"source": "made", "sha256": None}, "dtype": "float32", "decoder": "pyav"}
    epochs = np.arange(1, 51)
    record = {
        "synthetic": True, "split": str(number), "run": None, "seed": 42, "phases": list(mapping.names),
        "config": asdict(TrainConfig(dataset=dataset, model=encoder, split=str(number))),
        "folds_hash": folds_hash(read_folds(paths.dataset(dataset))), "videos": videos,
        "fps": dict.fromkeys(videos, FPS), "history": [],
        "features": {"identity": identity, "random_weights": False, "num_parameters": 1_000_000, "precision": "fp32"},
        "train_seconds": float(epochs.sum()), "versions": {}, "git": {"commit": None, "dirty": None},
    }  # fmt: skip
    write_json(folder / "run.json", record)


if __name__ == "__main__":
    raise SystemExit(main())
