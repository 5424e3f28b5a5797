"""Gated recurrent units over frame features (Cho et al., EMNLP 2014), in both directions or forward only.

Shapes: B videos, T frames, `dim` features a frame.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.head.networks.layers import Head, SeededDropout, masked


class GRUHead(Head):
    """`layers` GRUs of width `hidden` a direction, dropout between them, and a linear layer; `causal` = forward only.

    Layers are single: the dropout of a deeper `nn.GRU` ignores the generator, so that a resumed training would differ.
    """

    is_recordable = False  # the lengths of sequences go to the host

    def __init__(self, dim: int, num_classes: int, *, hidden: int, layers: int, causal: bool = False):
        super().__init__()
        width = hidden if causal else 2 * hidden
        self.layers = nn.ModuleList(
            nn.GRU(dim if index == 0 else width, hidden, batch_first=True, bidirectional=not causal)
            for index in range(layers)
        )
        self.dropout = SeededDropout()
        self.out = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits `(1, B, num_classes, T)`; see `Head`.

        Each sequence is packed to its own length: the backward direction starts at its last frame, not in the padding.
        """
        num_frames = x.shape[2]
        out = x.transpose(1, 2)  # (B, T, dim), the order in which features lie in memory
        lengths = None if mask is None else mask[:, 0].sum(dim=1).long().cpu()
        for index, layer in enumerate(self.layers):
            if index:
                # (B, T, C) as the channels-last image (B, C, 1, T) that SeededDropout draws for
                out = self.dropout(out.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
            # recurrent layers stay in fp32 under autocast, which CPUs have no such kernel for
            with torch.autocast(x.device.type, enabled=False):
                out = _run(layer, out.float() if x.dtype != torch.float64 else out, lengths, num_frames)
        return masked(self.out(out).transpose(1, 2), mask).unsqueeze(0)


def _run(layer: nn.GRU, x: Tensor, lengths: Tensor | None, num_frames: int) -> Tensor:
    """A layer's outputs `(B, T, C)`, 0 in the padding."""
    if lengths is None:
        return layer(x)[0]
    packed = layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    return pad_packed_sequence(packed, batch_first=True, total_length=num_frames)[0]
