"""Colour histograms: no network, no weights; the floor that any encoder must beat."""

import torch
from torch import Tensor, nn

from common.encoders.base import ImageEncoder
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource


class ColorHistogram(nn.Module):
    """Share of pixels in each of `num_bins` equal bins of every colour channel, times `scale`."""

    def __init__(self, num_bins: int, scale: float = 1.0):
        super().__init__()
        self.num_bins, self.scale = num_bins, scale

    def forward(self, pixels: Tensor) -> Tensor:
        """`pixels` `(N, 3, H, W)` in 0..1 -> `(N, 3 * num_bins)`, each channel's bins summing to `scale`."""
        bins = (pixels * self.num_bins).long().clamp(0, self.num_bins - 1).flatten(2)
        counts = torch.zeros(*bins.shape[:2], self.num_bins, device=pixels.device)
        counts.scatter_add_(2, bins, torch.ones_like(bins, dtype=counts.dtype))
        return (counts * (self.scale / bins.shape[2])).flatten(1)


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """Histograms with `feature_dim / 3` bins a channel."""
    scale = config.preprocessing.feature_scale or 1.0
    return ImageEncoder(config, ColorHistogram(config.feature_dim // 3, scale), source)
