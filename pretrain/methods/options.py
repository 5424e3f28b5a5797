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

    local_size: int | None = option(
        None,
        "side of the local crops in pixels (default: 96 for crops of 224, in proportion)",
        group="data",
        unit="pixels",
        above=0,
    )
    num_local: int = option(8, "local crops of a frame", group="data", unit="crops", above=0)
    blur: Literal["paper", "reference"] = option(
        "paper", "how often crops are blurred: as published, or as the published code does it", group="data"
    )
    learning_rate: float = option(
        1e-4, "after warm-up, for 64 frames a step; multiplied by 4 sqrt(frames a step / 1024)", above=0
    )
    final_learning_rate: float = option(1e-6, "at the end of the cosine; multiplied likewise", minimum=0)
    warmup: float = option(0.1, "share of all steps in which the learning rate rises", minimum=0, maximum=1)
    layer_decay: float = option(0.9, "factor of the learning rate from each block to the one before", above=0)
    weight_decay: float = option(0.04, "of AdamW, but for biases, norms and layer scales", minimum=0)
    final_weight_decay: float | None = option(
        None, "weight decay rises along a cosine to this (default: it stays)", minimum=0
    )
    momentum: float = option(0.999, "of the teacher's moving average", minimum=0, maximum=1)
    final_momentum: float | None = option(
        None, "momentum rises along a cosine to this (default: it stays)", minimum=0, maximum=1
    )
    temperature: float = option(0.07, "of the teacher, after its warm-up", above=0)
    start_temperature: float = option(0.04, "of the teacher, at the first step", above=0)
    temperature_warmup: float = option(
        0.3, "share of all steps in which the teacher's temperature rises", minimum=0, maximum=1
    )
    clip_norm: float = option(3.0, "largest gradient norm of the backbone and of each head; 0: any", minimum=0)
    drop_path: float = option(0.0, "share of the samples for which a residual branch is left out", minimum=0, below=1)
    freeze_backbone_epochs: float = option(
        1.0, "time in which only the heads learn, which start at random values", unit="epochs", minimum=0
    )
    freeze_prototypes_epochs: float = option(
        1.0, "time in which the prototypes, the heads' last layers, do not learn", unit="epochs", minimum=0
    )
    prototypes: int | None = option(
        None, "outputs of a head (default: 65536; of the 7B network 262144 and 98304)", group="model", above=0
    )
    head_hidden: int | None = option(
        None, "width of a head's hidden layers (default: 2048; 7B: 8192 and 4096)", group="model", above=0
    )
    head_bottleneck: int | None = option(
        None, "width of a head's bottleneck (default: 256; 7B: 512 and 384)", group="model", above=0
    )

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

    recipe: Literal["auto", "dinov3", "dino"] = option(
        "auto",
        "dinov3: all losses below, for its vision transformers; dino: class tokens alone; auto: as the model allows",
    )
    local_weight: float = option(
        1.0, "weight of the local crops' part of the loss (published with a Gram loss: 0.5)", minimum=0
    )
    ibot_weight: float = option(1.0, "weight of the loss on hidden patches", minimum=0)
    mask_share: float = option(
        0.5, "share of the global crops in which patches are hidden, 0.1 to 0.5 of them", minimum=0, maximum=1
    )
    koleo_weight: float = option(0.1, "weight of the loss that spreads class tokens, of each global crop", minimum=0)
    koleo_across_processes: bool = option(False, "seek the nearest class tokens in the batches of all processes")
    gram_weight: float | None = option(
        None,
        "weight of the loss that holds similarities between patches to the start weights' (default: 1, untrained 0)",
        minimum=0,
    )
    gram_scale: int = option(
        2, "resolution at which the start weights see the global crops, times theirs", group="data", minimum=1
    )
    gram_ramp_epochs: float = option(
        1.0, "time over which that weight rises, after the backbone is unfrozen", unit="epochs", minimum=0
    )
    position_rescale: float = option(2.0, "largest random factor of the student's positions; 1: none", minimum=1)

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

    clip_len: int | None = option(
        None, "length of a clip, an even number of frames (default: the model's, 16)", group="data", unit="frames"
    )
    fps: float = option(4.0, "frames of a clip in a second of video", group="data", unit="frames a second", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_len is not None and (self.clip_len < 2 or self.clip_len % 2):
            raise UserError(f"clip_len must be an even number, as frames are taken in pairs, found {self.clip_len}")

    def clip_len_of(self, model: SslModel) -> int:
        return self.clip_len or model.clip_len


@dataclass(frozen=True)
class VJEPA2Options(ClipOptions):
    """Of V-JEPA 2; defaults for continuing published weights on few GPUs; the help names what they were made with."""

    mask_mode: Literal["multiblock", "tube"] = option(
        "multiblock",
        "what is hidden all through a clip: blocks, as published once 8 small and once 2 large ones, or single places",
    )
    mask_ratio: float = option(
        0.9,
        "share of tokens hidden from the encoder: exactly this under tube, at least this under multiblock, where large "
        "blocks may hide more; 0: what the blocks hide, as published, in batches of 24 about 0.76 and 0.95",
        minimum=0,
        below=1,
    )
    full_complement: bool = option(False, "under multiblock, predict all that is hidden, not only what the blocks hide")
    mask_token: int | None = option(
        None,
        "number of the predictor's mask token (default: the one that the start weights were trained with)",
        group="model",
    )
    loss_exponent: float = option(1.0, "p of the loss |prediction - target|^p / p", above=0)
    learning_rate: float = option(5e-5, "after warm-up (published: 5.25e-4 for batches of 3072)", above=0)
    start_learning_rate: float = option(1e-5, "at the first step (published: 1e-4)", minimum=0)
    final_learning_rate: float = option(1e-6, "at the end of the decay", minimum=0)
    lr_schedule: Literal["linear", "cosine", "constant"] = option(
        "linear",
        "decay after warm-up (published: constant, then linear in the last phase); cosine is planned for 1.25 times "
        "the training",
    )
    warmup: float = option(0.05, "share of all steps in which the learning rate rises", minimum=0, below=1)
    weight_decay: float = option(0.04, "of AdamW, but for biases and norms", minimum=0)
    momentum: float = option(0.99925, "of the teacher's moving average", minimum=0, maximum=1)
    final_momentum: float | None = option(
        None,
        "momentum rises in a straight line to this, planned for 1.25 times the training (default: it stays)",
        minimum=0,
        maximum=1,
    )
    clip_norm: float = option(3.0, "largest gradient norm of encoder and of predictor; 0: any, as published", minimum=0)
    export: Literal["ema", "online"] = option(
        "ema",
        "encoder to export: the moving average, or the one that is trained, as in the published weight folders",
        group="output",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_mode == "tube" and not self.mask_ratio:
            raise UserError("--mask_mode tube hides a share of the places: give --mask_ratio a value above 0")


@dataclass(frozen=True)
class VideoMAEOptions(ClipOptions):
    """Of Video MAE; defaults are its own and, with an image teacher, those of SurgVISTA."""

    mask_ratio: float | None = option(
        None,
        "share of places hidden in all frames "
        f"(default: {MASK_RATIO}; {MASK_RATIO_WITH_TEACHER} with an image teacher)",
        above=0,
        below=1,
    )
    image_teacher: str | None = option(
        None,
        "image encoder whose patch features are predicted too, as in SurgVISTA: a folder under models/ by name, or a "
        "config.yaml like theirs, or the folder that holds it",
        group="model",
    )
    image_teacher_weights: str | None = option(
        None, "weights of the image teacher (default: its config's), as --weights of extract_features.py", group="model"
    )
    teacher_size: int | None = option(
        None,
        "side in pixels of the frames that the image teacher sees (default: the student's)",
        group="data",
        unit="pixels",
        above=0,
    )
    normalise_teacher: bool = option(False, "bring each feature vector of the image teacher to mean 0 and variance 1")
    pixel_weight: float = option(1.0, "weight of the pixels in the loss", above=0)
    distillation_weight: float = option(0.05, "weight of the image teacher's features in the loss", above=0)
    learning_rate: float = option(1.5e-4, "after warm-up, for 256 samples a step; scaled with their number", above=0)
    start_learning_rate: float = option(1e-6, "at the first step, scaled likewise", minimum=0)
    final_learning_rate: float = option(1e-4, "at the end of the cosine, scaled likewise", minimum=0)
    warmup: float = option(
        0.2, "share of all steps in which the learning rate rises (published: 40 of 201 epochs)", minimum=0, below=1
    )
    weight_decay: float = option(0.05, "of AdamW, but for biases and norms", minimum=0)
    drop_path: float = option(
        0.1, "chance that a sample skips a branch of the last block, rising from 0 at the first", minimum=0, below=1
    )
    clip_norm: float = option(
        0.0, "largest gradient norm of the encoder and of each decoder; 0: any, as published", minimum=0
    )

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
