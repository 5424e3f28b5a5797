"""A head trained on one data set, tested on another over the phases that both have: what is lost on the way.

Both sides are scored by one rule. Labels of phases that are not shared count nowhere; a prediction is the shared phase with
the most probability, that of several phases of the head which mean the same added up. So the drop is that of recognition,
not of phases that the other set lacks.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.files import read_yaml, write_json
from common.base.runtime import UserError, device_name, git_state, listed, progress, select_device, shown, versions
from common.dataset.description import read_phases
from common.dataset.patients import read_patients
from common.dataset.phases import IGNORED, PhaseMapping, read_labels, require_labels
from common.dataset.split_lists import open_splits
from common.features.files import identity_differences
from common.head.batch_gen import VideoFeatures
from common.head.checkpoint import load_head
from common.head.experiment import Experiment
from common.head.prediction import write_phases
from common.scoring.folder import to_json
from common.scoring.intervals import UNDEFINED, Interval, difference_interval, resampled_units, sums_per_unit
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE, contributions, from_sums, summarise
from common.scoring.video_score import VideoScore

log = logging.getLogger(__name__)

OWN, ELSEWHERE = "own", "elsewhere"  # the test videos of the head's split, and those of the other set
SHAPE_IN_WORDS = "expected lines PHASE OF THE HEAD: PHASE OF THE TEST SET"


@dataclass(frozen=True, eq=False)
class SharedPhases:
    """What two sets share: `names` of the test set, and for each phase of either the place among them, or `IGNORED`."""

    names: tuple[str, ...]
    of_head: np.ndarray
    """`(num_classes of the head,)`"""
    of_test: np.ndarray
    """`(num_classes of the test set,)`"""
    background: int | None

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Of the head `(T, num_classes)` -> of the shared phases `(T, len(names))`, which add up to 1.

        A frame whose shared phases have no probability at all takes equal ones.
        """
        summed = np.zeros((len(rows), len(self.names)), dtype=np.float64)
        for phase, place in enumerate(self.of_head):
            if place != IGNORED:
                summed[:, place] += rows[:, phase]
        total = summed.sum(axis=1, keepdims=True)
        return np.divide(summed, total, out=np.full_like(summed, 1 / len(self.names)), where=total > 0)


def read_shared(path: Path | None, head: PhaseMapping, test: PhaseMapping) -> SharedPhases:
    """The phases that two sets share, by a YAML file of `phase of the head: phase of the test set`; without one by name.

    Raises `UserError` naming the file and a phase that its set does not have, and where fewer than two are shared.
    """
    if path is None:
        pairs = {name: name for name in head.names if name in test.names}
        where = "phases of the same name"
    else:
        pairs, where = {str(one): other for one, other in read_yaml(path).items()}, str(path)
    for one, other in pairs.items():
        if not isinstance(other, str):
            raise UserError(f"{path}: {shown(one)}: {SHAPE_IN_WORDS}, found {shown(other)}")
        for name, mapping, whose in ((one, head, "head"), (other, test, "test set")):
            if name not in mapping.names:
                raise UserError(
                    f"{path}: {shown(name)} is no phase of the {whose}; it has {listed(list(mapping.names), len(mapping.names))}"
                )
    scored = [name for name in test.names if name in pairs.values() and name not in test.ignored]
    if len(scored) < 2:
        raise UserError(
            f"{where}: expected at least two phases that both sets have, found {listed(scored) or 'none'}; give --classes a "
            f"YAML file: {SHAPE_IN_WORDS}"
        )
    places = {name: place for place, name in enumerate(scored)}
    of_head = [places.get(pairs.get(name, ""), IGNORED) for name in head.names]
    of_test = [places.get(name, IGNORED) for name in test.names]
    return SharedPhases(tuple(scored), np.array(of_head), np.array(of_test), places.get(test.background or ""))


