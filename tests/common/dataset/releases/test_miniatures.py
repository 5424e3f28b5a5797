"""Every miniature of a release in the reference data, imported by the real command, against what it must become."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.base.entries import list_labels
from common.base.files import read_yaml
from common.base.paths import Dataset
from common.dataset.kfold import read_bundle
from common.dataset.tables import read_table

CHECKOUT = Path(__file__).resolve().parents[4]
MINIATURES = (CHECKOUT / os.environ.get("REFERENCE_DATA", "../shared")).resolve() / "cases" / "releases"
LEFT_OUT = {"esd57"}  # nobody owns it, and nobody offers it
SETS = sorted(path.parent.name for path in MINIATURES.glob("*/expected.json") if path.parent.name not in LEFT_OUT)
LISTS = {  # the list and split (from 1) that an expectation is about, where it is not the first of that name
    "bern_0": ("bern", 1),
    "user_out_B": ("user_out", 1),
    "fold1": ("official", 1),
    **{f"split{number}": ("release", number) for number in range(1, 6)},
}
# the miniature's list comes from its made pickle, ours is the owners' text: SBP07 learns in split 0
OTHERWISE = {("multibypass140", "strasbourg_0")}

pytestmark = pytest.mark.skipif(not SETS, reason="no miniatures of releases in the reference data")


class Miniature:
    """One miniature with its media, in a folder of its own, and the data sets that the command makes of it."""

    def __init__(self, name: str, release: Path, command: Any, workspace: Path, capsys: pytest.CaptureFixture):
        self.name, self.release, self.command, self.workspace, self.capsys = name, release, command, workspace, capsys
        self.expected = json.loads((MINIATURES / name / "expected.json").read_text(encoding="utf-8"))
        self.before = self.state(self.release)
        self.printed = ""

    def state(self, folder: Path) -> dict[str, tuple[int, bytes]]:
        """Every file below a folder: when it was written, and its first bytes."""
        return {
            path.relative_to(folder).as_posix(): (path.lstat().st_mtime_ns, path.read_bytes()[:64])
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def imported(self, *options: str) -> tuple[Dataset, list[str]]:
        """The data set that the command makes, and the problems that it lists; the release is left as it was."""
        code = self.command.main([self.name, str(self.release), "--output", "made", *options])
        self.printed = printed = self.capsys.readouterr().out
        assert self.state(self.release) == self.before
        problems = [line.strip() for line in printed.partition("\nproblems (")[2].splitlines()[1:]]
        assert code == bool(problems)
        return Dataset(self.workspace / "data" / "made"), problems

    def phases_of(self, video: str) -> list[str | None]:
        """What each label of a video must be, None for no phase, without the labels of images that are not there."""
        entry = self.expected["videos"][video]
        labels = spread(entry["segments"], entry["num_labels"])
        missing = entry.get("images_missing", [])
        if isinstance(missing, int):  # the last ones
            return labels[: len(labels) - missing]
        for image in missing:
            labels.pop(int(image.rpartition("_")[2]) - self.expected["index_base"])
        return labels


def spread(segments: list[list[Any]], length: int) -> list[str | None]:
    """Segments `[phase, start, end]` as a label for each frame."""
    labels: list[str | None] = [None] * length
    for phase, start, end in segments:
        labels[start:end] = [phase] * (end - start)
    return labels


def labels_of(dataset: Dataset, expected: dict[str, Any]) -> dict[str, list[str | None]]:
    """Labels by video under the release's own names."""
    own = dict(zip(expected["names_for_mapping_txt"], expected["mapping"], strict=True)) | {"unlabelled": None}
    files = [list_labels(folder).files for folder in (dataset.ground_truth, dataset.ground_truth_val)]
    return {
        video: [own[name] for name in path.read_text(encoding="utf-8").splitlines()]
        for found in files
        for video, (path,) in found.items()
    }


