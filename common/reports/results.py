"""Find finished runs, hold them against the data set as it is now, and score them again from their prediction files."""

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.children import num_cores, side_by_side
from common.base.entries import nfc, reason_against_folder, visible, warn_once
from common.base.paths import label_paths
from common.base.runtime import UserError, describe_os_error, listed, progress
from common.dataset.description import read_phases
from common.dataset.phases import PhaseMapping, labels_hash, read_labels
from common.dataset.split_lists import SplitLists, open_splits
from common.head.config import TrainConfig, is_acquired, is_floor
from common.head.run_record import read_run_record
from common.scoring.effort import DEFAULT_EFFORT, TIME_SAVED, EffortRule, VideoEffort, video_effort
from common.scoring.folder import score_folder
from common.scoring.further_measures import TEMPERED, WITHOUT_BACKGROUND, further_summary, per_phase
from common.scoring.metrics import MEASURES, calibration_error
from common.scoring.protocols import CHALLENGE, PROTOCOLS, Protocol, summary_value, values_of_videos, way_to_take
from common.scoring.video_score import VideoScore

log = logging.getLogger(__name__)

VALIDATION = "val"
DEFAULT_RUN = "default"  # what `--runs` calls the run without a name
RULES = {protocol.segment_rule for protocol in PROTOCOLS.values()} | {WITHOUT_BACKGROUND}
MOST_PROCESSES = 8
PROCESS_BYTES = 1 << 28  # of predictions, for which a process more pays: it takes a second to begin


@dataclass(frozen=True, eq=False)
class SplitResult:
    """One scored split: its `run.json` and the scores of its videos by name.

    `labels_changed`: it learned from other labels than the data set has now, which it is scored against.
    """

    record: dict[str, Any]
    scores: dict[str, VideoScore]
    labels_changed: bool = False

    @cached_property
    def _values(self) -> dict[tuple[Hashable, ...], float]:
        return {}

    def value(self, measure: str, protocol: Protocol) -> float:
        """A measure over the split's videos, as a fraction of 1."""
        key = way_to_take(measure, protocol)
        if key not in self._values:  # PR-AUC over pooled frames takes seconds, and tables, charts and tests ask again
            self._values[key] = summary_value(list(self.scores.values()), measure, protocol)
        return self._values[key]


