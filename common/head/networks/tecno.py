"""TeCNO (Czempiel et al., MICCAI 2020): stages of dilated convolutions, causal, each refining the one before it.

Written from the paper; parameter names and shapes are those of the authors' implementation (tobiascz/TeCNO
`models/mstcn.py`), so that its checkpoints load.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.head.networks.layers import DilatedResidualLayer, Head, ResidualLayers, TemporalConv, masked
from common.head.networks.lookahead import future_limits


class TeCNOStage(nn.Module):
    """Dilated residual layers between two pointwise convolutions; `futures`: frames after its own that each layer may use."""

    def __init__(self, maps: int, dim: int, num_classes: int, futures: Sequence[int]):
        super().__init__()
        self.conv_1x1 = TemporalConv(dim, maps)
        self.layers = ResidualLayers(DilatedResidualLayer(2**i, maps, future) for i, future in enumerate(futures))
        self.conv_out_classes = TemporalConv(maps, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = self.layers(masked(self.conv_1x1(x), mask), mask)
        return masked(self.conv_out_classes(out), mask)


class TeCNO(Head):
    """`stages` causal stages: the output at frame t depends on frames up to t only, or with `lookahead` on so many after it.

    `causal` is there for the contract of heads; this one is causal whatever it says.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        stages: int,
        layers: int,
        maps: int,
        causal: bool = True,
        lookahead: int | None = None,
    ):
        super().__init__()
        limits = future_limits([2**layer for _ in range(stages) for layer in range(layers)], lookahead or 0)
        self.lookahead = sum(limits)
        of_stages = [limits[stage * layers :][:layers] for stage in range(stages)]
        self.stage1 = TeCNOStage(maps, dim, num_classes, of_stages[0])
        self.stages = nn.ModuleList(TeCNOStage(maps, num_classes, num_classes, futures) for futures in of_stages[1:])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of every stage `(stages, B, num_classes, T)`; see `Head`."""
        x = x.unsqueeze(2)
        mask = None if mask is None else mask.unsqueeze(2)
        outputs = [self.stage1(masked(x, mask), mask)]
        for stage in self.stages:
            outputs.append(stage(F.softmax(outputs[-1], dim=1), mask))
        return torch.stack([output.squeeze(2) for output in outputs])
