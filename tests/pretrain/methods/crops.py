"""Made crops, and recipes of self-distillation on tiny networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from common.base.runtime import generator
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoints.checkpoint import whole_model_state
from pretrain.engine.distributed import Processes
from pretrain.engine.method import Batch
from pretrain.engine.step import TrainingStep
from pretrain.methods.dino import Dino
from pretrain.methods.dinov3 import DINOv3
from pretrain.methods.options import DINOv3Options
from pretrain.methods.self_distillation import SelfDistillation
from pretrain.ssl_config import find_model

NUM_LOCAL = 3
OPTIONS = DINOv3Options(
    model="dinov3-tiny", init="random", max_steps=10, steps_per_epoch=5, batch_size=4, num_local=NUM_LOCAL,
    freeze_backbone_epochs=0.0, freeze_prototypes_epochs=0.0, position_rescale=1.0, prototypes=16, learning_rate=1e-2,
    precision="fp32", sharding="none", gradient_checkpointing="none",
)  # fmt: skip


def options(**changes: Any) -> DINOv3Options:
    """`OPTIONS` but for `changes`, completed."""
    return completed(replace(OPTIONS, **changes))


def completed(given: DINOv3Options) -> DINOv3Options:
    """With the model's own settings; sharding as given, which a test decides."""
    return replace(given.completed(on_gpu=False, world_size=1), sharding=given.sharding)


def dino_options(**changes: Any) -> DINOv3Options:
    """`OPTIONS` of the recipe DINO, on a CAFormer and without dropped branches, but for `changes`."""
    return options(**{"model": "caformer-tiny", "recipe": "dino", "position_rescale": 2.0, "drop_path": 0.0} | changes)


def method_of(given: DINOv3Options, steps_per_epoch: int = 5) -> SelfDistillation:
    """The recipe on a random backbone, in training mode as the engine has it."""
    given, model = completed(given), find_model(given.model)
    backbone, _ = start_backbone(model, given.init, crop_size=given.crop_size_of(model), seed=given.seed)
    recipe = DINOv3 if given.recipe_of(model) == "dinov3" else Dino
    method = recipe(backbone, given, model, steps_per_epoch)
    return method.train()


def crops_of(first: int, count: int, gram_size: int | None = None) -> Batch:
    """Samples `first` to `first + count`: smooth pictures of their own, crops of which differ by noise."""
    samples = [sample(number, gram_size) for number in range(first, first + count)]
    return {name: torch.stack([each[name] for each in samples]) for name in samples[0]}


def sample(number: int, gram_size: int | None = None) -> dict[str, Tensor]:
    """One frame's crops."""
    random = generator("made crops", number)
    picture = 255 * torch.rand(1, 3, 5, 5, generator=random)

    def views(count: int, size: int) -> Tensor:
        image = F.interpolate(picture, (size, size), mode="bilinear")
        noise = 20 * torch.randn(count, 3, size, size, generator=random)
        return (image + noise).clamp(0, 255).to(torch.uint8)

    crops = {"global_crops": views(2, 64), "local_crops": views(NUM_LOCAL, 32), "number": torch.tensor(number)}
    return crops | ({"gram_crops": views(2, gram_size)} if gram_size else {})


def here() -> Processes:
    """This process, alone or one of two."""
    if dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    return Processes(0, 1, torch.device("cpu"))


def trained(
    given: DINOv3Options, steps: int = 2, gram_size: int | None = None
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Numbers of each step and the state after the last, in this process, whose micro-batches are `given.batch_size`."""
    processes, method = here(), method_of(given)
    step = TrainingStep(method, method.schedules(10), given, processes)
    size, numbers = given.batch_size, []
    for index in range(steps):
        first = (index * processes.world_size + processes.rank) * size
        numbers.append(step(index, [crops_of(first, size, gram_size)]))
    return numbers, whole_model_state(method)


def losses_on_one_batch(given: DINOv3Options, steps: int) -> list[float]:
    """The loss at each step of a training that sees the same samples over and over."""
    method, batch = method_of(given), crops_of(0, given.batch_size)
    step = TrainingStep(method, method.schedules(steps), given, here())
    return [step(index, [batch])["loss"] for index in range(steps)]


def assert_same_change(found: dict[str, Tensor], expected: dict[str, Tensor], start: SelfDistillation) -> None:
    """Every tensor has come from `start` to the same place: what separates them is below a hundredth of the way.

    Not value by value: AdamW makes a whole step of a gradient that is nothing but rounding.
    """
    assert found.keys() == expected.keys()
    for name, value in start.state_dict().items():
        way, apart = (expected[name] - value).norm(), (found[name] - expected[name]).norm()
        assert apart <= 1e-2 * way, f"{name}: {apart:.2e} apart after {way:.2e}"
