"""Does it hold? Whether the order of encoders depends on what they were compared with: head, scale of the features, decoding."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from common.base.runtime import counted
from common.head.config import TrainConfig
from common.head.networks.catalogue import HEADS, options_that_differ
from common.reports.caveats import HEAD_SETTINGS, Remark
from common.reports.leaderboard import HEADLINE, Leaderboard
from common.reports.results import EncoderResult
from common.scoring.intervals import NAN, UNDEFINED, Interval, drawn_values, resampled_units, sums_per_unit
from common.scoring.ranks import LEAST_RANKED, kendall, kendalls
from common.scoring.significance import effect_size

# what may differ between two runs of one encoder: its name in a sentence, and the settings that it comes in
FACTORS = {
    "look-ahead": ("causal", "lookahead"),
    "head": ("head", "head_options", "causal", "lookahead"),
    "scale of the features": ("standardise",),
    "decoding": ("decode",),
    "choice of settings": ("choose",),
}
TWO_SIDED = ("scale of the features", "decoding", "choice of settings")  # each with a natural other side: none
TAILS = 0.025, 0.975


@dataclass(frozen=True)
class Condition:
    """All settings of a head but its encoder, and how they are called beside the others that are there."""

    settings: tuple[tuple[str, Any], ...]
    label: str


@dataclass(frozen=True)
class OrderAgreement:
    """Kendall's tau of the orders of the encoders under two conditions; NaN for fewer than `LEAST_RANKED`."""

    first: str
    second: str
    num_encoders: int
    tau: Interval


@dataclass(frozen=True)
class SettingChange:
    """By how much an encoder's accuracy changes from one condition to another, a fraction of 1, over the same videos."""

    encoder: str
    first: str
    second: str
    difference: Interval


@dataclass(frozen=True, eq=False)
class Holding:
    """Encoders under several conditions; the first of either is the best, or the study's."""

    encoders: list[str]
    conditions: list[Condition]
    rows: dict[tuple[str, str], str]
    """(encoder, label of the condition) -> the row of the leaderboard."""
    agreements: list[OrderAgreement]
    changes: list[SettingChange]
    remarks: list[Remark]
    """One for each factor that was varied; alarming where two encoders change places beyond chance."""

    def ranks(self, board: Leaderboard) -> dict[tuple[str, str], int]:
        """(encoder, label of the condition) -> its place among the encoders under that condition, from 1."""
        found = {}
        for condition in self.conditions:
            means = {
                name: board.cells[row][HEADLINE].mean
                for (name, label), row in self.rows.items()
                if label == condition.label
            }
            found |= {
                (name, condition.label): 1 + sum(other > mean for other in means.values())
                for name, mean in means.items()
            }
        return found

    def tau(self, first: str, second: str) -> Interval:
        """Of two conditions by their labels."""
        found = (each.tau for each in self.agreements if {each.first, each.second} == {first, second})
        return next(found, UNDEFINED)


@dataclass(frozen=True, eq=False)
class _Draws:
    """Means of the accuracy over videos, as they are and in draws of videos, of the runs that share their videos."""

    means: dict[str, float]
    drawn: dict[str, np.ndarray]

    def order(self, runs: Mapping[str, str]) -> list[str]:
        """Encoders, the best first, by their runs."""
        return sorted(runs, key=lambda encoder: -self.means[runs[encoder]])

    def sign(self, first: str, second: str) -> int:
        """1 where the first is better beyond chance, -1 where the second is, else 0."""
        low, high = np.quantile(self.drawn[first] - self.drawn[second], TAILS)
        return int(low > 0) - int(high < 0)

    def tau(self, pairs: Sequence[tuple[str, str]]) -> Interval:
        """Of the orders of the first and of the second of each pair: the same encoder's runs under two conditions."""
        if len(pairs) < LEAST_RANKED:
            return UNDEFINED
        first, second = zip(*pairs, strict=True)
        estimate = kendall(*([self.means[name] for name in side] for side in (first, second)))
        drawn = kendalls(*(np.stack([self.drawn[name] for name in side], axis=1) for side in (first, second)))
        low, high = np.nanquantile(drawn, TAILS) if np.isfinite(drawn).any() else (NAN, NAN)
        return Interval(estimate, float(low), float(high))


