"""Common to DINO and DINOv3: a network learns to say of a crop what its moving average says of another crop."""

from collections.abc import Mapping

import torch
from timm.layers import DropPath
from timm.models.metaformer import MetaFormerBlock
from torch import Tensor, nn
from transformers import DINOv3ViTModel
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTLayer

from common.base.runtime import UserError, generator
from common.video.preprocess import normalise
from pretrain.engine.method import Batch, Method, Schedules
from pretrain.engine.startup import copy_of
from pretrain.methods.options import SelfDistillationOptions
from pretrain.objectives.heads import HeadSize, PrototypeHead
from pretrain.objectives.parameter_groups import ParameterGroup, backbone_groups, head_groups
from pretrain.objectives.reduce import world_size
from pretrain.objectives.schedules import (
    Constant,
    Cosine,
    Schedule,
    square_root_scaled,
    teacher_temperature,
    warmup_cosine,
)
from pretrain.ssl_config import SslModel
from pretrain.video_data.augment import MultiCrop

PATCH_SIZE = 16
NUM_GLOBAL = 2
BETA1 = 0.9  # of AdamW
DROP_PATHS = ("drop_path", "drop_path1", "drop_path2")  # of a block of transformers or timm
SMALLEST_CROP = 0.05  # share of the picture, of DINO and DINOv3
LOCAL_SHARE = 96 / 224  # of the sides of local and global crops
TINY_HEAD = HeadSize(hidden=64, bottleneck=16, prototypes=64)


