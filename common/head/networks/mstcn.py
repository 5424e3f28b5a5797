"""MS-TCN++ (Li et al., TPAMI 2020): prediction generation with dual dilated layers, then refinement stages.

Parameter names and shapes are those of the original implementation (sj-li/MS-TCN2 `model.py`), so its checkpoints load
unchanged. Inside, a sequence `(B, C, T)` travels as an image `(B, C, 1, T)` in channels-last memory: features read as
`(T, dim)` rows enter without a copy, and the convolutions take about 0.6 of the time of `conv1d` on a CPU.

Shapes: B videos, T frames, `dim` features a frame, `num_f_maps` channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.head.networks.fused import PairedStage, Taps
from common.head.networks.layers import (
    DilatedResidualLayer,
    FusedStage,
    Head,
    ResidualLayers,
    SeededDropout,
    Stack,
    TemporalConv,
    masked,
)
from common.head.networks.lookahead import future_limits


class PredictionGeneration(FusedStage):
    """First stage: each layer joins one convolution of growing and one of shrinking dilation.

    `futures`: the frames after its own that each layer may use.
    """

    def __init__(self, num_layers: int, num_f_maps: int, dim: int, num_classes: int, futures: Sequence[int]):
        super().__init__()

        def dilated(exponents: range) -> nn.ModuleList:
            pairs = zip(exponents, futures, strict=True)
            return nn.ModuleList(TemporalConv(num_f_maps, num_f_maps, 3, dilation=2**e, future=f) for e, f in pairs)

        self.conv_1x1_in = TemporalConv(dim, num_f_maps)
        # the first of a pair starts with the widest view and narrows, the second the other way round
        self.conv_dilated_1 = dilated(range(num_layers - 1, -1, -1))
        self.conv_dilated_2 = dilated(range(num_layers))
        self.conv_fusion = nn.ModuleList(TemporalConv(2 * num_f_maps, num_f_maps) for _ in range(num_layers))
        self.dropout = SeededDropout()
        self.conv_out = TemporalConv(num_f_maps, num_classes)
        self.stacks = [Stack(each) for each in (self.conv_dilated_1, self.conv_dilated_2, self.conv_fusion)]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = masked(self.conv_1x1_in(x), mask)
        if self.training and self.is_fused:
            weights, biases, taps = self.multiplied(out.dtype)
            octets = self.dropout.octets(out, len(taps))
            out = PairedStage.apply(out, weights, biases, octets, mask, taps)
        else:
            for pair in zip(self.conv_dilated_1, self.conv_dilated_2, self.conv_fusion, strict=True):
                out = self.plain_layer(out, mask, *pair)
        return masked(self.conv_out(out), mask)

    def plain_layer(
        self, x: Tensor, mask: Tensor | None, first: TemporalConv, second: TemporalConv, fusion: TemporalConv
    ) -> Tensor:
        """A layer as it is defined."""
        joined = fusion(torch.cat((first(x), second(x)), dim=1))
        return masked(self.dropout(F.relu(joined)) + x, mask)

    def multiplied(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[tuple[Taps, Taps]]]:
        """Of all layers the pairs with the fusion multiplied in: weights `(layers, maps, taps of both, maps)`, biases, their taps.

        Nothing but the fusion comes after a pair, so that the three are one linear map: 5 products of maps instead of 8.
        """
        first, second, fusion = self.stacks
        biases, halves = fusion.bias, fusion.weight.squeeze(2).chunk(2, dim=2)
        with torch.autocast(biases.device.type, enabled=False):  # products of weights are as precise as weights
            products = []
            for half, stack in zip(halves, (first, second), strict=True):
                weight = stack.weight
                products.append((half @ weight.flatten(2)).unflatten(2, weight.shape[2:]))
                biases = biases + (half @ stack.bias.unsqueeze(2)).squeeze(2)
        one, other = products
        taps = [
            (narrowing.taps, widening.taps)
            for narrowing, widening in zip(self.conv_dilated_1, self.conv_dilated_2, strict=True)
        ]
        if all(each.left == each.right for pair in taps for each in pair):
            # both look at the frame itself: once is enough
            before, itself, after = one.split(1, 2)
            one, other = torch.cat((before, itself + other[:, :, 1:2], after), 2), other[:, :, ::2]
            taps = [(first, Taps(2 * second.dilation, second.left, second.right)) for first, second in taps]
        return torch.cat((one, other), 2).to(dtype), biases.to(dtype), taps


class Refinement(nn.Module):
    """A later stage: refines the class probabilities of the stage before it; `futures` as in the first."""

    def __init__(self, num_layers: int, num_f_maps: int, num_classes: int, futures: Sequence[int]):
        super().__init__()
        self.conv_1x1 = TemporalConv(num_classes, num_f_maps)
        pairs = zip(range(num_layers), futures, strict=True)
        self.layers = ResidualLayers(DilatedResidualLayer(2**i, num_f_maps, future) for i, future in pairs)
        self.conv_out = TemporalConv(num_f_maps, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = self.layers(masked(self.conv_1x1(x), mask), mask)
        return masked(self.conv_out(out), mask)


class MS_TCN2(Head):
    """MS-TCN++ over frame features.

    `causal` = the output at frame t depends on frames up to t only, `lookahead` = on as many frames after t as it says, and no more;
    the original (and the default) pads on both sides.
    """

    def __init__(
        self,
        num_layers_PG: int,
        num_layers_R: int,
        num_R: int,
        num_f_maps: int,
        dim: int,
        num_classes: int,
        *,
        causal: bool = False,
        lookahead: int | None = None,
    ):
        super().__init__()
        # each layer of the first stage has a wide and a narrow convolution: it reaches as far as the wider
        reaches = [2 ** max(layer, num_layers_PG - 1 - layer) for layer in range(num_layers_PG)]
        reaches += [2**layer for _ in range(num_R) for layer in range(num_layers_R)]
        limits = future_limits(reaches, 0 if causal else lookahead)
        self.lookahead = sum(limits)
        self.PG = PredictionGeneration(num_layers_PG, num_f_maps, dim, num_classes, limits[:num_layers_PG])
        of_stages = (limits[num_layers_PG + stage * num_layers_R :][:num_layers_R] for stage in range(num_R))
        self.Rs = nn.ModuleList(Refinement(num_layers_R, num_f_maps, num_classes, futures) for futures in of_stages)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of every stage `(num_R + 1, B, num_classes, T)` from features `x` `(B, dim, T)`.

        `mask` `(B, 1, T)` float: 1 = frame, 0 = padding; it acts in every layer, so padding never reaches a frame.
        Omitting it is the same as, and faster than, a mask of ones. Logits of padding are 0.
        """
        x = x.unsqueeze(2)
        mask = None if mask is None else mask.unsqueeze(2)
        # after every layer, biases included: what stands in the padding would reach frames by the next convolution
        x = masked(x, mask)
        logits = self.PG(x, mask)
        stages = [logits]
        for stage in self.Rs:
            logits = stage(masked(F.softmax(logits, dim=1), mask), mask)
            stages.append(logits)
        return torch.stack([stage.squeeze(2) for stage in stages])
