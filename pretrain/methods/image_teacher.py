"""A frozen image encoder whose patch features a video student learns to predict (SurgVISTA)."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DINOv3ViTModel

from common.base import paths
from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.video.preprocess import normalise

LOOK = 128  # pixels of the picture that shows how large a teacher's patches are


class ImageTeacher:
    """An encoder of `models/` seen through its patches; no module, so that no checkpoint holds a copy of it."""

    def __init__(self, encoder: ImageEncoder):
        self.encoder = encoder

    @property
    def name(self) -> str:
        """For messages."""
        return self.encoder.config.title

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Frames `(B, T, 3, S, S)` uint8 -> patch features `(B, T * h * w, D)`, by time, row, column."""
        if self.encoder.device != frames.device:
            self.encoder.prepare(frames.device)
        pixels = normalise(frames.flatten(0, 1), self.encoder.preprocessing)
        features = patch_features(self.encoder.network, pixels)
        return features.unflatten(0, frames.shape[:2]).flatten(1, 2)


def load_image_teacher(name: str, weights: str | None = None) -> ImageTeacher:
    """The image encoder called `name` under `models/`, or described by the `config.yaml` that is, or lies in, `name`.

    Raises `UserError` for what is no image encoder or has no patches, and when its weights are absent or do not fit.
    """
    encoder = build_encoder(read_encoder_config(_config_file(name)), weights)
    body = _body(encoder.network)
    has_patches = isinstance(body, DINOv3ViTModel) or hasattr(body, "forward_features")
    if not (isinstance(encoder, ImageEncoder) and has_patches):
        raise UserError(
            f"--image_teacher {name}: {encoder.config.title} gives no features of an image's patches; take a DINOv3 or "
            "a SurgeNet encoder"
        )
    return ImageTeacher(encoder)


def require_grid(teacher: ImageTeacher, size: int, num_sides: int) -> int:
    """The width D of the teacher's features, whose patches in frames of `size` pixels are `num_sides` squared.

    Raises `UserError` where a patch of the student would not be one of the teacher.
    """
    num_patches, width = teacher(torch.zeros(1, 1, 3, LOOK, LOOK, dtype=torch.uint8)).shape[1:]
    patch = LOOK // math.isqrt(num_patches)
    if size == num_sides * patch:
        return width
    raise UserError(
        f"--image_teacher: {teacher.name} has patches of {patch} pixels, so that frames of {size} pixels do not show "
        f"the {num_sides} x {num_sides} patches of the student; give --teacher_size {num_sides * patch}"
    )


def patch_features(network: nn.Module, pixels: Tensor) -> Tensor:
    """Normalised pixels `(N, 3, S, S)` -> features of the patches, or places of the last map, `(N, h * w, D)`."""
    body = _body(network)
    if isinstance(body, DINOv3ViTModel):
        return body(pixels).last_hidden_state[:, 1 + body.config.num_register_tokens :]
    features = body.forward_features(pixels)
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2)
    return features[:, body.num_prefix_tokens :]


def _body(network: nn.Module) -> nn.Module:
    """The network below the pooling of `common.encoders.families.dinov3`."""
    return getattr(network, "backbone", network)


def _config_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        return path
    if not path.is_dir():
        return paths.model(name).config
    if not (path / "config.yaml").is_file():
        raise UserError(
            f"--image_teacher {name}: no config.yaml in this folder; name an encoder of models/, and give weights of "
            "your own for it by --image_teacher_weights"
        )
    return path / "config.yaml"
