"""Losses of masked video prediction: by hand, VideoMAE of transformers, and two processes as one.

transformers is imported in the test that asks it: the second process imports this module, and need not wait for it.
"""

import pytest
import torch
from torch import Tensor

from pretrain.objectives.latent_losses import (
    distillation_loss,
    gather_tokens,
    latent_loss,
    latent_targets,
    pixel_loss,
    pixel_targets,
)
from pretrain.objectives.masks_video import Tube
from tests.pretrain.distributed import assert_two_equal_one

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CUT = {"mean": MEAN, "std": STD, "patch": 16, "tubelet": 2}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def normalised(pixels: Tensor) -> Tensor:
    """Clips `(B, T, 3, H, W)` in [0, 1] as a network gets them."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


# --- latent prediction --------------------------------------------------------------------------------------------


def test_tokens_are_gathered_by_sample():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert gather_tokens(tokens, torch.tensor([[0, 2], [1, 1]])).tolist() == [[[0, 1], [4, 5]], [[8, 9], [8, 9]]]


def test_targets_have_mean_0_and_variance_1_in_each_token():
    targets = latent_targets(5 + 3 * numbers(2, 7, 16), torch.tensor([[0, 3], [2, 6]]))
    torch.testing.assert_close(targets.mean(dim=2), torch.zeros(2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.var(dim=2, unbiased=False), torch.ones(2, 2), atol=1e-4, rtol=0)


def test_scale_and_shift_of_a_teacher_token_change_no_target_and_no_gradient_flows():
    teacher = numbers(2, 7, 16).requires_grad_()
    places = torch.tensor([[0, 3], [2, 6]])
    scale, shift = numbers(2, 7, 1, seed=1).abs() + 0.5, numbers(2, 7, 1, seed=2)
    targets = latent_targets(teacher, places)
    assert not targets.requires_grad
    torch.testing.assert_close(latent_targets(teacher * scale + shift, places), targets, atol=1e-4, rtol=0)


def test_latent_loss_is_the_mean_over_families_of_l1():
    """Families weigh the same, however many tokens they have."""
    predictions = [torch.full((1, 4, 2), 3.0), torch.zeros(1, 1, 2)]
    targets = [torch.full((1, 4, 2), 1.0), torch.full((1, 1, 2), -1.0)]
    assert latent_loss(predictions, targets).item() == (2 + 1) / 2
    assert latent_loss(predictions, targets, exponent=2.0).item() == (4 / 2 + 1 / 2) / 2


# --- pixels -------------------------------------------------------------------------------------------------------


def test_pixel_loss_equals_videomae_of_transformers():
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {"decoder_hidden_size": 24, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config = VideoMAEConfig(image_size=48, num_frames=4, decoder_intermediate_size=32, **sizes, **decoder)
    model = VideoMAEForPreTraining(config).eval()
    clips = normalised(torch.rand(2, 4, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    places = Tube(0.8).draw((2, 3, 3), seed=0, step=0, samples=[0, 1]).target
    hidden = torch.zeros(2, 18, dtype=torch.bool).scatter(1, places, True)
    with torch.no_grad():
        theirs = model(clips, bool_masked_pos=hidden)
    ours = pixel_loss(theirs.logits, gather_tokens(pixel_targets(clips, **CUT), places))
    torch.testing.assert_close(ours, theirs.loss, rtol=1e-5, atol=0)


def test_pixel_targets_are_standardised_in_each_token_and_channel_by_hand():
    pixels = torch.rand(1, 4, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    targets = pixel_targets(normalised(pixels), **CUT)
    assert targets.shape == (1, 2 * 2 * 3, 2 * 16 * 16 * 3)
    token = pixels[0, 2:4, :, 16:32, 32:48]  # second tubelet, second row, third column: the last one
    channel = token[:, 1]
    expected = (channel - channel.mean()) / (channel.std() + 1e-6)
    found = targets[0, 11].view(2, 16, 16, 3)[..., 1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_of_one_colour_have_zero_targets():
    colour = torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1).expand(1, 2, 3, 16, 16)
    assert not pixel_targets(colour, **CUT | {"mean": (0, 0, 0), "std": (1, 1, 1)}).any()


# --- distillation -------------------------------------------------------------------------------------------------


def test_distillation_is_quadratic_near_and_linear_far():
    predictions = torch.tensor([[[0.5, 3.0]]])
    teacher = torch.zeros(1, 1, 2, requires_grad=True)
    assert distillation_loss(predictions, teacher).item() == (0.5**2 / 2 + 2.5) / 2


def test_a_normalised_teacher_may_be_scaled():
    predictions, teacher = numbers(2, 3, 8), numbers(2, 3, 8, seed=1)
    plain = distillation_loss(predictions, teacher, normalise_teacher=True)
    torch.testing.assert_close(distillation_loss(predictions, 7 * teacher + 1, normalise_teacher=True), plain)
    assert distillation_loss(predictions, teacher) != plain


# --- precision and two processes ----------------------------------------------------------------------------------


def latent_through(weight: Tensor, short: Tensor, long: Tensor, teacher: Tensor) -> Tensor:
    return latent_loss([short @ weight, long @ weight], [teacher[:, :2], teacher[:, 2:]])


def pixels_through(weight: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
    return pixel_loss(tokens @ weight, targets)


def distillation_through(weight: Tensor, tokens: Tensor, teacher: Tensor) -> Tensor:
    return distillation_loss(tokens @ weight, teacher, normalise_teacher=True)


CASES = {
    "latent": (latent_through, numbers(6, 2, 4, seed=1), numbers(6, 3, 4, seed=2), numbers(6, 5, 5, seed=3)),
    "pixels": (pixels_through, numbers(6, 2, 4, seed=1), numbers(6, 2, 5, seed=2)),
    "distillation": (distillation_through, numbers(6, 2, 4, seed=1), numbers(6, 2, 5, seed=2)),
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_on_halves_equal_one_on_the_batch(two, name):
    loss, *inputs = CASES[name]
    assert_two_equal_one(two, loss, numbers(4, 5), *inputs)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_inputs_are_compared_in_float32(name):
    loss, *inputs = CASES[name]
    half = [tensor.bfloat16() for tensor in inputs]
    identity = torch.eye(4, 5).bfloat16()  # a product with it is exact in any precision
    computed = loss(identity, *half)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed, loss(identity.float(), *[tensor.float() for tensor in half]))
