"""A trained head on new videos: its checkpoint, and features made as its training's were."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.base import paths
from common.base.entries import on_disk, same_name, video_name_of
from common.base.files import cached_fingerprint, read_json
from common.base.options import from_mapping
from common.base.runtime import UserError, choose_precision, counted, keep_freed_memory, progress, select_device
from common.dataset.description import features_owner, read_description
from common.dataset.manifest import manifests_of_weights
from common.dataset.phases import PhaseMapping
from common.dataset.segments import Segments, find_segments
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.load import RANDOM
from common.features.config import extraction_like, with_options
from common.features.files import identity_differences, is_extracted, open_features, sidecar_path
from common.head.batch_gen import open_video
from common.head.checkpoint import is_own, load_checkpoint, load_content, load_head
from common.head.config import TrainConfig
from common.head.experiment import VALIDATION, Experiment, load_experiment
from common.head.networks.catalogue import HEADS
from common.head.prediction import write_phases
from common.video.label_grid import LabelGrid
from common.video.timeline import frame_edges

if TYPE_CHECKING:
    from common.features.extract import ExtractionLoop, Summary

log = logging.getLogger(__name__)


def find_head(model: paths.Model, dataset: str, *, split: str | None = None, run: str | None = None) -> Path:
    """The head of a model's run; without `split` that of the validation split, else of the first fold.

    Raises `UserError` naming the heads that there are.
    """
    name = Path(dataset).name
    candidates = [model.checkpoint(name, split or VALIDATION, run)]
    if not split:
        of_run = [path for path in model.trained_heads() if path.parents[1] == candidates[0].parents[1]]
        numbers = {path: path.parent.name.removeprefix("split_") for path in of_run}
        candidates += sorted(
            (path for path in of_run if numbers[path].isdecimal()), key=lambda path: int(numbers[path])
        )
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        there = [str(path) for path in model.trained_heads()]
        raise UserError(
            f"{candidates[0]}: no such checkpoint; trained heads of {model.name}: {', '.join(there) or 'none'}. Choose "
            "one with --checkpoint (or --dataset, --split, --run), or train with python -m common.train"
        )
    return found


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head's checkpoint and what it says of itself: nothing else of its training need be on this machine.

    `identity` is how its features were made (`features.files.IDENTITY`; None: elsewhere, without sidecars).
    """

    path: Path
    config: TrainConfig
    identity: dict[str, Any] | None
    mapping: PhaseMapping
    model: paths.Model
    encoder: EncoderConfig
    grid: LabelGrid
    """Which frames its training had labels for."""
    stated_rate: float | None = None
    """Features a second, as its checkpoint says it; those of earlier versions do not."""
    epoch: int | None = None
    """Epochs that it was trained for."""

    @property
    def features_per_second(self) -> float | None:
        """The rate at which the head was trained to be fed; None where nothing tells."""
        sampled = self.grid.label_fps or (self.identity or {}).get("sampling", {}).get("fps")
        return self.stated_rate or (sampled and sampled / self.config.sample_rate)

    @property
    def dataset(self) -> str:
        return Path(self.config.dataset).name

    @property
    def description(self) -> str:
        """Encoder, head and training set in a line."""
        run = f", run {self.config.run_name}" if self.config.run_name else ""
        split = f"split {self.config.split}{run}"
        return (
            f"{self.encoder.title} features, {HEADS[self.config.head].title} head trained on {self.dataset} ({split})"
        )

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """The caveats that must be known before any phase of this head is believed."""
        remarks = []
        if self.epoch is not None and self.epoch < self.config.num_epochs:
            remarks.append(
                f"head of {self.epoch} of {counted(self.config.num_epochs, 'epoch')}: its training has not ended"
            )
        if self.identity and self.identity["weights"]["source"] == RANDOM:
            remarks.append("random encoder weights: this encoder has learned nothing")
        if self._is_synthetic():
            remarks.append("head trained on synthetic data: it has seen no surgery")
        return tuple(remarks)

    @cached_property
    def _record(self) -> dict[str, Any]:
        """The record of the head's run; empty where it is not on this machine, or damaged."""
        path = self.model.split_results(self.dataset, self.config.split, self.config.run_name) / paths.RUN_RECORD
        try:
            record = read_json(path) if path.is_file() else {}
        except UserError:
            return {}
        return record if isinstance(record, dict) else {}

    def _is_synthetic(self) -> bool:
        """As the run's record says, or else the data set; taken for real where neither is on this machine."""
        if "synthetic" in self._record:
            return bool(self._record["synthetic"])
        try:
            return paths.dataset(self.config.dataset).is_synthetic
        except UserError:
            return False

    def remarks_on(self, video: Path) -> tuple[str, ...]:
        """What must be known of a head's answer for one video: the caveats of all, and that it has learned from this one.

        A video is known by the fingerprint in the sidecar of its training features, else by its name; what pretraining of the
        encoder has seen, by the fingerprints in its manifests.
        """
        remarks = self.remarks + self._pretrained_on(video)
        fingerprints = self._learned_from
        own = cached_fingerprint(video) if any(fingerprints.values()) else None
        name = {same_name(each): each for each in fingerprints}.get(same_name(video_name_of(video)))
        alike = next((each for each, known in fingerprints.items() if known and known == own), None)
        if alike is None and name is not None and not fingerprints[name]:
            seen = f"a video called {name}"
        elif alike is not None:
            seen = "this video" if alike == name else f"this video, there called {alike},"
        else:
            return remarks
        return *remarks, f"{seen} was in the training part of this head, so this says nothing about new videos"

    def _pretrained_on(self, video: Path) -> tuple[str, ...]:
        """The stages of the encoder's pretraining that have seen a video, as a remark; none where no manifest tells."""
        titles = [title for title, seen in self._pretraining.items() if cached_fingerprint(video) in seen]
        if not titles:
            return ()
        return (
            f"the encoder has seen this video in its {' and '.join(titles)}, so this says nothing about new videos",
        )

    @cached_property
    def _pretraining(self) -> dict[str, set[str]]:
        """The fingerprints of the videos that each stage of the encoder's pretraining has seen, as far as manifests are there."""
        try:
            manifests = manifests_of_weights(self.identity and self.identity["weights"])
        except UserError as error:
            log.warning("what the encoder has seen is not known: %s", error)
            return {}
        return {each.title: {video.fingerprint for video in each.videos} for each in manifests}

    @cached_property
    def _learned_from(self) -> dict[str, str | None]:
        """Videos that the head learned from, with the fingerprints that the sidecars of their features have.

        Empty where the data set is not on this machine, or its folds are no longer those of the head.
        """
        try:
            experiment = load_experiment(self.config)
            if self._record.get("folds_hash", experiment.folds_hash) != experiment.folds_hash:
                log.warning("%s: folds were made again since; which videos it learned from is not known", self.path)
                return {}
            labels = experiment.train_labels
        except UserError:
            return {}
        fingerprints: dict[str, str | None] = dict.fromkeys(labels)
        for name in labels:
            # an absent or damaged file leaves the name alone to go by
            with contextlib.suppress(UserError):
                sidecar = open_features(experiment.features / f"{name}.npy").sidecar or {}
                fingerprints[name] = sidecar.get("fingerprint")
        return fingerprints


