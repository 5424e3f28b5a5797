"""From the options of a recipe to the engine: what all self-supervised pretraining commands have in common."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from common.base import paths
from common.base.children import num_cores
from common.base.entries import visible
from common.base.runtime import UserError, counted, keep_freed_memory, listed
from common.checks import leaks
from common.dataset import manifest as manifests
from common.encoders.weights.load import WeightSource
from pretrain.backbones import waiting_backbone
from pretrain.engine.checkpoints.checkpoint import newest_state
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes, start_processes
from pretrain.engine.loop import Batches, Recipe, train_recipe
from pretrain.engine.method import Batch, Method
from pretrain.engine.reporting import peak_flops
from pretrain.engine.startup import waiting_copies
from pretrain.phase_probe import NearestPhases
from pretrain.ssl_config import SslModel, TrainingOptions, find_model, steps_per_epoch
from pretrain.ssl_dataset import VideoSamples, ViewRule, loader
from pretrain.video_data.clusters import read_clusters
from pretrain.video_data.corpora import Corpus, check_packed, read_corpora, write_manifest
from pretrain.video_data.data_rate import USUAL_SHARE, describe_data, probe_reading
from pretrain.video_data.packed import is_shard
from pretrain.video_data.sampling import BalancedSampling, SampleOrder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# options (completed), model, backbone, steps of an epoch
BuildMethod = Callable[[Any, SslModel, nn.Module, int], Method]
ChooseViews = Callable[[Any, SslModel], ViewRule]

# float32: the value, its gradient, and AdamW's two averages
TRAINED_BYTES, FROZEN_BYTES = 16, 4
SAVED_BYTES = 12  # of a trained value in a checkpoint: no gradient
PROCESS_BYTES, READER_BYTES = 2e9, 0.8e9  # libraries with CUDA's own, one tensor on its way; a process that reads video
MEGABYTE = 1 << 20
WARNING_SECONDS = 120  # that the launch scripts ask SLURM for before the time limit (--signal=B:USR1@120)


def pretrain(options: TrainingOptions, device: str, build_method: BuildMethod, choose_views: ChooseViews) -> int:
    """Run a recipe: build everything, print the plan, train; returns the exit code.

    The recipe is called as the module of the method that `build_method` makes.
    """
    keep_freed_memory()
    with start_processes(device) as processes:
        options = options.completed(on_gpu=processes.device.type == "cuda", world_size=processes.world_size)
        options = keeping_the_batch(options, processes)
        model = find_model(options.model)
        corpora = known_corpora(options, processes)
        fps = options.fps if options.clip_len_of(model) > 1 else None
        check_packed(corpora, fps=fps, crop_size=options.crop_size_of(model))
        sampling = balanced_sampling(options, corpora)
        steps = options.steps_per_epoch or steps_per_epoch(
            sum(corpus.seconds for corpus in corpora),
            options.seconds_per_sample(model),
            options.global_batch(processes.world_size),
        )
        backbone, start, initialise = waiting_backbone(
            model,
            options.init,
            crop_size=options.crop_size_of(model),
            clip_len=options.clip_len_of(model),
            seed=options.seed,
        )
        with waiting_copies():
            method = build_method(options, model, backbone, steps)
        dataset = VideoSamples(
            sampling,
            choose_views(options, model),
            seed=options.seed,
            clip_len=options.clip_len_of(model),
            fps=options.fps,
            open_videos=options.open_videos,
            samples_per_seek=options.samples_per_seek,
            neighbour_seconds=options.neighbour_seconds,
        )
        batches = micro_batches(options, dataset, processes)
        probe = phase_probe(options, model, processes)
        log.info("%s of %s", type(method).__name__, model.name)
        corpus_lines = describe_corpora(corpora, sampling.corpus_shares)
        for subject, text in describe_training(options, method, start, corpus_lines, steps, processes):
            log.info("  %-11s %s", subject, text)
        data = first_alone(processes, partial(data_line, options, method, dataset, corpora, processes))
        log.info("  %-11s %s", "data", data)
        require_host_memory(host_bytes(options, method, processes))
        # after all that may be refused here: the record names the videos of a training, not of an attempt
        first_alone(processes, partial(record_videos, options, model, corpora, [start.source, *method.other_sources()]))
        name = type(method).__module__.rpartition(".")[2]
        return train_recipe(Recipe(name, method, start, batches, steps, probe, initialise), options, processes)


def keeping_the_batch(options: TrainingOptions, processes: Processes) -> TrainingOptions:
    """With as many micro-batches as keep the samples of a step, where a training is resumed by fewer or more processes.

    SLURM may start a job again on other nodes than before. Where no number of micro-batches fits, options stay as they are.
    """
    old = newest_state(RunFolder(options.output_folder))
    if old is None or old.world_size == processes.world_size or old.config.get("batch_size") != options.batch_size:
        return options
    samples = options.batch_size * old.config.get("accumulate", 1) * old.world_size
    accumulate, rest = divmod(samples, options.batch_size * processes.world_size)
    found = f"processes {processes.world_size}, before {old.world_size}"
    if rest or not accumulate:
        log.warning(
            "%s: no number of micro-batches of %d keeps the %d samples of a step", found, options.batch_size, samples
        )
        return options
    if accumulate != options.accumulate:
        log.warning("%s: %d micro-batches keep the %d samples of a step", found, accumulate, samples)
    return replace(options, accumulate=accumulate)


def known_corpora(options: TrainingOptions, processes: Processes) -> list[Corpus]:
    """The corpora; the first process looks into new videos, the others read what it found."""
    read = partial(read_corpora, options.videos, paths.video_index(), exclude=options.exclude)
    return first_alone(processes, read) or read()


def balanced_sampling(options: TrainingOptions, corpora: Sequence[Corpus]) -> BalancedSampling:
    """The rule by which a sample's number tells its clip.

    Raises `UserError` for weights or clusters that do not fit the corpora.
    """
    return BalancedSampling(
        corpora,
        alpha=options.corpus_alpha,
        weights=read_weights(options.corpus_weights) if options.corpus_weights else None,
        clusters=read_clusters(Path(options.clusters).expanduser()) if options.clusters else None,
        cluster_alpha=options.cluster_alpha,
    )


def read_weights(text: str) -> dict[str, float]:
    """`a=1,b=0.5` as numbers by name; raises `UserError` for anything else."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = None
        if not name.strip() or weight is None or name.strip() in weights:
            raise UserError(f"--corpus_weights {text}: expected NAME=WEIGHT,NAME=WEIGHT, found {part!r}")
        weights[name.strip()] = weight
    return weights


