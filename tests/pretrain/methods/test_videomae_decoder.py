"""Distillation of an image teacher: the loss by hand, decoders of their published sizes, the teacher left alone."""

from dataclasses import replace

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from pretrain.engine.step import TrainingStep
from pretrain.methods.videomae import image_decoder, pixel_decoder
from tests.pretrain.methods.videomae_clips import ALONE, MEAN, STD, batch_of, hidden_of, network, silent, with_teacher


@pytest.mark.parametrize("normalise", [False, True])
def test_the_image_features_are_those_of_the_hidden_tokens_by_hand(normalise):
    """A decoder that predicts one vector everywhere, against DINOv3's patch tokens, frame by frame."""
    method, batch = silent(with_teacher(normalise_teacher=normalise, distillation_weight=0.5)), batch_of(0, 1)
    bias = torch.linspace(-1, 1, 48)
    with torch.no_grad():
        method.student["image_decoder"].blocks.head.bias.copy_(bias)
    dinov3 = method.image_teacher.encoder.network.backbone
    costs = []
    for hidden, frames in zip(hidden_of(method, batch).view(2, 4, 16), batch["teacher_frames"], strict=True):
        for places, frame in zip(hidden, frames, strict=True):
            features = dinov3((frame[None] / 255 - MEAN) / STD).last_hidden_state[0, 5:]
            if normalise:
                deviation = (features.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
                features = (features - features.mean(dim=1, keepdim=True)) / deviation
            distance = (features[places] - bias).abs()
            costs.append(torch.where(distance < 1, distance**2 / 2, distance - 0.5))
    found = method(batch, 0)
    torch.testing.assert_close(found["loss/image_features"], torch.cat(costs).mean(), rtol=1e-4, atol=1e-6)
    expected = found["loss/pixels"] + 0.5 * found["loss/image_features"]
    torch.testing.assert_close(found["loss"].detach(), expected)


def test_published_weights_of_the_two_losses():
    method = with_teacher()
    found = method(batch_of(0, 1), 0)
    expected = 1.0 * found["loss/pixels"] + 0.05 * found["loss/image_features"]
    torch.testing.assert_close(found["loss"].detach(), expected)
    assert not found["loss/image_features"].requires_grad


def test_the_decoders_have_their_published_sizes():
    config = VideoMAEConfig(image_size=32, num_frames=2)  # of a small input, whose table of positions is soon made
    with torch.device("meta"):
        start = VideoMAEForPreTraining(config)
        decoders = [pixel_decoder(start), image_decoder(start, 1024, None)]
    assert [len(each.blocks.decoder_layers) for each in decoders] == [4, 2]
    assert [tuple(each.mask_token.shape) for each in decoders] == [(1, 1, 384)] * 2
    assert [each.blocks.head.out_features for each in decoders] == [2 * 16 * 16 * 3, 1024]
    assert {layer.attention.attention.num_attention_heads for layer in decoders[1].blocks.decoder_layers} == {6}


def test_the_image_decoder_starts_from_the_seed_alone():
    one, same, other = (with_teacher(start=network(seed), seed=own) for seed, own in ((1, 3), (2, 3), (1, 4)))
    states = [method.student["image_decoder"].state_dict() for method in (one, same, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["mask_token"], states[2]["mask_token"])
    own = one.student["pixel_decoder"].state_dict()
    assert not torch.equal(own["embed.weight"], states[0]["embed.weight"])


def test_the_image_teacher_is_left_as_it_is():
    method = with_teacher()
    teacher = method.image_teacher.encoder.network
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    options = replace(method.options, sharding="none", precision="fp32", gradient_checkpointing="none")
    step = TrainingStep(method, method.schedules(10), options, ALONE)
    for number in range(2):
        step(number, [batch_of(0, 1)])
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert not {id(value) for value in method.state_dict(keep_vars=True).values()} & set(map(id, teacher.parameters()))
    assert not method.teacher