@dataclass(frozen=True, eq=False)
class EncoderResult:
    """One row of a comparison: an encoder's splits under one run name.

    `num_folds`: how many folds the data set has, where all of them are asked for.
    """

    model: paths.Model
    run: str | None
    splits: list[SplitResult]
    num_folds: int | None = None
    effort_rule: EffortRule = DEFAULT_EFFORT
    """What correcting its predictions is taken to cost."""

    @property
    def record(self) -> dict[str, Any]:
        """The record of the first split, for what all of them share."""
        return self.splits[0].record

    @property
    def is_synthetic(self) -> bool:
        """Whether any of its runs says that its videos were drawn."""
        return any(split.record["synthetic"] for split in self.splits)

    @property
    def is_foreign(self) -> bool:
        """Whether its predictions were made elsewhere (`exchange.foreign`): encoder, head and settings are unknown."""
        return "made_elsewhere" in self.record

    @property
    def floor(self) -> str | None:
        """Which floor it is (`head.config.FLOORS`); None for a run of a head."""
        return self.record.get("floor")

    @property
    def name(self) -> str:
        """The folder's name, with the run where it has one, and marked when its weights are random or unknown."""
        marks = [self.run] if self.run else []
        marks += ["made elsewhere"] if self.is_foreign else []
        marks += ["random weights"] if self.record["features"]["random_weights"] else []
        return self.model.name + (f" ({', '.join(marks)})" if marks else "")

    @property
    def background(self) -> str | None:
        """The phase that counts as background; None where the data set has none."""
        background = next(iter(self.splits[0].scores.values())).background
        return None if background is None else self.record["phases"][background]

    def values(self, measure: str, protocol: Protocol = CHALLENGE) -> np.ndarray:
        """A measure of every split, `(num_splits,)`, as fractions of 1."""
        return np.array([split.value(measure, protocol) for split in self.splits])

    def mean(self, measure: str, protocol: Protocol = CHALLENGE) -> float:
        """Mean over splits."""
        return float(self.values(measure, protocol).mean())

    def std(self, measure: str, protocol: Protocol = CHALLENGE) -> float:
        """Standard deviation over splits (ddof 1); NaN for a single one."""
        values = self.values(measure, protocol)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    @cached_property
    def tests(self) -> list[tuple[str, VideoScore]]:
        """Every test of a video by a split: its name and scores. A published list may test a video in several splits."""
        return [(name, score) for split in self.splits for name, score in split.scores.items()]

    @cached_property
    def scores(self) -> dict[str, VideoScore]:
        """The scores of every video, by name; of one that several splits test, those of the first.

        With folds, each video is scored by a head that never saw it.
        """
        found: dict[str, VideoScore] = {}
        for name, score in self.tests:
            found.setdefault(name, score)
        return found

    @cached_property
    def _test_values(self) -> dict[Protocol, list[dict[str, float]]]:
        return {}

    def test_values(self, protocol: Protocol = CHALLENGE) -> list[dict[str, float]]:
        """Every measure of every one of `tests` (measure -> fraction of 1); NaN where undefined."""
        if protocol not in self._test_values:
            columns = [self._of_tests(measure, protocol).tolist() for measure in MEASURES]
            self._test_values[protocol] = [dict(zip(MEASURES, row, strict=True)) for row in zip(*columns, strict=True)]
        return self._test_values[protocol]

    def _of_tests(self, measure: str, protocol: Protocol) -> np.ndarray:
        """A measure of every one of `tests`; protocols that take it in the same way share it."""
        key = way_to_take(measure, protocol, of_one_video=True)
        if key not in self._taken:
            self._taken[key] = values_of_videos([score for _, score in self.tests], measure, protocol)
        return self._taken[key]

    @cached_property
    def _taken(self) -> dict[tuple[Hashable, ...], np.ndarray]:
        return {}

    def video_values(self, protocol: Protocol = CHALLENGE) -> dict[str, dict[str, float]]:
        """Every measure of every video (video -> measure -> fraction of 1), the mean of its tests; NaN where undefined."""
        found: dict[str, list[dict[str, float]]] = {}
        for (name, _), values in zip(self.tests, self.test_values(protocol), strict=True):
            found.setdefault(name, []).append(values)
        return {
            name: values[0]
            if len(values) == 1
            else {key: float(np.mean([each[key] for each in values])) for key in values[0]}
            for name, values in found.items()
        }

    def num_train_videos(self, split: SplitResult) -> int:
        """Videos that the head of a split learned from; by the folds where an earlier version did not record it."""
        if (recorded := split.record.get("num_train_videos")) is not None:
            return recorded
        return max(1, round(split.record["config"].get("train_fraction", 1.0) * (len(self.scores) - len(split.scores))))

    @cached_property
    def confusion(self) -> np.ndarray:
        """Frame counts over all videos of all splits, `(num_classes, num_classes)`, rows = truth."""
        return sum(score.confusion for _, score in self.tests)

    @cached_property
    def confusion_percents(self) -> np.ndarray:
        """The share of each true phase's frames (row) that is predicted as each phase (column); NaN without a frame."""
        frames = self.confusion.sum(axis=1, keepdims=True)
        undefined = np.full(self.confusion.shape, np.nan)
        return np.divide(100.0 * self.confusion, frames, out=undefined, where=frames > 0)

    @cached_property
    def phase_scores(self) -> dict[str, np.ndarray]:
        """`per_phase` over all videos: measure of a phase -> `(num_classes,)`."""
        return per_phase([score for _, score in self.tests])

    @cached_property
    def further(self) -> dict[str, float]:
        """`further_summary` over all videos: the measures beside the eight."""
        found = further_summary([score for _, score in self.tests], effort=self.effort_rule)
        tempered = [(split.record.get("temperature") or {}).get("bins") for split in self.splits]
        return found | ({TEMPERED: float(calibration_error(np.sum(tempered, axis=0)))} if all(tempered) else {})

    @cached_property
    def efforts(self) -> list[VideoEffort | None]:
        """What it takes to correct the prediction of every one of `tests`."""
        return [video_effort(score, self.effort_rule) for _, score in self.tests]

    def split_efforts(self, split: SplitResult) -> list[VideoEffort | None]:
        """The same of one split."""
        return [video_effort(score, self.effort_rule) for score in split.scores.values()]

    @property
    def time_saved(self) -> float:
        """The share of the labelling time that its predictions save, negative where they cost more; NaN where unknown."""
        return self.further[TIME_SAVED]


