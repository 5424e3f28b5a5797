"""The options of the recipes, apart from the recipes so that `--help` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from common.base.options import option
from common.base.runtime import UserError
from common.encoders.weights.load import RANDOM
from pretrain.ssl_config import TrainingOptions

if TYPE_CHECKING:
    from pretrain.ssl_config import SslModel

GRAM_WEIGHT = 1.0
MASK_RATIO, MASK_RATIO_WITH_TEACHER = 0.9, 0.85


@dataclass(frozen=True)
class SelfDistillationOptions(TrainingOptions):
    """Of DINO; defaults for continuing published weights on few GPUs."""

    local_size: int | None = option(None, group="data", unit="pixels", above=0)
    """Side of the local crops in pixels (default: 96 for crops of 224, in proportion)."""
    num_local: int = option(8, group="data", unit="crops", above=0)
    """Local crops of a frame."""
    blur: Literal["paper", "reference"] = option("paper", group="data")
    """How often crops are blurred: as published, or as the published code does it."""
    learning_rate: float = option(1e-4, above=0)
    """After warm-up, for 64 frames a step; multiplied by 4 sqrt(frames a step / 1024)."""
    final_learning_rate: float = option(1e-6, minimum=0)
    """At the end of the cosine; multiplied likewise."""
    warmup: float = option(0.1, minimum=0, maximum=1)
    """Share of all steps in which the learning rate rises."""
    layer_decay: float = option(0.9, above=0)
    """Factor of the learning rate from each block to the one before."""
    weight_decay: float = option(0.04, minimum=0)
    """Of AdamW, but for biases, norms and layer scales."""
    final_weight_decay: float | None = option(None, minimum=0)
    """Weight decay rises along a cosine to this (default: it stays)."""
    momentum: float = option(0.999, minimum=0, maximum=1)
    """Of the teacher's moving average."""
    final_momentum: float | None = option(None, minimum=0, maximum=1)
    """Momentum rises along a cosine to this (default: it stays)."""
    temperature: float = option(0.07, above=0)
    """Of the teacher, after its warm-up."""
    start_temperature: float = option(0.04, above=0)
    """Of the teacher, at the first step."""
    temperature_warmup: float = option(0.3, minimum=0, maximum=1)
    """Share of all steps in which the teacher's temperature rises."""
    clip_norm: float = option(3.0, minimum=0)
    """Largest gradient norm of the backbone and of each head; 0: any."""
    drop_path: float = option(0.0, minimum=0, below=1)
    """Share of the samples for which a residual branch is left out."""
    freeze_backbone_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time in which only the heads learn, which start at random values."""
    freeze_prototypes_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time in which the prototypes, the heads' last layers, do not learn."""
    prototypes: int | None = option(None, group="model", above=0)
    """Outputs of a head (default: 65536; of the 7B network 262144 and 98304)."""
    head_hidden: int | None = option(None, group="model", above=0)
    """Width of a head's hidden layers (default: 2048; 7B: 8192 and 4096)."""
    head_bottleneck: int | None = option(None, group="model", above=0)
    """Width of a head's bottleneck (default: 256; 7B: 512 and 384)."""

    def gram_size_of(self, model: SslModel) -> int | None:
        """Side in pixels of the crops that a Gram teacher sees; None: there is none."""
        return None

    def require_training(self, steps_per_epoch: int) -> None:
        """Raise `UserError` when the backbone would be frozen to the end."""
        frozen, total = round(self.freeze_backbone_epochs * steps_per_epoch), self.total_steps(steps_per_epoch)
        if frozen >= total:
            raise UserError(
                f"the backbone would not learn at all: it is frozen for {frozen} steps "
                f"({self.freeze_backbone_epochs:g} epochs) of {total}; give "
                "--freeze_backbone_epochs less, or --epochs or --max_steps more"
            )


