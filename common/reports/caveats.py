"""Caveats that a reader of a table must know before believing it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from common.base import paths
from common.base.runtime import UserError, counted, listed, shortened
from common.checks.folds import list_findings, patient_findings, piece_findings
from common.checks.leaks import leaks_of_record, published_leaks_of_record
from common.features.files import IDENTITY
from common.head.networks.catalogue import HEADS
from common.reports.results import Collection, EncoderResult
from common.reports.robustness.learning import ADVICE, unlearned
from common.reports.run_records import UNVERIFIED, head_seconds, identity, weights_source
from common.scoring.protocols import CHALLENGE, Protocol, methods_sentence

# settings that make two encoders' rows comparable when they are equal
HEAD_SETTINGS = (
    "head", "head_options", "num_epochs", "num_layers_PG", "num_layers_R", "num_R", "num_f_maps", "bz", "lr", "loss_mse", "adaptive_mse",
    "window_mse", "loss_focal", "class_weights", "standardise", "choose", "sample_rate", "causal", "lookahead", "precision",
)  # fmt: skip
PATIENTS = "Patients"  # how remarks begin that name some
OF_ONE_FOLD = {"split", "dataset", "model", "run"}  # settings that say which run it is, not how it was made


@dataclass(frozen=True)
class Remark:
    """A line below a table; an alarming one (a leak, results that are not comparable) is shown in red."""

    text: str
    alarming: bool = False

    def __str__(self) -> str:
        return self.text


def remarks(results: Sequence[EncoderResult], protocol: Protocol = CHALLENGE) -> list[Remark]:
    """Synthetic data, random weights, unequal heads, how the numbers are taken, and what identifies them."""
    lines = []
    # floors have no head that could be like others'
    results = [result for result in results if result.floor is None] or list(results)
    if any(result.is_synthetic for result in results):
        lines.append(Remark("Synthetic data: drawn videos. These numbers say nothing about surgery."))
    if any(result.record["features"]["random_weights"] for result in results):
        lines.append(Remark("Rows marked 'random weights' come from untrained encoders."))
    own = [result for result in results if not result.is_foreign]
    if foreign := [result.model.name for result in results if result.is_foreign]:
        lines.append(
            Remark(
                f"Made elsewhere: {listed(foreign)}. Only the predictions are known here, scored on the same videos by the "
                "same rules; encoder, head, training videos, and whether later frames were seen, are not."
            )
        )
    lines += _unlearned(own) + _unequal_heads(own) + _unequal_folds(own) + _changed_labels(own) + _unfinished(results)
    lines += _other_recipes(own)
    splits = len(results[0].splits)
    noun = "folds" if results[0].record["config"].get("splits") is None else "splits"
    spread = f"Mean ± standard deviation (ddof 1) over {splits} {noun}" if splits > 1 else "One split"
    lines.append(Remark(f"{spread}, in percent.{_recognition(own)}"))
    lines.append(Remark(methods_sentence(protocol, results[0].background)))
    if any(not math.isnan(result.time_saved) for result in results):
        lines.append(Remark(f"Time saved by correcting predictions. {results[0].effort_rule.sentence}"))
    lines += _not_scored(results) + _looking_ahead(results)
    lines += _damaged(results)
    sources = {result.model.name: weights_source(result) for result in own}  # runs of one encoder share a line
    if unverified := [name for name, source in sources.items() if UNVERIFIED in source]:
        lines.append(Remark(f"Unverified: the weights of {listed(unverified)} do not record what they were made on."))
    if sources:
        lines.append(Remark(f"Weights: {'; '.join(f'{name}: {source}' for name, source in sources.items())}."))
    found = identity(results)
    lines.append(Remark(f"Seeds {found['Seeds']}; folds {found['Folds']}; commit {found['Commit']}."))
    return lines


def data_remarks(dataset: paths.Dataset, results: Sequence[EncoderResult]) -> list[Remark]:
    """Pretraining that has seen scored videos, or does not say which it has seen, and patients on both sides of a split.

    Videos that look like pieces of one recording are named too: without their patients they count as independent.
    """
    lines = [
        Remark(f"Leak: {result.name}: {leak}", alarming=True)
        for result in results
        for leak in leaks_of_result(dataset, result)
    ]
    splits = {split.record["split"] for result in results for split in result.splits}
    if (name := results[0].record["config"].get("splits")) is not None:
        torn = [finding.message for finding in list_findings(dataset, name, splits) if finding.severity == "warning"]
    else:
        torn = [finding.message for finding in patient_findings(dataset, splits)]
    lines += [Remark(f"{PATIENTS}: {message}.", alarming=True) for message in torn]
    scored = {video for result in results for video in result.scores}
    pieces = piece_findings(dataset, scored)
    return lines + [Remark(f"{finding.message}; {finding.advice}.") for finding in pieces]


def leaks_of_result(dataset: paths.Dataset, result: EncoderResult) -> list[str]:
    """What pretraining has seen of the videos that an encoder is scored on, in words; that it is unknown is among them."""
    found: list[str] = []
    for split in result.splits:
        try:
            leaks = [*leaks_of_record(dataset, split.record), *published_leaks_of_record(dataset, split.record)]
        except UserError as error:
            return [*found, f"unknown, since {error}"]
        found += [text for text in map(str, leaks) if text not in found]  # of many splits the same
    return found


def exclude_seen(dataset: paths.Dataset, found: Collection) -> Collection:
    """The same results without every video that one of them has seen; what is left out is among `left_out`.

    Videos of which only a number is known stay, and their remark in red too. Raises `UserError` where nothing is left.
    """
    seen: set[str] = set()
    for result in found.results:
        for split in result.splits:
            seen |= {video for leak in leaks_of_record(dataset, split.record) for video in leak.videos}
            for leak in published_leaks_of_record(dataset, split.record):
                seen |= set() if leak.part.is_counted_only else set(leak.videos)
    if not seen:
        return found

    def without_seen(result: EncoderResult) -> EncoderResult:
        """A row or a floor on the other videos; folds of which none is left go."""
        splits = []
        for split in result.splits:
            scores = {name: score for name, score in split.scores.items() if name not in seen}
            # the record's list is what remarks about leaks go by
            record = split.record | {"videos": list(scores), "temperature": None}  # its bins are of all videos
            splits += [replace(split, scores=scores, record=record)] if scores else []
        if not splits:
            raise UserError(
                f"--exclude_seen: some weights have seen all videos that {result.name} was scored on; compare others, or "
                "leave --exclude_seen out"
            )
        return replace(result, splits=splits)

    results = [without_seen(result) for result in found.results]
    floors = {
        name: {kind: without_seen(floor) for kind, floor in kinds.items()} for name, kinds in found.floors.items()
    }
    results.sort(key=lambda result: -result.mean("accuracy"))
    note = (
        f"{counted(len(seen), 'video')} that some weights were trained on ({listed(sorted(seen))}), by --exclude_seen"
    )
    return Collection(results, [*found.left_out, note], floors)


def _recognition(results: Sequence[EncoderResult]) -> str:
    """` Online recognition; ...`, ` Offline recognition; ...`, or the rows of each; nothing without runs of this project."""
    if not results:
        return ""
    kinds: dict[float, list[str]] = {}  # by the seconds that are waited for what follows
    for result in results:
        kinds.setdefault(head_seconds(result.record), []).append(result.name)
    words = {0.0: "online recognition", math.inf: "offline recognition"}
    named = [(words.get(each, f"recognition with a look-ahead of {each:g} s"), kinds[each]) for each in sorted(kinds)]
    if len(named) > 1:
        parts = [f"{kind}: {', '.join(names)}" for kind, names in named if kind != words[math.inf]]
        parts += ["offline: all others"] if math.inf in kinds else []
    else:
        parts = [named[0][0]]
    text = "; ".join(parts)
    return f" {text[:1].upper()}{text[1:]}; the last epoch is scored."


def _not_scored(results: Sequence[EncoderResult]) -> list[Remark]:
    """How many labels of the scored videos do not count."""
    scores = results[0].scores.values()
    left_out = sum(int((~score.counts).sum()) for score in scores)
    total = sum(score.num_frames for score in scores)
    text = f"Not scored: {left_out:,} of {total:,} labels, which do not count by dataset.yaml or lie past a video's end"
    return [Remark(f"{text} (gaps in ribbons).")] if left_out else []


def _looking_ahead(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning below rows of causal heads whose features have seen later frames."""
    ahead = {
        result.name: result.record.get("look_ahead_seconds")  # not in records of earlier versions
        for result in results
        if math.isfinite(head_seconds(result.record))
    }
    named = [f"{name} by {seconds:g} s" for name, seconds in ahead.items() if seconds]
    return [Remark(f"Not online although the head is: features look ahead: {', '.join(named)}.", True)] if named else []