class SelfDistillation(Method):
    """A backbone and its heads, trained against their moving averages.

    Batches hold `global_crops` `(B, 2, 3, G, G)` and `local_crops` `(B, n, 3, L, L)` uint8.
    """

    block_classes = (MetaFormerBlock, DINOv3ViTLayer, PrototypeHead)
    unit_prototypes = False
    drop_path_rises = False
    patch_embedding_scale = 0.2
    """Of the learning rate, as in DINOv2 and DINOv3."""

    def __init__(
        self,
        backbone: nn.Module,
        options: SelfDistillationOptions,
        model: SslModel,
        *,
        heads: Mapping[str, HeadSize],
        steps_per_epoch: int,
    ):
        """`backbone` is taken over; `options` are completed; `heads` are the heads' widths by role.

        Raises `UserError` when the backbone would be frozen to the end.
        """
        super().__init__()
        options.require_training(steps_per_epoch)
        self.options, self.preprocessing = options, model.encoder_config().preprocessing
        self.steps_per_epoch = steps_per_epoch
        set_drop_path(backbone, options.drop_path, rises=self.drop_path_rises)
        made = {
            role: PrototypeHead(
                model.width, size, unit_prototypes=self.unit_prototypes, generator=generator(options.seed, role)
            )
            for role, size in heads.items()
        }
        self.student = nn.ModuleDict({"backbone": backbone} | made)
        self.teacher = copy_of(self.student).requires_grad_(False)
        self.temperature = teacher_temperature(
            round(options.temperature_warmup * options.total_steps(steps_per_epoch)),
            start=options.start_temperature,
            end=options.temperature,
        )

    def crops(self, views: Tensor) -> Tensor:
        """uint8 views `(B, n, 3, S, S)` as normalised `(n * B, 3, S, S)`, the first crops of all frames first."""
        return normalise(views.transpose(0, 1).flatten(0, 1), self.preprocessing)

    def class_logits(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """Class tokens `(2 * B, D)` and `(n * B, D)` -> the student's scores `(2 + n, B, K)`."""
        tokens = torch.cat([global_tokens, local_tokens])
        batch_size = len(global_tokens) // NUM_GLOBAL
        return self.student["dino_head"](tokens).unflatten(0, (-1, batch_size))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The backbone by depth, frozen at first; each head with its prototypes, frozen at first, apart."""
        options, network = self.options, self.student["backbone"]
        groups = backbone_groups(
            network,
            layer_decay=options.layer_decay,
            patch_embedding_scale=self.patch_embedding_scale,
            frozen_until=self.steps(options.freeze_backbone_epochs),
        )
        frozen = self.steps(options.freeze_prototypes_epochs)
        for role, head in self.student.items():
            if isinstance(head, PrototypeHead):
                groups += head_groups(head, role, prototypes_frozen_until=frozen)
        return groups

    def steps(self, epochs: float) -> int:
        """Optimiser steps of so many epochs."""
        return round(epochs * self.steps_per_epoch)

    def schedules(self, total_steps: int) -> Schedules:
        """Warm-up and cosine of a rate scaled by the square root of the global batch, as DINOv3 does."""
        options = self.options
        global_batch = options.global_batch(world_size())
        peak = square_root_scaled(options.learning_rate, global_batch)
        end = square_root_scaled(options.final_learning_rate, global_batch)
        rate = warmup_cosine(0.0, peak, end, warmup_steps=round(options.warmup * total_steps), total_steps=total_steps)

        def towards(start: float, end: float | None) -> Schedule:
            return Constant(start) if end is None else Cosine(start, end, total_steps)

        decay = towards(options.weight_decay, options.final_weight_decay)
        momentum = towards(options.momentum, options.final_momentum)
        return Schedules(rate, decay, momentum, options.clip_norm or None, betas=(BETA1, options.beta2))

    def features(self, batch: Batch) -> Tensor:
        """Of the first global crops, or of the first frames of a probe's clips."""
        images = batch["clip"] if "clip" in batch else batch["global_crops"]
        return summary(self.teacher["backbone"], self.crops(images[:, :1]))

    def exported(self) -> nn.Module:
        """The moving average, whose features are better than the student's (DINO, section 5.2)."""
        return self.teacher["backbone"]


def summary(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """`(N, D)`: the class token of a vision transformer after its last norm, or what a network of timm gives."""
    if isinstance(backbone, DINOv3ViTModel):
        return backbone(pixels).last_hidden_state[:, 0]
    return backbone(pixels)


def set_drop_path(network: nn.Module, rate: float, *, rises: bool = False) -> None:
    """Give every residual branch the same stochastic depth, as DINOv3 does, or one that `rises` from 0 as DINO's does."""
    blocks = [
        (block, [name for name in DROP_PATHS if isinstance(getattr(block, name, None), nn.Module)])
        for block in network.modules()
    ]
    blocks = [(block, names) for block, names in blocks if names]
    rates = torch.linspace(0, rate, len(blocks)).tolist() if rises else [rate] * len(blocks)
    for (block, names), own in zip(blocks, rates, strict=True):
        for name in names:
            setattr(block, name, DropPath(own) if own else nn.Identity())


def frame_views(options: SelfDistillationOptions, model: SslModel) -> MultiCrop:
    """The views of a frame; `options` are completed.

    Raises `UserError` for a side that a vision transformer cannot cut into patches.
    """
    global_size = options.crop_size_of(model)
    local_size = options.local_size or max(1, round(global_size * LOCAL_SHARE / PATCH_SIZE)) * PATCH_SIZE
    for name, size in (("crop_size", global_size), ("local_size", local_size)):
        if model.family == "dinov3" and size % PATCH_SIZE:
            raise UserError(f"--{name} {size}: {model.name} takes multiples of {PATCH_SIZE} pixels")
    gram_size = options.gram_size_of(model)
    return MultiCrop(
        global_size,
        local_size,
        options.num_local,
        global_scale=(options.crop_boundary, 1.0),
        local_scale=(SMALLEST_CROP, options.crop_boundary),
        flip_chance=options.flip_chance,
        blur=options.blur,
        gram_size=gram_size,
    )


def head_size(options: SelfDistillationOptions, model: SslModel, published: HeadSize | None = None) -> HeadSize:
    """The widths of a head, by default as `published` (for the tiny networks, tiny ones)."""
    size = TINY_HEAD if model.is_tiny else published or HeadSize()
    return HeadSize(
        options.head_hidden or size.hidden,
        options.head_bottleneck or size.bottleneck,
        options.prototypes or size.prototypes,
    )
