"""The options of Stage 2, without torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from common.base.options import CommandParser, add_options, check_ranges, help_of, option
from pretrain.ssl_config import adapter_folder, find_model

ALIASED = "ssl_checkpoint"  # the option that has a second name


@dataclass(frozen=True)
class FinetuneOptions:
    """Settings of `finetune_lora.py`.

    The study publishes none of the adapter's or the optimiser's settings; these are usual ones for LoRA.
    """

    model: str | None = option(None, "model to adapt, by its long or short name", group="model")
    ssl_checkpoint: str | None = option(
        None,
        "Stage 1 output to start from: a final.pt or an export (default: the model's own); relative to the current "
        "folder, pretrain/ or the root",
        group="model",
    )
    base: Literal["stage1", "published"] = option(
        "stage1", "published: LoRA on the published weights, without Stage 1", group="model"
    )
    datasets: tuple[str, ...] = option((), "annotated data sets under data/ (default: the imported ones)", group="data")
    classes: str | None = option(
        None,
        "YAML table of classes and of the phases that belong to them (default: "
        "pretrain/annotations/phase_classes.yaml)",
        group="data",
    )
    output: str | None = option(
        None, "folder to write, best_lora/ in it (default: pretrain/checkpoints/<short name>)", group="output"
    )
    rank: int = option(16, "rank of the adapters", group="model", above=0)
    alpha: float = option(32.0, "adapters are scaled by alpha / rank", group="model", above=0)
    dropout: float = option(0.1, "dropout before the adapters", group="model", minimum=0, below=1)
    mlp: bool = option(False, "adapters in the MLPs too, not in the attention alone", group="model")
    clip_len: int | None = option(
        None, "length of a clip, for models of clips (default: the model's)", group="data", unit="frames", above=0
    )
    fps: float = option(4.0, "frames of a clip in a second", group="data", unit="frames a second", above=0)
    validation_share: float = option(
        0.2, "share of each data set's videos that choose the best adapter", group="data", minimum=0, below=1
    )
    grid_seconds: float = option(
        5.0,
        "time between validation clips; an epoch has one clip for each such stretch",
        group="data",
        unit="seconds",
        above=0,
    )
    epochs: int = option(10, "most epochs", unit="epochs", above=0)
    steps_per_epoch: int | None = option(
        None, "optimiser steps between validations (default: an epoch's clips)", unit="steps", above=0
    )
    patience: int = option(
        3, "stop after so many validations without a better balanced accuracy", unit="validations", above=0
    )
    batch_size: int | None = option(None, "clips a step (default: the model's)", unit="clips", above=0)
    learning_rate: float = option(1e-4, "peak rate of the adapters (AdamW, linear warm-up, cosine to 0)", above=0)
    head_learning_rate: float = option(1e-3, "peak rate of the classifier", above=0)
    warmup_share: float = option(0.05, "share of all steps that warm up", minimum=0, below=1)
    weight_decay: float = option(0.01, "weight decay of all weights", minimum=0)
    clip_norm: float = option(1.0, "largest gradient norm", above=0)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "arithmetic; auto: bf16 on a GPU that has it, else fp32. Parameters are always fp32", group="machine"
    )
    gradient_checkpointing: Literal["auto", "all", "none"] = option(
        "auto",
        "blocks computed again in the backward pass, for less memory and a third more time; auto: the model's",
        group="machine",
    )
    num_workers: int = option(4, "processes that read video", group="machine", unit="processes", minimum=0)
    seed: int = option(42, "seed of the start values, the clips and dropout")
    resume: Literal["auto", "never"] = option(
        "auto", "auto: resume from last.pt in the output folder; never: refuse a folder that has one", group="output"
    )
    wandb: bool = option(False, "log to Weights & Biases (WANDB_MODE=offline works)", group="output")

    def __post_init__(self) -> None:
        check_ranges(self)

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
    """Add `--config` and a flag for each option; `--ssl_checkpoint` is `--checkpoint` too."""
    parser.add_config()
    (aliased,) = (entry for entry in fields(FinetuneOptions) if entry.name == ALIASED)
    parser.groups["model"].add_argument(
        f"--{ALIASED}", "--checkpoint", metavar="PATH", default=argparse.SUPPRESS, help=help_of(aliased)
    )
    add_options(parser, FinetuneOptions, skip=(ALIASED,))
