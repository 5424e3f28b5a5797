"""Predictions of a trained head for a split's test videos, in the challenge's files, and their scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from common.base import paths
from common.base.files import atomic_path, write_json
from common.base.runtime import (
    choose_algorithms,
    device_name,
    git_state,
    keep_freed_memory,
    peak_memory_bytes,
    progress,
    select_device,
    versions,
)
from common.dataset.phases import IGNORED, PhaseMapping, labels_hash, read_labels, write_prediction
from common.head.batch_gen import VideoFeatures, pad_batch, read_rows
from common.head.checkpoint import load_checkpoint, load_head
from common.head.experiment import Experiment

if TYPE_CHECKING:
    from common.head.networks.layers import Head


def predict(experiment: Experiment, *, device: str = "auto", checkpoint: Path | None = None) -> dict[str, Any]:
    """Predict and score the test videos of a split; returns what is written to `run.json`.

    Files are `<video>.txt` and `<video>.npy` with a row for each label; `run.json` comes last and completes the run.

    Raises `UserError` when there is no checkpoint, or it does not fit the data.
    """
    keep_freed_memory()
    choose_algorithms(deterministic=experiment.config.deterministic)
    path = checkpoint or experiment.checkpoint
    target_device = select_device(device)
    head = load_head(path, experiment.config, experiment.mapping.num_classes).to(target_device)
    videos = experiment.open(experiment.test_labels)
    path_of, causal = _decoder(experiment), experiment.config.sees_past_only

    def write(video: VideoFeatures) -> None:
        write_phases(head, video, experiment.results, experiment.mapping, causal=causal, path_of=path_of)

    trained = None if checkpoint else load_checkpoint(path)
    learned = {"num_parameters": sum(parameter.numel() for parameter in head.parameters())}
    if trained is not None:
        learned |= {
            "train_inputs_hash": trained.inputs_hash,
            "history": trained.history,
            "train_seconds": round(sum(entry["seconds"] for entry in trained.history), 3),
        } | describe_training_part(experiment)
    return write_run(experiment, videos, write, learned, device_name(target_device))


def describe_training_part(experiment: Experiment) -> dict[str, Any]:
    """What a run's record says of the videos that were learned from."""
    phases = np.concatenate([read_labels(path, experiment.mapping) for path in experiment.train_labels.values()])
    counts = np.bincount(phases[phases != IGNORED])
    return {
        "num_train_videos": len(experiment.train_labels),
        # what a head that has learned nothing else gets right
        "train_majority_share": float(counts.max() / counts.sum()) if counts.any() else None,
    }


