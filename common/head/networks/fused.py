"""Whole stages of the dilated heads as one step of autograd each: fewer passes over memory and fewer operations, for training.

A layer of 64 channels multiplies so little that half of a training step on a long video went into passes over memory: the mask of
dropout as numbers, ReLU and sums into fresh memory, what autograd keeps of each. Here a layer keeps one bit an element of its
dropout, works in place, and adds the residual where it lies. On a short video most of a step went into starting operations: a stage
draws and arranges for all its layers at once, and a convolution is one product. Each function names its plain equal.

Shapes: a sequence is an image `(B, C, 1, T)` in channels-last memory, and inside a stage rows `(B T, C)` of the same memory;
weights are `(out, taps, in)`, of images `(out, in, 1, taps)`, biases `(out,)`; those of a stage have its L layers in front.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHANNELS_LAST = torch.channels_last
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element
let_through = torch.ops.aten.threshold_backward.default  # the gradient by what went into a ReLU
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
    """`(B, C, 1, T)` as `(B T, C)`: the same memory where that is channels last."""
    return image.squeeze(2).transpose(1, 2).contiguous().flatten(0, 1)


def to_image(rows: Tensor, batch: int) -> Tensor:
    """`(B T, C)` of so many videos as `(B, C, 1, T)`: the same memory."""
    return rows.unflatten(0, (batch, -1)).transpose(1, 2).unsqueeze(2)


class _Images:
    """The convolutions of a stage as those of images: for each layer the sum of one for each of its `taps`.

    `weights` `(L, out, taps of all, in)`; `batch` is B. Sequences are rows of all videos one after another, `(B T, C)`.
    """

    def __init__(self, weights: Tensor, taps: Sequence[Sequence[Taps]], batch: int):
        self._weights, self._taps, self._batch = weights, taps, batch

    def no_gradients(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Zeros in which to put the gradients by all weights, and the part of each layer, `(out, taps of all in)`."""
        zeros = torch.zeros_like(self._weights)
        return zeros, zeros.flatten(2).unbind()

    def forward(self, layer: int, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out, `(B T, out)`, and what `backward` is to be given."""
        image, (first, *others) = to_image(x, self._batch), self._parts(layer)
        out = convolve(image, first[0], bias, first[1])
        for part, of_part in others:
            out.add_(convolve(image, part, None, of_part))
        return to_rows(out), x

    def backward(self, layer: int, grad: Tensor, seen: Tensor, by_weight: Tensor, onto: Tensor | None = None) -> Tensor:
        """The gradient by what went in, added to `onto`, and in `by_weight` that by the weight; by the bias: `_over_frames(grad)`."""
        parts = self._parts(layer)
        places = by_weight.unflatten(1, (-1, self._weights.shape[3])).split([len(taps.offsets) for _, taps in parts], 1)
        for (part, of_part), place in zip(parts, places, strict=True):
            by_x, by_part = _image_backward(to_image(grad, self._batch), to_image(seen, self._batch), part, of_part)
            by_x = to_rows(by_x)
            onto = by_x if onto is None else by_x.add_(onto)
            place.copy_(by_part)
        return onto

    def _parts(self, layer: int) -> list[tuple[Tensor, Taps]]:
        """Of each convolution of a layer's sum its weight as that of an image, and its taps."""
        weight, taps = self._weights[layer], self._taps[layer]
        weights = weight.split([len(each.offsets) for each in taps], 1) if len(taps) > 1 else [weight]
        return [(part.transpose(1, 2).unsqueeze(2), of_part) for part, of_part in zip(weights, taps, strict=True)]


class _Products(_Images):
    """The same, each as one product with what stands at its taps side by side.

    A convolution takes longer to start than a product, and in a short video the widest layers look at nothing but the padding
    with all taps but one, which are left out here.
    """

    def __init__(self, weights: Tensor, taps: Sequence[Sequence[Taps]], batch: int, length: int):
        super().__init__(weights, taps, batch)
        self._length = length
        self._reached = [_reached(tuple(each), length, weights.shape[3]) for each in taps]
        # (taps in, out), and the other way (taps out, in): a frame is seen by those from which the offsets lead to it
        self._ahead = weights.flatten(2).mT.unbind()
        self._back = weights.transpose(1, 2).flatten(1, 2).unbind()

    def forward(self, layer: int, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        rows, offsets = self._reached[layer]
        ahead, columns = self._ahead[layer], self._columns(x, offsets)
        return torch.addmm(bias, columns, ahead if rows is None else ahead[rows]), columns

    def backward(self, layer: int, grad: Tensor, seen: Tensor, by_weight: Tensor, onto: Tensor | None = None) -> Tensor:
        rows, offsets = self._reached[layer]
        back, seen_by = self._back[layer], self._columns(grad, [-offset for offset in offsets])
        if rows is None:
            torch.mm(grad.t(), seen, out=by_weight)
        else:
            back, by_weight[:, rows] = back[rows], grad.t() @ seen
        return seen_by @ back if onto is None else torch.addmm(onto, seen_by, back)

    def _columns(self, rows: Tensor, offsets: Sequence[int]) -> Tensor:
        """What stands at these offsets from each frame, side by side: `(B T, offsets C)`."""
        if offsets == [0]:
            return rows
        if not offsets:
            return rows.new_empty(len(rows), 0)
        reach = max(map(abs, offsets))
        padded = F.pad(rows.view(self._batch, self._length, -1), (0, 0, reach, reach))
        seen = [padded[:, reach + offset : reach + offset + self._length] for offset in offsets]
        return torch.cat(seen, 2).view(len(rows), -1)


@functools.lru_cache(4096)
def _reached(taps: tuple[Taps, ...], length: int, channels: int) -> tuple[slice | Tensor | None, list[int]]:
    """Of the taps that look at any of so many frames their channels among those of all taps (None: all), and their offsets."""
    offsets = [offset for each in taps for offset in each.offsets]
    reached = [tap for tap, offset in enumerate(offsets) if abs(offset) < length]
    rows = None
    if len(reached) < len(offsets):
        first, past = (reached[0], reached[-1] + 1) if reached else (0, 0)
        rows = slice(first * channels, past * channels)  # copies nothing
        if len(reached) < past - first:
            rows = (torch.tensor(reached).unsqueeze(1) * channels + torch.arange(channels)).flatten()
    return rows, [offsets[tap] for tap in reached]


def _is_short(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.shape[0] * x.shape[-1] <= SHORT


def _convolutions(x: Tensor, weights: Tensor, taps: Sequence[Sequence[Taps]]) -> _Images | _Products:
    """Those of a stage on sequences `x` `(B, C, 1, T)`."""
    return _Products(weights, taps, len(x), x.shape[-1]) if _is_short(x) else _Images(weights, taps, len(x))


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
    return grad.sum(0)


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


def _kept_bits(octets: Tensor, x: Tensor) -> Tensor:
    """What a stage on `x` `(B, C, 1, T)` keeps of the `octets` `(L, n)`: of a short video the masks `(L, B T, C)`, else them."""
    return kept(octets, to_rows(x)) if _is_short(x) else octets


def _of_layer(bits: Tensor, layer: int, x: Tensor) -> Tensor:
    """The mask of a layer."""
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
        return to_image((_bits(rows) & kept(octets, rows)).view(x.dtype).mul_(KEEP_SCALE), len(x))


class ResidualStage(Function):
    """The layers `DilatedResidualLayer` of a stage in training, each x + dropout(1x1(relu(dilated(x)))), its padding at 0 by `mask`.

    `x` `(B, C, 1, T)`, `dilated` `(L, C, taps, C)`, `pointwise` `(L, C, 1, C)`, biases `(L, C)`, `octets` `(L, n)`,
    `mask` `(B, 1, 1, T)`, `taps` of each layer. Dropout's factor is in the pointwise convolution already, which is exact (`layers.ResidualLayers`).
    """

    @staticmethod
    def forward(
        ctx, x, dilated, dilated_biases, pointwise, pointwise_biases, octets, mask, taps: Sequence[Taps]
    ) -> Tensor:
        wide = _convolutions(x, dilated, [[each] for each in taps])
        narrow = _convolutions(x, pointwise, [[POINTWISE]] * len(taps))
        bits, mask = _kept_bits(octets, x), _row_mask(mask, x.dtype)
        batch, x = len(x), to_rows(x)
        biases = zip(dilated_biases.unbind(), pointwise_biases.unbind(), strict=True)
        saved = []
        for layer, (wide_bias, narrow_bias) in enumerate(biases):
            hidden, seen = wide.forward(layer, x, wide_bias)
            out, hidden = narrow.forward(layer, hidden.relu_(), narrow_bias)
            _bits(out).bitwise_and_(_of_layer(bits, layer, out))
            out += x
            if mask is not None:
                out *= mask
            saved += [seen, hidden]
            x = out
        ctx.save_for_backward(bits, mask, *saved)
        ctx.convolutions = wide, narrow
        return to_image(x, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        wide, narrow = ctx.convolutions
        bits, mask, *saved = ctx.saved_tensors
        batch, grad = len(grad), to_rows(grad)
        (by_dilated, of_wide), (by_pointwise, of_narrow), by_biases = wide.no_gradients(), narrow.no_gradients(), []
        for layer in reversed(range(len(saved) // 2)):
            seen, hidden = saved[2 * layer : 2 * layer + 2]
            grad = grad if mask is None else grad * mask
            by_out = (_bits(grad) & _of_layer(bits, layer, grad)).view(grad.dtype)
            by_hidden = let_through(narrow.backward(layer, by_out, hidden, of_narrow[layer]), hidden, 0)
            grad = wide.backward(layer, by_hidden, seen, of_wide[layer], onto=grad)
            by_biases.append((_over_frames(by_hidden), _over_frames(by_out)))
        by_dilated_biases, by_pointwise_biases = _of_all(by_biases)
        by_weights = by_dilated, by_dilated_biases, by_pointwise, by_pointwise_biases
        return to_image(grad, batch), *by_weights, None, None, None


class PairedStage(Function):
    """The layers of `PredictionGeneration` in training, each x + dropout(relu(first(x) + second(x) + bias)), its padding at 0.

    `weights` `(L, C, taps of both, C)` are the pairs of dilated convolutions, each with its half of the fusion multiplied in
    (`mstcn.PredictionGeneration.multiplied`), `taps` the two of each layer, all else as in `ResidualStage`.
    """

    @staticmethod
    def forward(ctx, x, weights, biases, octets, mask, taps: Sequence[tuple[Taps, Taps]]) -> Tensor:
        pairs = _convolutions(x, weights, taps)
        bits, mask = _kept_bits(octets, x), _row_mask(mask, x.dtype)
        batch, x = len(x), to_rows(x)
        saved = []
        for layer, bias in enumerate(biases.unbind()):
            kept_part, seen = pairs.forward(layer, x, bias)
            _bits(kept_part.relu_()).bitwise_and_(_of_layer(bits, layer, kept_part))
            # dropout's factor: exact, and after it what is above 0 is what both ReLU and dropout let through
            x = torch.add(x, kept_part, alpha=KEEP_SCALE)
            if mask is not None:
                x *= mask
            saved += [seen, kept_part]
        ctx.save_for_backward(mask, *saved)
        ctx.pairs = pairs
        return to_image(x, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        mask, *saved = ctx.saved_tensors
        batch, grad = len(grad), to_rows(grad)
        (by_weights, of_layers), by_biases = ctx.pairs.no_gradients(), []
        for layer in reversed(range(len(saved) // 2)):
            seen, kept_part = saved[2 * layer : 2 * layer + 2]
            grad = grad if mask is None else grad * mask
            by_sum = let_through(grad, kept_part, 0).mul_(KEEP_SCALE)
            grad = ctx.pairs.backward(layer, by_sum, seen, of_layers[layer], onto=grad)
            by_biases.append((_over_frames(by_sum),))
        return to_image(grad, batch), by_weights, *_of_all(by_biases), None, None, None


def _of_all(by_layer: Sequence[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    """Gradients of the last layer up to the first as those of a stage."""
    return (torch.stack(each[::-1]) for each in zip(*by_layer, strict=True))


def _row_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask `(B, 1, 1, T)` as that of rows, `(B T, 1)`."""
    return None if mask is None else mask.to(dtype).reshape(-1, 1)
