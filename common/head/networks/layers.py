"""What the networks of the head share: the contract, a convolution over time, dropout that resumes, the mask.

Shapes: B videos, T frames, C channels. Inside, a sequence `(B, C, T)` may travel as an image `(B, C, 1, T)` in
channels-last memory, which features read as `(T, dim)` rows enter without a copy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last


class Head(nn.Module):
    """A network from frame features to the phases of every frame.

    `forward(x, mask)` takes features `x` `(B, dim, T)` and `mask` `(B, 1, T)` float, 1 = frame, 0 = padding (None: no
    padding), and returns the logits of every stage `(stages, B, num_classes, T)`, the last of which predicts. Padding
    never reaches a frame, and its logits are 0.
    """

    def use_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Draw all dropout masks from `generator` (None: torch's global one)."""
        for module in self.modules():
            if isinstance(module, SeededDropout):
                module.generator = generator


class Standardised(Head):
    """A head whose features are standardised first: less the mean of the training part, over its deviation.

    Both are buffers `(dim,)`: a checkpoint has them, and whoever predicts with the head applies them.
    """

    def __init__(self, head: Head, dim: int):
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        standardised = (x - self.mean[:, None]) / self.deviation[:, None]
        return self.head(masked(standardised, mask), mask)


class TemporalConv(nn.Conv1d):
    """A 1-d convolution over time of `(B, C, 1, T)` that keeps T and sees at most `future` frames after its own.

    What a limit takes from the padding on the right is padded on the left: 0 is causal, None is as many on both sides.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, dilation: int = 1, future: int | None = None
    ):
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        self.span = dilation * (kernel_size - 1)  # frames from its first tap to its last
        self.future = self.span // 2 if future is None else min(future, self.span // 2)

    def forward(self, x: Tensor) -> Tensor:
        # the parameters stay those of a Conv1d, as checkpoints have them: the unit height is added at each use
        weight = self.weight.unsqueeze(2).contiguous(memory_format=CHANNELS_LAST)
        if 2 * self.future != self.span:
            # conv2d pads both sides alike, so these are padded by hand; F.pad may change the memory order
            x = F.pad(x, (self.span - self.future, self.future)).contiguous(memory_format=CHANNELS_LAST)
            return F.conv2d(x, weight, self.bias, dilation=(1, *self.dilation))
        return F.conv2d(x, weight, self.bias, padding=(0, self.future), dilation=(1, *self.dilation))


class SeededDropout(nn.Module):
    """Dropout whose mask comes from an explicit generator, so that a resumed training draws the same masks.

    At p = 0.5 an element takes one random bit, about 15 times faster on a CPU than `nn.Dropout`. Without a generator
    torch's global one is used.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * (self._keep(x).to(x.dtype) / (1 - self.p))

    def _keep(self, x: Tensor) -> Tensor:
        """A boolean mask of the shape and memory order of the channels-last `x`."""
        batch, channels, height, length = x.shape
        if self.p != 0.5:
            keep = torch.rand(x.numel(), device=x.device, generator=self.generator) >= self.p
        else:
            # 64 elements take one random word; its 8 octets are spread into bits, and what is over is cut off
            words = torch.empty(-(-x.numel() // 64), dtype=torch.int64, device=x.device)
            # None: up to the largest int64, which is the only way to have every bit equally likely
            octets = words.random_(-(2**63), None, generator=self.generator).view(torch.uint8)
            bits = 2 ** torch.arange(8, dtype=torch.uint8, device=x.device)
            keep = (octets.unsqueeze(1) & bits).flatten()[: x.numel()] != 0
        # drawn in the order in which x lies in memory (channels last), so that the product needs no copy
        return keep.view(batch, height, length, channels).permute(0, 3, 1, 2)


class DilatedResidualLayer(nn.Module):
    """conv(3, dilation) -> ReLU -> conv(1) -> dropout, added to its input."""

    def __init__(self, dilation: int, channels: int, future: int | None):
        super().__init__()
        self.conv_dilated = TemporalConv(channels, channels, 3, dilation=dilation, future=future)
        self.conv_1x1 = TemporalConv(channels, channels)
        self.dropout = SeededDropout()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = self.conv_1x1(F.relu(self.conv_dilated(x)))
        return masked(x + self.dropout(out), mask)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with its padding at 0; as it is without a mask."""
    return x if mask is None else x * mask
