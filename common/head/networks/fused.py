"""Whole layers of the dilated heads as one step of autograd each: fewer passes over memory, for training.

A layer of 64 channels multiplies so little that half of a training step went into passes over memory: the mask of dropout as
numbers, ReLU and sums into fresh memory, what autograd keeps of each. Here a layer keeps one bit an element of its dropout, works
in place, and adds the residual where it lies. Each function names its plain equal in `layers` or `mstcn`, whose numbers it gives.

Shapes: sequences `(B, C, 1, T)` in channels-last memory, weights `(out, in, 1, taps)`, biases `(out,)`.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHANNELS_LAST = torch.channels_last
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element
KEEP_SCALE = 2.0  # what dropout at p = 0.5 multiplies by that it keeps


class Taps(NamedTuple):
    """Where a convolution over time looks: `dilation` frames between its taps, `left` and `right` frames of padding."""

    dilation: int
    left: int
    right: int


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps) -> Tensor:
    """The convolution over the T frames of `x` `(B, in, 1, T)`, zeros around it: `(B, out, 1, T)`."""
    if taps.left == taps.right:
        return F.conv2d(x, weight, bias, padding=(0, taps.left), dilation=(1, taps.dilation))
    return F.conv2d(_padded(x, taps), weight, bias, dilation=(1, taps.dilation))


def _padded(x: Tensor, taps: Taps) -> Tensor:
    # conv2d pads both sides alike, so these are padded by hand; F.pad may change the memory order
    return F.pad(x, (taps.left, taps.right)).contiguous(memory_format=CHANNELS_LAST)


def _convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
    """Gradients of `convolve` by `x` and `weight`; that by the bias is `_over_frames(grad)`."""
    symmetric = taps.left == taps.right
    # A product a tap takes a quarter of the time of oneDNN's gradient by the weight in float32, and of cuDNN's in bfloat16 a
    # fifth: T is summed over for a few thousand numbers, which it leaves to a few of a GPU's processors.
    by_products = (grad.device.type == "cpu") != (grad.dtype == torch.bfloat16)
    source, padding = (x, taps.left) if symmetric else (_padded(x, taps), 0)
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        source,
        weight,
        None,
        (1, 1),
        (0, padding),
        (1, taps.dilation),
        False,
        (0, 0),
        1,
        (True, not by_products, False),
    )
    by_x = by_x if symmetric else by_x[..., taps.left : taps.left + x.shape[-1]]
    return by_x, _by_weight(grad, x, weight, taps) if by_products else by_weight


def _by_weight(grad: Tensor, x: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """The gradient of `convolve` by its weight: for each tap, the product of what went out and what came in there."""
    length, num_taps = x.shape[-1], weight.shape[-1]
    by_tap = weight.new_zeros(num_taps, *weight.shape[:2])
    totals = by_tap.unbind()
    for out, into in zip(grad.squeeze(2), x.squeeze(2).transpose(1, 2), strict=True):  # (out, T) and (T, in) of a video
        for tap in range(num_taps):
            offset = tap * taps.dilation - taps.left
            first, last = max(0, -offset), length - max(0, offset)
            if first < last:  # else the tap lies in the padding at every frame
                totals[tap].addmm_(out[:, first:last], into[first + offset : last + offset])
    return by_tap.permute(1, 2, 0).unsqueeze(2)


def _over_frames(grad: Tensor) -> Tensor:
    """The sum of each channel over all frames: the gradient by a bias."""
    return grad.sum((0, 2, 3))


@functools.cache
def _rows_of_octets(integer: torch.dtype) -> Tensor:
    """The 8 masks, all bits or none, of each octet `(256, 8)`: its lowest bit is the first element's."""
    octets, bits = torch.arange(256).unsqueeze(1), 2 ** torch.arange(8)
    return (-((octets & bits) != 0).long()).to(integer)


def kept(octets: Tensor, x: Tensor) -> Tensor:
    """Masks of all bits or none for the elements of `x` in their order in memory: integers of its shape and width.

    An integer mask is one `&`, three times as fast as the product with 0 or 1. On a CPU the rows of a table take a fifth of the time
    of shifting each bit to the sign and over all others; on a GPU that takes a tenth of the time of a table.
    """
    integer = INTEGERS[x.element_size()]
    masks = F.embedding(octets.int(), _rows_of_octets(integer)) if x.device.type == "cpu" else _spread(octets, integer)
    batch, channels, height, length = x.shape
    return masks.view(-1)[: x.numel()].view(batch, height, length, channels).permute(0, 3, 1, 2)