# what a row must beat: by its name, and by the kind of the floor (`head.config.FLOORS`)
Floors = dict[str, dict[str, EncoderResult]]


@dataclass(frozen=True, eq=False)
class Collection:
    """Runs that stand beside each other, best accuracy first; `left_out` names each that cannot, with the reason.

    `floors`: those under each of them, where they were written; `acquired`: runs of trials of what to label next.
    """

    results: list[EncoderResult]
    left_out: list[str]
    floors: Floors = field(default_factory=dict)
    acquired: list[EncoderResult] = field(default_factory=list)


def scored_labels(dataset: paths.Dataset, split: str, lists: SplitLists | None) -> dict[str, Path]:
    """Label files of the videos that a split scores; `lists` is None for the validation part.

    Raises `UserError` when there is no such split.
    """
    if lists is None:
        return label_paths(dataset.ground_truth_val)
    # a video may be in both parts: it is scored against the labels of the part that the run predicted
    labels = label_paths(dataset.ground_truth)
    return {name: labels[name] for name in lists.videos("test", int(split) if split.isdecimal() else 0)}


@dataclass(frozen=True)
class Present:
    """A data set as it is now, which runs are held against; each part is looked at once, when it is needed.

    `splits`: the named list that runs are of, None for generated folds.
    """

    dataset: paths.Dataset
    splits: str | None = None

    def default_run(self, run: str | None) -> str | None:
        """The name of a run; without one that of the run that says nothing but its list."""
        return run or TrainConfig(splits=self.lists.name).run_name if self.splits else run

    @cached_property
    def mapping(self) -> PhaseMapping:
        return read_phases(self.dataset)

    @cached_property
    def lists(self) -> SplitLists:
        return open_splits(self.dataset, self.splits)

    @cached_property
    def _labels_hashes(self) -> dict[bool, str]:
        return {}

    def labels_hash(self, split: str) -> str:
        """Of the labels that a split's run would be made from now."""
        part = split == VALIDATION
        if part not in self._labels_hashes:
            self._labels_hashes[part] = labels_hash(self.dataset, split, self.mapping)
        return self._labels_hashes[part]

    @property
    def shared(self) -> tuple[PhaseMapping, dict[Path, np.ndarray]]:
        """What the scoring of every split needs: the mapping, and the phases that were read until now."""
        return self.mapping, self._phases

    @cached_property
    def _phases(self) -> dict[Path, np.ndarray]:
        return {}

    def phases(self, path: Path) -> np.ndarray:
        """True phases `(T,)` of a label file, which all encoders are scored against."""
        if path not in self._phases:
            self._phases[path] = read_labels(path, self.mapping).astype(np.int16)
        return self._phases[path]

    def labels(self, split: str) -> dict[str, Path]:
        """As `scored_labels`."""
        return scored_labels(self.dataset, split, None if split == VALIDATION else self.lists)


@dataclass(frozen=True)
class Unscored:
    """A split's folder that fits the data set as it is now."""

    folder: Path
    record: dict[str, Any]
    labels: dict[str, Path]
    labels_changed: bool


