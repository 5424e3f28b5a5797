"""Stage 2: LoRA on annotated cataract videos; the adapter that is best on the validation videos is kept.

Training clips are drawn so that every class is equally likely. The validation videos decide which adapter is kept and
when to stop, and nothing else does.

Several processes that torchrun started are one: of each step every one takes its part of the clips, gradients are averaged, the
validation clips are shared out, and the first process writes.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.base import paths
from common.base.runtime import UserError, generator, progress
from common.base.tracking import track
from common.encoders.weights.files import READ_ERRORS, in_one_line
from common.head.checkpoint import restore_optimizer
from pretrain.engine.distributed import Processes
from pretrain.engine.interruption import Interruption, end_saved
from pretrain.lora.adapter_writer import AdapterWriter
from pretrain.lora.checkpoint import FinetuneState
from pretrain.lora.data import Clips, read_batches
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.lora.options import FinetuneOptions
from pretrain.lora.phase_classifier import PhaseClassifier
from pretrain.objectives.schedules import warmup_cosine

log = logging.getLogger(__name__)


class Finetuning:
    """One training of a classifier's adapters and head."""

    def __init__(
        self,
        classifier: PhaseClassifier,
        clips: Clips,
        options: FinetuneOptions,
        writer: AdapterWriter,
        *,
        device: torch.device,
        in_bf16: bool = False,
        processes: Processes | None = None,
    ):
        """`options` are completed. Resumes from `last.pt` in the output folder if there is one. Without `processes` it is alone.

        Raises `UserError` when that is of another training, or is not to be continued.
        """
        self.classifier, self.clips, self.options, self.writer = classifier.to(device), clips, options, writer
        self.device, self.in_bf16 = device, in_bf16
        self.processes = processes or Processes(0, 1, device)
        self._forward: torch.nn.Module = self.classifier
        if self.processes.world_size > 1:
            self._forward = DistributedDataParallel(
                self.classifier, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
            )
        self.last, self.metrics = options.output_folder / paths.LAST_STATE, options.output_folder / paths.METRICS_TABLE
        self.global_batch = options.batch_size * self.processes.world_size
        self.steps_per_epoch = options.steps_per_epoch or math.ceil(len(clips.train) / self.global_batch)
        self.total_steps = options.epochs * self.steps_per_epoch
        warmup_steps = round(options.warmup_share * self.total_steps)
        self.schedule = warmup_cosine(0.0, 1.0, 0.0, warmup_steps=warmup_steps, total_steps=self.total_steps)
        # rates and decays are set at every step, so that resuming with other options uses those
        self.optimizer = torch.optim.AdamW([{"params": group} for group in classifier.parameter_groups()])
        self.state = self._start()

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are trained, or too many have passed without a better validation."""
        epochs = len(self.state.history)
        return epochs >= self.options.epochs or self.state.validations_since_best >= self.options.patience

    def run(self) -> int:
        """All remaining epochs; returns the exit code: 0, or 129, 130 or 143 when saved after a signal."""
        name, folder = f"LoRA {self.options.model}", self.options.output_folder
        folder.mkdir(parents=True, exist_ok=True)
        self._describe()
        with (
            Interruption() as interruption,
            progress(total=self.total_steps, description=name, unit="steps") as self._bar,
            track(
                self.options.wandb and self.processes.is_first, name=name, config=self.state.options, folder=folder
            ) as self._track,
        ):
            self._bar.update(self.state.step)
            batches = self._training_batches()
            self._epoch_started = time.monotonic()
            while not self.is_finished:
                # by counting, not by a flag: a run that was stopped at the end of an epoch validates first of all
                validating = self.state.step == (len(self.state.history) + 1) * self.steps_per_epoch
                try:
                    if validating:
                        self._validate(interruption)
                    else:
                        self._train_step(next(batches))
                except UserError:
                    # a signal to the whole job may have ended a reader before it reaches this process
                    if not interruption.arrives():
                        raise
                # asked of all: a signal need not have reached every process yet
                request = self.processes.largest(interruption.request)
                if request and not self.is_finished:
                    self._save()
                    progressed = f"step {self.state.step} of {self.total_steps}"
                    return end_saved(request, progressed, is_first=self.processes.is_first)
        return 0

    def validation_clips(self, count: int) -> Tensor:
        """The first clips `(count, T, 3, size, size)` uint8 of the validation videos, on the device."""
        return torch.stack([self.clips.validation[number]["clip"] for number in range(count)]).to(self.device)

    def _describe(self) -> None:
        train, validation, options = self.clips.train, self.clips.validation, self.options
        plan = (
            f"{options.epochs} epochs of {self.steps_per_epoch} steps of {self.global_batch} clips from "
            f"{len(train.videos)} videos, validation on {len(validation)} clips from {len(validation.videos)} others"
        )
        adapters, _ = self.classifier.parameter_groups()
        size = sum(factor.numel() for factor in adapters)
        log.info("%s: adapters of %s parameters on %s; %s", options.model, f"{size:,}", self.writer.base.path, plan)

    def _start(self) -> FinetuneState:
        fresh = FinetuneState(
            self.options.to_json(), self.writer.base.sha256, list(self.clips.class_names), self.steps_per_epoch
        )
        if not self.last.is_file():
            return fresh
        if self.options.resume == "never":
            raise UserError(
                f"{self.last} is there already; give --output another folder, delete it, or leave --resume never out "
                "to resume it"
            )
        state = FinetuneState.read(self.last, fresh)
        try:
            self.classifier.load_trainable_state(state.trainable)
        except READ_ERRORS as error:
            raise UserError(
                f"{self.last}: this checkpoint is of another model or adapter ({in_one_line(error)}); give --output another "
                "folder"
            ) from error
        restore_optimizer(self.optimizer, state.optimizer, self.last)
        log.info("%s: resuming after step %d of %d", self.last, state.step, self.total_steps)
        return state

    def _training_batches(self) -> Iterator[dict[str, Any]]:
        size, first = self.options.batch_size, self.processes.rank * self.options.batch_size
        starts = (step * self.global_batch + first for step in range(self.state.step, self.total_steps))
        return self._read(self.clips.train, [number for start in starts for number in range(start, start + size)])

    def _read(self, clips: LabelledClips, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        on_gpu = self.device.type == "cuda"
        return read_batches(
            clips, numbers, self.options.batch_size, num_workers=self.options.num_workers, pin_memory=on_gpu
        )

    def _train_step(self, batch: dict[str, Any]) -> None:
        """One optimiser step. Dropout is seeded by the step: no generator needs to be saved."""
        step = self.state.step
        own = [self.processes.rank] if self.processes.rank else []  # the first draws as one alone does
        torch.manual_seed(generator(self.options.seed, "step", step, *own).initial_seed())
        for group, rate in zip(self.optimizer.param_groups, self._learning_rates(step), strict=True):
            group |= {"lr": rate, "weight_decay": self.options.weight_decay}
        self.classifier.train()
        loss = F.cross_entropy(self._logits(batch), batch["label"].to(self.device))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self.options.clip_norm)
        value = self.processes.mean(loss).item()
        if not math.isfinite(value) or not norm.isfinite():
            raise UserError(
                f"step {step + 1}: the loss is {value}, its gradient {norm.item()}, on {', '.join(batch['video'])}; "
                "start again with a lower --learning_rate, or with --precision fp32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.step += 1
        self.state.loss_sum += value
        best = f"{self.state.best:.3f}" if self.state.history else "n/a"
        self._bar.set_postfix(loss=f"{value:.4f}", best=best, refresh=False)
        self._bar.update()

    def _learning_rates(self, step: int) -> tuple[float, float]:
        """Those of the adapters and of the classification head at a step from 0."""
        share = self.schedule(step)
        return self.options.learning_rate * share, self.options.head_learning_rate * share

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        clips = batch["clip"].to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16):
            return self._forward(clips)

    def _validate(self, interruption: Interruption) -> None:
        """Measure on the validation videos, keep the adapter if it is the best, and save; nothing after a signal."""
        found = self._measure(interruption)
        if found is None:
            return
        is_best = found["balanced_accuracy"] > self.state.best
        record = {
            "epoch": len(self.state.history) + 1,
            "step": self.state.step,
            "loss": self.state.loss_sum / self.steps_per_epoch,
            "validation_loss": found["loss"],
            "accuracy": found["accuracy"],
            "balanced_accuracy": found["balanced_accuracy"],
            "learning_rate": self._learning_rates(self.state.step - 1)[0],
            "seconds": round(time.monotonic() - self._epoch_started, 3),
        }
        self.state.history.append(record)
        self.state.loss_sum, self._epoch_started = 0.0, time.monotonic()
        # the adapter before the state: killed between the two, the epoch is repeated and writes the same again
        if is_best and self.processes.is_first:
            self.writer.write({"epoch": record["epoch"], "step": self.state.step, "validation": found})
        self._save()
        if self.processes.is_first:
            self.state.write_metrics(self.metrics)
            self._track(record)
        rank = "the best" if is_best else f"best {self.state.best:.3f}"
        scores_text = f"balanced accuracy {found['balanced_accuracy']:.3f} ({rank}), accuracy {found['accuracy']:.3f}"
        epoch, epochs = record["epoch"], self.options.epochs
        log.info("epoch %d of %d: loss %.4f, validation: %s", epoch, epochs, record["loss"], scores_text)

    @torch.no_grad()
    def _measure(self, interruption: Interruption) -> dict[str, Any] | None:
        self.classifier.eval()
        found: list[tuple[Tensor, Tensor]] = []
        validation, alone = self.clips.validation, self.processes.world_size == 1
        for batch in self._read(validation, range(self.processes.rank, len(validation), self.processes.world_size)):
            if interruption.request and alone:  # several go on to the end, where all are asked
                return None
            found.append((self._logits(batch).cpu(), batch["label"]))
        if not alone:
            parts: list[Any] = [None] * self.processes.world_size
            dist.all_gather_object(parts, found)
            found = [pair for part in parts for pair in part]
        logits, labels = (torch.cat(each) for each in zip(*found, strict=True))
        return scores(logits, labels, self.clips.class_names)

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        self.state.trainable = self.classifier.trainable_state()
        self.state.optimizer = self.optimizer.state_dict()
        self.state.save(self.last)


def scores(logits: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Loss, accuracy and balanced accuracy (mean recall of the classes present), 0 to 1, of logits `(N, C)`.

    `recall` by class: None for one without a clip.
    """
    correct = logits.argmax(dim=1) == labels
    counts = torch.bincount(labels, minlength=len(class_names))
    recalls = torch.bincount(labels[correct], minlength=len(class_names)) / counts.double()
    present = counts > 0
    return {
        "balanced_accuracy": float(recalls[present].mean()),
        "accuracy": float(correct.double().mean()),
        "loss": float(F.cross_entropy(logits, labels)),
        "clips": len(labels),
        "recall": {
            name: float(recall) if there else None
            for name, recall, there in zip(class_names, recalls, present, strict=True)
        },
    }
