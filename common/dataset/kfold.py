"""Folds of a data set, stratified and by patient: made, written, read, verified; and nested parts of a training list.

Every choice depends on names, patients and a seed only, so that another machine or another version deals the same.
"""

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from common.base.entries import video_named, visible
from common.base.files import link_file, misfit, read_json, read_text, sha256_of_json, write_json, write_text
from common.base.paths import Dataset, label_paths
from common.base.runtime import UserError, listed, shown
from common.dataset.description import labelled_units

DEFAULT_SEED = 42
BUNDLE_HEAD = "#bundle"
# names of what a fold is made of; others in the same places are nobody's business here
LIST_NAME = re.compile(r"(train|test)\.split(0|[1-9][0-9]*)\.bundle")
FOLDER_NAME = re.compile(r"groundTruth_split_(0|[1-9][0-9]*)")
RECORD_SHAPE = {"num_folds": int, "seed": int, "patients": {str: str}, "hash": str}


def prefix_stratum(video: str) -> str:
    """The part of a name before its first underscore (BL, BN, SD in SICS-155); the whole set is one stratum without."""
    return video.split("_", 1)[0] if "_" in video else ""


def make_folds(
    videos: Sequence[str],
    num_folds: int,
    *,
    seed: int = DEFAULT_SEED,
    stratify: str = "prefix",
    patients: Mapping[str, str] | None = None,
) -> list[list[str]]:
    """Deal videos into `num_folds` test folds (each sorted), all videos of one patient into the same fold.

    Groups go, largest first and in a seeded order, to the fold with the fewest videos of the group's stratum, then
    with the fewest videos. With one video a patient, folds differ by at most one video in each stratum and in total.
    Depends on nothing but names, patients and the seed: not on the order of `videos` or on the Python version.

    Raises `UserError` when there are fewer patients than folds or a name occurs twice.
    """
    if len(set(videos)) != len(videos):
        raise UserError("a video is named twice; names must be unique")
    groups: dict[str, list[str]] = {}  # a video without a patient is a group of its own
    for video in sorted(videos):
        groups.setdefault((patients or {}).get(video) or f"video:{video}", []).append(video)
    if not 2 <= num_folds <= len(groups):
        raise UserError(
            f"{num_folds} folds need at least 2 folds and as many patients; found {len(groups)} in {len(videos)} videos"
        )

    def stratum(members: list[str]) -> str:
        return Counter(map(prefix_stratum, members)).most_common(1)[0][0] if stratify == "prefix" else ""

    folds: list[list[str]] = [[] for _ in range(num_folds)]
    dealt = [Counter() for _ in range(num_folds)]
    # the largest first: what comes late can no longer be balanced
    order = sorted(groups, key=lambda name: (-len(groups[name]), stratum(groups[name]), _shuffling_key(seed, name)))
    for members in map(groups.__getitem__, order):
        where = min(range(num_folds), key=lambda fold: (dealt[fold][stratum(members)], len(folds[fold]), fold))
        folds[where] += members
        dealt[where][stratum(members)] += len(members)
    return [sorted(fold) for fold in folds]


def _shuffling_key(*parts: object) -> str:
    """A hash to sort names by: as good as random, and unlike a generator the same in every version of Python."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def write_folds(
    dataset: Dataset,
    folds: Sequence[Sequence[str]],
    *,
    seed: int,
    stratify: str,
    patients: Mapping[str, str],
    force: bool = False,
) -> None:
    """Write bundles, `groundTruth_split_<k>/` where labels are files, and `folds.json`; what it wrote before is removed.

    Raises `UserError` naming lists and folders in the way that somebody else made; `force` removes these too.
    """
    if others := [] if force else not_written_here(dataset):
        raise UserError(
            f"{dataset.root}: {', '.join(others)} would be replaced, but are not as {dataset.folds_record.name} says that "
            "generate_k_folds.py wrote them; move them elsewhere, or give --force to remove them"
        )
    # Killed from here on, the record says that all of these are unfinished folds: nobody uses them, and the next run
    # may remove them. It is written again last.
    unfinished = {"num_folds": max([len(folds), *_numbers_in_use(dataset)]), "unfinished": True}
    write_json(dataset.folds_record, unfinished)
    for stale in _numbered(dataset):
        shutil.rmtree(stale) if stale.is_dir() and not stale.is_symlink() else stale.unlink()
    labels = label_paths(dataset.ground_truth)
    for number, test in enumerate(folds, 1):
        train = sorted(video for fold in folds if fold is not test for video in fold)
        for part, videos in (("train", train), ("test", test)):
            write_text(dataset.bundle(part, number), "".join(f"{video}.txt\n" for video in videos))
        folder = dataset.ground_truth_split(number)
        if labels:  # a table of all videos has no parts to link
            folder.mkdir(parents=True)
        for video in test if labels else ():
            link_file(labels[video], folder / f"{video}.txt")
    groups = {video: patients[video] for fold in folds for video in fold if video in patients}
    record = {"num_folds": len(folds), "seed": seed, "stratify": stratify, "patients": groups}
    write_json(dataset.folds_record, record | {"hash": folds_hash(folds)})


def _numbered(dataset: Dataset) -> list[Path]:
    """What has the name of a fold's list or of its folder of labels, whoever made it, sorted."""
    lists = [path for path in visible(dataset.splits, "*.bundle") if LIST_NAME.fullmatch(path.name)]
    folders = [path for path in visible(dataset.root, "groundTruth_split_*") if FOLDER_NAME.fullmatch(path.name)]
    return sorted(lists + folders)