def open_head(path: Path, model_name: str | None = None, *, is_named: bool = False) -> TrainedHead:
    """Read what a checkpoint says; `is_named`: by a person, who may mean one whose training has not ended.

    Raises `UserError` when it is of another model than `model_name`, does not say how its features were made, or has not
    ended and was not named.
    """
    checkpoint = load_checkpoint(path)
    config = from_mapping(TrainConfig, checkpoint.config, path)
    if checkpoint.epoch < config.num_epochs and not is_named:
        raise UserError(
            f"{path}: {checkpoint.epoch} of {counted(config.num_epochs, 'epoch')}: its training runs, or was stopped; wait, or give the "
            f"command that trained it once more (common.train: with --resume). Another head: --split or --run; this one as it is: --checkpoint {path}"
        )
    model = paths.model(model_name or config.model)
    encoder = read_encoder_config(model.config)
    if model.name != config.model:
        raise UserError(
            f"{path}: a head for features of {config.model} (feature_dim {config.features_dim}), not of {model.name} "
            f"(feature_dim {encoder.feature_dim}); leave --model out, or give a checkpoint of {model.name}"
        )
    if checkpoint.feature_identity is None:
        raise UserError(
            f"{path}: trained on features without sidecars, so it is unknown how to make those of another video; "
            f"extract the training features with models/{model.name}/extract_features.py and train again"
        )
    mapping = PhaseMapping(tuple(checkpoint.phases), checkpoint.background)
    grid = LabelGrid(checkpoint.label_fps, checkpoint.label_every)
    rate = checkpoint.features_per_second
    return TrainedHead(path, config, checkpoint.feature_identity, mapping, model, encoder, grid, rate, checkpoint.epoch)


