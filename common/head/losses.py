"""Training losses of the head: cross-entropy or focal loss, plus the truncated smoothing loss, over valid frames only.

Targets `(B, T)` hold phase ids, and `IGNORED` where a frame has no label that counts or a sequence is padding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.dataset.phases import IGNORED
from common.head.config import TrainConfig

T_MSE_CLAMP = 16.0  # = tau squared, tau 4: Farha and Gall, CVPR 2019, eq. 4
LOWEST_WEIGHT = 0.1  # of the smoothing term, in the two frames at a true phase change


def classification_loss(
    logits: Tensor, target: Tensor, *, gamma: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Mean focal loss (1 - p_t)^gamma * -log p_t over valid frames (Lin et al., ICCV 2017, eq. 4).

    Gamma 0 is cross-entropy.
    `logits` `(B, num_classes, T)`, `target` `(B, T)`, `class_weights` `(num_classes,)`. With class weights the mean is
    weighted, as in `torch.nn.functional.cross_entropy`.
    """
    return _of_log_p(F.log_softmax(logits, dim=1), target, gamma, class_weights)


def _of_log_p(log_p: Tensor, target: Tensor, gamma: float, class_weights: Tensor | None) -> Tensor:
    """`classification_loss` of log-probabilities `(B, num_classes, T)`."""
    if gamma == 0 and not torch.are_deterministic_algorithms_enabled():  # its own mean is of a GPU's unordered sums
        return F.nll_loss(log_p, target, weight=class_weights, ignore_index=IGNORED)
    negative_log_p = F.nll_loss(log_p, target, ignore_index=IGNORED, reduction="none")
    valid = target != IGNORED
    weights = valid.to(log_p.dtype)
    if class_weights is not None:
        weights = weights * class_weights[target.clamp(min=0)]  # padding (-100) looks up class 0 and keeps weight 0
    # where p_t is 1, or rounded above it, the loss is 0 and flat, but the slope of a power below 1 is infinite there, and 0
    # times infinity NaN: such frames are kept out of the power
    uncertainty = 1 - torch.exp(-negative_log_p)
    certain = uncertainty <= 0
    focus = (uncertainty.masked_fill(certain, 1) ** gamma).masked_fill(certain, 0)
    return (weights * focus * negative_log_p).sum() / weights.sum()


def smoothing_weights(target: Tensor, window: int) -> Tensor:
    """Weights `(B, T)` that fall from 1 to 0.1 towards each true phase change and rise again after it.

    A change between frames c-1 and c weighs the frames [c - window/2, c + window/2) by a geometric ramp down and its
    mirror image; ramps are clipped at the ends of the sequence, and where two meet the smaller weight counts.
    """
    half = window // 2
    ramp = torch.logspace(0, -1, half, base=1 / LOWEST_WEIGHT, dtype=torch.float64)
    profile = torch.cat((ramp, ramp.flip(0))).to(target.device, torch.float32)
    weights = torch.ones(target.shape, device=target.device)
    # a step into padding, or from or to a frame that does not count, is no phase change
    valid_change = (target[:, 1:] != target[:, :-1]) & _with_predecessor(target)
    item, frame = valid_change.nonzero(as_tuple=True)
    # `frame` is the one before the change, so c = frame + 1; one row of positions per change
    positions = frame[:, None] + 1 + torch.arange(-half, half, device=target.device)
    inside = (positions >= 0) & (positions < target.shape[1])
    flat = (item[:, None] * target.shape[1] + positions)[inside]
    values = profile.expand(len(frame), -1)[inside]
    # all ramps are written at once; amin, so that the order in which overlapping ones arrive does not matter
    return weights.view(-1).scatter_reduce(0, flat, values, reduce="amin").view_as(weights)


def _with_predecessor(target: Tensor) -> Tensor:
    """Whether each frame but the first `(B, T - 1)` counts, and the one before it too."""
    valid = target != IGNORED
    return valid[:, 1:] & valid[:, :-1]


def truncated_mse(logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Truncated mean squared change of log-probabilities between frames (Farha and Gall, CVPR 2019, eq. 3-5).

    Log-softmax at t minus the detached one at t-1, squared, clamped to 0..16, averaged over classes and over the valid
    frames after a valid one. `weights` `(B, T)` multiplies the term of frame t. 0 when no frame has one.
    """
    return _change_of_log_p(F.log_softmax(logits, dim=1), target, weights)


def _change_of_log_p(log_p: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """`truncated_mse` of log-probabilities `(B, num_classes, T)`."""
    # the earlier frame is detached: gradients draw each frame to its predecessor, never the past to the future
    change = (log_p[:, :, 1:] - log_p.detach()[:, :, :-1]).square().clamp(max=T_MSE_CLAMP)
    valid = _with_predecessor(target).to(log_p.dtype)
    per_frame = change.mean(dim=1) * valid
    if weights is not None:
        per_frame = per_frame * weights[:, 1:]
    return per_frame.sum() / valid.sum().clamp(min=1)


def head_loss(
    stages: Tensor,
    target: Tensor,
    config: TrainConfig,
    class_weights: Tensor | None = None,
    smoothing: Tensor | None = None,
) -> Tensor:
    """Sum over stages of classification loss + lambda * smoothing loss, in float32.

    `stages` `(num_stages, B, num_classes, T)`, `target` `(B, T)`; lambda is `loss_mse`, gamma `loss_focal` of `config`. `smoothing`:
    the `smoothing_weights` of the target where they are known already, which on a GPU would wait for it.
    """
    # float32 under bf16 too: squares of small changes of log-probabilities would be rounded away. Both terms are of
    # log-probabilities, which are computed once
    log_p_of_stages = F.log_softmax(stages.float(), dim=2)
    if smoothing is None and config.adaptive_mse:
        smoothing = smoothing_weights(target, config.window_mse)
    total = log_p_of_stages.new_zeros(())
    for log_p in log_p_of_stages:
        total = total + _of_log_p(log_p, target, config.loss_focal, class_weights)
        total = total + config.loss_mse * _change_of_log_p(log_p, target, smoothing)
    return total
