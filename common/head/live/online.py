"""A head with state: one feature in, one frame's probabilities out, at the same cost however long the video is. NumPy alone.

Each dilated layer keeps the inputs that its taps still need in a ring, which is written at its index modulo its length and never
shifted. At 64 channels a product takes a few microseconds, less than the call of a network of PyTorch; one thread is enough.

With a look-ahead each layer is late by the frames after its own that it sees, and all of them together by those of the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.base.runtime import UserError
from common.head.networks.gru import GRUHead
from common.head.networks.layers import DilatedResidualLayer, Head, Standardised, TemporalConv
from common.head.networks.linear import FrameLinear
from common.head.networks.mstcn import MS_TCN2, PredictionGeneration
from common.head.networks.tecno import TeCNO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn


class Step(Protocol):
    """One step of a network: a vector in, the vector of a frame `late` inputs before it out; None before the first frame."""

    late: int

    def push(self, x: np.ndarray) -> np.ndarray | None:
        """The output that this input completes."""

    def flush(self) -> np.ndarray | None:
        """After the last input: the next of the `late` outputs that are left."""


class OnlineHead:
    """A head over features that come one by one; make one with `online_head`.

    `lookahead`: features that must have come before a frame's answer does, as the head was trained.
    """

    def __init__(self, steps: Sequence[Step]):
        self._steps = list(steps)
        self.lookahead = sum(step.late for step in self._steps)

    @property
    def state_bytes(self) -> int:
        """Memory that depends on the head alone, never on what has come."""
        return sum(step.state_bytes for step in self._steps if isinstance(step, _Ring))

    def push(self, feature: np.ndarray) -> np.ndarray | None:
        """Take the next feature `(dim,)`; returns the probabilities `(num_classes,)` of the frame `lookahead` before it, if any."""
        return self._through(0, np.asarray(feature, dtype=np.float32))

    def finish(self) -> Iterator[np.ndarray]:
        """The probabilities of the frames that are left, in order: after the last one every layer sees zeros, as it does in training."""
        for place, step in enumerate(self._steps):
            for _ in range(step.late):
                if (probabilities := self._through(place + 1, step.flush())) is not None:
                    yield probabilities

    def _through(self, first: int, x: np.ndarray | None) -> np.ndarray | None:
        for step in self._steps[first:]:
            if x is None:
                return None
            x = step.push(x)
        return x


class _Stateless:
    """What treats each frame by itself."""

    late = 0

    def flush(self) -> np.ndarray | None:
        raise AssertionError("nothing is left where nothing is late")


class _Standardise(_Stateless):
    def __init__(self, head: Standardised):
        self._mean, self._deviation = _array(head.mean), _array(head.deviation)

    def push(self, x: np.ndarray) -> np.ndarray:
        return (x - self._mean) / self._deviation


class _Pointwise(_Stateless):
    """A convolution of one tap, or a linear layer."""

    def __init__(self, layer: TemporalConv | nn.Linear):
        weight = _array(layer.weight)
        self._weight, self._bias = weight.reshape(len(weight), -1), _array(layer.bias)

    def push(self, x: np.ndarray) -> np.ndarray:
        return self._weight @ x + self._bias


class _Softmax(_Stateless):
    def push(self, x: np.ndarray) -> np.ndarray:
        raised = np.exp(x - x.max())
        return raised / raised.sum()


class _Ring:
    """The last `length` inputs of a layer, and where its taps find theirs; zeros before the first.

    `late`: the layer's output at an input is that of the frame so many before it. Taps are given by their distance from the
    newest input.
    """

    def __init__(self, length: int, channels: int, late: int, taps: Sequence[int]):
        self.late = late
        self._kept = np.zeros((length, channels), dtype=np.float32)
        self._count = 0  # inputs so far
        # what the taps see, one after the other, and a 1 that a matrix multiplies with its biases
        self._seen = np.ones(len(taps) * channels + 1, dtype=np.float32)
        self._parts = list(zip(self._seen[:-1].reshape(len(taps), channels), taps, strict=True))

    @property
    def state_bytes(self) -> int:
        return self._kept.nbytes

    def push(self, x: np.ndarray) -> np.ndarray | None:
        """See `Step`."""
        kept, newest, length = self._kept, self._count, len(self._kept)
        kept[newest % length] = x
        self._count = newest + 1
        if newest < self.late:  # its frame would be before the first
            return None
        for part, tap in self._parts:
            part[:] = kept[(newest - tap) % length]
        return self._output(self._seen, kept[(newest - self.late) % length])

    def flush(self) -> np.ndarray | None:
        """See `Step`."""
        return self.push(np.zeros(self._kept.shape[1], dtype=np.float32))

    def _output(self, seen: np.ndarray, own: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class _Residual(_Ring):
    """`DilatedResidualLayer`: its convolution of three taps, and one of a single tap."""

    def __init__(self, layer: DilatedResidualLayer):
        conv, (dilation,) = layer.conv_dilated, layer.conv_dilated.dilation
        super().__init__(2 * dilation + 1, conv.in_channels, conv.future, (2 * dilation, dilation, 0))
        self._dilated = _with_biases(_taps_side_by_side(conv), conv.bias)
        self._pointwise = _with_biases(_array(layer.conv_1x1.weight)[:, :, 0], layer.conv_1x1.bias)
        self._inside = np.ones(conv.out_channels + 1, dtype=np.float32)

    def _output(self, seen: np.ndarray, own: np.ndarray) -> np.ndarray:
        inside = self._dilated @ seen
        np.maximum(inside, 0, out=self._inside[:-1])
        out = self._pointwise @ self._inside
        out += own
        return out


class _Dual(_Ring):
    """A layer of `PredictionGeneration`: both convolutions read one ring, which is as long as the wider needs.

    Nothing is between them and the fusion that is not linear, so that all three are one matrix.
    """

    def __init__(self, first: TemporalConv, second: TemporalConv, fusion: TemporalConv):
        late = max(first.future, second.future)
        taps = [late - conv.future + before * conv.dilation[0] for conv in (first, second) for before in (2, 1, 0)]
        super().__init__(max(first.span, second.span) + 1, first.in_channels, late, taps)
        mixed = np.split(_array(fusion.weight)[:, :, 0].astype(np.float64), 2, axis=1)
        pairs = list(zip(mixed, (first, second), strict=True))
        weight = np.hstack([mix @ _taps_side_by_side(conv) for mix, conv in pairs])
        biases = sum(mix @ _array(conv.bias) for mix, conv in pairs) + _array(fusion.bias)
        self._weight = np.column_stack([weight, biases]).astype(np.float32)

    def _output(self, seen: np.ndarray, own: np.ndarray) -> np.ndarray:
        out = self._weight @ seen
        np.maximum(out, 0, out=out)
        out += own
        return out


class _Recurrent(_Stateless):
    """A forward GRU, by the formulas of `torch.nn.GRU`."""

    def __init__(self, layer: nn.GRU):
        self._input, self._input_bias = _array(layer.weight_ih_l0), _array(layer.bias_ih_l0)
        self._state, self._state_bias = _array(layer.weight_hh_l0), _array(layer.bias_hh_l0)
        self._hidden = np.zeros(layer.hidden_size, dtype=np.float32)

    def push(self, x: np.ndarray) -> np.ndarray:
        of_input = np.split(self._input @ x + self._input_bias, 3)
        of_state = np.split(self._state @ self._hidden + self._state_bias, 3)
        reset, update = (_sigmoid(one + other) for one, other in zip(of_input[:2], of_state[:2], strict=True))
        new = np.tanh(of_input[2] + reset * of_state[2])
        self._hidden = (1 - update) * new + update * self._hidden
        return self._hidden


def online_head(head: Head) -> OnlineHead:
    """The same network with state. Raises `UserError` for one whose answers depend on all that follows."""
    return OnlineHead([*_steps(head), _Softmax()])


def _steps(head: Head) -> list[Step]:
    """The steps of a head up to its last logits."""
    match head:
        case Standardised():
            return [_Standardise(head), *_steps(head.head)]
        case FrameLinear():
            return [_Pointwise(head.conv_out)]
        case GRUHead() if not head.layers[0].bidirectional:
            return [*map(_Recurrent, head.layers), _Pointwise(head.out)]
        case MS_TCN2():
            stages = [_first_stage(head.PG), *(_stage(each.conv_1x1, each.layers, each.conv_out) for each in head.Rs)]
        case TeCNO():
            parts = [head.stage1, *head.stages]
            stages = [_stage(each.conv_1x1, each.layers, each.conv_out_classes) for each in parts]
        case _:
            raise UserError(
                f"{type(head).__name__}: its answers depend on all that follows; train a head with --causal"
            )
    joined = [stages[0]]
    for stage in stages[1:]:
        joined += [[_Softmax()], stage]  # later stages refine probabilities
    return [step for steps in joined for step in steps]


def _first_stage(stage: PredictionGeneration) -> list[Step]:
    layers = zip(stage.conv_dilated_1, stage.conv_dilated_2, stage.conv_fusion, strict=True)
    return [_Pointwise(stage.conv_1x1_in), *(_Dual(*parts) for parts in layers), _Pointwise(stage.conv_out)]


def _stage(first: TemporalConv, layers: nn.ModuleList, last: TemporalConv) -> list[Step]:
    return [_Pointwise(first), *map(_Residual, layers), _Pointwise(last)]


def _taps_side_by_side(conv: TemporalConv) -> np.ndarray:
    """Weights `(out, taps * in)`, in the order in which a ring gives its taps: the earliest first."""
    weight = _array(conv.weight)
    return np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1))


def _with_biases(weight: np.ndarray, bias: Tensor) -> np.ndarray:
    """`(out, in + 1)`: the biases are the weights of an input that is always 1."""
    return np.column_stack([weight, _array(bias)])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # unlike 1 / (1 + exp(-x)) it overflows nowhere
