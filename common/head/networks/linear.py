"""A linear classifier of each frame alone: what the features say without any head over time."""

from torch import Tensor

from common.head.networks.layers import Head, TemporalConv, masked


class FrameLinear(Head):
    """One linear layer, the same for every frame; causal by nature, so that `causal` changes nothing in it."""

    def __init__(self, dim: int, num_classes: int, *, causal: bool = False):
        super().__init__()
        self.conv_out = TemporalConv(dim, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits `(1, B, num_classes, T)`; see `Head`."""
        return masked(self.conv_out(x.unsqueeze(2)).squeeze(2), mask).unsqueeze(0)