def holding(board: Leaderboard, patients: Mapping[str, str] | None = None) -> Holding | None:
    """Whether the order on a leaderboard holds; None where no encoder was run under several conditions.

    Intervals resample patients where they are known, else videos, of those that all rows were scored on.
    """
    settings = {result.name: settings_of(result) for result in board.results if not result.is_foreign}
    encoders: dict[str, list[EncoderResult]] = {}
    for result in board.results:
        if result.name in settings:
            encoders.setdefault(_encoder(result), []).append(result)
    if len(set(settings.values())) < 2 or max(map(len, encoders.values())) < 2:
        return None
    conditions = _conditions(settings.values())
    labels = {condition.settings: condition.label for condition in conditions}
    rows = {(encoder, labels[settings[run.name]]): run.name for encoder, runs in encoders.items() for run in runs}
    draws = _draw([result for runs in encoders.values() for result in runs], board, patients)
    agreements = [
        OrderAgreement(first.label, second.label, len(pairs), draws.tau(pairs))
        for first, second in combinations(conditions, 2)
        if (pairs := list(_runs(rows, first.label, second.label).values()))
    ]
    results = {result.name: result for result in board.results}
    changes = [
        SettingChange(encoder, first.label, second.label, _change(*(results[run] for run in runs), board, patients))
        for first, second in combinations(conditions, 2)
        if _factor(first, second) in TWO_SIDED
        for encoder, runs in _runs(rows, first.label, second.label).items()
    ]
    remarks = [_remark(factor, rows, conditions, draws) for factor in FACTORS]
    return Holding(list(encoders), conditions, rows, agreements, changes, list(filter(None, remarks)))


def settings_of(result: EncoderResult) -> tuple[tuple[str, Any], ...]:
    """The settings of a run's head, by name."""
    config = result.record["config"]
    found = {name: config.get(name) for name in HEAD_SETTINGS} | {"decode": result.record.get("decode") or "argmax"}
    return tuple((name, tuple(value.items()) if isinstance(value, dict) else value) for name, value in found.items())


def _encoder(result: EncoderResult) -> str:
    """What is the same in all runs of one encoder: its features, the seed, and the share of the training videos."""
    config = result.record["config"]
    marks = [config.get("variant")] + ["random weights"] * result.record["features"]["random_weights"]
    marks += [f"seed {result.record['seed']}"] if result.record["seed"] != TrainConfig.seed else []
    marks = list(filter(None, marks))
    return result.model.name + (f" ({', '.join(marks)})" if marks else "")


def _conditions(found: Iterable[tuple[tuple[str, Any], ...]]) -> list[Condition]:
    """Each once, the study's head and scale first, called by its head and what else tells it from the others."""
    distinct = sorted(dict.fromkeys(found), key=lambda settings: [_rank(name, value) for name, value in settings])
    varying = {name for several in zip(*distinct, strict=True) if len(set(several)) > 1 for name, _ in several}
    return [Condition(settings, _label(dict(settings), varying)) for settings in distinct]


def _rank(name: str, value: Any) -> tuple[int, str]:
    """The place of a setting's value among others: heads as the catalogue has them, `none` and no decoding first."""
    if name == "head":
        return list(HEADS).index(value), ""
    return int(value not in ("none", "argmax", False, None)), str(value)


def _label(settings: Mapping[str, Any], varying: Collection[str]) -> str:
    own = options_that_differ(settings["head"], dict(settings["head_options"] or ()))
    sizes = ", ".join(f"{name} {value}" for name, value in own.items())
    words = [HEADS[settings["head"]].title + (f" ({sizes})" if sizes else "")]
    words += ["causal"] if settings["causal"] and HEADS[settings["head"]].causality == "either" else []
    words += [f"look-ahead {settings['lookahead']:g} s"] if settings["lookahead"] else []
    words += ["standardised"] if settings["standardise"] == "train" else []
    words += [f"chosen {settings['choose'].replace('+', ', ')}"] if settings["choose"] not in (None, "none") else []
    words += [settings["decode"]] if settings["decode"] != "argmax" else []
    spoken = {"head", "head_options", "causal", "lookahead", "standardise", "choose", "decode"}
    return ", ".join([*words, *(f"{name} {settings[name]}" for name in sorted(varying - spoken))])


