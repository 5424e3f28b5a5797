"""Checkpoints of the head: written atomically, read without executing anything.

A checkpoint holds tensors and plain Python values only. A bare state dict of the original implementation is read too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.base.files import misfit, save_tensors
from common.base.options import from_mapping
from common.base.runtime import UserError, first_line, listed, shortened
from common.dataset.phases import BACKGROUND
from common.encoders.weights.files import READ_ERRORS, read_content
from common.features.files import IDENTITY_SHAPE
from common.head.config import TrainConfig
from common.head.networks.catalogue import DEFAULT_HEAD

if TYPE_CHECKING:
    from common.head.networks.layers import Head

FORMAT = 1
# of each head the module in networks/ and its class; only the one that is asked for is opened
NETWORKS = {
    "mstcn++": ("mstcn", "MS_TCN2"),
    "linear": ("linear", "FrameLinear"),
    "gru": ("gru", "GRUHead"),
    "tecno": ("tecno", "TeCNO"),
    "asformer": ("asformer", "ASFormer"),
}
# what every version has kept; `common.base.files.misfit` holds a file to it
SHAPE = {
    "config": dict, "phases": [str], "inputs_hash": str, "feature_identity?": IDENTITY_SHAPE, "num_threads": int,
    "epoch": int, "history": [{"loss": float, "accuracy": float, "seconds": float}], "model": dict, "optimizer": dict,
    "background?": str, "label_fps?": float, "label_every?": int, "features_per_second?": float,
}  # fmt: skip


@dataclass
class Checkpoint:
    """A head after `epoch` finished epochs.

    `inputs_hash` identifies the training features and labels; `feature_identity` says how the features were made
    (None for features without sidecar); `history` has one record an epoch; `background` is the phase that counts as that,
    if any, `label_fps` or `label_every` the rate of the labels, and `features_per_second` that of the features (the median of
    the videos), which files of earlier versions do not say.
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
    label_fps: float | None = None
    label_every: int | None = None
    features_per_second: float | None = None

    def take(self, head: Head, optimizer: torch.optim.Optimizer) -> None:
        """Hold what both have learned, in tensors of its own: the head's may be views of one another's memory."""
        self.model = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in head.state_dict().items()
        }
        self.optimizer = optimizer.state_dict()

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
    return Checkpoint(**{entry.name: content[entry.name] for entry in fields(Checkpoint) if entry.name in content})


def is_own(content: Any) -> bool:
    """Whether the content of a file is that of a `Checkpoint`, and not a bare state dict."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_content(path: Path) -> Any:
    """All that a checkpoint's file holds, on the CPU, whoever wrote it.

    Raises `UserError` naming the file when it is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; run --action train first")
    content = read_content(path, "damaged or unsafe checkpoint ({reason}); train again")
    if is_own(content):
        wrong = misfit(content, SHAPE)
        if not wrong and not 0 <= content["epoch"] == len(content["history"]):
            wrong = f"epoch {content['epoch']} with a history of {len(content['history'])}"
        if wrong:
            raise UserError(f"{path}: damaged checkpoint ({wrong}); train again")
    return content


def build_head(config: TrainConfig, num_classes: int) -> Head:
    """The head that a configuration describes, with initial weights that depend on its seed only."""
    module, name = NETWORKS[config.head]
    network: type[Head] = getattr(import_module(f"common.head.networks.{module}"), name)
    sizes = config.head_options
    if config.head == DEFAULT_HEAD:
        sizes = {name: getattr(config, name) for name in ("num_layers_PG", "num_layers_R", "num_R", "num_f_maps")}
    if config.lookahead:
        sizes = sizes | {"lookahead": config.lookahead_frames}
    # layers draw their weights from torch's global generator: seeded here, and put back for whoever uses it next
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = network(dim=config.features_dim, num_classes=num_classes, causal=config.causal, **sizes)
    if config.standardise == "none":
        return head
    from common.head.networks.layers import Standardised  # the study's features are taken as they are

    return Standardised(head, config.features_dim)


def load_head(path: Path, config: TrainConfig, num_classes: int) -> Head:
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
    fill_head(head, state, path)
    return head.eval()


def fill_head(head: Head, state: Any, path: Path) -> None:
    """Put the parameters of a file into a head.

    Raises `UserError` naming the file and those that are missing, unknown, of another shape or kind, or not finite.
    """
    own, given = head.state_dict(), state if isinstance(state, Mapping) else {}
    faults = {
        "missing": own.keys() - given.keys(),
        "unknown": given.keys() - own.keys(),
        "of another shape or kind": {key for key in own.keys() & given.keys() if not _is_like(given[key], own[key])},
    }
    faults["not finite"] = {
        key for key in own.keys() & given.keys() - faults["of another shape or kind"] if not given[key].isfinite().all()
    }
    if any(faults.values()):
        words = [
            f"{len(keys)} {fault} ({listed(sorted(map(str, keys)), most=3)})" for fault, keys in faults.items() if keys
        ]
        raise UserError(f"{path}: these parameters do not fit the head: {', '.join(words)}; train again")
    head.load_state_dict(given)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Put Adam's moments of a file into an optimizer, whose own settings stay: they depend on the device.

    Raises `UserError` naming the file when they are not for it.
    """
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = [optimizer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq")]
                is_sound = all(_is_like(each, parameter) and each.isfinite().all() for each in moments)
                if not is_sound or not float(optimizer.state[parameter]["step"]) > 0:
                    raise ValueError("they are of other parameters, or not finite")
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: damaged moments of the optimizer ({shortened(first_line(error))}); train without --resume, or give "
            "another folder"
        ) from error


def _is_like(value: Any, own: torch.Tensor) -> bool:
    """Whether a value of a file is a dense tensor of the shape of `own`, and of real floating-point numbers."""
    return (
        isinstance(value, torch.Tensor)
        and value.shape == own.shape
        and value.layout == torch.strided
        and value.is_floating_point()
        and not value.is_meta
    )


def remove_training(checkpoint: Path) -> None:
    """Remove the folder of a training that nothing depends on any more, and that of its run where it was the last one."""
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    of_run = checkpoint.parents[1]
    if of_run.is_dir() and not any(of_run.iterdir()):
        of_run.rmdir()
