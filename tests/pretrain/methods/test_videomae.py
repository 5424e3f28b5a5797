"""Video MAE: transformers' own loss, nothing hidden reaches the encoder, masks, features, schedules."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from common.base.runtime import UserError, generator
from pretrain.backbones import start_backbone
from pretrain.engine.reporting import transformer_flops
from pretrain.methods.videomae import VideoMAE, cut
from tests.pretrain.methods.videomae_clips import (
    TINY,
    WITH_TEACHER,
    batch_of,
    hidden_of,
    made,
    network,
    noisy_where,
    normalised,
    silent,
    with_teacher,
)

# pixels


@pytest.mark.parametrize("step", [0, 7])
def test_the_loss_is_transformers_own(step):
    start = network()
    method, batch = made(copy.deepcopy(start)), batch_of(0, 1, 2)
    expected = start(normalised(batch), bool_masked_pos=hidden_of(method, batch, step)).loss
    found = method(batch, step)
    torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-6)
    assert found["loss/pixels"] == found["loss"]


def test_gradients_are_transformers_own():
    start = network()
    method, batch = made(copy.deepcopy(start)), batch_of(0, 1)
    start(normalised(batch), bool_masked_pos=hidden_of(method, batch)).loss.backward()
    method(batch, 0)["loss"].backward()
    for name, parameter in method.exported().named_parameters():
        torch.testing.assert_close(parameter.grad, start.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def encoder_states(method: VideoMAE, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the encoder gives the decoder, and the loss."""
    seen = []
    handle = method.student["pixel_decoder"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss = method(batch, 0)["loss"]
    handle.remove()
    return seen[0], loss


def test_hidden_pixels_do_not_reach_the_encoder():
    method, batch = made(network()), batch_of(0, 1)
    hidden = hidden_of(method, batch)
    states, loss = encoder_states(method, batch)
    others, other_loss = encoder_states(method, noisy_where(hidden, batch))
    assert states.shape == (2, 8, 96)  # 2 of 16 places at 4 times
    assert torch.equal(states, others)
    assert loss != other_loss
    assert not torch.allclose(encoder_states(method, noisy_where(~hidden, batch))[0], states, atol=1e-2)


def test_tokens_of_one_colour_are_nothing_to_predict():
    colours = torch.randint(256, (2, 4, 3, 4, 4), dtype=torch.uint8, generator=generator("colours"))
    clip = colours.repeat_interleave(2, 1).repeat_interleave(16, 3).repeat_interleave(16, 4)
    assert silent(made())(batch_of(0, 1) | {"clip": clip}, 0)["loss"] == 0


def test_predicting_the_mean_costs_the_variance():
    """1 by an unbiased standard deviation, 511 / 512 as a mean of squares over the 512 pixels of token and channel."""
    batch = noisy_where(torch.ones(2, 64, dtype=torch.bool), batch_of(0, 1))
    assert silent(made())(batch, 0)["loss"].item() == pytest.approx(511 / 512, rel=1e-5)


def test_patches_are_cut_by_time_row_and_column():
    clip = torch.randint(256, (2, 8, 3, 64, 48), generator=generator("patches"))
    patches = cut(clip, 16, 2)
    assert patches.shape == (2, 4 * 4 * 3, 2, 3, 16, 16)
    time, row, column = 3, 1, 2
    expected = clip[1, 6:8, :, 16:32, 32:48]
    assert torch.equal(patches[1, (time * 4 + row) * 3 + column], expected)


# masks


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 14), (WITH_TEACHER, 13), ({"mask_ratio": 0.5}, 8), (WITH_TEACHER | {"mask_ratio": 0.5}, 8)],
)
def test_the_same_places_are_hidden_at_all_times(changes, count):
    """int(0.9 * 16), int(0.85 * 16) of 16 places."""
    hidden = hidden_of(made(**changes), batch_of(0, 1, 2)).view(3, 4, 16)
    assert (hidden == hidden[:, :1]).all()
    assert hidden[:, 0].sum(dim=1).tolist() == [count] * 3
    assert not torch.equal(hidden[0], hidden[1])


def test_masks_depend_on_seed_step_and_sample_alone():
    method, both = made(), batch_of(0, 1)
    assert torch.equal(hidden_of(method, both)[1:], hidden_of(made(network()), batch_of(1)))
    assert not torch.equal(hidden_of(method, both), hidden_of(method, both, step=1))
    assert not torch.equal(hidden_of(method, both), hidden_of(made(seed=1), both))


@pytest.mark.parametrize("changes", [{}, WITH_TEACHER])
def test_everything_that_is_trained_has_gradients(changes):
    method = made(network(), **changes)
    method(batch_of(0, 1), 0)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.student.parameters())
    assert set(method.student) == {"backbone", "pixel_decoder"} | ({"image_decoder"} if changes else set())


