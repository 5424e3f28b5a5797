"""From decoded frames to a network's input pixels: the rule as data, and what applies it.

The rule is declared in `config.yaml` and repeated by options, so torch is imported by what computes alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to a network's input, as data.

    `crop` none resizes the whole field to a square of `size` pixels (surgery happens at the borders too); `center` is
    the library's own rule: the short side to `short_side` pixels, then the middle square. Without a `short_side` the
    library resizes to the square itself. Pixels are scaled to 0..1, then (x - mean) / std. What a colour histogram counts is
    multiplied by `feature_scale`: shares of pixels are too small to learn from.
    """

    size: int = 224
    crop: Literal["none", "center"] = "none"
    short_side: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    feature_scale: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The rule as it stands in a sidecar."""
        said = asdict(self) | {"mean": list(self.mean), "std": list(self.std), "resize": "antialiased, on uint8"}
        return {key: value for key, value in said.items() if (key, value) != ("feature_scale", None)}  # few have one


def resize(images: Tensor, rule: Preprocessing) -> Tensor:
    """Decoded frames `(N, H, W, 3)` uint8 as `(N, 3, size, size)` uint8, antialiased, on the device they are on.

    A CPU resizes uint8 directly, at most one level from the rounded float result that a GPU computes.
    """
    import torch
    import torch.nn.functional as F

    pixels = images.permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    target = rule.size, rule.size
    if rule.crop == "center" and rule.short_side is not None:
        scale = rule.short_side / min(height, width)
        # never below the short side, whatever rounding does: the square is cut out of this
        target = max(rule.short_side, round(height * scale)), max(rule.short_side, round(width * scale))
    if pixels.device.type == "cpu":
        resized = F.interpolate(pixels, target, mode=rule.interpolation, antialias=True)
    else:
        resized = F.interpolate(pixels.float(), target, mode=rule.interpolation, antialias=True)
        # bicubic overshoots at edges
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    top, left = ((side - rule.size) // 2 for side in resized.shape[2:])
    return resized[:, :, top : top + rule.size, left : left + rule.size]


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image `(H, W, 3)` uint8 at `size` (height, width): pictures that change their size in mid-video, in one array."""
    if image.shape[:2] == size:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def normalise(pixels: Tensor, rule: Preprocessing) -> Tensor:
    """uint8 pixels `(..., 3, size, size)` as float32 `(x / 255 - mean) / std`, on the device they are on."""
    import torch

    # mean and std in levels instead of pixels in 0..1: one pass over the pixels fewer
    mean = torch.tensor(rule.mean, device=pixels.device).view(-1, 1, 1) * 255
    std = torch.tensor(rule.std, device=pixels.device).view(-1, 1, 1) * 255
    return (pixels - mean) / std
