"""Losses of self-distillation: lightly's answers, hand-computed cases, invariances, and two processes as one.

lightly is imported in the tests that ask it: the second process imports this module, and need not wait for it.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.runtime import UserError
from pretrain.objectives import losses
from pretrain.objectives.losses import (
    class_token_loss,
    gram_loss,
    koleo_loss,
    masked_patch_loss,
    mean_entropy,
    resize_patches,
)
from pretrain.objectives.masks_image import patch_weights
from tests.pretrain.distributed import assert_two_equal_one

TEMPERATURE = 0.04


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def targets(*shape: int, seed: int = 9) -> Tensor:
    return torch.softmax(numbers(*shape, seed=seed), dim=-1)


# --- DINO ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_local", [0, 1, 8])
def test_class_token_loss_is_lightlys_average_over_pairs(num_local):
    from lightly.loss import DINOLoss

    student, teacher = numbers(2 + num_local, 6, 10), numbers(2, 6, 10, seed=1)
    expected = DINOLoss(output_dim=10)(list(teacher), list(student), teacher_temp=TEMPERATURE)
    loss = class_token_loss(student[:2], student[2:], torch.softmax(teacher / TEMPERATURE, dim=-1))
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)


def test_parts_are_means_over_pairs_weighted_by_one_and_eight_ninths():
    student, teacher = numbers(10, 4, 5), targets(2, 4, 5)
    log_p = F.log_softmax(student / 0.1, dim=-1)

    def pair(s: int, t: int) -> Tensor:
        return -(teacher[t] * log_p[s]).sum(dim=1).mean()

    crosswise = (pair(0, 1) + pair(1, 0)) / 2
    local = sum(pair(s, t) for s in range(2, 10) for t in range(2)) / 16
    loss = class_token_loss(student[:2], student[2:], teacher)
    torch.testing.assert_close(loss.global_crops, crosswise)
    torch.testing.assert_close(loss.local_crops, local)
    torch.testing.assert_close(loss.total, crosswise / 9 + local * 8 / 9)
    halved = class_token_loss(student[:2], student[2:], teacher, local_weight=0.5)
    torch.testing.assert_close(halved.total, crosswise / 9 + 0.5 * local * 8 / 9)


def test_a_student_that_agrees_has_the_teachers_entropy_as_its_loss():
    teacher = targets(1, 6, 5).expand(2, -1, -1)
    student = 0.1 * teacher.log()
    loss = class_token_loss(student, student[:0], teacher)
    torch.testing.assert_close(loss.total, mean_entropy(teacher))
    assert loss.local_crops == 0


# --- iBOT ---------------------------------------------------------------------------------------------------------


def some_masks() -> Tensor:
    """Masks `(4, 9)` of four crops, of which the third hides nothing."""
    masks = torch.zeros(4, 9, dtype=torch.bool)
    masks[0, :3] = masks[1, [2, 8]] = masks[3, 1:6] = True
    return masks


def test_masked_patch_loss_equals_lightlys_and_counts_crops_without_masks():
    from lightly.loss import IBOTPatchLoss

    masks = some_masks()
    student, teacher = numbers(10, 7), numbers(10, 7, seed=1)
    expected = IBOTPatchLoss(output_dim=7)(teacher, student, masks.view(4, 3, 3), teacher_temp=TEMPERATURE)
    probabilities = torch.softmax(teacher / TEMPERATURE, dim=-1)
    loss = masked_patch_loss(student, probabilities, patch_weights(masks), num_crops=4)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_masked_patch_loss_by_hand():
    """Uniform predictions of 7 prototypes cost log 7 a patch: a mean of log 7 in three of four crops."""
    masks = some_masks()
    loss = masked_patch_loss(torch.zeros(10, 7), targets(10, 7), patch_weights(masks), num_crops=4)
    assert loss.item() == pytest.approx(3 / 4 * math.log(7))


def test_no_masked_patches_cost_nothing_and_keep_a_gradient():
    student = torch.zeros(0, 7, requires_grad=True)
    loss = masked_patch_loss(student, torch.zeros(0, 7), torch.zeros(0), num_crops=4)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None


# --- KoLeo --------------------------------------------------------------------------------------------------------


def test_koleo_equals_lightlys():
    from lightly.loss import KoLeoLoss

    features = numbers(12, 5)
    torch.testing.assert_close(koleo_loss(features), KoLeoLoss()(features), rtol=1e-6, atol=0)


def test_koleo_by_hand():
    """Unit vectors at 0, 90 and 180 degrees: the nearest neighbour is sqrt(2) away from each."""
    features = torch.tensor([[1.0, 0], [0, 3], [-2, 0]])
    assert koleo_loss(features).item() == pytest.approx(-math.log(math.sqrt(2)))


def test_koleo_does_not_depend_on_lengths():
    features = numbers(8, 5)
    lengths = torch.rand(8, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    torch.testing.assert_close(koleo_loss(features * lengths), koleo_loss(features))


def test_identical_features_cost_much_and_stay_finite():
    features = torch.ones(4, 5, requires_grad=True)
    loss = koleo_loss(features)
    loss.backward()
    assert 15 < loss.item() < 20
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("rank", "size", "group", "place"),
    [(0, 4, (0, 8), 0), (3, 4, (0, 8), 6), (4, 4, (2, 10), 6), (1, 1, (2, 4), 0), (4, 9, (0, 10), 8)],
)
def test_koleo_s_neighbours_are_sought_in_groups_of_processes(monkeypatch, rank, size, group, place):
    """Of 5 processes of 2 images; the last one shares the last whole group, and no group is larger than all."""
    everyone = numbers(10, 3)
    monkeypatch.setattr(losses, "world_size", lambda: 5)
    monkeypatch.setattr(losses, "rank", lambda: rank)
    monkeypatch.setattr(losses, "all_gather", lambda own: everyone / everyone.norm(dim=1, keepdim=True))
    unit = everyone / everyone.norm(dim=1, keepdim=True)
    first = 2 * rank
    among = unit[group[0] : group[1]]
    distances = torch.cdist(unit[first : first + 2], among)
    distances[torch.arange(2), torch.arange(2) + place] = torch.inf
    expected = -distances.min(dim=1).values.log().mean()
    found = koleo_loss(everyone[first : first + 2], num_processes=size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_single_image_has_no_neighbour():
    with pytest.raises(UserError, match="2 images or more in a batch, found 1: raise the batch size"):
        koleo_loss(torch.ones(1, 5))


# --- Gram ---------------------------------------------------------------------------------------------------------


def test_gram_loss_is_zero_for_equal_features_and_is_a_mean_of_squares_otherwise():
    student, teacher = numbers(2, 6, 4), numbers(2, 6, 3, seed=1)
    assert gram_loss(student, student) == 0
    s, t = (x / x.norm(dim=-1, keepdim=True) for x in (student, teacher))
    differences = [(s[i] @ s[i].T - t[i] @ t[i].T).square().mean() for i in range(2)]
    torch.testing.assert_close(gram_loss(student, teacher), torch.stack(differences).mean())


def test_gram_loss_ignores_rotations_and_lengths():
    student, teacher = numbers(2, 6, 4), numbers(2, 6, 4, seed=1)
    rotation, _ = torch.linalg.qr(numbers(4, 4, seed=2))
    lengths = torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(3)) + 0.5
    expected = gram_loss(student, teacher)
    torch.testing.assert_close(gram_loss(student @ rotation, teacher), expected)
    torch.testing.assert_close(gram_loss(student, teacher * lengths), expected)
    assert gram_loss(student @ rotation, student).item() == pytest.approx(0, abs=1e-10)


def test_patches_are_resized_in_their_own_places():
    """A plane stays a plane: away from the edges bicubic interpolation of a linear ramp is exact."""
    rows = torch.arange(16.0).view(16, 1).expand(16, 12)
    columns = torch.arange(12.0).expand(16, 12)
    ramps = torch.stack([rows, columns], dim=-1).view(1, 16 * 12, 2)
    halved = resize_patches(ramps, (16, 12), (8, 6)).view(8, 6, 2)
    torch.testing.assert_close(halved[2:6, 2:4, 0], (2 * torch.arange(2.0, 6) + 0.5).view(4, 1).expand(4, 2))
    torch.testing.assert_close(halved[2:6, 2:4, 1], (2 * torch.arange(2.0, 4) + 0.5).expand(4, 2))


def test_halving_weighs_four_patches_by_the_cubic_kernel():
    """Half way between two places Keys' kernel (a = -0.75) is 0.59375 for both, and -0.09375 for those beside them."""
    halved = resize_patches(torch.tensor([[[0.0], [1.0], [0.0], [0.0]]]), (4, 1), (2, 1))
    torch.testing.assert_close(halved, torch.tensor([[[0.59375], [-0.09375]]]))


