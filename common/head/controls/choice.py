"""Settings chosen for each encoder and fold inside the training part: the test is never looked at.

Every candidate learns from four fifths of the fold's training videos and is measured on the rest (`inner.hold_out`); the best
one is trained again on all of them.
"""

from __future__ import annotations

import logging
from itertools import product
from typing import Any

import numpy as np

from common.base.entries import visible
from common.base.runtime import UserError
from common.dataset.description import features_owner
from common.features.files import identity_differences, open_features
from common.head.controls.inner import answers_aside, videos_aside
from common.head.experiment import Experiment

log = logging.getLogger(__name__)

LR_FACTORS = (1.0, 0.3, 3.0)  # the rate that was asked for is the first, and stays where another is no better


def choose(experiment: Experiment, title: str, *, device: str) -> dict[str, Any]:
    """Try every candidate; returns what the run's record says: those kept aside, every candidate's accuracy, and the best.

    Raises `UserError` where there is nothing to choose from, or too few videos to keep some aside.
    """
    aside = videos_aside(experiment)
    found: list[tuple[float, dict[str, Any]]] = []
    for number, settings in enumerate(candidates(experiment), 1):
        probabilities, phases = answers_aside(experiment, aside, f"choice{number}", settings, device=device)
        found.append((float(np.mean(probabilities.argmax(axis=1) == phases)), settings))
        log.info("%s: %s: %.2f %% of the frames kept aside", title, settings, 100 * found[-1][0])
    best = max(found, key=lambda each: each[0])[1]  # the first of equal ones
    return {
        "held_out": sorted(aside),
        "candidates": [settings | {"accuracy": accuracy} for accuracy, settings in found],
        "chosen": best,
    }


def candidates(experiment: Experiment) -> list[dict[str, Any]]:
    """Every combination of the settings to choose among, the one that was asked for first."""
    config, values = experiment.config, {}
    for name in config.choose.split("+"):
        if name == "lr":
            values[name] = [config.lr * factor for factor in LR_FACTORS]
        elif name == "standardise":
            values[name] = sorted(("none", "train"), key=lambda value: value != config.standardise)
        else:
            values["variant"] = _variants_of_pooling(experiment)
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _variants_of_pooling(experiment: Experiment) -> list[str | None]:
    """The variant that was asked for, and those whose features differ from it in the pooling alone.

    Raises `UserError` when there is no other.
    """
    own, name = experiment.config.variant, experiment.model.name
    folder = features_owner(experiment.dataset).features(name).parent
    identities = {}
    for path in [folder / name, *visible(folder, f"{name}@*")]:
        for file in visible(path, "*.npy")[:1]:
            identities[path.name.partition("@")[2] or None] = open_features(file).identity()
    others = [
        variant
        for variant, identity in identities.items()
        if variant != own and _differ_in_pooling_alone(identity, identities.get(own))
    ]
    if not others:
        raise UserError(
            f"--choose pooling: {folder} has no features of {name} that differ in the pooling alone; extract some: "
            "extract_features --variant NAME --pooling POOLING"
        )
    return [own, *others]


def _differ_in_pooling_alone(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    if one is None or other is None:
        return False
    return one["pooling"] != other["pooling"] and not identity_differences(
        one | {"pooling": None}, other | {"pooling": None}
    )
