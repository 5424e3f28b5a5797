"""The training of the head: epochs over one split's features, resumable at every epoch's end."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from common.base import paths
from common.base.files import read_text
from common.base.runtime import (
    UserError,
    choose_algorithms,
    keep_freed_memory,
    listed,
    progress,
    reseed,
    select_device,
    shown,
)
from common.dataset.phases import IGNORED, PhaseMapping
from common.head.batch_gen import Batch, BatchGenerator, VideoFeatures, feature_statistics
from common.head.checkpoint import Checkpoint, build_head, fill_head, load_checkpoint, restore_optimizer
from common.head.config import TrainConfig, config_differences
from common.head.experiment import Experiment
from common.head.losses import head_loss, smoothing_weights

if TYPE_CHECKING:
    from common.head.networks.layers import Head, Joined

log = logging.getLogger(__name__)

LEARNING_RATE_DROPS = (0.6, 0.9)  # shares of the epochs
LEARNING_RATE_FACTOR = 0.3
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam keeps of each number


def train(experiment: Experiment, *, device: str = "auto", resume: bool = False, wandb: bool = False) -> Checkpoint:
    """Train to the last epoch and leave the checkpoint in the run's folder; it is saved after every epoch.

    With `resume` a checkpoint of the same configuration, features and labels is continued, and on a CPU with the same
    number of threads, or on a GPU with `deterministic`, ends bit-identical to a training that was never stopped.

    Raises `UserError` for unsuitable input, when features or the loss are not finite, and when another process is
    training the same (`locks.Held`).
    """
    from common.base.locks import hold
    from common.base.tracking import track  # few trainings are tracked

    keep_freed_memory()
    target_device = select_device(device)
    config = experiment.config
    choose_algorithms(deterministic=config.deterministic)
    opened = experiment.open(experiment.train_labels)
    videos = _with_labels(opened)
    # a head never predicts what it has not seen
    trained = np.unique(np.concatenate([video.target for video in videos]))
    without = [name for number, name in enumerate(experiment.mapping.names) if number not in trained]
    if without:
        part = f" (train_fraction {config.train_fraction:g})" if config.train_fraction < 1 else ""
        log.warning("split %s%s: no training frame of %s: it is never predicted", config.split, part, listed(without))
    checkpoint = _start(experiment, opened, resume)
    head = _build(experiment, checkpoint, videos).to(target_device)
    optimizer = adam(config, head)
    # Nothing else has to be restored: the learning rate, the order of the videos and the dropout masks of an epoch
    # follow from its number and the seed. The optimizer comes after the head is on its device, its moments go there.
    if checkpoint.epoch:
        restore_optimizer(optimizer, checkpoint.optimizer, experiment.checkpoint)
    num_parameters = sum(parameter.numel() for parameter in head.parameters())
    name = " ".join(filter(None, [experiment.model.name, experiment.dataset.name, config.run, f"split {config.split}"]))
    log.info(
        "%s: %s, %s parameters; %d epochs on %d videos",
        name,
        config.describe_head(),
        f"{num_parameters:,}",
        config.num_epochs,
        len(videos),
    )
    loop = TrainingLoop(config, head, optimizer, class_weights(config.class_weights, videos, experiment.mapping))
    batches = BatchGenerator(videos, config.bz, config.seed, dtype=kept_as(config), device=target_device)
    with (
        hold(experiment.checkpoint),
        progress(total=config.num_epochs, description=name, unit="epochs") as bar,
        track(wandb, name=name, config=checkpoint.config, folder=paths.repository_root()) as log_numbers,
    ):
        bar.update(checkpoint.epoch)
        while checkpoint.epoch < config.num_epochs:
            numbers = loop.epoch(checkpoint.epoch, batches)
            checkpoint.epoch += 1
            checkpoint.history.append(numbers)
            checkpoint.take(head, optimizer)
            checkpoint.save(experiment.checkpoint)  # replaces the last one at once: a kill leaves one of the two
            log_numbers(numbers)
            bar.set_postfix(loss=f"{numbers['loss']:.4f}", accuracy=f"{numbers['accuracy']:.3f}", refresh=False)
            bar.update()
    return checkpoint


def _with_labels(videos: list[VideoFeatures]) -> list[VideoFeatures]:
    """The videos that have a label which counts. Raises `UserError` when none has."""
    silent = [video.name for video in videos if (video.target == IGNORED).all()]
    if len(silent) == len(videos):
        raise UserError("no label of any training video counts: see `ignored` in dataset.yaml")
    if silent:
        log.warning("not learned from, since no label of it counts: %s", listed(silent))
    return [video for video in videos if video.name not in silent]


def _start(experiment: Experiment, videos: list[VideoFeatures], resume: bool) -> Checkpoint:
    """A checkpoint at epoch 0, or the one on the disk when it may be continued."""
    rates = [video.features_per_second for video in videos]
    fresh = Checkpoint(
        config=asdict(experiment.config),
        phases=list(experiment.mapping.names),
        inputs_hash=experiment.inputs_hash(videos, experiment.train_labels),
        feature_identity=videos[0].source.identity(),
        num_threads=torch.get_num_threads(),
        background=experiment.mapping.background,
        features_per_second=None if None in rates else float(np.median(rates)),
        **asdict(experiment.label_grid),
    )
    if not resume or not experiment.checkpoint.is_file():
        return fresh
    old = load_checkpoint(experiment.checkpoint)
    # In this order: other settings are a wrong command and stop it, although inputs would differ then as well; changed
    # inputs only make the old epochs worthless; another number of threads changes no more than the last digits.
    differences = config_differences(fresh.config, old.config)
    if differences:
        raise UserError(
            f"{experiment.checkpoint}: trained with another configuration ({'; '.join(differences)}). Give --run NAME "
            "to keep both, or start over: run_k_folds with --force (and --only K), train without --resume"
        )
    if old.inputs_hash != fresh.inputs_hash:
        log.warning("%s: features or labels have changed since; training starts over", experiment.checkpoint)
        return fresh
    if old.num_threads != fresh.num_threads:
        log.warning(
            "resumed with %d threads instead of %d: the last digits will differ", fresh.num_threads, old.num_threads
        )
    return old


def _build(experiment: Experiment, checkpoint: Checkpoint, videos: list[VideoFeatures]) -> torch.nn.Module:
    """The head as the checkpoint has it, or a new one with the statistics of the training part where it asks for them."""
    head = build_head(experiment.config, experiment.mapping.num_classes)
    if checkpoint.epoch:
        fill_head(head, checkpoint.model, experiment.checkpoint)
    elif experiment.config.standardise == "train":
        head.mean, head.deviation = feature_statistics(videos)
    return head


class TrainingLoop:
    """The inner loop of training over one epoch's batches."""

    def __init__(self, config: TrainConfig, head: torch.nn.Module, optimizer: torch.optim.Optimizer, weights):
        self.config, self.head, self.optimizer = config, head, optimizer
        self.device = next(head.parameters()).device
        self.class_weights = None if weights is None else weights.to(self.device)
        self.dropout = torch.Generator(self.device)
        head.use_dropout_generator(self.dropout)
        self.compute = self._compute
        if self.device.type == "cuda" and torch.version.cuda and head.is_recordable:
            from common.head.networks.recorded import RecordedSteps  # a CPU has nothing to record

            self.compute = RecordedSteps(self._compute, self.dropout)

    def epoch(self, epoch: int, batches: BatchGenerator) -> dict[str, float]:
        """Train one epoch; returns its record: mean loss a batch, frame accuracy, learning rate, seconds."""
        started = time.monotonic()
        rate = learning_rate(self.config, epoch)  # no scheduler: a restored optimizer then needs no state of one
        set_learning_rate(self.optimizer, rate)
        self.head.train()
        reseed(self.dropout, self.config.seed, "dropout", epoch)
        steps = [(batch.names, *self.step(batch)) for batch in batches.epoch(epoch)]
        # read once an epoch: on a GPU each reading would wait for all that was launched before
        names, losses, correct, frames = zip(*steps, strict=True)
        losses, correct = torch.stack(losses).tolist(), int(torch.stack(correct).sum())
        for videos, loss in zip(names, losses, strict=True):
            if not np.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} in epoch {epoch + 1} on {', '.join(videos)}; check that video's "
                    "features and labels, or lower --lr"
                )
        seconds = time.monotonic() - started
        return {
            "epoch": epoch + 1,
            "loss": sum(losses) / len(losses),
            "accuracy": correct / sum(frames),
            "learning_rate": rate,
            "seconds": round(seconds, 4),
        }

    def step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, int]:
        """One optimiser step; returns the loss and the correctly classified frames, on the device, and the valid frames."""
        smoothing = smoothing_weights(batch.target, self.config.window_mse) if self.config.adaptive_mse else None
        if smoothing is not None and self.device.type == "cuda":
            smoothing = smoothing.pin_memory()  # a copy from other memory waits for all that was launched before
        inputs = (batch.features, batch.target, batch.mask, smoothing)
        inputs = (None if each is None else each.to(self.device, non_blocking=True) for each in inputs)
        loss, correct = self.compute(*inputs)
        return loss, correct, int((batch.target != IGNORED).sum())

    def _compute(self, features: Tensor, target: Tensor, mask: Tensor | None, smoothing: Tensor | None):
        """A step from what lies on the device; its loss and the correctly classified frames. The host decides nothing in it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            stages = self.head(features, mask)
        loss = head_loss(stages, target, self.config, self.class_weights, smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        # of the last stage, the one that predicts; where no label counts, none equals it
        correct = (stages[-1].detach().argmax(dim=1) == target).sum()
        return loss.detach(), correct


def adam(config: TrainConfig, head: Head) -> torch.optim.Adam:
    """The optimizer: one pass over few tensors, since hundreds of small steps would cost as much as a short video.

    What it saves and restores is that of one over `head.parameters()`, however they are joined.
    """
    joined = head.join()
    wholes, device = [each.whole for each in joined], joined[0].whole.device
    if device.type != "cuda":
        optimizer = torch.optim.Adam(wholes, lr=config.lr, fused=True)
    else:  # nothing of it may wait for the host, or be written into a recording
        optimizer = torch.optim.Adam(wholes, lr=torch.tensor(config.lr, device=device), fused=True, capturable=True)
    numbers = {id(parameter): number for number, parameter in enumerate(head.parameters())}
    parts = [[numbers[id(part)] for part in each.parts] for each in joined]
    optimizer.register_state_dict_post_hook(lambda _, state: _state_apart(state, joined, parts))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: _state_together(state, joined, parts))
    return optimizer


def _state_apart(state: dict[str, Any], joined: list[Joined], parts: list[list[int]]) -> dict[str, Any]:
    """The state of an optimizer over `joined` as that of one over the parameters of these numbers, in tensors of their own."""
    by_part = {}
    for number, (each, of_each) in enumerate(zip(joined, parts, strict=True)):
        for name, value in state["state"].get(number, {}).items():
            values = each.apart(value) if name in MOMENTS else [value] * len(of_each)
            for part, tensor in zip(of_each, values, strict=True):
                by_part.setdefault(part, {})[name] = tensor.clone(memory_format=torch.contiguous_format)
    numbers = sorted(part for of_each in parts for part in of_each)
    groups = [group | {"params": numbers} for group in state["param_groups"]]
    return {"state": dict(sorted(by_part.items())), "param_groups": groups}


def _state_together(state: dict[str, Any], joined: list[Joined], parts: list[list[int]]) -> dict[str, Any]:
    """What `_state_apart` took apart; raises `ValueError` and the like for the state of an optimizer over others."""
    by_part, (group,) = state["state"], state["param_groups"]
    if sorted(by_part) != sorted(number for of_each in parts for number in of_each):
        raise ValueError(f"they are of {len(by_part)} parameters")
    by_whole = {}
    for number, (each, of_each) in enumerate(zip(joined, parts, strict=True)):
        moments = {name: each.together([by_part[part][name] for part in of_each]) for name in MOMENTS}
        by_whole[number] = {"step": by_part[of_each[0]]["step"]} | moments
    return {"state": by_whole, "param_groups": [group | {"params": list(by_whole)}]}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Put an epoch's rate into an optimizer, on a GPU into the memory where a recorded step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def kept_as(config: TrainConfig) -> torch.dtype:
    """How features are kept during a training: rounded to bfloat16 where nothing comes before the layer that rounds them."""
    return torch.bfloat16 if config.precision == "bf16" and config.standardise == "none" else torch.float32


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Adam's rate in an epoch (from 0): times 0.3 at 60 % and again at 90 % of the epochs."""
    # rounded down: with few epochs a drop comes rather early than never
    drops = sum(epoch >= int(share * config.num_epochs) for share in LEARNING_RATE_DROPS)
    return config.lr * LEARNING_RATE_FACTOR**drops