class Predictor:
    """A head and, as soon as a video needs it, its encoder; `weights` says where those of the encoder are now.

    `frames_fps` is the rate of videos that are folders of images; `accept_damaged` takes damaged ones as they are.
    Raises `UserError` when there is no such head, or it does not fit.
    """

    def __init__(
        self,
        trained: TrainedHead,
        *,
        device: str = "auto",
        weights: str | None = None,
        frames_fps: float | None = None,
        accept_damaged: bool = False,
    ):
        keep_freed_memory()
        self.trained, self.weights = trained, weights
        self.frames_fps, self.accept_damaged = frames_fps, accept_damaged
        self.device = select_device(device)
        self.head = load_head(trained.path, trained.config, trained.mapping.num_classes).to(self.device)

    def predict(self, video: Path, features: Path, folder: Path) -> VideoPhases:
        """Write `<video>.txt` and `<video>.npy` into `folder`, a row per decoded frame, from a video's features.

        Where the head has learned from labels at a rate of their own, rows are at that rate.

        Raises `UserError` when the features do not fit the head, or are not finite.
        """
        trained = self.trained
        config = trained.config
        opened = open_video(
            features,
            config.features_dim,
            grid=trained.grid,
            sample_rate=config.sample_rate,
            feature_stride=config.feature_stride,
        )
        rows = write_phases(self.head, opened, folder, trained.mapping, causal=config.sees_past_only)
        remarks = trained.remarks_on(video)
        if config.sees_past_only and opened.look_ahead_seconds:
            remarks += (
                f"features look ahead by {opened.look_ahead_seconds:g} s: this was not known when a frame was shown",
            )
        for remark in remarks[len(trained.remarks) :]:
            log.warning("%s: %s", video.name, remark)
        frames, seconds = opened.label_frames, opened.timeline.seconds
        return VideoPhases(
            video.name,
            seconds[frames],
            rows,
            trained.mapping,
            trained.description,
            remarks,
            frames=frames,
            frame_seconds=seconds,
        )

    def make_features(self, videos: dict[str, Path], folder: Path) -> Summary:
        """Leave features of `videos` in `folder`, made as the head's own were; those that are there already stay.

        Raises `UserError` for what concerns all of them: an encoder that cannot be had here, a full disk.
        """
        from common.features.extract import Summary  # trainings and test predictions load no decoder

        summary = Summary(skipped=[name for name in videos if self.is_usable(folder / f"{name}.npy", videos[name])])
        missing = {name: path for name, path in videos.items() if name not in summary.skipped}
        if missing:
            self.extraction.run(missing, folder, summary)
            summary.failed |= summary.busy  # another process's features are not there yet
        return summary

    def ready_features(self, videos: dict[str, Path], beside: Path) -> tuple[dict[str, Path], dict[str, str]]:
        """The feature file of each video, and the videos that failed with the reason.

        The data set's own where they are of this very video; others are made in `beside`, where they could not take the name
        of one of its videos.
        """
        trained = self.trained
        files = {name: beside / f"{name}.npy" for name in videos}
        with contextlib.suppress(UserError):  # the data set may be another machine's
            own = paths.dataset(trained.config.dataset).features(trained.model.name, trained.config.variant)
            files |= {
                name: own / f"{name}.npy" for name, path in videos.items() if self.is_usable(own / f"{name}.npy", path)
            }
        missing = {name: path for name, path in videos.items() if files[name].parent == beside}
        failed = self.make_features(missing, beside).failed if missing else {}
        return {name: path for name, path in files.items() if name not in failed}, dict(failed)

    def is_usable(self, features: Path, video: Path) -> bool:
        """Whether a feature file is whole, of this video, and made in the way of the head's own features."""
        try:
            if is_usable := is_extracted(features, self.trained.identity, video, frames_fps=self.frames_fps):
                open_features(features).verify()
            return is_usable
        except UserError as error:
            log.info("made again: %s", str(error).partition(";")[0])
            return False

    @cached_property
    def extraction(self) -> ExtractionLoop:
        """The extraction that made the head's training features.

        Raises `UserError` when it cannot be repeated here, naming what differs.
        """
        from common.encoders.base import build_encoder
        from common.features.extract import ExtractionLoop

        trained = self.trained
        # the architecture goes with the weights that the features were made with, wherever these are now
        published = trained.encoder.with_weights(trained.identity["weights"]["source"])
        options = extraction_like(trained.identity, published, self.weights)
        options = replace(options, accept_damaged=self.accept_damaged)
        encoder = build_encoder(with_options(published, options), options.weights, options.window)
        identity = trained.identity | {
            "weights": encoder.weights.to_json(),
            "pooling": encoder.config.pooling,
            "preprocessing": encoder.config.preprocessing.to_json(),
        }
        differences = identity_differences(trained.identity, identity)
        if encoder.feature_dim != trained.config.features_dim:
            differences.append(f"feature_dim: {trained.config.features_dim} in the file, {encoder.feature_dim} now")
        if differences:
            raise UserError(
                f"{trained.path}: {trained.model.name} makes other features here than the head learned from: "
                f"{'; '.join(differences)}"
            )
        encoder.prepare(self.device, choose_precision(options.precision, self.device))
        return ExtractionLoop(encoder, options, identity, frames_fps=self.frames_fps)


