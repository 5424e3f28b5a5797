"""The models of `pretrain/`, under long and short names, where their files lie, and the options of a training."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.base import paths
from common.base.options import CommandParser, add_options, option, resolve
from common.base.runtime import UserError
from common.encoders.config import EncoderConfig, read_encoder_config
from pretrain.annotations.cataracts1k import RELEASE
from pretrain.video_data.clusters import read_clusters
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.sampling import BalancedSampling


@dataclass(frozen=True)
class SslModel:
    """A network that can be pretrained, and what it is trained with unless options say otherwise."""

    name: str
    """The long name, that of the outputs of Stage 1."""
    short: str
    family: Literal["dinov3", "vjepa2", "videomae", "caformer"]
    architecture: str
    """A key of the table `ARCHITECTURES` of the family's module in `common.encoders`."""
    encoder: str
    """The folder under `models/` of the same encoder as published, whose config knows where weights are to be had."""
    width: int
    """Values of a token, or channels of the last stage."""
    hub_id: str | None
    """Hugging Face repository of the start weights; None: none there."""
    crop_size: int
    """Side of the square input in pixels (of the global crops, where there are several)."""
    batch_size: int
    """Samples a process and micro-batch."""
    clip_len: int = 1
    precision: Literal["fp32", "bf16"] = "bf16"
    sharding: Literal["ddp", "fsdp"] = "ddp"
    gradient_checkpointing: bool = False

    @property
    def is_tiny(self) -> bool:
        """Whether this is a network for trials, of which no weights exist."""
        return self.architecture.startswith("tiny")

    def encoder_config(self) -> EncoderConfig:
        """The published encoder's configuration, with this model's architecture."""
        config = read_encoder_config(paths.model(self.encoder).config)
        config = replace(config, title=self.name, architecture=self.architecture, feature_dim=self.width)
        # what the folder says about access is about its own weights
        return replace(config, weights=f"hub:{self.hub_id}", access=None) if self._has_other_weights(config) else config

    def _has_other_weights(self, config: EncoderConfig) -> bool:
        return self.hub_id is not None and config.weights != f"hub:{self.hub_id}"


MODELS = (
    SslModel("dinov3-vitb16", "dinov3-b", "dinov3", "vitb16", "DinoV3-ViT-B16", 768,
             "facebook/dinov3-vitb16-pretrain-lvd1689m", 224, 64),
    SslModel("dinov3-vitl16", "dinov3-l", "dinov3", "vitl16", "DinoV3-ViT-L16", 1024,
             "facebook/dinov3-vitl16-pretrain-lvd1689m", 224, 32),
    SslModel("dinov3-vit7b16", "dinov3-7b", "dinov3", "vit7b16", "DinoV3-ViT-7B16", 4096,
             "facebook/dinov3-vit7b16-pretrain-lvd1689m", 256, 4, sharding="fsdp", gradient_checkpointing=True),
    SslModel("vjepa2-vitl-fpc64-256", "vjepa2-l", "vjepa2", "vjepa2-vitl", "V-JEPA2-ViT-L", 1024,
             "facebook/vjepa2-vitl-fpc64-256", 256, 8, clip_len=16, gradient_checkpointing=True),
    SslModel("vjepa2-vitg-fpc64-384", "vjepa2-g", "vjepa2", "vjepa2-vitg", "V-JEPA2-ViT-g16-384", 1408,
             "facebook/vjepa2-vitg-fpc64-384", 384, 2, clip_len=16, sharding="fsdp", gradient_checkpointing=True),
    SslModel("videomae-b", "videomae-b", "videomae", "videomae-vitb", "SurgRec-MAE", 768,
             "MCG-NJU/videomae-base", 224, 16, clip_len=16),
    SslModel("caformer-s18", "caformer-s18", "caformer", "caformer_s18", "SurgeNet-CAFormer-S18", 512, None, 224, 64),
    SslModel("dinov3-tiny", "dinov3-tiny", "dinov3", "tiny", "DinoV3-ViT-B16", 48, None, 64, 4, precision="fp32"),
    SslModel("vjepa2-tiny", "vjepa2-tiny", "vjepa2", "tiny", "V-JEPA2-ViT-L", 48, None, 64, 2, clip_len=8,
             precision="fp32"),
    SslModel("videomae-tiny", "videomae-tiny", "videomae", "tiny", "SurgRec-MAE", 96, None, 64, 2, clip_len=8,
             precision="fp32"),
    SslModel("caformer-tiny", "caformer-tiny", "caformer", "tiny_caformer_s18", "SurgeNet-CAFormer-S18", 32, None, 64, 4,
             precision="fp32"),
)  # fmt: skip


