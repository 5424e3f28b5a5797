"""Video MAE: transformers' own loss, nothing hidden seen, an image teacher beside it, and trainings."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from common.base.paths import model as model_folder
from common.base.runtime import UserError, generator
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.families.videomae import space_time_positions
from common.encoders.weights.load import WeightSource
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoints.checkpoint import whole_model_state
from pretrain.engine.distributed import Processes
from pretrain.engine.loop import Recipe, train_recipe
from pretrain.engine.reporting import transformer_flops
from pretrain.engine.step import TrainingStep
from pretrain.methods.videomae import VideoMAE, cut, image_decoder, pixel_decoder
from tests.pretrain.cut_off import Stopped, Stopping, assert_same_model_and_losses
from tests.pretrain.methods.videomae_clips import (
    ALONE,
    MEAN,
    OPTIONS,
    STD,
    SURGVISTA,
    TINY,
    WITH_TEACHER,
    batch_of,
    batches_of,
    hidden_of,
    image_teacher,
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


# image teacher


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


# trainings


def train_in(folder, method: VideoMAE | None = None, **changes) -> int:
    options = replace(OPTIONS, output=str(folder), **changes)
    batches = batches_of(ALONE, options.batch_size)
    recipe = Recipe("videomae", method or made(**changes), WeightSource("random"), batches, steps_per_epoch=10)
    return train_recipe(recipe, options, ALONE)


def ramps(step: int) -> dict[str, torch.Tensor]:
    """Four clips, each of one patch over and over: rising to the right, to the left, downwards, upwards."""
    rise = torch.arange(0, 256, 16, dtype=torch.uint8).expand(16, 16)
    patches = (rise, rise.flip(1), rise.T, rise.T.flip(0))
    clip = torch.stack([patch.repeat(4, 4).expand(TINY.clip_len, 3, 64, 64) for patch in patches])
    return {"clip": clip, "teacher_frames": clip[:, ::2], "number": torch.arange(4) + 4 * step}


def test_both_losses_fall_below_what_could_be_guessed():
    """The four patches' mean is nothing: who does not look at the visible tokens pays 511 / 512 for the pixels."""
    method = with_teacher(learning_rate=0.3, final_learning_rate=0.3, distillation_weight=1.0)
    options = replace(method.options, sharding="none", precision="fp32", gradient_checkpointing="none")
    step = TrainingStep(method, method.schedules(40), options, ALONE)
    numbers = [step(number, [ramps(number)]) for number in range(40)]
    assert numbers[0]["loss/pixels"] > 1.0
    assert numbers[-1]["loss/pixels"] < 0.3
    assert numbers[-1]["loss/image_features"] < 0.3 * numbers[0]["loss/image_features"]


class StoppingVideoMAE(Stopping, VideoMAE):
    """Ends the training at its fourth step."""


def test_a_training_that_was_cut_off_ends_bit_identical(tmp_path):
    """Dropped branches included."""
    changes = WITH_TEACHER | {"drop_path": 0.3}
    start, _ = start_backbone(TINY, "random")
    with pytest.raises(Stopped):
        train_in(tmp_path / "cut", StoppingVideoMAE(start, made(**changes).options, TINY, image_teacher()), **changes)
    for name in ("cut", "whole"):
        assert train_in(tmp_path / name, **changes) == 0
    assert_same_model_and_losses(tmp_path / "cut", tmp_path / "whole", num_steps=6)


# export


def test_the_study_s_encoder_reads_the_export(workspace, tmp_path):
    method = made(network(), **WITH_TEACHER)
    train_in(tmp_path, method, **WITH_TEACHER)
    config = read_encoder_config(model_folder("SurgRec-MAE").config)
    config = replace(
        config, architecture="tiny", feature_dim=96, clip_len=8,
        preprocessing=replace(config.preprocessing, size=64),
    )  # fmt: skip
    encoder = build_encoder(config, str(tmp_path / "export"))
    batch = batch_of(0, 1)
    with torch.no_grad():
        expected = method.eval().features(batch)
    torch.testing.assert_close(encoder.encode(batch["clip"]), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made(network()).eval().features(batch), expected, atol=1e-3)


