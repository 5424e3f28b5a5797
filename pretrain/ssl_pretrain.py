"""From the command line to the engine: what all self-supervised pretraining commands have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, keep_freed_memory
from common.base.wording import counted, listed
from common.checks import leaks
from common.dataset import manifest as manifests
from common.encoders.weights.source import WeightSource
from pretrain.backbones import start_backbone
from pretrain.engine.distributed import Processes, start_processes
from pretrain.engine.loop import Batches, Recipe, train
from pretrain.engine.method import Batch, Method
from pretrain.engine.run_folder import RunFolder
from pretrain.phase_probe import ClipShape, NearestPhases
from pretrain.ssl_config import (
    MODELS,
    PretrainingOptions,
    SslModel,
    TrainingOptions,
    add_training_options,
    find_model,
    read_training_options,
    steps_per_epoch,
)
from pretrain.ssl_dataset import VideoSamples, loader
from pretrain.video_data.corpora import Corpus, read_corpora, write_manifest
from pretrain.video_data.sampling import BalancedSampling, SampleOrder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# options (completed), model, backbone, where its weights are from, steps of an epoch
BuildMethod = Callable[[Any, SslModel, nn.Module, WeightSource, int], Method]
BuildDataset = Callable[[Any, SslModel, BalancedSampling], VideoSamples]


def pretrain_main(
    argv: list[str] | None,
    *,
    description: str,
    options_class: type[PretrainingOptions],
    families: tuple[str, ...],
    build_method: BuildMethod,
    build_dataset: BuildDataset,
) -> int:
    """Run the command of a recipe: parse `argv`, build everything, print the plan, train; returns the exit code.

    `families` are those of `pretrain.ssl_config` that the recipe trains. The recipe is called as the module of the
    method that `build_method` makes.
    """
    parser = CommandParser(None, description)
    add_training_options(parser, options_class)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (under torchrun each takes its own)")
    given = vars(parser.parse_args(argv))
    options = read_training_options(given, options_class, given["config"])
    model = find_model(options.model)
    if model.family not in families:
        names = ", ".join(entry.name for entry in MODELS if entry.family in families)
        raise UserError(f"--model {options.model}: this command trains {names}")
    keep_freed_memory()
    with start_processes(given["device"]) as processes:
        options = options.completed(on_gpu=processes.device.type == "cuda", world_size=processes.world_size)
        command = PretrainingCommand(options, model, processes)
        return command.run(build_method, build_dataset)


@dataclass(frozen=True)
class PretrainingCommand:
    """A training of one model in one of the processes; `options` are completed."""

    options: PretrainingOptions
    model: SslModel
    processes: Processes

    def run(self, build_method: BuildMethod, build_dataset: BuildDataset) -> int:
        """Build everything, print the plan, train."""
        options, model = self.options, self.model
        corpora = self.read_corpora()
        sampling = options.sampling(corpora)
        steps = options.steps_per_epoch or steps_per_epoch(
            sum(corpus.seconds for corpus in corpora), self.seconds_per_sample, self.global_batch
        )
        crop_size, clip_len = options.crop_size_of(model), options.clip_len_of(model)
        backbone, start = start_backbone(model, options.init, crop_size=crop_size, clip_len=clip_len, seed=options.seed)
        method = build_method(options, model, backbone, start, steps)
        dataset = build_dataset(options, model, sampling)
        probe = self.phase_probe()
        self.plan(method, start, corpora, sampling, steps).show()
        first_alone(self.processes, partial(self.record_videos, corpora, [start.source, *method.other_sources()]))
        name = type(method).__module__.rpartition(".")[2]
        return train(Recipe(name, method, start, self.batches(dataset), steps, probe), options, self.processes)

    @property
    def global_batch(self) -> int:
        """Samples of an optimiser step."""
        return self.options.batch_size * self.options.accumulate * self.processes.world_size

    @property
    def seconds_per_sample(self) -> float:
        """Of frames one a second makes an epoch, of clips one in its own duration."""
        clip_len = self.options.clip_len_of(self.model)
        return clip_len / self.options.fps if clip_len > 1 else 1.0

    def read_corpora(self) -> list[Corpus]:
        """The corpora; the first process looks into new videos, the others read what it found."""
        read = partial(read_corpora, self.options.videos, paths.video_index(), exclude=self.options.exclude)
        return first_alone(self.processes, read) or read()

    def batches(self, dataset: VideoSamples) -> Batches:
        """This process's micro-batches from a sample number on."""
        options, processes = self.options, self.processes

        def batches(first: int) -> Iterable[Batch]:
            size, pinned = options.batch_size, processes.device.type == "cuda"
            order = SampleOrder(size, rank=processes.rank, world_size=processes.world_size, start=first)
            return loader(dataset, order, size, num_workers=options.num_workers, pin_memory=pinned)

        return batches

    def phase_probe(self) -> NearestPhases | None:
        """The probe that `--probe` asks for."""
        options, model = self.options, self.model
        if options.probe is None:
            return None
        if not options.monitor_every:
            raise UserError("--probe with --monitor_every 0: the probe is part of the health checks; leave one out")
        clip_len = options.clip_len_of(model)
        shape = ClipShape(options.crop_size_of(model), clip_len, options.fps if clip_len > 1 else 1.0)
        return NearestPhases(
            options.probe, model, shape, self.processes,
            batch_size=options.batch_size, num_workers=options.num_workers, seed=options.seed,
        )  # fmt: skip

    def record_videos(self, corpora: list[Corpus], sources: list[str]) -> None:
        """Write the manifest of a new training, hold one that goes on to it, and name labelled videos.

        `sources` of weights whose own videos are learned from through them: of the start, of a teacher.

        Raises `UserError` when the folder's training has seen other videos.
        """
        folder = RunFolder(self.options.output_folder)
        present = {video.fingerprint for corpus in corpora for video in corpus.videos}
        if folder.manifest.is_file() and (folder.step_files() or folder.final.is_file()):
            former = {video.fingerprint for video in manifests.read_manifest(folder.manifest).videos}
            if former != present:
                raise UserError(
                    f"{folder.manifest}: the training there learns from {counted(len(former), 'video')}, of which "
                    f"{len(former - present)} are not in the corpora now, and {len(present - former)} are new; give "
                    "the same --videos and --exclude, or --output another folder"
                )
        else:
            earlier = [entry.path for source in sources for entry in manifests.manifests_of_weights({"source": source})]
            write_manifest(folder.manifest, "ssl", self.model.name, corpora=corpora, based_on=earlier)
        warn_of_labelled_videos(folder.manifest)

    def plan(
        self, method: Method, start: WeightSource, corpora: list[Corpus], sampling: BalancedSampling, steps: int
    ) -> TrainingPlan:
        """What is about to be done."""
        return TrainingPlan(
            self.options, self.model, self.processes, method=method, start=start, corpora=corpora,
            shares=sampling.corpus_shares, steps_per_epoch=steps,
        )  # fmt: skip


