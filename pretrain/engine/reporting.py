"""Reports of a running training: a bar, or a line a minute without a terminal, the metrics file, wandb, utilisation."""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from common.base.files import misfit, parse_json, read_text, write_text
from common.base.runtime import UserError, peak_memory_bytes, progress
from common.base.tracking import track
from pretrain.engine.checkpoints.checkpoint import TrainingState
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes
from pretrain.ssl_config import TrainingOptions, find_model

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60


class TrainingReport:
    """Writes and shows a training's numbers, in the first process only."""

    def __init__(self, state: TrainingState, options: TrainingOptions, processes: Processes, flops: float | None):
        """`flops`: operations of a training step on one sample, None: not known."""
        self.state, self.device, self.is_shown = state, processes.device, processes.is_first
        model = find_model(options.model)
        self.title, self.unit = f"{state.recipe} {model.name}", "clips" if model.clip_len > 1 else "images"
        self.samples_per_step = options.global_batch(processes.world_size)
        peak = peak_flops(processes.device, options.precision)
        self._share_of_peak = flops and peak and flops / (peak * processes.world_size)

    @contextlib.contextmanager
    def opened(self, folder: RunFolder, *, wandb: bool) -> Iterator[None]:
        """Files and bar open, continued at the step of `state`."""
        if not self.is_shown:
            yield
            return
        folder.root.mkdir(parents=True, exist_ok=True)
        self._metrics = MetricsFile(folder.metrics, self.state.step)
        self._last_line = time.monotonic()
        with (
            progress(total=self.state.total_steps, description=self.title, unit="steps") as self._bar,
            track(wandb, name=self.title, config=self.state.config, folder=folder.root) as self._track,
        ):
            self._bar.update(self.state.step)
            yield

    def write(self, numbers: dict[str, float]) -> None:
        """Append `numbers` to the metrics, under the number of finished steps."""
        if self.is_shown:
            record = {"step": self.state.step, "samples": self.state.samples} | numbers
            self._metrics.append(record)
            self._track(record)

    def show(self, numbers: dict[str, float]) -> None:
        """Show the numbers of a finished step and its rates."""
        if not self.is_shown:
            return
        shown = {
            "loss": f"{numbers['loss']:.4f}",
            f"{self.unit}/s": f"{numbers['samples_per_second']:.1f}",
            "waits for data": f"{numbers['data_share']:.0%}",
            "MFU": f"{numbers['mfu']:.0%}" if "mfu" in numbers else "n/a",
            "GB": f"{numbers['memory_gigabytes']:.1f}",
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        if not sys.stderr.isatty() and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            text = ", ".join(f"{key} {value}" for key, value in shown.items())
            log.info("%s: step %d of %d, %s", self.title, self.state.step, self.state.total_steps, text)

    def rates(self, seconds: float, data_seconds: float) -> dict[str, float]:
        """Rates of a step that took `seconds`, of them `data_seconds` waiting for data."""
        on_gpu = self.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self.device) if on_gpu else peak_memory_bytes() or 0
        found = {
            "seconds": seconds,
            "samples_per_second": self.samples_per_step / seconds,
            "data_share": data_seconds / seconds,
            "memory_gigabytes": memory / 1e9,
        }
        if self._share_of_peak:
            found["mfu"] = self._share_of_peak * found["samples_per_second"]
        return found


# dense tensor-core bf16, and fp32, in TFLOP/s, from the makers' data sheets; the first name that fits counts
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "B200": {"bf16": 2250.0, "fp32": 75.0},
    "H100 PCIe": {"bf16": 756.0, "fp32": 51.0},
    "H100 NVL": {"bf16": 835.0, "fp32": 60.0},
    "H100": {"bf16": 989.0, "fp32": 67.0},
    "H200": {"bf16": 989.0, "fp32": 67.0},
    "A100": {"bf16": 312.0, "fp32": 19.5},
    "L40S": {"bf16": 362.0, "fp32": 91.6},
    "RTX A6000": {"bf16": 154.8, "fp32": 38.7},
    "A40": {"bf16": 149.7, "fp32": 37.4},
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Operations a second that the device can do at most; None on a CPU and on unlisted devices."""
    return peak_of(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def peak_of(device_name: str, precision: str) -> float | None:
    """As `peak_flops`, for a device's name."""
    found = next((peaks for name, peaks in PEAK_TFLOPS.items() if name in device_name), None)
    return found[precision] * 1e12 if found else None


def transformer_flops(
    num_parameters: int, num_tokens: int, *, num_layers: int, width: int, backward: bool = True
) -> float:
    """Operations of a transformer on one sample of `num_tokens` tokens.

    Forwards 2 for each parameter and token, and for each layer 2 x tokens^2 x width for either product of attention;
    backwards twice as many, hence 6 N D (Kaplan et al., 2020). `num_parameters` are those of the blocks.
    """
    forward = 2 * num_parameters * num_tokens + 4 * num_layers * width * num_tokens**2
    return float(forward * (3 if backward else 1))


def flops_of_blocks(blocks: Sequence[nn.Module], num_tokens: int, *, width: int, backward: bool = True) -> float:
    """`transformer_flops` of a network's blocks of `width` values a token."""
    num_parameters = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    return transformer_flops(num_parameters, num_tokens, num_layers=len(blocks), width=width, backward=backward)


class MetricsFile:
    """Appends records to `metrics.jsonl`; a number that is not finite is null."""

    def __init__(self, path: Path, finished_steps: int):
        """Drop what a killed training wrote after its last checkpoint, of `finished_steps`; without one, everything."""
        self.path = path
        # records beyond the checkpoint are written again by the resumed run, and would stand there twice
        kept = [record for record in read_metrics(path) if finished_steps and record["step"] <= finished_steps]
        write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept))

    def append(self, record: dict[str, float]) -> None:
        """Write one record at once, so that a kill can leave at most the last line short."""
        values = {key: value if math.isfinite(value) else None for key, value in record.items()}
        with self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """All whole records of a metrics file, by step; what a disk has damaged is named and left out."""
    records = []
    try:
        lines = read_text(path).split("\n") if os.path.lexists(path) else []
    except UserError as error:
        log.warning("%s; its records are left out", error)
        return []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line end is short
        try:
            record = parse_json(line, f"{path}, line {number}", "left out") if line else None
            if wrong := line and misfit(record, {"step": int}):
                raise UserError(f"{path}, line {number}: {wrong}; left out")
        except UserError as error:
            log.warning("%s", error)
            continue
        records += [record] if line else []
    return records
