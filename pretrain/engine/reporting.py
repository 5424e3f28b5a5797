"""What a training tells while it runs: a bar, or a line a minute where there is no terminal, the metrics file, wandb."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

import torch

from common.runtime import peak_memory_bytes, progress
from common.tracking import track
from pretrain.engine.checkpoint import TrainingState
from pretrain.engine.distributed import Processes
from pretrain.engine.flops import peak_flops
from pretrain.engine.metrics_file import MetricsFile
from pretrain.engine.run_folder import RunFolder
from pretrain.ssl_config import TrainingOptions, find_model

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60


class Report:
    """Writes and shows a training's numbers, in the first process only; made by `reporting`."""

    def __init__(self, state: TrainingState, options: TrainingOptions, processes: Processes, flops: float | None):
        """`flops`: operations of a training step on one sample, None: not known."""
        self.state, self.device, self.is_shown = state, processes.device, processes.is_first
        model = find_model(options.model)
        self.title, self.unit = f"{state.recipe} {model.name}", "clips" if model.clip_len > 1 else "images"
        self.samples_per_step = options.batch_size * options.accumulate * processes.world_size
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
        found = {
            "seconds": seconds,
            "samples_per_second": self.samples_per_step / seconds,
            "data_share": data_seconds / seconds,
            "memory_gigabytes": _peak_memory(self.device) / 1e9,
        }
        if self._share_of_peak:
            found["mfu"] = self._share_of_peak * found["samples_per_second"]
        return found


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes() or 0
