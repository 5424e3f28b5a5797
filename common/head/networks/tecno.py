"""TeCNO (Czempiel et al., MICCAI 2020): stages of causal dilated convolutions, each refining the one before it.

Written from the paper; parameter names and shapes are those of the authors' implementation (tobiascz/TeCNO
`models/mstcn.py`), so that its checkpoints load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.head.networks.layers import DilatedResidualLayer, Head, TemporalConv, masked


class CausalStage(nn.Module):
    """Dilated residual layers between two pointwise convolutions."""

    def __init__(self, num_layers: int, maps: int, dim: int, num_classes: int):
        super().__init__()
        self.conv_1x1 = TemporalConv(dim, maps)
        self.layers = nn.ModuleList(DilatedResidualLayer(2**i, maps, causal=True) for i in range(num_layers))
        self.conv_out_classes = TemporalConv(maps, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = masked(self.conv_1x1(x), mask)
        for layer in self.layers:
            out = layer(out, mask)
        return masked(self.conv_out_classes(out), mask)


class TeCNO(Head):
    """`stages` causal stages; the output at frame t depends on frames up to t only, whatever `causal` says."""

    def __init__(self, dim: int, num_classes: int, *, stages: int, layers: int, maps: int, causal: bool = True):
        super().__init__()
        self.stage1 = CausalStage(layers, maps, dim, num_classes)
        self.stages = nn.ModuleList(CausalStage(layers, maps, num_classes, num_classes) for _ in range(stages - 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of every stage `(stages, B, num_classes, T)`; see `Head`."""
        x = x.unsqueeze(2)
        mask = None if mask is None else mask.unsqueeze(2)
        outputs = [self.stage1(masked(x, mask), mask)]
        for stage in self.stages:
            outputs.append(stage(F.softmax(outputs[-1], dim=1), mask))
        return torch.stack([output.squeeze(2) for output in outputs])
