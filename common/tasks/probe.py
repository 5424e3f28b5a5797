"""A probe of a task, from labels and features to its record: for each split C is chosen, all is fitted, the test answered.

Nothing is chosen on what is reported, and no validation list is used: C comes from a part of the training videos kept aside.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.files import sha256_of_file, sha256_of_json
from common.base.locks import hold
from common.base.runtime import UserError, counted, git_state, listed, shown, versions
from common.dataset.description import features_owner, require_task
from common.dataset.patients import check_patients, read_patients
from common.dataset.split_lists import open_splits
from common.dataset.task_labels import ClipTable, read_clip_table, read_presence
from common.tasks.config import ProbeConfig
from common.tasks.inputs import OpenedFeatures
from common.tasks.labelled import ClipsTask, FramesTask, ProbedTask
from common.tasks.logistic import CANDIDATES, Examples, Probe, choose_c, fit_probe
from common.tasks.scores import HEADLINES, LEAST_UNITS, Answers, Scores
from common.tasks.summary import TaskSummary, read_task_summary, write_task_summary

log = logging.getLogger(__name__)

MAJORITY = "majority class"


@dataclass(frozen=True)
class _Split:
    """Units that are learned from and tested."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def run_probe(config: ProbeConfig, *, force: bool = False, verify: bool = True) -> TaskSummary:
    """Fit and score a probe on every split, unless that is finished; returns its record.

    Raises `UserError` for a data set of another task, missing or unsuitable features, and lists that do not fit the labels.
    """
    from common.encoders.config import read_encoder_config  # of all that it says, the width and the title alone

    if config.dataset is None:
        raise UserError("--dataset: expected a data set whose dataset.yaml says task: multilabel or clips, found none")
    dataset, model = paths.dataset(config.dataset), paths.model(config.model)
    description = require_task(dataset, "multilabel", "clips")
    headline = _headline(dataset, description.task, description.measure)
    if description.feature_fps is not None:
        raise UserError(
            f"{dataset.description}: feature_fps is for phases; a probe takes features with sidecars, or a row for each decoded "
            "frame: extract the features here"
        )
    labelled, label_file = _labelled(dataset, description.task, config)
    splits, config, shared = _splits(dataset, labelled, config)
    encoder = read_encoder_config(model.config).with_weights(config.variant)
    folder = features_owner(dataset).features(model.name, config.variant)
    features = OpenedFeatures(folder, encoder.feature_dim, verify=verify)
    units = list(dict.fromkeys(unit for split in splits for unit in (*split.train, *split.test)))
    target = model.results(dataset.name, config.run_name)
    with hold(target):
        files = labelled.files_of(units)
        features.open_all(files)
        inputs_hash = sha256_of_json(
            {
                "labels": sha256_of_file(label_file),
                "features": features.digests(files),
                "splits": [asdict(split) for split in splits],
                "groups": dict(labelled.groups),
                "settings": [config.seed, config.most_frames, list(CANDIDATES), headline],
            }
        )
        record = target / paths.TASK_RECORD
        if record.is_file() and not force and (there := _finished(record, inputs_hash)):
            log.info("%s: finished already; --force runs it again", target)
            return there
        record.unlink(missing_ok=True)  # what a kill leaves from here on is never taken for a finished run
        learned = [
            _run_split(labelled, features, split, target / f"split_{number}", config)
            for number, split in enumerate(splits, 1)
        ]
        summary = _summary(dataset, model, config, labelled, features, learned, headline, inputs_hash, shared)
        write_task_summary(target, summary)
    return summary


def _headline(dataset: paths.Dataset, task: str, measure: str | None) -> str:
    """The title of the measure that stands for the task. Raises `UserError` for one that it does not have."""
    known = HEADLINES[task]
    if measure is not None and measure not in known:
        raise UserError(
            f"{dataset.description}: measure: expected one of {listed([*known])} for {task}, found {shown(measure)}"
        )
    return known[measure] if measure else next(iter(known.values()))


