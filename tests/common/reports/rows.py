"""Rows of a comparison that were never trained: what they predict and what their record says is made up."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.head.config import TrainConfig
from common.reports.results import EncoderResult, SplitResult
from common.scoring.video_score import VideoScore

PHASES = ("background", "incision", "wash")
FRAMES = 200
TRUE = np.repeat([0, 1, 2], [20, 60, 120])


def predictions(accuracy: float) -> np.ndarray:
    """Phases `(FRAMES,)` of which this share is correct, 0.6 or more: `wash` from the start on for all others."""
    predicted = TRUE.copy()
    predicted[: round(FRAMES * (1 - accuracy))] = 2
    return predicted


def record_of(name: str, videos: list[str], **changes: Any) -> dict[str, Any]:
    """The record of a run of `changes["config"]`, a `TrainConfig`, with other changes to its entries."""
    config = changes.pop("config", TrainConfig(model=name, features_dim=8))
    return {
        "synthetic": False, "split": "1", "seed": 42, "phases": list(PHASES), "videos": videos, "folds_hash": "f" * 64,
        "git": {"commit": None, "dirty": None}, "versions": {}, "train_seconds": 1.0, "history": None, "fps": {},
        "config": asdict(config), "features": {"identity": None, "random_weights": False, "num_parameters": None},
    } | changes  # fmt: skip


def row(
    name: str, accuracies, *, videos: list[str] | None = None, run: str | None = None, **changes: Any
) -> EncoderResult:
    """One split of an encoder that has these accuracies, one a video (`video000`...); see `record_of`."""
    videos = videos or [f"video{number:03}" for number in range(len(accuracies))]
    scores = {
        video: VideoScore(TRUE.copy(), predictions(accuracy), len(PHASES), 0, 5.0)
        for video, accuracy in zip(videos, accuracies, strict=True)
    }
    return EncoderResult(paths.Model(Path(name)), run, [SplitResult(record_of(name, videos, **changes), scores)])
