"""Predictions of a trained head, in the challenge's files, and the record of the run."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import paths
from common.batch_gen import LabelledVideo, collate, open_video, read_rows
from common.checkpoint import Checkpoint, load_checkpoint, load_head
from common.config import ExtractionConfig
from common.evaluation import score_folder, to_json
from common.experiment import Experiment, config_record
from common.extraction import extract
from common.extraction_like import extraction_like
from common.features import identity_differences, open_features
from common.mstcn import MS_TCN2
from common.phases import PhaseMapping, write_prediction
from common.protocols import CHALLENGE, summarise
from common.runtime import (
    UserError,
    atomic_path,
    git_state,
    keep_freed_memory,
    peak_memory_bytes,
    progress,
    select_device,
    versions,
    write_json,
)

log = logging.getLogger(__name__)

RUN_RECORD = "run.json"


def predict(experiment: Experiment, *, device: str = "auto", checkpoint: Path | None = None) -> dict[str, Any]:
    """Predict and score the test videos of a split; returns what is written to `run.json`.

    Files are `<video>.txt` and `<video>.npy` with a row for each label; `run.json` comes last and completes the run.

    Raises `UserError` when there is no checkpoint, or it does not fit the data.
    """
    keep_freed_memory()
    started = time.monotonic()
    path = checkpoint or experiment.checkpoint
    target_device = select_device(device)
    head = load_head(path, experiment.config, experiment.mapping.num_classes).to(target_device)
    videos = experiment.open(experiment.test_labels)
    _clear(experiment.results)
    repeated = {}
    for video in progress(videos, description=f"predict split {experiment.config.split}", unit="videos"):
        repeated[video.name] = _predict_video(head, video, experiment.results, experiment.mapping)
    scores = score_folder(experiment.test_labels, experiment.results, experiment.mapping, experiment.results)
    trained = None if checkpoint else load_checkpoint(path)
    record = _run_record(experiment, videos, trained) | {
        "num_parameters": sum(parameter.numel() for parameter in head.parameters()),
        "repeated_rows": {name: count for name, count in repeated.items() if count},
        "metrics": {"challenge": to_json(summarise(scores.values(), CHALLENGE))},
        "device": device_name(target_device),
        "predict_seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    write_json(experiment.results / RUN_RECORD, record)
    return record


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


def _clear(folder: Path) -> None:
    """Remove an earlier prediction, its record first: what is left after a kill is not taken for a finished run."""
    (folder / RUN_RECORD).unlink(missing_ok=True)
    for path in [*folder.glob("*.txt"), *folder.glob("*.npy")]:
        path.unlink()


def _predict_video(head: MS_TCN2, video: LabelledVideo, folder: Path, mapping: PhaseMapping) -> int:
    """Write one video's phases and probabilities; returns how many of its last rows repeat the one before."""
    probabilities = phase_probabilities(head, video)
    rows = probabilities[video.timeline.nearest_sample(video.num_labels)]
    write_prediction(folder / f"{video.name}.txt", rows.argmax(axis=1), mapping)
    with atomic_path(folder / f"{video.name}.npy") as temporary:
        np.save(temporary, rows)
    return max(0, video.num_labels - video.timeline.num_frames)


@torch.inference_mode()
def phase_probabilities(head: MS_TCN2, video: LabelledVideo) -> np.ndarray:
    """Softmaxed output of the last stage `(T, num_classes)` float32, a row for each feature of the video."""
    rows = read_rows(video)
    batch = collate([(video.name, rows, np.zeros(len(rows), dtype=np.int64))])
    device = next(head.parameters()).device
    logits = head(batch.features.to(device))[-1, 0]
    return logits.float().softmax(dim=0).T.cpu().numpy()


def device_name(device: torch.device) -> str:
    """A device and what decides its last digits: the GPU's model, or the CPU's vector instructions."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _run_record(experiment: Experiment, videos: list[LabelledVideo], trained: Checkpoint | None) -> dict[str, Any]:
    """What identifies a run: configuration, inputs, versions, and the training's history."""
    identity = videos[0].source.identity()
    sidecar = videos[0].source.sidecar or {}
    return {
        "format": 1,
        "dataset": experiment.dataset.name,
        "synthetic": experiment.dataset.is_synthetic,
        "model": experiment.model.name,
        "title": experiment.encoder.title,
        "split": experiment.config.split,
        "run": experiment.config.run_name,
        "seed": experiment.config.seed,
        "phases": list(experiment.mapping.names),
        "config": config_record(experiment.config),
        "folds_hash": experiment.folds_hash,
        "train_inputs_hash": trained.inputs_hash if trained else None,
        "test_inputs_hash": experiment.inputs_hash(videos, experiment.test_labels),
        "features": {
            "identity": identity,
            "random_weights": bool(identity) and identity["weights"]["source"] == "random",
            "num_parameters": sidecar.get("num_parameters"),
            "precision": sidecar.get("precision"),
        },
        "videos": [video.name for video in videos],
        "fps": {video.name: video.timeline.fps for video in videos if video.source.sidecar},
        "history": trained.history if trained else None,
        "train_seconds": round(sum(entry["seconds"] for entry in trained.history), 3) if trained else None,
        "num_train_videos": len(experiment.train_labels) if trained else None,
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "git": git_state(paths.CHECKOUT),
    }
