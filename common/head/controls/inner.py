"""A part of a fold's training videos kept aside, to choose or to measure on what is neither learned from nor tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.base.runtime import UserError, listed, select_device
from common.dataset.kfold import stratified_order
from common.dataset.patients import read_patients
from common.dataset.phases import IGNORED
from common.head.checkpoint import load_head, remove_training
from common.head.experiment import Experiment
from common.head.prediction import phase_probabilities
from common.head.training import train
from common.scoring.intervals import resampled_units

SHARE = 0.2  # of the training videos
LEAST = 2  # videos


def hold_out(videos: Sequence[str], patients: Mapping[str, str], *, seed: int) -> list[str]:
    """About a fifth of the videos, at least two, stratified by prefix and with whole patients, in the order of `videos`.

    Raises `UserError` where that leaves nothing to learn from.
    """
    units: dict[str, list[str]] = {}
    for video, unit in zip(videos, resampled_units(videos, patients) or videos, strict=True):
        units.setdefault(unit, []).append(video)
    first_of = {members[0]: members for members in units.values()}
    wanted, aside = max(LEAST, round(SHARE * len(videos))), set()
    for first in stratified_order(list(first_of), seed=seed):
        if len(aside) >= wanted:
            break
        aside.update(first_of[first])
    if len(aside) >= len(videos):
        raise UserError(
            f"of {len(videos)} training videos ({listed(list(videos))}) {wanted} cannot be kept aside with their whole "
            "patients: nothing would be left to learn from; label more videos, or leave --choose and --temperature out"
        )
    return [video for video in videos if video in aside]


def videos_aside(experiment: Experiment) -> list[str]:
    """Which of an experiment's training videos are kept aside (`hold_out`)."""
    return hold_out(list(experiment.train_labels), read_patients(experiment.dataset), seed=experiment.config.seed)


def answers_aside(
    experiment: Experiment, videos: Sequence[str], purpose: str, settings: Mapping[str, Any], *, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """What a head that did not learn from some of its training videos says of them, and their phases.

    Probabilities `(T, num_classes)` and phases `(T,)` of the frames whose label counts, of all videos together. The head
    has other settings than the experiment's, and a name of its own by `purpose`; it is removed at the end, and an
    interrupted one is resumed. Raises `UserError` where no frame counts.
    """
    inner = replace(experiment.with_settings(settings), held_out=frozenset(videos), decode="argmax", asked=None)
    name = f"{experiment.config.run_name or 'default'}-aside-{purpose}"
    inner = replace(inner, config=replace(inner.config, run=name), choice=None)
    train(inner, device=device, resume=True)
    head = load_head(inner.checkpoint, inner.config, inner.mapping.num_classes).to(select_device(device))
    rows, phases = [], []
    for video in inner.open(inner.held_out_labels):
        counts = video.target != IGNORED
        rows.append(phase_probabilities(head, video)[: len(counts)][counts])
        phases.append(video.target[counts])
    remove_training(inner.checkpoint)
    if not sum(map(len, phases)):
        raise UserError(
            f"{experiment.dataset.name}: no frame of the training videos kept aside ({listed(sorted(videos))}) has a label that "
            "counts; leave --choose and --temperature out"
        )
    return np.concatenate(rows), np.concatenate(phases)