def _damaged(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning that names the damaged videos among those scored."""
    found = {video for result in results for split in result.splits for video in split.record.get("damaged_videos", ())}
    text = f"Damaged videos were scored as they decode: {listed(sorted(found))}."
    return [Remark(text, alarming=True)] if found else []


def _unequal_heads(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning that names the settings of the head in which rows differ, unless every encoder was run under every one.

    Rows of equal settings stand together.

    Then the comparison is one of settings too: `robustness.factors` has it.
    """
    of_encoders: dict[tuple, set[tuple]] = {}
    for result in results:
        config = result.record["config"]
        encoder = result.model.name, config.get("variant"), result.record["seed"], result.record.get("decode")
        # of every fold: one that was run otherwise is another condition too
        settings = tuple(tuple(_by_value(result, partial(_setting, key))) for key in HEAD_SETTINGS)
        of_encoders.setdefault(encoder, set()).add(settings)
    if len({frozenset(each) for each in of_encoders.values()}) <= 1:
        return []
    used = {
        result.name: [list(_by_value(result, partial(_setting, key))) for key in HEAD_SETTINGS] for result in results
    }
    places = [place for place in range(len(HEAD_SETTINGS)) if len({tuple(each[place]) for each in used.values()}) > 1]
    if not places:
        return []
    alike: dict[str, list[str]] = {}
    for name, values in used.items():
        alike.setdefault(", ".join(" and ".join(values[place]) for place in places), []).append(name)
    groups = "; ".join(f"{values}: {', '.join(names)}" for values, names in alike.items())
    settings = ", ".join(HEAD_SETTINGS[place] for place in places)
    return [Remark(f"Not a like-for-like comparison: rows differ in {settings} ({groups}).", alarming=True)]


def _unlearned(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning for each row whose head did not learn."""
    return [
        Remark(f"Did not learn: {name}: {signs}. Its row says nothing of the encoder; {ADVICE}.", alarming=True)
        for name, signs in unlearned(results).items()
    ]


def _other_recipes(results: Sequence[EncoderResult]) -> list[Remark]:
    """A line for each head whose authors train it otherwise than all heads are trained here."""
    used = {split.record["config"].get("head") for result in results for split in result.splits}
    recipes = {kind.title: kind.recipe for name, kind in HEADS.items() if name in used and kind.recipe}
    return [
        Remark(f"{title} is trained as all heads here; its authors': {recipe}.") for title, recipe in recipes.items()
    ]


def _unequal_folds(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning for each run whose folds differ in a setting, the seed, or how their features were made."""
    found = []
    for result in results:
        names = sorted({key for split in result.splits for key in split.record["config"]} - OF_ONE_FOLD)
        settings = {name: _by_value(result, partial(_setting, name)) for name in names}
        features = {f"{key} of the features": _by_value(result, partial(_way, key)) for key in IDENTITY}
        for name, folds in (settings | features).items():
            if len(folds) > 1:
                values = "; ".join(f"fold {', '.join(numbers)}: {shortened(value)}" for value, numbers in folds.items())
                found.append(Remark(f"Folds of {result.name} differ in {name} ({values}).", alarming=True))
    return found


def _setting(name: str, record: Mapping[str, Any]) -> Any:
    return record["config"].get(name)


def _way(key: str, record: Mapping[str, Any]) -> Any:
    """One part of how a record's features were made; weights by their hash, as one file may lie in two places."""
    value = (record["features"]["identity"] or {}).get(key)
    return value.get("sha256") or value["source"] if key == "weights" and value else value


def _by_value(result: EncoderResult, value_of: Callable[[Mapping[str, Any]], Any]) -> dict[str, list[str]]:
    """The folds of a run by what `value_of` says of their records, in words."""
    folds: dict[str, list[str]] = {}
    for split in result.splits:
        folds.setdefault(str(value_of(split.record)), []).append(split.record["split"])
    return folds


def _changed_labels(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning that names the runs that learned from other labels than those they are scored against."""
    named = []
    for result in results:
        changed = [split.record["split"] for split in result.splits if split.labels_changed]
        if changed:
            named.append(result.name + (f" (fold {', '.join(changed)})" if len(result.splits) > 1 else ""))
    text = f"Labels have changed since these runs, whose heads learned from others: {', '.join(named)}. Run them again."
    return [Remark(text, alarming=True)] if named else []


def _unfinished(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning where rows are not over all folds of the data set: their means are over fewer and other videos."""
    partial: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        if result.num_folds is not None and len(result.splits) < result.num_folds:
            partial.setdefault(tuple(split.record["split"] for split in result.splits), []).append(result.name)
    over = "; ".join(f"{', '.join(names)} over {', '.join(folds)}" for folds, names in partial.items())
    text = f"Unfinished: of {results[0].num_folds} folds, the numbers of {over} only."
    return [Remark(text, alarming=True)] if partial else []


def left_out_remarks(reasons: Sequence[str]) -> list[Remark]:
    """A line for each run that could not stand beside the others."""
    return [Remark(f"Left out: {reason}.") for reason in reasons]