def class_weights(choice: str, videos: list[VideoFeatures], mapping: PhaseMapping) -> torch.Tensor | None:
    """Weights `(num_classes,)` of the classification loss; None = all equal.

    `inverse` is the inverse of a phase's share of the training frames, scaled to mean 1 over the phases that occur
    (others get 0). Else `choice` is a file of lines `PHASE WEIGHT` that names every phase.

    Raises `UserError` for a file that does not.
    """
    if choice == "none":
        return None
    if choice == "inverse":
        targets = np.concatenate([video.target for video in videos])
        counts = np.bincount(targets[targets != IGNORED], minlength=mapping.num_classes)
        # a phase without a frame would weigh infinitely much; it has no term in the loss, so that 0 is as good as any
        weights = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
        return torch.tensor(weights / weights[counts > 0].mean(), dtype=torch.float32)
    by_name = _read_class_weights(Path(choice))
    if by_name.keys() != mapping.ids.keys():
        wrong = sorted(by_name.keys() ^ mapping.ids.keys())
        raise UserError(f"--class_weights {choice}: expected each phase once; wrong or missing: {listed(wrong)}")
    return torch.tensor([by_name[name] for name in mapping.names], dtype=torch.float32)


def _read_class_weights(path: Path) -> dict[str, float]:
    """The lines `PHASE WEIGHT` of a file."""
    by_name: dict[str, float] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            name, word = line.split()
            weight = float(word)
        except ValueError:
            name, weight = "", math.nan
        if name in by_name or not 0 <= weight < math.inf:
            raise UserError(
                f"--class_weights {path}, line {number}: expected 'PHASE WEIGHT', each phase once and its weight from 0, "
                f"found {shown(line)}"
            )
        by_name[name] = weight
    return by_name
