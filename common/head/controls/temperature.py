"""Temperature: how much too sure a head is, measured on training videos kept aside, and what dividing by it does to the test.

Probabilities are those of the logits divided by one number (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). The
number comes from one more head on four fifths of the training videos, so that the test has no say; phases stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.base import paths
from common.base.files import write_json
from common.head.controls.inner import answers_aside, videos_aside
from common.head.experiment import Experiment
from common.head.run_record import read_run_record
from common.scoring.folder import score_folder
from common.scoring.metrics import calibration_bins
from common.scoring.video_score import VideoScore

BOUNDS = 0.05, 20.0  # outside of these a head is constant, or has not learned
SMALLEST = float(np.finfo(np.float32).tiny)  # a probability that is 0 in float32 has no logarithm


def add_temperature(experiment: Experiment, *, device: str) -> dict[str, Any]:
    """Fit the temperature of a finished run's head and put it into `run.json`; returns that block.

    Its `bins` are those of the test's calibration afterwards, `(NUM_BINS, 3)`.
    """
    path = experiment.results / paths.RUN_RECORD
    record = read_run_record(path)
    if record.get("temperature"):
        return record["temperature"]
    aside = videos_aside(experiment)
    value = fit_temperature(*answers_aside(experiment, aside, "temperature", {}, device=device))
    scores = score_folder(
        experiment.test_labels,
        experiment.results,
        experiment.mapping,
        experiment.results,
        unreached=record["unreached_labels"],
    )
    bins = sum(_bins_afterwards(score, value) for score in scores.values())
    found = {"value": value, "held_out": sorted(aside), "bins": bins.tolist()}
    write_json(path, record | {"temperature": found})
    return found


def _bins_afterwards(score: VideoScore, temperature: float) -> np.ndarray:
    """Calibration bins of a scored video after dividing by the temperature, of the frames that count."""
    counts = score.counts
    return calibration_bins(score.true[counts], tempered(score.load_probabilities()[counts], temperature))


def fit_temperature(probabilities: np.ndarray, phases: np.ndarray) -> float:
    """The temperature with the smallest negative log likelihood of `phases` `(T,)` under `probabilities` `(T, num_classes)`."""
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float(np.mean(total - scaled[np.arange(len(phases)), phases]))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded").x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `(T, num_classes)` of the logits divided by a temperature, as float32."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
