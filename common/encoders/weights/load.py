"""Weight files: what is recorded of them, and their tensors: read without running code, loaded strictly."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.entries import visible
from common.base.runtime import UserError, generator, read_json, sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from torch import Tensor, nn

# weight sources that are no file; `find` lists all of them
RANDOM = "random"
NONE = "none"
LOCAL = "local"

RANDOM_SEED = 0
# keys under which training code keeps a network's tensors, the one to take first
CONTAINERS = ("teacher", "state_dict", "model", "model_state", "encoder", "module")
# added around a network by training code; dropped only when every tensor's name begins so
WRAPPERS = ("module.", "_orig_mod.", "backbone.")


@dataclass(frozen=True)
class WeightSource:
    """Where weights came from: the words that asked for them, the file or folder, and its SHA-256 (None: random, none).

    Of a folder with several weight files `sha256` is that of the JSON `{file: its sha256}`.
    """

    source: str
    path: Path | None = None
    sha256: str | None = None
    adapter: WeightSource | None = None
    """A LoRA adapter to merge into the loaded network."""

    @property
    def is_random(self) -> bool:
        return self.source == RANDOM

    @property
    def folder_config(self) -> dict[str, Any] | None:
        """`config.json` of a folder of weights, which says what network they are for; None: there is none."""
        file = self.path / "config.json" if self.path and self.path.is_dir() else None
        return read_json(file) if file and file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """The record of a sidecar."""
        record: dict[str, Any] = {"source": self.source, "file": None, "sha256": self.sha256}
        if self.path:
            files = weight_files(self.path)
            record["file"] = files[0].name if len(files) == 1 else self.path.name
            # the cache calls each folder by the commit that it holds
            if self.path.parent.name == "snapshots":
                record["revision"] = self.path.name
        return record | ({"adapter": self.adapter.to_json()} if self.adapter else {})


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of a weight file or folder: safetensors before others, shards by the index.

    Raises `UserError` when a folder has none, or lacks a shard.
    """
    if not path.is_dir():
        return [path]
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{stem}.index.json"
        if index.is_file():
            shards = [path / name for name in sorted(set(read_json(index)["weight_map"].values()))]
            absent = [shard.name for shard in shards if not shard.is_file()]
            if absent:
                raise UserError(
                    f"{path}: {len(absent)} of {len(shards)} shards are missing, first {absent[0]}; copy all"
                )
            return shards
        if (path / stem).is_file():
            return [path / stem]
    for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt"):
        found = visible(path, pattern)
        if len(found) == 1:
            return found
    raise UserError(f"{path}: expected model.safetensors (or its shards and index), or one weight file; found neither")


def sha256_of_weights(path: Path) -> str:
    """SHA-256 of a weight file, or of a folder's one weight file, or of the JSON of its shards' hashes."""
    hashes = {file.name: sha256_of_file(file) for file in weight_files(path)}
    return next(iter(hashes.values())) if len(hashes) == 1 else sha256_of_json(hashes)


def read_state(path: Path, heads: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Read the tensors of a weight file or folder by name, out of the known containers and wrappers.

    `heads`: prefixes of names that do not decide whether every name has a wrapper.
    Raises `UserError` naming the file when it is damaged or holds no state dict.
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(path):
        state |= _state_dict(_read_file(file), file)
    # outermost first, so that the names of a compiled network inside DistributedDataParallel lose both wrappers
    for wrapper in WRAPPERS:
        body = [key for key in state if not key.startswith(heads)]
        if body and all(key.startswith(wrapper) for key in body):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _read_file(path: Path) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # published checkpoints often hold their command line, a plain record of values
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, LookupError, pickle.UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise UserError(
            f"{path}: not a weight file that can be read safely ({reason}); fetch it again or convert it to safetensors"
        ) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    while isinstance(content, dict):
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return content
        inner = [content[key] for key in CONTAINERS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    found = (
        f"a mapping of {', '.join(map(str, list(content)[:5]))}"
        if isinstance(content, dict)
        else type(content).__name__
    )
    raise UserError(
        f"{path}: expected a state dict (tensors by parameter name), alone or under {', '.join(CONTAINERS)}; "
        f"found {found}"
    )


def rename_start(name: str, table: dict[str, str]) -> str:
    """`name` with the first beginning that `table` lists replaced by what it says; the same where it lists none."""
    start = next((old for old in table if name.startswith(old)), "")
    return table.get(start, "") + name.removeprefix(start)


def split_joint(name: str, value: Tensor, *parts: str) -> dict[str, Tensor]:
    """A joint matrix or bias `...attn.qkv...` of queries, keys and values as three, their `parts` in the names."""
    shares = zip(parts, value.chunk(3), strict=True)
    return {name.replace("attn.qkv", part): share for part, share in shares}


def load_strictly(
    network: nn.Module,
    state: dict[str, Tensor],
    source: object,
    *,
    missing: tuple[str, ...] = (),
    unexpected: tuple[str, ...] = (),
) -> None:
    """Load `state` into `network`; only keys under the prefixes `missing` and `unexpected` may be without partner.

    A network on the meta device takes the tensors themselves, as float32, so that a large one is in memory once.
    Raises `UserError` that lists the first stray keys and wrong shapes.
    """
    own = network.state_dict()
    lacking = sorted(key for key in own.keys() - state.keys() if not key.startswith(missing))
    stray = sorted(key for key in state.keys() - own.keys() if not key.startswith(unexpected))
    reshaped = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if lacking or stray or reshaped:
        raise UserError(
            f"{source}: these weights are not for this network: {len(lacking)} keys missing {lacking[:3]}, "
            f"{len(stray)} unknown {stray[:3]}, {len(reshaped)} of another shape {reshaped[:3]}"
        )
    # `assign` puts the tensors in place of the meta ones, in the number format that they have: hence float32 first
    on_meta = any(value.is_meta for value in own.values())
    values = {key: value.float() if on_meta else value for key, value in state.items() if key in own}
    network.load_state_dict(values, strict=False, assign=on_meta)


def randomise(network: nn.Module) -> None:
    """Seeded normal values of scale 1 / sqrt(fan in), biases 0, so that untrained networks are the same everywhere."""
    import torch

    source = generator("random weights", RANDOM_SEED)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()  # values that one output is a sum of: all but the first axis
                parameter.copy_(torch.randn(parameter.shape, generator=source) / fan_in**0.5)
            elif name.endswith("bias"):
                parameter.zero_()
