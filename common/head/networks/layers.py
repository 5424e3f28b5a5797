"""What the networks of the head share: the contract, a convolution over time, dropout that resumes, the mask.

Shapes: B videos, T frames, C channels. Inside, a sequence `(B, C, T)` may travel as an image `(B, C, 1, T)` in
channels-last memory, which features read as `(T, dim)` rows enter without a copy.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.head.networks.fused import CHANNELS_LAST, KEEP_SCALE, Dropout, ResidualStage, Taps, convolve


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

    def join(self) -> list["Joined"]:
        """All parameters as an optimizer is to take them, those of fused stages joined; to be called where they are to stay."""
        stages = [module for module in self.modules() if isinstance(module, FusedStage) and module.is_fused]
        joined = [each for stage in stages for stack in stage.stacks for each in stack.join()]
        in_stages = {id(part) for each in joined for part in each.parts}
        return joined + [Joined(each, [each]) for each in self.parameters() if id(each) not in in_stages]


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
        """The layer as it is defined; `ResidualLayers` is faster in training."""
        out = self.conv_1x1(F.relu(self.conv_dilated(x)))
        return masked(x + self.dropout(out), mask)


class Joined(NamedTuple):
    """Parameters of layers as a training updates them: `whole` has all of `parts`, which are views of it.

    A step on one takes no longer to start than a step on each of L layers. A parameter of no stage is a whole of itself.
    """

    whole: nn.Parameter
    parts: list[nn.Parameter]

    def together(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors like the parts, an optimizer's moments say, as one like the whole."""
        return tensors[0] if self.whole is self.parts[0] else _together(tensors)

    def apart(self, tensor: Tensor) -> Sequence[Tensor]:
        """A tensor like the whole as those like the parts: views of it."""
        return [tensor] if self.whole is self.parts[0] else _apart(tensor)


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Weights `(out, in, taps)` of L layers as a stage takes them, `(L, out, taps, in)`; biases `(out,)` as `(L, out)`."""
    whole = torch.stack(tuple(parts))
    return whole.mT.contiguous() if whole.dim() > 2 else whole


def _apart(whole: Tensor) -> Sequence[Tensor]:
    """What `_together` put together: views."""
    return (whole.mT if whole.dim() > 2 else whole).unbind()


class Stack:
    """The like convolutions of a stage's layers: `weight` `(L, out, taps, in)` and `bias` `(L, out)` are those of all.

    An operation on weights takes longer to start than to run, so it is one for all. They are put together at each use, until
    `join` does that for good.
    """

    def __init__(self, convolutions: Iterable[TemporalConv]):
        self._convolutions = list(convolutions)
        self._joined: dict[str, Joined] = {}

    def join(self) -> Iterable[Joined]:
        """Put the weights and the biases into one each, of which those of the convolutions are views from here on."""
        for name in ("weight", "bias"):
            parts = [getattr(each, name) for each in self._convolutions]
            whole = nn.Parameter(_together(parts).detach())
            for part, place in zip(parts, _apart(whole.detach()), strict=True):
                part.data = place
            self._joined[name] = Joined(whole, parts)
        return self._joined.values()

    @property
    def weight(self) -> Tensor:
        return self._all("weight")

    @property
    def bias(self) -> Tensor:
        return self._all("bias")

    def _all(self, name: str) -> Tensor:
        if not self._joined:
            return _together([getattr(each, name) for each in self._convolutions])
        whole = self._joined[name].whole
        if getattr(self._convolutions[0], name).data_ptr() != whole.data_ptr():
            raise RuntimeError(
                "this head was moved or copied after `join`; give its optimizer what a new `join` returns"
            )
        return whole


class FusedStage(nn.Module):
    """A stage whose layers a training takes together (`fused`): where its dropout is at p = 0.5."""

    stacks: Sequence[Stack]
    dropout: SeededDropout

    @property
    def is_fused(self) -> bool:
        return self.dropout.p == 0.5


class ResidualLayers(FusedStage, nn.ModuleList):
    """The dilated residual layers of a stage, one after another."""

    def __init__(self, layers: Iterable[DilatedResidualLayer]):
        super().__init__(layers)
        self.stacks = [Stack(layer.conv_dilated for layer in self), Stack(layer.conv_1x1 for layer in self)]

    @property
    def dropout(self) -> SeededDropout:
        """That of the first draws for all of them."""
        return self[0].dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What comes out of the last layer."""
        if not (self.training and self.is_fused):
            for layer in self:
                x = layer(x, mask)
            return x
        dilated, pointwise = ((stack.weight.to(x.dtype), stack.bias.to(x.dtype)) for stack in self.stacks)
        pointwise = [KEEP_SCALE * each for each in pointwise]  # dropout's factor, which is exact, costs nothing here
        octets = self.dropout.octets(x, len(self))
        taps = [layer.conv_dilated.taps for layer in self]
        return ResidualStage.apply(x, *dilated, *pointwise, octets, mask, taps)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with its padding at 0; as it is without a mask."""
    return x if mask is None else x * mask.to(x.dtype)
