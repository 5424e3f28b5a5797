"""DINOv3 (Simeoni et al., 2025): DINO on class tokens, iBOT on hidden patches, KoLeo, and Gram anchoring.

Made for continuing published weights, which come without heads. While a student trains, transformers scales the
positions of all patches of a batch by a random factor (`position_rescale`); a teacher's positions are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import DINOv3ViTModel
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTLayer

from pretrain.engine.method import Batch
from pretrain.engine.reporting import flops_of_blocks
from pretrain.engine.startup import copy_of
from pretrain.methods.options import DINOv3Options
from pretrain.methods.self_distillation import NUM_GLOBAL, PATCH_SIZE, SelfDistillation, frame_views, head_size
from pretrain.methods.several_sizes import take_several
from pretrain.objectives.centering import sinkhorn_knopp
from pretrain.objectives.heads import DINO_7B, IBOT_7B
from pretrain.objectives.losses import (
    class_token_loss,
    gram_loss,
    koleo_loss,
    masked_patch_loss,
    mean_entropy,
    resize_patches,
)
from pretrain.objectives.masks_image import PatchMasking, masked_places, patch_masks, patch_weights
from pretrain.objectives.schedules import gram_weight
from pretrain.ssl_config import SslModel

PUBLISHED_HEADS = {"vit7b16": (DINO_7B, IBOT_7B)}  # those of the others are the default widths


class Hidden(NamedTuple):
    """The patches that the student does not see, of `C` global crops of `N` patches."""

    masks: Tensor
    """`(C, N)`, True where hidden."""
    places: Tensor
    """`(M,)` in the `C * N` patches."""
    weights: Tensor
    """`(M,)`, of a crop's hidden patches together 1."""


