"""Where a checkpoint keeps its networks, and what training code puts around the names of their tensors: a table each.

A network of a file has a name, the way to it: `teacher`, `state_dict`, `model.teacher`; that of a file which holds the
tensors alone is empty. `--weights FILE::NAME` asks for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.runtime import UserError, listed

if TYPE_CHECKING:
    from torch import Tensor

# Names under which training code keeps a network; where several are there the first of this table is taken.
EVALUATED = (  # what the authors' own evaluations take, mostly averages over the training
    "teacher",  # DINO, iBOT, DINOv2, DINOv3
    "online_encoder",  # BYOL
    "target_encoder",  # I-JEPA, V-JEPA
    "ema",
    "ema_*",
    "*_ema",  # timm: state_dict_ema
    "teacher_*",
)
PLAIN = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",  # DeepSpeed
    "network",
    "net",
    "base_encoder",  # MoCo v3
    "encoder_q",  # MoCo
    "encoder",
    "backbone",
    "params",
)
TRAINING_ONLY = ("student", "student_*", "online_*", "momentum_encoder", "encoder_k")
# Of these, names that no network has for a part of its own: as a prefix they tell networks in one state dict apart.
PAIRED = (
    *("teacher", "student", "target_encoder", "online_encoder", "ema", "ema_*", "*_ema"),
    *("base_encoder", "momentum_encoder", "encoder_q", "encoder_k"),
)

# Put around a network by training code; dropped where every name has it, whatever the order, as often as it is there.
WRAPPERS = ("module", "backbone", "encoder", "model", "net", "network", "_feature_blocks")  # the last: VISSL
# Put before the names of a part by compilation and by sharded or checkpointed training; dropped wherever it stands.
INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Parts beside an encoder, for a task or for training, which no feature depends on.
HEADS = (
    *("head", "heads", "*_head", "*_heads", "head_*", "fc", "classifier", "classifiers", "pooler", "prototypes"),
    *("predictor", "predictor_*", "projector", "projection", "decoder", "criterion", "*loss", "loss_*"),
    *("train_*", "val_*", "valid_*", "test_*", "metrics", "queue", "queue_ptr"),  # measures of Lightning; MoCo
)
OPTIMISER = re.compile(r"opt|optim\w*|\w*scheduler\w*|scaler|amp|callbacks|loops")
DEEPEST = 4  # containers inside containers; what lies deeper is no network

# by the name without wrappers: the key in the file, and the tensor
_State = dict[str, tuple[str, "Tensor"]]


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint: its name, its tensors by their names without wrappers."""

    name: str
    state: dict[str, Tensor]
    file_keys: dict[str, str]
    """The key in the file of each name in `state`."""
    others: tuple[str, ...] = ()
    """Names of the networks that were not taken."""

    def is_called(self, name: str | None) -> bool:
        """Whether `name` is its name or a part of the way to it."""
        return name is not None and _lies_on(name, self.name)


def is_head(key: str) -> bool:
    """Whether a tensor belongs to a part beside the encoder."""
    return _is_any(key.partition(".")[0], HEADS)


def choose_network(
    content: Any, path: Path, wanted: str | None = None, heads: tuple[str, ...] = (), *, preferred: str | None = None
) -> Network:
    """The network of a checkpoint's `content` that `wanted` names, or else `preferred` where it is there.

    Without either the first by the order of the table. `heads`: prefixes of names that do not decide whether every name
    has a wrapper.
    Raises `UserError` naming `path` and what was found when there is no such network.
    """
    found = {
        name: state for container, whole in _containers(content) for name, state in _split(container, whole, heads)
    }
    known = [name for name in found if _rank(name)]
    fitting = known
    if wanted is not None:
        found |= _by_prefix(found, wanted)
        fitting = [name for name in found if _lies_on(wanted, name)]
        if not fitting:
            raise UserError(f"{path}: no network {wanted!r} in this file; {_in_words(found, content)}")
    elif preferred is not None:
        fitting = [name for name in found if _lies_on(preferred, name)] or known
    if not fitting:
        raise UserError(
            f"{path}: expected a state dict (tensors by parameter name), alone or under {', '.join(EVALUATED[:1])}, "
            f"{', '.join(PLAIN[:4])} or the like; {_in_words(found, content)}"
        )
    name = min(fitting, key=lambda name: _rank(name) or (4, 0))
    state = _without_wrappers(found[name], heads)
    return Network(
        name,
        {key: tensor for key, (_, tensor) in state.items()},
        {key: file_key for key, (file_key, _) in state.items()},
        tuple(other for other in known if other not in (name, "")),
    )


