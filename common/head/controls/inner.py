"""A part of a fold's training videos kept aside, to choose or to measure on what is neither learned from nor tested."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.base.runtime import UserError, listed
from common.dataset.kfold import stratified_order
from common.dataset.patients import read_patients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.head.experiment import Experiment

SHARE = 0.2  # of the training videos
LEAST = 2  # videos


def hold_out(videos: Sequence[str], patients: Mapping[str, str], *, seed: int) -> list[str]:
    """About a fifth of the videos, at least two, stratified by prefix and with whole patients, in the order of `videos`.

    Raises `UserError` where that leaves nothing to learn from.
    """
    units: dict[str, list[str]] = {}
    for video in videos:
        units.setdefault(patients.get(video, f"video:{video}"), []).append(video)
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


@contextmanager
def kept_aside(experiment: Experiment, purpose: str, settings: Mapping[str, Any]) -> Iterator[Experiment]:
    """The same experiment without a part of its training videos (`Experiment.held_out`) and with other settings.

    Its head has a name of its own, and is removed at the end; an interrupted one is resumed.
    """
    videos = hold_out(list(experiment.train_labels), read_patients(experiment.dataset), seed=experiment.config.seed)
    name = f"{experiment.config.run_name or 'default'}-aside-{purpose}"
    inner = replace(experiment.with_settings(settings), held_out=frozenset(videos), decode="argmax")
    inner = replace(inner, config=replace(inner.config, run=name), asked=None, choice=None)
    yield inner
    shutil.rmtree(inner.checkpoint.parent, ignore_errors=True)
    if inner.checkpoint.parents[1].is_dir() and not any(inner.checkpoint.parents[1].iterdir()):
        inner.checkpoint.parents[1].rmdir()
