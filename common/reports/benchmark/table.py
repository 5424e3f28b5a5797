"""Everything that a benchmark shows, computed once: cells of encoders and data sets, ranks over sets, agreement of sets.

A cell whose encoder has seen scored videos has a number, in red, but no rank. Mean ranks are those of encoders that have
a rank in every set: over other sets they would be means of other things.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import combinations

import numpy as np

from common.base import paths
from common.base.entries import reason_against_folder, visible
from common.base.runtime import UserError, describe_os_error, listed
from common.dataset.description import read_description
from common.head.config import TrainConfig
from common.reports.benchmark.tasks import TaskColumn
from common.reports.caveats import Remark, leaks_of_result
from common.reports.comparison import Report, make_report
from common.reports.leaderboard import ALPHA, HEADLINE, Cell, Family
from common.reports.results import Collection, EncoderResult, run_names
from common.scoring.intervals import Interval, drawn_values, resampled_units, sums_per_unit
from common.scoring.metrics import MEASURES
from common.scoring.protocols import Protocol, contributions, from_sums, way_to_take
from common.scoring.ranks import LEAST_RANKED, kendall, mean_ranks, ranks_of
from common.scoring.significance import holm, smallest_p, tie_letters

log = logging.getLogger(__name__)

DRAWS = 1000
MOST_DRAWS = 20_000  # enough for 31 encoders
MARGIN = 1.1  # of the draws that Holm's correction needs, so that more than the very first pair can show
SEED = 42


def in_rows(found: Collection) -> Collection:
    """The same results under the name of their row: a run that says nothing but its list of splits has no name."""

    def renamed(result: EncoderResult) -> EncoderResult:
        lists = result.record["config"]["splits"]
        prefix = TrainConfig(splits=lists).run_name if lists else None
        if prefix is None or not (result.run == prefix or (result.run or "").startswith(f"{prefix}-")):
            return result
        return replace(result, run=result.run[len(prefix) + 1 :] or None)

    rows = {result.name: renamed(result) for result in found.results}
    floors = {rows[name].name: under for name, under in found.floors.items()}
    return replace(found, results=list(rows.values()), floors=floors)


@dataclass(frozen=True, eq=False)
class BenchmarkSet:
    """One data set's comparison, and what the weights of its encoders have seen of the scored videos."""

    report: Report
    leaks: dict[str, list[str]]
    """Encoder -> what it has seen, in words; without those that saw nothing that is known."""

    @property
    def name(self) -> str:
        return self.report.dataset.name

    @cached_property
    def results(self) -> dict[str, EncoderResult]:
        return {result.name: result for result in self.report.results}

    @property
    def num_videos(self) -> int:
        return len(self.report.results[0].scores)

    @property
    def num_units(self) -> int:
        """Patients where they are known, else videos."""
        names = list(self.report.results[0].scores)
        return len(set(resampled_units(names, self.report.patients) or names))

    @property
    def hours(self) -> float:
        """Of the scored videos; NaN where a rate is unknown."""
        scores = self.report.results[0].scores.values()
        return sum(score.num_frames / score.fps / 3600 if score.fps else float("nan") for score in scores)

    @property
    def scheme(self) -> str:
        """What it was split by."""
        return self.report.title.partition(", ")[2]

    def floor(self, kind: str, board: int, measure: str) -> EncoderResult | None:
        """The floor of a kind (`head.config.FLOORS`) under the set's encoders, the highest of them; None where there is none."""
        protocol = self.report.boards[board].protocol
        found = [under[kind] for under in self.report.floors.values() if kind in under]
        return max(found, key=lambda floor: np.nan_to_num(floor.mean(measure, protocol), nan=-1), default=None)

    def cell(self, encoder: str, board: int, measure: str) -> Cell | None:
        """A measure under the protocol number `board`; None where the set has no run of the encoder."""
        return self.report.boards[board].cells[encoder][measure] if encoder in self.results else None


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of two data sets' orders of the `count` encoders that both rank, with its 95 % interval."""

    first: str
    second: str
    count: int
    tau: Interval