@dataclass(frozen=True)
class DINOv3Options(SelfDistillationOptions):
    """Of DINOv3, and of DINO beside it; defaults for continuing published weights on few GPUs."""

    recipe: Literal["auto", "dinov3", "dino"] = option("auto")
    """dinov3: all losses below, for its vision transformers; dino: class tokens alone; auto: as the model allows."""
    local_weight: float = option(1.0, minimum=0)
    """Weight of the local crops' part of the loss (published with a Gram loss: 0.5)."""
    ibot_weight: float = option(1.0, minimum=0)
    """Weight of the loss on hidden patches."""
    mask_share: float = option(0.5, minimum=0, maximum=1)
    """Share of the global crops in which patches are hidden, 0.1 to 0.5 of them."""
    koleo_weight: float = option(0.1, minimum=0)
    """Weight of the loss that spreads class tokens, of each global crop."""
    koleo_across_processes: bool = option(False)
    """Seek the nearest class tokens in the batches of all processes."""
    gram_weight: float | None = option(None, minimum=0)
    """Weight of the loss that holds similarities between patches to the start weights' (default: 1, untrained 0)."""
    gram_scale: int = option(2, group="data", minimum=1)
    """Resolution at which the start weights see the global crops, times theirs."""
    gram_ramp_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time over which that weight rises, after the backbone is unfrozen."""
    position_rescale: float = option(2.0, minimum=1)
    """Largest random factor of the student's positions; 1: none."""

    def recipe_of(self, model: SslModel) -> str:
        """`dinov3` or `dino`.

        Raises `UserError` for a network that DINOv3's losses do not fit, and for options that DINO has no use for.
        """
        recipe = self.recipe
        if recipe == "auto":
            recipe = "dinov3" if model.family == "dinov3" else "dino"
        if recipe == "dinov3" and model.family != "dinov3":
            raise UserError(f"--recipe dinov3 is for DINOv3's vision transformers; {model.name} takes --recipe dino")
        if recipe == "dino":
            own = fields(DINOv3Options)[len(fields(SelfDistillationOptions)) :]
            useless = [
                entry.name for entry in own if entry.name != "recipe" and getattr(self, entry.name) != entry.default
            ]
            if useless:
                raise UserError(f"--{', --'.join(useless)}: of the recipe dinov3; --recipe dino has class tokens alone")
        return recipe

    @property
    def anchor_weight(self) -> float:
        """The weight of the Gram loss: random start weights are no anchor."""
        default = 0.0 if self.init == RANDOM else GRAM_WEIGHT
        return default if self.gram_weight is None else self.gram_weight

    def gram_size_of(self, model: SslModel) -> int | None:
        has_gram = self.anchor_weight and self.recipe_of(model) == "dinov3"
        return self.gram_scale * self.crop_size_of(model) if has_gram else None