def micro_batches(options: TrainingOptions, dataset: VideoSamples, processes: Processes) -> Batches:
    """This process's micro-batches from a sample number on."""
    size, pinned = options.batch_size, processes.device.type == "cuda"

    def batches(first: int) -> Iterable[Batch]:
        order = SampleOrder(size, rank=processes.rank, world_size=processes.world_size, start=first)
        return loader(dataset, order, size, num_workers=options.num_workers, pin_memory=pinned)

    return batches


def phase_probe(options: TrainingOptions, model: SslModel, processes: Processes) -> NearestPhases | None:
    """The probe that `--probe` asks for."""
    if options.probe is None:
        return None
    if not options.monitor_every:
        raise UserError("--probe with --monitor_every 0: the probe is part of the health checks; leave one out")
    return NearestPhases(
        options.probe,
        replace(model.encoder_config().preprocessing, size=options.crop_size_of(model)),
        processes,
        clip_len=options.clip_len_of(model),
        fps=options.fps,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        seed=options.seed,
        packed=[Path(folder).expanduser() for folder in options.probe_packed],
    )


def record_videos(options: TrainingOptions, model: SslModel, corpora: list[Corpus], sources: list[str]) -> None:
    """Write the manifest of a new training, check that of one that is resumed, and name labelled videos.

    `sources` of weights whose own videos are learned from through them: of the start, of a teacher.

    Raises `UserError` when the folder's training has seen other videos.
    """
    folder = RunFolder(options.output_folder)
    present = {video.fingerprint for corpus in corpora for video in corpus.videos}
    # a manifest without a checkpoint is of a training that never was: it is written anew
    if folder.manifest.is_file() and (folder.step_files() or folder.final.exists()):
        former = {video.fingerprint for video in manifests.read_manifest(folder.manifest).videos}
        if former != present:
            raise UserError(
                f"{folder.manifest}: the training there learns from {counted(len(former), 'video')}, of which "
                f"{len(former - present)} are not in the corpora now, and {len(present - former)} are new; give "
                "the same --videos and --exclude, or --output another folder"
            )
    else:
        earlier = [entry.path for source in sources for entry in manifests.manifests_of_weights({"source": source})]
        write_manifest(folder.manifest, "ssl", model.name, corpora=corpora, based_on=earlier)
    warn_of_labelled_videos(folder.manifest)