def _finished(record: Path, inputs_hash: str) -> TaskSummary | None:
    """The record of the same inputs; None for another, which is said, and for a damaged one."""
    try:
        summary = read_task_summary(record)
    except UserError as error:
        log.warning("%s; made again", error)
        return None
    if summary.inputs_hash != inputs_hash:
        log.warning("%s: of other features, labels, lists or settings; made again", record)
        return None
    return summary


def _labelled(dataset: paths.Dataset, task: str | None, config: ProbeConfig) -> tuple[ProbedTask, Path]:
    if task == "clips":
        table = read_clip_table(dataset.clips)
        has_split = any(clip.part for clip in table.clips.values())  # without one it is dealt, as videos are
        return ClipsTask(table, by_clip=has_split and config.splits is None), dataset.clips
    return FramesTask(read_presence(dataset.presence), read_patients(dataset)), dataset.presence


def _splits(
    dataset: paths.Dataset, labelled: ProbedTask, config: ProbeConfig
) -> tuple[list[_Split], ProbeConfig, list[str]]:
    """What is learned from and tested, the settings with the list's own name, and which patients are on both sides of it."""
    if isinstance(labelled, ClipsTask) and labelled.by_clip:
        split, shared = _split_of_table(labelled.table, is_published=dataset.import_record.is_file())
        return [split], config, shared
    lists = open_splits(dataset, config.splits)
    splits = [_Split(tuple(train), tuple(test)) for train, test in zip(lists.trains, lists.tests, strict=True)]
    shared = check_patients(dataset, lists, range(1, len(lists) + 1))
    return splits, replace(config, splits=lists.name), shared


def _split_of_table(table: ClipTable, *, is_published: bool) -> tuple[_Split, list[str]]:
    """The split that the column of a table of clips says, by clip, and which groups are on both sides of it.

    A published split stays as it is, and the groups are told. Raises `UserError` for them in a table of one's own.
    """
    sides = {part: [clip for clip in table.clips.values() if clip.part == part] for part in ("train", "test")}
    if lacking := [part for part, clips in sides.items() if not clips]:
        raise UserError(
            f"{table.path}: split: expected clips to learn from and to test, found none of {listed(lacking)}; fill that "
            "column, or give --splits NAME"
        )
    groups = {part: {clip.group for clip in clips if clip.group} for part, clips in sides.items()}
    said = []
    if shared := sorted(groups["train"] & groups["test"]):
        words = f"{counted(len(shared), 'group')} with clips in train and in test ({listed(shared, 3)})"
        if not is_published:
            raise UserError(
                f"{table.path}: {words}: the same recording or patient is learned from and tested; move their clips to one "
                "side, or leave group empty where that is meant"
            )
        said = [f"the published split has {words}: the same recording or patient is learned from and tested"]
    return _Split(*(tuple(clip.name for clip in sides[part]) for part in ("train", "test"))), said


@dataclass(frozen=True, eq=False)
class _Learned:
    """What was learned of a split, and what it answers."""

    answers: Answers
    floor: Answers
    probe: Probe
    record: dict[str, Any]