def check_split(folder: Path, split: str, present: Present) -> Unscored:
    """Hold one split's folder against the data set.

    Raises `UserError` when it was run on other phases or videos than the data set has now.
    """
    record, dataset = read_run_record(folder / paths.RUN_RECORD), present.dataset
    if record["split"] != split:
        raise UserError(f"{folder}: its record is that of split {record['split']}; predict split {split} again")
    if record["phases"] != list(present.mapping.names):
        raise UserError(f"{folder}: predicted with other phases than {dataset.mapping} has now; predict again")
    if split != VALIDATION and record["folds_hash"] != present.lists.hash:
        where = dataset.split_list(present.lists.name)
        raise UserError(f"{folder}: was run on other {present.lists.noun} than {where} has now; run it again")
    labels = present.labels(split)
    if others := sorted(labels.keys() ^ {nfc(name) for name in record["videos"]}):
        raise UserError(
            f"{folder}: was run on other videos than {dataset.root} has in split {split} now ({listed(others)}); predict "
            "it again"
        )
    for path in labels.values():
        present.phases(path)
    known = record.get("labels_hash")  # earlier versions did not record it
    return Unscored(folder, record, labels, known is not None and known != present.labels_hash(split))


def _score_split(present: tuple[PhaseMapping, Mapping[Path, np.ndarray]], split: Unscored) -> SplitResult:
    """Score a split from its prediction files, each of which is read once: all that is ever asked of it is counted.

    Raises `UserError` when a prediction is missing or damaged.
    """
    (mapping, phases), record = present, split.record
    fps = {nfc(name): rate for name, rate in record["fps"].items()}
    unreached = {nfc(name): count for name, count in record["unreached_labels"].items()}
    scores = score_folder(split.labels, split.folder, mapping, split.folder, fps=fps, unreached=unreached, known=phases)
    result = SplitResult(record, scores, split.labels_changed)
    result.value("pr_auc", PROTOCOLS["pooled"])  # first: it needs the probabilities of all videos at once
    for score in scores.values():
        score.count(RULES)
    return result


