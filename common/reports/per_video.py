"""One row a video, encoder and protocol: the base of every mean, interval and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.base.runtime import atomic_path
from common.dataset.kfold import prefix_stratum
from common.reports.results import EncoderResult
from common.scoring.metrics import MEASURES, calibration_error
from common.scoring.protocols import Protocol


def per_video_table(
    results: Sequence[EncoderResult], protocols: Sequence[Protocol], patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Every measure in percent, boundary error in seconds; undefined values are NaN."""
    return pd.DataFrame(
        {
            "Encoder": result.name,
            "Seed": split.record["seed"],
            "Split": split.record["split"],
            "Protocol": protocol.name,
            "Video": video,
            "Prefix": prefix_stratum(video),
            "Patient": (patients or {}).get(video),
            "Frames": score.num_frames,
            "Minutes": score.num_frames / score.fps / 60 if score.fps else np.nan,
            **{f"{name} %": 100 * result.video_values(protocol)[video][key] for key, name in MEASURES.items()},
            "Calibration error %": np.nan if score.calibration is None else 100 * calibration_error(score.calibration),
            "Median boundary error s": _median(score.boundary_seconds),
        }
        for result in results
        for split in result.splits
        for protocol in protocols
        for video, score in split.scores.items()
    )


def save_per_video(table: pd.DataFrame, path: Path) -> Path:
    """Write `per_video.csv` atomically; an undefined value is an empty field."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    return path


def _median(seconds: np.ndarray) -> float:
    defined = seconds[np.isfinite(seconds)]
    return float(np.median(defined)) if defined.size else float("nan")