@dataclass(frozen=True)
class ClipOptions(TrainingOptions):
    """Length and rate, which all recipes that train on clips have."""

    clip_len: int | None = option(None, group="data", unit="frames")
    """Length of a clip, an even number of frames (default: the model's, 16)."""
    fps: float = option(4.0, group="data", unit="frames a second", above=0)
    """Frames of a clip in a second of video."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_len is not None and (self.clip_len < 2 or self.clip_len % 2):
            raise UserError(f"clip_len must be an even number, as frames are taken in pairs, found {self.clip_len}")

    def clip_len_of(self, model: SslModel) -> int:
        return self.clip_len or model.clip_len


@dataclass(frozen=True)
class VJEPA2Options(ClipOptions):
    """Of V-JEPA 2; defaults for continuing published weights on few GPUs; the help names what they were made with."""

    mask_mode: Literal["multiblock", "tube"] = option("multiblock")
    """What is hidden all through a clip: blocks, as published once 8 small and once 2 large ones, or single places."""
    mask_ratio: float = option(0.9, minimum=0, below=1)
    """Share of tokens hidden from the encoder: exactly this under tube, at least this under multiblock, where large
    blocks may hide more; 0: what the blocks hide, as published, in batches of 24 about 0.76 and 0.95."""
    full_complement: bool = option(False)
    """Under multiblock, predict all that is hidden, not only what the blocks hide."""
    mask_token: int | None = option(None, group="model")
    """Number of the predictor's mask token (default: the one that the start weights were trained with)."""
    loss_exponent: float = option(1.0, above=0)
    """The p of the loss |prediction - target|^p / p."""
    learning_rate: float = option(5e-5, above=0)
    """After warm-up (published: 5.25e-4 for batches of 3072)."""
    start_learning_rate: float = option(1e-5, minimum=0)
    """At the first step (published: 1e-4)."""
    final_learning_rate: float = option(1e-6, minimum=0)
    """At the end of the decay."""
    lr_schedule: Literal["linear", "cosine", "constant"] = option("linear")
    """Decay after warm-up (published: constant, then linear in the last phase); cosine is planned for 1.25 times the
    training."""
    warmup: float = option(0.05, minimum=0, below=1)
    """Share of all steps in which the learning rate rises."""
    weight_decay: float = option(0.04, minimum=0)
    """Of AdamW, but for biases and norms."""
    momentum: float = option(0.99925, minimum=0, maximum=1)
    """Of the teacher's moving average."""
    final_momentum: float | None = option(None, minimum=0, maximum=1)
    """Momentum rises in a straight line to this, planned for 1.25 times the training (default: it stays)."""
    clip_norm: float = option(3.0, minimum=0)
    """Largest gradient norm of encoder and of predictor; 0: any, as published."""
    export: Literal["ema", "online"] = option("ema", group="output")
    """Encoder to export: the moving average, or the one that is trained, as in the published weight folders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_mode == "tube" and not self.mask_ratio:
            raise UserError("--mask_mode tube hides a share of the places: give --mask_ratio a value above 0")


@dataclass(frozen=True)
class VideoMAEOptions(ClipOptions):
    """Of Video MAE; defaults are its own and, with an image teacher, those of SurgVISTA."""

    mask_ratio: float | None = option(None, above=0, below=1)
    """Share of places hidden in all frames (default: 0.9; 0.85 with an image teacher)."""
    image_teacher: str | None = option(None, group="model")
    """Image encoder whose patch features are predicted too, as in SurgVISTA: a folder under models/ by name, or a
    config.yaml like theirs, or the folder that holds it."""
    image_teacher_weights: str | None = option(None, group="model")
    """Weights of the image teacher (default: its config's), as --weights of extract_features.py."""
    teacher_size: int | None = option(None, group="data", unit="pixels", above=0)
    """Side in pixels of the frames that the image teacher sees (default: the student's)."""
    normalise_teacher: bool = option(False)
    """Bring each feature vector of the image teacher to mean 0 and variance 1."""
    pixel_weight: float = option(1.0, above=0)
    """Weight of the pixels in the loss."""
    distillation_weight: float = option(0.05, above=0)
    """Weight of the image teacher's features in the loss."""
    learning_rate: float = option(1.5e-4, above=0)
    """After warm-up, for 256 samples a step; scaled with their number."""
    start_learning_rate: float = option(1e-6, minimum=0)
    """At the first step, scaled likewise."""
    final_learning_rate: float = option(1e-4, minimum=0)
    """At the end of the cosine, scaled likewise."""
    warmup: float = option(0.2, minimum=0, below=1)
    """Share of all steps in which the learning rate rises (published: 40 of 201 epochs)."""
    weight_decay: float = option(0.05, minimum=0)
    """Of AdamW, but for biases and norms."""
    drop_path: float = option(0.1, minimum=0, below=1)
    """Chance that a sample skips a branch of the last block, rising from 0 at the first."""
    clip_norm: float = option(0.0, minimum=0)
    """Largest gradient norm of the encoder and of each decoder; 0: any, as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = [f"--{name}" for name in ("image_teacher_weights", "teacher_size") if getattr(self, name) is not None]
        if alone and self.image_teacher is None:
            raise UserError(f"{' and '.join(alone)} without --image_teacher: name the image encoder too")

    def teacher_size_of(self, model: SslModel) -> int | None:
        """Side in pixels of the image teacher's frames; None without one."""
        return None if self.image_teacher is None else self.teacher_size or self.crop_size_of(model)

    @property
    def hidden_share(self) -> float:
        """The share of places that are hidden: more without an image teacher, as published."""
        return self.mask_ratio or (MASK_RATIO_WITH_TEACHER if self.image_teacher else MASK_RATIO)
