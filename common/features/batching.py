"""How many frames or clips go through the network at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from common.base.runtime import UserError

log = logging.getLogger(__name__)

# fixed on a CPU: another batch size changes features in the last digits
CPU_FRAMES, CPU_CLIPS = 16, 1
MOST_FRAMES, MOST_CLIPS = 256, 32
MEMORY_SHARE = 0.6  # of a GPU's free memory


class Batcher:
    """Collects items into batches of a fixed size for `encode`; halves the size when a GPU runs out of memory."""

    def __init__(self, encode: Callable[[Tensor], Tensor], batch_size: int):
        self.encode, self.batch_size = encode, batch_size
        self.items: list[Tensor] = []

    def add(self, items: Sequence[Tensor]) -> list[np.ndarray]:
        """Take items; returns the outputs of the batches that became full, in order."""
        self.items.extend(items)
        outputs = []
        while len(self.items) >= self.batch_size:
            outputs.append(self._encode(self.items[: self.batch_size]))
            self.items = self.items[len(outputs[-1]) :]
        return outputs

    def flush(self) -> list[np.ndarray]:
        """The outputs of what is left."""
        outputs = []
        while self.items:
            outputs.append(self._encode(self.items[: self.batch_size]))
            self.items = self.items[len(outputs[-1]) :]
        return outputs

    def _encode(self, items: list[Tensor]) -> np.ndarray:
        """Outputs of the first items: all of them, or as many as fit into memory."""
        while True:
            try:
                return self.encode(torch.stack(items[: self.batch_size])).numpy()
            except torch.OutOfMemoryError as error:
                if self.batch_size == 1:
                    raise UserError(
                        "the GPU is out of memory with a batch of 1; use a smaller encoder or --precision bf16"
                    ) from error
                self.batch_size //= 2
                torch.cuda.empty_cache()
                log.warning("GPU out of memory: batch size halved to %d", self.batch_size)


def choose_batch_size(encode: Callable[[Tensor], Tensor], item_shape: tuple[int, ...], device: torch.device) -> int:
    """A batch size for items `item_shape`: fixed on a CPU; on a GPU a power of two that fits its free memory.

    The memory of one item is measured as the difference that a second item makes.
    """
    is_clip = len(item_shape) == 4
    if device.type != "cuda":
        return CPU_CLIPS if is_clip else CPU_FRAMES
    peaks = []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        encode(torch.zeros(count, *item_shape, dtype=torch.uint8))
        peaks.append(torch.cuda.max_memory_allocated(device))
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(MEMORY_SHARE * free / max(1, peaks[1] - peaks[0]))
    return 2 ** max(0, min(fitting, MOST_CLIPS if is_clip else MOST_FRAMES).bit_length() - 1)
