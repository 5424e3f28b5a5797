"""The decoder of SurgeNet's segmentation networks: a feature pyramid (Kirillov et al., CVPR 2019) on four maps of an encoder.

Names and arithmetic are those of `metaformer.py`, `convnextv2.py` and `pvtv2.py` in TimJaspers0801/SurgeNet@54831cf (MIT),
which hold it three times: a decoder that was trained there loads here, name for name. Their dropout has p = 0 and is left
out. Maps come from the finest (stride 4) to the coarsest (stride 32).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32  # of group normalisation: the width inside is a multiple of it
NUM_MAPS = 4
Merge = Literal["cat", "add"]


class FPN(nn.Module):
    """Scores of each class out of four maps.

    `encoder_channels` are those of the maps, the finest first. `merge`: the four branches side by side (`cat`, as its
    authors build it) or summed.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        num_classes: int,
        *,
        pyramid_channels: int = 256,
        segmentation_channels: int = 128,
        merge: Merge = "cat",
    ):
        super().__init__()
        first, second, third, last = encoder_channels
        self.p5 = nn.Conv2d(last, pyramid_channels, kernel_size=1)
        self.p4 = _Lateral(third, pyramid_channels)
        self.p3 = _Lateral(second, pyramid_channels)
        self.p2 = _Lateral(first, pyramid_channels)
        # the coarsest map has the longest way up to stride 4
        self.seg_blocks = nn.ModuleList(
            _Branch(pyramid_channels, segmentation_channels, doublings) for doublings in (3, 2, 1, 0)
        )
        self.merge = merge
        width = segmentation_channels * (NUM_MAPS if merge == "cat" else 1)
        # a sequence, whose one member with parameters is called 0 in the authors' files
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, num_classes, kernel_size=3, padding=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `(N, C_i, H / s, W / s)`, s = 4, 8, 16, 32 -> scores before softmax `(N, num_classes, H, W)`."""
        first, second, third, last = maps
        p5 = self.p5(last)
        p4 = self.p4(p5, third)
        p3 = self.p3(p4, second)
        p2 = self.p2(p3, first)
        branches = [block(level) for block, level in zip(self.seg_blocks, (p5, p4, p3, p2), strict=True)]
        merged = torch.cat(branches, dim=1) if self.merge == "cat" else sum(branches)
        return _enlarged(self.segmentation_head(merged), 4)


class _Lateral(nn.Module):
    """A level of the pyramid: the coarser one at twice its size, plus the encoder's map in as many channels."""

    def __init__(self, channels: int, pyramid_channels: int):
        super().__init__()
        self.skip_conv = nn.Conv2d(channels, pyramid_channels, kernel_size=1)

    def forward(self, coarser: Tensor, skip: Tensor) -> Tensor:
        """`(N, P, h, w)` and `(N, C, 2h, 2w)` -> `(N, P, 2h, 2w)`."""
        return F.interpolate(coarser, scale_factor=2, mode="nearest") + self.skip_conv(skip)


class _Branch(nn.Module):
    """A level brought to stride 4: a convolution and a doubling, `doublings` times; without any, one convolution."""

    def __init__(self, channels: int, width: int, doublings: int):
        super().__init__()
        widths = [channels, *[width] * max(1, doublings)]
        self.block = nn.Sequential(
            *(_Convolution(before, after, doubles=doublings > 0) for before, after in pairwise(widths))
        )

    def forward(self, level: Tensor) -> Tensor:
        """`(N, P, h, w)` -> `(N, S, h * 2**doublings, w * 2**doublings)`."""
        return self.block(level)


class _Convolution(nn.Module):
    """3x3 convolution, group normalisation, ReLU, and twice the size where `doubles`."""

    def __init__(self, channels: int, width: int, *, doubles: bool):
        super().__init__()
        self.doubles = doubles
        self.block = nn.Sequential(
            nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, C, h, w)` -> `(N, S, h, w)`, or twice as large."""
        outputs = self.block(inputs)
        return _enlarged(outputs, 2) if self.doubles else outputs


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    # corners onto corners, as the authors have it: other frameworks' default differs at every pixel
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=True)
