"""What is said before a training starts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from common.encoders.weights.source import WeightSource
from pretrain.engine.distributed import Processes
from pretrain.ssl_config import TrainingOptions, find_model
from pretrain.ssl_pretrain import TrainingPlan
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.video_index import VideoEntry

MODEL = find_model("dinov3-tiny")
CORPUS = Corpus("eyes", (VideoEntry("/a.mp4", "a", 7200.0, 25.0, None, 10, "print"),) * 2)


@pytest.fixture
def plan() -> TrainingPlan:
    method = nn.ModuleDict({"student": nn.Linear(1000, 1000), "teacher": nn.Linear(1000, 1000).requires_grad_(False)})
    options = TrainingOptions(model="dinov3-tiny", epochs=3, batch_size=4, accumulate=2, output="/out", sharding="ddp")
    processes = Processes(0, 8, torch.device("cpu"))
    return TrainingPlan(
        options, MODEL, processes, method=method, start=WeightSource("random"), corpora=[CORPUS], shares={"eyes": 1.0},
        steps_per_epoch=1000,
    )  # fmt: skip


def test_every_subject_has_its_numbers(plan):
    assert plan.lines() == [
        ("start", "random (untrained)"),
        ("corpus", "eyes: 2 videos, 4.0 h, 100% of the samples"),
        ("training", "3,000 steps (3 epochs of 1,000) of 64 samples (4 x 2 micro-batches x 8 processes)"),
        ("parameters", "1 M trained, 1 M averaged or frozen"),
        ("computing", "cpu, processes 8, auto, sharding ddp, recomputed blocks auto"),
        ("memory", "0.0 GB a process for weights, gradients and averages; activations come on top"),
        ("output", "/out"),
    ]


def test_memory_is_that_of_fp32_values_gradients_and_two_moments(plan):
    values = 1000 * 1000 + 1000
    assert plan.state_bytes() == 20 * values
    sharded = replace(plan, options=replace(plan.options, sharding="fsdp"))
    assert sharded.state_bytes() == 20 * values / 8


def test_the_7b_network_s_weights_gradients_moments_and_average_are_134_gigabytes(plan):
    with torch.device("meta"):
        network = nn.Linear(6716, 1_000_000, bias=False)
        method = nn.ModuleDict({"student": network, "teacher": nn.Linear(6716, 1_000_000, bias=False)})
        method["teacher"].requires_grad_(False)
    assert replace(plan, method=method).state_bytes() == pytest.approx(134e9, rel=0.01)


def test_it_is_logged(plan, caplog):
    caplog.set_level("INFO")
    plan.show()
    assert "ModuleDict of dinov3-tiny" in caplog.text
    assert "corpus      eyes: 2 videos" in caplog.text