def find_model(name: str | None) -> SslModel:
    """The model with this long or short name.

    Raises `UserError` that lists the models, and the nearest one.
    """
    known = {key: model for model in MODELS for key in (model.name, model.short)}
    if name in known:
        return known[name]
    listed = ", ".join(model.name if model.name == model.short else f"{model.name} ({model.short})" for model in MODELS)
    near = difflib.get_close_matches(name or "", known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"--model {name or 'is missing'}: there are {listed}{hint}")


def backbone_folder(name: str) -> Path:
    """Where Stage 1 of a model, by either name, is kept."""
    return paths.pretrained_backbone(find_model(name).name)


def adapter_folder(name: str) -> Path:
    """Where the LoRA adapter of a model, by either name, is kept."""
    return paths.pretrained_adapter(find_model(name).short)


@dataclass(frozen=True)
class TrainingOptions:
    """What every self-supervised training can be told; recipes add their own."""

    model: str | None = option(None, "model to train, by its long or short name")
    videos: tuple[str, ...] = option((), "corpora: folders of videos, or names of data sets under data/")
    exclude: tuple[str, ...] = option((), "data sets whose videos must not be trained on, wherever copies of them lie")
    output: str | None = option(None, "folder to write (default: pretrain/checkpoints/ssl/<long name>)")
    init: str | None = option(
        None,
        "start weights: a published name, hub:ORG/NAME, a local file or folder, or 'random' (default: the published "
        "ones of the model)",
    )
    epochs: int = option(100, "passes over the corpora; an epoch is a fixed number of steps")
    steps_per_epoch: int | None = option(
        None,
        "optimiser steps an epoch (default: as many as draw one sample for each second of video, or for clips one for "
        "each clip's duration)",
    )
    max_steps: int | None = option(None, "train this many steps instead of the epochs")
    batch_size: int | None = option(None, "samples a process and micro-batch (default: the model's)")
    accumulate: int = option(1, "micro-batches an optimiser step")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "arithmetic; auto: the model's on a GPU, fp32 on a CPU. Parameters and averages are always fp32"
    )
    sharding: Literal["auto", "none", "ddp", "fsdp"] = option(
        "auto", "how several processes share the work; auto: the model's with several, none with one"
    )
    compile: bool = option(False, "torch.compile the networks, block by block")
    gradient_checkpointing: Literal["auto", "all", "none"] = option(
        "auto", "blocks computed again in the backward pass, for less memory and a third more time; auto: the model's"
    )
    num_workers: int = option(4, "processes a rank that read video")
    seed: int = option(42, "seed of the start values, the samples and every random number")
    save_every: int = option(500, "steps between checkpoints")
    keep_last: int = option(2, "checkpoints to keep")
    resume: Literal["auto", "never"] = option(
        "auto", "auto: go on from the newest checkpoint in the output folder; never: refuse a folder that has one"
    )
    monitor_every: int = option(500, "steps between health checks; 0: none")
    monitor_samples: int = option(64, "samples of the fixed batch on which health is checked")
    probe: str | None = option(
        None, "labelled data set whose phases the features must tell apart by nearest neighbours"
    )
    stop_on_collapse: bool = option(True, "stop when the features have collapsed in several checks running")
    wandb: bool = option(False, "log to Weights & Biases (WANDB_MODE=offline works)")

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "max_steps", "batch_size", "accumulate", "save_every", "keep_last"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, found {getattr(self, name)}")
        for name in ("num_workers", "monitor_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.monitor_samples < 2:
            raise UserError(f"monitor_samples must be at least 2, found {self.monitor_samples}")

    @property
    def output_folder(self) -> Path:
        """The folder of this training's files."""
        return Path(self.output).expanduser() if self.output else backbone_folder(self.model)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole training."""
        return self.max_steps or self.epochs * (self.steps_per_epoch or steps_per_epoch)

    def completed(self, *, on_gpu: bool, world_size: int) -> TrainingOptions:
        """These options with the model's own in place of what was not given.

        Raises `UserError` for processes that would train apart.
        """
        model = find_model(self.model)
        choices: dict[str, Any] = {"model": model.name, "batch_size": self.batch_size or model.batch_size}
        if self.precision == "auto":
            choices["precision"] = model.precision if on_gpu else "fp32"
        if self.sharding == "none" and world_size > 1:
            raise UserError(f"--sharding none with {world_size} processes: each would train alone; use ddp or fsdp")
        if world_size == 1:
            choices["sharding"] = "none"
        elif self.sharding == "auto":
            choices["sharding"] = model.sharding
        if self.gradient_checkpointing == "auto":
            choices["gradient_checkpointing"] = "all" if model.gradient_checkpointing else "none"
        return replace(self, **choices)

    def to_json(self) -> dict[str, Any]:
        """The options as plain values, for checkpoints and records."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def steps_per_epoch(total_seconds: float, seconds_per_sample: float, global_batch: int) -> int:
    """Steps in which as many samples are drawn as `total_seconds` of video hold, at least one."""
    return max(1, math.ceil(total_seconds / seconds_per_sample / global_batch))


def add_training_options(parser: CommandParser, cls: type[TrainingOptions] = TrainingOptions) -> None:
    """Add `--config` and a flag for each field of `cls`."""
    parser.add_config()
    add_options(parser, cls)


def read_training_options(
    given: dict[str, Any], cls: type[TrainingOptions] = TrainingOptions, config_file: str | None = None
) -> TrainingOptions:
    """Defaults < YAML file < flags, as `common.base.options.resolve`; the model must exist."""
    options = resolve(cls, given, config_file)
    find_model(options.model)
    return options


@dataclass(frozen=True)
class PretrainingOptions(TrainingOptions):
    """The options of a recipe are a subclass of this; one that trains on clips has `fps` too."""

    videos: tuple[str, ...] = option(
        (RELEASE,), f"corpora: folders of videos, or names of data sets under data/ (default: {RELEASE})"
    )
    corpus_alpha: float = option(
        0.5, "a corpus is drawn in proportion to its hours to this power: 1 every clip alike, 0 every corpus alike"
    )
    corpus_weights: str | None = option(
        None, "how often each corpus is drawn, in place of --corpus_alpha: NAME=WEIGHT,NAME=WEIGHT"
    )
    clusters: str | None = option(
        None, "file of clusters of the corpora (cluster_videos.py), between which draws are balanced inside a corpus"
    )
    cluster_alpha: float = option(0.5, "as --corpus_alpha, for the clusters of a corpus")
    open_videos: int = option(8, "videos that each reading process keeps open")
    crop_size: int | None = option(None, "side of the square input in pixels (default: the model's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("corpus_alpha", "cluster_alpha"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.crop_size is not None and self.crop_size < 1:
            raise UserError(f"crop_size must be greater than 0, found {self.crop_size}")
        if self.open_videos < 1:
            raise UserError(f"open_videos must be greater than 0, found {self.open_videos}")

    def crop_size_of(self, model: SslModel) -> int:
        """Side of the square input in pixels, of the global crops where there are several."""
        return self.crop_size or model.crop_size

    def clip_len_of(self, model: SslModel) -> int:
        """Frames of a sample."""
        return model.clip_len

    def sampling(self, corpora: Sequence[Corpus]) -> BalancedSampling:
        """Which clip is which sample.

        Raises `UserError` for weights or clusters that do not fit the corpora.
        """
        return BalancedSampling(
            corpora,
            alpha=self.corpus_alpha,
            weights=read_weights(self.corpus_weights) if self.corpus_weights else None,
            clusters=read_clusters(Path(self.clusters).expanduser()) if self.clusters else None,
            cluster_alpha=self.cluster_alpha,
        )


def read_weights(text: str) -> dict[str, float]:
    """`a=1,b=0.5` as numbers by name; raises `UserError` for anything else."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = None
        if not name.strip() or weight is None or name.strip() in weights:
            raise UserError(f"--corpus_weights {text}: expected NAME=WEIGHT,NAME=WEIGHT, found {part!r}")
        weights[name.strip()] = weight
    return weights
