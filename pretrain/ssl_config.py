"""The models of `pretrain/`, under long and short names, where their files lie, and the options of a training.

No torch here, nor in `pretrain.methods.options`, so that `--help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from common.base import paths
from common.base.options import CommandParser, add_options, check_ranges, option, resolve
from common.base.runtime import UserError, nearest_name
from common.encoders.config import EncoderConfig, read_encoder_config
from pretrain.annotations.cataracts1k import RELEASE

OptionsT = TypeVar("OptionsT", bound="TrainingOptions")


@dataclass(frozen=True)
class Trial:
    """A network for trials, which learns nothing worth knowing and of which no weights exist."""

    architecture: str
    width: int


@dataclass(frozen=True)
class SslModel:
    """A network that can be pretrained, and what it is trained with unless options say otherwise."""

    name: str
    """The long name, that of the outputs of Stage 1."""
    short: str
    family: Literal["dinov3", "vjepa2", "videomae", "caformer"]
    encoder: str
    """The folder under `models/` of the same encoder as published, whose config says what the network is."""
    batch_size: int
    """Samples a process and micro-batch."""
    clip_len: int = 1
    precision: Literal["fp32", "bf16"] = "bf16"
    sharding: Literal["ddp", "fsdp"] = "ddp"
    gradient_checkpointing: bool = False
    start_weights: str | None = None
    """None: the published encoder's own."""
    size: int | None = None
    """Side of the square input in pixels while training (None: as the published encoder's)."""
    trial: Trial | None = None
    """A small network in place of the published one."""

    @property
    def is_tiny(self) -> bool:
        """Whether this is a network for trials, of which no weights exist."""
        return self.trial is not None

    @property
    def architecture(self) -> str:
        """A key of the table `ARCHITECTURES` of the family's module in `common.encoders.families`."""
        return self.encoder_config().architecture

    @property
    def is_surgvista(self) -> bool:
        """Whether it counts positions along time, row and column apart, as SurgVISTA does and Video MAE does not."""
        return "surgvista" in self.architecture

    @property
    def width(self) -> int:
        """Values of a token, or channels of the last stage."""
        return self.encoder_config().feature_dim

    @property
    def crop_size(self) -> int:
        """Side of the square input in pixels (of the global crops, where there are several)."""
        return self.size or self.encoder_config().preprocessing.size

    def encoder_config(self) -> EncoderConfig:
        """The published encoder's configuration, with this model's network and start weights.

        Its preprocessing keeps the published size: what a training sees is `crop_size`.
        """
        config = replace(read_encoder_config(paths.model(self.encoder).config), title=self.name)
        if self.trial:
            config = replace(config, architecture=self.trial.architecture, feature_dim=self.trial.width)
        if self.start_weights:
            # what the folder says about access is about its own weights
            config = replace(config, weights=self.start_weights, access=None)
        return config


MODELS = (
    SslModel("dinov3-vitb16", "dinov3-b", "dinov3", "DinoV3-ViT-B16", 64),
    SslModel("dinov3-vitl16", "dinov3-l", "dinov3", "DinoV3-ViT-L16", 32),
    SslModel("dinov3-vit7b16", "dinov3-7b", "dinov3", "DinoV3-ViT-7B16", 4, size=256,
             sharding="fsdp", gradient_checkpointing=True),
    SslModel("vjepa2-vitl-fpc64-256", "vjepa2-l", "vjepa2", "V-JEPA2-ViT-L", 8, clip_len=16,
             gradient_checkpointing=True),
    SslModel("vjepa2-vitg-fpc64-384", "vjepa2-g", "vjepa2", "V-JEPA2-ViT-g16-384", 2, clip_len=16,
             sharding="fsdp", gradient_checkpointing=True),
    SslModel("videomae-b", "videomae-b", "videomae", "SurgRec-MAE", 16, clip_len=16,
             start_weights="hub:MCG-NJU/videomae-base"),
    SslModel("surgvista-b", "surgvista-b", "videomae", "SurgVISTA-ViT-B", 16, clip_len=16),
    SslModel("caformer-s18", "caformer-s18", "caformer", "SurgeNet-CAFormer-S18", 64),
    SslModel("dinov3-tiny", "dinov3-tiny", "dinov3", "DinoV3-ViT-B16", 4, precision="fp32", size=64,
             trial=Trial("tiny", 48)),
    SslModel("vjepa2-tiny", "vjepa2-tiny", "vjepa2", "V-JEPA2-ViT-L", 2, clip_len=8, precision="fp32", size=64,
             trial=Trial("tiny", 48)),
    SslModel("videomae-tiny", "videomae-tiny", "videomae", "SurgRec-MAE", 2, clip_len=8, precision="fp32", size=64,
             trial=Trial("tiny", 96)),
    SslModel("surgvista-tiny", "surgvista-tiny", "videomae", "SurgVISTA-ViT-B", 2, clip_len=8, precision="fp32", size=64,
             trial=Trial("tiny-surgvista", 96)),
    SslModel("caformer-tiny", "caformer-tiny", "caformer", "SurgeNet-CAFormer-S18", 4, precision="fp32", size=64,
             trial=Trial("tiny_caformer_s18", 32)),
)  # fmt: skip


