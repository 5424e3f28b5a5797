"""Whole stages of the dilated heads as one step of autograd each: fewer passes over memory and fewer operations, for training.

A layer of 64 channels multiplies so little that half of a training step on a long video went into passes over memory: the mask of
dropout as numbers, ReLU and sums into fresh memory, what autograd keeps of each. Here a layer keeps one bit an element of its
dropout, works in place, and adds the residual where it lies. On a short video most of a step went into starting operations: a stage
draws and arranges for all its layers at once, and a convolution is one product. Each function names its plain equal.

Shapes: a sequence is rows `(B, T, C)`, and in `convolve` and `Dropout` an image `(B, C, 1, T)` of the same memory (channels last);
weights are `(out, taps, in)`, of images `(out, in, 1, taps)`, biases `(out,)`; those of a stage have its layers in front.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHANNELS_LAST = torch.channels_last
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element
KEEP_SCALE = 2.0  # what dropout at p = 0.5 multiplies by that it keeps
SHORT = 2048  # frames of a batch up to which a convolution on a CPU is faster as one product, and masks are kept as they are


class Taps(NamedTuple):
    """Where a convolution over time looks: `dilation` frames between its taps, `left` and `right` frames of padding."""

    dilation: int
    left: int
    right: int

    @property
    def offsets(self) -> range:
        """The frame of each tap, counted from the convolution's own."""
        return range(-self.left, self.right + 1, self.dilation)


POINTWISE = Taps(1, 0, 0)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, taps: Taps) -> Tensor:
    """The convolution over the T frames of an image `(B, in, 1, T)`, zeros around it: `(B, out, 1, T)`."""
    if taps.left == taps.right:
        return F.conv2d(x, weight, bias, padding=(0, taps.left), dilation=(1, taps.dilation))
    return F.conv2d(_padded(x, taps), weight, bias, dilation=(1, taps.dilation))


def _padded(x: Tensor, taps: Taps) -> Tensor:
    # conv2d pads both sides alike, so these are padded by hand; F.pad may change the memory order
    return F.pad(x, (taps.left, taps.right)).contiguous(memory_format=CHANNELS_LAST)


def to_rows(image: Tensor) -> Tensor:
    """`(B, C, 1, T)` as `(B, T, C)`: the same memory where that is channels last."""
    return image.squeeze(2).transpose(1, 2).contiguous()


def to_image(rows: Tensor) -> Tensor:
    """`(B, T, C)` as `(B, C, 1, T)`, and a weight `(out, taps, in)` as `(out, in, 1, taps)`: the same memory."""
    return rows.transpose(1, 2).unsqueeze(2)


