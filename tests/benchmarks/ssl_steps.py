"""Speed of the steps of self-supervised training, as the real commands take them.

python -m tests.benchmarks.ssl_steps [--models dinov3-vitl16 vjepa2-vitl-fpc64-256] [--steps 12] [--video FILE]

By default the tiny networks on a CPU and the full-sized ones that a GPU of 80 GB holds on a GPU, at their default batch.
Weights are random, which changes no speed. Without --video a 720p H.264 clip is made; copies of it stand for 32 videos.
Each row is a command in a process of its own. Numbers are medians over the steps after the first quarter; the peak
is the device's memory on a GPU, the main process's on a CPU. MFU is the share of the device's bf16 peak (n/a on a CPU).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common.base import paths
from common.base.runtime import select_device
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.reporting import read_metrics
from pretrain.ssl_config import find_model
from tests.benchmarks.ssl_data import make_clip

ON_CPU = ["dinov3-tiny", "vjepa2-tiny", "videomae-tiny"]
ON_GPU = ["dinov3-vitb16", "dinov3-vitl16", "vjepa2-vitl-fpc64-256", "videomae-b"]
COMMANDS = {"dinov3": "dinov3", "caformer": "dinov3", "vjepa2": "vjepa2", "videomae": "videomae"}
FROM_THE_START = {"dinov3": ["--freeze_backbone_epochs", "0"], "caformer": ["--freeze_backbone_epochs", "0"]}
NUM_VIDEOS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", help="long or short names (default: by the device)")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch_size", type=int, help="samples a step (default: the model's)")
    parser.add_argument("--num_workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--video", type=Path, help="a real video (default: a made 720p H.264 clip)")
    parser.add_argument("--device", default="auto")
    given, further = parser.parse_known_args()
    device = select_device(given.device)
    models = given.models or (ON_GPU if device.type == "cuda" else ON_CPU)
    print(f"{device}, {given.num_workers} processes read video, {given.steps} steps {' '.join(further)}\n")
    print("| model | samples a step | s / step | samples / s | MFU | peak GB | waits for data |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = make_root(Path(name), given.video)
        for model in models:
            print(row(model, measure(model, folder, given, further)), flush=True)


def make_root(folder: Path, video: Path | None) -> Path:
    """A root with the model folders and a corpus of links to one video."""
    (folder / "models").symlink_to(paths.CHECKOUT / "models")
    video = video or make_clip(folder / "made_720p.mp4", 1000)
    (folder / "films").mkdir()
    for number in range(NUM_VIDEOS):
        # copies of a video are left out of a corpus: a few bytes after its end make each another file
        target = folder / "films" / f"{number}{video.suffix}"
        target.write_bytes(video.read_bytes() + number.to_bytes(4, "big"))
    return folder


def measure(model: str, folder: Path, given: argparse.Namespace, further: list[str]) -> list[dict[str, float]]:
    """The records of a training's steps after the first quarter."""
    family, output = find_model(model).family, folder / "runs" / model
    words = ["--model", model, "--init", "random", "--videos", str(folder / "films"), "--output", str(output)]
    words += ["--max_steps", str(given.steps), "--monitor_every", "0", "--num_workers", str(given.num_workers)]
    words += ["--device", given.device, *FROM_THE_START.get(family, []), *further]
    if given.batch_size:
        words += ["--batch_size", str(given.batch_size)]
    script = paths.CHECKOUT / "pretrain" / f"ssl_pretrain_{COMMANDS[family]}.py"
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env=os.environ | {"SICS155_ROOT": str(folder)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return read_metrics(RunFolder(output).metrics)[given.steps // 4 :]


def row(model: str, records: list[dict[str, float]]) -> str:
    """The medians of a training's records as a row of a table."""

    def median(name: str) -> float:
        return statistics.median(record[name] for record in records)

    samples = round(median("samples_per_second") * median("seconds"))
    used = f"{median('mfu'):.0%}" if "mfu" in records[0] else "n/a"
    peak = max(record["memory_gigabytes"] for record in records)
    return (
        f"| {model} | {samples} | {median('seconds'):.3g} | {median('samples_per_second'):.1f} | {used} | {peak:.1f} "
        f"| {median('data_share'):.0%} |"
    )


if __name__ == "__main__":
    main()
