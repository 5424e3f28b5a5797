"""Everything that a comparison shows, computed once; workbook, pictures and page only lay it out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from common.base import paths
from common.base.runtime import UserError
from common.dataset.description import read_phases
from common.dataset.kfold import prefix_stratum
from common.dataset.patients import read_patients
from common.dataset.phases import PhaseMapping
from common.dataset.split_lists import split_line
from common.head.config import TrainConfig
from common.reports.caveats import Remark, data_remarks, left_out_remarks, remarks
from common.reports.costs import encoder_costs
from common.reports.labelling.acquired import AcquisitionTrial, acquisition_trials
from common.reports.labelling.saved import Savings, make_savings, pays_from, saved_intervals
from common.reports.leaderboard import Cell, Known, Leaderboard, make_leaderboard
from common.reports.published import PublishedRow, quotation
from common.reports.results import EncoderResult, Floors, SplitResult
from common.reports.robustness.factors import Holding, holding
from common.reports.robustness.learning import unlearned
from common.reports.robustness.waiting import WaitingPoint, waiting_curves
from common.reports.run_records import WindowRecord, run_families, window_record
from common.scoring.effort import DEFAULT_EFFORT, SCALES, EffortRule, saving, video_effort
from common.scoring.intervals import UNDEFINED, Interval
from common.scoring.metrics import MEASURES, calibration_error
from common.scoring.protocols import Protocol
from common.scoring.significance import VarianceComponents, variance_components
from common.scoring.video_score import VideoScore

# of a video, in `per_video_table`
EFFORT_COLUMNS = ("Corrections", "Minutes with prediction", "Minutes from nothing", "Time saved %")


@dataclass(frozen=True)
class EfficiencyPoint:
    """One run of a label-efficiency curve; `values` is measure -> (mean, std) over folds, fractions of 1."""

    fraction: float
    num_videos: float
    """Training videos of a fold, on average."""
    values: dict[str, tuple[float, float]]
    saved: dict[str, Interval] = field(default_factory=lambda: dict.fromkeys(SCALES, UNDEFINED))
    """The labelling time that its predictions save, by the costs of an operation (`labelling.saved_intervals`)."""


@dataclass(frozen=True)
class SpacingPoint:
    """One run of an encoder with windows of several lengths in time; `cells` are those of the leaderboard."""

    name: str
    window: WindowRecord
    cells: dict[str, Cell]


@dataclass(frozen=True)
class SeedVariance:
    """The parts of a measure's variance that come from the seed and from the fold, for one encoder."""

    encoder: str
    measure: str
    seeds: list[int]
    components: VarianceComponents


@dataclass(frozen=True, eq=False)
class Report:
    """A comparison of encoders; `boards[0]` is under the protocol that tables and pictures show."""

    dataset: paths.Dataset
    mapping: PhaseMapping
    title: str
    is_synthetic: bool
    """Whether the data set is drawn, or a run says that it was when its predictions were made."""
    boards: list[Leaderboard]
    remarks: list[Remark]
    per_video: pd.DataFrame
    efficiency: dict[str, list[EfficiencyPoint]]
    """Encoder -> points by rising fraction, for encoders that were trained on several."""
    spacing: dict[str, list[SpacingPoint]]
    """Model -> points by rising seconds, for those whose runs differ in the windows of their features alone."""
    seed_variance: list[SeedVariance]
    published: list[PublishedRow]
    floors: Floors = field(default_factory=dict)
    holding: Holding | None = None
    """Whether the order holds under other heads and scales, where encoders were run under several."""
    waiting: dict[str, list[WaitingPoint]] = field(default_factory=dict)
    """Encoder -> points by rising seconds, for those whose runs differ in how long a head may wait alone."""
    savings: Savings | None = None
    """The labelling time that predictions save, where the rate of the labels is known."""
    pays: list[str] = field(default_factory=list)
    """For each curve of `efficiency`, from how many labelled videos on pre-labelling pays, in a sentence."""
    trials: list[AcquisitionTrial] = field(default_factory=list)
    """Of rules that choose what to label next, where there are any."""

    @property
    def board(self) -> Leaderboard:
        return self.boards[0]

    @property
    def results(self) -> list[EncoderResult]:
        """Encoders trained on all training videos, best first."""
        return self.board.results

    @property
    def full_title(self) -> str:
        """The title of what shows the first protocol alone."""
        return f"{self.title}, protocol {self.board.protocol.name}"

    @property
    def warnings(self) -> list[Remark]:
        """The alarming remarks, which stand on every picture and sheet."""
        return [remark for remark in self.remarks if remark.alarming]

    @cached_property
    def patients(self) -> dict[str, str]:
        """Video -> patient, of the scored videos whose patient is known: what intervals resample."""
        known = self.per_video[["Video", "Patient"]].drop_duplicates().itertuples(index=False)
        return {video: patient for video, patient in known if isinstance(patient, str)}

    @cached_property
    def unlearned(self) -> dict[str, str]:
        """Row -> the signs that its head did not learn, in words."""
        return unlearned(self.results)

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """Encoder -> `encoder_costs`; looks at every feature file, so chart, page and workbook share it."""
        return {result.name: encoder_costs(result, self.dataset) for result in self.results}


