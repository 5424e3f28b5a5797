"""Checkpoints of the head: written atomically, read without executing anything.

A checkpoint holds tensors and plain Python values only. A bare state dict of the original implementation is read too.
"""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.base.files import save_tensors
from common.base.options import from_mapping
from common.base.runtime import UserError
from common.dataset.phases import BACKGROUND
from common.head.config import TrainConfig
from common.head.networks.mstcn import MS_TCN2

FORMAT = 1


@dataclass
class Checkpoint:
    """A head after `epoch` finished epochs.

    `inputs_hash` identifies the training features and labels; `feature_identity` says how the features were made
    (None for features without sidecar); `history` has one record an epoch; `background` is the phase that counts as that,
    if any, which files of earlier versions do not say.
    """

    config: dict[str, Any]
    phases: list[str]
    inputs_hash: str
    feature_identity: dict[str, Any] | None
    num_threads: int
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    background: str | None = BACKGROUND

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically."""
        save_tensors(path, {"format": FORMAT} | self.__dict__)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint on the CPU.

    Raises `UserError` naming the file when it is missing, damaged or something else.
    """
    content = load_content(path)
    if not is_own(content):
        raise UserError(f"{path}: not a checkpoint of this project; train again without --resume")
    return Checkpoint(**{key: value for key, value in content.items() if key != "format"})


def is_own(content: Any) -> bool:
    """Whether the content of a file is that of a `Checkpoint`, and not a bare state dict."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_content(path: Path) -> Any:
    """All that a checkpoint's file holds, on the CPU, whoever wrote it.

    Raises `UserError` naming the file when it is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; run --action train first")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:  # OSError: a short file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: damaged or unsafe checkpoint ({reason}); train again") from error


def build_head(config: TrainConfig, num_classes: int) -> MS_TCN2:
    """The head that a configuration describes, with initial weights that depend on its seed only."""
    # layers draw their weights from torch's global generator: seeded here, and put back for whoever uses it next
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MS_TCN2(
            config.num_layers_PG,
            config.num_layers_R,
            config.num_R,
            config.num_f_maps,
            config.features_dim,
            num_classes,
            causal=config.causal,
        )


def load_head(path: Path, config: TrainConfig, num_classes: int) -> MS_TCN2:
    """The trained head of a checkpoint, or of a state dict of the original implementation, in eval mode.

    For our own checkpoints the architecture is the checkpoint's; for a bare state dict it is `config`'s.

    Raises `UserError` when the parameters do not fit.
    """
    content = load_content(path)
    if is_own(content):
        config, state = from_mapping(TrainConfig, content["config"], path), content["model"]
        if len(content["phases"]) != num_classes:
            raise UserError(f"{path}: trained on {len(content['phases'])} phases, the data set has {num_classes}")
    else:
        state = content
    head = build_head(config, num_classes)
    try:
        head.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{path}: these parameters do not fit the head: {error}") from error
    return head.eval()