def _run_split(
    labelled: ProbedTask, features: OpenedFeatures, split: _Split, folder: Path, config: ProbeConfig
) -> _Learned:
    """Choose C, fit, and answer the test part."""
    examples = labelled.examples(split.train, features, config.most_frames)
    num_classes = len(labelled.classes)
    chosen = choose_c(examples, num_classes, labelled.groups, seed=config.seed)
    probe = fit_probe(examples, num_classes, chosen.c)
    shares = _shares(examples, num_classes)
    log.info("%s: C = %g, of %d rows", folder.name, chosen.c, len(examples.rows))
    folder.mkdir(parents=True, exist_ok=True)
    answers = labelled.answers(probe, split.test, features, shares, folder)
    with np.errstate(divide="ignore"):
        of_all = np.log(shares) if examples.targets.ndim == 1 else np.log(shares) - np.log1p(-shares)
    constant = np.clip(np.nan_to_num(of_all, nan=-30.0), -30.0, 30.0)
    floor = replace(answers, logits=np.broadcast_to(constant, answers.logits.shape))
    record = {
        "c": chosen.c,
        "candidates": {f"{c:g}": None if np.isnan(score) else score for c, score in chosen.scores.items()},
        "kept_aside": list(chosen.aside),
        "train": list(split.train),
        "test": list(split.test),
        "rows": len(examples.rows),
        "not_learned": [
            name for name, is_learned in zip(labelled.classes, probe.learned, strict=True) if not is_learned
        ],
    }
    return _Learned(answers, floor, probe, record)


def _shares(examples: Examples, num_classes: int) -> np.ndarray:
    """Share of each class among what is learned from `(num_classes,)`; NaN for one without any label."""
    if examples.targets.ndim == 1:
        return np.bincount(examples.targets, minlength=num_classes) / len(examples.targets)
    labelled = ~np.isnan(examples.targets)
    with np.errstate(invalid="ignore"):
        return np.nansum(examples.targets, axis=0) / labelled.sum(axis=0)


def _summary(
    dataset: paths.Dataset,
    model: paths.Model,
    config: ProbeConfig,
    labelled: ProbedTask,
    features: OpenedFeatures,
    learned: Sequence[_Learned],
    headline: str,
    inputs_hash: str,
    shared: Sequence[str],
) -> TaskSummary:
    """Score everything, and say what is to be known of it."""
    scores = labelled.score([each.answers for each in learned])
    floor = labelled.score([each.floor for each in learned], with_intervals=False)
    file = features.any_file
    identity = file.identity()
    further = {
        "classes": list(labelled.classes),
        "per_class": {title: _plain(values) for title, values in scores.per_class.items()},
        "per_unit": {name: dict(zip(row, _plain(row.values()), strict=True)) for name, row in scores.per_unit.items()},
        "learned": [each.record for each in learned],
        "config": asdict(config),
        "features": {"identity": identity, "num_parameters": (file.sidecar or {}).get("num_parameters")},
        "versions": versions(),
        "git": git_state(paths.CHECKOUT),
    }
    return TaskSummary(
        task="clips" if isinstance(labelled, ClipsTask) else "multilabel",
        dataset=dataset.name,
        model=model.name,
        run=config.run_name,
        splits=config.splits,
        num_splits=len(learned),
        synthetic=dataset.is_synthetic or features_owner(dataset).is_synthetic,
        random_weights=bool(identity) and identity["weights"]["source"] == "random",
        units=labelled.noun,
        num_units=scores.num_units,
        headline=headline,
        measures=scores.measures,
        floors={MAJORITY: floor.measures},
        inputs_hash=inputs_hash,
        notes=(*shared, *_notes(labelled, learned, scores)),
        further=further,
    )


def _plain(values) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _notes(labelled: ProbedTask, learned: Sequence[_Learned], scores: Scores) -> list[str]:
    """What a reader of the numbers has to know."""
    notes = []
    if scores.num_units < LEAST_UNITS:
        notes.append(f"no intervals: fewer than {LEAST_UNITS} {labelled.noun} are tested; each is listed")
    elif labelled.noun == "clips":
        notes.append("intervals are over clips: no recording or patient of a clip is known, so they may be too narrow")
    if not_learned := sorted({name for each in learned for name in each.record["not_learned"]}):
        notes.append(f"nothing to learn of {listed(not_learned)}: training has it in one way only, which is answered")
    if any(not each.record["candidates"] for each in learned):
        notes.append(
            "C was not chosen, and is the middle one: too few training videos to keep some aside, or nothing defined on them"
        )
    return notes
