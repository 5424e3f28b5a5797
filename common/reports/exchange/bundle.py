"""A bundle: what a table rests on, in one file, and its check on another machine that has the labels.

bundle.json                     what was asked, records, SHA-256 of every file, and every number of the tables
<set>/<row>/<split>/<k>.txt     the predicted phase of every label of a video, one a line
<set>/<row>/<split>/<k>.npy     probabilities (labels, phases), where there are any

No videos, no features, no labels, no paths. Sets, rows, splits and videos are numbered from 0 as `bundle.json` lists them.
"""

import hashlib
import io
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.files import MOST_TEXT_BYTES, atomic_path, misfit, parse_json, require_regular
from common.base.runtime import UserError, counted, listed, progress, versions
from common.dataset.description import read_phases
from common.dataset.phases import IGNORED, PhaseMapping, read_labels, read_predictions
from common.head.run_record import checked_record
from common.reports.benchmark.table import Benchmark, BenchmarkSet, make_benchmark
from common.reports.comparison import Report, make_report
from common.reports.exchange.foreign import checked_foreign
from common.reports.results import EncoderResult, SplitResult
from common.reports.written import known_paths, public_record
from common.scoring.folder import read_probabilities
from common.scoring.metrics import MEASURES
from common.scoring.protocols import PROTOCOLS, Protocol, chosen_protocols
from common.scoring.video_score import VideoScore

CONTENT = "bundle.json"
FORMAT = 1
TOLERANCE = 1e-9  # relative: another numpy may add in another order
TIED = ": tied"  # how the places of letters end
MOST_NAMED = 20  # differences that are spelled out
LONGEST_CONTENT = MOST_TEXT_BYTES  # of bundle.json
# what zipfile and zlib raise for damaged members
UNPACK_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)
LONGEST_NAME = 4096  # bytes of a phase's name and its line end
SHAPE = {
    "format": int, "protocols": [str], "segments?": str, "against?": str, "benchmark": bool, "versions": {str: str},
    "sets": [{
        "dataset": str, "phases": [str], "patients": str, "videos": {str: str}, "leaks": {str: [str]},
        "rows": [{
            "model": str, "run?": str,
            "splits": [{"record": dict, "videos": [{"name": str, "fps?": float, "text": str, "probabilities?": str}]}],
        }],
    }],
    "numbers": {str: str | float | None},
}  # fmt: skip


def write_bundle(path: Path, reports: Sequence[Report], *, benchmark: Benchmark | None, segments: str | None) -> Path:
    """Write the predictions and numbers of one comparison, or of each set of a benchmark, atomically; returns `path`."""
    sets: list[dict[str, Any]] = []
    content = {
        "format": FORMAT,
        "protocols": [board.protocol.name for board in reports[0].boards],
        "segments": segments,
        "against": reports[0].board.against,
        "benchmark": benchmark is not None,
        "versions": versions(),
        "sets": sets,
        "numbers": dict(numbers_of(reports, benchmark)),
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, report in enumerate(reports):
            known = known_paths(report)
            rows = [
                _write_row(archive, f"{number}/{row}", result, report.mapping, known)
                for row, result in enumerate(progress(report.results, description="bundle", unit="encoders"))
            ]
            sets.append(
                {
                    "dataset": report.dataset.name,
                    "phases": list(report.mapping.names),
                    "patients": _patients_hash(report),
                    "videos": _labels(report.results),
                    "leaks": benchmark.sets[number].leaks if benchmark else {},
                    "rows": rows,
                }
            )
        archive.writestr(CONTENT, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False))
    return path


def _write_row(
    archive: zipfile.ZipFile, folder: str, result: EncoderResult, mapping: PhaseMapping, known: Sequence[str]
) -> dict[str, Any]:
    splits = []
    for number, split in enumerate(result.splits):
        videos = []
        for place, (name, score) in enumerate(split.scores.items()):
            stem = f"{folder}/{number}/{place}"
            text = "".join(f"{mapping.names[phase]}\n" for phase in score.predicted).encode()
            archive.writestr(f"{stem}.txt", text)
            entry = {"name": name, "fps": score.fps, "text": _sha256(text), "probabilities": None}
            if score.load_probabilities is not None:
                stored = io.BytesIO()
                np.save(stored, score.load_probabilities(), allow_pickle=False)
                archive.writestr(f"{stem}.npy", stored.getvalue())
                entry["probabilities"] = _sha256(stored.getvalue())
            videos.append(entry)
        splits.append({"record": public_record(split.record, known), "videos": videos})
    return {"model": result.model.name, "run": result.run, "splits": splits}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _labels(results: Sequence[EncoderResult]) -> dict[str, str]:
    """Video -> SHA-256 of the phases that it is scored against, as int16 with -100 where a label does not count."""
    scores = {name: score for result in results for name, score in result.scores.items()}
    return {name: _sha256(score.true.astype("<i2").tobytes()) for name, score in scores.items()}


