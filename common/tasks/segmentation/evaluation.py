"""Scores of predicted masks: each class, means with intervals, the floor beside, and the rule of the data set's own users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.files import misfit, read_json, sha256_of_json
from common.base.runtime import UserError, listed, progress
from common.base.wording import format_table
from common.dataset.description import read_description
from common.dataset.masks import MaskedImage, read_mask
from common.dataset.patients import check_patients, read_patients
from common.dataset.seen import PublishedLeak, published_leaks
from common.scoring.masks import LEAST_GROUPS, MASK_HEADLINE, MASK_MEASURES, OWN_RULES, MaskScores, confusion
from common.tasks.segmentation.experiment import Segmentation, predicted_masks
from common.tasks.summary import TaskMeasure, TaskSummary, write_task_summary

RECORD_SHAPE = {
    "task": str, "classes": [str], "test_inputs_hash": str, "images": [str], "random_weights?": bool, "synthetic": bool,
}  # fmt: skip
FLOOR_TITLE = "most frequent class of each pixel"


@dataclass(frozen=True, eq=False)
class MaskEvaluation:
    """Scores over all evaluated splits: the run's, the floor's (None without one), and which splits they are of."""

    segmentation: Segmentation
    scores: MaskScores
    floor: MaskScores | None
    numbers: tuple[int, ...]
    images: list[MaskedImage]
    """The scored images, in the order of the scores."""
    folders: list[Path]
    """Where the prediction of each image is."""
    units: str
    """What intervals are over: groups or patients."""
    random_weights: bool
    left_out: int | None
    """The class that is in no mean: the background, where that was asked for."""
    hashes: tuple[str, ...]

    def measure(self, scores: MaskScores, name: str) -> TaskMeasure:
        """A mean over classes with its interval."""
        _, count = scores.mean(name, self.left_out)
        interval = scores.interval(name, self.left_out)
        total = len(scores.classes) - len(self.segmentation.ignored) - (self.left_out is not None)
        return TaskMeasure.of_numbers(interval.estimate, interval.low, interval.high, count, total)

    @property
    def own_rule(self) -> tuple[str, float] | None:
        """Words and value of how the data set's own users measure; None where its description names no rule."""
        name = read_description(self.segmentation.dataset).own_rule
        return (OWN_RULES[name].words, OWN_RULES[name].measure(self.scores)) if name else None


def evaluate_masks(
    segmentation: Segmentation, *, ignore_background: bool = False, predictions: Path | None = None
) -> MaskEvaluation:
    """Score the finished splits of a run, or a folder of masks made elsewhere for the chosen split.

    Raises `UserError` where none is finished, a mask is missing, of another size than the truth or with an unknown id, and
    for predictions that were made for other images, masks or classes.
    """
    if ignore_background and segmentation.background is None:
        raise UserError(
            f"--ignore_background: no class of {segmentation.dataset.mapping} is the background; say which with `background:` in "
            f"{segmentation.dataset.description.name}, or leave the option out"
        )
    patients = read_patients(segmentation.dataset)
    numbers = [int(segmentation.config.split)]
    if predictions is None:
        splits = range(1, len(segmentation.splits) + 1)
        numbers = [k for k in splits if (segmentation.of_split(k).results / paths.SEGMENTATION_RECORD).is_file()]
        if not numbers:
            raise UserError(
                f"{segmentation.results.parent}: no split is predicted; run common.segment predict first, with the same options"
            )
    scores: list[MaskScores] = []
    floors: list[MaskScores] = []
    images: list[MaskedImage] = []
    folders: list[Path] = []
    records = []
    for number in numbers:
        split = segmentation.of_split(number)
        folder = predictions or split.results
        if predictions is None:
            records.append(_record(split, folder))
            if (split.floor / paths.SEGMENTATION_RECORD).is_file() and _is_current(split, split.floor):
                floors.append(score_masks(split, split.floor, patients))
        scores.append(score_masks(split, folder, patients))
        images += split.test_images
        folders += [folder] * len(split.test_images)
    return MaskEvaluation(
        segmentation,
        _joined(scores),
        _joined(floors) if len(floors) == len(scores) else None,
        tuple(numbers),
        images,
        folders,
        "patients" if patients else "groups",
        any(record.get("random_weights") for record in records),
        segmentation.background if ignore_background else None,
        tuple(record["test_inputs_hash"] for record in records),
    )


