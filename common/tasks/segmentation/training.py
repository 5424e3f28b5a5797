"""The training of a decoder, and with fine-tuning of its encoder: epochs over images, resumable at every epoch's end."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.runtime import UserError, keep_freed_memory, progress, select_device
from common.dataset.masks import UNLABELLED_PIXEL
from common.encoders.base import Encoder, build_encoder
from common.encoders.stages import require_single_frames
from common.head.checkpoint import restore_optimizer
from common.tasks.segmentation.batches import ImageBatch, ImageBatches
from common.tasks.segmentation.config import SegmentConfig, segment_differences
from common.tasks.segmentation.experiment import Segmentation
from common.tasks.segmentation.network import (
    SegmentationCheckpoint,
    SegmentationNetwork,
    read_segmentation_file,
    require_same_weights,
)

log = logging.getLogger(__name__)

POWER = 0.9  # of the fall of the learning rate (Liu et al., ParseNet, 2015)
EPSILON = 1e-6


def train_segmentation(
    segmentation: Segmentation, *, device: str = "auto", resume: bool = False
) -> SegmentationCheckpoint:
    """Train to the last epoch and leave the checkpoint in the run's folder; it is saved after every epoch.

    The encoder runs on every step: maps of all images would be a thousand times the cache of pooled features.

    With `resume` a checkpoint of the same configuration, images, masks and weights is continued, and on a CPU with the same
    number of threads ends bit-identical to a training that was never stopped. Raises `UserError` for unsuitable input, when
    the loss is not finite, and when another process is training the same (`locks.Held`).
    """
    from common.base.locks import hold

    keep_freed_memory()
    target, config = select_device(device), segmentation.config
    require_single_frames(segmentation.encoder)
    segmentation.count_pixels()
    encoder = build_encoder(segmentation.encoder, config.weights)
    network = SegmentationNetwork(encoder, config, len(segmentation.classes))
    with hold(segmentation.checkpoint):
        checkpoint = _start(segmentation, encoder, resume)
        if checkpoint.epoch:
            checkpoint.fill(network, segmentation.checkpoint)
        encoder.prepare(target, config.precision)
        network.to(target)
        optimizer = _optimizer(network, config)
        if checkpoint.epoch:
            restore_optimizer(optimizer, checkpoint.optimizer, segmentation.checkpoint)
        batches = ImageBatches(segmentation, segmentation.train_images, with_masks=True)
        log.info(
            "%s at %s, %s; %d epochs on %d images of %d groups",
            encoder.config.title,
            config.size,
            network.describe(),
            config.num_epochs,
            len(batches.images),
            len(segmentation.train_groups),
        )
        loop = SegmentationLoop(config, network, optimizer, target)
        name = f"{segmentation.model.name} {segmentation.dataset.name} split {config.split}"
        with progress(total=config.num_epochs, description=name, unit="epochs") as bar:
            bar.update(checkpoint.epoch)
            while checkpoint.epoch < config.num_epochs:
                numbers = loop.epoch(checkpoint.epoch, batches)
                checkpoint.epoch += 1
                checkpoint.history.append(numbers)
                checkpoint.decoder, checkpoint.optimizer = network.decoder.state_dict(), optimizer.state_dict()
                checkpoint.encoder = network.encoder_state() if config.finetune else None
                checkpoint.save(segmentation.checkpoint)
                bar.set_postfix(loss=f"{numbers['loss']:.4f}", accuracy=f"{numbers['accuracy']:.3f}", refresh=False)
                bar.update()
    return checkpoint


def _start(segmentation: Segmentation, encoder: Encoder, resume: bool) -> SegmentationCheckpoint:
    """A checkpoint at epoch 0, or the one on the disk when it may be continued."""
    fresh = SegmentationCheckpoint(
        config=segmentation.recorded_config,
        classes=list(segmentation.classes),
        inputs_hash=segmentation.inputs_hash(segmentation.train_images),
        weights=encoder.weights.to_json(),
        num_threads=torch.get_num_threads(),
    )
    path = segmentation.checkpoint
    if not resume or not path.is_file():
        return fresh
    old = read_segmentation_file(path)
    if not isinstance(old, SegmentationCheckpoint):
        raise UserError(f"{path}: expected a checkpoint of common.segment, found a state dict; move it away")
    if differences := segment_differences(fresh.config, old.config):
        raise UserError(
            f"{path}: trained with another configuration ({'; '.join(differences)}). Give --run NAME to keep both, or train "
            "without --resume to start over"
        )
    require_same_weights(encoder, old.weights, path)
    if old.inputs_hash != fresh.inputs_hash:
        log.warning("%s: images, masks or classes have changed since; training starts over", path)
        return fresh
    if old.num_threads != fresh.num_threads:
        log.warning(
            "resumed with %d threads instead of %d: the last digits will differ", fresh.num_threads, old.num_threads
        )
    return old


def _optimizer(network: SegmentationNetwork, config: SegmentConfig) -> torch.optim.Optimizer:
    groups = [{"params": list(network.decoder.parameters()), "lr": config.lr}]
    if config.finetune:
        trained = [value for value in network.stages.parameters() if value.requires_grad]
        groups.append({"params": trained, "lr": config.encoder_lr})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


class SegmentationLoop:
    """The inner loop of training over one epoch's batches."""

    def __init__(
        self,
        config: SegmentConfig,
        network: SegmentationNetwork,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ):
        self.config, self.network, self.optimizer, self.device = config, network, optimizer, device

    def epoch(self, epoch: int, batches: ImageBatches) -> dict[str, float]:
        """Train one epoch; returns its record: mean loss a batch, share of pixels that are right, learning rate, seconds."""
        started = time.monotonic()
        factor = (
            1 - epoch / self.config.num_epochs
        ) ** POWER  # no scheduler: a restored optimizer needs no state of one
        for group, rate in zip(self.optimizer.param_groups, (self.config.lr, self.config.encoder_lr), strict=False):
            group["lr"] = rate * factor
        self.network.decoder.train()
        total, correct, pixels = 0.0, 0, 0
        for batch in batches.epoch(epoch):
            loss, batch_correct, batch_pixels = self.step(batch)
            if not np.isfinite(loss):
                names = ", ".join(image.key for image in batch.images)
                raise UserError(f"the loss became {loss} in epoch {epoch + 1} on {names}; check these, or lower --lr")
            total, correct, pixels = total + loss, correct + batch_correct, pixels + batch_pixels
        return {
            "epoch": epoch + 1,
            "loss": total / len(batches),
            "accuracy": correct / max(1, pixels),
            "learning_rate": self.config.lr * factor,
            "seconds": round(time.monotonic() - started, 4),
        }

    def step(self, batch: ImageBatch) -> tuple[float, int, int]:
        """One optimiser step; returns the loss, the pixels that are right and those that count."""
        masks = batch.masks.to(self.device).long()
        scores = self.network(batch.pixels.to(self.device))
        loss = segmentation_loss(scores, masks, self.config.loss_dice)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        counted = masks != UNLABELLED_PIXEL
        correct = (scores.argmax(dim=1) == masks) & counted
        return loss.item(), int(correct.sum()), int(counted.sum())