def _is_short(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.shape[0] * x.shape[1] <= SHORT


def _convolved(x: Tensor, weight: Tensor, bias: Tensor, taps: Sequence[Taps]) -> Tensor:
    """The sum of convolutions of `x` `(B, T, in)`, one for each of `taps`, whose weights lie side by side: `(B, T, out)`."""
    if _is_short(x):
        reached, offsets = _reached(tuple(taps), x.shape[1])
        used = weight if len(offsets) == weight.shape[1] else weight[:, reached]
        return torch.addmm(bias, _columns(x, offsets), used.flatten(1).t()).view(*x.shape[:2], -1)
    image, (first, *others) = to_image(x), _parts(weight, taps)
    out = convolve(image, first[0], bias, first[1])
    for part, of_part in others:
        out.add_(convolve(image, part, None, of_part))
    return to_rows(out)


def _parts(weight: Tensor, taps: Sequence[Taps]) -> list[tuple[Tensor, Taps]]:
    """Of each convolution of a sum its weight as that of an image, and its taps."""
    weights = weight.split([len(each.offsets) for each in taps], 1) if len(taps) > 1 else [weight]
    return [(to_image(part), of_part) for part, of_part in zip(weights, taps, strict=True)]


def _convolved_backward(
    grad: Tensor, x: Tensor, weight: Tensor, taps: Sequence[Taps], onto: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of `_convolved` by `x`, added to `onto`, and by the weight; that by the bias is `_over_frames(grad)`."""
    if _is_short(x):
        return _product_backward(grad, x, weight, taps, onto)
    by_weights = []
    for part, of_part in _parts(weight, taps):
        by_x, by_part = _image_backward(to_image(grad), to_image(x), part, of_part)
        onto = to_rows(by_x) if onto is None else to_rows(by_x).add_(onto)
        by_weights.append(by_part)
    return onto, torch.cat(by_weights, 1) if len(by_weights) > 1 else by_weights[0]


@functools.lru_cache(4096)
def _reached(taps: tuple[Taps, ...], length: int) -> tuple[list[int], list[int]]:
    """The taps that look at any of so many frames, and their offsets: wide layers look at nothing but padding in a short video."""
    offsets = [offset for each in taps for offset in each.offsets]
    reached = [tap for tap, offset in enumerate(offsets) if abs(offset) < length]
    return reached, [offsets[tap] for tap in reached]


def _columns(x: Tensor, offsets: Sequence[int]) -> Tensor:
    """What stands at these offsets from each frame, side by side: `(B T, offsets C)`."""
    if offsets == [0]:
        return x.flatten(0, 1)
    batch, length = x.shape[:2]
    if not offsets:
        return x.new_empty(batch * length, 0)
    reach = max(map(abs, offsets))
    padded = F.pad(x, (0, 0, reach, reach))
    return torch.cat([padded[:, reach + offset : reach + offset + length] for offset in offsets], 2).flatten(0, 1)


def _product_backward(
    grad: Tensor, x: Tensor, weight: Tensor, taps: Sequence[Taps], onto: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`_convolved_backward` by one product for each gradient."""
    reached, offsets = _reached(tuple(taps), x.shape[1])
    is_whole = len(offsets) == weight.shape[1]
    used = weight if is_whole else weight[:, reached]
    by_used = (grad.flatten(0, 1).t() @ _columns(x, offsets)).view_as(used)
    if is_whole:
        by_weight = by_used
    else:
        by_weight = torch.zeros_like(weight)
        by_weight[:, reached] = by_used
    # a frame is seen by those from which the offsets lead to it
    seen_by, transposed = _columns(grad, [-offset for offset in offsets]), used.transpose(0, 1).flatten(0, 1)
    by_x = seen_by @ transposed if onto is None else torch.addmm(onto.flatten(0, 1), seen_by, transposed)
    return by_x.view_as(x), by_weight


def _image_backward(grad: Tensor, x: Tensor, weight: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
    """Gradients of `convolve` by `x` and by the weight, that as `(out, taps, in)`."""
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
    return by_x, _by_weight(grad, x, taps) if by_products else by_weight.squeeze(2).transpose(1, 2)


def _by_weight(grad: Tensor, x: Tensor, taps: Taps) -> Tensor:
    """The gradient of `convolve` by its weight: for each tap, the product of what went out and what came in there."""
    length = x.shape[-1]
    by_tap = grad.new_zeros(len(taps.offsets), grad.shape[1], x.shape[1])
    for out, into in zip(grad.squeeze(2), x.squeeze(2).transpose(1, 2), strict=True):  # (out, T) and (T, in) of a video
        for total, offset in zip(by_tap, taps.offsets, strict=True):
            first, last = max(0, -offset), length - max(0, offset)
            if first < last:  # else the tap lies in the padding at every frame
                total.addmm_(out[:, first:last], into[first + offset : last + offset])
    return by_tap.transpose(0, 1)


def _over_frames(grad: Tensor) -> Tensor:
    """The sum of each channel over all frames: the gradient by a bias."""
    return grad.sum((0, 1))


@functools.cache
def _rows_of_octets(integer: torch.dtype) -> Tensor:
    """The 8 masks, all bits or none, of each octet `(256, 8)`: its lowest bit is the first element's."""
    octets, bits = torch.arange(256).unsqueeze(1), 2 ** torch.arange(8)
    return (-((octets & bits) != 0).long()).to(integer)


def kept(octets: Tensor, x: Tensor) -> Tensor:
    """Masks of all bits or none for the elements of the rows `x`, integers of its width: `(..., *x.shape)` from octets `(..., n)`.

    An integer mask is one `&`, three times as fast as the product with 0 or 1. On a CPU the rows of a table take a fifth of the time
    of shifting each bit to the sign and over all others; on a GPU that takes a tenth of the time of a table.
    """
    integer = INTEGERS[x.element_size()]
    masks = F.embedding(octets.int(), _rows_of_octets(integer)) if x.device.type == "cpu" else _spread(octets, integer)
    return masks.flatten(-2)[..., : x.numel()].unflatten(-1, x.shape)


def _spread(octets: Tensor, integer: torch.dtype) -> Tensor:
    """The masks of octets `(..., n)` as `_rows_of_octets` has them, `(..., n, 8)`, without a table."""
    sign = torch.iinfo(integer).bits - 1
    return (
        octets.to(integer).unsqueeze(-1) << torch.arange(sign, sign - 8, -1, dtype=integer, device=octets.device)
    ) >> sign


def _of_layer(bits: Tensor, layer: int, x: Tensor) -> Tensor:
    """A layer's mask of what a stage keeps for all: the masks `(L, *x.shape)` of a short video, else octets, an eighth of a byte each."""
    return bits[layer] if bits.dim() > 2 else kept(bits[layer], x)


def _bits(x: Tensor) -> Tensor:
    """`x` as integers of the same width: the same memory."""
    return x.view(INTEGERS[x.element_size()])


class Dropout(Function):
    """Dropout of an image at p = 0.5 by the bits `octets`; plain: `x * kept / 0.5`."""

    @staticmethod
    def forward(ctx, x: Tensor, octets: Tensor) -> Tensor:
        ctx.save_for_backward(octets)
        return Dropout._apply(x, octets)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return Dropout._apply(grad, *ctx.saved_tensors), None

    @staticmethod
    def _apply(x: Tensor, octets: Tensor) -> Tensor:
        rows = to_rows(x)
        return to_image((_bits(rows) & kept(octets, rows)).view(x.dtype).mul_(KEEP_SCALE))


def row_weights(stacked: Tensor) -> Tensor:
    """Weights `(layers, out, in, taps)` as a stage takes them, `(layers, out, taps, in)`."""
    return stacked.transpose(2, 3).contiguous()


class ResidualStage(Function):
    """The layers `DilatedResidualLayer` of a stage in training, each x + dropout(1x1(relu(dilated(x)))), its padding at 0 by `mask`.

    `dilated` `(L, C, taps, C)`, `pointwise` `(L, C, 1, C)`, biases `(L, C)`, `octets` `(L, n)`, `taps` of each layer. The factor 2
    of dropout is in the pointwise convolution already, which is exact (`layers.through_layers`).
    """

    @staticmethod
    def forward(
        ctx, x, dilated, dilated_biases, pointwise, pointwise_biases, octets, mask, taps: Sequence[Taps]
    ) -> Tensor:
        bits = kept(octets, x) if _is_short(x) else octets
        mask = None if mask is None else mask.to(x.dtype)
        inputs, hiddens = [], []
        for layer, of_layer in enumerate(taps):
            hidden = _convolved(x, dilated[layer], dilated_biases[layer], [of_layer]).relu_()
            out = _convolved(hidden, pointwise[layer], pointwise_biases[layer], [POINTWISE])
            _bits(out).bitwise_and_(_of_layer(bits, layer, out))
            out += x
            if mask is not None:
                out *= mask
            inputs.append(x)
            hiddens.append(hidden)
            x = out
        ctx.save_for_backward(dilated, pointwise, bits, mask, *inputs, *hiddens)
        ctx.taps = taps
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        dilated, pointwise, bits, mask, *kept_back = ctx.saved_tensors
        grad, by_layer = grad.contiguous(), []
        for layer, of_layer in reversed(list(enumerate(ctx.taps))):
            x, hidden = kept_back[layer], kept_back[len(ctx.taps) + layer]
            grad = grad if mask is None else grad * mask
            by_out = (_bits(grad) & _of_layer(bits, layer, grad)).view(grad.dtype)
            by_hidden, by_pointwise = _convolved_backward(by_out, hidden, pointwise[layer], [POINTWISE])
            by_hidden = torch.ops.aten.threshold_backward(by_hidden, hidden, 0)
            grad, by_dilated = _convolved_backward(by_hidden, x, dilated[layer], [of_layer], onto=grad)
            by_layer.append((by_dilated, _over_frames(by_hidden), by_pointwise, _over_frames(by_out)))
        return grad, *(torch.stack(each[::-1]) for each in zip(*by_layer, strict=True)), None, None, None


class PairedStage(Function):
    """The layers of `PredictionGeneration` in training, each x + dropout(relu(first(x) + second(x) + bias)), its padding at 0.

    `weights` `(L, C, taps of both, C)` are the pairs of dilated convolutions, each with its half of the fusion multiplied in
    (`mstcn.multiplied`), `biases` `(L, C)`, `octets` `(L, n)`, `taps` the two of each layer.
    """

    @staticmethod
    def forward(ctx, x, weights, biases, octets, mask, taps: Sequence[tuple[Taps, Taps]]) -> Tensor:
        bits = kept(octets, x) if _is_short(x) else octets
        mask = None if mask is None else mask.to(x.dtype)
        inputs, kept_parts = [], []
        for layer, of_layer in enumerate(taps):
            kept_part = _convolved(x, weights[layer], biases[layer], of_layer).relu_()
            _bits(kept_part).bitwise_and_(_of_layer(bits, layer, kept_part))
            inputs.append(x)
            kept_parts.append(kept_part)
            # dropout's factor: exact, and after it what is above 0 is what both ReLU and dropout let through
            x = torch.add(x, kept_part, alpha=KEEP_SCALE)
            if mask is not None:
                x *= mask
        ctx.save_for_backward(weights, mask, *inputs, *kept_parts)
        ctx.taps = taps
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weights, mask, *kept_back = ctx.saved_tensors
        grad, by_layer = grad.contiguous(), []
        for layer, of_layer in reversed(list(enumerate(ctx.taps))):
            x, kept_part = kept_back[layer], kept_back[len(ctx.taps) + layer]
            grad = grad if mask is None else grad * mask
            by_sum = torch.ops.aten.threshold_backward(grad, kept_part, 0).mul_(KEEP_SCALE)
            grad, by_weight = _convolved_backward(by_sum, x, weights[layer], of_layer, onto=grad)
            by_layer.append((by_weight, _over_frames(by_sum)))
        return grad, *(torch.stack(each[::-1]) for each in zip(*by_layer, strict=True)), None, None, None
