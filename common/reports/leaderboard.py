"""Encoders ranked under one protocol, with intervals, paired tests and who is statistically tied with whom."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, combinations
from typing import Any

import numpy as np

from common.reports.results import EncoderResult
from common.scoring.intervals import Interval, sum_interval
from common.scoring.metrics import MEASURES
from common.scoring.protocols import Protocol, contributions, from_sums, way_to_take
from common.scoring.significance import (
    EffectSize,
    corrected_resampled_t_test,
    effect_sizes,
    holm,
    paired_permutation_tests,
    tie_letters,
)

ALPHA = 0.05
HEADLINE = "accuracy"
UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))
# intervals and tests, by encoder or pair and the way in which the measure is taken
Known = dict[tuple[Hashable, ...], Any]


@dataclass(frozen=True)
class Cell:
    """One measure of one encoder, as fractions of 1: mean and std (ddof 1) over splits, 95 % interval over videos."""

    mean: float
    std: float
    interval: Interval


@dataclass(frozen=True)
class PairTest:
    """Two encoders compared on the same test videos; `first` is the better one.

    `p_holm` is corrected over all pairs of a measure.
    """

    measure: str
    first: str
    second: str
    num_videos: int
    effect: EffectSize
    p_videos: float
    """Paired permutation test over videos."""
    p_holm: float
    p_folds: float
    """Corrected resampled t-test over folds; NaN for a single split."""

    @property
    def is_significant(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Rows by the headline measure, best first."""

    protocol: Protocol
    results: list[EncoderResult]
    cells: dict[str, dict[str, Cell]]
    """Encoder -> measure -> cell."""
    tests: list[PairTest]
    letters: dict[str, dict[str, str]]
    """Measure -> encoder -> letters; encoders that share one are statistically tied."""

    @cached_property
    def names(self) -> list[str]:
        return [result.name for result in self.results]

    def best(self, measure: str) -> str | None:
        """The encoder with the highest mean; None where the measure is undefined for all."""
        defined = {name: self.cells[name][measure].mean for name in self.names}
        defined = {name: mean for name, mean in defined.items() if not np.isnan(mean)}
        return max(defined, key=defined.__getitem__) if defined else None


def make_leaderboard(
    results: Sequence[EncoderResult],
    protocol: Protocol,
    patients: Mapping[str, str] | None = None,
    known: Known | None = None,
) -> Leaderboard:
    """Rank encoders, estimate intervals and test every pair of encoders for every measure.

    Intervals resample patients where `patients` (video -> patient) names them, else videos. `known` is filled with what
    is found, and what is in it is not sought again: boards of the same results under several protocols share one.
    """
    known = {} if known is None else known
    ranked = sorted(results, key=lambda result: -np.nan_to_num(result.mean(HEADLINE, protocol), nan=-1))
    cells = {result.name: _cells(result, protocol, patients, known) for result in ranked}
    tests: list[PairTest] = []
    letters = {}
    for measure in MEASURES:
        by_mean = sorted(ranked, key=lambda result: -np.nan_to_num(result.mean(measure, protocol), nan=-1))
        found = _pair_tests(by_mean, measure, protocol, patients, known)
        tests += found
        p_values = np.ones((len(by_mean), len(by_mean)))
        pairs = np.triu_indices(len(by_mean), 1)  # row by row, the order of the tests
        p_values[pairs] = p_values.T[pairs] = [test.p_holm for test in found]
        letters[measure] = tie_letters([result.name for result in by_mean], p_values, alpha=ALPHA)
    return Leaderboard(protocol, ranked, cells, tests, letters)


def resampled_units(names: Sequence[str], patients: Mapping[str, str] | None) -> list[str] | None:
    """The patient of each test, or its video: tests of one video are one unit; None where every test is a unit."""
    if not patients and len(set(names)) == len(names):
        return None
    return [(patients or {}).get(name, f"video:{name}") for name in names]


def _cells(
    result: EncoderResult, protocol: Protocol, patients: Mapping[str, str] | None, known: Known
) -> dict[str, Cell]:
    groups = resampled_units([name for name, _ in result.tests], patients)
    cells = {}
    for measure in MEASURES:
        key = result.name, way_to_take(measure, protocol)
        if key not in known:
            added = contributions([score for _, score in result.tests], measure, protocol)
            known[key] = UNDEFINED
            if added is not None and not np.isnan(added).any():
                known[key] = sum_interval(added, partial(from_sums, measure, protocol=protocol), groups=groups)
        # an undefined video, or a measure that is no function of sums (pooled PR-AUC), leaves no interval
        cells[measure] = Cell(result.mean(measure, protocol), result.std(measure, protocol), known[key])
    return cells


def _pair_tests(
    results: Sequence[EncoderResult], measure: str, protocol: Protocol, patients: Mapping[str, str] | None, known: Known
) -> list[PairTest]:
    """Tests of every pair, the better encoder first; undefined videos of either are left out of a pair."""
    values = {}
    for result in results:
        rows = result.video_values(protocol)
        values[result.name] = {name: row[measure] for name, row in rows.items() if not np.isnan(row[measure])}
    way = way_to_take(measure, protocol, of_one_video=True)
    untested: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # videos that both have -> pairs
    for first, second in combinations(values, 2):
        if (first, second, way) not in known:
            untested.setdefault(tuple(sorted(values[first].keys() & values[second].keys())), []).append((first, second))
    for videos, pairs in untested.items():
        of_videos = {name: np.array([values[name][video] for video in videos]) for name in {*chain(*pairs)}}
        differences = np.stack([of_videos[first] - of_videos[second] for first, second in pairs], axis=1)
        found = _test_videos(measure, pairs, differences, resampled_units(videos, patients))
        known.update({(test.first, test.second, way): test for test in found})
    tests = [
        replace(known[first.name, second.name, way], p_folds=_fold_test(first, second, measure, protocol))
        for first, second in combinations(results, 2)
    ]
    # Holm's correction needs the p values of all pairs
    corrected = holm(np.array([test.p_videos for test in tests]))
    return [replace(test, p_holm=float(p_holm)) for test, p_holm in zip(tests, corrected, strict=True)]


def _test_videos(
    measure: str, pairs: Sequence[tuple[str, str]], differences: np.ndarray, groups: Sequence[str] | None
) -> list[PairTest]:
    """Tests of the pairs that have the same videos, from their differences `(videos, pairs)`; not over folds yet."""
    num_videos = len(differences)
    p_values = paired_permutation_tests(differences, groups=groups) if num_videos > 1 else np.full(len(pairs), np.nan)
    return [
        PairTest(measure, *pair, num_videos, effect, p_videos, p_holm=float("nan"), p_folds=float("nan"))
        for pair, effect, p_videos in zip(
            pairs, effect_sizes(differences, groups=groups), p_values.tolist(), strict=True
        )
    ]


def _fold_test(first: EncoderResult, second: EncoderResult, measure: str, protocol: Protocol) -> float:
    """The corrected resampled t-test over folds that both encoders were trained and scored on."""
    # other videos in a fold, or in another order of folds: no pairs of values to compare
    if len(first.splits) < 2 or [list(s.scores) for s in first.splits] != [list(s.scores) for s in second.splits]:
        return float("nan")
    test_sizes = np.array([len(split.scores) for split in first.splits])
    train_sizes = [first.num_train_videos(split) for split in first.splits]
    differences = first.values(measure, protocol) - second.values(measure, protocol)
    return float(corrected_resampled_t_test(differences, train_sizes, test_sizes))
