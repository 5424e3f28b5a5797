"""The options of the recipes, apart from the recipes so that `--help` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from common.base.options import option
from common.base.runtime import UserError
from common.encoders.weights.load import RANDOM
from pretrain.methods import defaults
from pretrain.ssl_config import TrainingOptions

if TYPE_CHECKING:
    from pretrain.ssl_config import SslModel

GRAM_WEIGHT = 1.0


@dataclass(frozen=True)
class SelfDistillationOptions(TrainingOptions):
    """Of DINO; what is None becomes the model's or the recipe's own when it is `completed` (`pretrain.methods.defaults`)."""

    local_size: int | None = option(None, group="data", unit="pixels", above=0)
    """Side of the local crops in pixels (default: 96 for crops of 224, in proportion: DINO, DINOv3 ViT-L and 7B)."""
    num_local: int = option(8, group="data", unit="crops", above=0)
    """Local crops of a frame (8: DINO, DINOv3)."""
    crop_boundary: float | None = option(None, group="data", above=0.05, below=1)
    """Share of the picture's area from which on crops are global; local ones have 0.05 to it (default: 0.32, DINOv3;
    recipe dino 0.4, DINO)."""
    flip_chance: float | None = option(None, group="data", minimum=0, maximum=1)
    """How often a crop is mirrored (default: 0.5, DINO, DINOv3 ViT-L; 7B 0.0, DINOv3 7B)."""
    blur: Literal["paper", "reference"] | None = option(None, group="data")
    """How often crops are blurred: paper, the first global crop always and the second in 10 %, or reference, never and
    90 %, as DINOv3's code does and its weights were made (default: reference; recipe dino paper, as DINO's code does)."""
    learning_rate: float | None = option(None, above=0)
    """After warm-up, for 64 frames a step, times 4 sqrt(frames a step / 1024); of recipe dino for 256, times frames a step
    / 256 (default: 0.0001, this project's, where DINOv3 ViT-L began with 0.001; 7B 3e-05, DINOv3 7B Gram, and 5e-05 with
    --gram_weight 0, DINOv3 7B; recipe dino 0.0005, DINO)."""
    final_learning_rate: float | None = option(None, minimum=0)
    """At the end of the cosine, multiplied likewise, but not of recipe dino (default: 1e-06, DINO, DINOv3 ViT-L; 7B as
    --learning_rate, which stays, DINOv3 7B)."""
    warmup: float = option(0.1, minimum=0, maximum=1)
    """Share of all steps in which the learning rate rises (0.1: DINO, DINOv3 ViT-L and 7B)."""
    layer_decay: float | None = option(None, above=0)
    """Factor of the learning rate from each block to the one before (default: 0.9, DINOv3 ViT-L; 7B 0.98, DINOv3 7B; recipe
    dino 1.0, DINO has none)."""
    beta2: float | None = option(None, minimum=0, below=1)
    """How slowly AdamW's average of squared gradients moves (default: 0.999, DINO, DINOv3 ViT-L; 7B 0.99, DINOv3 7B)."""
    weight_decay: float = option(0.04, minimum=0)
    """Of AdamW, but for biases, norms and layer scales (0.04: DINO, DINOv3 ViT-L, both at the start, and 7B)."""
    final_weight_decay: float | None = option(None, minimum=0)
    """Weight decay rises along a cosine to this (default: it stays, DINOv3 7B; recipe dino 0.4, DINO)."""
    momentum: float | None = option(None, minimum=0, maximum=1)
    """Of the teacher's moving average (default: 0.999, DINOv3 7B Gram; recipe dino 0.996, DINO)."""
    final_momentum: float | None = option(None, minimum=0, maximum=1)
    """Momentum rises along a cosine to this (default: it stays, DINOv3 7B; recipe dino 1.0, DINO)."""
    temperature: float | None = option(None, above=0)
    """Of the teacher, after its warm-up (default: 0.07, DINOv3; recipe dino 0.04, DINO)."""
    start_temperature: float = option(0.04, above=0)
    """Of the teacher, at the first step (0.04: DINO, DINOv3)."""
    temperature_warmup: float | None = option(None, minimum=0, maximum=1)
    """Share of all steps in which the teacher's temperature rises (default: 0.3, DINOv3 ViT-L; 7B 0.1, DINOv3 7B; recipe dino
    0.0, DINO)."""
    clip_norm: float | None = option(None, minimum=0)
    """Largest gradient norm of the backbone and of each head, of recipe dino that of each parameter; 0: any (default: 3.0,
    DINO, DINOv3 ViT-L; 7B 30.0, DINOv3 7B)."""
    drop_path: float | None = option(None, minimum=0, below=1)
    """Share of the samples for which a residual branch is left out, of recipe dino that of the last block, rising from 0
    (default: 0.0, this project's, where DINOv3 ViT-L began with 0.3; 7B 0.4, DINOv3 7B; recipe dino 0.1, DINO)."""
    freeze_backbone_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time in which only the heads learn, which start at random values (this project's)."""
    freeze_prototypes_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time in which the prototypes, the heads' last layers, do not learn (1: DINO, DINOv3 ViT-L; DINOv3 7B 5)."""
    prototypes: int | None = option(None, group="model", above=0)
    """Outputs of a head (default: 65536, DINO, DINOv3 ViT-L; 7B 262144 and 98304, DINOv3 7B)."""
    head_hidden: int | None = option(None, group="model", above=0)
    """Width of a head's hidden layers (default: 2048, DINO, DINOv3 ViT-L; 7B 8192 and 4096, DINOv3 7B)."""
    head_bottleneck: int | None = option(None, group="model", above=0)
    """Width of a head's bottleneck (default: 256, DINO, DINOv3 ViT-L; 7B 512 and 384, DINOv3 7B)."""

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
    """Of DINOv3, and of DINO beside it."""

    recipe: Literal["auto", "dinov3", "dino"] = option("auto")
    """dinov3: all losses below, for its vision transformers; dino: class tokens alone; auto: as the model allows."""
    local_weight: float = option(1.0, minimum=0)
    """Weight of the local crops' part of the loss (1: DINO, DINOv3 ViT-L; DINOv3 7B Gram 0.5)."""
    ibot_weight: float = option(1.0, minimum=0)
    """Weight of the loss on hidden patches (1: DINOv3)."""
    mask_share: float = option(0.5, minimum=0, maximum=1)
    """Share of a process's global crops in which patches are hidden, 0.1 to 0.5 of them (0.5: DINOv3)."""
    koleo_weight: float = option(0.1, minimum=0)
    """Weight of the loss that spreads class tokens, of each global crop (0.1: DINOv3)."""
    koleo_neighbours: int | None = option(None, unit="images", above=0)
    """Images among which the nearest class token is sought, in the batches of as many processes as that takes (default: 1,
    those of the process's own batch, DINOv3 ViT-L; 7B 16, DINOv3 7B)."""
    gram_weight: float | None = option(None, minimum=0)
    """Weight of the loss that holds similarities between patches to the start weights' (default: 1, untrained 0, this
    project's; DINOv3 7B Gram 2, to those of an earlier step)."""
    gram_scale: int = option(2, group="data", minimum=1)
    """Resolution at which the start weights see the global crops, times theirs (2: DINOv3 7B Gram)."""
    gram_ramp_epochs: float = option(1.0, unit="epochs", minimum=0)
    """Time over which that weight rises, after the backbone is unfrozen (1: DINOv3 7B Gram)."""
    position_rescale: float = option(2.0, minimum=1)
    """Largest random factor of the student's positions; 1: none (2: DINOv3)."""

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

    def defaults_of(self, model: SslModel) -> dict[str, Any]:
        if self.recipe_of(model) == "dino":
            return defaults.DINO
        if model.architecture != "vit7b16":
            return defaults.DINOV3
        rate = self.learning_rate or (None if self.anchor_weight else defaults.DINOV3_7B_PRETRAIN_RATE)
        constant = {"learning_rate": rate, "final_learning_rate": rate} if rate else {}
        return defaults.DINOV3_7B | constant

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
    """Length of a clip, an even number of frames (default: the model's, 16: V-JEPA 2, Video MAE, SurgVISTA)."""
    fps: float | None = option(4.0, group="data", unit="frames a second", above=0)
    """Frames of a clip in a second of video (4: V-JEPA 2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_len is not None and (self.clip_len < 2 or self.clip_len % 2):
            raise UserError(f"clip_len must be an even number, as frames are taken in pairs, found {self.clip_len}")

    def clip_len_of(self, model: SslModel) -> int:
        return self.clip_len or model.clip_len


@dataclass(frozen=True)
class VJEPA2Options(ClipOptions):
    """Of V-JEPA 2; rates are for continuing published weights on few GPUs; the help names what these were made with."""

    antialias: bool = option(False, group="data")
    """Antialias crops where they are made smaller (V-JEPA 2 does not)."""
    mask_mode: Literal["multiblock", "tube"] = option("multiblock")
    """What is hidden all through a clip: blocks, as published once 8 small and once 2 large ones (V-JEPA 2), or single
    places."""
    mask_ratio: float = option(0.9, minimum=0, below=1)
    """Share of tokens hidden from the encoder: exactly this under tube, at least this under multiblock, where large
    blocks may hide more (0.9: this project's); 0: what the blocks hide, in batches of 24 about 0.75 and 0.94 (V-JEPA 2)."""
    full_complement: bool = option(False)
    """Under multiblock, predict all that is hidden, not only what the blocks hide (V-JEPA 2)."""
    mask_token: int | None = option(None, group="model")
    """Number of the predictor's mask token (default: the one that the start weights were trained with; new ones: 0, V-JEPA
    2)."""
    loss_exponent: float = option(1.0, above=0)
    """The p of the loss |prediction - target|^p / p (1: V-JEPA 2)."""
    learning_rate: float = option(5e-5, above=0)
    """After warm-up (5e-05: this project's; V-JEPA 2 5.25e-4 for batches of 3072)."""
    start_learning_rate: float = option(1e-5, minimum=0)
    """At the first step (1e-05: this project's; V-JEPA 2 1e-4)."""
    final_learning_rate: float = option(1e-6, minimum=0)
    """At the end of the decay; cooldown and cosine stop above it (1e-06: V-JEPA 2)."""
    lr_schedule: Literal["cooldown", "linear", "cosine", "constant"] = option("cooldown")
    """After warm-up: constant, then in a last phase cooldown, a straight line (V-JEPA 2), or cosine (V-JEPA), both planned
    for 1.25 times the training; linear: a line to its end."""
    warmup: float = option(0.05, minimum=0, below=1)
    """Share of all steps in which the learning rate rises (0.05: V-JEPA 2 ViT-g, 12,000 of 240,000 steps)."""
    weight_decay: float = option(0.04, minimum=0)
    """Of AdamW, but for biases and norms (0.04: V-JEPA 2)."""
    momentum: float = option(0.99925, minimum=0, maximum=1)
    """Of the teacher's moving average (0.99925: V-JEPA 2)."""
    final_momentum: float | None = option(None, minimum=0, maximum=1)
    """Momentum rises in a straight line to this, planned for 1.25 times the training (default: it stays, V-JEPA 2)."""
    clip_norm: float = option(3.0, minimum=0)
    """Largest gradient norm of encoder and of predictor (3: this project's); 0: any (V-JEPA 2)."""
    export: Literal["ema", "online"] = option("ema", group="output")
    """Encoder to export: the moving average, as V-JEPA 2's evaluations take it, or the one that is trained, as in its
    weight folders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_mode == "tube" and not self.mask_ratio:
            raise UserError("--mask_mode tube hides a share of the places: give --mask_ratio a value above 0")


@dataclass(frozen=True)
class VideoMAEOptions(ClipOptions):
    """Of Video MAE, and of SurgVISTA where there is an image teacher or the model is SurgVISTA's."""

    fps: float | None = option(None, group="data", unit="frames a second", above=0)
    """Frames of a clip in a second of video (default: 7.5, Video MAE, every 4th of 30; SurgVISTA 0.25, every 4th of 1)."""
    mask_ratio: float | None = option(None, above=0, below=1)
    """Share of places hidden in all frames (default: 0.9, Video MAE; SurgVISTA 0.85)."""
    image_teacher: str | None = option(None, group="model")
    """Image encoder whose patch features are predicted too, as in SurgVISTA: a folder under models/ by name, or a
    config.yaml like theirs, or the folder that holds it."""
    image_teacher_weights: str | None = option(None, group="model")
    """Weights of the image teacher (default: its config's), as --weights of extract_features.py."""
    teacher_size: int | None = option(None, group="data", unit="pixels", above=0)
    """Side in pixels of the frames that the image teacher sees (default: the student's, SurgVISTA)."""
    normalise_teacher: bool = option(False)
    """Bring each feature vector of the image teacher to mean 0 and variance 1 (SurgVISTA does not)."""
    pixel_weight: float = option(1.0, above=0)
    """Weight of the pixels in the loss (1: Video MAE, SurgVISTA)."""
    distillation_weight: float = option(0.05, above=0)
    """Weight of the image teacher's features in the loss (0.05: SurgVISTA)."""
    learning_rate: float = option(1.5e-4, above=0)
    """After warm-up, for 256 samples a step; scaled with their number (1.5e-4: Video MAE, SurgVISTA)."""
    start_learning_rate: float = option(1e-6, minimum=0)
    """At the first step, scaled likewise (1e-6: Video MAE, SurgVISTA)."""
    final_learning_rate: float | None = option(None, minimum=0)
    """At the end of the cosine, scaled likewise (default: 1e-05, Video MAE; SurgVISTA 0.0001)."""
    warmup: float | None = option(None, minimum=0, below=1)
    """Share of all steps in which the learning rate rises (default: 0.05, Video MAE, 40 of 801 epochs; SurgVISTA 0.2, 40 of
    201)."""
    weight_decay: float = option(0.05, minimum=0)
    """Of AdamW, but for biases and norms (0.05: Video MAE, SurgVISTA)."""
    drop_path: float | None = option(None, minimum=0, below=1)
    """Chance that a sample skips a branch of the last block, rising from 0 at the first (default: 0.0, Video MAE; SurgVISTA
    0.1)."""
    clip_norm: float = option(0.0, minimum=0)
    """Largest gradient norm of the encoder and of each decoder; 0: any (Video MAE, SurgVISTA)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = [f"--{name}" for name in ("image_teacher_weights", "teacher_size") if getattr(self, name) is not None]
        if alone and self.image_teacher is None:
            raise UserError(f"{' and '.join(alone)} without --image_teacher: name the image encoder too")

    def teacher_size_of(self, model: SslModel) -> int | None:
        """Side in pixels of the image teacher's frames; None without one."""
        return None if self.image_teacher is None else self.teacher_size or self.crop_size_of(model)

    def defaults_of(self, model: SslModel) -> dict[str, Any]:
        return defaults.SURGVISTA if self.image_teacher or model.is_surgvista else defaults.VIDEOMAE