def first_alone(processes: Processes, action: Callable[[], Result]) -> Result | None:
    """What `action` gives in the first process, None in the others, which wait for it.

    Raises in all when it raises `UserError`.
    """
    result = failure = None
    if processes.is_first:
        try:
            result = action()
        except UserError as error:
            failure = error
    if processes.largest(failure is not None):
        raise failure or UserError("the first process cannot start, for the reason that it gives")
    return result


def warn_of_labelled_videos(manifest: Path) -> None:
    """Name the videos of labelled data sets under data/ that a manifest lists: encoders must not be scored on them."""
    seen = manifests.read_manifest(manifest)
    for mapping in sorted((paths.repository_root() / "data").glob("*/mapping.txt")):
        dataset = paths.Dataset(mapping.parent)
        videos = leaks.leaked_videos(dataset, seen)
        if videos:
            log.warning(
                "%s: %s of it with labels will be learned from (%s). Where encoders are scored on them, leave them "
                "out: --exclude %s, or the .bundle of a test fold", dataset.name, counted(len(videos), "video"),
                listed(videos), dataset.name,
            )  # fmt: skip


# float32: the value, its gradient, and AdamW's two averages
TRAINED_BYTES, FROZEN_BYTES = 16, 4


@dataclass(frozen=True)
class TrainingPlan:
    """A training; `options` are completed, `shares` those of the corpora among the samples."""

    options: TrainingOptions
    model: SslModel
    processes: Processes
    _: KW_ONLY
    method: Method
    start: WeightSource
    corpora: Sequence[Corpus]
    shares: Mapping[str, float]
    steps_per_epoch: int

    def show(self) -> None:
        """Log it, one subject a line."""
        log.info("%s of %s", type(self.method).__name__, self.model.name)
        for subject, text in self.lines():
            log.info("  %-11s %s", subject, text)

    def lines(self) -> list[tuple[str, str]]:
        """Subjects and what is said of them."""
        options = self.options
        start = f"{self.start.source} (untrained)" if self.start.is_random else self.start.source
        corpora = [
            ("corpus", f"{corpus.name}: {counted(len(corpus.videos), 'video')}, {corpus.seconds / 3600:.1f} h, "
             f"{self.shares[corpus.name]:.0%} of the samples")
            for corpus in self.corpora
        ]  # fmt: skip
        return [
            ("start", start),
            *corpora,
            ("training", self._steps()),
            ("parameters", f"{millions(trained(self.method))} trained, {millions(frozen(self.method))} averaged or "
             "frozen"),
            ("computing", f"{self.processes.device.type}, processes {self.processes.world_size}, "
             f"{options.precision}, sharding {options.sharding}, recomputed blocks {options.gradient_checkpointing}"),
            ("memory", f"{self.state_bytes() / 1e9:.1f} GB a process for weights, gradients and averages; activations "
             "come on top"),
            ("output", str(options.output_folder)),
        ]  # fmt: skip

    def state_bytes(self) -> float:
        """Bytes of parameters, gradients, optimiser and averages in one process."""
        total = TRAINED_BYTES * trained(self.method) + FROZEN_BYTES * frozen(self.method)
        return total / (self.processes.world_size if self.options.sharding == "fsdp" else 1)

    def _steps(self) -> str:
        options, processes = self.options, self.processes.world_size
        steps = options.total_steps(self.steps_per_epoch)
        epochs = steps / self.steps_per_epoch
        batch = options.batch_size * options.accumulate * processes
        return (
            f"{steps:,} steps ({epochs:.4g} epochs of {self.steps_per_epoch:,}) of {batch} samples "
            f"({options.batch_size} x {options.accumulate} micro-batches x {processes} processes)"
        )


def trained(module: nn.Module) -> int:
    """Number of values that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def frozen(module: nn.Module) -> int:
    """Number of parameters' values that are not."""
    return sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)


def millions(count: int) -> str:
    """`85.7 M`."""
    return f"{count / 1e6:.3g} M"
