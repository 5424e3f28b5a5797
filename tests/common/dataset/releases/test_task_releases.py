"""Releases of other tasks: the made miniatures as their expected.json says, and what is wrong in copies of them."""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from common.base import paths
from common.base.files import read_yaml
from common.base.runtime import UserError
from common.dataset.importing.catalogue import known_task_releases, release_called
from common.dataset.kfold import read_bundle
from common.dataset.releases.cholect50 import COMPONENTS, TRIPLETS
from common.dataset.task_labels import read_clip_table, read_presence

HEAD = "Frame\tGrasper\tBipolar\tHook\tScissors\tClipper\tIrrigator\tSpecimenBag\n"


@pytest.fixture
def cases(reference_data) -> Path:
    return reference_data / "cases" / "tasks"


def expected(folder: Path) -> dict:
    return json.loads((folder / "expected.json").read_text())


def positives(dataset: paths.Dataset) -> dict[str, dict[str, int]]:
    """Frames with each class, by video."""
    table = read_presence(dataset.presence)
    return {
        video: dict(zip(table.classes, (labels.present == 1).sum(axis=0).tolist(), strict=True))
        for video, labels in table.videos.items()
    }


def bundles(dataset: paths.Dataset, name: str) -> dict[str, list[str]]:
    there = {part: dataset.bundle(part, 1, name) for part in ("train", "val", "test")}
    return {part: sorted(read_bundle(path)) for part, path in there.items() if path.is_file()}


def test_cataracts_tools(run_import, cases):
    outcome = run_import("CATARACTS-tools", cases / "CATARACTS-tools")
    wanted = expected(cases / "CATARACTS-tools")
    table, counts = read_presence(outcome.dataset.presence), positives(outcome.dataset)
    assert list(table.classes) == wanted["tools"]
    for video, facts in wanted["videos"].items():
        assert len(table.videos[video].frames) == facts["evaluated"]
        assert {tool: count for tool, count in counts[video].items() if count} == facts["positives_above_half"]
        assert table.videos[video].frames[0] == 0  # frame 1 of the release
    assert bundles(outcome.dataset, "official") == {"train": ["train01"], "test": ["test02"]}
    assert read_yaml(outcome.dataset.description)["measure"] == "roc_area"
    assert outcome.code == 0


def test_cataracts_tables_without_the_column_of_what_is_evaluated_are_taken_whole_and_told(run_import, cases, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cases / "CATARACTS-tools", copy)
    (table,) = copy.rglob("train01.csv")
    os.chmod(table, 0o644)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    place = rows[0].index("to_be_evaluated")
    table.write_text("".join(",".join(row[:place] + row[place + 1 :]) + "\n" for row in rows))
    outcome = run_import("CATARACTS-tools", copy)
    assert len(read_presence(outcome.dataset.presence).videos["train01"].frames) == len(rows) - 1
    assert "no column to_be_evaluated in train01.csv: all of their frames are taken" in outcome.printed


def test_cholec80_tools(run_import, cases):
    outcome = run_import("Cholec80-tools", cases / "Cholec80")
    table, counts = read_presence(outcome.dataset.presence), positives(outcome.dataset)
    wanted = expected(cases / "Cholec80")
    assert list(table.classes) == wanted["tools"]
    for video, facts in wanted["videos"].items():
        assert table.videos[video].frames.tolist() == facts["labelled_frames"]
        assert counts[video] == facts["positives"]
    assert sorted(path.name for path in outcome.dataset.videos.iterdir()) == ["video01.mp4", "video41.mp4"]
    assert bundles(outcome.dataset, "A") == {"train": ["video01"], "test": ["video41"]}


def test_endoscapes(run_import, cases):
    outcome = run_import("Endoscapes", cases / "Endoscapes2023")
    wanted, table = expected(cases / "Endoscapes2023"), read_presence(outcome.dataset.presence)
    images = {video: sorted(path.name for path in (outcome.dataset.videos / video).iterdir()) for video in table.videos}
    found = {
        images[video][frame]: present
        for video, labels in table.videos.items()
        for frame, present in zip(labels.frames.tolist(), labels.present.tolist(), strict=True)
    }
    assert found == {image: facts["rounded"] for image, facts in wanted["labels"].items()}
    assert {image for names in images.values() for image in names} - found.keys() == set(wanted["unlabelled_frames"])
    splits = {part: sorted(map(str, videos)) for part, videos in wanted["splits"].items()}
    assert bundles(outcome.dataset, "official") == splits


