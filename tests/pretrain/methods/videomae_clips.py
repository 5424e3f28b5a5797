"""A tiny Video MAE, a tiny image teacher, and made clips, by sample number, that their tests learn from."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from transformers import VideoMAEForPreTraining

from common.base.paths import model as model_folder
from common.base.runtime import generator
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from pretrain.backbones import start_backbone
from pretrain.engine.distributed import Processes
from pretrain.methods.image_teacher import ImageTeacher
from pretrain.methods.options import VideoMAEOptions
from pretrain.methods.videomae import VideoMAE
from pretrain.ssl_config import SslModel, find_model

TINY, SURGVISTA = find_model("videomae-tiny"), find_model("surgvista-tiny")
OPTIONS = VideoMAEOptions(
    model="videomae-tiny", init="random", max_steps=6, batch_size=4, save_every=2, monitor_every=0, monitor_samples=4,
    learning_rate=0.1, final_learning_rate=0.1,
)  # fmt: skip
WITH_TEACHER = {"image_teacher": "DinoV3-ViT-B16", "image_teacher_weights": "random"}
ALONE = Processes(0, 1, torch.device("cpu"))
MEAN, STD = (torch.tensor(value).view(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def network(seed: int = 42, model: SslModel = TINY) -> VideoMAEForPreTraining:
    """A tiny network whose mask token and norms are not those of the start, so that every one can be told apart."""
    found, _ = start_backbone(model, "random", seed=seed)
    with torch.no_grad():
        for number, parameter in enumerate(found.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("network", seed, number)))
    return found


def image_teacher() -> ImageTeacher:
    """DINOv3 of 2 layers and 48 values a patch, untrained."""
    config = read_encoder_config(model_folder("DinoV3-ViT-B16").config)
    return ImageTeacher(build_encoder(replace(config, architecture="tiny", feature_dim=48), "random"))


def made(start: VideoMAEForPreTraining | None = None, *, model: SslModel = TINY, **changes) -> VideoMAE:
    """The recipe on a network of a model, by default the start values of the seed; without stochastic depth unless asked for."""
    options = replace(OPTIONS, model=model.name, **{"drop_path": 0.0, "warmup": 0.2} | changes).completed(
        on_gpu=False, world_size=1
    )
    start = start or start_backbone(model, "random", seed=options.seed)[0]
    return VideoMAE(start, options, model, image_teacher() if options.image_teacher else None)


@cache
def sample(number: int) -> dict[str, torch.Tensor]:
    """Clip number `number`: a bright square on its way over a dim ground of stripes."""
    random = generator("clip", number)
    colour = torch.randint(256, (3, 1, 1), generator=random)
    stripes = torch.randint(100, (3, 1, 64), generator=random)
    top, left, down, right = torch.randint(0, 5, (4,), generator=random).tolist()
    clip = stripes.expand(TINY.clip_len, 3, 64, 64).clone()
    for time in range(TINY.clip_len):
        row, column = 4 * top + time * down, 4 * left + time * right
        clip[time, :, row : row + 16, column : column + 16] = colour
    clip = clip.to(torch.uint8)
    return {"clip": clip, "teacher_frames": clip[::2], "number": torch.tensor(number)}


def batch_of(*numbers: int) -> dict[str, torch.Tensor]:
    samples = [sample(number) for number in numbers]
    return {name: torch.stack([each[name] for each in samples]) for name in samples[0]}


def batches_of(processes: Processes, batch_size: int):
    """The engine's `Batches` of one process."""

    def batches(first: int) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            start = first + processes.rank * batch_size
            yield batch_of(*range(start, start + batch_size))
            first += processes.world_size * batch_size

    return batches


def normalised(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (batch["clip"] / 255 - MEAN) / STD


def hidden_of(method: VideoMAE, batch: dict[str, torch.Tensor], step: int = 0) -> torch.Tensor:
    """True `(B, N)` where the mask hides a token."""
    target = method.masks(batch, step).target
    return torch.zeros(len(target), 64, dtype=torch.bool).scatter(1, target, True)


def noisy_where(hidden: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with noise in the tokens `hidden` `(B, N)`, of 4 times 4 rows and 4 columns."""
    whole = F.interpolate(hidden.view(-1, 1, 4, 4, 4).float(), scale_factor=(2, 16, 16)).transpose(1, 2).bool()
    noise = torch.randint(256, batch["clip"].shape, dtype=torch.uint8, generator=generator("noise"))
    return batch | {"clip": torch.where(whole, noise, batch["clip"])}


def with_teacher(**changes) -> VideoMAE:
    return made(**WITH_TEACHER | changes)


def silent(method: VideoMAE) -> VideoMAE:
    """Its decoders predict 0 everywhere."""
    with torch.no_grad():
        for decoder in method.decoders:
            decoder.blocks.head.weight.zero_()
            decoder.blocks.head.bias.zero_()
    return method