def test_surgvista_s_positions_survive_the_export(workspace, tmp_path):
    """In SurgVISTA's folder and, as the export says them, in that of Video MAE; another training has them too."""
    method = made(network(model=SURGVISTA), model=SURGVISTA)
    train_in(tmp_path, method, model=SURGVISTA.name)
    batch = batch_of(0, 1)
    with torch.no_grad():
        expected = method.eval().features(batch)
    for folder, architecture in (("SurgVISTA-ViT-B", "tiny-surgvista"), ("SurgRec-MAE", "tiny")):
        config = read_encoder_config(model_folder(folder).config)
        config = replace(
            config, architecture=architecture, feature_dim=96, clip_len=8,
            preprocessing=replace(config.preprocessing, size=64),
        )  # fmt: skip
        found = build_encoder(config, str(tmp_path / "export")).encode(batch["clip"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    again, _ = start_backbone(SURGVISTA, str(tmp_path / "export"), seed=7)
    assert torch.equal(made(again, model=SURGVISTA)(batch, 0)["loss"], method.train()(batch, 0)["loss"])
    flat = made(network(), model=TINY)
    flat.student.load_state_dict(method.student.state_dict())
    assert F.cosine_similarity(flat.eval().features(batch), expected).max() < 0.999


def test_decoders_of_surgvista_have_positions_in_space_and_time():
    """`pos_embed_vid` and `pos_embed_img` of `SurgVISTA:pretrain_SurgVISTA/modeling_surgery_student.py`."""
    method = made(model=SURGVISTA, **WITH_TEACHER)
    for decoder in method.decoders:
        torch.testing.assert_close(decoder.positions, space_time_positions(48, 4, 4)[0])
        assert not torch.allclose(decoder.positions, made().decoders[0].positions, atol=0.1)


def test_a_later_training_starts_from_the_export_with_its_decoder(tmp_path, caplog):
    method = made(network())
    train_in(tmp_path, method)
    again, _ = start_backbone(TINY, str(tmp_path / "export"), seed=7)
    batch = batch_of(0, 1)
    assert torch.equal(made(again)(batch, 0)["loss"], method(batch, 0)["loss"])
    assert "random values" not in caplog.text


# several processes


def here() -> Processes:
    """This process, alone or one of two."""
    return Processes(dist.get_rank(), 2, torch.device("cpu")) if dist.is_initialized() else ALONE


def trained(sharding: str, batch_size: int, changes: dict, precision: str = "fp32", steps: int = 2):
    """Numbers of each step, features, and the whole state afterwards."""
    processes = here()
    method = made(network(), batch_size=batch_size, **changes)
    options = replace(method.options, sharding=sharding, precision=precision, gradient_checkpointing="all")
    step = TrainingStep(method, method.schedules(10), options, processes)
    source = batches_of(processes, batch_size)(0)
    numbers = [step(index, [next(source)]) for index in range(steps)]
    return numbers, step.features(batch_of(0, 1)), whole_model_state(method)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("changes", [{}, WITH_TEACHER])
def test_two_processes_are_one_on_the_concatenated_batch(two, sharding, changes):
    """The learning rate too, which follows the samples of all processes."""
    alone = trained("none", 4, changes)
    first, second = two(trained, sharding, 2, changes)
    assert first[0] == second[0]
    for found, expected in zip(first[0], alone[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(first[1], alone[1], rtol=1e-3, atol=1e-4)
    assert first[2].keys() == alone[2].keys()
    for name, value in alone[2].items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_bf16_is_near(two, sharding):
    exact = trained("none", 4, WITH_TEACHER, steps=1)
    numbers, features, state = two(trained, sharding, 2, WITH_TEACHER, "bf16", 1)[0]
    for name in ("loss/pixels", "loss/image_features"):
        assert numbers[0][name] == pytest.approx(exact[0][0][name], rel=0.01)
    assert F.cosine_similarity(features, exact[1]).min() > 0.999
    assert {value.dtype for value in state.values()} == {torch.float32}