@dataclass(frozen=True, eq=False)
class Standing:
    """One measure under one protocol over all data sets."""

    ranks: dict[str, dict[str, float]]
    """Set -> encoder -> rank among those of the set that are defined and have seen nothing."""
    means: dict[str, Interval]
    """Encoder -> mean rank with its 95 % interval, the best first; without those that some set has no rank of."""
    letters: dict[str, str]
    """Encoders that share a letter are statistically tied in their mean rank; empty where nothing could have told them
    apart."""
    family: Family
    agreement: list[Agreement]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Encoders by data sets; `standings` by number of the protocol and measure."""

    title: str
    sets: list[BenchmarkSet]
    protocols: list[Protocol]
    standings: dict[tuple[int, str], Standing]
    remarks: list[Remark]
    tasks: list[TaskColumn] = field(default_factory=list)
    """Other tasks, which have values and no ranks."""

    @property
    def headline(self) -> Standing:
        """Of the headline measure under the first protocol."""
        return self.standings[0, HEADLINE]

    @cached_property
    def encoders(self) -> list[str]:
        """By mean rank in the headline measure, then those without one by the number of their sets, then those of tasks alone."""
        present = {name: sum(name in each.results for each in self.sets) for each in self.sets for name in each.results}
        others = sorted(present.keys() - self.headline.means.keys(), key=lambda name: (-present[name], name))
        of_tasks = (name for column in self.tasks for name in column.summaries)
        return list(dict.fromkeys([*self.headline.means, *others, *of_tasks]))


def collect_sets(
    asked: Sequence[str],
    splits: str | None,
    collect: Callable[[paths.Dataset], Collection],
    protocols: Sequence[Protocol],
) -> tuple[list[BenchmarkSet], list[Remark]]:
    """The data sets that are asked for, or all that have finished runs, and a remark for each that cannot be taken.

    `collect` finds the rows of one. Raises `UserError` where no data set is left.
    """
    found, remarks = [], []
    for dataset in [paths.dataset(name) for name in asked] or _with_runs():
        try:
            collection = in_rows(collect(dataset))
        except (UserError, OSError) as error:
            reason = str(error) if isinstance(error, UserError) else describe_os_error(error)
            remarks.append(Remark(f"Left out: {dataset.name}: {reason}"))
            log.warning("left out: %s: %s", dataset.name, reason)
            continue
        report = make_report(
            dataset, collection.results, protocols, left_out=collection.left_out, floors=collection.floors
        )
        said = {result.name: leaks_of_result(dataset, result) for result in report.results}
        found.append(BenchmarkSet(report, {name: leaks for name, leaks in said.items() if leaks}))
    if not found:
        list_words = f" of --splits {splits}" if splits else ""
        reasons = "; ".join(map(str, remarks)) or "no data set has any"
        raise UserError(f"--benchmark: no finished runs{list_words} that can be compared ({reasons})")
    return found, remarks


def _with_runs() -> list[paths.Dataset]:
    """Every data set of phases below `data/` that some model has a finished run on."""
    folders = [path.parent for path in visible(paths.repository_root() / "data", "*/mapping.txt")]
    sets = [paths.Dataset(folder) for folder in folders if not reason_against_folder(folder.name)]
    return [
        each for each in sets if not _is_of_task(each) and any(run_names(model, each) for model in paths.all_models())
    ]


def has_phase_runs() -> bool:
    """Whether some data set of phases has finished runs."""
    return bool(_with_runs())


def _is_of_task(dataset: paths.Dataset) -> bool:
    try:
        return read_description(dataset).task is not None
    except UserError:  # who collects its runs says what is wrong
        return False


def make_benchmark(
    sets: Sequence[BenchmarkSet],
    protocols: Sequence[Protocol],
    remarks: Sequence[Remark],
    tasks: Sequence[TaskColumn] = (),
) -> Benchmark:
    """Rank the encoders of several data sets; every report has a board of each of `protocols`, in their order."""
    everywhere = set.intersection(*(set(each.results) for each in sets))
    num_draws = _draws_to_separate(len(everywhere))
    draws = [_Draws(each, SEED + number, num_draws) for number, each in enumerate(sets)]
    standings = {
        (board, measure): _standing(sets, draws, board, protocol, measure)
        for board, protocol in enumerate(protocols)
        for measure in MEASURES
    }
    made = Benchmark("", list(sets), list(protocols), standings, list(remarks), list(tasks))
    lines = [*_set_remarks(sets), *_rank_remarks(made), *remarks]
    title = f"{len(made.encoders)} encoders on {len(sets) + len(tasks)} data sets"
    drawn = [each.report.is_synthetic for each in sets]
    if any([*drawn, *(each.synthetic for column in tasks for each in column.summaries.values())]):
        title += " (synthetic data)"
    return replace(made, title=title, remarks=lines)


def _set_remarks(sets: Sequence[BenchmarkSet]) -> list[Remark]:
    """What stands below a comparison of one set alone, with the set's name; what all sets share stands once."""
    texts: dict[Remark, list[str]] = {}
    for each in sets:
        for remark in each.report.remarks:
            texts.setdefault(remark, []).append(each.name)
    shared = [remark for remark, names in texts.items() if len(names) == len(sets)]
    return [
        *shared,
        *(
            replace(remark, text=f"{', '.join(names)}: {remark.text}")
            for remark, names in texts.items()
            if remark not in shared
        ),
    ]


