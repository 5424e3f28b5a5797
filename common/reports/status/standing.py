"""How far each encoder is on a data set: features, folds, what is out of date, errors, disk; read off names, dates and records.

Nothing is hashed and no array is opened, so that a table of 155 videos and 20 encoders is there at once. What only a hash
can tell (a label file that was changed and given its old date) is told by the commands that use the files.
"""

import datetime
import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.entries import nfc, visible
from common.base.failures import Failure, read_failure
from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed
from common.dataset.description import features_owner, read_description
from common.dataset.split_lists import SplitLists, open_splits
from common.head.config import is_acquired, is_floor
from common.head.run_record import read_run_record
from common.reports.results import VALIDATION, run_names

QUARANTINE_SHAPE = {"reason": str}
PLACE_SETTINGS = ("dataset", "model", "split")  # of a run: where it stands, and not how it was trained


HEAD_WITHIN = 4096  # characters of a page


@dataclass(frozen=True)
class RunStanding:
    """One run of an encoder: which of its folds are done, which of these are out of date and why, which are damaged."""

    run: str | None
    num_folds: int
    done: list[int]
    stale: dict[int, str]
    damaged: dict[int, str]
    config: dict[str, Any] | None
    """The settings that most of its folds have; None where none can be read."""
    decode: str = "argmax"
    is_compared: bool = False
    """Whether a comparison was written since its last fold ended."""

    @property
    def missing(self) -> list[int]:
        return [number for number in range(1, self.num_folds + 1) if number not in self.done]


@dataclass(frozen=True)
class EncoderStanding:
    """A folder of features `<Encoder>[@<variant>]` and the runs on it."""

    model: str
    variant: str | None
    extracted: list[str]
    quarantined: dict[str, Failure]
    runs: list[RunStanding]
    failures: dict[str, Failure]
    """The last error of an extraction or a fold, by what it was."""
    disk_bytes: int

    @property
    def name(self) -> str:
        return f"{self.model}@{self.variant}" if self.variant else self.model

    @property
    def last_error(self) -> tuple[str, Failure] | None:
        """What went wrong last, and with what."""
        found = {**self.quarantined, **self.failures}
        return max(found.items(), key=lambda item: item[1].when) if found else None


@dataclass(frozen=True)
class DatasetStanding:
    """A data set and every encoder that anything was done with; `no_folds` says why no fold can be held against it."""

    dataset: paths.Dataset
    videos: list[str]
    labelled: list[str]
    num_folds: int
    no_folds: str | None
    encoders: list[EncoderStanding]
    models: Sequence[str] = ()
    """Every encoder that there is."""
    compared_last: str | None = None
    """The data set that the page of the last comparison is of; None where there is none."""


def read_standing(dataset: paths.Dataset) -> DatasetStanding:
    """The standing of every encoder with features or runs on a data set.

    Raises `UserError` for a data set whose task is not phases, or whose `dataset.yaml` cannot be used.
    """
    description = read_description(dataset)
    if description.task is not None:
        raise UserError(f"{dataset.description}: its task is {description.task}; common.status is for phases")
    present = _Present(dataset)
    models = paths.all_models()
    folders = {path.name: path for path in visible(features_owner(dataset).features("any").parent) if path.is_dir()}
    encoders = []
    for model in models:
        own = {name: path for name, path in folders.items() if name.partition("@")[0] == model.name}
        runs = _runs_of(model, present)
        variants = {(run.config or {}).get("variant") for run in runs}
        variants |= {name.partition("@")[2] or None for name in own} | ({None} if _failures(model, present) else set())
        for index, variant in enumerate(sorted(variants, key=lambda name: name or "")):
            of_variant = [run for run in runs if (run.config or {}).get("variant") == variant]
            encoders.append(_encoder(model, variant, of_variant, present, is_first=index == 0))
    count = len(present.lists) if present.lists else 0
    return DatasetStanding(
        *(dataset, present.videos, present.labelled, count, present.no_folds, encoders),
        models=[model.name for model in models],
        compared_last=_compared_last(),
    )


def _compared_last() -> str | None:
    page = paths.comparison_results() / "report.html"
    if not page.is_file():
        return None
    with open(page, encoding="utf-8", errors="replace") as stream:  # megabytes, and its head says it
        said = re.search(r'<meta name="data-set" content="(.*?)">', stream.read(HEAD_WITHIN))
    return said and html.unescape(said[1])


@dataclass
class _Present:
    """The data set as it is now; each part is looked at once."""

    dataset: paths.Dataset
    no_folds: str | None = None
    _lists: dict[str | None, SplitLists | None] = field(default_factory=dict)

    @cached_property
    def videos(self) -> list[str]:
        """Every video; where there are none, features came from elsewhere, of what is labelled."""
        return list(paths.find_videos(features_owner(self.dataset).videos)) or self.labelled

    @cached_property
    def _label_files(self) -> dict[str, Path]:
        return paths.label_paths(self.dataset.ground_truth) | paths.label_paths(self.dataset.ground_truth_val)

    @property
    def labelled(self) -> list[str]:
        return list(self._label_files)

    @cached_property
    def labelled_at(self) -> float:
        """When a label file was last changed, in seconds since 1970."""
        return max((path.stat().st_mtime for path in self._label_files.values()), default=0.0)

    @cached_property
    def lists(self) -> SplitLists | None:
        """The generated folds."""
        return self.named(None)

    def named(self, name: str | None) -> SplitLists | None:
        """A list of splits; None where it cannot be used, and for folds `no_folds` says why."""
        if name not in self._lists:
            try:
                self._lists[name] = open_splits(self.dataset, name)
            except UserError as error:
                self._lists[name] = None
                self.no_folds = str(error) if name is None else self.no_folds
        return self._lists[name]