class DINOv3(SelfDistillation):
    """Class tokens of all crops, and hidden patches of the global ones, against the teacher's by Sinkhorn-Knopp.

    Batches hold `number` `(B,)` and perhaps `gram_crops` `(B, 2, 3, S, S)` besides. Masks are drawn batch by batch.
    """

    def __init__(self, backbone: DINOv3ViTModel, options: DINOv3Options, model: SslModel, steps_per_epoch: int):
        """`backbone` is taken over; `options` are completed."""
        published = PUBLISHED_HEADS.get(model.architecture, (None, None))
        roles = ("dino_head", "ibot_head")
        heads = {role: head_size(options, model, size) for role, size in zip(roles, published, strict=True)}
        # a copy from before positions are rescaled and branches dropped: the anchor stays what was published
        gram_teacher = copy_of(backbone) if options.anchor_weight else None
        backbone.rope_embeddings.config.pos_embed_rescale = options.position_rescale
        super().__init__(backbone, options, model, heads=heads, steps_per_epoch=steps_per_epoch)
        self.gram_teacher = gram_teacher.requires_grad_(False) if gram_teacher else None
        self.rule = frame_views(options, model)
        self.gram_schedule = gram_weight(
            self.steps(options.freeze_backbone_epochs),
            self.steps(options.gram_ramp_epochs),
            weight=options.anchor_weight,
        )
        self.first_patch = 1 + backbone.config.num_register_tokens
        take_several(backbone, (DINOv3ViTLayer,))  # the student's alone: the others see crops of one size

    def train(self, mode: bool = True) -> DINOv3:
        super().train(mode)
        if self.gram_teacher is not None:
            self.gram_teacher.eval()
        return self

    def copies(self) -> list[tuple[nn.Module, nn.Module]]:
        """The moving averages, and the anchor that stays what the start was."""
        anchor = [(self.gram_teacher, self.student["backbone"])] if self.gram_teacher is not None else []
        return super().copies() + anchor

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Class tokens, hidden patches, spread and anchor, each weighed; the parts are logged as `loss/...`."""
        options, backbone = self.options, self.student["backbone"]
        first = int(batch["number"][0])
        global_crops, local_crops = self.crops(batch["global_crops"]), self.crops(batch["local_crops"])
        with torch.no_grad():
            teacher_tokens = self.teacher["backbone"](global_crops).last_hidden_state
        hidden = self.hidden_patches(first, len(batch["number"]), global_crops.device)  # while a GPU is busy
        class_targets, patch_targets = self._targets(teacher_tokens, hidden, self.temperature(step))

        tokens, local_tokens = states_of_both(backbone, (global_crops, local_crops), (hidden.masks, None))
        class_tokens, patches = tokens[:, 0], tokens[:, self.first_patch :]
        logits = self.class_logits(class_tokens, local_tokens[:, 0])
        class_loss = class_token_loss(
            logits[:NUM_GLOBAL], logits[NUM_GLOBAL:], class_targets, local_weight=options.local_weight
        )
        patch_logits = self.student["ibot_head"](patches.flatten(0, 1)[hidden.places])
        ibot = masked_patch_loss(patch_logits, patch_targets, hidden.weights, len(tokens))
        total, parts = class_loss.total + options.ibot_weight * ibot, {"ibot": ibot}
        if options.koleo_weight:
            # crop by crop: the two views of a frame would be each other's nearest neighbours
            processes = math.ceil(options.koleo_neighbours / len(batch["number"]))
            parts["koleo"] = sum(koleo_loss(crop, num_processes=processes) for crop in class_tokens.chunk(NUM_GLOBAL))
            total = total + options.koleo_weight * parts["koleo"]
        if self.gram_teacher is not None:
            parts["gram"] = gram_loss(patches, self._anchor(batch["gram_crops"]))
            total = total + self.gram_schedule(step) * parts["gram"]
        parts |= {"global_crops": class_loss.global_crops, "local_crops": class_loss.local_crops}
        numbers = {f"loss/{name}": value.detach() for name, value in parts.items()}
        return {"loss": total, "monitor/teacher_entropy": mean_entropy(class_targets)} | numbers

    def hidden_patches(self, first: int, batch_size: int, device: torch.device) -> Hidden:
        """Of this process's global crops; `first` is the number of its first sample in the run."""
        side = self.rule.global_size // PATCH_SIZE
        masks = patch_masks(
            (side, side),
            NUM_GLOBAL * batch_size,
            seed=self.options.seed,
            first=first,
            masking=PatchMasking(self.options.mask_share),
        )
        parts = masks, masked_places(masks), patch_weights(masks)
        return Hidden(*(part.to(device, non_blocking=True) for part in parts))

    @torch.no_grad()
    def _targets(self, tokens: Tensor, hidden: Hidden, temperature: float) -> tuple[Tensor, Tensor]:
        """The teacher's probabilities of class tokens `(2, B, K)` and of hidden patches `(M, K)`."""
        patches = tokens[:, self.first_patch :].flatten(0, 1)[hidden.places]
        classes = sinkhorn_knopp(self.teacher["dino_head"](tokens[:, 0]), temperature)
        return classes.unflatten(0, (NUM_GLOBAL, -1)), sinkhorn_knopp(self.teacher["ibot_head"](patches), temperature)

    @torch.no_grad()
    def _anchor(self, views: Tensor) -> Tensor:
        """The start weights' patches `(2 * B, N, D)` of larger global crops, at the student's places."""
        side = self.rule.global_size // PATCH_SIZE
        larger = self.options.gram_scale * side
        patches = self.gram_teacher(self.crops(views)).last_hidden_state[:, self.first_patch :]
        return resize_patches(patches, (larger, larger), (side, side))

    def flops_per_sample(self) -> float:
        """Of the backbones' blocks; the heads, a few hundredths more, are left out."""
        rule, scale = self.rule, self.options.gram_scale
        total = NUM_GLOBAL * (self._flops(rule.global_size) + self._flops(rule.global_size, backward=False))
        total += rule.num_local * self._flops(rule.local_size)
        if self.gram_teacher is not None:
            total += NUM_GLOBAL * self._flops(scale * rule.global_size, backward=False)
        return total

    def _flops(self, size: int, *, backward: bool = True) -> float:
        backbone = self.student["backbone"]
        blocks = [part for part in backbone.modules() if isinstance(part, self.block_classes)]
        num_tokens = (size // PATCH_SIZE) ** 2 + self.first_patch
        return flops_of_blocks(blocks, num_tokens, width=backbone.config.hidden_size, backward=backward)


def states_of_both(backbone: DINOv3ViTModel, crops: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
    """What `backbone(crops, bool_masked_pos=masks).last_hidden_state` is of crops of each size, in one pass (`take_several`)."""
    states = [backbone.embeddings(pixels, bool_masked_pos=mask) for pixels, mask in zip(crops, masks, strict=True)]
    positions = [backbone.rope_embeddings(pixels) for pixels in crops]
    for block in backbone.model.layer:
        states = block(states, position_embeddings=positions)
    return [backbone.norm(each) for each in states]
