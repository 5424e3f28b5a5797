"""A trained head on new videos: its checkpoint, and features made as its training's were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.options import from_mapping
from common.base.runtime import (
    UserError,
    progress,
    read_json,
    select_device,
)
from common.dataset.phases import PhaseMapping
from common.dataset.segments import Segments, find_segments
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.source import RANDOM
from common.features.config import ExtractionConfig, extraction_like
from common.features.extract import extract
from common.features.files import identity_differences, open_features
from common.head.batch_gen import LabelledVideo, open_video
from common.head.checkpoint import load_checkpoint, load_head
from common.head.config import TrainConfig
from common.head.experiment import VALIDATION, Experiment
from common.head.prediction import _predict_video


def find_head(model: paths.Model, dataset: str, *, split: str | None = None, run: str | None = None) -> Path:
    """The head of a model's run; without `split` that of the validation split, else of the first fold.

    Raises `UserError` naming the heads that there are.
    """
    name = Path(dataset).name
    if split:
        candidates = [model.checkpoint(name, split, run)]
    else:
        folds = _trained(model, model.checkpoint(name, "[0-9]*", run))
        folds.sort(key=lambda path: int(path.parent.name.removeprefix("split_")))
        candidates = [model.checkpoint(name, VALIDATION, run), *folds]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        there = [str(path) for path in _trained(model, model.checkpoint("**", "*"))]
        raise UserError(
            f"{candidates[0]}: no such checkpoint; trained heads of {model.name}: {', '.join(there) or 'none'}. Choose "
            "one with --checkpoint (or --dataset, --split, --run), or train with python -m common.train"
        )
    return found


def _trained(model: paths.Model, pattern: Path) -> list[Path]:
    return sorted(model.root.glob(str(pattern.relative_to(model.root))))


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head's checkpoint and what it says of itself: nothing else of its training need be on this machine.

    `identity` is how its features were made (`features.IDENTITY`).
    """

    path: Path
    config: TrainConfig
    identity: dict[str, Any]
    mapping: PhaseMapping
    model: paths.Model
    encoder: EncoderConfig

    @property
    def dataset(self) -> str:
        return Path(self.config.dataset).name

    @property
    def description(self) -> str:
        """Encoder, head and training set in a line."""
        run = f", run {self.config.run_name}" if self.config.run_name else ""
        split = f"split {self.config.split}{run}"
        return f"{self.encoder.title} features, MS-TCN++ head trained on {self.dataset} ({split})"

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What must be known before any phase of this head is believed."""
        remarks = []
        if self.identity["weights"]["source"] == RANDOM:
            remarks.append("random encoder weights: this encoder has learned nothing")
        if self._is_synthetic():
            remarks.append("head trained on synthetic data: it has seen no surgery")
        return tuple(remarks)

    def _is_synthetic(self) -> bool:
        """As the run's record says, or else the data set; taken for real where neither is on this machine."""
        record = self.model.split_results(self.dataset, self.config.split, self.config.run_name) / paths.RUN_RECORD
        if record.is_file():
            return read_json(record)["synthetic"]
        try:
            return paths.dataset(self.config.dataset).is_synthetic
        except UserError:
            return False


def open_head(path: Path, model_name: str | None = None) -> TrainedHead:
    """Read what a checkpoint says.

    Raises `UserError` when it is of another model than `model_name`, or does not say how its features were made.
    """
    checkpoint = load_checkpoint(path)
    config = from_mapping(TrainConfig, checkpoint.config, path)
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
    return TrainedHead(
        path, config, checkpoint.feature_identity, PhaseMapping(tuple(checkpoint.phases)), model, encoder
    )


def predict_videos(
    experiment: Experiment, folder: Path, *, device: str = "auto", checkpoint: Path | None = None
) -> Path:
    """Predict the unlabelled videos of `folder`, one row a decoded frame; returns the folder of the predictions.

    Missing features are extracted in the way that the head's training features were made.

    Raises `UserError` when that way is unknown (training features without a sidecar), when features that are there
    were made in another way, or a video cannot be read.
    """
    path = checkpoint or experiment.checkpoint
    head = load_head(path, experiment.config, experiment.mapping.num_classes).to(select_device(device))
    videos = paths.find_videos(folder.resolve())
    identity = _training_identity(experiment)
    failed: dict[str, str] = {}
    if not videos or any(not (experiment.features / f"{name}.npy").is_file() for name in videos):
        failed = extract(
            experiment.model, _extraction_like_training(experiment, identity, folder), device=device
        ).failed
    config = experiment.config
    target = experiment.model.unlabelled_results(
        experiment.dataset.name, folder.resolve().name, config.split, config.run_name
    )
    for name in progress([name for name in videos if name not in failed], description="predict", unit="videos"):
        video = open_video(experiment.features / f"{name}.npy", experiment.feature_dim, sample_rate=config.sample_rate)
        _check_like_training(video, identity)
        _predict_video(head, video, target, experiment.mapping)
    if failed:
        raise UserError(f"{len(failed)} of {len(videos)} videos failed; the others are in {target}")
    return target


def _training_identity(experiment: Experiment) -> dict[str, Any] | None:
    """How the training features were made; None for features without sidecars."""
    name = next(iter(experiment.train_labels))
    return open_features(experiment.features / f"{name}.npy").identity()


def _check_like_training(video: LabelledVideo, identity: dict[str, Any] | None) -> None:
    if identity_differences(video.source.identity(), identity):
        raise UserError(
            f"{video.source.path}: made in another way than the training features (see the .json files); remove it, "
            "and it is made again"
        )


def _extraction_like_training(
    experiment: Experiment, identity: dict[str, Any] | None, folder: Path
) -> ExtractionConfig:
    """The extraction that made the training features, for another folder of videos."""
    if identity is None:
        raise UserError(
            f"{experiment.features}: features without sidecars, so it is unknown how to make more; extract the "
            f"features of {folder} yourself"
        )
    return replace(
        extraction_like(identity, experiment.encoder),
        dataset=str(experiment.dataset.root),
        videos=str(folder),
        variant=experiment.config.variant,
    )


@dataclass(frozen=True, eq=False)
class VideoPhases:
    """What a head says about one video, frame by frame, and where the numbers come from.

    `seconds` `(T,)` are the presentation times of the frames, `probabilities` `(T, num_classes)` their phases';
    `source` names encoder and head, `remarks` what a reader must know before believing a number.
    """

    name: str
    seconds: np.ndarray
    probabilities: np.ndarray
    mapping: PhaseMapping
    source: str = ""
    remarks: tuple[str, ...] = ()

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
        """Seconds at which each frame starts, and at which the last ends, `(T + 1,)`.

        A video does not say how long its last frame is shown: it counts as long as the median of the others.
        """
        last = float(np.median(np.diff(self.seconds))) if len(self.seconds) > 1 else 0.0
        return np.append(self.seconds, self.seconds[-1] + last)
