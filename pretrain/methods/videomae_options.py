"""What the training of a video masked autoencoder can be told."""

from __future__ import annotations

from dataclasses import dataclass

from common.options import option
from common.runtime import UserError
from pretrain.objectives.masks_video import Tube
from pretrain.pretraining_options import PretrainingOptions
from pretrain.ssl_config import SslModel

MASK_RATIO, MASK_RATIO_WITH_TEACHER = 0.9, 0.85


@dataclass(frozen=True)
class VideoMAEOptions(PretrainingOptions):
    """Defaults are those of Video MAE and, with an image teacher, of SurgVISTA."""

    clip_len: int | None = option(None, "frames of a clip, an even number (default: the model's, 16)")
    fps: float = option(4.0, "frames of a clip in a second of video")
    mask_ratio: float | None = option(
        None, f"share of places hidden in all frames (default: {MASK_RATIO}; {MASK_RATIO_WITH_TEACHER} with an image teacher)"
    )  # fmt: skip
    image_teacher: str | None = option(
        None,
        "image encoder whose patch features are predicted too, as in SurgVISTA: a folder under models/ by name, or a "
        "config.yaml like theirs, or the folder that holds it",
    )
    image_teacher_weights: str | None = option(
        None, "weights of the image teacher (default: its config's), as --weights of extract_features.py"
    )
    teacher_size: int | None = option(
        None, "side in pixels of the frames that the image teacher sees (default: the student's)"
    )
    normalise_teacher: bool = option(False, "bring each feature vector of the image teacher to mean 0 and variance 1")
    pixel_weight: float = option(1.0, "weight of the pixels in the loss")
    distillation_weight: float = option(0.05, "weight of the image teacher's features in the loss")
    learning_rate: float = option(1.5e-4, "after warm-up, for 256 samples a step; scaled with their number")
    start_learning_rate: float = option(1e-6, "at the first step, scaled likewise")
    final_learning_rate: float = option(1e-4, "at the end of the cosine, scaled likewise")
    warmup: float = option(0.2, "share of all steps in which the learning rate rises (published: 40 of 201 epochs)")
    weight_decay: float = option(0.05, "of AdamW, but for biases and norms")
    drop_path: float = option(0.1, "chance that a sample skips a branch of the last block, rising from 0 at the first")
    clip_norm: float = option(0.0, "largest gradient norm of the encoder and of each decoder; 0: any, as published")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_len is not None and (self.clip_len < 2 or self.clip_len % 2):
            raise UserError(f"clip_len must be an even number, as frames are taken in pairs, found {self.clip_len}")
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio must lie between 0 and 1, found {self.mask_ratio}")
        for name in ("fps", "learning_rate", "pixel_weight", "distillation_weight"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, found {getattr(self, name)}")
        for name in ("start_learning_rate", "final_learning_rate", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("warmup", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, found {getattr(self, name)}")
        if self.teacher_size is not None and self.teacher_size < 1:
            raise UserError(f"teacher_size must be greater than 0, found {self.teacher_size}")
        alone = [f"--{name}" for name in ("image_teacher_weights", "teacher_size") if getattr(self, name) is not None]
        if alone and self.image_teacher is None:
            raise UserError(f"{' and '.join(alone)} without --image_teacher: name the image encoder too")

    def clip_len_of(self, model: SslModel) -> int:
        """Frames of a clip."""
        return self.clip_len or model.clip_len

    def teacher_size_of(self, model: SslModel) -> int | None:
        """Side in pixels of the image teacher's frames; None without one."""
        return None if self.image_teacher is None else self.teacher_size or self.crop_size_of(model)

    @property
    def mask(self) -> Tube:
        """What is hidden."""
        return Tube(self.mask_ratio or (MASK_RATIO_WITH_TEACHER if self.image_teacher else MASK_RATIO))
