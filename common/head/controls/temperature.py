"""Temperature: how much too sure a head is, measured on training videos kept aside, and what dividing by it does to the test.

Probabilities are those of the logits divided by one number (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). The
number comes from one more head on four fifths of the training videos, so that the test has no say; phases stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.base import paths
from common.base.files import write_json
from common.dataset.phases import IGNORED, read_labels
from common.head.checkpoint import load_head
from common.head.controls.inner import kept_aside
from common.head.experiment import Experiment
from common.head.prediction import phase_probabilities
from common.head.run_record import read_run_record
from common.head.training import train
from common.scoring.folder import read_probabilities
from common.scoring.metrics import calibration_bins

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
    with kept_aside(experiment, "temperature", {}) as inner:
        train(inner, device=device, resume=True)
        head = load_head(inner.checkpoint, inner.config, inner.mapping.num_classes)
        rows, phases = [], []
        for video in inner.open(inner.held_out_labels):
            counts = video.target != IGNORED
            rows.append(phase_probabilities(head, video)[: len(counts)][counts])
            phases.append(video.target[counts])
        aside = sorted(inner.held_out)
    value = fit_temperature(np.concatenate(rows), np.concatenate(phases))
    bins = 0
    for name, labels in experiment.test_labels.items():
        true = read_labels(labels, experiment.mapping)
        shape = len(true), experiment.mapping.num_classes
        likely = tempered(read_probabilities(experiment.results / f"{name}.npy", *shape), value)
        true[len(true) - record["unreached_labels"].get(name, 0) :] = IGNORED
        bins = bins + calibration_bins(true[true != IGNORED], likely[true != IGNORED])
    found = {"value": value, "held_out": aside, "bins": np.asarray(bins).tolist()}
    write_json(path, record | {"temperature": found})
    return found


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
