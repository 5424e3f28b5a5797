"""The labelling time that predictions save: by encoder with intervals and paired tests, and from how many videos on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from common.base.runtime import counted
from common.reports.leaderboard import Family, PairTest, compare_videos, family_of, fold_p_value
from common.reports.results import EncoderResult
from common.scoring.effort import OPERATIONS, SCALES, TIME_SAVED, EffortRule, effort_sums, saving, share_saved
from common.scoring.intervals import NAN, UNDEFINED, Interval, resampled_units, sum_interval
from common.scoring.significance import holm


@dataclass(frozen=True)
class SavingRow:
    """One encoder: counts an hour of video, minutes an hour of video, and the share of the labelling time saved."""

    name: str
    num_videos: int
    hours: float
    counts: dict[str, float]
    """Of each of `OPERATIONS`, to correct its predictions."""
    inserts_from_nothing: float
    minutes: float
    minutes_from_nothing: float
    shares: dict[str, Interval]
    """By the costs, of `SCALES`; intervals over videos, or patients where they are known."""

    @property
    def operations(self) -> float:
        """All of them, an hour of video."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Savings:
    """Encoders by what their predictions save, the most first, under one rule."""

    rule: EffortRule
    rows: list[SavingRow]
    tests: list[PairTest]
    """Differences of the share saved over the same videos."""
    family: Family
    without_times: list[str]
    """Encoders of which nothing can be said: how many labels their videos have in a second is not known."""


def make_savings(
    results: Sequence[EncoderResult], patients: Mapping[str, str] | None = None, *, against: str | None = None
) -> Savings | None:
    """What every encoder's predictions save; None where no video's rate is known.

    All are scored by the same `effort_rule`. `against`: the row that every other is tested against, instead of all pairs.
    """
    known = [result for result in results if None not in result.efforts and result.efforts]
    if not known:
        return None
    rule = known[0].effort_rule
    rows = {result.name: _row(result, rule, patients) for result in known}
    ranked = sorted(known, key=lambda result: -np.nan_to_num(result.time_saved, nan=-np.inf))
    tests = _tests(ranked, rule, patients, against)
    return Savings(
        rule,
        [rows[result.name] for result in ranked],
        tests,
        family_of(tests, "patient" if patients else "video"),
        [result.name for result in results if result.name not in rows],
    )


def saved_intervals(result: EncoderResult, patients: Mapping[str, str] | None) -> dict[str, Interval]:
    """The share saved by an encoder's predictions under the costs of each of `SCALES`, with intervals over videos."""
    if None in result.efforts or not result.efforts:
        return dict.fromkeys(SCALES, UNDEFINED)
    groups = resampled_units([name for name, _ in result.tests], patients)
    return {
        scale: sum_interval(effort_sums(result.efforts, result.effort_rule.scaled(factor)), share_saved, groups=groups)
        for scale, factor in SCALES.items()
    }


def _row(result: EncoderResult, rule: EffortRule, patients: Mapping[str, str] | None) -> SavingRow:
    efforts = result.efforts
    hours = math.fsum(each.video_seconds for each in efforts) / 3600
    found = saving(efforts, rule)
    return SavingRow(
        result.name,
        len(result.scores),
        hours,
        {kind: sum(each.counts[kind] for each in efforts) / hours for kind in OPERATIONS},
        sum(each.num_segments for each in efforts) / hours,
        found.with_prediction / 60 / hours,
        found.from_nothing / 60 / hours,
        saved_intervals(result, patients),
    )


def _tests(
    ranked: Sequence[EncoderResult], rule: EffortRule, patients: Mapping[str, str] | None, against: str | None
) -> list[PairTest]:
    """Every pair (with `against`, where it is given), the one that saves more first, on the videos that both have.

    From nothing these take the same time by both, so that a difference in seconds over that time is one of shares.
    """
    tests = []
    for first, second in combinations(ranked, 2):
        if against is not None and against not in (first.name, second.name):
            continue
        one, other = (_seconds_by_video(result, rule) for result in (first, second))
        videos = sorted(one.keys() & other.keys())
        sums = np.array([(one[video], other[video]) for video in videos]).reshape(-1, 2, 2)
        mean_from_nothing = sums[:, 0, 1].mean() if videos else NAN
        differences = (sums[:, 1, :1] - sums[:, 0, :1]) / mean_from_nothing
        (test,) = compare_videos(
            TIME_SAVED, [(first.name, second.name)], differences, resampled_units(videos, patients)
        )
        of_folds = [
            np.array([saving(result.split_efforts(split), rule).share for split in result.splits])
            for result in (first, second)
        ]
        tests.append(replace(test, p_folds=fold_p_value(first, second, *of_folds)))
    corrected = holm([test.p_videos for test in tests])
    return [replace(test, p_holm=float(p_holm)) for test, p_holm in zip(tests, corrected, strict=True)]


def _seconds_by_video(result: EncoderResult, rule: EffortRule) -> dict[str, np.ndarray]:
    """Video -> seconds with its prediction and from nothing `(2,)`, the mean of its tests."""
    found: dict[str, list[np.ndarray]] = {}
    for (name, _), sums in zip(result.tests, effort_sums(result.efforts, rule), strict=True):
        found.setdefault(name, []).append(sums)
    return {name: np.mean(each, axis=0) for name, each in found.items()}


def pays_from(encoder: str, curve: Sequence[tuple[float, Mapping[str, Interval]]]) -> str:
    """From how many labelled videos on pre-labelling by an encoder pays, in a sentence; empty where nothing is known.

    `curve`: numbers of labelled videos, rising, with the shares saved under the costs of each of `SCALES`.
    """
    curve = [(number, shares) for number, shares in curve if math.isfinite(shares["as stated"].estimate)]
    if not curve:
        return ""
    begins = {scale: _begin([(number, shares[scale]) for number, shares in curve]) for scale in SCALES}
    most, last = curve[-1][0], curve[-1][1]["as stated"]
    found, share = begins["as stated"] or (None, last)
    interval = f" (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f})" if math.isfinite(share.low) else ""
    if found is None:
        text = (
            f"Pre-labelling by {encoder} does not pay beyond chance with up to {_videos(most)}: there it "
            f"{_saves(share.estimate)}{interval}"
        )
    else:
        # the true beginning may lie before the first point
        first = "pays already" if found == curve[0][0] and len(curve) > 1 else "begins to pay"
        text = f"Pre-labelling by {encoder} {first} with {_videos(found)}: it {_saves(share.estimate)}{interval}"
    others = [
        f"at {scale} the assumed costs {f'with {begin[0]:.0f}' if (begin := begins[scale]) else 'not'}"
        for scale in SCALES
        if scale != "as stated"
    ]
    return f"{text}; {', '.join(others)}."


def _begin(curve: Sequence[tuple[float, Interval]]) -> tuple[float, Interval] | None:
    """The first point from which on time is saved, there beyond chance; None where there is no such point."""
    for place, (number, share) in enumerate(curve):
        if share.low > 0 and all(later.estimate > 0 for _, later in curve[place:]):
            return number, share
    return None


def _videos(number: float) -> str:
    return counted(round(number), "labelled video")


def _saves(share: float) -> str:
    percent = f"{100 * abs(share):.0f} % of the labelling time"
    return f"saves {percent}" if share > 0 else f"costs {percent} more"
