"""A tiny V-JEPA 2 and made clips, by sample number, that its tests learn from."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch

from common.base.runtime import generator
from pretrain.backbones import start_backbone
from pretrain.engine.distributed import Processes
from pretrain.methods.options import VJEPA2Options
from pretrain.methods.vjepa2 import VJEPA2
from pretrain.ssl_config import find_model

TINY = find_model("vjepa2-tiny")
OPTIONS = VJEPA2Options(
    model="vjepa2-tiny", init="random", max_steps=6, batch_size=4, save_every=2, monitor_every=0, monitor_samples=4,
    learning_rate=3e-3, start_learning_rate=1e-3, momentum=0.9,
)  # fmt: skip
ALONE = Processes(0, 1, torch.device("cpu"))
PUBLISHED_MASKS = {"mask_ratio": 0.0}


def made(**changes) -> VJEPA2:
    """The recipe from the start values of seed 42."""
    options = replace(OPTIONS, **changes)
    return VJEPA2(start_backbone(TINY, "random", seed=options.seed)[0], options, TINY)


@cache
def sample(number: int) -> torch.Tensor:
    """Clip number `number`: a bright square on its way over a dim one-coloured ground."""
    random = generator("clip", number)
    colour, ground = torch.randint(256, (3, 1, 1), generator=random), torch.randint(100, (3, 1, 1), generator=random)
    top, left, down, right = torch.randint(0, 5, (4,), generator=random).tolist()
    clip = ground.expand(TINY.clip_len, 3, 64, 64).clone()
    for time in range(TINY.clip_len):
        row, column = 4 * top + time * down, 4 * left + time * right
        clip[time, :, row : row + 16, column : column + 16] = colour
    return clip.to(torch.uint8)


def batch_of(*numbers: int) -> dict[str, torch.Tensor]:
    return {"clip": torch.stack([sample(number) for number in numbers]), "number": torch.tensor(numbers)}


def batches_of(processes: Processes, batch_size: int):
    """The engine's `Batches` of one process."""

    def batches(first: int) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            start = first + processes.rank * batch_size
            yield batch_of(*range(start, start + batch_size))
            first += processes.world_size * batch_size

    return batches