def predict_videos(
    experiment: Experiment,
    folder: Path,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    accept_damaged: bool = False,
) -> Path:
    """Predict the unlabelled videos of `folder`, a row for each label that they could have; returns where they are.

    Features that the data set has of these very videos are used. Others are made as the head's own were and stay
    beside the predictions: in the data set's folder they could take the name of one of its videos.

    Raises `UserError` when it is unknown how to make them (training features without a sidecar), when the encoder makes
    other features here, or a video cannot be read.
    """
    folder, config = folder.resolve(), experiment.config
    videos = paths.require_videos(folder)
    has_images = any(path.is_dir() for path in videos.values())
    predictor = Predictor(
        _head_of(experiment, checkpoint or experiment.checkpoint),
        device=device,
        frames_fps=read_description(paths.Dataset(folder.parent)).frames_fps if has_images else None,
        accept_damaged=accept_damaged,
    )
    target = experiment.model.unlabelled_results(experiment.dataset.name, folder.name, config.split, config.run_name)
    features = {name: experiment.features / f"{name}.npy" for name in videos}
    failed: dict[str, str] = {}
    if predictor.trained.identity is None:
        _require_features_from_elsewhere(experiment, videos)
    else:
        missing = {name: path for name, path in videos.items() if not predictor.is_usable(features[name], path)}
        # one folder for all splits: they learn from the same features
        beside = paths.Dataset(target.parent).features(experiment.model.name, config.variant)
        features |= {name: beside / f"{name}.npy" for name in missing}
        if missing:
            summary = predictor.make_features(missing, beside)
            summary.log(beside)
            failed = summary.failed
    for name in progress([name for name in videos if name not in failed], description="predict", unit="videos"):
        predictor.predict(videos[name], features[name], target)
    if failed:
        raise UserError(f"{len(failed)} of {len(videos)} videos failed; the others are in {target}")
    return target