def _patients_hash(report: Report) -> str:
    """Of the patients that intervals resample."""
    return _sha256(json.dumps(sorted(map(list, report.patients.items()))).encode())


def numbers_of(reports: Sequence[Report], benchmark: Benchmark | None) -> Iterator[tuple[str, float | str | None]]:
    """Every number of the tables by its place in words; null where undefined."""
    for report in reports:
        for board in report.boards:
            where = f"{report.dataset.name}, {board.protocol.name}"
            for result in board.results:
                for measure, title in MEASURES.items():
                    cell, place = board.cells[result.name][measure], f"{where}, {result.name}, {title}"
                    yield f"{place}: mean", _number(cell.mean)
                    yield f"{place}: std", _number(cell.std)
                    yield f"{place}: interval low", _number(cell.interval.low)
                    yield f"{place}: interval high", _number(cell.interval.high)
                    yield place + TIED, board.letters[measure][result.name]
                    for split in result.splits:
                        yield f"{place}: split {split.record['split']}", _number(split.value(measure, board.protocol))
                tests = zip(result.tests, result.test_values(board.protocol), strict=True)
                for place, ((video, _), values) in enumerate(tests):
                    for measure, title in MEASURES.items():
                        yield f"{where}, {result.name}, {title}: {video} (test {place + 1})", _number(values[measure])
            for test in board.tests:
                pair = f"{where}, {test.first} and {test.second}, {MEASURES[test.measure]}"
                yield f"{pair}: difference", _number(test.effect.difference.estimate)
                yield f"{pair}: p, Holm", _number(test.p_holm)
                yield f"{pair}: p, folds", _number(test.p_folds)
    for (board, measure), standing in benchmark.standings.items() if benchmark else ():
        where = f"over data sets, {benchmark.protocols[board].name}, {MEASURES[measure]}"
        for name, mean in standing.means.items():
            yield f"{where}, {name}: mean rank", _number(mean.estimate)
            yield f"{where}, {name}: rank interval low", _number(mean.low)
            yield f"{where}, {name}: rank interval high", _number(mean.high)
            yield f"{where}, {name}{TIED}", standing.letters[name]
        for pair in standing.agreement:
            yield f"{where}, {pair.first} and {pair.second}: Kendall's tau", _number(pair.tau.estimate)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Verification:
    """How many numbers of a bundle come out again, and what differs, in words."""

    num_equal: int
    differences: list[str]


class Bundle:
    """A bundle that is being checked; files are read into a temporary folder, and only those that it lists.

    Raises `UserError` for what is no bundle of this format.
    """

    def __init__(self, path: Path, folder: Path):
        self._path, self._folder = path, folder
        try:
            require_regular(path)  # a pipe would be waited for
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; --verify takes what --bundle wrote") from error
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path}: not a bundle ({error}); get it again, or write it again with --bundle") from error
        advice = "get the bundle again, or write it again with --bundle"
        content = parse_json(
            self._read(CONTENT, LONGEST_CONTENT).decode("utf-8", "replace"), f"{path}, {CONTENT}", advice
        )
        if isinstance(content, dict) and content.get("format") not in (None, FORMAT):
            raise UserError(
                f"{path}: a bundle of format {content['format']}, this version reads {FORMAT}; install that version"
            )
        if wrong := misfit(content, SHAPE):
            raise UserError(f"{path}, {CONTENT}: {wrong}; {advice}")
        self.content: dict[str, Any] = content

    def _read(self, name: str, most: int) -> bytes:
        """A file of the archive; one that unpacks to more than `most` bytes is refused unread."""
        try:
            size = self._archive.getinfo(name).file_size
            if size > most:
                raise UserError(
                    f"{self._path}, {name}: expected at most {most:,} bytes, found {size:,}; get the bundle again"
                )
            with self._archive.open(name) as stream:
                return stream.read(most + 1)
        except KeyError as error:
            raise UserError(f"{self._path}: {name} is missing; get the bundle again") from error
        except UNPACK_ERRORS as error:
            raise UserError(f"{self._path}, {name}: damaged ({error}); get the bundle again") from error

    def _stored(self, name: str, sha256: str, most: int) -> Path:
        content = self._read(name, most)
        if _sha256(content) != sha256:
            raise UserError(
                f"{self._path}, {name}: not the file that the bundle was made with (its SHA-256 differs); get it again"
            )
        target = self._folder / name.replace("/", "_")
        target.write_bytes(content)
        return target

    def protocols(self) -> list[Protocol]:
        """The protocols of its tables."""
        names, segments = self.content["protocols"], self.content["segments"]
        unknown = [name for name in names if name not in PROTOCOLS]
        if unknown or not names or segments not in (None, "legacy", "fixed"):
            raise UserError(f"{self._path}: unknown protocols ({listed(unknown) or segments}); install a later version")
        return chosen_protocols(names, segments)

    def results(self, number: int, dataset: paths.Dataset) -> list[EncoderResult]:
        """The rows of one set, scored against the labels of `dataset` as they are here."""
        described, mapping = self.content["sets"][number], read_phases(dataset)
        if described["phases"] != list(mapping.names):
            raise UserError(f"{self._path}: made with other phases than {dataset.mapping} has; take the same data set")
        results = []
        for row, entry in enumerate(progress(described["rows"], description="verify", unit="encoders")):
            splits = [
                self._split(f"{number}/{row}/{place}", split, dataset, mapping)
                for place, split in enumerate(entry["splits"])
            ]
            results.append(EncoderResult(paths.Model(Path(entry["model"])), entry["run"], splits))
        return results

    def _split(self, folder: str, split: dict[str, Any], dataset: paths.Dataset, mapping: PhaseMapping) -> SplitResult:
        check = checked_foreign if "made_elsewhere" in split["record"] else checked_record
        record = check(split["record"], f"{self._path}, {CONTENT}")
        labels = paths.label_paths(dataset.ground_truth_val if record.get("split") == "val" else dataset.ground_truth)
        if missing := [video["name"] for video in split["videos"] if video["name"] not in labels]:
            raise UserError(f"{dataset.ground_truth}: no labels of {listed(missing)}, which the bundle scores")
        scores = {}
        for place, video in enumerate(split["videos"]):
            scores[video["name"]] = self._score(f"{folder}/{place}", video, labels[video["name"]], record, mapping)
        return SplitResult(record, scores)

    def _score(
        self, stem: str, video: dict[str, Any], labels: Path, record: dict[str, Any], mapping: PhaseMapping
    ) -> VideoScore:
        name, true = video["name"], read_labels(labels, mapping)
        if beyond := record["unreached_labels"].get(name, 0):
            true[-beyond:] = IGNORED
        text = self._stored(f"{stem}.txt", video["text"], LONGEST_NAME * len(true) + LONGEST_NAME)
        predicted = read_predictions(text, mapping)
        if len(predicted) != len(true):
            raise UserError(
                f"{self._path}, {name}: {len(predicted)} predictions, but {len(true)} labels in {labels}; take the same labels"
            )
        load = None
        if video["probabilities"]:
            most = 8 * len(true) * mapping.num_classes + LONGEST_NAME
            stored = self._stored(f"{stem}.npy", video["probabilities"], most)
            load = partial(read_probabilities, stored, len(true), mapping.num_classes)
        return VideoScore(
            true.astype(np.int16),
            predicted.astype(np.int16),
            mapping.num_classes,
            background=mapping.background_id,
            fps=video["fps"],
            load_probabilities=load,
        )