@pytest.mark.parametrize("name", ["cataract-101", "AlxSuture"])
def test_surgrec(run_import, cases, name):
    outcome = run_import("SurgRec", cases / "SurgRec", "--set", name.upper())
    assert outcome.dataset.name == f"SurgRec-{name}"
    wanted, table = expected(cases / "SurgRec")["sets"][name], read_clip_table(outcome.dataset.clips)
    parts = Counter(clip.part for clip in table.clips.values())
    if wanted["test_is_val"]:
        assert parts == {part: count for part, count in wanted["clips"].items() if part != "val"}
        assert "the val list is the test list, 2 clips" in outcome.printed
    else:
        assert parts == wanted["clips"]
    if wanted["groups"]:
        assert table.groups == {Path(clip).stem: group for clip, group in wanted["groups"].items()}
    else:
        assert not table.groups
        assert "no recording is known of a clip" in outcome.printed
    assert set(table.classes) == set(wanted.get("labels", table.classes))
    assert len(list(outcome.dataset.videos.iterdir())) == len(table.clips)


def test_components_of_cholect50(run_import, tmp_path):
    """Two instruments at once, a null triplet, an image without any; the last image has no file."""
    image = [[17, 0, *[0] * 5, 1, 0, *[0] * 5, 1], [60, 2, *[0] * 5, 2, 0, *[0] * 5, 1]]
    null, none = [[94, 0, *[0] * 5, 9, 14, *[0] * 5, 1]], [[-1] * 14 + [1]]
    (tmp_path / "labels").mkdir()
    content = {"annotations": {"0": image, "1": null, "2": none, "3": null}}
    (tmp_path / "labels" / "VID92.json").write_text(json.dumps(content))
    folder = tmp_path / "videos" / "VID92"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number:06d}.png").write_bytes(b"made")
    seen = {}
    for component in COMPONENTS:
        outcome = run_import(f"CholecT50-{component}", tmp_path)
        table = read_presence(outcome.dataset.presence)
        present = table.videos["VID92"].present
        seen[component] = [[table.classes[place] for place in row.nonzero()[0]] for row in present]
        assert "without images 000003" in outcome.printed
    assert seen == {
        "tools": [["grasper", "hook"], ["grasper"], []],
        "verbs": [["retract", "dissect"], ["null_verb"], []],
        "targets": [["gallbladder"], ["null_target"], []],
        "triplets": [["grasper-retract-gallbladder", "hook-dissect-gallbladder"], [], []],
    }


def test_triplets_have_the_numbers_of_the_release():
    assert len(TRIPLETS) == len(set(TRIPLETS)) == 100
    assert [TRIPLETS[number] for number in (0, 17, 22, 46, 60, 79, 82, 93, 94, 99)] == [
        "grasper-dissect-cystic_plate", "grasper-retract-gallbladder", "bipolar-coagulate-abdominal_wall_cavity",
        "hook-coagulate-blood_vessel", "hook-dissect-gallbladder", "clipper-clip-cystic_duct", "irrigator-aspirate-fluid",
        "irrigator-retract-omentum", "grasper-null_verb-null_target", "irrigator-null_verb-null_target",
    ]  # fmt: skip
    assert len(COMPONENTS["triplets"].classes) == 94


def test_a_second_run_changes_nothing_and_other_data_stays(run_import, cases):
    first = run_import("Cholec80-tools", cases / "Cholec80")
    before = {path: path.stat().st_mtime_ns for path in first.dataset.root.rglob("*") if path.is_file()}
    assert run_import("Cholec80-tools", cases / "Cholec80").code == 0
    assert {path: path.stat().st_mtime_ns for path in before if path.name != paths.MANIFEST} == {
        path: time for path, time in before.items() if path.name != paths.MANIFEST
    }
    first.dataset.presence.write_text("video,frame,Hook\nvideo01,0,1\n")
    outcome = run_import("Cholec80-tools", cases / "Cholec80")
    assert outcome.code == 1
    assert any(str(first.dataset.presence) in problem for problem in outcome.problems)
    assert first.dataset.presence.read_text() == "video,frame,Hook\nvideo01,0,1\n"


