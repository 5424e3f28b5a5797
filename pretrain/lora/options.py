"""The options of Stage 2, without torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.base.options import CommandParser, add_options, check_ranges, option
from pretrain.ssl_config import adapter_folder, find_model


@dataclass(frozen=True)
class FinetuneOptions:
    """Settings of `finetune_lora.py`.

    The study publishes none of the adapter's or the optimiser's settings; these are usual ones for LoRA.
    """

    model: str | None = option(None, group="model")
    """Model to adapt, by its long or short name."""
    ssl_checkpoint: str | None = option(None, group="model", alias="--checkpoint")
    """The Stage 1 output to start from: a final.pt or an export (default: the model's own); relative to the current
    folder, pretrain/ or the root."""
    base: Literal["stage1", "published"] = option("stage1", group="model")
    """Published: LoRA on the published weights, without Stage 1."""
    datasets: tuple[str, ...] = option((), group="data")
    """Annotated data sets under data/ (default: the imported ones)."""
    classes: str | None = option(None, group="data")
    """YAML table of classes and of the phases that belong to them (default:
    pretrain/annotations/phase_classes.yaml)."""
    packed: tuple[str, ...] = option((), group="data")
    """Folders of packed videos (pack_videos.py) that are read in place of the data sets' own videos."""
    exclude: tuple[str, ...] = option((), group="data")
    """Not learned from: data sets, folders of videos, .bundle lists of a split, manifests of pretraining."""
    output: str | None = option(None, group="output")
    """Folder to write, best_lora/ in it (default: pretrain/checkpoints/<short name>)."""
    rank: int = option(16, group="model", above=0)
    """Rank of the adapters."""
    alpha: float = option(32.0, group="model", above=0)
    """Adapters are scaled by alpha / rank."""
    dropout: float = option(0.1, group="model", minimum=0, below=1)
    """Dropout before the adapters."""
    mlp: bool = option(False, group="model")
    """Adapters in the MLPs too, not in the attention alone."""
    target_modules: tuple[str, ...] = option((), group="model")
    """Parts of each layer that get adapters, by name, such as attention.query attention.value (default: the attention's four
    projections)."""
    clip_len: int | None = option(None, group="data", unit="frames", above=0)
    """Length of a clip, for models of clips (default: the model's)."""
    fps: float = option(4.0, group="data", unit="frames a second", above=0)
    """Frames of a clip in a second."""
    crop_scale: float = option(0.6, group="data", above=0, maximum=1)
    """Training clips: smallest share of the picture's area that is cut out; 1: the whole picture, as in validation."""
    flip_share: float = option(0.0, group="data", minimum=0, maximum=1)
    """Training clips: share of them that is mirrored (a left eye then looks like a right one)."""
    colour: float = option(0.2, group="data", minimum=0, below=1)
    """Training clips: strength by which brightness, contrast and saturation change, one change a clip; 0: none."""
    validation_share: float = option(0.2, group="data", minimum=0, below=1)
    """Share of each data set's videos that choose the best adapter."""
    grid_seconds: float = option(5.0, group="data", unit="seconds", above=0)
    """Time between validation clips; an epoch has one clip for each such stretch."""
    epochs: int = option(10, unit="epochs", above=0)
    """Most epochs."""
    steps_per_epoch: int | None = option(None, unit="steps", above=0)
    """Optimiser steps between validations (default: an epoch's clips)."""
    patience: int = option(3, unit="validations", above=0)
    """Stop after so many validations without a better balanced accuracy."""
    batch_size: int | None = option(None, unit="clips", above=0)
    """Clips a step (default: the model's)."""
    learning_rate: float = option(1e-4, above=0)
    """Peak rate of the adapters (AdamW, linear warm-up, cosine to 0)."""
    head_learning_rate: float = option(1e-3, above=0)
    """Peak rate of the classifier."""
    warmup_share: float = option(0.05, minimum=0, below=1)
    """Share of all steps that warm up."""
    weight_decay: float = option(0.01, minimum=0)
    """Weight decay of all weights."""
    clip_norm: float = option(1.0, above=0)
    """Largest gradient norm."""
    precision: Literal["auto", "fp32", "bf16"] = option("auto", group="machine")
    """Arithmetic; auto: bf16 on a GPU that has it, else fp32. Parameters are always fp32."""
    gradient_checkpointing: Literal["auto", "all", "none"] = option("auto", group="machine")
    """Blocks computed again in the backward pass, for less memory and a third more time; auto: the model's."""
    num_workers: int = option(4, group="machine", unit="processes", minimum=0)
    """Processes that read video."""
    seed: int = option(42)
    """Seed of the start values, the clips and dropout."""
    resume: Literal["auto", "never"] = option("auto", group="output")
    """auto: resume from last.pt in the output folder; never: refuse a folder that has one."""
    wandb: bool = option(False, group="output")
    """Log to Weights & Biases (WANDB_MODE=offline works)."""

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
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def add_finetune_options(parser: CommandParser) -> None:
    """Add `--config` and a flag for each option."""
    parser.add_config()
    add_options(parser, FinetuneOptions)
