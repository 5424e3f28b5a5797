"""Floors under a head: what knows no features, and what knows no time, as runs beside the others with files like theirs.

`majority` answers every frame with the shares of the phases in the training part; `linear` is a logistic regression of single
frames on standardised features. What a head adds to them is its worth.
"""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.base.locks import hold
from common.base.runtime import UserError
from common.dataset.phases import IGNORED
from common.head.batch_gen import VideoFeatures
from common.head.config import FLOORS
from common.head.experiment import Experiment
from common.head.prediction import describe_training_part, write_files, write_run
from common.head.run_record import is_finished

log = logging.getLogger(__name__)

MOST_FRAMES = 10_000  # that the regression learns from: a fold takes seconds, and neighbours say nearly the same
MOST_ITERATIONS = 200
Floor = Callable[[np.ndarray], np.ndarray]  # features (T, feature_dim) -> probabilities (T, num_classes)


def run_floors(
    experiment: Experiment, title: str, *, force: bool = False, beside: dict[str, Any] | None = None
) -> None:
    """Write those floors of a split that are not there, or are of other features or labels than there are now.

    `beside`: the record of a run on the same files (`is_finished`).
    """
    for kind, name in FLOORS.items():
        floor = replace(experiment, config=experiment.config.of_floor(kind), decode="argmax")
        with hold(floor.results):
            if not force and _is_there(floor, beside):
                continue
            log.debug("%s, floor: %s", title, name)  # seconds, and never what one waits for
            write_floor(floor, kind)


def _is_there(floor: Experiment, beside: dict[str, Any] | None) -> bool:
    try:
        return is_finished(floor, beside)
    except UserError:  # of other settings: made anew in seconds
        return False


def write_floor(floor: Experiment, kind: str) -> dict[str, Any]:
    """Fit a floor to the training part, predict and score the test videos; returns what is written to `run.json`."""
    started = time.monotonic()
    learned_from, videos = floor.open(floor.train_labels), floor.open(floor.test_labels)
    answer, num_parameters = FITTED[kind](learned_from, floor.mapping.num_classes)
    learned = describe_training_part(floor) | {
        "floor": kind,
        "num_parameters": num_parameters,
        "train_inputs_hash": floor.inputs_hash(learned_from, floor.train_labels),
        "train_seconds": round(time.monotonic() - started, 3),
    }

    def write(video: VideoFeatures) -> None:
        rows = answer(video.rows)[video.rows_of_labels()]
        write_files(video.name, rows.argmax(axis=1), rows, floor.results, floor.mapping)

    return write_run(floor, videos, write, learned, "cpu")


def fit_majority(videos: Sequence[VideoFeatures], num_classes: int) -> tuple[Floor, int]:
    """The shares of the phases among the labels that count, for every frame; and the number of parameters."""
    targets = np.concatenate([video.target for video in videos])
    counts = np.bincount(targets[targets != IGNORED], minlength=num_classes)
    shares = (counts / counts.sum()).astype(np.float32)
    return lambda rows: np.broadcast_to(shares, (len(rows), num_classes)), num_classes


def fit_linear(videos: Sequence[VideoFeatures], num_classes: int) -> tuple[Floor, int]:
    """Logistic regression (C = 1) on features standardised over what it learns from; and the number of parameters.

    It learns from `every_nth`. A phase that is not among them has probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, phases = every_nth(videos, MOST_FRAMES)
    found = np.unique(phases)
    if len(found) < 2:  # nothing to tell apart
        return fit_majority(videos, num_classes)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a floor needs no last digit: the iterations end where they end
        model.fit(rows, phases)

    def answer(features: np.ndarray) -> np.ndarray:
        likely = np.zeros((len(features), num_classes), dtype=np.float32)
        likely[:, found] = model.predict_proba(np.asarray(features, dtype=np.float32))
        return likely

    return answer, model[-1].coef_.size + model[-1].intercept_.size


def every_nth(videos: Sequence[VideoFeatures], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Features `(n, feature_dim)` float32 and phases `(n,)` of every n-th frame of each phase, about `most` in all.

    Each phase keeps its share, and at least one frame.

    Raises `UserError` naming the video when one of them is not finite.
    """
    targets = [video.target for video in videos]
    joined = np.concatenate(targets)
    step = max(1, -(-np.count_nonzero(joined != IGNORED) // most))
    chosen = np.zeros(len(joined), dtype=bool)
    for phase in np.unique(joined[joined != IGNORED]):
        chosen[np.flatnonzero(joined == phase)[::step]] = True
    of_videos = np.split(chosen, np.cumsum([len(target) for target in targets])[:-1])
    rows = [
        np.asarray(video.rows[: len(own)][own], dtype=np.float32) for video, own in zip(videos, of_videos, strict=True)
    ]
    for video, features in zip(videos, rows, strict=True):
        if not np.isfinite(features).all():
            raise UserError(f"{video.source.path}: a feature of {video.name} is NaN or infinite; extract it again")
    return np.concatenate(rows), joined[chosen]


FITTED = {"majority": fit_majority, "linear": fit_linear}
