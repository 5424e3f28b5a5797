"""V-JEPA 2: masks, the loss by hand, encoder and predictor against the stock networks, schedules, and trainings."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Layer

from common.base.paths import model as model_folder
from common.base.runtime import UserError, generator
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.find import choose_weights
from common.encoders.weights.load import WeightSource
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoints.checkpoint import whole_model_state
from pretrain.engine.distributed import Processes
from pretrain.engine.loop import Recipe, train_recipe
from pretrain.engine.reporting import read_metrics, transformer_flops
from pretrain.engine.step import TrainingStep
from pretrain.methods.several_sizes import take_several
from pretrain.methods.vjepa2 import VJEPA2, embed, encode, predict_states
from pretrain.objectives.masks_video import TokenMasks
from tests.pretrain.cut_off import Stopped, Stopping, assert_same_model_and_losses
from tests.pretrain.methods.vjepa2_clips import ALONE, OPTIONS, PUBLISHED_MASKS, TINY, batch_of, batches_of, made

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
            found = predicted(predictor, seen, TokenMasks(context[None], target[None]))[0]
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
    """The second is planned for 125 steps, unless it is to reach its end."""
    given = {"learning_rate": 1e-4, "start_learning_rate": 2e-5, "final_learning_rate": 1e-6}
    rate = made(**given, warmup=0.05).schedules(100).learning_rate
    found = [rate(step) for step in (0, 5, 65, 100)]
    assert found == pytest.approx([2e-5, 1e-4, 5.05e-5, 1e-4 - 95 / 120 * 9.9e-5])
    rate = made(**given, warmup=0.1, lr_schedule="linear").schedules(100).learning_rate
    assert [rate(step) for step in (0, 5, 10, 55, 100)] == pytest.approx([2e-5, 6e-5, 1e-4, 5.05e-5, 1e-6])


def test_the_cooldown_is_the_published_one():
    """From 5.25e-4 towards 1e-6 over 1.25 times the training: Meta's ends at 1.06e-4."""
    given = {"learning_rate": 5.25e-4, "final_learning_rate": 1e-6, "warmup": 0.0}
    rate = made(**given).schedules(1000).learning_rate
    assert (rate(0), rate(1000)) == (5.25e-4, pytest.approx(1.06e-4, rel=5e-3))


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


def predicted(predictor, context, mask, **options):
    """The states that are predicted for one mask."""
    take_several(predictor, (VJEPA2Layer,))
    return predict_states(predictor, [context], [mask], **options)[0]


def network(seed: int = 1) -> VJEPA2Model:
    """A tiny network whose mask tokens and norms are not those of the start, so that every one can be told apart."""
    found, _ = start_backbone(TINY, "random", seed=seed)
    with torch.no_grad():
        for number, parameter in enumerate(found.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("network", seed, number)))
    return found.eval()


