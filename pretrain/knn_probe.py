"""How well features tell phases apart without any training: a vote of the nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.runtime import UserError


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 1024,
) -> tuple[float, float]:
    """Accuracy and balanced accuracy (mean recall of the classes in `test_labels`) of the weighted vote, 0 to 1.

    Features `(N, D)`, labels `(N,)` integers from 0. The k training features of highest cosine similarity s each vote for
    their class with exp(s / temperature) (Wu et al., CVPR 2018, section 3.4; the k-NN evaluation of DINO, Caron et al., ICCV
    2021). Memory is `chunk_size` x N_train; the computation runs in fp32 on the device of the training features.

    Raises `UserError` for fewer than k training features, no test feature, and features that are not finite.
    """
    if not 1 <= k <= len(train_features):
        raise UserError(f"k = {k} neighbours cannot be found among {len(train_features)} training features")
    if not len(test_features):
        raise UserError("no test features: the kNN probe has nothing to measure")
    device = train_features.device
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)
    bank = _unit_vectors(train_features)
    num_classes = int(train_labels.max()) + 1
    predicted = [
        _vote(_unit_vectors(queries.to(device)) @ bank.T, train_labels, num_classes, k=k, temperature=temperature)
        for queries in test_features.split(chunk_size)
    ]
    correct = torch.cat(predicted) == test_labels
    recalls = [correct[test_labels == label].double().mean() for label in test_labels.unique()]
    return float(correct.double().mean()), float(torch.stack(recalls).mean())


def _unit_vectors(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise UserError("features hold NaN or infinity: the network that made them has diverged")
    return F.normalize(features.float(), dim=1)


def _vote(similarity: Tensor, labels: Tensor, num_classes: int, *, k: int, temperature: float) -> Tensor:
    """Predicted classes `(N,)` from similarities `(N, N_train)`."""
    nearest, index = similarity.topk(k, dim=1)
    weights = (nearest / temperature).softmax(dim=1)  # the votes up to a factor a row, without overflow
    votes = similarity.new_zeros(len(similarity), num_classes).scatter_add_(1, labels[index], weights)
    return votes.argmax(dim=1)