def _runs(rows: Mapping[tuple[str, str], str], first: str, second: str) -> dict[str, tuple[str, str]]:
    """Encoder -> its rows under two conditions, of those that have both."""
    return {
        encoder: (run, rows[encoder, second])
        for (encoder, label), run in rows.items()
        if label == first and (encoder, second) in rows
    }


def _draw(results: Sequence[EncoderResult], board: Leaderboard, patients: Mapping[str, str] | None) -> _Draws:
    """Means over the videos of all runs, and in draws of these."""
    values = {result.name: _accuracies(result, board) for result in results}
    names = sorted(set.intersection(*map(set, values.values())))
    of_runs = np.array([[own[name] for name in names] for own in values.values()]).T  # (videos, runs)
    sums = sums_per_unit(np.column_stack([of_runs, np.ones(len(names))]), resampled_units(names, patients))
    drawn = drawn_values(sums, lambda of_draws: of_draws[:, :-1] / of_draws[:, -1:])
    return _Draws(
        dict(zip(values, of_runs.mean(axis=0).tolist(), strict=True)), dict(zip(values, drawn.T, strict=True))
    )


def _accuracies(result: EncoderResult, board: Leaderboard) -> dict[str, float]:
    found = {name: row[HEADLINE] for name, row in result.video_values(board.protocol).items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _change(
    first: EncoderResult, second: EncoderResult, board: Leaderboard, patients: Mapping[str, str] | None
) -> Interval:
    """How much better the second run of an encoder is, over the videos of both."""
    one, other = (_accuracies(result, board) for result in (first, second))
    names = sorted(one.keys() & other.keys())
    sides = ([side[name] for name in names] for side in (other, one))
    return effect_size(*sides, groups=resampled_units(names, patients)).difference


def _factor(first: Condition, second: Condition) -> str | None:
    """The one factor in which two conditions differ; None for several, and for other settings."""
    pairs = zip(first.settings, second.settings, strict=True)
    differing = {name for (name, one), (_, other) in pairs if one != other}
    return next((factor for factor, names in FACTORS.items() if differing <= set(names)), None)


def _flips(
    rows: Mapping[tuple[str, str], str], conditions: Sequence[Condition], factor: str, draws: _Draws
) -> list[tuple[str, str, Condition, Condition]]:
    """Two encoders of which the first is better under the first condition, and worse under the second, beyond chance."""
    found = []
    for one, other in combinations(conditions, 2):
        runs = _runs(rows, one.label, other.label) if _factor(one, other) == factor else {}
        for first, second in combinations(runs, 2):
            signs = [draws.sign(*pair) for pair in zip(runs[first], runs[second], strict=True)]
            if signs[0] * signs[1] < 0:
                found.append((first, second, one, other) if signs[0] > 0 else (second, first, one, other))
    return found


def _remark(
    factor: str, rows: Mapping[tuple[str, str], str], conditions: Sequence[Condition], draws: _Draws
) -> Remark | None:
    """Whether the order of the encoders depends on a factor; None where it was not varied for two of them."""
    pairs = [
        (one, other, runs)
        for one, other in combinations(conditions, 2)
        if _factor(one, other) == factor and len(runs := _runs(rows, one.label, other.label)) > 1
    ]
    if not pairs:
        return None
    if flips := _flips(rows, conditions, factor, draws):
        first, second, one, other = flips[0]
        more = f"; {counted(len(flips) - 1, 'other pair')} too" if len(flips) > 1 else ""
        text = (
            f"The order of the encoders depends on the {factor}: {first} is better than {second} with {one.label}, and worse "
            f"with {other.label}, both beyond chance (95 % intervals over videos){more}."
        )
        return Remark(text, alarming=True)
    orders = [[draws.order({name: run[side] for name, run in runs.items()}) for side in (0, 1)] for *_, runs in pairs]
    if all(one == other for one, other in orders):
        return Remark(f"The order of the encoders does not depend on the {factor}.")
    return Remark(f"The order of the encoders changes with the {factor}, but no two change places beyond chance.")
