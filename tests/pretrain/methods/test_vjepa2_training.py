"""Trainings with V-JEPA 2's recipe: the loss falls, cut off and resumed, by several processes, exported."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from common.base.paths import model as model_folder
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.find import choose_weights
from common.encoders.weights.load import WeightSource
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoint import read_checkpoint, whole_model_state
from pretrain.engine.distributed import Processes
from pretrain.engine.loop import Recipe, train_recipe
from pretrain.engine.reporting import read_metrics
from pretrain.engine.step import TrainingStep
from pretrain.methods.vjepa2 import VJEPA2
from tests.pretrain.distributed import two_processes
from tests.pretrain.methods.vjepa2_clips import ALONE, OPTIONS, PUBLISHED_MASKS, TINY, batch_of, batches_of, made


def train_in(folder, method: VJEPA2 | None = None, **changes) -> int:
    options = replace(OPTIONS, output=str(folder), **changes)
    batches = batches_of(ALONE, options.batch_size)
    recipe = Recipe("vjepa2", method or made(**changes), WeightSource("random"), batches, steps_per_epoch=10)
    return train_recipe(recipe, options, ALONE)


def test_the_loss_falls(tmp_path):
    train_in(tmp_path, max_steps=40, mask_mode="tube", lr_schedule="constant")
    losses = [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


class Stopped(Exception):
    """Ends a training as if it were killed."""


class Stopping(VJEPA2):
    """Ends the training at its fourth step."""

    def forward(self, batch, step):
        if step == 3:
            raise Stopped
        return super().forward(batch, step)


def test_a_training_that_was_cut_off_ends_bit_identical(tmp_path):
    with pytest.raises(Stopped):
        train_in(tmp_path / "cut", Stopping(start_backbone(TINY, "random")[0], OPTIONS, TINY))
    for name in ("cut", "whole"):
        assert train_in(tmp_path / name) == 0
    cut, whole = (read_checkpoint(tmp_path / name / "final.pt") for name in ("cut", "whole"))
    assert cut["model"].keys() == whole["model"].keys()
    assert all(torch.equal(cut["model"][name], value) for name, value in whole["model"].items())
    losses = [
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("cut", "whole")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


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
    method = made(batch_size=batch_size, **changes)
    options = replace(method.options, sharding=sharding, precision=precision, gradient_checkpointing="all")
    step = TrainingStep(method, method.schedules(10), options, processes)
    source = batches_of(processes, batch_size)(0)
    numbers = [step(index, [next(source)]) for index in range(steps)]
    return numbers, step.features(batch_of(0, 1)), whole_model_state(method)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("changes", [PUBLISHED_MASKS, {"mask_mode": "tube"}])
def test_two_processes_are_one_on_the_concatenated_batch(run, sharding, changes):
    """Sums in another order differ by rounding, which AdamW's first steps make large where a gradient is nearly 0."""
    alone = trained("none", 4, changes)
    first, second = run(trained, sharding, 2, changes)
    assert first[0] == second[0]
    for found, expected in zip(first[0], alone[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(first[1], alone[1], rtol=1e-3, atol=1e-4)
    for name, value in alone[2].items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_bf16_is_near(run, sharding):
    exact = trained("none", 4, PUBLISHED_MASKS, steps=1)
    numbers, features, state = run(trained, sharding, 2, PUBLISHED_MASKS, "bf16", 1)[0]
    assert numbers[0]["loss"] == pytest.approx(exact[0][0]["loss"], rel=0.01)
    assert F.cosine_similarity(features, exact[1]).min() > 0.999
    assert {value.dtype for value in state.values()} == {torch.float32}
