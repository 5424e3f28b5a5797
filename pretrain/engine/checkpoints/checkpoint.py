"""Checkpoints of a training, and who may resume from one; any number of processes reads what any number wrote.

One process and replicas write a file, which holds tensors by parameter name and plain Python values only and gets its name when it is
complete; shards write a folder (`sharded_checkpoint`).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from common.base.files import misfit, save_tensors
from common.base.runtime import UserError
from common.encoders.weights.files import READ_ERRORS, in_one_line, read_content
from pretrain.engine.checkpoints import sharded_checkpoint
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes
from pretrain.engine.method import Method

log = logging.getLogger(__name__)

FORMAT = 1
# what each file holds, besides the format (`common.base.files.misfit`)
SHAPE = {
    "model": dict, "optimizer": dict, "recipe": str, "config": dict, "total_steps": int, "world_size": int,
    "num_threads": int, "init": dict, "step": int, "samples": int, "skipped": int, "monitor": dict,
}  # fmt: skip
DELETE = "delete it to resume from the one before"
# by name and whole, however the parameters are spread: on the CPU, and on the first process alone
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
# options of either stage that may change between the parts of a training without changing its numbers
WITHOUT_EFFECT = ("output", "resume", "wandb", "save_every", "keep_last", "num_workers", "monitor_every")
# what versions did before there was an option: a checkpoint that lacks it is of one of them
BEFORE_OPTIONS: dict[str, object] = {
    **{"antialias": True, "beta2": 0.999, "crop_boundary": 0.32, "flip_chance": 0.5, "koleo_neighbours": 1},
    **{"neighbour_seconds": 8.0, "samples_per_seek": 1},
    **{"crop_scale": 1.0, "flip_share": 0.0, "colour": 0.0, "target_modules": []},  # of Stage 2
}
WITHOUT_EFFECT += ("ssl_checkpoint",)  # Stage 2 compares what it names by its hash


@dataclass
class TrainingState:
    """Everything that a training knows besides its tensors."""

    recipe: str
    config: dict[str, Any]
    total_steps: int
    world_size: int
    num_threads: int
    init: dict[str, Any]
    """Where the start weights came from."""
    step: int = 0
    """Finished optimiser steps, skipped ones included."""
    samples: int = 0
    """Number of the next sample of the run."""
    skipped: int = 0
    """Steps without a finite loss."""
    monitor: dict[str, Any] = field(default_factory=dict)

    @property
    def machine(self) -> dict[str, int]:
        """Numbers besides `config` that decide those of the training: the schedules' length, and the order of sums."""
        return {name: getattr(self, name) for name in ("total_steps", "world_size", "num_threads")}


def save_training(path: Path, state: TrainingState, method: Method, optimizer: Optimizer, processes: Processes) -> None:
    """Write everything that a training needs to be resumed; all processes call it, the first one writes."""
    # gathers shards, so that no process may leave this out
    model, moments = get_state_dict(method, optimizer, options=WHOLE)
    if processes.is_first:
        content = {"format": FORMAT, "model": model, "optimizer": moments} | asdict(state)
        save_tensors(path, content)
    processes.barrier()


def restore_training(path: Path, method: Method, optimizer: Optimizer, processes: Processes) -> TrainingState:
    """Put a checkpoint's tensors into `method` and `optimizer`; every process reads the file, or its part of the folder.

    Raises `UserError` naming the file when it is damaged or of another method.
    """
    if path.is_dir():
        return state_of(sharded_checkpoint.load(path, method, optimizer, processes), path)
    # mapped where all tensors leave for a device anyway, so that several processes share one copy of the file
    content = read_checkpoint(path, mapped=processes.device.type == "cuda")
    try:
        set_state_dict(
            method,
            optimizer,
            model_state_dict=content["model"],
            optim_state_dict=content["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: this checkpoint is of another model or recipe ({in_one_line(error)}); give --output another folder"
        ) from error
    return state_of(content, path)


def read_checkpoint(path: Path, shape: dict[str, Any] | None = None, *, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint on the CPU; `mapped` reads tensors only when they are used, `shape`: default Stage 1's.

    Raises `UserError` naming the file when it is damaged or something else.
    """
    content = read_content(path, f"damaged or unsafe checkpoint ({{reason}}); {DELETE}", lazy=mapped)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this training; give --output another folder")
    if wrong := misfit(content, shape or SHAPE):
        raise UserError(f"{path}: damaged or unsafe checkpoint ({wrong}); {DELETE}")
    return content


def state_of(content: dict[str, Any], where: Path) -> TrainingState:
    """The plain values of a checkpoint's content. Raises `UserError` that names it where they are none of a training."""
    if wrong := misfit(content, {key: kind for key, kind in SHAPE.items() if key not in ("model", "optimizer")}):
        raise UserError(f"{where}: not the state of a training ({wrong}); {DELETE}")
    return TrainingState(**{entry.name: content[entry.name] for entry in fields(TrainingState)})


def newest_state(folder: RunFolder) -> TrainingState | None:
    """The plain values of the newest checkpoint; None where there is none."""
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    content = (
        sharded_checkpoint.read_complete(newest)["state"] if newest.is_dir() else read_checkpoint(newest, mapped=True)
    )
    return state_of(content, newest)


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """The state with the most steps: that of a step, or the final one unless a longer training has gone beyond it.

    The best is none of them: it may be from long before, and is there to be taken up by hand.
    """
    files = folder.step_files()
    final = folder.final
    if final.is_dir():
        files[state_of(sharded_checkpoint.read_complete(final)["state"], final).step] = final
    elif final.is_file():
        files[read_checkpoint(final, mapped=True)["step"]] = final
    return files[max(files)] if files else None


def whole_model_state(method: Method) -> dict[str, Tensor]:
    """All tensors of a method by name, on the CPU of the first process (empty on the others); all processes call it."""
    return get_model_state_dict(method, options=WHOLE)


def whole_exported_state(method: Method, processes: Processes) -> dict[str, Tensor]:
    """As `whole_model_state`, of the network to export alone: gathered one tensor after the other."""
    wanted = {id(value) for value in method.exported().state_dict(keep_vars=True).values()}
    found = {}
    for name, value in method.state_dict(keep_vars=True).items():
        if id(value) in wanted:
            whole = value.detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            if processes.is_first:
                found[name] = whole.cpu()
    return found


def require_same_training(
    path: Path,
    identity: Iterable[tuple[str, object, object]],
    former: Mapping[str, object],
    present: Mapping[str, object],
) -> None:
    """Raise `UserError` when the training in `path` is another one; log which settings have changed.

    `identity` are triples of a name, its former and its present value, that must be equal. Other settings may change,
    the number of processes and the batch too: a resumed run takes the next sample number, whatever the steps before.
    """
    for what, old, new in identity:
        if old != new:
            raise UserError(
                f"{path}: this training has another {what} ({old}, now {new}); give --output another folder"
            )
    unused = {name: value for name, value in present.items() if not value}  # a newer option that is off: as it was
    former = unused | {name: value for name, value in BEFORE_OPTIONS.items() if name in present} | dict(former)
    changed = [
        f"{name} {present.get(name)} instead of {former.get(name)}"
        for name in sorted(former.keys() | present.keys())
        if former.get(name) != present.get(name) and name not in WITHOUT_EFFECT
    ]
    if changed:
        log.warning("%s: resuming with %s; the numbers will differ from an unbroken run's", path, ", ".join(changed))