def find_model(name: str | None) -> SslModel:
    """The model with this long or short name.

    Raises `UserError` that lists the models, and the nearest one.
    """
    known = {key: model for model in MODELS for key in (model.name, model.short)}
    if name in known:
        return known[name]
    listed = ", ".join(model.name if model.name == model.short else f"{model.name} ({model.short})" for model in MODELS)
    near = nearest_name(name or "", known)
    hint = f"; did you mean {near!r}?" if near else ""
    raise UserError(f"--model {name or 'is missing'}: there are {listed}{hint}")


def backbone_folder(name: str) -> Path:
    """Where Stage 1 of a model, by either name, is kept."""
    return paths.pretrained_backbone(find_model(name).name)


def adapter_folder(name: str) -> Path:
    """Where the LoRA adapter of a model, by either name, is kept."""
    return paths.pretrained_adapter(find_model(name).short)


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of every self-supervised training; recipes add their own (`pretrain.methods.options`)."""

    model: str | None = option(None, group="model")
    """Model to train, by its long or short name."""
    videos: tuple[str, ...] = option((RELEASE,), group="data")
    """Corpora: folders of videos, or names of data sets under data/."""
    exclude: tuple[str, ...] = option((), group="data")
    """Data sets whose videos must not be trained on, wherever copies of them lie."""
    output: str | None = option(None, group="output")
    """Folder to write (default: pretrain/checkpoints/ssl/<long name>)."""
    init: str | None = option(None, group="model")
    """Start weights: a published name, hub:ORG/NAME, a local file or folder, or 'random' (default: the published ones
    of the model)."""
    epochs: int = option(100, unit="epochs", above=0)
    """Passes over the corpora; an epoch is a fixed number of steps."""
    steps_per_epoch: int | None = option(None, unit="steps", above=0)
    """Optimiser steps an epoch (default: as many as draw one sample for each second of video, or for clips one for each
    clip's duration)."""
    max_steps: int | None = option(None, unit="steps", above=0)
    """Train this many steps instead of the epochs."""
    batch_size: int | None = option(None, unit="samples", above=0)
    """Samples a process and micro-batch (default: the model's)."""
    accumulate: int = option(1, unit="micro-batches", above=0)
    """Micro-batches an optimiser step."""
    precision: Literal["auto", "fp32", "bf16"] = option("auto", group="machine")
    """Arithmetic; auto: the model's on a GPU, fp32 on a CPU. Parameters and averages are always fp32."""
    sharding: Literal["auto", "none", "ddp", "fsdp"] = option("auto", group="machine")
    """How several processes share the work; auto: the model's with several, none with one."""
    shard_nodes: int | None = option(None, group="machine", unit="nodes", above=0)
    """With --sharding fsdp: nodes over which one copy is sharded, other groups of as many hold replicas (default: all nodes
    together)."""
    compile: bool = option(False, group="machine")
    """torch.compile the networks, block by block."""
    gradient_checkpointing: Literal["auto", "all", "none"] = option("auto", group="machine")
    """Blocks computed again in the backward pass, for less memory and a third more time; auto: the model's."""
    num_workers: int = option(4, group="machine", unit="processes", minimum=0)
    """Processes a rank that read video."""
    seed: int = option(42)
    """Seed of the start values, the samples and every random number."""
    save_every: int = option(500, group="output", unit="steps", above=0)
    """Steps between checkpoints."""
    keep_last: int = option(2, group="output", unit="checkpoints", above=0)
    """Checkpoints to keep."""
    resume: Literal["auto", "never"] = option("auto", group="output")
    """auto: resume from the newest checkpoint in the output folder; never: refuse a folder that has one."""
    monitor_every: int = option(500, group="output", unit="steps", minimum=0)
    """Steps between health checks; 0: none."""
    monitor_samples: int = option(64, group="output", unit="samples", minimum=2)
    """Samples of the fixed batch on which health is checked."""
    probe: str | None = option(None, group="output")
    """Labelled data set whose phases the features must tell apart by nearest neighbours."""
    probe_packed: tuple[str, ...] = option((), group="output")
    """Folder of packed videos (pack_videos.py) that is read in place of the probe's own."""
    stop_on_collapse: bool = option(True, group="output")
    """Stop when the features have collapsed in several checks running."""
    wandb: bool = option(False, group="output")
    """Log to Weights & Biases (WANDB_MODE=offline works)."""
    corpus_alpha: float = option(0.5, group="data", minimum=0)
    """a corpus is drawn in proportion to its hours to this power: 1 every clip alike, 0 every corpus alike."""
    corpus_weights: str | None = option(None, group="data")
    """How often each corpus is drawn, in place of --corpus_alpha: NAME=WEIGHT,NAME=WEIGHT."""
    clusters: str | None = option(None, group="data")
    """File of clusters of the corpora (cluster_videos.py), between which draws are balanced inside a corpus."""
    cluster_alpha: float = option(0.5, group="data", minimum=0)
    """As --corpus_alpha, for the clusters of a corpus."""
    open_videos: int = option(8, group="machine", unit="videos", above=0)
    """Videos that each reading process keeps open."""
    samples_per_seek: int = option(1, group="data", unit="samples", minimum=1, maximum=64)
    """Samples that are neighbours in a video and decoded in one go, for videos that are not packed: n of them cost little
    more than one, and a batch shows fewer scenes."""
    neighbour_seconds: float = option(8.0, group="data", unit="seconds", minimum=0)
    """Stretch of video in which the neighbours of --samples_per_seek are drawn; below the usual 10 between keyframes."""
    crop_size: int | None = option(None, group="data", unit="pixels", above=0)
    """Side of the square input in pixels (default: the model's)."""

    fps: ClassVar[float] = 1.0
    """Frames in a second of video; recipes that train on clips have an option for it."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def output_folder(self) -> Path:
        """The folder of this training's files."""
        return Path(self.output).expanduser() if self.output else backbone_folder(self.model)

    def crop_size_of(self, model: SslModel) -> int:
        """Side of the square input in pixels, of the global crops where there are several."""
        return self.crop_size or model.crop_size

    def clip_len_of(self, model: SslModel) -> int:
        """Frames of a sample."""
        return model.clip_len

    def defaults_of(self, model: SslModel) -> dict[str, Any]:
        """What a recipe trains this model with where options of its own are None."""
        return {}

    def seconds_per_sample(self, model: SslModel) -> float:
        """Seconds of video that a sample stands for in an epoch: of a frame one second, of a clip its own duration."""
        return self.clip_len_of(model) / self.fps

    def global_batch(self, world_size: int) -> int:
        """Samples of an optimiser step, of all processes together."""
        return self.batch_size * self.accumulate * world_size

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole training."""
        return self.max_steps or self.epochs * (self.steps_per_epoch or steps_per_epoch)

    def completed(self, *, on_gpu: bool, world_size: int) -> TrainingOptions:
        """These options with the model's own in place of what was not given.

        Raises `UserError` for processes that would train apart.
        """
        model = find_model(self.model)
        choices: dict[str, Any] = {
            name: value for name, value in self.defaults_of(model).items() if getattr(self, name) is None
        }
        choices |= {"model": model.name, "batch_size": self.batch_size or model.batch_size}
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


def parse_training(
    argv: list[str] | None, doc: str, cls: type[OptionsT], families: tuple[str, ...]
) -> tuple[OptionsT, str]:
    """Read the command line of a recipe's script: its options (defaults < YAML file < flags) and the device.

    Raises `UserError` for a model that does not exist, or is of none of the `families` that the recipe trains.
    """
    parser = CommandParser(None, doc)
    parser.add_config()
    add_options(parser, cls)
    parser.groups["machine"].add_argument(
        "--device", default="auto", help="auto, cpu, cuda (under torchrun each takes its own)"
    )
    given = vars(parser.parse_args(argv))
    options = resolve(cls, given, given["config"])
    if find_model(options.model).family not in families:
        names = ", ".join(entry.name for entry in MODELS if entry.family in families)
        raise UserError(f"--model {options.model}: this command trains {names}")
    return options, given["device"]