def verify(path: Path, dataset_named: Callable[[str], paths.Dataset]) -> Verification:
    """Compute every number of a bundle again from its predictions and the labels here.

    Raises `UserError` for a damaged bundle, and where data sets or labels are missing.
    """
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle(path, Path(folder))
        protocols, reports = bundle.protocols(), []
        for number, described in enumerate(bundle.content["sets"]):
            dataset = dataset_named(described["dataset"])
            rows, against = bundle.results(number, dataset), bundle.content.get("against")
            reports.append(make_report(dataset, rows, protocols, against=against))
        benchmark = None
        if bundle.content["benchmark"]:
            described_sets = zip(reports, bundle.content["sets"], strict=True)
            sets = [BenchmarkSet(report, described["leaks"]) for report, described in described_sets]
            benchmark = make_benchmark(sets, protocols, [])
        for described, report in zip(bundle.content["sets"], reports, strict=True):
            there, here = described["videos"], _labels(report.results)
            changed = sorted(name for name in here if here[name] != there.get(name))
            if changed:
                differences.append(
                    f"{report.dataset.name}: other labels of {counted(len(changed), 'video')}: {listed(changed)}"
                )
            if described["patients"] != _patients_hash(report):
                differences.append(f"{report.dataset.name}: other patients.csv, which intervals and tests depend on")
        recomputed = dict(numbers_of(reports, benchmark))
    stored = bundle.content["numbers"]
    if "against" not in bundle.content:  # its version gave letters where no test could have told encoders apart, too
        stored, recomputed = (
            {place: value for place, value in numbers.items() if not place.endswith(TIED)}
            for numbers in (stored, recomputed)
        )
    unequal = [
        f"{place}: {_shown(stored.get(place, 'absent'))} in the bundle, {_shown(recomputed.get(place, 'absent'))} here"
        for place in dict.fromkeys([*stored, *recomputed])
        if place not in stored or place not in recomputed or not _equal(stored[place], recomputed[place])
    ]
    if len(unequal) > MOST_NAMED:
        unequal = [*unequal[:MOST_NAMED], f"and {len(unequal) - MOST_NAMED} more"]
    num_equal = sum(place in recomputed and _equal(value, recomputed[place]) for place, value in stored.items())
    return Verification(num_equal, differences + unequal)


def _equal(one: float | str | None, other: float | str | None) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == other


def _shown(value: float | str | None) -> str:
    return "undefined" if value is None else f"{value:.6g}" if isinstance(value, int | float) else str(value)