def predict_elsewhere(
    experiment: Experiment,
    test_dataset: str,
    classes: Path | None,
    *,
    test_splits: str | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> tuple[Path, list[list[str]]]:
    """Predict and score the videos of another data set; returns the record's path and a table of what was lost.

    All labelled videos of the other set are tested, or with `test_splits` the test videos of that list's splits. Files are
    as in `prediction.predict`, of the head's own phases; `transfer.json` comes last.

    Raises `UserError` for features that were not made alike, a set that is the head's own, and phases that do not fit.
    """
    there = paths.dataset(test_dataset)
    if there.root == experiment.dataset.root:
        raise UserError(f"--test_dataset {test_dataset}: the head was trained on this set; leave --test_dataset out")
    mapping = read_phases(there)
    shared = read_shared(classes, experiment.mapping, mapping)
    elsewhere = replace(
        experiment, config=replace(experiment.config, dataset=there.name), dataset=there, mapping=mapping
    )
    labels = require_labels(there.ground_truth)
    if test_splits:
        lists = open_splits(there, test_splits)
        labels = {name: labels[name] for name in dict.fromkeys(name for test in lists.tests for name in test)}
    own, other = experiment.open(experiment.test_labels), elsewhere.open(labels)
    _require_alike(own[0], other[0])
    target = select_device(device)
    head = load_head(checkpoint or experiment.checkpoint, experiment.config, experiment.mapping.num_classes).to(target)
    trained_on, split, run = experiment.dataset.name, experiment.config.split, experiment.config.run_name
    folder = experiment.model.transfer_results(there.name, trained_on, split, run)
    record_path = folder / paths.TRANSFER_RECORD
    record_path.unlink(missing_ok=True)
    sides: dict[str, dict[str, VideoScore]] = {OWN: {}, ELSEWHERE: {}}
    for side, videos, part in ((OWN, own, experiment), (ELSEWHERE, other, elsewhere)):
        places, files = (shared.of_head, experiment.test_labels) if side == OWN else (shared.of_test, labels)
        target_folder = folder / OWN if side == OWN else folder
        for video in progress(videos, description=f"predict {side}", unit="videos"):
            rows = write_phases(head, video, target_folder, experiment.mapping, causal=experiment.config.sees_past_only)
            true = _true_phases(files[video.name], part, video, places)
            sides[side][video.name] = _score(rows, true, shared, video.label_fps)
    patients = read_patients(experiment.dataset), read_patients(there)
    losses = {measure: _loss((sides[OWN], sides[ELSEWHERE]), patients, measure) for measure in MEASURES}
    of_what = {"dataset": there.name, "trained_on": trained_on, "split": split, "run": run, "test_splits": test_splits}
    synthetic = there.is_synthetic or experiment.dataset.is_synthetic
    of_what |= {"model": experiment.model.name, "synthetic": synthetic, "device": device_name(target)}
    write_json(record_path, of_what | _numbers(shared, sides, losses))
    return record_path, _table(sides, losses, trained_on, there.name)


def _numbers(
    shared: SharedPhases, sides: Mapping[str, Mapping[str, VideoScore]], losses: Mapping[str, Interval]
) -> dict[str, Any]:
    """What the record says of both sides, and the versions that it was made with."""
    unshared = {side: sum(int((~score.counts).sum()) for score in scores.values()) for side, scores in sides.items()}
    return {
        "format": 1,
        "phases": list(shared.names),
        "videos": {side: list(scores) for side, scores in sides.items()},
        "labels_not_shared": unshared,
        "metrics": {side: to_json(summarise(_scored(scores), CHALLENGE)) for side, scores in sides.items()},
        "drop": {measure: to_json({"mean": i.estimate, "low": i.low, "high": i.high}) for measure, i in losses.items()},
        "versions": versions(),
        "git": git_state(paths.CHECKOUT),
    }


def _scored(scores: Mapping[str, VideoScore]) -> list[VideoScore]:
    """Videos with a label that counts; the others have no phase that is shared."""
    return [score for score in scores.values() if score.counts.any()]


def _require_alike(own: VideoFeatures, other: VideoFeatures) -> None:
    """Raise `UserError` unless features of both sets were made in the same way; warn of another rate."""
    if differences := identity_differences(own.source.identity(), other.source.identity()):
        raise UserError(
            f"{other.source.path} and {own.source.path} were made in different ways ({'; '.join(differences)}); extract one "
            "again with the same options"
        )
    rates = [_feature_rate(video) for video in (own, other)]
    if all(rates) and not 0.8 <= rates[1] / rates[0] <= 1.25:
        log.warning(
            "%s: %.3g features a second, the head has learned from %.3g; extract both with the same --fps",
            other.source.path.parent,
            rates[1],
            rates[0],
        )


def _feature_rate(video: VideoFeatures) -> float | None:
    """Features a second of a video; None where times are unknown: features from elsewhere have none."""
    times = video.timeline.seconds[video.timeline.sampled]
    span = float(times[-1] - times[0])
    return (len(times) - 1) / span if span > 0 and video.source.sidecar else None


def _true_phases(labels: Path, side: Experiment, video: VideoFeatures, places: np.ndarray) -> np.ndarray:
    """The place of each label among the shared phases `(T,)`, `IGNORED` for others and for those that no frame reaches."""
    ids = read_labels(labels, side.mapping)
    true = np.where(ids == IGNORED, IGNORED, places[np.where(ids == IGNORED, 0, ids)])
    if not side.label_grid.is_every_frame:
        true[len(video.label_frames) :] = IGNORED
    return true


def _score(rows: np.ndarray, true: np.ndarray, shared: SharedPhases, fps: float | None) -> VideoScore:
    """A video's counts over the shared phases, from the head's probabilities."""
    likely = shared.probabilities(rows)
    predicted = likely.argmax(axis=1).astype(np.int16)
    return VideoScore(true.astype(np.int16), predicted, len(shared.names), shared.background, fps, lambda: likely)


def _loss(
    scored: tuple[Mapping[str, VideoScore], ...], patients: tuple[Mapping[str, str], ...], measure: str
) -> Interval:
    """What is lost of a measure under the protocol `challenge`, with its 95 % interval over the videos of both sets.

    Videos of one patient are drawn together.
    """
    sides = [contributions(_scored(scores), measure, CHALLENGE) for scores in scored]
    if any(np.isnan(side).any() for side in sides):
        return UNDEFINED
    names = [[name for name, score in scores.items() if score.counts.any()] for scores in scored]
    units = map(resampled_units, names, patients)
    return difference_interval(*map(sums_per_unit, sides, units), lambda sums: from_sums(measure, sums, CHALLENGE))


def _table(
    sides: Mapping[str, Mapping[str, VideoScore]], losses: Mapping[str, Interval], own: str, other: str
) -> list[list[str]]:
    """Header and a row a measure, percent and points."""
    found = [summarise(_scored(scores), CHALLENGE) for scores in sides.values()]
    rows = [["", f"on {own}, %", f"on {other}, %", "lost, points", "95 % interval"]]
    for measure, title in MEASURES.items():
        loss = losses[measure]
        numbers = [*(side[measure] for side in found), loss.estimate, loss.low, loss.high]
        one, two, lost, low, high = ("n/a" if np.isnan(number) else f"{100 * number:.2f}" for number in numbers)
        rows.append([title, one, two, lost, f"{low} to {high}" if low != "n/a" else "n/a"])
    return rows