def write_run(
    experiment: Experiment,
    videos: list[VideoFeatures],
    write: Callable[[VideoFeatures], object],
    learned: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Have `write` make the files of every video, score them, and complete the run by its record, which is returned.

    `learned`: what the record says of the training, and `device` of where the prediction was made.
    """
    # here: new videos come to this module too, and have nothing to be scored on
    from common.scoring.folder import score_folder, to_json
    from common.scoring.protocols import CHALLENGE, summarise

    started = time.monotonic()
    # An earlier prediction goes first, and its record before its files: a folder without a record is not finished, so
    # that what a kill leaves here is never taken for a run.
    (experiment.results / paths.RUN_RECORD).unlink(missing_ok=True)
    for earlier in [*experiment.results.glob("*.txt"), *experiment.results.glob("*.npy")]:
        earlier.unlink(missing_ok=True)  # macOS removes `._x.txt` with `x.txt`
    for video in progress(videos, description=f"predict split {experiment.config.split}", unit="videos"):
        write(video)
    repeated = {video.name: max(0, video.num_labels - len(video.label_frames)) for video in videos}
    # labels at a rate of their own may lie past the last frame: none of them can be predicted
    unreached = {} if experiment.label_grid.is_every_frame else {name: n for name, n in repeated.items() if n}
    # scored as everybody else will: from the files
    labels, folder = experiment.test_labels, experiment.results
    scores = score_folder(labels, folder, experiment.mapping, folder, unreached=unreached)
    record = _provenance(experiment, videos) | learned
    record |= {
        "repeated_rows": {name: count for name, count in repeated.items() if count},
        "unreached_labels": unreached,
        "metrics": {"challenge": to_json(summarise(scores.values(), CHALLENGE))},
        "device": device,
        "predict_seconds": round(time.monotonic() - started, 3),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    write_json(experiment.results / paths.RUN_RECORD, record)
    return record


def _decoder(experiment: Experiment) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes phases of a video's log probabilities, by the labels of the training videos; None = each frame's own."""
    if experiment.decode == "argmax":
        return None
    from common.head.networks.viterbi import count_transitions, most_probable_path  # few runs are decoded

    learned = [video.target for video in experiment.open(experiment.train_labels)]
    transitions = count_transitions(learned, experiment.mapping.num_classes)
    return partial(most_probable_path, transitions=transitions)


def _provenance(experiment: Experiment, videos: list[VideoFeatures]) -> dict[str, Any]:
    """The identity of a run: configuration, inputs, versions; what there is of its training comes on top."""
    identity = videos[0].source.identity()
    sidecar = videos[0].source.sidecar or {}
    return {
        "format": 1,
        "dataset": experiment.dataset.name,
        "synthetic": experiment.dataset.is_synthetic,
        "model": experiment.model.name,
        "title": experiment.encoder.title,
        "split": experiment.config.split,
        "run": experiment.run_name,
        "decode": experiment.decode,
        "choice": experiment.choice,
        "acquired": experiment.acquired,
        "seed": experiment.config.seed,
        "phases": list(experiment.mapping.names),
        "config": asdict(experiment.recorded_config),
        "folds_hash": experiment.folds_hash,
        "train_inputs_hash": None,
        "test_inputs_hash": experiment.inputs_hash(videos, experiment.test_labels),
        "labels_hash": labels_hash(experiment.dataset, experiment.config.split, experiment.mapping),
        "features": {
            "identity": identity,
            "random_weights": bool(identity) and identity["weights"]["source"] == "random",
            "num_parameters": sidecar.get("num_parameters"),
            "precision": sidecar.get("precision"),
            "recipe": sidecar.get("recipe"),
        },
        "videos": [video.name for video in videos],
        "damaged_videos": {video.name: video.damage for video in videos if video.damage},
        "look_ahead_seconds": max(video.look_ahead_seconds for video in videos),
        "fps": {video.name: video.label_fps for video in videos if video.label_fps},
        "history": None,
        "train_seconds": None,
        "num_train_videos": None,
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "git": git_state(paths.CHECKOUT),
    }


def write_phases(
    head: Head,
    video: VideoFeatures,
    folder: Path,
    mapping: PhaseMapping,
    *,
    causal: bool,
    path_of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Write one video's `<video>.txt` and `<video>.npy`; returns the probabilities `(num_labels, num_classes)`.

    A label takes the output at the nearest feature, with a `causal` head at the last one before it, since a later one
    is not known yet; labels after the video's end take the last. Phases are the most probable of each row, or what
    `path_of` makes of the log probabilities `(T, num_classes)` of all features.
    """
    logits, of_labels = _logits(head, video), video.rows_of_labels(causal=causal)
    rows = logits.softmax(dim=0).T.cpu().numpy()[of_labels]
    # the logarithm of a probability that is 0 in float32 would be infinite
    phases = path_of(logits.log_softmax(dim=0).T.cpu().numpy())[of_labels] if path_of else rows.argmax(axis=1)
    write_files(video.name, phases, rows, folder, mapping)
    return rows


def write_files(name: str, phases: np.ndarray, rows: np.ndarray, folder: Path, mapping: PhaseMapping) -> None:
    """Write `<video>.txt` of phases `(num_labels,)` and `<video>.npy` of probabilities `(num_labels, num_classes)`."""
    write_prediction(folder / f"{name}.txt", phases, mapping)
    with atomic_path(folder / f"{name}.npy") as temporary:
        np.save(temporary, rows)


def phase_probabilities(head: Head, video: VideoFeatures) -> np.ndarray:
    """Softmaxed output of the last stage `(T, num_classes)` float32, a row for each feature of the video."""
    return _logits(head, video).softmax(dim=0).T.cpu().numpy()


@torch.inference_mode()
def _logits(head: Head, video: VideoFeatures) -> torch.Tensor:
    """Output of the last stage `(num_classes, T)` float32, on the head's device."""
    rows = read_rows(video)
    batch = pad_batch([(video.name, rows, np.zeros(len(rows), dtype=np.int64))])
    device = next(head.parameters()).device
    return head(batch.features.to(device))[-1, 0].float()
