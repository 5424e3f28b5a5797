"""The training loop that all self-supervised recipes share: start or resume, step, check, save, export."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from common.base import paths
from common.base.locks import hold
from common.base.runtime import UserError
from common.encoders.weights.load import WeightSource
from pretrain.engine.checkpoints.checkpoint import (
    TrainingState,
    newest_checkpoint,
    require_same_training,
    restore_training,
    save_training,
    whole_exported_state,
)
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.checkpoints.sharded_checkpoint import ShardedSaves
from pretrain.engine.distributed import Processes
from pretrain.engine.export import export_backbone
from pretrain.engine.interruption import Interruption, end_saved
from pretrain.engine.method import Batch, Method
from pretrain.engine.monitor import HealthMonitor
from pretrain.engine.reporting import TrainingReport
from pretrain.engine.startup import Initialise
from pretrain.engine.step import TrainingStep
from pretrain.objectives.reduce import all_gather
from pretrain.ssl_config import TrainingOptions

log = logging.getLogger(__name__)

# this process's micro-batches from a sample number of the run on, without end. A step takes the next
# `batch_size * accumulate * processes` numbers; of each micro-batch's, rank r has the r-th run of `batch_size`
Batches = Callable[[int], Iterable[Batch]]
Features = Callable[[Batch], Tensor]
# numbers of a phase probe, the one that decides what is best first; all processes call it and get the same
PhaseProbe = Callable[[Features], dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """A method to train, the weights it was built on, and its data."""

    name: str
    method: Method
    init: WeightSource
    batches: Batches
    steps_per_epoch: int
    """Where the options do not say."""
    phase_probe: PhaseProbe | None = None
    initialise: Initialise | None = None
    """What makes the values that the method waits for; None: it has all."""


def train_recipe(recipe: Recipe, options: TrainingOptions, processes: Processes) -> int:
    """Train to the last step, from the newest checkpoint if there is one; returns the command's exit code.

    0: finished, or put back into SLURM's queue; 129, 143 or 130: saved after SIGHUP, SIGTERM or a warning of the time limit.

    Raises `UserError` when the folder holds another training, losses are not finite, or the features collapse.
    """
    with Interruption() as interruption, owned(options.output_folder, processes):
        return Training(recipe, options, processes, interruption).run()


@contextlib.contextmanager
def owned(folder: Path, processes: Processes) -> Iterator[None]:
    """Around a training: the folder is its own: its first process holds the lock, and all raise `UserError` when another one does."""
    with contextlib.ExitStack() as kept:
        failure = None
        if processes.is_first:
            try:
                kept.enter_context(hold(folder))
            except UserError as error:
                failure = error
        if processes.largest(failure is not None):
            raise failure or UserError(f"{folder}: in use, as the first process says")
        yield


class Training:
    """One training in one process; all processes go through it in step."""

    def __init__(self, recipe: Recipe, options: TrainingOptions, processes: Processes, interruption: Interruption):
        options = options.completed(on_gpu=processes.device.type == "cuda", world_size=processes.world_size)
        self.recipe, self.options, self.processes, self.interruption = recipe, options, processes, interruption
        self.folder = RunFolder(options.output_folder)
        self.state = TrainingState(
            recipe=recipe.name,
            config=options.to_json(),
            total_steps=options.total_steps(recipe.steps_per_epoch),
            world_size=processes.world_size,
            num_threads=torch.get_num_threads(),
            init=recipe.init.to_json(),
        )
        schedules = recipe.method.schedules(self.state.total_steps)
        self.train_step = TrainingStep(recipe.method, schedules, options, processes, recipe.initialise)
        self.monitor = HealthMonitor(options.stop_on_collapse)
        self.saves = ShardedSaves(self.folder.root, processes) if options.sharding == "fsdp" else None
        self._resume()
        self.report = TrainingReport(self.state, options, processes, recipe.method.flops_per_sample())

    def run(self) -> int:
        """All remaining steps; returns the exit code."""
        if self.state.step >= self.state.total_steps and self.folder.export.is_dir():
            log.info("%s: finished after %d steps; nothing left to do", self.folder.root, self.state.step)
            return 0
        with self.report.opened(self.folder, wandb=self.options.wandb):
            micro_batches = iter(self.recipe.batches(self.state.samples))
            if self.options.monitor_every:
                self._start_monitor()  # on batches of its own: the order of the run is not touched
            while self.state.step < self.state.total_steps:
                started = time.monotonic()
                batches = self._fetch(micro_batches)
                data_seconds = time.monotonic() - started
                # asked of all before anyone takes the step: a signal need not have reached every process yet
                request = self.processes.largest(self.interruption.request)
                if request:
                    self._save_step(wait=True)  # the time is up: nothing goes on in the background
                    progress = f"step {self.state.step} of {self.state.total_steps}"
                    return end_saved(request, progress, is_first=self.processes.is_first)
                self._advance(batches, started, data_seconds)
        self._finish()
        return 0

    def _resume(self) -> None:
        """Take up the newest checkpoint, if there is one; it is compared with the options before it counts."""
        if self.processes.is_first:
            self.folder.remove_partial()
        self.processes.barrier()  # nobody looks while the first one tidies up
        newest = newest_checkpoint(self.folder)
        self._saved = newest
        if newest is None:
            return
        if self.options.resume == "never":
            raise UserError(
                f"{self.folder.root} holds a training ({newest.name}); give --output another folder, delete it, or "
                "leave --resume never out to resume it"
            )
        # tensors that do not fit already say that this is another training; names are for those that would fit
        old = restore_training(newest, self.recipe.method, self.train_step.optimizer, self.processes)
        new = self.state
        require_same_training(
            newest,
            [("model", old.config["model"], new.config["model"]), ("recipe", old.recipe, new.recipe)],
            old.config | old.machine,
            new.config | new.machine,
        )
        new.step, new.samples, new.skipped, new.init = old.step, old.samples, old.skipped, old.init
        self.monitor.restore(old.monitor)
        log.info("%s: resuming after step %d of %d", newest, old.step, new.total_steps)

    def _fetch(self, micro_batches: Iterator[Batch]) -> list[Batch]:
        """The micro-batches of a step; none when a signal to the whole job has ended the processes that read them."""
        try:
            return [next(micro_batches) for _ in range(self.options.accumulate)]
        except (RuntimeError, UserError):
            if not self.interruption.arrives():
                raise
            return []

    def _advance(self, batches: list[Batch], started: float, data_seconds: float) -> None:
        """One step, and what is due after it: a check, a record, a checkpoint."""
        numbers = self.train_step(self.state.step, batches)
        seconds = time.monotonic() - started
        self.state.step += 1
        self.state.samples += self.report.samples_per_step
        self.state.skipped += self.train_step.is_skipped
        numbers |= {"skipped": self.state.skipped} | self.report.rates(seconds, data_seconds)
        is_last = self.state.step == self.state.total_steps
        if self.options.monitor_every and (self.state.step % self.options.monitor_every == 0 or is_last):
            numbers |= self._check(numbers)
        self.report.write(numbers)
        self.report.show(numbers)
        # after the numbers are written, before a checkpoint is: what is kept is from before
        if self.monitor.has_collapsed:
            raise self.monitor.collapse(self.state.step, self._what_is_kept())
        if self.state.step % self.options.save_every == 0 and not is_last:
            self._save_step()

    def _start_monitor(self) -> None:
        """Fix the batch that is checked, the first samples of the run, and take the measure of the start."""
        count = math.ceil(self.options.monitor_samples / (self.options.batch_size * self.processes.world_size))
        self._watched = list(islice(self.recipe.batches(0), count))
        if self.state.step == 0:
            self.report.write(self._check({}))

    def _check(self, numbers: dict[str, float]) -> dict[str, float]:
        """Health of the features of the fixed batch, and the phase probe; a new best score is saved."""
        # gathered by rank, which is the order of sample numbers
        parts = [all_gather(self.train_step.features(batch)) for batch in self._watched]
        features = torch.cat(parts)[: self.options.monitor_samples]
        found = self.monitor.check(self.state.step, features, numbers)
        if self.recipe.phase_probe is not None:
            scores = self.recipe.phase_probe(self.train_step.features)
            found |= {f"probe/{name}": value for name, value in scores.items()}
            # at step 0 the best are the start weights, which need no copy
            if self.monitor.is_best(self.state.step, next(iter(scores.values()))) and self.state.step:
                self._save(self.folder.root / paths.BEST_STATE, wait=False)
        return found

    def _save(self, path: Path, *, wait: bool) -> None:
        """Write the state as a file, or as a folder called like it; that in the background unless it must `wait`."""
        self.state.monitor = self.monitor.state
        method, optimizer = self.recipe.method, self.train_step.optimizer
        if self.saves is None:
            save_training(path, self.state, method, optimizer, self.processes)
        else:
            self.saves.save(path.with_suffix(""), asdict(self.state), method, optimizer, wait=wait)

    def _save_step(self, *, wait: bool = False) -> None:
        path = self.folder.step_file(self.state.step)
        # nothing to save before the first step, nor twice when a signal comes right after a checkpoint
        if self.state.step and self._saved not in (path, path.with_suffix("")):
            self._save(path, wait=wait)
            self._saved = path
        if wait and self.saves is not None:
            self.saves.finish()
        if self.processes.is_first:
            self.folder.prune(self.options.keep_last, self.monitor.last_good if self.monitor.bad_running else None)

    def _finish(self) -> None:
        self._save(self.folder.root / paths.FINAL_STATE, wait=True)
        tensors = whole_exported_state(self.recipe.method, self.processes)  # gathered by all, written by the first
        if self.processes.is_first:
            log.info("exported to %s", export_backbone(self.recipe.method, tensors, self.state, self.folder))
        self.processes.barrier()

    def _what_is_kept(self) -> str:
        if self.saves is not None:
            self.saves.finish()
        if self.folder.best.exists():
            return f"{self.folder.best} is of step {self.monitor.best_step}, the best for the phase probe"
        files = self.folder.step_files()
        healthy = [path for step, path in files.items() if step <= self.monitor.last_good]
        return f"{healthy[-1]} is from before" if healthy else "No checkpoint is from before; the start weights are"
