"""Checkpoints of a sharded training: folders in which each process writes its own part, in the background, and reads its own.

Nothing is gathered. Parts are safetensors, by `torch.distributed.checkpoint` with the storage of Hugging Face's form (the default one
keeps a pickle, which runs code). `complete.json` comes last, with the hashes of all parts and the training's plain values; the folder
gets its name with it. What never changes, an anchor or an image teacher, is written once for all of them, into `frozen/`.
"""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from common.base.files import misfit, read_json, sha256_of_file, write_json
from common.base.runtime import UserError
from common.encoders.weights.files import READ_ERRORS, in_one_line, read_content, refuse_outside
from pretrain.engine.distributed import Processes

if TYPE_CHECKING:
    from pretrain.engine.method import Method

FORMAT = 1
COMPLETE, FROZEN, STATE_TENSORS = "complete.json", "frozen", "state.safetensors"
SHAPE = {"format": int, "state": dict, "files": {str: str}}
LEARNING = ("student.", "teacher.")  # whatever else has parameters stays as it is
DELETE = "delete the folder to resume from the checkpoint before"


class ShardedSaves:
    """The saves of one training into its folder, one at a time; all processes call everything."""

    def __init__(self, root: Path, processes: Processes):
        self._root, self._processes = root, processes
        # on the group of the training its messages would stand between those of the steps
        self._group = dist.new_group(backend="gloo")
        self._pending: Future | None = None
        self._completing: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, target: Path, state: Mapping[str, Any], method: Method, optimizer: Optimizer, *, wait: bool) -> None:
        """Write `target`; without `wait` in the background, from a copy of the tensors, while the training goes on."""
        self.finish()
        tensors = _tensors(method, optimizer)
        frozen = _frozen(method)
        if frozen and not (self._root / FROZEN).is_dir():
            self._start(self._root / FROZEN, {f"model.{name}": tensors[f"model.{name}"] for name in frozen}, {})
            self.finish()
        self._start(
            target, {name: value for name, value in tensors.items() if name.removeprefix("model.") not in frozen}, state
        )
        if wait:
            self.finish()

    def _start(self, target: Path, tensors: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        partial = partial_of(target)
        if self._processes.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier(self._group)
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        future = dcp.async_save(tensors, storage_writer=writer, process_group=self._group)
        self._pending = future
        if self._processes.is_first:
            words = future, target, dict(state)
            self._completing = threading.Thread(target=self._complete, args=words, name="complete a checkpoint")
            self._completing.start()

    def _complete(self, future: Future, target: Path, state: dict[str, Any]) -> None:
        """Once all processes have written: hashes, and the folder's name."""
        partial = partial_of(target)
        try:
            future.result()
            plain, tensors = _without_tensors(state)
            if tensors:
                save_file(tensors, partial / STATE_TENSORS)
            files = {path.name: sha256_of_file(path) for path in sorted(partial.iterdir())}
            write_json(partial / COMPLETE, {"format": FORMAT, "state": plain, "files": files})
            former = target.with_name(f".{target.name}.former")
            shutil.rmtree(former, ignore_errors=True)
            if target.exists():
                target.rename(former)
            partial.rename(target)
            shutil.rmtree(former, ignore_errors=True)
        except BaseException as error:  # raised where it is waited for
            self._failure = error

    def finish(self) -> None:
        """Wait until the last save is complete. Raises what went wrong with it."""
        if self._pending is None:
            return
        future, self._pending = self._pending, None
        try:
            future.result()
        finally:
            if self._completing is not None:
                self._completing.join()
                self._completing = None
            dist.barrier(self._group)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def partial_of(target: Path) -> Path:
    """Where a checkpoint is written before it is complete: the same for all processes."""
    return target.with_name(f".{target.name}.partial")


def is_complete(folder: Path) -> bool:
    """Whether a folder is a checkpoint that was written to its end."""
    return (folder / COMPLETE).is_file()


def read_complete(folder: Path) -> dict[str, Any]:
    """What `complete.json` says. Raises `UserError` naming the file when it is damaged."""
    path = folder / COMPLETE
    content = read_json(path, DELETE)
    if (wrong := misfit(content, SHAPE)) or content["format"] != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this training ({wrong or 'of another format'}); {DELETE}")
    return content


def load(folder: Path, method: Method, optimizer: Optimizer, processes: Processes) -> dict[str, Any]:
    """Put a checkpoint's tensors, each process its own part, into `method` and `optimizer`; returns the plain values.

    It may have been written by any number of processes. Raises `UserError` naming the folder when a file in it is damaged, or it is
    of another method.
    """
    content = read_complete(folder)
    tensors, frozen = _tensors(method, optimizer), _frozen(method)
    places = {folder: {name: value for name, value in tensors.items() if name.removeprefix("model.") not in frozen}}
    if frozen:
        places[folder.parent / FROZEN] = {f"model.{name}": tensors[f"model.{name}"] for name in frozen}
    for place, wanted in places.items():
        _verify(place, read_complete(place)["files"], processes)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that one process reads alone, which is meant
                dcp.load(wanted, storage_reader=HuggingFaceStorageReader(str(place)), no_dist=processes.world_size == 1)
        except (*READ_ERRORS, dcp.api.CheckpointException) as error:
            raise UserError(
                f"{place}: this checkpoint is of another model or recipe ({in_one_line(error)}); give --output another folder"
            ) from error
    model, moments = _nested(tensors)
    moments["param_groups"] = get_state_dict(method, optimizer)[1]["param_groups"]
    set_state_dict(method, optimizer, model_state_dict=model, optim_state_dict=moments)
    state = content["state"]
    if STATE_TENSORS in content["files"]:
        for path, value in read_content(folder / STATE_TENSORS).items():
            *parents, name = path.split(".")
            block = state
            for parent in parents:
                block = block[parent]
            block[name] = value
    return state


def _without_tensors(state: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plain values of a nested state, and its tensors by their path."""
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.contiguous()
        elif isinstance(value, Mapping):
            plain[name], inside = _without_tensors(value, f"{prefix}{name}.")
            tensors |= inside
        else:
            plain[name] = value
    return plain, tensors


def _verify(folder: Path, files: Mapping[str, str], processes: Processes) -> None:
    """Each process looks at its share of the files. Raises `UserError` in all where one is not what was written."""
    damaged = ""
    for number, (name, expected) in enumerate(sorted(files.items())):
        refuse_outside(name, folder / COMPLETE)
        path = folder / name
        if number % processes.world_size != processes.rank:
            continue
        if not path.is_file():
            damaged = f"{path}: of this checkpoint, and not there"
        elif sha256_of_file(path) != expected:
            damaged = f"{path}: expected the SHA-256 that {COMPLETE} says, found another"
    if processes.largest(bool(damaged)):
        raise UserError(f"{damaged or f'{folder}: a file of it is damaged'}; {DELETE}")


def _frozen(method: Method) -> set[str]:
    """Names of the parameters that no training changes."""
    return {name for name, _ in method.named_parameters() if not name.startswith(LEARNING)}


def _tensors(method: Method, optimizer: Optimizer) -> dict[str, Tensor]:
    """All tensors of a training by name, as they are spread: `model.NAME`, `optimizer.NAME.KIND`."""
    model, moments = get_state_dict(method, optimizer)
    found = {f"model.{name}": value for name, value in model.items()}
    for name, kinds in moments["state"].items():
        found |= {f"optimizer.{name}.{kind}": value for kind, value in kinds.items()}
    return found


def _nested(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of `_tensors`, but for the optimiser's settings."""
    model = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            parameter, _, kind = name.removeprefix("optimizer.").rpartition(".")
            state.setdefault(parameter, {})[kind] = value
    return model, {"state": state}
