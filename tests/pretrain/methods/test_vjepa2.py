"""V-JEPA 2's recipe: masks, the loss by hand, gradients, features, schedules, options."""

import math
from dataclasses import replace

import pytest
import torch

from common.base.runtime import UserError
from pretrain.backbones import start_backbone
from pretrain.engine.reporting import transformer_flops
from pretrain.methods.vjepa2 import VJEPA2, encode, predict
from pretrain.objectives.masks_video import TokenMasks
from tests.pretrain.methods.vjepa2_clips import OPTIONS, PUBLISHED_MASKS, TINY, batch_of, made

# masks


@pytest.mark.parametrize("changes", [{}, PUBLISHED_MASKS, {"full_complement": True}, {"mask_mode": "tube"}])
def test_context_and_targets_are_apart(changes):
    for step in range(3):
        for name, mask in made(**changes).masks(batch_of(0, 1, 2), step).items():
            for context, target in zip(*mask, strict=True):
                both = torch.cat([context, target])
                assert len(context) > 0
                assert len(target) > 0
                assert len(both.unique()) == len(both) <= 64
                if name == "tube" or "full_complement" in changes:
                    assert len(both) == 64


def large(**changes) -> VJEPA2:
    """A tiny network for 16 frames of 256 x 256 pixels: 8 x 16 x 16 = 2048 tokens."""
    backbone = start_backbone(TINY, "random", crop_size=256)[0]
    return VJEPA2(backbone, replace(OPTIONS, clip_len=16, **changes), TINY)


def counts(method: VJEPA2) -> dict[str, tuple[int, int]]:
    batch = {"clip": torch.zeros(4, 16, 3, 1, 1), "number": torch.arange(4)}
    return {name: tuple(part.shape[1] for part in mask) for name, mask in method.masks(batch, 0).items()}


def test_nine_tenths_are_hidden_to_the_token():
    assert counts(large(mask_mode="tube")) == {"tube": (8 * 26, 8 * 230)}  # int(0.9 * 256) places a tubelet
    found = counts(large(full_complement=True))
    assert found["short"] == (204, 2048 - 204)
    assert found["long"][0] <= 204
    assert sum(found["long"]) == 2048
    found = counts(large())
    assert found["short"][0] == 204
    assert found["short"][1] < 2048 - 204


def test_without_a_ratio_the_blocks_alone_hide():
    context, target = counts(large(mask_ratio=0.0))["short"]
    assert context > 300
    assert context + target <= 2048


def test_masks_depend_on_sample_and_step_alone():
    method = made(mask_mode="tube")
    first, second = method.masks(batch_of(5, 6), 3)["tube"].target
    assert torch.equal(method.masks(batch_of(6, 9), 3)["tube"].target[0], second)
    assert not torch.equal(first, second)
    assert not torch.equal(method.masks(batch_of(5), 4)["tube"].target[0], first)


# loss


