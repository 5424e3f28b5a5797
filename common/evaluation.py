"""Score a folder of predictions against a folder of ground truths, as the official SICS-155 scorer does.

python -m common.evaluation GROUND_TRUTH_DIR PREDICTION_DIR --mapping_path M [--probability_path DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import numpy as np

from common import paths
from common.metrics import MEASURES, VideoScore, challenge_summary, score_video
from common.phases import PhaseMapping, read_labels, read_mapping, require_labels
from common.runtime import UserError, progress, run_main, write_json

log = logging.getLogger(__name__)

PROTOCOL = "challenge"
# the official scorer's words; the rest follows its pattern
PRINTED = {"accuracy": "Accuracy", "f1_macro": "F1 Score", "edit": "Edit Score", "pr_auc": "PR AUC"}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.evaluation`."""
    parser = argparse.ArgumentParser(prog="python -m common.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH_DIR", help="folder of <video>.txt")
    parser.add_argument("predictions", type=Path, metavar="PREDICTION_DIR", help="folder of <video>.txt")
    parser.add_argument("--mapping_path", type=Path, help="phase names (default: the repository's mapping.txt)")
    parser.add_argument(
        "--probability_path", type=Path, help="folder of <video>.npy (default: PREDICTION_DIR where it has them)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures as fractions of 1")
    given = parser.parse_args(argv)
    mapping = read_mapping(given.mapping_path or paths.default_mapping())
    scores = score_folder(
        require_labels(given.ground_truth), given.predictions, mapping, given.probability_path or given.predictions
    )
    summary = challenge_summary(scores.values())
    for key, name in MEASURES.items():
        value = summary[key]
        print(f"Average {PRINTED.get(key, name)}: {'n/a' if math.isnan(value) else f'{value:.4f}'}")
    if given.json:
        write_json(given.json, {PROTOCOL: to_json(summary)})
    return 0


def to_json(summary: dict[str, float]) -> dict[str, float | None]:
    """Measures with null where one is not defined."""
    return {key: None if math.isnan(value) else value for key, value in summary.items()}


def score_folder(
    labels: dict[str, Path], predictions: Path, mapping: PhaseMapping, probabilities: Path
) -> dict[str, VideoScore]:
    """Score every video of `labels` (name -> file) against `<video>.txt` and, where it is there, `<video>.npy`.

    Raises `UserError` naming the video for a missing prediction, another length, or unsuitable probabilities.
    """
    scores = {}
    for name, path in progress(labels.items(), description="score", unit="videos"):
        true = read_labels(path, mapping)
        predicted_path = predictions / f"{name}.txt"
        predicted = read_labels(predicted_path, mapping)
        if len(predicted) != len(true):
            raise UserError(
                f"{predicted_path}: {len(predicted)} frames, but {len(true)} labels in {path}; predict again"
            )
        probability_path = probabilities / f"{name}.npy"
        has_probabilities = probability_path.is_file()
        frame_probabilities = (
            read_probabilities(probability_path, len(true), mapping.num_classes) if has_probabilities else None
        )
        scores[name] = score_video(true, predicted, frame_probabilities, mapping.num_classes)
    without = [name for name, score in scores.items() if math.isnan(score.pr_auc)]
    if 0 < len(without) < len(scores):
        log.warning("no PR-AUC: %d videos have no probabilities, for example %s", len(without), without[0])
    return scores


def read_probabilities(path: Path, num_frames: int, num_classes: int) -> np.ndarray:
    """Read `<video>.npy`, `(num_frames, num_classes)`.

    Raises `UserError` for another shape and for values that are not finite. Values outside 0..1 (raw logits) too:
    ranked within a class over frames, they give another PR-AUC than probabilities.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable .npy file ({error}); predict again") from error
    if values.shape != (num_frames, num_classes):
        raise UserError(f"{path}: expected shape {(num_frames, num_classes)} (frames, phases), found {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 + 1e-6:
        raise UserError(f"{path}: expected probabilities between 0 and 1, found {values.min():g} to {values.max():g}")
    return values


if __name__ == "__main__":
    run_main(main)