def segmentation_loss(scores: Tensor, masks: Tensor, dice_weight: float) -> Tensor:
    """Cross-entropy of `scores` `(N, C, H, W)` against `masks` `(N, H, W)`, plus `dice_weight` times the soft Dice loss.

    The latter (Milletari et al., V-Net, 2016) is 1 less the Dice of probabilities, meant over the classes that the batch
    has; without it a thin instrument weighs as its few pixels. Pixels without a label count in neither.
    """
    counted = masks != UNLABELLED_PIXEL
    # a mean over no pixel would be no number
    loss = F.cross_entropy(scores, masks, ignore_index=UNLABELLED_PIXEL, reduction="sum") / counted.sum().clamp(min=1)
    if not dice_weight:
        return loss
    truth = F.one_hot(masks.masked_fill(~counted, 0), scores.shape[1]).movedim(-1, 1) * counted[:, None]
    probabilities = scores.softmax(dim=1) * counted[:, None]
    over = (0, 2, 3)
    present = truth.sum(dim=over)
    dice = (2 * (probabilities * truth).sum(dim=over) + EPSILON) / (probabilities.sum(dim=over) + present + EPSILON)
    there = present > 0
    return loss + dice_weight * ((1 - dice) * there).sum() / there.sum().clamp(min=1)
