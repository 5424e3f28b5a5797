"""Patients of a data set's videos: `patients.csv`, read and matched with the videos that there are.

A line that matches nothing is an error: its video would be dealt on its own, and its patient be learned from and tested.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from common.base.entries import list_labels, list_videos, same_name, video_named
from common.base.paths import Dataset
from common.base.runtime import UserError, counted, listed, shortened, shown
from common.dataset.description import labelled_units
from common.dataset.kfold import how_to_remake, split_patients
from common.dataset.split_lists import SplitLists
from common.dataset.tables import read_table

COLUMNS = ("video", "patient")
DELIMITERS = ",;\t"  # of spreadsheets all over the world
UNKNOWN = {"", "-", "?", "na", "n/a", "nan", "none", "null", "unknown"}  # no name of a patient, or all would be one
TRAILING_NUMBER = re.compile(r"\d+$")
MOST_LINES = 5  # named in one message


def read_patients(dataset: Dataset) -> dict[str, str]:
    """Read `patients.csv` (columns `video,patient`) as video -> patient; an absent file gives an empty mapping.

    A video may stand there with a path, a suffix, blanks or other capitals, and several times; a blank or unknown
    patient is none.

    Raises `UserError` naming the lines with a video that the data set lacks, or of another patient than in a line above.
    """
    if not os.path.lexists(dataset.patients):
        return {}
    folders = (list_labels(dataset.ground_truth), list_labels(dataset.ground_truth_val), list_videos(dataset.videos))
    known = {same_name(video): video for folder in folders for video in folder.files}
    known |= {same_name(unit): unit for unit in labelled_units(dataset)[1]}
    patients: dict[str, str] = {}
    line_of: dict[str, int] = {}
    wrong = []
    for line, row in read_table(dataset.patients, COLUMNS, DELIMITERS):
        written, patient = row["video"] or "", row["patient"] or ""
        video = known.get(same_name(written)) or known.get(same_name(video_named(written)))
        if video is None:
            wrong.append(f"line {line}: no video {shown(written)} in {dataset.root}")
        elif patient.casefold() in UNKNOWN:
            continue
        elif patients.setdefault(video, patient) != patient:
            theirs = f"{shown(patients[video])} in line {line_of[video]}"
            wrong.append(f"line {line}: {video} of patient {shown(patient)}, but of {theirs}")
        else:
            line_of.setdefault(video, line)
    if wrong:
        more = f"; {len(wrong) - MOST_LINES} lines more" if len(wrong) > MOST_LINES else ""
        advice = "name each video as its label file, with one patient, and take out what is not of this data set"
        raise UserError(f"{dataset.patients}, {'; '.join(wrong[:MOST_LINES])}{more}; {advice}")
    return patients


def pieces_of_recordings(videos: Iterable[str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Videos that look like pieces of one recording and have no patient, by what their names share: `case7` of `case7_1`.

    Pieces share what stands before a trailing number, and that holds a number itself, the recording's: in `video01` and
    `BL_001` there is none, and where the names of several recordings differ in no number (`set3_BL_01`, `set3_SD_01`) it
    is none of theirs.
    """
    by_prefix: dict[str, list[str]] = {}
    for video in videos:
        prefix = TRAILING_NUMBER.sub("", video)
        if prefix != video and any(map(str.isdigit, prefix)):
            by_prefix.setdefault(prefix, []).append(video)
    if len(by_prefix) > 1 and len({tuple(re.findall(r"\d+", prefix)) for prefix in by_prefix}) == 1:
        return {}
    unstated = {prefix: [name for name in names if name not in patients] for prefix, names in by_prefix.items()}
    return {prefix.rstrip("_-. "): sorted(names) for prefix, names in unstated.items() if len(names) > 1}


def shared_patients(dataset: Dataset, splits: SplitLists, number: int) -> str:
    """Patients with videos in both the training and the test list of a split, in words; empty without any."""
    patients = read_patients(dataset)
    sides = [
        {patients[video] for video in splits.videos(part, number) if video in patients} for part in ("train", "test")
    ]
    shared = sorted(sides[0] & sides[1])
    return f"{counted(len(shared), 'patient')} ({listed(shared)})" if shared else ""


def check_patients(dataset: Dataset, splits: SplitLists, numbers: Iterable[int]) -> list[str]:
    """Hold splits against `patients.csv`, where there is one: who is learned from and tested in a list, in words.

    A published list stays as it is. Raises `UserError` for generated folds that tear a patient apart.
    """
    if not os.path.lexists(dataset.patients):
        return []
    if splits.name is None:
        require_whole_patients(dataset, splits.tests)
        return []
    found = {number: shared_patients(dataset, splits, number) for number in numbers}
    return [
        f"list {splits.name}, split {number}: learned from and tested: {shared}"
        for number, shared in found.items()
        if shared
    ]


def require_whole_patients(dataset: Dataset, folds: Sequence[Sequence[str]]) -> None:
    """Hold folds against `patients.csv` as it is now, which may be newer than they are.

    Raises `UserError` naming a patient who is in two of them, with the videos.
    """
    patients = read_patients(dataset)
    for patient, numbers in split_patients(folds, patients).items():
        videos = {
            number: [video for video in folds[number - 1] if patients.get(video) == patient] for number in numbers
        }
        # as many folds as before, or as there are people: the command refuses more
        people = {patients.get(video) or ("no patient", video) for fold in folds for video in fold}
        num_folds = max(2, min(len(folds), len(people)))
        where = "; ".join(f"fold {number}: {listed(names)}" for number, names in videos.items())
        raise UserError(
            f"{dataset.patients}: patient {shortened(patient)} is in {len(numbers)} test folds ({where}), so videos of one "
            f"person are learned from and tested; {how_to_remake(dataset, num_folds)}"
        )