def make_report(
    dataset: paths.Dataset,
    results: Sequence[EncoderResult],
    protocols: Sequence[Protocol],
    *,
    published: Sequence[PublishedRow] = (),
    left_out: Sequence[str] = (),
    floors: Floors | None = None,
    against: str | None = None,
    effort: EffortRule = DEFAULT_EFFORT,
    acquired: Sequence[EncoderResult] = (),
) -> Report:
    """Compare `results`; runs on a part of the training videos go into the label-efficiency curves only.

    `left_out`: why other runs cannot stand beside them, among the remarks; `floors`: those under them. `against`: the row that
    every other is tested against, instead of all pairs. `effort`: what correcting a prediction is taken to cost; `acquired`: the runs of trials of what
    to label next. Raises `UserError` where there is no such row.
    """
    try:
        patients = read_patients(dataset)
    except UserError:  # among the remarks: intervals resample videos then
        patients = {}
    results, acquired = (
        [replace(result, effort_rule=effort) if result.effort_rule != effort else result for result in each]
        for each in (results, acquired)
    )
    trials = acquisition_trials(acquired, protocols[0], patients)
    whole = [result for result in results if train_fraction(result) == 1.0] or list(results)
    lines = [*data_remarks(dataset, results), *left_out_remarks(left_out), *remarks(whole, protocols[0])]
    lines += [Remark(quotation(published))] if published else []
    is_synthetic = dataset.is_synthetic or any(result.is_synthetic for result in results)
    known: Known = {}
    boards = [make_leaderboard(whole, protocol, patients, known, against=against) for protocol in protocols]
    holds = holding(boards[0], patients)
    lines += holds.remarks if holds else []
    lines += [Remark(trial.sentence) for trial in trials]
    efficiency = efficiency_curves(results, protocols[0], patients)
    curves = {name: [(point.num_videos, point.saved) for point in points] for name, points in efficiency.items()}
    return Report(
        dataset=dataset,
        mapping=read_phases(dataset),
        title=_title(dataset, results[0], is_synthetic),
        is_synthetic=is_synthetic,
        boards=boards,
        remarks=lines,
        per_video=per_video_table(whole, protocols, patients),
        efficiency=efficiency,
        spacing=spacing_curves(boards[0]),
        seed_variance=seed_variances(whole, protocols[0]),
        published=list(published),
        floors=floors or {},
        holding=holds,
        waiting=waiting_curves(boards[0]),
        savings=make_savings(boards[0].results, patients, against=against),
        pays=list(filter(None, (pays_from(name, curve) for name, curve in curves.items()))),
        trials=trials,
    )


def _title(dataset: paths.Dataset, first: EncoderResult, is_synthetic: bool) -> str:
    """`SICS155, 5-fold cross-validation`: the data set, drawn or not, and how it is divided."""
    num_splits = len(first.splits)
    scheme = f"{num_splits}-fold cross-validation" if num_splits > 1 else f"split {first.record['split']}"
    if (name := first.record["config"].get("splits")) is not None:
        scheme = f"{split_line(dataset, name)}, " + (f"{num_splits} splits" if num_splits > 1 else scheme)
    return f"{dataset.name}{' (synthetic data)' if is_synthetic else ''}, {scheme}"


def per_video_table(
    results: Sequence[EncoderResult], protocols: Sequence[Protocol], patients: Mapping[str, str]
) -> pd.DataFrame:
    """One row per encoder, protocol and video, the base of every mean, interval and test.

    Measures are in percent, the boundary error in seconds; undefined values are NaN.
    """
    return pd.DataFrame(
        {
            "Encoder": result.name,
            "Seed": split.record["seed"],
            "Split": split.record["split"],
            "Protocol": protocol.name,
            "Video": video,
            "Prefix": prefix_stratum(video),
            "Patient": patients.get(video),
            "Frames": score.num_frames,
            "Minutes": score.num_frames / score.fps / 60 if score.fps else np.nan,
            **{f"{name} %": 100 * values[key] for key, name in MEASURES.items()},
            **further[video],
        }
        for result in results
        for split, values_by_protocol, further in _splits_with_values(result, protocols)
        for protocol in protocols
        for (video, score), values in zip(split.scores.items(), values_by_protocol[protocol], strict=True)
    )


