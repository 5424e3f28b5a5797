"""The options of Stage 2."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.base.options import CommandParser, add_options, option, resolve
from common.base.runtime import UserError
from pretrain.ssl_config import adapter_folder, find_model

ADDED_BY_HAND = ("ssl_checkpoint", "datasets")  # an alias, several values
# what may change between the parts of a training without changing its numbers
WITHOUT_EFFECT = ("output", "resume", "wandb", "num_workers", "ssl_checkpoint")


@dataclass(frozen=True)
class FinetuneOptions:
    """What `finetune_lora.py` can be told.

    The study publishes none of the adapter's or the optimiser's settings; these are usual ones for LoRA.
    """

    model: str | None = option(None, "model to adapt, by its long or short name")
    ssl_checkpoint: str | None = option(
        None, "Stage 1 output to start from: a final.pt or an export (default: the model's own)"
    )
    base: Literal["stage1", "published"] = option("stage1", "published: LoRA on the published weights, without Stage 1")
    datasets: tuple[str, ...] = option((), "annotated data sets under data/ (default: the imported ones)")
    classes: str | None = option(
        None, "YAML table of classes and of the phases that belong to them (default: pretrain/phase_classes.yaml)"
    )
    output: str | None = option(None, "folder to write, best_lora/ in it (default: pretrain/checkpoints/<short name>)")
    rank: int = option(16, "rank of the adapters")
    alpha: float = option(32.0, "adapters are scaled by alpha / rank")
    dropout: float = option(0.1, "dropout before the adapters")
    mlp: bool = option(False, "adapters in the MLPs too, not in the attention alone")
    clip_len: int | None = option(None, "frames of a clip, for models of clips (default: the model's)")
    fps: float = option(4.0, "frames a second of a clip")
    validation_share: float = option(0.2, "share of each data set's videos that choose the best adapter")
    grid_seconds: float = option(
        5.0, "seconds between validation clips; an epoch has one clip for each so many seconds"
    )
    epochs: int = option(10, "most epochs")
    steps_per_epoch: int | None = option(None, "optimiser steps between validations (default: an epoch's clips)")
    patience: int = option(3, "stop after so many validations without a better balanced accuracy")
    batch_size: int | None = option(None, "clips a step (default: the model's)")
    learning_rate: float = option(1e-4, "peak rate of the adapters (AdamW, linear warm-up, cosine to 0)")
    head_learning_rate: float = option(1e-3, "peak rate of the classifier")
    warmup_share: float = option(0.05, "share of all steps that warm up")
    weight_decay: float = option(0.01, "weight decay of all weights")
    clip_norm: float = option(1.0, "largest gradient norm")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "arithmetic; auto: bf16 on a GPU that has it, else fp32. Parameters are always fp32"
    )
    gradient_checkpointing: Literal["auto", "all", "none"] = option(
        "auto", "blocks computed again in the backward pass, for less memory and a third more time; auto: the model's"
    )
    num_workers: int = option(4, "processes that read video")
    seed: int = option(42, "seed of the start values, the clips and dropout")
    resume: Literal["auto", "never"] = option(
        "auto", "auto: go on from last.pt in the output folder; never: refuse a folder that has one"
    )
    wandb: bool = option(False, "log to Weights & Biases (WANDB_MODE=offline works)")

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "clip_len", "fps", "grid_seconds", "epochs", "steps_per_epoch", "patience",
                     "batch_size", "learning_rate", "head_learning_rate", "clip_norm"):  # fmt: skip
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, found {getattr(self, name)}")
        for name in ("dropout", "warmup_share", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be from 0 to below 1, found {getattr(self, name)}")
        for name in ("weight_decay", "num_workers"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")

    @property
    def output_folder(self) -> Path:
        """The folder of this training's files."""
        return self.best_lora.parent

    @property
    def best_lora(self) -> Path:
        """The folder of the adapter that was best in validation."""
        own = adapter_folder(self.model)
        return Path(self.output).expanduser().resolve() / own.name if self.output else own

    def completed(self) -> FinetuneOptions:
        """These options with the model's own in place of what was not given."""
        model = find_model(self.model)
        choices: dict[str, Any] = {"model": model.name, "batch_size": self.batch_size or model.batch_size}
        choices["clip_len"] = (self.clip_len or model.clip_len) if model.clip_len > 1 else 1
        if self.gradient_checkpointing == "auto":
            choices["gradient_checkpointing"] = "all" if model.gradient_checkpointing else "none"
        return replace(self, **choices)

    def to_json(self) -> dict[str, Any]:
        """The options as plain values, for checkpoints and records."""
        return asdict(self) | {"datasets": list(self.datasets)}


def add_finetune_options(parser: CommandParser) -> None:
    """Add `--config` and a flag for each option."""
    parser.add_config()
    helps = {name: FinetuneOptions.__dataclass_fields__[name].metadata["help"] for name in ADDED_BY_HAND}
    parser.add_argument("--ssl_checkpoint", "--checkpoint", metavar="PATH", default=argparse.SUPPRESS,
                        help=f"{helps['ssl_checkpoint']}; relative to the current folder, pretrain/ or the root")  # fmt: skip
    parser.add_argument("--datasets", nargs="+", metavar="NAME", default=argparse.SUPPRESS, help=helps["datasets"])
    add_options(parser, FinetuneOptions, skip=ADDED_BY_HAND)


def read_finetune_options(given: dict[str, Any], config_file: str | None = None) -> FinetuneOptions:
    """Defaults < YAML file < flags, as `common.base.options.resolve`, completed by the model's own."""
    return resolve(FinetuneOptions, given, config_file).completed()
