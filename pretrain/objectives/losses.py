"""Losses of self-distillation: DINO on class tokens, iBOT on masked patches, KoLeo, Gram anchoring.

Each is the mean over this process's samples; averaged over processes of equal batches it is the loss of the whole
batch. All are computed in float32, under autocast as well. Formulas as in DINOv3 (Simeoni et al., 2025) and its code.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.runtime import UserError
from pretrain.objectives.reduce import all_gather, rank, world_size

STUDENT_TEMPERATURE = 0.1
KOLEO_EPS = 1e-8


class ClassTokenLoss(NamedTuple):
    """The DINO loss and its two parts, before their weights; a part without pairs is 0."""

    total: Tensor
    global_crops: Tensor
    local_crops: Tensor


def class_token_loss(
    student_global: Tensor,
    student_local: Tensor,
    teacher: Tensor,
    *,
    local_weight: float = 1.0,
    temperature: float = STUDENT_TEMPERATURE,
) -> ClassTokenLoss:
    """Cross-entropy of every student crop with every teacher crop but itself (DINO, ICCV 2021, eq. 1 and 3).

    Student logits `(G, B, K)` of global and `(L, B, K)` of local crops (L may be 0), teacher probabilities `(G, B, K)`.
    The parts are weighted by their numbers of pairs, so that `local_weight` 1 is the plain average over pairs; Gram
    anchoring lowers it to 0.5.
    """
    num_global, num_local = len(teacher), len(student_local)
    same_kind = pair_cross_entropy(student_global, teacher, temperature=temperature)
    # a teacher that predicts its own view would teach the student to copy it
    itself = torch.eye(num_global, dtype=torch.bool, device=same_kind.device)
    global_sum = same_kind.masked_fill(itself, 0).sum()
    local_sum = pair_cross_entropy(student_local, teacher, temperature=temperature).sum()
    global_pairs, local_pairs = num_global * (num_global - 1), num_global * num_local
    total = (global_sum + local_weight * local_sum) / (global_pairs + local_pairs)
    return ClassTokenLoss(total, global_sum / max(global_pairs, 1), local_sum / max(local_pairs, 1))


def pair_cross_entropy(student: Tensor, teacher: Tensor, *, temperature: float = STUDENT_TEMPERATURE) -> Tensor:
    """Student logits `(S, B, K)`, teacher probabilities `(T, B, K)` -> mean over the batch of each pair `(S, T)`."""
    with torch.autocast(student.device.type, enabled=False):  # which would make the product of einsum bf16
        log_p = F.log_softmax(student.float() / temperature, dim=-1)
        return -torch.einsum("sbk,tbk->st", log_p, teacher.float()) / student.shape[1]


def masked_patch_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, num_crops: int, *, temperature: float = STUDENT_TEMPERATURE
) -> Tensor:
    """Cross-entropy at masked patches, averaged in each crop, then over crops (iBOT, Zhou et al., ICLR 2022, eq. 3).

    Student logits and teacher probabilities `(M, K)` of the M masked patches; `weights` `(M,)` are one over the number
    of masked patches of their crop (`masks_image.patch_weights`). `num_crops` counts the crops without masks too, which
    lower the loss. Without masked patches it is 0, with a zero gradient.
    """
    log_p = F.log_softmax(student.float() / temperature, dim=-1)
    return -((teacher.float() * log_p).sum(dim=-1) * weights).sum() / num_crops


def koleo_loss(features: Tensor, *, num_processes: int = 1) -> Tensor:
    """Spread features over the sphere: minus the mean log distance to the nearest neighbour.

    Sablayrolles et al., ICLR 2019. `features` `(B, D)` of one crop, before the head; their lengths do not matter.
    Neighbours are sought in this process's batch, or in the batches, with equal B, of a group of `num_processes` that
    follow each other (`dinov3:dinov3/loss/koleo_loss.py` has groups of images); the last ones share the last whole
    group. DINOv3 adds a tenth of this for each global crop.

    Raises `UserError` when there is no neighbour.
    """
    with torch.autocast(features.device.type, enabled=False):
        own = F.normalize(features.float(), dim=-1, eps=KOLEO_EPS)
        everyone, first = _group(own, num_processes)
        if len(everyone) < 2:
            raise UserError(
                "the KoLeo loss needs 2 images or more in a batch, found 1: raise the batch size, or set its weight "
                "to 0"
            )
        # who is nearest has no gradient; how far it is has one, on both sides
        similarity = own.detach() @ everyone.detach().T
        similarity.diagonal(first).fill_(-torch.inf)  # of each with itself, in its own row of `everyone`
        neighbours = everyone[similarity.argmax(dim=1)]
        distance = F.pairwise_distance(own, neighbours, eps=KOLEO_EPS)
        return -(distance + KOLEO_EPS).log().mean()


def _group(own: Tensor, num_processes: int) -> tuple[Tensor, int]:
    """Features `(B, D)` -> those of the process's group `(num_processes * B, D)`, and the place of its own among them."""
    size = min(num_processes, world_size())
    if size == 1:
        return own, 0
    start = min(rank() // size * size, world_size() - size)
    return all_gather(own)[start * len(own) : (start + size) * len(own)], (rank() - start) * len(own)


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the patches' cosine similarities (DINOv3, section 4: Gram anchoring).

    Patch features `(B, N, D)` and `(B, N, E)` of the same N places; similarities are taken within an image.
    """
    with torch.autocast(student.device.type, enabled=False):
        return F.mse_loss(_cosine_similarities(student), _cosine_similarities(teacher))


def _cosine_similarities(features: Tensor) -> Tensor:
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.transpose(1, 2)


def resize_patches(features: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Patch features `(B, H * W, D)` on another grid by bicubic interpolation without antialiasing, in float32.

    Brings the Gram teacher's patches, of a crop of twice the resolution, to the student's places.
    """
    maps = features.float().transpose(1, 2).unflatten(2, grid)
    return F.interpolate(maps, new_grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def mean_entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy in nats of distributions `(..., K)`: log K when uniform, 0 when collapsed onto single prototypes."""
    return torch.special.entr(probabilities.float()).sum(dim=-1).mean()