def _rank_remarks(made: Benchmark) -> list[Remark]:
    lines = []
    without = [name for name in made.encoders if name not in made.headline.means]
    if without and made.headline.means:
        lines.append(
            Remark(
                f"No mean rank: {listed(without)}: not run on every data set, or their weights have seen videos of one. Mean "
                f"ranks are among the {len(made.headline.means)} others."
            )
        )
    elif without:
        lines.append(Remark("No mean ranks: fewer than two encoders have a clean result on every data set.", True))
    return lines


def _standing(
    sets: Sequence[BenchmarkSet], draws: Sequence["_Draws"], board: int, protocol: Protocol, measure: str
) -> Standing:
    values = {}
    for each in sets:
        cells = {name: each.cell(name, board, measure).mean for name in each.results if name not in each.leaks}
        values[each.name] = {name: mean for name, mean in cells.items() if not np.isnan(mean)}
    ranks = {
        name: dict(zip(of_set, ranks_of(np.array(list(of_set.values()))).tolist(), strict=True)) if of_set else {}
        for name, of_set in values.items()
    }
    everywhere = sorted(set.intersection(*(set(of_set) for of_set in values.values())))
    found = [each.deviations(everywhere, protocol, measure) for each in draws]
    means: dict[str, Interval] = {}
    letters: dict[str, str] = {}
    family = Family(0, 0, float("nan"))
    if len(everywhere) > 1:
        table = np.array([[values[each.name][name] for name in everywhere] for each in sets])
        if any(each is None for each in found):  # no function of sums: ranks without intervals
            estimates = ranks_of(table).mean(axis=0).tolist()
            intervals = [Interval(estimate, float("nan"), float("nan")) for estimate in estimates]
            p_values = np.ones((len(everywhere), len(everywhere)))
        else:
            intervals = mean_ranks(table, [each[:DRAWS] for each in found]).intervals()
            ranked = mean_ranks(table, found)
            p_values = ranked.p_values()
            family = _family(len(everywhere), sum(each.num_units for each in sets), ranked.smallest_p)
        order = sorted(range(len(everywhere)), key=lambda place: (intervals[place].estimate, everywhere[place]))
        means = {everywhere[place]: intervals[place] for place in order}
        letters = dict.fromkeys(means, "")
        if family.can_separate:
            letters = tie_letters(list(means), _corrected(p_values[np.ix_(order, order)]), alpha=ALPHA)
    agreement = [
        _agreement((sets[i], sets[j]), (draws[i], draws[j]), values, protocol, measure)
        for i, j in combinations(range(len(sets)), 2)
    ]
    return Standing(ranks, means, letters, family, [each for each in agreement if each is not None])


