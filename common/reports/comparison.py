"""Everything that a comparison shows, computed once; workbook, pictures and page only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from common.base import paths
from common.base.runtime import progress
from common.checks.leaks import leaks_of_record
from common.dataset.kfold import read_patients
from common.dataset.phases import PhaseMapping, read_mapping
from common.reports.caveats import Remark, remarks
from common.reports.costs import encoder_costs
from common.reports.leaderboard import Leaderboard, make_leaderboard
from common.reports.per_video import per_video_table
from common.reports.published import PublishedRow, quotation
from common.reports.results import EncoderResult
from common.scoring.metrics import MEASURES
from common.scoring.protocols import Protocol
from common.scoring.significance import VarianceComponents, variance_components


@dataclass(frozen=True)
class EfficiencyPoint:
    """One run of a label-efficiency curve; `values` is measure -> (mean, std) over folds, fractions of 1."""

    fraction: float
    num_videos: float
    """Training videos of a fold, on average."""
    values: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class SeedVariance:
    """How much of a measure's variance comes from the seed and how much from the fold, for one encoder."""

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
    boards: list[Leaderboard]
    remarks: list[Remark]
    per_video: pd.DataFrame
    efficiency: dict[str, list[EfficiencyPoint]]
    """Encoder -> points by rising fraction, for encoders that were trained on several."""
    seed_variance: list[SeedVariance]
    published: list[PublishedRow]

    @property
    def board(self) -> Leaderboard:
        return self.boards[0]

    @property
    def results(self) -> list[EncoderResult]:
        """Encoders trained on all training videos, best first."""
        return self.board.results

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
) -> Report:
    """Compare `results`; runs on a part of the training videos go into the label-efficiency curves only."""
    patients = read_patients(dataset.patients)
    whole = [result for result in results if train_fraction(result) == 1.0] or list(results)
    for result in progress(whole, description="measure", unit="encoders"):  # ranking frames for PR-AUC takes the time
        for protocol in protocols:
            result.video_values(protocol)
    lines = _leaks(dataset, whole) + remarks(whole, protocols[0])
    lines += [Remark(quotation(list(published)))] if published else []
    num_splits = len(results[0].splits)
    marked = " (synthetic data)" if dataset.is_synthetic else ""
    scheme = f"{num_splits}-fold cross-validation" if num_splits > 1 else f"split {results[0].record['split']}"
    return Report(
        dataset=dataset,
        mapping=read_mapping(dataset.mapping),
        title=f"{dataset.name}{marked}, {scheme}",
        boards=[make_leaderboard(whole, protocol, patients) for protocol in protocols],
        remarks=lines,
        per_video=per_video_table(whole, protocols, patients),
        efficiency=efficiency_curves(results, protocols[0]),
        seed_variance=seed_variances(whole, protocols[0]),
        published=list(published),
    )


def _leaks(dataset: paths.Dataset, results: Sequence[EncoderResult]) -> list[Remark]:
    found = [(result.name, leak) for result in results for leak in leaks_of_record(dataset, result.record)]
    return [Remark(f"Leak: {name}: {leak}", alarming=True) for name, leak in found]


def train_fraction(result: EncoderResult) -> float:
    """The share of the training videos that a run was trained on; records from before the setting mean all of them."""
    return result.record["config"].get("train_fraction", 1.0)


def _family(result: EncoderResult, *varying: str) -> tuple:
    """What runs have in common, folds included, that differ in `varying` settings and their name alone."""
    left_out = {*varying, "run", "split"}
    config = sorted((key, str(value)) for key, value in result.record["config"].items() if key not in left_out)
    return result.model.name, tuple(split.record["split"] for split in result.splits), *config


def _families(results: Sequence[EncoderResult], *varying: str) -> list[list[EncoderResult]]:
    families: dict[tuple, list[EncoderResult]] = {}
    for result in results:
        families.setdefault(_family(result, *varying), []).append(result)
    return [members for members in families.values() if len(members) > 1]


def efficiency_curves(results: Sequence[EncoderResult], protocol: Protocol) -> dict[str, list[EfficiencyPoint]]:
    """Measures against the share of training videos, for every encoder with several; seeds are curves of their own."""
    curves = {}
    for members in _families(results, "train_fraction"):
        points = sorted((_point(member, protocol) for member in members), key=lambda point: point.fraction)
        whole = max(members, key=train_fraction)
        if len({point.fraction for point in points}) > 1:
            curves[whole.name] = points
    return curves


def _point(result: EncoderResult, protocol: Protocol) -> EfficiencyPoint:
    fraction = train_fraction(result)
    total = len(result.scores)
    num_videos = float(np.mean([max(1, round(fraction * (total - len(split.scores)))) for split in result.splits]))
    return EfficiencyPoint(
        fraction,
        num_videos,
        {measure: (result.mean(measure, protocol), result.std(measure, protocol)) for measure in MEASURES},
    )


def seed_variances(results: Sequence[EncoderResult], protocol: Protocol) -> list[SeedVariance]:
    """Variance components of every encoder that was run with several seeds on the same folds."""
    found = []
    for members in _families(results, "seed"):
        members = sorted(members, key=lambda member: member.record["seed"])
        seeds = [member.record["seed"] for member in members]
        name = members[0].model.name
        for measure in MEASURES:
            values = np.stack([member.values(measure, protocol) for member in members], axis=1)
            found.append(SeedVariance(name, measure, seeds, variance_components(values)))
    return found