def _spread(octets: Tensor, integer: torch.dtype) -> Tensor:
    """The masks of octets `(n,)` as `_rows_of_octets` has them, `(n, 8)`, without a table."""
    sign = torch.iinfo(integer).bits - 1
    return (
        octets.to(integer).unsqueeze(1) << torch.arange(sign, sign - 8, -1, dtype=integer, device=octets.device)
    ) >> sign


def _bits(x: Tensor) -> Tensor:
    """`x` as integers of the same width: the same memory."""
    return x.view(INTEGERS[x.element_size()])


class Dropout(Function):
    """Dropout at p = 0.5 by the bits `octets`; plain: `x * kept / 0.5`."""

    @staticmethod
    def forward(ctx, x: Tensor, octets: Tensor) -> Tensor:
        ctx.save_for_backward(octets)
        return Dropout._apply(x, octets)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return Dropout._apply(grad.contiguous(memory_format=CHANNELS_LAST), *ctx.saved_tensors), None

    @staticmethod
    def _apply(x: Tensor, octets: Tensor) -> Tensor:
        return (_bits(x) & kept(octets, x)).view(x.dtype).mul_(KEEP_SCALE)


def image_weights(stacked: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Weights `(layers, out, in, taps)` as those of each layer's `convolve`, `(out, in, 1, taps)`."""
    memory = stacked.transpose(2, 3).to(dtype=dtype, memory_format=torch.contiguous_format)
    return memory.transpose(2, 3).unsqueeze(3).unbind()


class ResidualLayer(Function):
    """`DilatedResidualLayer` in training: x + dropout(1x1(relu(dilated(x)))), its padding at 0 by `mask` where there is any.

    The factor 2 of dropout is in the pointwise convolution already, which is exact (`layers.residual_weights`).
    """

    @staticmethod
    def forward(ctx, x, dilated, dilated_bias, pointwise, pointwise_bias, octets, mask, taps: Taps) -> Tensor:
        hidden = convolve(x, dilated, dilated_bias, taps).relu_()
        out = F.conv2d(hidden, pointwise, pointwise_bias)
        _bits(out).bitwise_and_(kept(octets, out))
        out += x
        if mask is not None:
            mask = mask.to(x.dtype)
            out *= mask
        ctx.save_for_backward(x, hidden, dilated, pointwise, octets, mask)
        ctx.taps = taps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, hidden, dilated, pointwise, octets, mask = ctx.saved_tensors
        grad = grad.contiguous(memory_format=CHANNELS_LAST)
        if mask is not None:
            grad = grad * mask
        by_out = (_bits(grad) & kept(octets, grad)).view(grad.dtype)
        by_hidden, by_pointwise = _convolve_backward(by_out, hidden, pointwise, Taps(1, 0, 0))
        by_hidden = torch.ops.aten.threshold_backward(by_hidden, hidden, 0)
        by_x, by_dilated = _convolve_backward(by_hidden, x, dilated, ctx.taps)
        by_biases = _over_frames(by_hidden), _over_frames(by_out)
        return by_x.add_(grad), by_dilated, by_biases[0], by_pointwise, by_biases[1], None, None, None


class PairedLayer(Function):
    """A layer of `PredictionGeneration` in training: x + dropout(relu(first(x) + second(x) + bias)), its padding at 0.

    `first` and `second` are the pair of dilated convolutions, each with its half of the fusion multiplied in (`mstcn.multiplied`).
    """

    @staticmethod
    def forward(ctx, x, first, second, bias, octets, mask, taps: tuple[Taps, Taps]) -> Tensor:
        kept_part = convolve(x, first, bias, taps[0]).add_(convolve(x, second, None, taps[1])).relu_()
        _bits(kept_part).bitwise_and_(kept(octets, kept_part))
        # dropout's factor: exact, and after it what is above 0 is what both ReLU and dropout let through
        out = torch.add(x, kept_part, alpha=KEEP_SCALE)
        if mask is not None:
            mask = mask.to(x.dtype)
            out *= mask
        ctx.save_for_backward(x, kept_part, first, second, mask)
        ctx.taps = taps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kept_part, first, second, mask = ctx.saved_tensors
        grad = grad.contiguous(memory_format=CHANNELS_LAST)
        if mask is not None:
            grad = grad * mask
        by_sum = torch.ops.aten.threshold_backward(grad, kept_part, 0).mul_(KEEP_SCALE)
        by_x, by_first = _convolve_backward(by_sum, x, first, ctx.taps[0])
        by_x_too, by_second = _convolve_backward(by_sum, x, second, ctx.taps[1])
        return by_x.add_(by_x_too).add_(grad), by_first, by_second, _over_frames(by_sum), None, None, None
