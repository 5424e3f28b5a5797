"""The record of a run: what it was made from."""

from __future__ import annotations

from typing import Any

import torch

from common.base import paths
from common.base.runtime import (
    git_state,
    versions,
)
from common.head.batch_gen import LabelledVideo
from common.head.checkpoint import Checkpoint
from common.head.config import config_record
from common.head.experiment import Experiment

RUN_RECORD = "run.json"


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
