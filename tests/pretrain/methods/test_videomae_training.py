"""Trainings of Video MAE: the loss falls, resuming, the export, several processes."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from common.base.paths import model as model_folder
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.load import WeightSource
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoint import read_checkpoint, whole_model_state
from pretrain.engine.distributed import Processes
from pretrain.engine.loop import Recipe, train_recipe
from pretrain.engine.reporting import read_metrics
from pretrain.engine.step import TrainingStep
from pretrain.methods.videomae import VideoMAE
from tests.pretrain.distributed import two_processes
from tests.pretrain.methods.videomae_clips import (
    ALONE,
    OPTIONS,
    TINY,
    WITH_TEACHER,
    batch_of,
    batches_of,
    image_teacher,
    made,
    network,
    with_teacher,
)


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


class Stopped(Exception):
    """Ends a training as if it were killed."""


class Stopping(VideoMAE):
    """Ends the training at its fourth step."""

    def forward(self, batch, step):
        if step == 3:
            raise Stopped
        return super().forward(batch, step)


def test_a_training_that_was_cut_off_ends_bit_identical(tmp_path):
    """Dropped branches included."""
    changes = WITH_TEACHER | {"drop_path": 0.3}
    start, _ = start_backbone(TINY, "random")
    with pytest.raises(Stopped):
        train_in(tmp_path / "cut", Stopping(start, replace(OPTIONS, **changes), TINY, image_teacher()), **changes)
    for name in ("cut", "whole"):
        assert train_in(tmp_path / name, **changes) == 0
    cut_off, whole = (read_checkpoint(tmp_path / name / "final.pt") for name in ("cut", "whole"))
    assert cut_off["model"].keys() == whole["model"].keys()
    assert all(torch.equal(cut_off["model"][name], value) for name, value in whole["model"].items())
    losses = [
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("cut", "whole")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


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


def test_a_later_training_starts_from_the_export_with_its_decoder(tmp_path, caplog):
    method = made(network())
    train_in(tmp_path, method)
    again, _ = start_backbone(TINY, str(tmp_path / "export"), seed=7)
    batch = batch_of(0, 1)
    assert torch.equal(made(again)(batch, 0)["loss"], method(batch, 0)["loss"])
    assert "random values" not in caplog.text


# several processes


@pytest.fixture(scope="module")
def run():
    with two_processes() as run:
        yield run


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
def test_two_processes_are_one_on_the_concatenated_batch(run, sharding, changes):
    """The learning rate too, which follows the samples of all processes."""
    alone = trained("none", 4, changes)
    first, second = run(trained, sharding, 2, changes)
    assert first[0] == second[0]
    for found, expected in zip(first[0], alone[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(first[1], alone[1], rtol=1e-3, atol=1e-4)
    assert first[2].keys() == alone[2].keys()
    for name, value in alone[2].items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_bf16_is_near(run, sharding):
    exact = trained("none", 4, WITH_TEACHER, steps=1)
    numbers, features, state = run(trained, sharding, 2, WITH_TEACHER, "bf16", 1)[0]
    for name in ("loss/pixels", "loss/image_features"):
        assert numbers[0][name] == pytest.approx(exact[0][0][name], rel=0.01)
    assert F.cosine_similarity(features, exact[1]).min() > 0.999
    assert {value.dtype for value in state.values()} == {torch.float32}