def first_alone(processes: Processes, action: Callable[[], Result]) -> Result | None:
    """Result of `action` in the first process, None in the others, which wait for it.

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
    for mapping in visible(paths.repository_root() / "data", "*/mapping.txt"):
        dataset = paths.Dataset(mapping.parent)
        videos = leaks.leaked_videos(dataset, seen)
        if videos:
            log.warning(
                "%s: %s of it with labels will be learned from (%s). Where encoders are scored on them, leave them "
                "out: --exclude %s, or the .bundle of a test fold",
                dataset.name,
                counted(len(videos), "video"),
                listed(videos),
                dataset.name,
            )


def describe_corpora(corpora: Sequence[Corpus], shares: Mapping[str, float]) -> list[str]:
    """A line on each corpus; `shares` are those among the samples."""
    return [
        f"{corpus.name}: {counted(len(corpus.videos), 'video')}, {corpus.seconds / 3600:.1f} h, "
        f"{shares[corpus.name]:.0%} of the samples"
        for corpus in corpora
    ]


def describe_training(
    options: TrainingOptions,
    method: nn.Module,
    start: WeightSource,
    corpora: Sequence[str],
    steps_per_epoch: int,
    processes: Processes,
) -> list[tuple[str, str]]:
    """The plan of a training, subject by subject; `options` are completed, `corpora` lines of `describe_corpora`."""
    steps, world_size = options.total_steps(steps_per_epoch), processes.world_size
    trained, frozen = count_parameters(method)
    gigabytes = state_bytes(method, world_size if options.sharding == "fsdp" else 1) / 1e9
    # what the model or recipe decides where nothing was said, and so no command line shows
    own = ", ".join(f"{name} {getattr(options, name)}" for name in options.defaults_of(find_model(options.model)))
    return [
        ("start", f"{start.source} (untrained)" if start.is_random else start.source),
        *(("corpus", line) for line in corpora),
        (
            "training",
            f"{steps:,} steps ({steps / steps_per_epoch:.4g} epochs of {steps_per_epoch:,}) of "
            f"{options.global_batch(world_size)} samples "
            f"({options.batch_size} x {options.accumulate} micro-batches x {world_size} processes)",
        ),
        *([("settings", own)] if own else []),
        ("parameters", f"{trained / 1e6:.3g} M trained, {frozen / 1e6:.3g} M averaged or frozen"),
        (
            "computing",
            f"{processes.device.type}, processes {world_size}, {options.precision}, sharding {options.sharding}, "
            f"recomputed blocks {options.gradient_checkpointing}",
        ),
        ("memory", f"{gigabytes:.1f} GB a process for weights, gradients and averages; activations come on top"),
        ("host memory", f"{host_bytes(options, method, processes) / 1e9:.0f} GB of the first node"),
        ("saving", describe_saving(options, method, processes)),
        ("output", str(options.output_folder)),
    ]


def data_line(
    options: TrainingOptions, method: Method, dataset: VideoSamples, corpora: Sequence[Corpus], processes: Processes
) -> str:
    """Whether the data keeps up with this process's device, from a probe of seconds."""
    speed = probe_reading(dataset)
    dataset.reader.close()  # reading processes open videos of their own
    peak, flops = peak_flops(processes.device, options.precision), method.flops_per_sample()
    return describe_data(
        speed,
        num_workers=options.num_workers,
        num_cores=max(1, num_cores() // local_processes(processes)),
        wanted=USUAL_SHARE * peak / flops if peak and flops else None,
        is_packed=all(is_shard(video.path) for corpus in corpora for video in corpus.videos),
        unit="clips" if options.clip_len_of(find_model(options.model)) > 1 else "images",
    )


def local_processes(processes: Processes) -> int:
    """Processes of the training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes.world_size))


def state_bytes(method: nn.Module, num_shards: int) -> float:
    """Bytes of parameters, gradients, optimiser and averages in one process, before activations."""
    trained, frozen = count_parameters(method)
    return (TRAINED_BYTES * trained + FROZEN_BYTES * frozen) / num_shards


def host_bytes(options: TrainingOptions, method: nn.Module, processes: Processes) -> float:
    """Bytes of the first node's own memory.

    Its processes and those that read for them, what they copy to save it, the network that is exported, and on a CPU the state.
    """
    trained, _ = count_parameters(method)
    local = local_processes(processes)
    total = local * (PROCESS_BYTES + options.num_workers * READER_BYTES)
    total += sum(saved_bytes(options, method, processes)) + FROZEN_BYTES * trained
    if processes.device.type == "cpu":
        total += local * state_bytes(method, processes.world_size if options.sharding == "fsdp" else 1)
    return total


def saved_bytes(options: TrainingOptions, method: nn.Module, processes: Processes) -> tuple[float, float]:
    """Bytes of a checkpoint that the first node writes: those of its first process, and those of the others.

    Shards are written where they are; a file by the first process alone.
    """
    trained, frozen = count_parameters(method)
    total = float(SAVED_BYTES * trained + FROZEN_BYTES * frozen)
    if options.sharding != "fsdp":
        return total, 0.0
    share = total / processes.world_size
    return share, (local_processes(processes) - 1) * share


def describe_saving(options: TrainingOptions, method: nn.Module, processes: Processes) -> str:
    """How large a checkpoint is, and how fast it must be written when SLURM warns of a time limit."""
    first, others = saved_bytes(options, method, processes)
    trained, frozen = count_parameters(method)
    total = (SAVED_BYTES * trained + FROZEN_BYTES * frozen) / 1e9
    how = "each process its part" if options.sharding == "fsdp" else "the first process all of it"
    rate = (first + others) / 1e9 / WARNING_SECONDS
    return f"{total:.1f} GB a checkpoint, {how}: {rate:.2g} GB a second and node, to be done in the {WARNING_SECONDS} s of a warning"


def require_host_memory(needed: float) -> None:
    """Raise `UserError` where SLURM has granted a node less memory than a training needs: it would be killed for it."""
    granted = MEGABYTE * int(os.environ.get("SLURM_MEM_PER_NODE") or 0)  # 0: all that the node has
    if 0 < granted < needed:
        raise UserError(
            f"--mem of the job: expected at least {needed / 1e9:.0f} GB of host memory a node, found {granted / 1e9:.0f} GB; submit it "
            f"with --mem={math.ceil(needed / 2**30)}G, or take fewer --num_workers"
        )


def count_parameters(method: nn.Module) -> tuple[int, int]:
    """Values that are trained, and values that are averaged or frozen."""
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in method.parameters()) - trained
