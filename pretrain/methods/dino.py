"""DINO (Caron et al., ICCV 2021): crops of a frame are to be of one kind, whose centre and sharpness keep kinds apart.

The surgical backbones of SurgeNet (Jaspers et al., Medical Image Analysis 2025) were pretrained so, a CAFormer on video
frames. Settings and rules of training are those of `dino:main_dino.py`.
"""

import torch
from torch import Tensor, nn
from transformers import DINOv3ViTModel

from pretrain.engine.method import Batch, Schedules
from pretrain.methods.options import SelfDistillationOptions
from pretrain.methods.self_distillation import BETA1, NUM_GLOBAL, SelfDistillation, head_size, summary
from pretrain.objectives.centering import SoftmaxCentering
from pretrain.objectives.losses import class_token_loss, mean_entropy
from pretrain.objectives.reduce import world_size
from pretrain.objectives.schedules import Cosine, legacy_warmup_cosine, linearly_scaled
from pretrain.ssl_config import SslModel


class Dino(SelfDistillation):
    """The summary of every crop against the teacher's of the other global crops, by a centred and sharpened softmax."""

    unit_prototypes = True
    drop_path_rises = True
    patch_embedding_scale = 1.0

    def __init__(self, backbone: nn.Module, options: SelfDistillationOptions, model: SslModel, steps_per_epoch: int):
        """`backbone` is taken over; `options` are completed."""
        if isinstance(backbone, DINOv3ViTModel):
            backbone.embeddings.mask_token.requires_grad_(False)  # nothing is masked
        size = head_size(options, model)
        super().__init__(backbone, options, model, heads={"dino_head": size}, steps_per_epoch=steps_per_epoch)
        self.centering = SoftmaxCentering(size.prototypes)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross-entropy of every crop's class scores against those that the teacher gives another global crop."""
        global_crops, local_crops = self.crops(batch["global_crops"]), self.crops(batch["local_crops"])
        targets = self._targets(global_crops, self.temperature(step))
        backbone = self.student["backbone"]
        logits = self.class_logits(summary(backbone, global_crops), summary(backbone, local_crops))
        loss = class_token_loss(logits[:NUM_GLOBAL], logits[NUM_GLOBAL:], targets)
        return {
            "loss": loss.total,
            "loss/global_crops": loss.global_crops.detach(),
            "loss/local_crops": loss.local_crops.detach(),
            "monitor/teacher_entropy": mean_entropy(targets),
        }

    def schedules(self, total_steps: int) -> Schedules:
        """Warm-up and cosine of a rate in proportion to the global batch, towards one that is not; DINO's clipping."""
        options = self.options
        peak = linearly_scaled(options.learning_rate, options.global_batch(world_size()))
        warmup_steps = round(options.warmup * total_steps)
        end = options.final_learning_rate
        rate = legacy_warmup_cosine(0.0, peak, end, warmup_steps=warmup_steps, total_steps=total_steps)
        decay = Cosine(options.weight_decay, options.final_weight_decay, total_steps, reaches_end=False)
        momentum = Cosine(options.momentum, options.final_momentum, total_steps, reaches_end=False)
        betas = (BETA1, options.beta2)
        return Schedules(rate, decay, momentum, options.clip_norm or None, clip_each=True, betas=betas)

    @torch.no_grad()
    def _targets(self, global_crops: Tensor, temperature: float) -> Tensor:
        """The teacher's probabilities `(2, B, K)`; the centre takes in this batch's scores."""
        scores = self.teacher["dino_head"](summary(self.teacher["backbone"], global_crops))
        return self.centering(scores, temperature).unflatten(0, (NUM_GLOBAL, -1))