def test_resizing_to_the_same_grid_changes_nothing():
    features = numbers(2, 12, 5)
    torch.testing.assert_close(resize_patches(features, (3, 4), (3, 4)), features)


# --- entropy ------------------------------------------------------------------------------------------------------


def test_entropy_tells_uniform_from_collapsed():
    assert mean_entropy(torch.full((3, 8), 1 / 8)).item() == pytest.approx(math.log(8))
    assert mean_entropy(torch.eye(8)).item() == 0


# --- precision ----------------------------------------------------------------------------------------------------

LOSSES = {
    "dino": lambda x: class_token_loss(x[:2], x[2:], targets(2, 6, 5)).total,
    "ibot": lambda x: masked_patch_loss(x.flatten(0, 1)[:10], targets(10, 5), patch_weights(some_masks()), num_crops=4),
    "koleo": lambda x: koleo_loss(1 + x[0].float() / 100),  # neighbours that bfloat16 cannot tell apart
    "gram": lambda x: gram_loss(x, numbers(4, 6, 5, seed=1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_under_autocast_are_computed_in_float32(name):
    features = numbers(4, 6, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](features)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LOSSES[name](features.float()), rtol=1e-6, atol=1e-7)


# --- two processes ------------------------------------------------------------------------------------------------


def dino_through(weight: Tensor, global_crops: Tensor, local_crops: Tensor, teacher: Tensor) -> Tensor:
    """Crops come as `(B, crops, D)`, so that halves are halves of the images."""
    student_global, student_local = ((crops @ weight).transpose(0, 1) for crops in (global_crops, local_crops))
    return class_token_loss(student_global, student_local, teacher.transpose(0, 1)).total


def ibot_through(weight: Tensor, patches: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    return masked_patch_loss((patches @ weight)[masks], teacher[masks], patch_weights(masks), num_crops=len(masks))


def koleo_through(weight: Tensor, features: Tensor) -> Tensor:
    return koleo_loss(features @ weight, num_processes=2)


def gram_through(weight: Tensor, patches: Tensor, teacher: Tensor) -> Tensor:
    return gram_loss(patches @ weight, teacher)


TWO_PROCESS_CASES = {
    "dino": (dino_through, numbers(6, 2, 4, seed=1), numbers(6, 3, 4, seed=2), targets(6, 2, 5)),
    "ibot": (ibot_through, numbers(4, 9, 4, seed=1), targets(4, 9, 5), some_masks()),
    "koleo": (koleo_through, numbers(8, 4, seed=1)),
    "gram": (gram_through, numbers(4, 6, 4, seed=1), numbers(4, 6, 3, seed=2)),
}


@pytest.mark.parametrize("name", TWO_PROCESS_CASES)
def test_two_processes_on_halves_equal_one_on_the_batch(two, name):
    loss, *inputs = TWO_PROCESS_CASES[name]
    assert_two_equal_one(two, loss, numbers(4, 5), *inputs)
