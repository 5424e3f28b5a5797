"""Peak memory of loading one network out of a large checkpoint that holds others and an optimiser beside it.

python -m tests.benchmarks.weights_memory [--gigabytes 2] [--folder /tmp]

Makes a checkpoint of a Video MAE ViT-B (0.35 GB in float32) among other networks, as torch.save and as safetensors write
it, and builds the encoder in a process of its own. `own` is memory that only this process has (anonymous), `with the
file` counts the pages of the file that were looked at too, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from common.base import paths
from common.encoders.base import build_encoder
from common.encoders.config import load_family, read_encoder_config
from common.encoders.weights.load import WeightSource

MODEL = "SurgRec-MAE"
WIDE = 50_000_000  # values of a tensor of the optimiser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2, help="size of the made files")
    parser.add_argument("--folder", type=Path, help="for the made files (default: the system's temporary one)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    print(f"{'file':<18} {'file MB':>8} {'network MB':>11} {'seconds':>8} {'peak MB, own':>13} {'with the file':>14}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for file in make_files(Path(folder), given.gigabytes):
            words = [sys.executable, __file__, "--one", str(file)]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            sizes = [file.stat().st_size / 1e6, found["network"] / 1e6]
            print(
                f"{file.name:<18} {sizes[0]:>8.0f} {sizes[1]:>11.0f} {found['seconds']:>8.1f} {found['own'] / 1e6:>13.0f} "
                f"{found['all'] / 1e6:>14.0f}",
                flush=True,
            )
            file.unlink()


def make_files(folder: Path, gigabytes: float):
    """The same content twice: in containers by torch.save, under prefixes in safetensors."""
    config = read_encoder_config(paths.model(MODEL).config)
    encoder = load_family(config.family).build(config, WeightSource("none"))
    state = {key.removeprefix("backbone."): value for key, value in encoder.network.state_dict().items()}
    bytes_left = gigabytes * 1e9 - 2 * sum(value.nbytes for value in state.values())
    moments = {f"{index}": torch.ones(WIDE) for index in range(max(1, round(bytes_left / WIDE / 4)))}
    teacher = {key: value + 1 for key, value in state.items()}
    torch.save({"student": state, "teacher": teacher, "optimizer": {"state": moments}}, folder / "checkpoint.pth")
    yield folder / "checkpoint.pth"
    flat = {f"student.{key}": value for key, value in state.items()}
    flat |= {f"teacher.{key}": value for key, value in teacher.items()}
    save_file(flat | {f"predictor.{key}": value for key, value in moments.items()}, folder / "checkpoint.safetensors")
    yield folder / "checkpoint.safetensors"


def measure(file: str) -> dict[str, float]:
    """Seconds, and bytes above the process before it: the most of its own memory, and with the file's pages."""
    config = read_encoder_config(paths.model(MODEL).config)
    load_family(config.family)  # libraries are no part of it
    before, watched, started = memory_bytes(), Watch(), time.monotonic()
    watched.start()
    encoder = build_encoder(config, f"{file}::teacher")
    seconds = time.monotonic() - started
    own, whole = watched.stop()
    network = sum(value.nbytes for value in encoder.network.state_dict().values())
    return {"seconds": seconds, "network": network, "own": own - before[0], "all": whole - before[1]}


class Watch(threading.Thread):
    """The most memory of this process, looked at every few milliseconds: its own peak counter begins with the parent's."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.stopped = (0, 0), threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.002):
            now = memory_bytes()
            self.most = max(self.most[0], now[0]), max(self.most[1], now[1])

    def stop(self) -> tuple[int, int]:
        """End; bytes of its own memory and of all, at most."""
        self.stopped.set()
        self.join()
        return self.most


def memory_bytes() -> tuple[int, int]:
    """Anonymous and resident memory of this process (Linux)."""
    values = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(values["RssAnon"].split()[0]) * 1024, int(values["VmRSS"].split()[0]) * 1024


if __name__ == "__main__":
    main()
