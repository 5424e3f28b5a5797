"""What the networks of the head share: the contract, a convolution over time, dropout that resumes, the mask.

Shapes: B videos, T frames, C channels. Inside, a sequence `(B, C, T)` may travel as an image `(B, C, 1, T)` in
channels-last memory, which features read as `(T, dim)` rows enter without a copy.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.head.networks.fused import CHANNELS_LAST, KEEP_SCALE, Dropout, ResidualStage, Taps, convolve, row_weights


class Head(nn.Module):
    """A network from frame features to the phases of every frame.

    `forward(x, mask)` takes features `x` `(B, dim, T)` and `mask` `(B, 1, T)` float, 1 = frame, 0 = padding (None: no
    padding), and returns the logits of every stage `(stages, B, num_classes, T)`, the last of which predicts. Padding
    never reaches a frame, and its logits are 0.
    """

    is_recordable = True
    """Whether the host decides nothing in a step, so that a GPU can replay it (`recorded`)."""

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
        self.is_recordable = head.is_recordable
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

    @property
    def taps(self) -> Taps:
        """Where it looks."""
        return Taps(*self.dilation, self.span - self.future, self.future)

    @property
    def image_weight(self) -> Tensor:
        """The weight `(out, in, 1, taps)`: parameters stay those of a Conv1d, as checkpoints have them, up to each use."""
        return self.weight.unsqueeze(2).contiguous(memory_format=CHANNELS_LAST)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.image_weight, self.bias, self.taps)


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
        if self.p == 0.5:
            return Dropout.apply(x, self.octets(x))
        batch, channels, height, length = x.shape
        keep = torch.rand(x.numel(), device=x.device, generator=self.generator) >= self.p
        # drawn in the order in which x lies in memory (channels last), so that the product needs no copy
        keep = keep.view(batch, height, length, channels).permute(0, 3, 1, 2)
        return x * (keep.to(x.dtype) / (1 - self.p))

    def octets(self, x: Tensor, *layers: int) -> Tensor:
        """A random bit for each element of `x` in its order in memory, eight in an octet, the first the lowest: uint8 `(*layers, n)`."""
        words = torch.empty(*layers, -(-x.numel() // 64), dtype=torch.int64, device=x.device)
        # None: up to the largest int64, which is the only way to have every bit equally likely
        words.random_(-(2**63), None, generator=self.generator)
        return words.view(torch.uint8)[..., : -(-x.numel() // 8)]


class DilatedResidualLayer(nn.Module):
    """conv(3, dilation) -> ReLU -> conv(1) -> dropout, added to its input."""

    def __init__(self, dilation: int, channels: int, future: int | None):
        super().__init__()
        self.conv_dilated = TemporalConv(channels, channels, 3, dilation=dilation, future=future)
        self.conv_1x1 = TemporalConv(channels, channels)
        self.dropout = SeededDropout()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The layer as it is defined; `through_layers` is faster in training."""
        out = self.conv_1x1(F.relu(self.conv_dilated(x)))
        return masked(x + self.dropout(out), mask)


def through_layers(layers: Sequence[DilatedResidualLayer], x: Tensor, mask: Tensor | None) -> Tensor:
    """What comes out of the last of a stage's layers."""
    if not layers[0].training or layers[0].dropout.p != 0.5:
        for layer in layers:
            x = layer(x, mask)
        return x
    dilated = _stacked([layer.conv_dilated for layer in layers], x.dtype)
    # dropout's factor, which is exact, costs nothing here
    pointwise = [KEEP_SCALE * each for each in _stacked([layer.conv_1x1 for layer in layers], x.dtype)]
    octets = layers[0].dropout.octets(x, len(layers))
    taps = [layer.conv_dilated.taps for layer in layers]
    return ResidualStage.apply(x, *dilated, *pointwise, octets, mask, taps)


def _stacked(convolutions: Sequence[TemporalConv], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights and biases of all layers: an operation on weights takes longer to start than to run, so it is one for all."""
    weights = torch.stack([each.weight for each in convolutions])
    return row_weights(weights.to(dtype)), torch.stack([each.bias for each in convolutions]).to(dtype)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with its padding at 0; as it is without a mask."""
    return x if mask is None else x * mask.to(x.dtype)
