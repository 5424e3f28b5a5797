"""Encoders ranked under one protocol, with intervals, paired tests and who is statistically tied with whom."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, combinations
from typing import Any

import numpy as np

from common.base.runtime import UserError, counted
from common.reports.results import EncoderResult
from common.scoring.intervals import UNDEFINED, Interval, resampled_units, sum_interval
from common.scoring.metrics import MEASURES
from common.scoring.protocols import Protocol, contributions, from_sums, way_to_take
from common.scoring.significance import (
    EffectSize,
    corrected_resampled_t_test,
    effect_sizes,
    holm,
    paired_permutation_tests,
    smallest_p,
    tie_letters,
)

ALPHA = 0.05
HEADLINE = "accuracy"
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

    `p_holm` is corrected over all tested pairs of a measure.
    """

    measure: str
    first: str
    second: str
    num_videos: int
    num_units: int
    """What is as likely plus as minus: patients where they are known, else videos."""
    effect: EffectSize
    p_videos: float
    """Paired permutation test over videos."""
    p_holm: float
    p_folds: float
    """Corrected resampled t-test over folds; NaN for a single split."""

    @property
    def is_significant(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Family:
    """The tests that are corrected together, and the smallest p that any of them could have had."""

    num_pairs: int
    num_units: int
    """The most that a pair was tested on."""
    smallest_p: float
    """After Holm's correction; NaN without a test."""
    unit: str = "video"
    short_of: str = "videos"
    """What there would have to be more of."""

    @property
    def can_separate(self) -> bool:
        return self.smallest_p < ALPHA

    @property
    def reach(self) -> str:
        """What so few units could have shown, in words."""
        if np.isnan(self.smallest_p):
            return "no p value"
        pairs, units = counted(self.num_pairs, "pair"), counted(self.num_units, self.unit)
        return f"the smallest p that {pairs} over {units} can have after Holm's correction is {self.smallest_p:.2g}"

    @property
    def shortage(self) -> str:
        """`not separated: too few videos`: never that encoders are tied, where nothing could have told them apart."""
        return f"not separated: {'too few ' + self.short_of if self.smallest_p >= ALPHA else 'no test'}"


@dataclass(frozen=True)
class Contrast:
    """A row less the baseline: difference in fractions of 1, and whether it is significant; `p_holm` over such pairs."""

    difference: Interval
    p_holm: float

    @property
    def is_significant(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Rows by the headline measure, best first.

    `against`: the row that every other is tested against, and no further pair; None where all pairs are tested.
    """

    protocol: Protocol
    results: list[EncoderResult]
    cells: dict[str, dict[str, Cell]]
    """Encoder -> measure -> cell."""
    tests: list[PairTest]
    letters: dict[str, dict[str, str]]
    """Measure -> encoder -> letters; encoders that share one are statistically tied. Empty where the tests could not
    have told them apart, and where only pairs with a baseline were tested."""
    families: dict[str, Family]
    """By measure."""
    against: str | None = None

    @cached_property
    def names(self) -> list[str]:
        return [result.name for result in self.results]

    def best(self, measure: str) -> list[str]:
        """The encoder with the highest mean, or all whose means are equal to it; none where the measure is undefined for all."""
        means = {name: self.cells[name][measure].mean for name in self.names}
        highest = max((mean for mean in means.values() if not np.isnan(mean)), default=None)
        return [name for name, mean in means.items() if mean == highest]

    def has_letters(self, measure: str) -> bool:
        """Whether encoders can share a letter, or not, in a measure."""
        return self.against is None and self.families[measure].can_separate

    def contrast(self, measure: str, name: str) -> Contrast | None:
        """A row against the baseline; None for the baseline itself, and without one."""
        for test in self.tests if self.against not in (None, name) else ():
            if test.measure == measure and name in (test.first, test.second):
                found = test.effect.difference
                if test.second == name:
                    found = Interval(0 - found.estimate, 0 - found.high, 0 - found.low)  # never -0
                return Contrast(found, test.p_holm)
        return None

    @cached_property
    def separation(self) -> str:
        """Who can be told from whom, as the sentences below a table; empty for a single row."""
        if len(self.results) < 2:
            return ""
        family = self.families[HEADLINE]
        if not family.can_separate:
            text = f"{HEADLINE}: {family.shortage} ({family.reach}; {ALPHA:g} or more shows nothing)"
        elif self.against is None:
            text = f"encoders that share a letter are statistically tied in {HEADLINE}: Holm p at least {ALPHA:g} ({family.reach})"
        else:
            text = f"every row is tested against {self.against} alone: it differs where Holm p is below {ALPHA:g} ({family.reach})"
        others = {measure: each for measure, each in self.families.items() if each.can_separate != family.can_separate}
        text = f"{text[:1].upper()}{text[1:]}."
        for measure, each in others.items():
            if not np.isnan(each.smallest_p):  # one that is nowhere defined shows no value either
                text += f" {MEASURES[measure]}: {each.shortage if family.can_separate else each.reach}."
        return text


def make_leaderboard(
    results: Sequence[EncoderResult],
    protocol: Protocol,
    patients: Mapping[str, str] | None = None,
    known: Known | None = None,
    *,
    against: str | None = None,
) -> Leaderboard:
    """Rank encoders, estimate intervals and test every pair of encoders, or each with `against`, for every measure.

    Intervals resample patients where `patients` (video -> patient) names them, else videos. `known` is filled with what
    is found, and what is in it is not sought again: boards of the same results under several protocols share one.
    Raises `UserError` where no row is called `against`, or it is the only one.
    """
    known = {} if known is None else known
    _require_row(results, against)
    ranked = sorted(results, key=lambda result: -np.nan_to_num(result.mean(HEADLINE, protocol), nan=-1))
    cells = {result.name: _cells(result, protocol, patients, known) for result in ranked}
    tests: list[PairTest] = []
    letters, families = {}, {}
    for measure in MEASURES:
        by_mean = sorted(ranked, key=lambda result: -np.nan_to_num(result.mean(measure, protocol), nan=-1))
        found = _pair_tests(by_mean, measure, protocol, patients, known, against)
        tests += found
        families[measure] = family_of(found, "patient" if patients else "video")
        letters[measure] = dict.fromkeys((result.name for result in by_mean), "")
        if against is None and families[measure].can_separate:
            p_values = np.ones((len(by_mean), len(by_mean)))
            pairs = np.triu_indices(len(by_mean), 1)  # row by row, the order of the tests
            p_values[pairs] = p_values.T[pairs] = [test.p_holm for test in found]
            letters[measure] = tie_letters([result.name for result in by_mean], p_values, alpha=ALPHA)
    return Leaderboard(protocol, ranked, cells, tests, letters, families, against)


def _require_row(results: Sequence[EncoderResult], against: str | None) -> None:
    """Raise `UserError` for a baseline that is no row, or has none to be compared with."""
    names = [result.name for result in results]
    if against is not None and (against not in names or len(names) < 2):
        found = "it is the only row" if against in names else f"no row is called so; there are: {', '.join(names)}"
        raise UserError(f"--against {against!r}: {found}; give the name of one of several rows as the table writes it")


def family_of(tests: Sequence[PairTest], unit: str) -> Family:
    """Of all tests of one measure; pairs without a p value are none, as Holm's correction counts them."""
    units = [test.num_units for test in tests if not np.isnan(test.p_videos)]
    smallest = min((len(units) * smallest_p(count) for count in units), default=float("nan"))
    return Family(len(units), max(units, default=0), min(1.0, smallest) if units else smallest, unit)


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
    results: Sequence[EncoderResult],
    measure: str,
    protocol: Protocol,
    patients: Mapping[str, str] | None,
    known: Known,
    against: str | None,
) -> list[PairTest]:
    """Tests of every pair (with `against`, where it is given), the better encoder first.

    Undefined videos of either are left out of a pair.
    """
    values = {}
    for result in results:
        rows = result.video_values(protocol)
        values[result.name] = {name: row[measure] for name, row in rows.items() if not np.isnan(row[measure])}
    way = way_to_take(measure, protocol, of_one_video=True)
    chosen = [pair for pair in combinations(results, 2) if against is None or against in {each.name for each in pair}]
    untested: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # videos that both have -> pairs
    for first, second in ((one.name, other.name) for one, other in chosen):
        if (first, second, way) not in known:
            untested.setdefault(tuple(sorted(values[first].keys() & values[second].keys())), []).append((first, second))
    for videos, pairs in untested.items():
        of_videos = {name: np.array([values[name][video] for video in videos]) for name in {*chain(*pairs)}}
        differences = np.stack([of_videos[first] - of_videos[second] for first, second in pairs], axis=1)
        found = compare_videos(measure, pairs, differences, resampled_units(videos, patients))
        known.update({(test.first, test.second, way): test for test in found})
    tests = [
        replace(known[first.name, second.name, way], p_folds=_fold_test(first, second, measure, protocol, known))
        for first, second in chosen
    ]
    # Holm's correction needs the p values of all pairs
    corrected = holm(np.array([test.p_videos for test in tests]))
    return [replace(test, p_holm=float(p_holm)) for test, p_holm in zip(tests, corrected, strict=True)]


def compare_videos(
    measure: str, pairs: Sequence[tuple[str, str]], differences: np.ndarray, groups: Sequence[str] | None
) -> list[PairTest]:
    """Tests of the pairs that have the same videos, from their differences `(videos, pairs)`; not over folds yet."""
    num_videos = len(differences)
    num_units = num_videos if groups is None else len(set(groups))
    p_values = paired_permutation_tests(differences, groups=groups) if num_videos > 1 else np.full(len(pairs), np.nan)
    return [
        PairTest(measure, *pair, num_videos, num_units, effect, p_videos, p_holm=float("nan"), p_folds=float("nan"))
        for pair, effect, p_videos in zip(
            pairs, effect_sizes(differences, groups=groups), p_values.tolist(), strict=True
        )
    ]


def _fold_test(first: EncoderResult, second: EncoderResult, measure: str, protocol: Protocol, known: Known) -> float:
    """The corrected resampled t-test over folds that both encoders were trained and scored on."""
    key = "over folds", first.name, second.name, way_to_take(measure, protocol)
    if key not in known:
        values = [result.values(measure, protocol) for result in (first, second)]
        known[key] = fold_p_value(first, second, *values)
    return known[key]


def fold_p_value(first: EncoderResult, second: EncoderResult, values: np.ndarray, others: np.ndarray) -> float:
    """The corrected resampled t-test of a measure's values `(splits,)` by two encoders; NaN where folds do not pair."""
    # other videos in a fold, or in another order of folds: no pairs of values to compare
    if len(first.splits) < 2 or [list(s.scores) for s in first.splits] != [list(s.scores) for s in second.splits]:
        return float("nan")
    test_sizes = np.array([len(split.scores) for split in first.splits])
    train_sizes = [first.num_train_videos(split) for split in first.splits]
    return float(corrected_resampled_t_test(values - others, train_sizes, test_sizes))