@pytest.fixture(scope="module", params=SETS)
def release_with_media(request, tmp_path_factory) -> tuple[str, Path]:
    """A miniature's name and its release, copied, with the videos, images and features that it says; nobody writes into it."""
    name, release = request.param, tmp_path_factory.mktemp(request.param) / "release"
    shutil.copytree(MINIATURES / name / "release", release, copy_function=shutil.copyfile)
    for path in [release, *release.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    words = [sys.executable, str(MINIATURES / "make_media.py"), str(MINIATURES / name), str(release)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return name, release


@pytest.fixture
def miniature(release_with_media, command, workspace, capsys) -> Miniature:
    return Miniature(*release_with_media, command, workspace, capsys)


def test_labels_phases_and_problems(miniature):
    dataset, problems = miniature.imported("--native_rate")
    expected = miniature.expected
    found = labels_of(dataset, expected)
    assert found.keys() == expected["videos"].keys()
    for video, entry in expected["videos"].items():
        phases = miniature.phases_of(video)
        for start, end in entry["unlabelled"]:
            assert set(phases[start:end]) == {None}
        assert found[video][: len(phases)] == phases
        # labels that end before the video are filled up to it
        assert set(found[video][len(phases) :]) <= {None}
        assert len(found[video]) == max(len(phases), frames_of(expected, video, len(phases)))
    names = [line.partition(" ")[2] for line in dataset.mapping.read_text(encoding="utf-8").splitlines()]
    assert names == expected["names_for_mapping_txt"]
    for number, problem in enumerate(expected["problems"]):
        assert problem.split()[0] in problems[number]
    assert len(problems) == len(expected["problems"])
    for video, entry in expected["videos"].items():  # single images that a release lacks are named, but no problem
        assert (f"{video} without " in miniature.printed) == bool(entry.get("images_missing"))


def frames_of(expected: dict[str, Any], video: str, num_labels: int) -> int:
    """Decoded frames of a video whose labels end early; of others the number of labels."""
    if not any("labels may end before" in note for note in expected["notes"]):
        return num_labels
    return next(media["frames"] for name, media in expected["media"].items() if Path(name).stem == video)


def test_description(miniature):
    dataset, _ = miniature.imported()
    expected, description = miniature.expected, read_yaml(dataset.description)
    to_mapping = dict(zip(expected["mapping"], expected["names_for_mapping_txt"], strict=True))
    assert description["background"] == to_mapping.get(expected["background"])
    ignored = [name for name in description.get("ignored", []) if name != "unlabelled"]
    assert ignored == [to_mapping[name] for name in expected["ignored"]]
    has_none = any(None in labels for labels in labels_of(dataset, expected).values())
    assert ("unlabelled" in description.get("ignored", [])) == has_none
    assert description.get("release_names", {}) == {new: old for old, new in to_mapping.items() if old != new}
    assert {"source", "licence"} <= description.keys()


def test_kept_labels(miniature):
    dataset, _ = miniature.imported()
    found = labels_of(dataset, miniature.expected)
    for video, entry in miniature.expected["videos"].items():
        if "at_1_fps" in entry:
            assert found[video] == spread(entry["at_1_fps"], entry["num_labels_at_1_fps"])
            assert read_yaml(dataset.description)["label_every"] == 25


def test_lists_are_cut_to_the_videos(miniature):
    dataset, _ = miniature.imported()
    for name, parts in miniature.expected.get("splits", {}).items():
        if (miniature.name, name) in OTHERWISE:
            continue
        one, number = LISTS.get(name, (name, 1))
        if miniature.name == "jigsaws":  # expected of one of the three tasks
            parts = {
                part: [*videos, *(["Knot_Tying_B001"] if part == "test" else [])] for part, videos in parts.items()
            }
        if not (parts.get("train") and parts.get("test")):  # nothing to learn from, or to score
            assert not dataset.split_list(one).exists()
            continue
        for part in ("train", "val", "test"):
            path = dataset.bundle(part, number, one)
            assert sorted(read_bundle(path) if path.exists() else []) == sorted(parts.get(part, []))
        assert one in read_yaml(dataset.split_lists)["lists"]


@pytest.mark.parametrize("column", ["patient", "group"])
def test_patients_and_groups(miniature, column):
    dataset, _ = miniature.imported()
    expected = {video: entry[column] for video, entry in miniature.expected["videos"].items() if column in entry}
    path = dataset.patients if column == "patient" else dataset.groups
    rows = read_table(path, ("video", column)) if path.exists() else ()
    assert {row["video"]: row[column] for _, row in rows} == expected


def test_media_are_linked_and_a_second_import_changes_nothing(miniature):
    dataset, problems = miniature.imported()
    linked = {path.stem if path.suffix else path.name for path in dataset.videos.glob("*")}
    features = {path.stem for path in dataset.root.glob("features/*/*.npy")}
    assert linked | features == miniature.expected["videos"].keys()
    first = miniature.state(dataset.root)
    assert miniature.imported() == (dataset, problems)
    second = miniature.state(dataset.root)
    assert {name: kept for name, kept in second.items() if name != "manifest.json"} == {
        name: kept for name, kept in first.items() if name != "manifest.json"
    }


def test_what_is_left_out_is_unknown_by_name(command, tmp_path, workspace):
    with pytest.raises(Exception, match="no reader of a release called 'ESD57'"):
        command.main(["ESD57", str(tmp_path)])