def _record(split: Segmentation, folder: Path) -> dict:
    """The record of a finished split. Raises `UserError` for a damaged one and for predictions of other inputs."""
    path = folder / paths.SEGMENTATION_RECORD
    record = read_json(path, "predict this split again")
    if wrong := misfit(record, RECORD_SHAPE):
        raise UserError(f"{path}: not the record of predicted masks ({wrong}); predict this split again")
    if record["classes"] != list(split.classes) or record["test_inputs_hash"] != split.inputs_hash(split.test_images):
        raise UserError(
            f"{path}: images, masks or classes have changed since this prediction; predict this split again"
        )
    return record


def _is_current(split: Segmentation, folder: Path) -> bool:
    try:
        return bool(_record(split, folder))
    except UserError:  # a floor of before: the next prediction makes it again
        return False


def _joined(parts: Sequence[MaskScores]) -> MaskScores:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.joined(part)
    return whole


def score_masks(split: Segmentation, folder: Path, patients: Mapping[str, str]) -> MaskScores:
    """Confusion matrices of the test images of a split against the masks in a folder.

    Raises `UserError` naming the mask that is missing, of another size than the truth, or has an unknown id.
    """
    files, matrices = predicted_masks(folder, split.test_images), []
    for image in progress(split.test_images, description="score", unit="masks"):
        truth = split.truth(image)
        predicted = read_mask(files[image.key], split.classes, unlabelled=False)
        if predicted.shape != truth.shape:
            (height, width), (rows, columns) = truth.shape, predicted.shape
            raise UserError(
                f"{files[image.key]}: expected the size of {image.mask}, {width} x {height}, found {columns} x {rows}; masks are "
                "scored at their own size: resize scores before the class is chosen, or masks by nearest neighbour"
            )
        matrices.append(confusion(truth, predicted, len(split.classes)))
    images = split.test_images
    groups = [patients.get(image.group, image.group) for image in images]
    return MaskScores(split.classes, [image.key for image in images], groups, np.stack(matrices))


def evaluation_text(found: MaskEvaluation) -> str:
    """The table of classes, means with intervals, the floor, the own rule, and each group where these are too few."""
    scores, segmentation = found.scores, found.segmentation
    values = {name: scores.by_class(name) for name in MASK_MEASURES}
    present = scores.counts[:, 1] > 0
    rows = [["", "images", *MASK_MEASURES.values()]]
    for place, name in enumerate(scores.classes):
        if place not in segmentation.ignored:
            cells = [_percent(values[measure][place]) for measure in MASK_MEASURES]
            rows.append([name, str(int(present[:, place].sum())), *cells])
    means = {name: found.measure(scores, name) for name in MASK_MEASURES}
    title = "mean" if found.left_out is None else f"mean without {scores.classes[found.left_out]}"
    rows.append([title, str(len(scores.images)), *(_percent(each.value) for each in means.values())])
    if found.floor is not None:
        floor = [_percent(found.measure(found.floor, name).value) for name in MASK_MEASURES]
        rows.append([f"floor: {FLOOR_TITLE}", "", *floor])
    lines = [format_table(rows), ""]
    lines += [f"{title} of {MASK_MEASURES[name]}: {measure.text}" for name, measure in means.items()]
    if found.own_rule:
        words, value = found.own_rule
        lines.append(f"as this data set's users measure ({words}): {_percent(value)} %")
    return "\n".join([*lines, *_interval_lines(found), *(f"note: {note}" for note in notes(found))])