def _splits_with_values(
    result: EncoderResult, protocols: Sequence[Protocol]
) -> Iterator[tuple[SplitResult, dict[Protocol, list[dict[str, float]]], dict[str, dict[str, float]]]]:
    """Every split with the measures of each of its videos, in their order, by protocol; and what no protocol changes."""
    first = 0
    for split in result.splits:
        last = first + len(split.scores)
        further = {video: _further_columns(score, result.effort_rule) for video, score in split.scores.items()}
        yield split, {protocol: result.test_values(protocol)[first:last] for protocol in protocols}, further
        first = last


def _further_columns(score: VideoScore, rule: EffortRule) -> dict[str, float]:
    error = np.nan if score.calibration is None else 100 * calibration_error(score.calibration)
    columns = {"Calibration error %": error, "Median boundary error s": _median(score.boundary_seconds)}
    effort = video_effort(score, rule)
    known = [np.nan] * 4
    if effort is not None:
        found = saving([effort], rule)
        known = [sum(effort.counts.values()), found.with_prediction / 60, found.from_nothing / 60, 100 * found.share]
    return columns | dict(zip(EFFORT_COLUMNS, known, strict=True))


def _median(seconds: np.ndarray) -> float:
    defined = seconds[np.isfinite(seconds)]  # a phase that is never predicted has no boundary to be off
    return float(np.median(defined)) if defined.size else float("nan")


def train_fraction(result: EncoderResult) -> float:
    """The share of the training videos that a run was trained on; records from before the setting mean all of them."""
    return result.record["config"].get("train_fraction", 1.0)


def efficiency_curves(
    results: Sequence[EncoderResult], protocol: Protocol, patients: Mapping[str, str] | None = None
) -> dict[str, list[EfficiencyPoint]]:
    """Measures against the share of training videos, for every encoder with several; seeds are curves of their own."""
    curves = {}
    for members in run_families(results, "train_fraction"):
        points = sorted((_point(member, protocol, patients) for member in members), key=lambda point: point.fraction)
        if len({point.fraction for point in points}) > 1:
            curves[max(members, key=train_fraction).name] = points
    return curves


def _point(result: EncoderResult, protocol: Protocol, patients: Mapping[str, str] | None) -> EfficiencyPoint:
    fraction = train_fraction(result)
    # all videos but a fold's own, of which training took the share: at least one
    counts = [result.num_train_videos(split) for split in result.splits]
    values = {measure: (result.mean(measure, protocol), result.std(measure, protocol)) for measure in MEASURES}
    return EfficiencyPoint(fraction, float(np.mean(counts)), values, saved_intervals(result, patients))


def spacing_curves(board: Leaderboard) -> dict[str, list[SpacingPoint]]:
    """Every encoder with windows of several lengths in time, by its name; windows that end with their frame are apart.

    So are seeds.
    """
    curves: dict[str, list[SpacingPoint]] = {}
    for members in run_families(board.results, "variant"):
        windows = {member: window for member in members if (window := window_record(member.record))}
        if len(set(windows.values())) < 2:
            continue
        for member, window in windows.items():
            marks = [f"seed {member.record['seed']}"] if member.record["seed"] != TrainConfig.seed else []
            marks += ["frame last"] if window.ends_with_frame else []
            marks += ["random weights"] if member.record["features"]["random_weights"] else []
            name = member.model.name + (f" ({', '.join(marks)})" if marks else "")
            curves.setdefault(name, []).append(SpacingPoint(member.name, window, board.cells[member.name]))
    return {name: sorted(curves[name], key=lambda point: (point.window.seconds, point.name)) for name in sorted(curves)}


def seed_variances(results: Sequence[EncoderResult], protocol: Protocol) -> list[SeedVariance]:
    """Variance components of every encoder that was run with several seeds on the same folds."""
    found = []
    for members in run_families(results, "seed"):
        members.sort(key=lambda member: member.record["seed"])
        seeds = [member.record["seed"] for member in members]
        for measure in MEASURES:
            values = np.stack([member.values(measure, protocol) for member in members], axis=1)  # (folds, seeds)
            found.append(SeedVariance(members[0].model.name, measure, seeds, variance_components(values)))
    return found