def _head_of(experiment: Experiment, path: Path) -> TrainedHead:
    """An experiment's head, or another one for its features: a bare state dict is taken to have learned from them."""
    content = load_content(path)
    if is_own(content):
        identity, epoch = content["feature_identity"], content["epoch"]
    else:
        first = next(iter(experiment.train_labels))
        identity, epoch = open_features(experiment.features / f"{first}.npy").identity(), None
    return TrainedHead(
        path,
        experiment.config,
        identity,
        experiment.mapping,
        experiment.model,
        experiment.encoder,
        experiment.label_grid,
        epoch=epoch,
    )


def _require_features_from_elsewhere(experiment: Experiment, videos: dict[str, Path]) -> None:
    """Raise `UserError` unless somebody put features of these videos beside those of the training, which are his too.

    Without sidecars only the name tells whose they are: a video that has that of a labelled one is another video,
    unless it is the data set's own file.
    """
    dataset = experiment.dataset
    if read_description(dataset).feature_fps is not None and experiment.config.feature_stride == 1:
        raise UserError(
            f"{dataset.description}: feature_fps is not used for new videos, whose features would be taken for every "
            "frame; train with --feature_stride in place of it"
        )
    labelled = paths.label_paths(dataset.ground_truth) | paths.label_paths(dataset.ground_truth_val)
    for name, path in videos.items():
        features = on_disk(experiment.features / f"{name}.npy")
        if not features.is_file() or sidecar_path(features).is_file():
            raise UserError(
                f"{experiment.features}: features without sidecars, so it is unknown how to make more; extract the "
                f"features of {path.parent} yourself"
            )
        if name in labelled and path.parent != features_owner(dataset).videos.resolve():
            raise UserError(
                f"{path}: called as a labelled video of {dataset.name}, whose features {features} are; "
                "give it another name"
            )


@dataclass(frozen=True, eq=False)
class VideoPhases:
    """A head's answer for one video, frame by frame, and where the numbers come from.

    `seconds` `(T,)` are the presentation times of the frames, `probabilities` `(T, num_classes)` their phases';
    `source` names encoder and head, `remarks` what a reader must know before believing a number. With labels at a rate
    of their own these are the frames that carry one: `frames` `(T,)` are their numbers, `frame_seconds` the times of all
    decoded ones (None: all are here).
    """

    name: str
    seconds: np.ndarray
    probabilities: np.ndarray
    mapping: PhaseMapping
    source: str = ""
    remarks: tuple[str, ...] = ()
    frames: np.ndarray | None = None
    frame_seconds: np.ndarray | None = None

    @cached_property
    def first_frames(self) -> np.ndarray:
        """The decoded frame at which each row begins, and the number of decoded frames, `(T + 1,)`."""
        if self.frames is None:
            return np.arange(len(self.seconds) + 1)
        return np.append(self.frames, len(self.frame_seconds))

    @cached_property
    def every_frame(self) -> VideoPhases:
        """The same with a row for every decoded frame: that of the last label at or before it."""
        if self.frames is None or len(self.frames) == len(self.frame_seconds):
            return self
        rows = np.searchsorted(self.frames, np.arange(len(self.frame_seconds)), side="right") - 1
        probabilities = self.probabilities[np.maximum(rows, 0)]
        return VideoPhases(self.name, self.frame_seconds, probabilities, self.mapping, self.source, self.remarks)

    @cached_property
    def phase_ids(self) -> np.ndarray:
        """The likeliest phase of each frame, `(T,)`."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the likeliest phase of each frame, `(T,)`."""
        return self.probabilities.max(axis=1)

    @cached_property
    def segments(self) -> Segments:
        """Runs of one phase."""
        return find_segments(self.phase_ids)

    @cached_property
    def edges(self) -> np.ndarray:
        """Seconds at which each frame starts, and at which the last ends, `(T + 1,)`."""
        return frame_edges(self.seconds)
