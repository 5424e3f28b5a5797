"""Optional tracking of a training in Weights & Biases; works without a network under WANDB_MODE=offline."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.base.runtime import UserError


@contextlib.contextmanager
def track(enabled: bool, *, name: str, config: dict[str, Any], folder: Path) -> Iterator[Callable[[dict], None]]:
    """Yield a function that logs a dict of numbers; it does nothing unless `enabled`.

    Raises `UserError` when wandb is asked for and is not installed.
    """
    if not enabled:
        yield lambda _: None
        return
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError("--wandb: the package is not installed; run: pip install wandb") from error
    run = wandb.init(project="sics155-encoders", name=name, config=config, dir=str(folder))
    try:
        yield run.log
    finally:
        run.finish()
