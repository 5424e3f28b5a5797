"""Weights in memory: what is recorded of them, and a network filled with them, strictly."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.files import read_json
from common.base.runtime import UserError, counted, generator, listed, shortened, shown
from common.encoders.weights.files import READ_ERRORS, in_one_line, read_content, weight_files
from common.encoders.weights.layouts import Network, choose_network, is_head

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

# weight sources that are no file; `find` lists all of them
RANDOM = "random"
NONE = "none"
LOCAL = "local"

RANDOM_SEED = 0
NEXT_TO_NOTHING = 0.01  # a scale with which training begins a branch that it lets in by and by
COPY_AGAIN = "copy the folder again"
MOST_SIZE, MOST_LAYERS = 10_000_000, 1000  # of numbers in a network's configuration
# counts training steps of batch norm: no feature depends on it, and older files have none
STEP_COUNTER = ".num_batches_tracked"
# what a library's functions raise for files and sizes that they are not made for
MISFITS = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer


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
    network: str | None = None
    """The network of the file that is taken, such as `teacher`; None: the file holds one alone."""
    is_verified: bool = True
    """Of an adapter: whether it records the weights that it was trained on, and they are these."""
    stays_in_file: bool = field(default=False, compare=False)
    """Whether a network on the meta device takes the file's tensors as they are mapped, for whoever copies them further."""
    is_unread: bool = field(default=False, compare=False)
    """Whether the network stays on the meta device without values, for whoever asks what an encoder is and runs none."""
    found: dict[str, Any] = field(default_factory=dict, compare=False)
    """What only filling the network showed, for the record of a sidecar."""

    @property
    def is_random(self) -> bool:
        return self.source == RANDOM

    @property
    def folder_config(self) -> dict[str, Any] | None:
        """`config.json` of a folder of weights, which says what network they are for; None: there is none.

        Raises `UserError` for one that is damaged, or of a network that no machine holds.
        """
        file = self.path / "config.json" if self.path and self.path.is_dir() else None
        if file is None or not os.path.lexists(file):
            return None
        stored = read_json(file, COPY_AGAIN)
        if not isinstance(stored, dict):
            raise UserError(f"{file}: expected an object, found {shown(stored)}; {COPY_AGAIN}")
        for key, value in stored.items():
            most = MOST_LAYERS if key.endswith("layers") else MOST_SIZE
            if isinstance(value, int | float) and value > most:
                raise UserError(
                    f"{file}: {shortened(key)}: expected at most {most}, found {shown(value)}; {COPY_AGAIN}"
                )
        return stored

    @contextlib.contextmanager
    def config_errors(self) -> Iterator[None]:
        """Errors of a library that builds a network as `folder_config` says become a `UserError` that names the file."""
        from huggingface_hub.errors import StrictDataclassError

        try:
            yield
        except (*READ_ERRORS, StrictDataclassError) as error:
            file = f"{self.path}/config.json" if self.path and self.path.is_dir() else self.source
            raise UserError(f"{file}: no such network can be built ({in_one_line(error)}); {COPY_AGAIN}") from error

    def to_json(self) -> dict[str, Any]:
        """The record of a sidecar."""
        record: dict[str, Any] = {"source": self.source, "file": None, "sha256": self.sha256}
        if self.path:
            files = weight_files(self.path)
            record["file"] = files[0].name if len(files) == 1 else self.path.name
            # the cache calls each folder by the commit that it holds
            commits = [place.name for place in (self.path, *self.path.parents) if place.parent.name == "snapshots"]
            record |= {"revision": commits[0]} if commits else {}
        if self.network:
            record["network"] = self.network
        if not self.is_verified:
            record["verified"] = False
        record |= self.found
        return record | ({"adapter": self.adapter.to_json()} if self.adapter else {})


def read_network(
    path: Path,
    wanted: str | None = None,
    heads: tuple[str, ...] = (),
    *,
    preferred: str | None = None,
    uses_values: bool = True,
) -> Network:
    """Read a network out of a weight file or folder, under its names without wrappers.

    `wanted`, `heads` and `preferred` as in `choose_network`, `uses_values` as in `read_content`. Values stay on the disk
    until they are used, as far as the format allows: files of training hold several networks and an optimiser beside the
    one that is taken.
    Raises `UserError` naming the file when it is damaged or holds no such network.
    """
    content = read_content(path, lazy=True, uses_values=uses_values)
    return choose_network(content, path, wanted, heads, preferred=preferred)


def rename_start(name: str, table: dict[str, str]) -> str:
    """`name` with the first beginning that `table` lists replaced by what it says; the same where it lists none."""
    start = next((old for old in table if name.startswith(old)), "")
    return table.get(start, "") + name.removeprefix(start)