def _numbers_in_use(dataset: Dataset) -> set[int]:
    return {int(re.search(r"[0-9]+", path.name)[0]) for path in _numbered(dataset)}


def not_written_here(dataset: Dataset) -> list[str]:
    """Lists and folders of folds, by name, that are not as `write_folds` left them: made or changed by somebody else."""
    try:
        record = _read_record(dataset)
        ours = _as_written(dataset, record) if record else set()
    except UserError:  # a record or a list that cannot be read: nothing proves whose the others are
        ours = set()
    return [path.name for path in _numbered(dataset) if path not in ours]


def _as_written(dataset: Dataset, record: Mapping[str, Any]) -> set[Path]:
    """Lists and folders that are what the record of the folds says. Raises `UserError` for a list that is unreadable."""
    numbers = range(1, record["num_folds"] + 1)
    if record.get("unfinished"):
        lists = {dataset.bundle(part, number) for part in ("train", "test") for number in numbers}
        return lists | {dataset.ground_truth_split(number) for number in numbers}
    tests = {number: read_bundle(dataset.bundle("test", number)) for number in numbers}
    if record["hash"] != folds_hash(list(tests.values())):
        return set()
    everything = {video for test in tests.values() for video in test}
    found = {dataset.bundle("test", number) for number in numbers}
    for number, test in tests.items():
        train, folder = dataset.bundle("train", number), dataset.ground_truth_split(number)
        if set(read_bundle(train)) == everything - set(test):
            found.add(train)
        if {path.name for path in visible(folder)} <= {f"{video}.txt" for video in test}:
            found.add(folder)
    return found


def _read_record(dataset: Dataset) -> dict[str, Any]:
    """The record of the folds; empty where there is none. Raises `UserError` for a file that is no such record."""
    path = dataset.folds_record
    if not os.path.lexists(path):
        return {}
    record = read_json(path)
    unfinished = isinstance(record, dict) and record.get("unfinished")
    wrong = misfit(record, {"num_folds": int} if unfinished else RECORD_SHAPE)
    if wrong:
        command = f"python generate_k_folds.py {dataset.root} {max(2, len(fold_numbers(dataset)))} --force"
        raise UserError(f"{path}: not a record of folds ({wrong}); replace these folds: {command}")
    return record


