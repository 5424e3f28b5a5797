"""From decoded frames to a network's input pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.config import Preprocessing


def resize(images: Tensor, rule: Preprocessing) -> Tensor:
    """Decoded frames `(N, H, W, 3)` uint8 as `(N, 3, size, size)` uint8, antialiased, on the device they are on.

    A CPU resizes uint8 directly, at most one level from the rounded float result that a GPU computes.
    """
    pixels = images.permute(0, 3, 1, 2)
    target = _resized_shape(*pixels.shape[2:], rule)
    if pixels.device.type == "cpu":
        resized = F.interpolate(pixels, target, mode=rule.interpolation, antialias=True)
    else:
        resized = F.interpolate(pixels.float(), target, mode=rule.interpolation, antialias=True)
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    top, left = ((side - rule.size) // 2 for side in resized.shape[2:])
    return resized[:, :, top : top + rule.size, left : left + rule.size]


def _resized_shape(height: int, width: int, rule: Preprocessing) -> tuple[int, int]:
    if rule.crop == "none" or rule.short_side is None:
        return rule.size, rule.size
    scale = rule.short_side / min(height, width)
    return max(rule.short_side, round(height * scale)), max(rule.short_side, round(width * scale))


def normalise(pixels: Tensor, rule: Preprocessing) -> Tensor:
    """uint8 pixels `(..., 3, size, size)` as float32 `(x / 255 - mean) / std`, on the device they are on."""
    mean = torch.tensor(rule.mean, device=pixels.device).view(-1, 1, 1) * 255
    std = torch.tensor(rule.std, device=pixels.device).view(-1, 1, 1) * 255
    return (pixels - mean) / std