def _score(splits: Sequence[Unscored], present: Present) -> AbstractContextManager[Iterator[Callable[[], SplitResult]]]:
    """What each split is scored with, in their order; large ones are scored side by side."""
    size = sum(path.stat().st_size for split in splits for path in split.folder.glob("*.npy"))
    return side_by_side(
        _score_split, splits, present.shared, num_processes=min(num_cores(), MOST_PROCESSES, size // PROCESS_BYTES)
    )


def run_names(model: paths.Model, dataset: paths.Dataset) -> list[str | None]:
    """The runs of a model on a data set: None for the default one, then the named ones."""
    root = model.results(dataset.name)
    default: list[str | None] = [None] if visible(root, f"split_*/{paths.RUN_RECORD}") else []
    named = sorted({path.parents[1].name for path in visible(root, f"*/split_*/{paths.RUN_RECORD}")})
    if strange := [name for name in named if reason_against_folder(name)]:
        warn_once(f"{root}: left out {listed(strange)}: no name of a run ({reason_against_folder(strange[0])})")
    return default + [name for name in named if name not in strange]


def splits_of(model: paths.Model, dataset: paths.Dataset, run: str | None) -> str | None:
    """The named list of splits that a run is of; None for generated folds, and for what cannot be read."""
    for path in visible(model.results(dataset.name, run), f"split_*/{paths.RUN_RECORD}")[:1]:
        with contextlib.suppress(UserError, OSError):
            return read_run_record(path)["config"]["splits"]
    return None


def chosen_runs(
    dataset: paths.Dataset,
    models: Sequence[paths.Model] | None = None,
    runs: Sequence[str] | None = None,
    splits: str | None = None,
) -> list[tuple[paths.Model, str | None]]:
    """Every model's every run on a data set and a list of splits, of those models and runs alone that are named.

    Floors, and runs on videos that a rule chose, are no rows of a table unless they are named. Raises `UserError` for a name that no finished run has.
    """
    found = [
        (model, run)
        for model in models or paths.all_models()
        for run in run_names(model, dataset)
        if (not (is_floor(run) or is_acquired(run)) or run in (runs or ())) and splits_of(model, dataset, run) == splits
    ]
    there = {run or DEFAULT_RUN for _, run in found}
    if unknown := [run for run in runs or () if run not in there]:
        raise UserError(
            f"--runs {' '.join(unknown)}: no finished run on {dataset.name} is called so; "
            f"there are: {', '.join(sorted(there)) or 'none'}"
        )
    if bare := [model.name for model in models or () if model not in {model for model, _ in found}]:
        raise UserError(f"--models {' '.join(bare)}: no finished run on {dataset.name}; {_how_to_run(dataset)}")
    return [(model, run) for model, run in found if runs is None or (run or DEFAULT_RUN) in runs]


def finished_splits(
    model: paths.Model, dataset: paths.Dataset, run: str | None, names: Iterable[str]
) -> dict[str, Path]:
    """The folders of those of a run's splits that are finished, by the split's name."""
    folders = {name: model.split_results(dataset.name, name, run) for name in names}
    return {name: folder for name, folder in folders.items() if (folder / paths.RUN_RECORD).is_file()}


def collect_folds(
    model: paths.Model,
    dataset: paths.Dataset,
    num_folds: int | None,
    *,
    run: str | None = None,
    splits: str | None = None,
) -> EncoderResult:
    """The first `num_folds` folds of one encoder's run, or splits of a named list (None: `SplitLists.count`).

    Raises `UserError` when the data set has fewer, or a fold is missing, damaged, or run on other folds than there are.
    """
    present = Present(dataset, splits)
    run = present.default_run(run)
    checked = _check_folds(model, run, _count(present, present.lists.count(num_folds)), present)
    with _score(checked, present) as scored:
        return EncoderResult(model, run, [take() for take in scored], len(present.lists))


def _count(present: Present, num_folds: int | None) -> int:
    """`num_folds`, or all; raises `UserError` where there are fewer."""
    lists = present.lists
    if num_folds is not None and not 1 <= num_folds <= len(lists):
        raise UserError(f"{num_folds} {lists.noun}: {present.dataset.split_list(lists.name)} has {len(lists)}")
    return len(lists) if num_folds is None else num_folds


def _check_folds(model: paths.Model, run: str | None, num_folds: int, present: Present) -> list[Unscored]:
    dataset = present.dataset
    names = [str(k) for k in range(1, num_folds + 1)]
    folders = finished_splits(model, dataset, run, names)
    command = f"python -m common.run_k_folds --dataset {dataset.name} --model {model.name}"
    command += f" --splits {present.splits}" if present.splits else f" --folds {len(present.lists)}"
    command += f" --run {run}" if run and run != present.default_run(None) else ""
    if missing := [name for name in names if name not in folders]:
        raise UserError(
            f"{model.name}: no finished run of fold {', '.join(missing)} in {model.results(dataset.name, run)}; "
            f"run: {command}"
        )
    return [check_split(folder, name, present) for name, folder in folders.items()]


def collect_all(
    dataset: paths.Dataset,
    num_folds: int | None,
    *,
    models: Sequence[paths.Model] | None = None,
    runs: Sequence[str] | None = None,
    splits: str | None = None,
) -> Collection:
    """Every run that has the first `num_folds` folds (None: all), of all encoders or of the chosen (see `chosen_runs`).

    Of the named list `splits`, or of the generated folds. Raises `UserError` when there is none.
    """
    present = Present(dataset, splits)
    count = _count(present, num_folds)
    chosen = chosen_runs(dataset, models, runs, present.lists.name)
    check = partial(_check_folds, num_folds=count, present=present)
    return _collected(chosen, present, check, num_folds=len(present.lists))


def collect_split(
    dataset: paths.Dataset,
    split: str,
    *,
    models: Sequence[paths.Model] | None = None,
    runs: Sequence[str] | None = None,
    splits: str | None = None,
) -> Collection:
    """Every run that has one split, of all encoders or of the chosen ones (see `chosen_runs`).

    Of the named list `splits`, or of the generated folds. Raises `UserError` when there is none.
    """
    present = Present(dataset, splits)

    def check(model: paths.Model, run: str | None) -> list[Unscored]:
        folders = finished_splits(model, dataset, run, [split])
        return [check_split(folder, split, present) for folder in folders.values()]

    name = present.lists.name if splits else None
    return _collected(chosen_runs(dataset, models, runs, name), present, check)


def _collected(
    pairs: Iterable[tuple[paths.Model, str | None]],
    present: Present,
    check: Callable[[paths.Model, str | None], list[Unscored]],
    num_folds: int | None = None,
) -> Collection:
    """Each model's run with the splits that `check` finds, ranked; a run that cannot be used is named and left out."""
    results, left_out = score_runs(pairs, present, check, num_folds)
    if not results:
        dataset, reasons = present.dataset, "".join(f"; {reason}" for reason in left_out[:1])
        raise UserError(f"no finished runs on {dataset.name} that can be compared{reasons}; {_how_to_run(dataset)}")
    return Collection(sorted(results, key=lambda result: -result.mean("accuracy")), left_out)


def score_runs(
    pairs: Iterable[tuple[paths.Model, str | None]],
    present: Present,
    check: Callable[[paths.Model, str | None], list[Unscored]],
    num_folds: int | None = None,
) -> tuple[list[EncoderResult], list[str]]:
    """Each model's run with the splits that `check` finds, and why others are left out."""
    results, left_out, checked = [], [], []
    for model, run in pairs:
        with _noting(left_out):
            if splits := check(model, run):
                checked.append((model, run, splits))
    with _score([split for *_, splits in checked for split in splits], present) as scored:
        for model, run, splits in progress(checked, description="score", unit="runs"):
            of_run = list(islice(scored, len(splits)))  # all of them, also where one cannot be scored
            with _noting(left_out):
                results.append(EncoderResult(model, run, [take() for take in of_run], num_folds))
    return results, left_out


@contextlib.contextmanager
def _noting(left_out: list[str]) -> Iterator[None]:
    """Name what cannot be read in a warning and in `left_out`, and go on after it."""
    try:
        yield
    except (UserError, OSError) as error:
        reason = str(error) if isinstance(error, UserError) else describe_os_error(error)
        log.warning("left out: %s", reason)
        left_out.append(reason)


def _how_to_run(dataset: paths.Dataset) -> str:
    return f"run for an encoder: python -m common.run_k_folds --dataset {dataset.name} --model MODEL"


def collect_one(
    model: paths.Model, dataset: paths.Dataset, split: str, *, run: str | None = None, splits: str | None = None
) -> EncoderResult:
    """One split of one encoder's run.

    Raises `UserError` when it is not finished, damaged, or run on other folds than there are.
    """
    present = Present(dataset, splits)
    run = present.default_run(run)
    folders = finished_splits(model, dataset, run, [split])
    if not folders:
        raise UserError(
            f"{model.split_results(dataset.name, split, run)}: no finished run; run: "
            f"python -m common.run_k_folds --model {model.name} --dataset {dataset.name}"
        )
    return EncoderResult(model, run, [_score_split(present.shared, check_split(folders[split], split, present))])


def collect_runs(
    model: paths.Model, dataset: paths.Dataset, split: str | None = None, *, splits: str | None = None
) -> Collection:
    """Every run of one encoder but floors and those on videos that a rule chose, those with most splits first: one split's, or every finished fold's.

    A fold that is damaged or was run on other folds is left out, and its run goes on with the others. Raises
    `UserError` when nothing is finished.
    """
    present = Present(dataset, splits)
    names = [split] if split else [str(k) for k in range(1, len(present.lists) + 1)]
    results, left_out = [], []
    for run in run_names(model, dataset):
        if (
            is_floor(run)
            or is_acquired(run)
            or splits_of(model, dataset, run) != (present.lists.name if splits else None)
        ):
            continue
        splits = []
        for name, folder in finished_splits(model, dataset, run, names).items():
            with _noting(left_out):
                splits.append(_score_split(present.shared, check_split(folder, name, present)))
        if splits:
            results.append(EncoderResult(model, run, splits, None if split else len(present.lists)))
    if not results:
        words = f"--dataset {dataset.name} --model {model.name}"
        command = (
            f"common.train {words} --split {split}, then --action predict" if split else f"common.run_k_folds {words}"
        )
        wanted = f"split {split}" if split else "any fold"
        raise UserError(f"{model.results(dataset.name)}: no finished run of {wanted}; run: python -m {command}")
    return Collection(sorted(results, key=lambda result: -len(result.splits)), left_out)
