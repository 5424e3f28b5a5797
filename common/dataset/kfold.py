"""Folds of a data set, stratified and by patient: made, written, read, verified; and nested parts of a training list.

Every choice depends on names, patients and a seed only, so that another machine or another version deals the same.
"""

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from common.base.entries import nfc, visible
from common.base.paths import Dataset, label_paths
from common.base.runtime import UserError, link_file, read_json, sha256_of_json, write_json, write_text

DEFAULT_SEED = 42


def prefix_stratum(video: str) -> str:
    """The part of a name before its first underscore (BL, BN, SD in SICS-155); the whole set is one stratum without."""
    return video.split("_", 1)[0] if "_" in video else ""


def read_patients(path: Path) -> dict[str, str]:
    """Read `patients.csv` (columns `video,patient`) as video -> patient; an absent file gives an empty mapping."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"video", "patient"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: expected the columns video,patient, found {reader.fieldnames}")
        return {nfc(row["video"]): row["patient"] for row in reader if row["patient"]}


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
    dataset: Dataset, folds: Sequence[Sequence[str]], *, seed: int, stratify: str, patients: Mapping[str, str]
) -> None:
    """Write bundles, `groundTruth_split_<k>/` and `folds.json`; folds of an earlier, larger number are removed."""
    dataset.folds_record.unlink(missing_ok=True)  # written last again: its presence says that the folds are complete
    labels = label_paths(dataset.ground_truth)
    for stale in [*visible(dataset.splits, "*.split*.bundle"), *visible(dataset.root, "groundTruth_split_*")]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    for number, test in enumerate(folds, 1):
        train = sorted(video for fold in folds if fold is not test for video in fold)
        for part, videos in (("train", train), ("test", test)):
            write_text(dataset.bundle(part, number), "".join(f"{video}.txt\n" for video in videos))
        folder = dataset.ground_truth_split(number)
        folder.mkdir(parents=True)
        for video in test:
            link_file(labels[video], folder / f"{video}.txt")
    groups = {video: patients[video] for fold in folds for video in fold if video in patients}
    record = {"num_folds": len(folds), "seed": seed, "stratify": stratify, "patients": groups}
    write_json(dataset.folds_record, record | {"hash": folds_hash(folds)})


def read_bundle(path: Path) -> list[str]:
    """Video names of one bundle file (`<video>.txt` lines).

    Raises `UserError` when the file is missing, empty or repeats a video.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such split; make folds first: python generate_k_folds.py <data set> <number of folds>"
        )
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    videos = [nfc(line.removesuffix(".txt")) for line in lines if line]
    if not videos or len(set(videos)) != len(videos):
        raise UserError(f"{path}: expected one <video>.txt a line, each once; found {len(videos)} lines")
    return videos


def fold_numbers(dataset: Dataset) -> range:
    """The numbers of the test folds, from 1; empty where none were made."""
    return range(1, 1 + len(visible(dataset.splits, "test.split*.bundle")))


def read_folds(dataset: Dataset) -> list[list[str]]:
    """Test folds of a data set in order of their number, verified as `verify_folds` says."""
    numbers = fold_numbers(dataset) or [1]  # without any, the first one's message says how to make folds
    folds = [read_bundle(dataset.bundle("test", number)) for number in numbers]
    verify_folds(dataset, folds)
    return folds


def verify_folds(dataset: Dataset, folds: Sequence[Sequence[str]]) -> None:
    """Check that folds are disjoint, cover `groundTruth/` once, match their training lists and split no patient.

    Raises `UserError` that names the offending videos.
    """
    remake = how_to_remake(dataset, len(folds))
    counts = Counter(video for fold in folds for video in fold)
    labelled = set(label_paths(dataset.ground_truth))
    repeated = sorted(video for video, count in counts.items() if count > 1)
    if repeated:
        raise UserError(f"{dataset.splits}: in more than one test fold: {', '.join(repeated)}; {remake}")
    if set(counts) != labelled:
        strays = sorted(set(counts) ^ labelled)
        raise UserError(
            f"{dataset.splits}: test folds and {dataset.ground_truth} disagree on {', '.join(strays[:8])}; {remake}"
        )
    for number, test in enumerate(folds, 1):
        if set(read_bundle(dataset.bundle("train", number))) != labelled - set(test):
            raise UserError(f"{dataset.bundle('train', number)}: not the videos outside test fold {number}; {remake}")
    patients = read_json(dataset.folds_record)["patients"] if dataset.folds_record.is_file() else {}
    fold_of: dict[str, int] = {}
    for number, test in enumerate(folds, 1):
        for video in test:
            patient = patients.get(video)
            if patient is not None and fold_of.setdefault(patient, number) != number:
                raise UserError(
                    f"{dataset.splits}: patient {patient} is in folds {fold_of[patient]} and {number}; {remake}"
                )


def how_to_remake(dataset: Dataset, num_folds: int | str) -> str:
    """The advice that ends every message about unsound folds."""
    return f"make the folds again: python generate_k_folds.py {dataset.root} {num_folds}"


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
