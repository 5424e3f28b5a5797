"""Teacher scores to probabilities that cannot collapse onto one prototype: Sinkhorn-Knopp, or a centred softmax.

Both take logits `(..., K)` of K prototypes, in any precision, and give float32 probabilities without gradient. The
leading dimensions together are the samples; all samples of all processes count as one batch, and processes may hold
different numbers of them, even none.
"""

import torch
from torch import Tensor, nn

from pretrain.objectives.reduce import all_reduce_max, all_reduce_sum


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, *, iterations: int = 3) -> Tensor:
    """Probabilities `(..., K)` in which every prototype has about the same mass over the batch (SwAV, NeurIPS 2020).

    Q = exp(logits / temperature) is scaled `iterations` times, first each prototype over the samples of all processes,
    then each sample over its prototypes. The scalings are kept as logarithms of one factor per prototype and one per
    sample: nothing overflows, and a sample far below the others does not vanish. The published scalings to 1/K and 1/B
    and by the sum of Q cancel in the last one, so the number of samples does not enter.
    """
    scores = logits.float().flatten(0, -2) / temperature  # log Q, (B, K)
    sample_factors = scores.new_zeros(len(scores), 1)
    for _ in range(iterations):
        prototype_factors = -_logsumexp_over_samples(scores + sample_factors)
        # samples come last, so that each one's probabilities sum to exactly 1
        sample_factors = -torch.logsumexp(scores + prototype_factors, dim=1, keepdim=True)
    return (scores + prototype_factors + sample_factors).exp().view(logits.shape)


def _logsumexp_over_samples(scores: Tensor) -> Tensor:
    """`(B, K)` in each process -> `(1, K)`; a process without samples adds nothing."""
    own = torch.logsumexp(scores, dim=0, keepdim=True)  # -inf without samples
    highest = all_reduce_max(own)
    return highest + all_reduce_sum((own - highest).exp()).log()


class SoftmaxCentering(nn.Module):
    """Softmax of logits minus a running centre, the mean teacher output (DINO, Caron et al., ICCV 2021, eq. 4).

    The centre `(K,)` starts at zero and is part of the state that a checkpoint keeps.
    """

    def __init__(self, num_prototypes: int, *, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(num_prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Probabilities `(..., K)` by the centre of the earlier batches, which then takes in this one."""
        scores = logits.float()
        probabilities = torch.softmax((scores - self.center) / temperature, dim=-1)
        samples = scores.flatten(0, -2)
        total = all_reduce_sum(samples.sum(dim=0))
        count = all_reduce_sum(samples.new_tensor(float(len(samples))))
        weight = (1 - self.momentum) * (count > 0)  # a batch without samples leaves the centre where it is
        self.center.lerp_(total / count.clamp(min=1), weight)
        return probabilities