def read_bundle(path: Path) -> list[str]:
    """Video names of one bundle file, one a line: `<video>.txt`, also with a path or the suffix of a video.

    The head line `#bundle` of lists that circulate is no video. Raises `UserError` when the file is missing, empty or
    repeats a video.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such list of videos; expected one <video>.txt a line")
    lines = {number: line.strip() for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()}
    first = min(lines, default=0)
    if lines.get(first, "").casefold() == BUNDLE_HEAD:
        del lines[first]
    line_of: dict[str, int] = {}
    for number, line in lines.items():
        video = video_named(line)
        if line_of.setdefault(video, number) != number:
            raise UserError(
                f"{path}, line {number}: {shown(video)} again, which is in line {line_of[video]} already; "
                "expected one <video>.txt a line, each once"
            )
    if not line_of:
        raise UserError(f"{path}: no video in it; expected one <video>.txt a line, each once")
    return list(line_of)


def fold_numbers(dataset: Dataset) -> list[int]:
    """The numbers of the test folds, sorted; empty where none were made."""
    matches = [LIST_NAME.fullmatch(path.name) for path in visible(dataset.splits, "test.*")]
    return sorted(int(match[2]) for match in matches if match)


def read_folds(dataset: Dataset) -> list[list[str]]:
    """Test folds of a data set in order of their number, verified as `verify_folds` says."""
    numbers = fold_numbers(dataset)
    if not numbers:
        first, num_folds = dataset.bundle("test", 1), min(5, max(2, len(labelled_units(dataset)[1])))
        command = f"python generate_k_folds.py {dataset.root} {num_folds}"
        raise UserError(f"{first}: no such split; make folds first: {command}")
    if numbers != list(range(1, len(numbers) + 1)):
        found = listed([str(number) for number in numbers])
        raise UserError(f"{dataset.splits}: test lists with the numbers {found}; expected 1, 2 and so on: rename them")
    folds = [read_bundle(dataset.bundle("test", number)) for number in numbers]
    verify_folds(dataset, folds)
    return folds


def verify_folds(dataset: Dataset, folds: Sequence[Sequence[str]]) -> None:
    """Check that folds are disjoint, cover all that has labels once, match their training lists and split no patient.

    Raises `UserError` that names the offending videos.
    """

    def unsound(what: str) -> UserError:
        return UserError(f"{what}; {how_to_remake(dataset, len(folds))}")

    record = _read_record(dataset)
    if record.get("unfinished"):
        raise unsound(f"{dataset.folds_record}: making these folds was interrupted")
    counts = Counter(video for fold in folds for video in fold)
    place, units = labelled_units(dataset)
    labelled = set(units)
    repeated = sorted(video for video, count in counts.items() if count > 1)
    if repeated:
        raise unsound(f"{dataset.splits}: in more than one test fold: {listed(repeated)}")
    if set(counts) != labelled:
        strays = sorted(set(counts) ^ labelled)
        raise unsound(f"{dataset.splits}: test folds and {place} disagree on {listed(strays)}")
    for number, test in enumerate(folds, 1):
        if set(read_bundle(dataset.bundle("train", number))) != labelled - set(test):
            raise unsound(f"{dataset.bundle('train', number)}: not the videos outside test fold {number}")
    for patient, numbers in split_patients(folds, record.get("patients", {})).items():
        raise unsound(f"{dataset.splits}: patient {patient} is in folds {' and '.join(map(str, numbers))}")


def split_patients(folds: Sequence[Sequence[str]], patients: Mapping[str, str]) -> dict[str, list[int]]:
    """Patients who are in more than one test fold, with the numbers of these folds (from 1)."""
    found: dict[str, dict[int, None]] = {}
    for number, test in enumerate(folds, 1):
        for video in test:
            if video in patients:
                found.setdefault(patients[video], {})[number] = None
    return {patient: list(numbers) for patient, numbers in found.items() if len(numbers) > 1}


def how_to_remake(dataset: Dataset, num_folds: int | str) -> str:
    """The advice that ends every message about unsound folds: words that the command then accepts."""
    command = f"python generate_k_folds.py {dataset.root} {num_folds}"
    others = not_written_here(dataset)
    if not others:
        return f"make the folds again: {command}"
    return (
        f"put them right, or move what generate_k_folds.py did not write elsewhere ({', '.join(others)}) and make folds: "
        f"{command}"
    )


def folds_hash(folds: Sequence[Sequence[str]]) -> str:
    """Identity of a set of folds: SHA-256 over the sorted test lists in order."""
    return sha256_of_json([sorted(fold) for fold in folds])


def nested_subset(videos: Sequence[str], fraction: float, *, seed: int = DEFAULT_SEED) -> list[str]:
    """The first `round(fraction * len(videos))` videos, at least one, of `stratified_order`; in the order of `videos`.

    A smaller fraction of the same list gives a part of what a larger one gives.
    """
    size = max(1, round(fraction * len(videos)))
    chosen = set(stratified_order(videos, seed=seed)[:size])
    return [video for video in videos if video in chosen]


def stratified_order(videos: Sequence[str], *, seed: int = DEFAULT_SEED) -> list[str]:
    """All videos in an order whose every beginning is stratified by prefix, and random within a stratum.

    Among k strata the first n videos hold each to within 1 - 1 / (2k - 2) videos of its exact share of n, the best
    that can be promised: next comes, of the strata that lag enough, the one that would soonest lag too much (Tijdeman,
    The chairman assignment problem, Discrete Mathematics 32, 1980).

    Depends on the set of names and the seed only. Another list is shuffled anew, so that folds do not share one draw.
    """
    draw = sha256_of_json(sorted(videos))

    waiting: dict[str, list[str]] = {}
    for video in sorted(videos, key=lambda video: _shuffling_key(seed, draw, video)):
        waiting.setdefault(prefix_stratum(video), []).append(video)
    sizes = {stratum: len(members) for stratum, members in waiting.items()}
    # exact fractions: rounding must not decide between strata that lag alike
    enough = Fraction(1, max(2 * len(sizes) - 2, 1))
    taken: Counter[str] = Counter()
    order = []
    for length in range(1, len(videos) + 1):
        # videos by which a stratum is behind its exact share of the first `length`
        lags = {stratum: Fraction(length * size, len(videos)) - taken[stratum] for stratum, size in sizes.items()}
        _, stratum = min(((1 - enough - lag) / sizes[name], name) for name, lag in lags.items() if lag >= enough)
        order.append(waiting[stratum][taken[stratum]])
        taken[stratum] += 1
    return order