# stochastic depth


def test_branches_are_dropped_more_often_the_deeper_they_are():
    method = made(drop_path=0.5)
    blocks = method.student["backbone"].encoder.layer
    rates = [(block.attention.output.dropout.drop_prob, block.output.dropout.drop_prob) for block in blocks]
    assert rates == [(0.0, 0.0), (0.25, 0.25), (0.5, 0.5)]
    torch.manual_seed(0)
    kept = blocks[2].output.dropout(torch.ones(1000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == kept[:, :1, :1]).all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.1)
    batch = batch_of(0, 1)
    assert method(batch, 0)["loss"] != method(batch, 0)["loss"]
    method.eval()
    assert method(batch, 0)["loss"] == method(batch, 0)["loss"] == made().eval()(batch, 0)["loss"]


# features


def test_features_are_those_of_transformers_encoder_before_its_norm():
    start = network()
    batch = batch_of(0, 1)
    method = made(copy.deepcopy(start)).eval()
    start.videomae.layernorm = None
    mean = start.videomae(normalised(batch)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(method.features(batch), F.layer_norm(mean, (96,)), rtol=1e-4, atol=1e-5)


def test_a_network_without_that_norm_is_trained_too():
    start = VideoMAEForPreTraining(replace_config(network().config, use_mean_pooling=True))
    batch = batch_of(0, 1)
    method = made(copy.deepcopy(start))
    expected = start(normalised(batch), bool_masked_pos=hidden_of(method, batch)).loss
    torch.testing.assert_close(method(batch, 0)["loss"], expected, rtol=1e-5, atol=1e-6)


def replace_config(config: VideoMAEConfig, **changes) -> VideoMAEConfig:
    return VideoMAEConfig.from_dict(config.to_dict() | changes)


# schedules and groups


def test_the_learning_rate_grows_with_the_batch_and_ends_above_zero():
    """SurgVISTA: 2,048 samples a step, 40 of 201 epochs of warm-up, 1.2e-3 and 8e-4."""
    options = {"learning_rate": 1.5e-4, "final_learning_rate": 1e-4, "batch_size": 256, "accumulate": 8}
    found = made(**options).schedules(1000)
    assert [found.learning_rate(step) for step in (0, 199, 200, 600, 1000)] == pytest.approx(
        [8e-6, 1.2e-3, 1.2e-3, 1e-3, 8e-4]
    )
    assert [found.weight_decay(step) for step in (0, 999)] == [0.05, 0.05]
    assert (found.betas, found.eps, found.clip_norm, found.momentum) == ((0.9, 0.95), 1e-8, None, None)
    assert made(clip_norm=1.0).schedules(10).clip_norm == 1.0


def test_only_matrices_decay_and_each_part_is_clipped_alone():
    groups = with_teacher().parameter_groups()
    assert {group.clip for group in groups} == {"backbone", "pixel_decoder", "image_decoder"}
    assert {(group.lr_scale, group.frozen_until) for group in groups} == {(1.0, 0)}
    assert all(group.decays == (parameter.ndim > 1) for group in groups for parameter in group.parameters)


def test_operations_are_those_of_the_tokens_that_are_there():
    method = with_teacher()
    layers = {
        "encoder": method.student["backbone"].encoder.layer,
        "pixels": method.student["pixel_decoder"].blocks.decoder_layers,
        "image": method.student["image_decoder"].blocks.decoder_layers,
    }
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in layers.items()}
    expected = (
        transformer_flops(counts["encoder"], 12, num_layers=3, width=96)  # 3 of 16 places are seen
        + transformer_flops(counts["pixels"], 64, num_layers=1, width=48)
        + transformer_flops(counts["image"], 64, num_layers=1, width=48)
        + 2 * method.image_teacher.encoder.num_parameters * 64
    )
    assert method.flops_per_sample() == expected


# sizes


@pytest.mark.parametrize(
    ("crop_size", "changes", "message"),
    [
        (72, {}, "--crop_size 72: Video MAE takes multiples of 16 pixels"),
        (16, {}, "--crop_size 16: a mask ratio of 0.9 hides none of 1 x 1 places; raise one of them"),
        (32, {"mask_ratio": 0.2}, "a mask ratio of 0.2 hides none of 2 x 2 places"),
    ],
)
def test_a_size_without_whole_or_without_hidden_places_is_refused(crop_size, changes, message):
    start, _ = start_backbone(TINY, "random", crop_size=crop_size)
    with pytest.raises(UserError, match=message):
        made(start, **changes)


def test_a_teacher_with_other_patches_is_refused():
    message = "DINOv3 ViT-B has patches of 16 pixels, so that frames of 32 pixels do not show the 4 x 4 patches"
    with pytest.raises(UserError, match=message):
        with_teacher(teacher_size=32)
