"""Losses of masked prediction in video: latent (V-JEPA 2), pixels (VideoMAE), features of an image teacher (SurgVISTA).

Predictions and targets are those of the masked tokens alone, `(B, K, D)`. Each loss is the mean over this process's
samples, in float32.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_EPS = 1e-6


def gather_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens `(B, K, D)` of `(B, N, D)` at the places `(B, K)`."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


@torch.no_grad()
def latent_targets(teacher: Tensor, places: Tensor) -> Tensor:
    """The predictor's targets `(B, K, D)`: teacher tokens `(B, N, D)`, normalised over features, at places `(B, K)`.

    The normalisation has no parameters (V-JEPA, Bardes et al., 2024; `vjepa2:app/vjepa/train.py`).
    """
    return F.layer_norm(gather_tokens(teacher.float(), places), teacher.shape[-1:])


def latent_loss(predictions: Sequence[Tensor], targets: Sequence[Tensor], *, exponent: float = 1.0) -> Tensor:
    """Mean of |prediction - target|^p / p, averaged over the families of masks, one `(B, K, D)` pair each.

    The exponent p of V-JEPA 2 is 1: the L1 loss.
    """
    losses = [
        (prediction.float() - target.float()).abs().pow(exponent).mean() / exponent
        for prediction, target in zip(predictions, targets, strict=True)
    ]
    return torch.stack(losses).mean()


@torch.no_grad()
def pixel_targets(clips: Tensor, *, mean: Sequence[float], std: Sequence[float], patch: int, tubelet: int) -> Tensor:
    """Pixels of each token, standardised in the token and channel (MAE, He et al., CVPR 2022, section 4.1; VideoMAE).

    `clips` `(B, T, 3, H, W)`, normalised with `mean` and `std` of the channels, which is undone first ->
    `(B, N, tubelet * patch * patch * 3)`: tokens by time, row, column; values by time, row, column, channel. The
    standard deviation is the unbiased one plus 1e-6, so that a token of one colour is all zeros.
    """
    shift, scale = (torch.tensor(values, device=clips.device).view(3, 1, 1) for values in (mean, std))
    pixels = clips.float() * scale + shift
    cut = pixels.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).unflatten(1, (-1, tubelet))
    # (B, time, within tubelet, 3, row, within row, column, within column)
    tokens = cut.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(1, 3).flatten(2, 4)
    deviation, average = torch.std_mean(tokens, dim=2, keepdim=True)
    return ((tokens - average) / (deviation + PIXEL_EPS)).flatten(2)


def pixel_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of predicted pixels `(B, K, P)` against `pixel_targets` at the masked tokens."""
    return F.mse_loss(predictions.float(), targets.float())


def distillation_loss(predictions: Tensor, teacher: Tensor, *, normalise_teacher: bool = False) -> Tensor:
    """Smooth L1 distance of predicted to the image teacher's features `(B, K, D)` at the masked tokens (SurgVISTA).

    `normalise_teacher` first brings each teacher feature to zero mean and unit variance; SurgVISTA does not.
    """
    target = teacher.detach().float()
    if normalise_teacher:
        target = F.layer_norm(target, target.shape[-1:])
    return F.smooth_l1_loss(predictions.float(), target)