def _lies_on(part: str, way: str) -> bool:
    return f".{part}." in f".{way}."


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _rank(name: str) -> tuple[int, int] | None:
    """Smaller is taken first; None: not taken unless it is asked for."""
    if not name:
        return 3, 0  # tensors beside containers, such as a queue; or all that there is
    parts = name.split(".")
    places = [
        next(
            (index for index, pattern in enumerate(EVALUATED + PLAIN + TRAINING_ONLY) if fnmatchcase(part, pattern)), -1
        )
        for part in parts
    ]
    if min(places) < 0:
        return None
    if min(places) < len(EVALUATED):
        return 0, min(places)
    return (2, max(places)) if max(places) >= len(EVALUATED + PLAIN) else (1, min(places))


def _containers(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, _State]]:
    """Every mapping that holds tensors, by the way to it; an optimiser's are no network's."""
    import torch

    if not isinstance(content, dict) or depth > DEEPEST:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {
        INSERTED.sub("", key): (key, value)
        for key, value in named.items()
        if isinstance(value, torch.Tensor) and value.layout == torch.strided
    }
    if tensors:
        yield name, tensors
    for key, value in named.items():
        if not OPTIMISER.fullmatch(key):
            yield from _containers(value, f"{name}.{key}" if name else key, depth + 1)


def _split(container: str, whole: _State, heads: tuple[str, ...]) -> Iterator[tuple[str, _State]]:
    """The networks of a state dict: one, or those that prefixes such as `teacher.` and `student.` tell apart."""
    state = _without_wrappers(whole, heads)
    prefixes = {key.partition(".")[0] for key in state if "." in key}
    paired = sorted(prefix for prefix in prefixes if _is_any(prefix, PAIRED))
    if not paired:
        yield container, whole
    for prefix in paired:
        yield _joined(container, prefix), _below(state, prefix)


def _by_prefix(found: dict[str, _State], wanted: str) -> dict[str, _State]:
    """Networks of any name that a user asks for: `wanted` as the prefix of some names, with or without a container."""
    ways = {name: wanted.removeprefix(f"{name}.") for name in found}
    parts = {_joined(name, way): _below(found[name], way) for name, way in ways.items()}
    return {name: state for name, state in parts.items() if state}


def _joined(container: str, name: str) -> str:
    return f"{container}.{name}" if container else name


def _below(state: _State, prefix: str) -> _State:
    return {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}


def _without_wrappers(state: _State, heads: tuple[str, ...]) -> _State:
    while True:
        body = [key for key in state if not is_head(key) and not key.startswith(heads)]
        wrapper = body[0].partition(".")[0] if body else ""
        if wrapper not in WRAPPERS or not all(key.startswith(f"{wrapper}.") for key in body):
            return state
        state = {key.removeprefix(f"{wrapper}."): value for key, value in state.items()}


def _in_words(found: dict[str, _State], content: Any) -> str:
    """What a file holds instead of a network that can be taken, and what to do."""
    named = [f"{name or 'tensors alone'} ({len(state)}: {next(iter(state))} ...)" for name, state in found.items()]
    if named:
        return f"found {listed(named, most=5)}; name one: --weights FILE::{next(iter(found)) or 'NAME'}"
    if not isinstance(content, dict):
        return f"found {type(content).__name__}; save the network's state_dict()"
    keys = [str(key) for key in content]
    if any(OPTIMISER.fullmatch(key) for key in keys) or "param_groups" in keys:
        return f"found the state of an optimiser and no network ({listed(keys, most=5)}); name the file of the weights"
    return f"found a mapping without tensors ({listed(keys, most=5) or 'empty'}); save the network's state_dict() by torch.save"