def by_hand(method: VJEPA2, batch: dict, step: int, exponent: float = 1.0) -> torch.Tensor:
    """The loss sample by sample and family by family, out of the stock networks where these can be used."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    clips = (batch["clip"] / 255 - mean) / std
    student, teacher, predictor = method.student["backbone"], method.teacher["backbone"], method.student["predictor"]
    families = []
    for mask in method.masks(batch, step).values():
        differences = []
        for clip, context, target in zip(clips, *mask, strict=True):
            states = teacher(clip[None]).last_hidden_state[0]
            wanted = (states - states.mean(1, keepdim=True)) / (states.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            seen = encode(student, student.embeddings(clip[None]), context[None])
            found = predict(predictor, seen, TokenMasks(context[None], target[None]))[0]
            differences.append((found - wanted[target]).abs() ** exponent / exponent)
        families.append(torch.stack(differences).mean())
    return sum(families) / len(families)


@pytest.mark.parametrize("changes", [{}, PUBLISHED_MASKS, {"mask_mode": "tube"}, {"loss_exponent": 2.0}])
def test_the_loss_is_the_one_assembled_by_hand(changes):
    method, batch = made(**changes), batch_of(0, 1, 2)
    found = method(batch, 7)
    expected = by_hand(method, batch, 7, changes.get("loss_exponent", 1.0))
    torch.testing.assert_close(found["loss"], expected, rtol=1e-4, atol=1e-5)


def test_shares_of_tokens_are_reported():
    numbers = made(mask_mode="tube")(batch_of(0, 1), 0)
    assert set(numbers) == {"loss", "seen/tube", "predicted/tube"}
    assert numbers["seen/tube"] == pytest.approx(2 / 16)  # int(0.9 * 16) = 14 places are hidden
    assert numbers["predicted/tube"] == pytest.approx(14 / 16)
    assert set(made()(batch_of(0), 0)) == {"loss", "seen/short", "seen/long", "predicted/short", "predicted/long"}


def test_scale_and_shift_of_the_teacher_s_features_do_not_matter():
    method, batch = made(), batch_of(0, 1)
    before = method(batch, 0)["loss"]
    norm = method.teacher["backbone"].layernorm
    with torch.no_grad():
        norm.weight.mul_(3)
        norm.bias.mul_(3).add_(5)
    torch.testing.assert_close(method(batch, 0)["loss"], before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        norm.weight[:24] = 0.0
    assert not torch.allclose(method(batch, 0)["loss"], before, rtol=1e-2)


def test_all_of_the_student_has_gradients_and_the_teacher_none():
    method = made()
    method(batch_of(0, 1), 0)["loss"].backward()
    assert all(parameter.grad is not None for parameter in method.student.parameters())
    without = {name for name, parameter in method.student.named_parameters() if not parameter.grad.any()}
    assert all(name.endswith("key.bias") or "predictor.embeddings.predictor_embeddings" in name for name in without)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in method.teacher.parameters())
    tokens = method.student["predictor"].embeddings.mask_tokens.grad
    assert [bool(token.any()) for token in tokens] == [True] + [False] * 9


def test_features_are_those_of_the_exported_encoder():
    batch = batch_of(0, 1)
    for choice, role in (("ema", "teacher"), ("online", "student")):
        method = made(export=choice)
        with torch.no_grad():
            for parameter in method.teacher.parameters():
                parameter.mul_(1.1)
        exported = method.eval().exported()
        assert exported.encoder is getattr(method, role)["backbone"]
        assert exported.predictor is method.student["predictor"]
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        expected = exported((batch["clip"] / 255 - mean) / std, skip_predictor=True).last_hidden_state.mean(1)
        torch.testing.assert_close(method.features(batch), expected, rtol=1e-4, atol=1e-5)


# schedules


def test_the_learning_rate_rises_and_falls_in_straight_lines():
    rate = made(learning_rate=1e-4, start_learning_rate=2e-5, final_learning_rate=1e-6, warmup=0.1).schedules(100)
    found = [rate.learning_rate(step) for step in (0, 5, 10, 55, 100)]
    assert found == pytest.approx([2e-5, 6e-5, 1e-4, 5.05e-5, 1e-6])


def test_other_schedules():
    common = {"learning_rate": 1e-4, "final_learning_rate": 0.0, "warmup": 0.0}
    cosine = made(lr_schedule="cosine", **common).schedules(100).learning_rate
    assert [cosine(0), cosine(100)] == pytest.approx([1e-4, 1e-4 * (1 + math.cos(0.8 * math.pi)) / 2])
    constant = made(lr_schedule="constant", **common).schedules(100).learning_rate
    assert [constant(0), constant(99)] == [1e-4, 1e-4]


def test_average_decay_and_clipping():
    found = made(momentum=0.99925).schedules(100)
    assert [found.momentum(step) for step in (0, 99)] == [0.99925, 0.99925]
    assert [found.weight_decay(step) for step in (0, 99)] == [0.04, 0.04]
    assert (found.clip_norm, found.betas, found.eps) == (3.0, (0.9, 0.999), 1e-8)
    found = made(momentum=0.9, final_momentum=1.0, clip_norm=0.0).schedules(100)
    assert [found.momentum(step) for step in (0, 50, 100)] == pytest.approx([0.9, 0.94, 0.98])
    assert found.clip_norm is None


def test_only_matrices_decay_and_all_learn_at_one_rate():
    groups = made().parameter_groups()
    assert {group.lr_scale for group in groups} == {1.0}
    assert {group.clip for group in groups} == {"backbone", "predictor"}
    assert all(group.decays == (parameter.ndim > 1) for group in groups for parameter in group.parameters)


# operations


def test_operations_are_those_of_the_tokens_that_are_there():
    method = made(mask_mode="tube")
    encoder, predictor = (
        sum(parameter.numel() for parameter in method.student[role].layer.parameters())
        for role in ("backbone", "predictor")
    )
    expected = (
        transformer_flops(encoder, 64, num_layers=2, width=48, backward=False)
        + transformer_flops(encoder, 8, num_layers=2, width=48)
        + transformer_flops(predictor, 64, num_layers=2, width=24)
    )
    assert method.flops_per_sample() == expected
    assert made(mask_ratio=0.9).flops_per_sample() < made(mask_ratio=0.0).flops_per_sample()


# options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_len": 15}, "clip_len must be an even number, as frames are taken in pairs, found 15"),
        ({"clip_len": 0}, "clip_len must be an even number"),
        ({"fps": 0.0}, "fps must be greater than 0, found 0"),
        ({"loss_exponent": 0.0}, "loss_exponent must be greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative, found -1"),
        ({"momentum": 1.5}, "momentum must lie between 0 and 1, found 1.5"),
        ({"final_momentum": -0.1}, "final_momentum must lie between 0 and 1"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, found 1.0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be at least 0 and below 1, found 1.0"),
        ({"mask_mode": "tube", "mask_ratio": 0.0}, "--mask_mode tube hides a share of the places"),
        ({"epochs": 0}, "epochs must be greater than 0"),
    ],
)
def test_values_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(OPTIONS, **changes)