def _encoder(
    model: paths.Model, variant: str | None, runs: Sequence[RunStanding], present: _Present, *, is_first: bool
) -> EncoderStanding:
    """The standing of one folder of features; what is kept by model and not by variant is told with the first."""
    folder = features_owner(present.dataset).features(model.name, variant)
    there = {nfc(path.stem) for path in visible(folder, "*.npy")}
    waiting = set(present.videos) - there
    failures = {"extraction": found} if (found := read_failure(folder)) else {}
    places = [folder]
    if is_first:
        failures |= _failures(model, present)
        places += [model.results(present.dataset.name), model.checkpoint(present.dataset.name, 1).parents[1]]
    return EncoderStanding(
        model.name,
        variant,
        [video for video in present.videos if video in there],
        {video: note for video, note in _quarantined(folder) if video in waiting},
        list(runs),
        failures,
        sum(map(_size, places)),
    )


def _quarantined(folder: Path) -> Iterator[tuple[str, Failure]]:
    for path in visible(paths.quarantine_note(folder, "any").parent, "*.json"):
        try:
            record = read_json(path)
            reason = record["reason"] if not misfit(record, QUARANTINE_SHAPE) else "its note is damaged"
        except UserError as error:
            reason = str(error)
        yield nfc(path.stem), Failure(_date(path.stat().st_mtime), reason)


def _date(seconds: float) -> str:
    """A time of a file as `failures` writes its own."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _failures(model: paths.Model, present: _Present) -> dict[str, Failure]:
    """The last error of every fold that ended with one."""
    root = model.results(present.dataset.name)
    name = paths.failure_note(root).name
    notes = [*visible(root, f"split_*/{name}"), *visible(root, f"*/split_*/{name}")]
    found = {path.parent.relative_to(root).as_posix(): read_failure(path.parent) for path in notes}
    return {place: failure for place, failure in found.items() if failure}


def _runs_of(model: paths.Model, present: _Present) -> list[RunStanding]:
    """The runs of a head; floors and trials of what to label next go with them, and are not listed."""
    names = [run for run in run_names(model, present.dataset) if not (is_floor(run) or is_acquired(run))]
    return [found for run in names if (found := _run(model, run, present)) is not None]


def _run(model: paths.Model, run: str | None, present: _Present) -> RunStanding | None:
    """One run's folds against the data set; None for one of the validation part alone, which has no folds."""
    records: dict[int, dict[str, Any]] = {}
    finished: dict[int, float] = {}
    damaged: dict[int, str] = {}
    for path in visible(model.results(present.dataset.name, run), f"split_*/{paths.RUN_RECORD}"):
        split = path.parent.name.removeprefix("split_")
        if split == VALIDATION or not split.isdecimal():
            continue
        try:
            records[int(split)], finished[int(split)] = read_run_record(path), path.stat().st_mtime
        except (UserError, OSError) as error:
            damaged[int(split)] = str(error)
    if not records and not damaged:
        return None
    configs = {number: _way(record) for number, record in records.items()}
    usual = Counter(map(repr, configs.values())).most_common(1)[0][0] if configs else ""
    config = next((records[number]["config"] for number, way in configs.items() if repr(way) == usual), None)
    lists = present.named(config["splits"] if config else None)
    stale = {}
    for number, record in records.items():
        reasons = list(_reasons(record, finished[number], number, lists, model, present))
        if repr(configs[number]) != usual:
            reasons.append("other settings than the other folds")
        if reasons:
            stale[number] = listed(reasons)
    num_folds = len(lists) if lists else len(records)
    done = sorted(number for number in records if not lists or number <= num_folds)
    decode = next((record.get("decode") for record in records.values()), None) or "argmax"
    picture = model.confusion(present.dataset.name, run)
    is_compared = bool(finished) and picture.is_file() and picture.stat().st_mtime >= max(finished.values())
    return RunStanding(run, num_folds, done, stale, damaged, config, decode, is_compared)


def _way(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds of a run have in common."""
    return {
        key: value
        for key, value in sorted(record["config"].items())
        if key not in (*PLACE_SETTINGS, "lookahead_frames")
    }


def _reasons(
    record: Mapping[str, Any],
    finished: float,
    number: int,
    lists: SplitLists | None,
    model: paths.Model,
    present: _Present,
) -> Iterator[str]:
    """Why a finished fold is not what would be run now."""
    if lists is None or record["folds_hash"] != lists.hash or number > len(lists):
        yield "other folds than there are now"
    if present.labelled_at > finished:
        yield "labels changed since"
    folder = features_owner(present.dataset).features(model.name, record["config"]["variant"])
    files = (folder / f"{video}.npy" for video in record["videos"])
    if any(path.stat().st_mtime > finished for path in files if path.is_file()):
        yield "features made since"


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; 0 of none."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile, or not to be read: it is a sum, not a check
            continue
    return total