def renamed_by_library(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The authors' names as timm's, positions at the network's size, by the `checkpoint_filter_fn` of its module.

    Names that timm does not know stay.
    """
    module = importlib.import_module(type(network).__module__)
    if not hasattr(module, "checkpoint_filter_fn"):
        return state
    try:
        return module.checkpoint_filter_fn(dict(state), network)
    except MISFITS:  # weights of another network: strict loading says so, by the names in the file
        return state


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
    file_keys: Mapping[str, str] | None = None,
    stays_in_file: bool = False,
) -> None:
    """Load `state` into `network`; without partner may be only heads and keys under `missing` and `unexpected`.

    A network on the meta device takes copies of the tensors, as float32, so that a large one is in memory once; with
    `stays_in_file` the tensors themselves.
    Raises `UserError` that lists, by `file_keys` as the file has them, the first stray keys, wrong shapes and values.
    """
    own, keys = network.state_dict(), file_keys or {}
    shared = sorted(own.keys() & state.keys())
    beside = sorted(key for key in state.keys() - own.keys() if is_head(key) or key.startswith(unexpected))
    lacking = [
        key for key in own.keys() - state.keys() if not key.startswith(missing) and not key.endswith(STEP_COUNTER)
    ]
    stray = sorted({keys.get(key, key) for key in state.keys() - own.keys() - set(beside)})
    misfits = {keys.get(key, key): what for key in shared if (what := _misfit(state[key], own[key]))}
    faults = []
    if lacking:
        absent = sorted({_expected_key(key, keys) for key in lacking})
        faults.append(f"{len(absent)} missing ({listed(absent, most=5)})")
    if stray:
        faults.append(f"{len(stray)} unknown ({listed(stray, most=5)})")
    if misfits:
        first = next(iter(misfits.values()))
        faults.append(f"{len(misfits)} unfit ({listed(list(misfits), most=5)}; the first has {first})")
    if faults:
        raise UserError(
            f"{source}: these weights are not for this network: of the file's keys {', '.join(faults)}; give weights of "
            "the architecture and size that the model's config.yaml names; where the file holds it under another container "
            "or prefix, --weights FILE::NAME takes what is there"
        )
    refuse_not_finite([(keys.get(key, key), state[key]) for key in shared], source)
    if beside:
        left = listed([keys.get(key, key) for key in beside], most=5)
        log.info("%s: left out %s that no feature depends on: %s", source, counted(len(beside), "tensor"), left)
    _fill(network, {key: state[key] for key in shared}, copy=not stays_in_file)


def _misfit(value: Tensor, own: Tensor) -> str | None:
    """Why a tensor of a file cannot stand in the place of the network's; None: it can."""
    if own.shape != value.shape:
        return f"shape {tuple(value.shape)}, expected {tuple(own.shape)}"
    if value.is_meta:
        return "no values, only a shape"
    if own.is_floating_point() and not value.is_floating_point():
        return f"{str(value.dtype).removeprefix('torch.')} instead of floating-point numbers"
    return None


def refuse_not_finite(values: list[tuple[str, Tensor]], source: object) -> None:
    """Raise `UserError` that names the first of `values`, keys of a file with their tensors, which hold NaN or infinity."""
    broken = {
        key
        for key, value in values
        # a sum is not finite when a value is not, and costs less than a look at each; it may also overflow
        if value.is_floating_point() and not value.float().sum().isfinite() and not value.float().isfinite().all()
    }
    if broken:
        raise UserError(
            f"{source}: values that are not finite, NaN or infinite, in {counted(len(broken), 'tensor')} "
            f"({listed(sorted(broken), most=5)}): the training failed or the file is damaged; use another checkpoint"
        )


def _fill(network: nn.Module, values: dict[str, Tensor], *, copy: bool) -> None:
    import torch

    own = network.state_dict()
    on_meta = any(value.is_meta for value in own.values())
    if on_meta:
        # `assign` puts the tensors in place of the meta ones, in the number format that they have: hence float32 first.
        # Copies, because a network that lies in the file itself would change with it, hours into an extraction.
        values = {key: value.to(torch.float32, copy=copy) for key, value in values.items()}
    network.load_state_dict(values, strict=False, assign=on_meta)


def keys_in_the_file(state: Mapping[str, Tensor], read: Network) -> dict[str, str]:
    """The key in the file of each name of `state`, to which a family's renaming took the tensors of `read`.

    A renamed tensor, or a part of one, lies where the file's tensor lies in memory; one that was made has no key.
    """
    spans = [(value.data_ptr(), value.nbytes, read.file_keys[name]) for name, value in read.state.items()]
    keys = {}
    for name, value in state.items():
        place = value.data_ptr()
        for start, num_bytes, key in spans:
            if start <= place < start + num_bytes:
                keys[name] = key
    return keys


def _expected_key(name: str, file_keys: Mapping[str, str]) -> str:
    """The key under which the file would hold `name`, which it lacks: as the same part of another layer has it.

    `name` itself where the file has nothing like it.
    """
    numbers = NUMBER.findall(name)
    for other, key in file_keys.items():
        if NUMBER.sub("#", other) == NUMBER.sub("#", name) and len(NUMBER.findall(key)) == len(numbers):
            return NUMBER.sub("{}", key.replace("{", "{{").replace("}", "}}")).format(*numbers)
    for part, partner in (("weight", "bias"), ("bias", "weight")):
        key = file_keys.get(name.removesuffix(part) + partner, "")
        if name.endswith(part) and key.endswith(partner):
            return key.removesuffix(partner) + part
    return name


def randomise(network: nn.Module) -> int:
    """Seeded normal values of scale 1 / sqrt(fan in), biases 0, so that untrained networks are the same everywhere.

    Scales of branches that training begins at next to nothing (LayerScale at 1e-5) become 1: as they begin, no block does
    anything, and a CLS token is the same whatever the picture. Returns how many there were.
    """
    import torch

    source, num_raised = generator("random weights", RANDOM_SEED), 0
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()  # values that one output is a sum of: all but the first axis
                parameter.copy_(torch.randn(parameter.shape, generator=source) / fan_in**0.5)
            elif name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1 and 0 < parameter.abs().max() < NEXT_TO_NOTHING:
                parameter.fill_(1)
                num_raised += 1
    return num_raised