@pytest.mark.parametrize(
    ("name", "place", "old", "new", "message"),
    [
        ("Cholec80-tools", "cholec80/tool_annotations/video01-tool.txt", "25\t1", "25\t2", "line 3: Grasper: expected 0 or 1, found '2'"),
        ("Cholec80-tools", "cholec80/tool_annotations/video01-tool.txt", "Hook", "Hock", "expected the columns"),
        ("Cholec80-tools", "cholec80/tool_annotations/video01-tool.txt", "50\t", "25\t", "line 4: frame 25 again"),
        ("CATARACTS-tools", "ground_truth/CATARACTS_2017/train_gt/train01.csv", "22,0", "22,oui", "line 23: to_be_evaluated: expected a number"),
        ("CATARACTS-tools", "ground_truth/CATARACTS_2017/train_gt/train01.csv", "\n3,1,0", "\n3,1,0.7", "line 4: biomarker: expected 0, 0.5 or 1"),
        ("CATARACTS-tools", "ground_truth/CATARACTS_2017/train_gt/train01.csv", "cotton", "coton", "no column of cotton"),
        ("Endoscapes", "endoscapes/all_metadata.csv", '"[1, 1, 1]","[1, 1, 1]"', '"[1, 1, 1]","[1, 1]"', "cvs_annotator_3: expected a list of three"),
        ("Endoscapes", "endoscapes/all_metadata.csv", '"[1, 1, 1]","[1, 1, 1]"', '"[0, 1, 1]","[1, 1, 1]"', "C1: 1 of three raters saw it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_a_problem_that_names_it(
    run_import, cases, tmp_path, name, place, old, new, message
):
    case = {"Cholec80-tools": "Cholec80", "Endoscapes": "Endoscapes2023"}.get(name, name)
    copy = tmp_path / "copy"
    shutil.copytree(cases / case, copy)
    path = copy / place
    os.chmod(path, 0o644)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    outcome = run_import(name, copy)
    assert outcome.code == 1
    assert any(place in problem and message in problem for problem in outcome.problems), outcome.problems


def surgrec(root: Path, **lists: str) -> Path:
    folder = root / "splits" / "toy"
    folder.mkdir(parents=True)
    for part, text in lists.items():
        (folder / f"{part}.csv").write_text(text)
        for line in text.splitlines():
            path = line.rpartition(" ")[0].strip('"').replace("__DATA_ROOT__", str(root / "data"))
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(b"made")
    return root


def test_lists_as_they_are_written(run_import, tmp_path):
    """Quotes, blanks in names, absolute paths of another machine, folders that are the classes."""
    root = surgrec(
        tmp_path / "release",
        train='"__DATA_ROOT__/toy/01_cut/WL (1).mp4" 0\n__DATA_ROOT__/toy/02_sew/b.mp4 1\n',
        test="/elsewhere/of/theirs/toy/01_cut/c.mp4 0\r\n",
    )
    with open(root / "data" / "toy" / "01_cut" / "c.mp4", "wb") as stream:
        stream.write(b"made")
    outcome = run_import("SurgRec", root)
    assert outcome.code == 0
    with open(outcome.dataset.clips) as stream:
        rows = {row["clip"]: (row["label"], row["split"]) for row in csv.DictReader(stream)}
    assert rows == {"WL (1)": ("cut", "train"), "b": ("sew", "train"), "c": ("cut", "test")}
    assert outcome.dataset.name == "SurgRec-toy"


def test_a_clip_of_two_lists_is_tested_alone(run_import, tmp_path):
    line, other = "__DATA_ROOT__/toy/v/a.mp4 0\n", "__DATA_ROOT__/toy/v/b.mp4 1\n"
    outcome = run_import("SurgRec", surgrec(tmp_path / "release", train=line + other, test=line))
    assert outcome.code == 1
    assert "train.csv: 1 clip of another list too: a (test)" in outcome.problems[0]
    assert {name: clip.part for name, clip in read_clip_table(outcome.dataset.clips).clips.items()} == {
        "a": "test",
        "b": "train",
    }


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "__DATA_ROOT__/a.mp4\n", "test": "__DATA_ROOT__/b.mp4 1\n"}, r"train.csv, line 1: expected a path, a blank and"),
        ({"train": "__DATA_ROOT__/a.mp4 0\n"}, r"test.csv: no such list"),
        ({"train": "__DATA_ROOT__/a.mp4 0\n", "test": ""}, r"test.csv: no clip in it"),
        ({"train": "r/a.mp4 0\nq/a.mp4 0\n", "test": "r/b.mp4 1\n"}, r"train.csv, line 2: clip a again"),
        ({"train": "r/a.mp4 0\n", "test": "r/a.mp4 1\n"}, r"a is of class 0, but of 1 in"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_an_error_that_names_the_line(run_import, tmp_path, lists, message):
    folder = tmp_path / "release" / "splits" / "toy"
    folder.mkdir(parents=True)
    for part, text in lists.items():
        (folder / f"{part}.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        run_import("SurgRec", tmp_path / "release", "--annotations_only")


def test_a_choice_that_a_release_does_not_have_is_refused(run_import, cases):
    with pytest.raises(UserError, match="--set: Cholec80-tools has no such choice"):
        run_import("Cholec80-tools", cases / "Cholec80", "--set", "x")
    with pytest.raises(UserError, match="--set: expected one of AlxSuture, cataract-101, found none"):
        run_import("SurgRec", cases / "SurgRec")
    with pytest.raises(UserError, match=r"--set toy: .* has AlxSuture, cataract-101"):
        run_import("SurgRec", cases / "SurgRec", "--set", "toy")


def test_every_reader_says_where_its_data_is_from():
    for title, (release, _) in known_task_releases().items():
        assert release_called(title)[0] is release
        assert release.licence
        assert release.source
        assert release.ask
        assert release.tried