def _draws_to_separate(num_encoders: int) -> int:
    """Draws whose smallest p, 2 of one more than there are, stays below `ALPHA` after the correction over all pairs."""
    needed = MARGIN * num_encoders * (num_encoders - 1) / ALPHA
    return round(min(max(DRAWS, needed), MOST_DRAWS))


def _family(num_encoders: int, num_units: int, smallest_of_draws: float) -> Family:
    """All pairs of encoders. A bootstrap of three videos may agree with itself throughout, and yet three videos show no
    more than a test of their signs could: the larger of both limits counts."""
    num_pairs = num_encoders * (num_encoders - 1) // 2
    of_units = smallest_p(num_units)
    short_of = "videos" if of_units >= smallest_of_draws else "draws"
    return Family(num_pairs, num_units, min(1.0, num_pairs * max(of_units, smallest_of_draws)), short_of=short_of)


def _corrected(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction over all pairs of a symmetric matrix."""
    pairs = np.triu_indices(len(p_values), 1)
    corrected = np.ones_like(p_values)
    corrected[pairs] = corrected.T[pairs] = holm(p_values[pairs])
    return corrected


def _agreement(
    sets: tuple[BenchmarkSet, BenchmarkSet],
    draws: tuple["_Draws", "_Draws"],
    values: dict[str, dict[str, float]],
    protocol: Protocol,
    measure: str,
) -> Agreement | None:
    """Of the encoders that two sets both rank; None for fewer than `LEAST_RANKED`."""
    first, second = (values[each.name] for each in sets)
    names = sorted(first.keys() & second.keys())
    if len(names) < LEAST_RANKED:
        return None
    table = np.array([[of_set[name] for name in names] for of_set in (first, second)])
    found = [each.deviations(names, protocol, measure, DRAWS) for each in draws]
    bounds = (float("nan"), float("nan"))
    if all(each is not None for each in found):
        bounds = mean_ranks(table, found).agreement(0, 1)
    return Agreement(sets[0].name, sets[1].name, len(names), Interval(kendall(*table), *bounds))


class _Draws:
    """Bootstrap over the videos of one set: how far each encoder's measures go from their values, all encoders together."""

    def __init__(self, each: BenchmarkSet, seed: int, num_draws: int):
        self._set, self._seed, self._num_draws = each, seed, num_draws
        self._known: dict[tuple, np.ndarray | None] = {}

    def deviations(
        self, encoders: Sequence[str], protocol: Protocol, measure: str, most: int | None = None
    ) -> np.ndarray | None:
        """`(draws, encoders)`, the first `most`; None where an encoder's measure is no function of sums over videos."""
        found = [self._of(name, protocol, measure) for name in encoders]
        return None if any(each is None for each in found) or not found else np.stack(found, axis=1)[:most]

    def _of(self, encoder: str, protocol: Protocol, measure: str) -> np.ndarray | None:
        key = encoder, way_to_take(measure, protocol)
        if key not in self._known:
            self._known[key] = self._drawn(encoder, protocol, measure)
        return self._known[key]

    def _drawn(self, encoder: str, protocol: Protocol, measure: str) -> np.ndarray | None:
        # by name: the units that are drawn are the same for all encoders
        tests = sorted(self._set.results[encoder].tests, key=lambda test: test[0])
        added = contributions([score for _, score in tests], measure, protocol)
        if added is None or np.isnan(added).any():
            return None
        groups = resampled_units([name for name, _ in tests], self._set.report.patients)
        sums, statistic = sums_per_unit(added, groups), partial(from_sums, measure, protocol=protocol)
        if len(sums) < 2:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = drawn_values(sums, statistic, draws=self._num_draws, seed=self._seed)
            # a draw without a value (no true frame of any class) says nothing; of few units a bootstrap varies too little
            wider = np.sqrt(len(sums) / (len(sums) - 1))
            return wider * np.nan_to_num(drawn - statistic(sums.sum(axis=0)[None])[0])