def _interval_lines(found: MaskEvaluation) -> list[str]:
    """What the intervals are over; of too few groups, each."""
    groups = list(dict.fromkeys(found.scores.groups))
    if len(groups) >= LEAST_GROUPS:
        return [f"95 % intervals: bootstrap over {len(groups)} {found.units}"]
    title = MASK_MEASURES[MASK_HEADLINE]
    lines = [f"no intervals: {len(groups)} {found.units} are fewer than {LEAST_GROUPS}; {title} of each:"]
    for group in groups:
        value, count = found.scores.of_group(group).mean(MASK_HEADLINE, found.left_out)
        lines.append(f"  {group}: {_percent(value)} over {count} classes")
    return lines


def notes(found: MaskEvaluation) -> list[str]:
    """What must be known beside the numbers."""
    segmentation, said = found.segmentation, []
    if segmentation.dataset.is_synthetic:
        said.append("synthetic data: these numbers say nothing of surgery")
    if found.random_weights:
        said.append("the encoder has random weights")
    said += [str(leak) for leak in _leaks(found)]
    if found.hashes:
        said += check_patients(segmentation.dataset, segmentation.splits, found.numbers)
    missing = len(segmentation.splits) - len(found.numbers)
    if missing and found.hashes:
        said.append(f"{missing} of {len(segmentation.splits)} splits are not predicted yet")
    silent = [
        name
        for place, name in enumerate(found.scores.classes)
        if place not in segmentation.ignored and not found.scores.counts[:, 1, place].any()
    ]
    if silent:
        said.append(f"in no scored mask: {listed(silent)}; where they are predicted they count as 0, else nowhere")
    return said


def _leaks(found: MaskEvaluation) -> list[PublishedLeak]:
    """What the encoder's published weights have seen of the scored groups; of a file of one's own nothing is known."""
    segmentation, weights = found.segmentation, found.segmentation.config.weights
    encoder, is_published = segmentation.encoder, weights is None or weights in segmentation.encoder.named_weights
    if not is_published or not found.hashes:  # masks made elsewhere are of nobody's weights
        return []
    ids = read_description(segmentation.dataset).ids
    return published_leaks(ids, dict.fromkeys(image.group for image in found.images), encoder.seen, encoder.seen_source)


def _percent(value: float | None) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def write_mask_summary(found: MaskEvaluation) -> Path:
    """Write the record of the task over all splits that are predicted, for tables of several models."""
    segmentation, scores = found.segmentation, found.scores
    config = segmentation.config
    by_class = {title: scores.by_class(name) for name, title in MASK_MEASURES.items()}
    groups = dict.fromkeys(scores.groups)
    own = found.own_rule
    summary = TaskSummary(
        task="segmentation",
        dataset=segmentation.dataset.name,
        model=segmentation.model.name,
        run=config.run_name,
        splits=config.splits,
        num_splits=len(found.numbers),
        synthetic=segmentation.dataset.is_synthetic,
        random_weights=found.random_weights,
        units=found.units,
        num_units=len(groups),
        headline=MASK_MEASURES[MASK_HEADLINE],
        measures={title: found.measure(scores, name) for name, title in MASK_MEASURES.items()},
        floors={}
        if found.floor is None
        else {FLOOR_TITLE: {title: found.measure(found.floor, name) for name, title in MASK_MEASURES.items()}},
        inputs_hash=sha256_of_json(list(found.hashes)),
        notes=tuple(notes(found)),
        further={
            "classes": {
                name: {title: _or_none(values[place]) for title, values in by_class.items()}
                for place, name in enumerate(scores.classes)
            },
            "groups": {
                group: _or_none(scores.of_group(group).mean(MASK_HEADLINE, found.left_out)[0]) for group in groups
            },
            "ignore_background": found.left_out is not None,
            "own_rule": {"words": own[0], "value": _or_none(own[1])} if own else None,
            "title": segmentation.encoder.title,
        },
    )
    return write_task_summary(segmentation.model.results(segmentation.dataset.name, config.run_name), summary)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
