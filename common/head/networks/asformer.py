"""ASFormer (Yi et al., BMVC 2021): dilated convolutions and attention in windows, an encoder and refining decoders.

Parameter names and shapes are those of the authors' implementation (ChinaYi/ASFormer `model.py`), so that its
checkpoints load. Differences: normalisation is over the valid frames of a padded batch, and a single frame normalises
to 0, where the authors' code refuses it.

Shapes: B videos, T frames, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.head.networks.layers import Head, SeededDropout

UNSEEN = 1e-6  # weight that the authors' softmax leaves to what is masked; an infinite mask gives other answers
DECODER_FALL = 3.0  # attention of decoder i counts exp(-3 i)
MOST_WEIGHTS = 1 << 22  # of attention that are there at a time
NORM_EPSILON = 1e-5  # of nn.InstanceNorm1d


class WindowAttention(nn.Module):
    """Attention of each block of `size` frames to a window around it; with `released` all of a block see the same."""

    def __init__(self, size: int, maps: int, r1: int, r2: int, *, is_released: bool):
        super().__init__()
        self.query_conv = nn.Conv1d(maps, maps // r1, 1)
        self.key_conv = nn.Conv1d(maps, maps // r1, 1)
        self.value_conv = nn.Conv1d(maps, maps // r2, 1)
        self.conv_out = nn.Conv1d(maps // r2, maps, 1)
        self.size, self.is_released = size, is_released

    def forward(self, x: Tensor, value_source: Tensor, mask: Tensor) -> Tensor:
        """`(B, C, T)` from queries and keys of `x` and values of `value_source`, `mask` `(B, 1, T)`."""
        num_frames = x.shape[2]
        num_blocks = -(-num_frames // self.size)
        padding = num_blocks * self.size - num_frames
        queries = F.pad(self.query_conv(x), (0, padding)).unflatten(2, (num_blocks, self.size))
        queries = queries.permute(0, 2, 3, 1)  # (B, blocks, size, C)
        # biases are masked too: a key of the padding is as 0 as one beyond the sequence
        keys = self._spans(self.key_conv(x) * mask, padding)  # (B, blocks, C, span)
        values = self._spans(self.value_conv(value_source) * mask, padding)
        valid, window = self._spans(mask, padding), self._window(mask)
        # weights (T x span) of all layers would be gigabytes until the backward pass, which makes them again instead, and
        # those of one layer hundreds of megabytes: some blocks at a time
        blocks = max(1, MOST_WEIGHTS // (x.shape[0] * self.size * valid.shape[3]))
        parts = zip(*(each.split(blocks, dim=1) for each in (queries, keys, values, valid)), strict=True)
        pieces = [checkpoint(_attend, *part, window, use_reentrant=False, preserve_rng_state=False) for part in parts]
        out = torch.cat(pieces, dim=1)
        out = out.permute(0, 3, 1, 2).flatten(2)[:, :, :num_frames]
        return self.conv_out(F.relu(out)) * mask

    def _spans(self, x: Tensor, padding: int) -> Tensor:
        """What each block's window is cut from: `(B, blocks, C, size + 2 * (size // 2))`, 0 beyond the sequence."""
        half = self.size // 2
        spans = F.pad(x, (half, padding + half)).unfold(2, self.size + 2 * half, self.size)
        return spans.transpose(1, 2)

    def _window(self, like: Tensor) -> Tensor:
        """1 where a query of a block sees a frame of its span, `(1 or size, span)`."""
        position = torch.arange(self.size + 2 * (self.size // 2), device=like.device)
        if self.is_released:
            return (position < 2 * self.size - 1).to(like.dtype).unsqueeze(0)
        ahead = position - torch.arange(self.size, device=like.device).unsqueeze(1)
        return ((ahead >= 0) & (ahead < self.size)).to(like.dtype)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor, window: Tensor) -> Tensor:
    """What the queries of each block take of its values, `(B, blocks, size, C)`."""
    seen = valid * window  # (B, blocks, 1 or size, span)
    energy = queries @ keys / math.sqrt(keys.shape[2])
    weights = torch.softmax(energy + (seen + UNSEEN).log(), dim=3) * seen
    return weights @ values.transpose(2, 3)


class ConvFeedForward(nn.Module):
    """A dilated convolution and ReLU."""

    def __init__(self, dilation: int, maps: int):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv1d(maps, maps, 3, padding=dilation, dilation=dilation), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class AttentionLayer(nn.Module):
    """Dilated convolution, attention to its normalised output weighed by `share`, conv(1), dropout, added to its input."""

    def __init__(self, dilation: int, maps: int, r1: int, r2: int, *, is_released: bool, share: float):
        super().__init__()
        self.feed_forward = ConvFeedForward(dilation, maps)
        self.att_layer = WindowAttention(dilation, maps, r1, r2, is_released=is_released)
        self.conv_1x1 = nn.Conv1d(maps, maps, 1)
        self.dropout = SeededDropout()
        self.share = share

    def forward(self, x: Tensor, value_source: Tensor | None, mask: Tensor) -> Tensor:
        """`(B, C, T)`; values come from `value_source`, without one from the layer itself."""
        out = self.feed_forward(x)
        normalised = _normalised(out, mask)
        attended = self.att_layer(normalised, normalised if value_source is None else value_source, mask)
        out = self.conv_1x1(self.share * attended + out)
        return (x + self.dropout(out.unsqueeze(2)).squeeze(2)) * mask


class Stage(nn.Module):
    """The encoder (`share` 1, values of its own) or a decoder (values of the stage before it)."""

    def __init__(self, dim: int, num_classes: int, num_layers: int, maps: int, r1: int, r2: int, **choices):
        super().__init__()
        self.conv_1x1 = nn.Conv1d(dim, maps, 1)
        self.layers = nn.ModuleList(AttentionLayer(2**i, maps, r1, r2, **choices) for i in range(num_layers))
        self.conv_out = nn.Conv1d(maps, num_classes, 1)

    def forward(self, x: Tensor, value_source: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, num_classes, T)` and the features `(B, C, T)` they are from."""
        out = self.conv_1x1(x) * mask
        for layer in self.layers:
            out = layer(out, value_source, mask)
        return self.conv_out(out) * mask, out


class ASFormer(Head):
    """An encoder and `decoders` decoders. It sees later frames in every layer: it cannot be `causal`."""

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        decoders: int,
        layers: int,
        r1: int,
        r2: int,
        maps: int,
        channel_masking: float,
        window: str,
        causal: bool = False,
    ):
        super().__init__()
        if causal:
            raise ValueError("ASFormer sees later frames and cannot be causal")
        sizes = {"num_layers": layers, "maps": maps, "r1": r1, "r2": r2, "is_released": window == "released"}
        self.encoder = Stage(dim, num_classes, **sizes, share=1.0)
        self.decoders = nn.ModuleList(
            Stage(num_classes, num_classes, **sizes, share=math.exp(-DECODER_FALL * index)) for index in range(decoders)
        )
        self.channel_dropout = SeededDropout(channel_masking)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of every stage `(decoders + 1, B, num_classes, T)`; see `Head`."""
        mask = x.new_ones(x.shape[0], 1, x.shape[2]) if mask is None else mask.to(x.dtype)
        if self.training and self.channel_dropout.p:
            # one draw a dimension and video, for all of its frames
            x = x * self.channel_dropout(x.new_ones(*x.shape[:2], 1, 1)).squeeze(2)
        logits, features = self.encoder(x, None, mask)
        stages = [logits]
        for decoder in self.decoders:
            logits, features = decoder(F.softmax(logits, dim=1) * mask, features, mask)
            stages.append(logits)
        return torch.stack(stages)


def _normalised(x: Tensor, mask: Tensor) -> Tensor:
    """Each channel of each video `(B, C, T)` at mean 0 and variance 1 over its valid frames; one frame alone gives 0."""
    count = mask.sum(dim=2, keepdim=True).clamp(min=1)
    centred = (x - (x * mask).sum(dim=2, keepdim=True) / count) * mask
    return centred * (centred.square().sum(dim=2, keepdim=True) / count + NORM_EPSILON).rsqrt()