@pytest.fixture
def clips() -> torch.Tensor:
    """Normalised clips `(2, 8, 3, 64, 64)`: 4 x 4 x 4 tokens."""
    return torch.randn(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> TokenMasks:
    """6 tokens of context and 20 targets of 64, others of either sample, in no order."""
    orders = [torch.randperm(64, generator=generator("order", row)) for row in range(2)]
    return TokenMasks(torch.stack([o[:6] for o in orders]), torch.stack([o[6:26] for o in orders]))


# encoder


def test_all_places_give_the_stock_output(clips):
    model = network()
    expected = model(clips, skip_predictor=True).last_hidden_state
    tokens = embed(model.encoder, clips)
    torch.testing.assert_close(encode(model.encoder, tokens), expected, rtol=1e-5, atol=1e-5)
    places = torch.arange(64).expand(2, -1)
    torch.testing.assert_close(encode(model.encoder, tokens, places), expected, rtol=1e-5, atol=1e-5)


def with_other_hidden_pixels(clips: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The clips with noise wherever no context token looks."""
    seen = torch.zeros(len(clips), 64).scatter(1, context, 1.0).view(-1, 1, 4, 4, 4)
    seen = F.interpolate(seen, scale_factor=(2, 16, 16)).transpose(1, 2)
    return torch.where(seen.bool(), clips, torch.randn(clips.shape, generator=torch.Generator().manual_seed(1)))


def test_hidden_pixels_do_not_reach_the_context(clips, masks):
    model, others = network(), with_other_hidden_pixels(clips, masks.context)
    assert (clips != others).float().mean() > 0.8
    one, other = (encode(model.encoder, embed(model.encoder, each), masks.context) for each in (clips, others))
    assert one.shape == (2, 6, 48)
    assert torch.equal(one, other)
    stock = [model(each, context_mask=[masks.context], target_mask=[masks.target]) for each in (clips, others)]
    assert not torch.allclose(*(each.masked_hidden_state for each in stock), atol=0.1)


def test_places_give_the_positions(clips, masks):
    """The order in which tokens are kept does not matter; where they were does."""
    encoder = network().encoder
    tokens = embed(encoder, clips)
    found = encode(encoder, tokens, masks.context)
    torch.testing.assert_close(encode(encoder, tokens, masks.context.flip(1)).flip(1), found, rtol=1e-5, atol=1e-5)
    elsewhere = (masks.context + 4) % 64  # the same tokens a row below
    moved = torch.zeros_like(tokens).scatter(1, elsewhere[..., None].expand(-1, -1, 48), gather(tokens, masks.context))
    assert not torch.allclose(encode(encoder, moved, elsewhere), found, atol=1e-2)


def gather(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.stack([own[where] for own, where in zip(tokens, places, strict=True)])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 3, 32, 32), r"clips of \(32, 32\) pixels .* those of 64 squared"),
        ((1, 8, 3, 64, 48), r"clips of \(64, 48\) pixels"),
        ((1, 7, 3, 64, 64), "clips of 7 frames, which do not divide by 2"),
    ],
)
def test_clips_that_the_network_would_misread_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        embed(network().encoder, torch.zeros(shape))


# predictor


def test_both_ways_to_drive_the_predictor_agree(clips, masks):
    """transformers' own takes the context out of a whole clip's states, and always the mask token 1."""
    model = network()
    context = encode(model.encoder, embed(model.encoder, clips), masks.context)
    whole = torch.zeros(2, 64, 48).scatter(1, masks.context[..., None].expand(-1, -1, 48), context)
    expected = model.predictor(whole, [masks.context], [masks.target]).last_hidden_state
    found = predicted(model.predictor, context, masks, mask_token=1)
    assert found.shape == (2, 20, 48)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(predicted(model.predictor, context, masks, mask_token=0), expected, atol=1e-2)


def test_predictions_come_in_the_order_of_targets(clips, masks):
    model = network()
    context = encode(model.encoder, embed(model.encoder, clips), masks.context)
    found = predicted(model.predictor, context, masks)
    turned = predicted(model.predictor, context, TokenMasks(masks.context, masks.target.flip(1)))
    torch.testing.assert_close(turned.flip(1), found, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(turned, found, atol=1e-3)


def test_the_trained_mask_token_is_found(caplog):
    caplog.set_level("INFO")
    backbone = start_backbone(TINY, "random")[0]
    assert VJEPA2(backbone, OPTIONS, TINY).mask_token == 0
    with torch.no_grad():
        backbone.predictor.embeddings.mask_tokens[3] = 0.5
    assert VJEPA2(backbone, OPTIONS, TINY).mask_token == 3
    assert "mask token 3 of the predictor is trained; norms at the start: 0 0 0 2.45 0 0" in caplog.text
    assert VJEPA2(backbone, replace(OPTIONS, mask_token=7), TINY).mask_token == 7
    with pytest.raises(UserError, match="--mask_token 10: the predictor has 10 mask tokens, from 0 on"):
        VJEPA2(backbone, replace(OPTIONS, mask_token=10), TINY)


# trainings


def train_in(folder, method: VJEPA2 | None = None, **changes) -> int:
    options = replace(OPTIONS, output=str(folder), **changes)
    batches = batches_of(ALONE, options.batch_size)
    recipe = Recipe("vjepa2", method or made(**changes), WeightSource("random"), batches, steps_per_epoch=10)
    return train_recipe(recipe, options, ALONE)


@pytest.mark.slow
def test_the_loss_falls(tmp_path):
    train_in(tmp_path, max_steps=40, mask_mode="tube", lr_schedule="constant")
    losses = [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


class StoppingVJEPA2(Stopping, VJEPA2):
    """Ends the training at its fourth step."""


def test_a_training_that_was_cut_off_ends_bit_identical(tmp_path):
    with pytest.raises(Stopped):
        train_in(tmp_path / "cut", StoppingVJEPA2(start_backbone(TINY, "random")[0], OPTIONS, TINY))
    for name in ("cut", "whole"):
        assert train_in(tmp_path / name) == 0
    assert_same_model_and_losses(tmp_path / "cut", tmp_path / "whole", num_steps=6)


def test_the_study_s_encoder_reads_the_export(workspace, tmp_path):
    """From the folder of the fine-tuned one, with the average's features; a later training finds a predictor."""
    method = made()
    train_in(tmp_path, method)
    config = read_encoder_config(model_folder("V-JEPA2-ViT-L-CataractFT").config)
    config = replace(
        config, architecture="tiny", feature_dim=48, clip_len=8, ssl_checkpoint=str(tmp_path / "final.pt"),
        preprocessing=replace(config.preprocessing, size=64),
    )  # fmt: skip
    encoder = build_encoder(config)
    assert choose_weights(config).path == tmp_path / "export"
    seen = []
    encoder.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    batch = batch_of(0, 1)
    found = encoder.encode(batch["clip"])
    with torch.no_grad():
        teacher, student = (
            part["backbone"](seen[0]).last_hidden_state.mean(1) for part in (method.teacher, method.student)
        )
    torch.testing.assert_close(found, teacher, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, student, atol=1e-3)
    again, source = start_backbone(TINY, str(tmp_path / "export"))
    assert torch.equal(again.predictor.proj.weight, method.student["predictor"].proj.weight)
    assert not source.is_random


# several processes


def here() -> Processes:
    """This process, alone or one of two."""
    return Processes(dist.get_rank(), 2, torch.device("cpu")) if dist.is_initialized() else ALONE


def trained(sharding: str, micro_batches: int, changes: dict, precision: str = "fp32", steps: int = 2):
    """Numbers of each step of micro-batches of two clips, features, and the whole state afterwards."""
    processes = here()
    method = made(batch_size=2, **changes)
    options = replace(method.options, sharding=sharding, precision=precision, gradient_checkpointing="all")
    step = TrainingStep(method, method.schedules(10), options, processes)
    source = batches_of(processes, 2)(0)
    numbers = [step(index, [next(source) for _ in range(micro_batches)]) for index in range(steps)]
    return numbers, step.features(batch_of(0, 1)), whole_model_state(method)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("changes", [PUBLISHED_MASKS, {"mask_mode": "tube"}])
def test_two_processes_train_on_the_mean_of_their_own_losses(two, sharding, changes):
    """As one process does with their batches one after the other, each with masks cut to itself.

    Sums in another order differ by rounding, which AdamW's first steps make large where a gradient is nearly 0.
    """
    alone = trained("none", 2, changes)
    first, second = two(trained, sharding, 1, changes)
    own = [made(**changes)(batch_of(*numbers), 0)["loss"].item() for numbers in ((0, 1), (2, 3))]
    assert first[0][0]["loss"] == pytest.approx(sum(own) / 2, rel=1e-5)
    assert first[0] == second[0]
    for found, expected in zip(first[0], alone[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(first[1], alone[1], rtol=1e-3, atol=1e-4)
    for name, value in alone[2].items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_bf16_is_near(two, sharding):
    exact = trained("none", 2, PUBLISHED_MASKS, steps=1)
    numbers, features, state = two(trained, sharding, 1, PUBLISHED_MASKS, "bf16", 1)[0]
    assert numbers[0]["loss"] == pytest.approx(exact[0][0]["loss"], rel=0.01)
    assert F.cosine_similarity(features, exact[1]).min() > 0.995
    assert {value.dtype for value in state.values()} == {torch.float32}
