"""Releases with a row for each label: which are kept, filled up and refused; features in place of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.description import read_description
from common.dataset.importing.release import Extent
from common.dataset.patients import read_patients
from common.dataset.split_lists import open_splits


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def cholec80_video(release: Path, number: int, phases: Sequence[str]) -> Path:
    write(release / "videos" / f"video{number:02}.mp4", "video")
    write(release / "videos" / f"video{number:02}-timestamp.txt", "Time\tPhase")
    rows = (f"{frame}\t{phase}" for frame, phase in enumerate(phases))
    return write(release / "phase_annotations" / f"video{number:02}-phase.txt", "Frame\tPhase", *rows)


def test_cholec80_keeps_a_label_a_second_and_all_by_option(read, release):
    phases = ["Preparation"] * 30 + ["ClippingCutting"] * 21
    cholec80_video(release, 1, phases)
    cholec80_video(release, 41, phases[25:])
    outcome = read("cholec 80")
    assert outcome.labels()["video01"] == ["Preparation", "Preparation", "ClippingCutting"]
    assert read_description(outcome.dataset).label_every == 25
    assert open_splits(outcome.dataset, "A").tests == [["video41"]]
    native = read("Cholec80", "--native_rate")
    assert native.labels()["video01"] == phases
    assert read_description(native.dataset).label_every is None


def test_lists_by_name_and_the_standing_of_those_that_there_are(read, release):
    cholec80_video(release, 1, ["Preparation"])
    cholec80_video(release, 80, ["Preparation"])
    outcome = read("Cholec80", "--splits", "B")
    assert [path.name for path in sorted(outcome.dataset.splits.iterdir())] == ["B", "lists.yaml"]
    with pytest.raises(UserError, match=r"--splits official: .*state no official list; there are: A \(convention\)"):
        read("Cholec80", "--splits", "official")
    with pytest.raises(UserError, match=r"--splits D: no such list of Cholec80"):
        read("Cholec80", "--splits", "D")


def test_wrong_tables_are_named_and_the_others_go_on(read, release):
    good = cholec80_video(release, 1, ["Preparation"] * 3)
    tables = {number: cholec80_video(release, number, ["Preparation"] * 3) for number in range(2, 9)}
    write(tables[2], "Frame\tPhase", "0\tPreparation", "2\tPreparation")
    write(tables[3], "Frame\tPhase", "0\tPreperation")
    write(tables[4], "Frame;Phase", "0;Preparation")
    write(tables[5], "Frame\tPhase", "0")
    write(tables[6], "Frame\tPhase")
    tables[7].write_bytes(b"\xff\xfeF\x00")
    (release / "videos" / "video08.mp4").unlink()
    alone = write(release / "videos" / "video09.mp4", "video")
    outcome = read("Cholec80")
    assert (outcome.code, outcome.labels().keys()) == (1, {good.stem.removesuffix("-phase")})
    outcome.require_problems(
        {
            alone: "no labels of video09",
            f"{tables[2]}, line 3": "expected the label of 1, found '2'; rows must not be missing",
            f"{tables[3]}, line 2": "unknown phase 'Preperation'; nearest known phase: 'Preparation'",
            f"{tables[4]}, line 1": "expected the columns Frame\tPhase, found 'Frame;Phase'",
            f"{tables[5]}, line 2": "no value for Phase",
            tables[6]: "no label in it",
            f"{tables[7]}, line 1": "text in UTF-16",
            tables[8]: "labels of video08, but no video",
        }
    )


def test_a_folder_of_something_else_is_refused(read, release):
    with pytest.raises(UserError, match=r"expected phase_annotations/\*-phase.txt .* of Cholec80, found none"):
        read("Cholec80")


def test_files_that_somebody_changed_stay_and_stale_ones_go(read, release):
    tables = [cholec80_video(release, number, ["Preparation"]) for number in (1, 2, 3)]
    dataset = read("Cholec80").dataset
    mine = write(dataset.ground_truth / "video01.txt", "ClippingCutting")
    write(tables[0], "Frame\tPhase", "0\tCleaningCoagulation")
    write(tables[1], "Frame\tPhase", "0\tCleaningCoagulation")
    tables[2].unlink()
    outcome = read("Cholec80")
    assert outcome.labels() == {"video01": ["ClippingCutting"], "video02": ["CleaningCoagulation"]}
    assert f"{mine}: differs from what the release gives" in outcome.printed
    assert sorted(path.stem for path in dataset.videos.iterdir()) == ["video01", "video02"]


def test_another_data_set_in_the_place_is_refused(read, release, workspace):
    cholec80_video(release, 1, ["Preparation"])
    write(workspace / "data" / "made" / "mapping.txt", "0 a")
    with pytest.raises(UserError, match="another data set is here already"):
        read("Cholec80")


def test_m2cai16_fills_up_what_has_no_label(read, release, command, monkeypatch):
    monkeypatch.setattr(command, "promised", lambda video: Extent(60, 25))
    for folder, name in (("train_dataset", "workflow_video_01"), ("test_dataset", "test_workflow_video_01")):
        write(release / folder / f"{name}.mp4", "video")
        rows = (f"{frame}\tTrocarPlacement" for frame in range(40))
        write(release / folder / f"{name}.txt", "Frame\tPhase", *rows)
        write(release / folder / f"{name}_pred.txt", "Frame\tPhase")
    outcome = read("M2CAI16")
    assert outcome.labels()["workflow_video_01"] == ["TrocarPlacement"] * 2 + ["unlabelled"]
    native = read("M2CAI16", "--native_rate").labels()["test_workflow_video_01"]
    assert native == ["TrocarPlacement"] * 40 + ["unlabelled"] * 20
    assert open_splits(outcome.dataset, "convention").trains == [["workflow_video_01"]]


def test_sar_rarp50_clips_are_called_by_their_folder(read, release):
    clips = {"train1": ("video_01",), "train2": ("video_11_1", "video_11_2"), "test": ("video_41",)}
    for folder, names in clips.items():
        for name in names:
            write(release / folder / name / "video_left.avi", name)
            rows = ("000000000,0", "000000006,7", "000000012,7")
            write(release / folder / name / "action_discrete.txt", *rows)
    wrong = write(release / "train2" / "video_11_2" / "action_discrete.txt", "000000000,0", "000000005,0")
    outcome = read("sar_rarp50")
    assert outcome.labels()["video_41"] == ["Other", *["Returning/dropping_the_needle"] * 2]
    assert (outcome.dataset.videos / "video_41.avi").read_text() == "video_41\n"
    assert read_patients(outcome.dataset)["video_11_1"] == "video_11"
    assert read_description(outcome.dataset).label_every == 6
    assert open_splits(outcome.dataset, "official").trains == [["video_01", "video_11_1"]]
    outcome.require_problems({f"{wrong}, line 2": "expected the label of 6, found '000000005'"})


def test_cataracts_parts_are_folders_whatever_the_files_are_called(read, release):
    for folder, name in (("train_gt", "train01"), ("dev_gt", "test01"), ("test_gt", "test02")):
        write(release / "ground_truth" / "CATARACTS_2020" / folder / f"{name}.csv", "Frame,Steps", "1,0", "2,10")
        for view in ("micro", "tray"):
            write(release / "videos" / view / f"{name}.mp4", view)
    outcome = read("CATARACTS")
    assert outcome.labels()["test01"] == ["Idle", "Irrigation/Aspiration"]
    assert (outcome.dataset.videos / "test01.mp4").read_text() == "micro\n"
    official = open_splits(outcome.dataset, "official")
    assert [official.videos(part, 1) for part in ("train", "val", "test")] == [["train01"], ["test01"], ["test02"]]


def test_ms_tcn_features_are_linked_and_their_columns_counted(read, release):
    write(release / "gtea" / "mapping.txt", "0 take", "1 background")
    for number, length in ((1, 3), (2, 3), (3, 4)):
        write(release / "gtea" / "groundTruth" / f"S{number}.txt", "take", "take", "background")
        (release / "gtea" / "features").mkdir(exist_ok=True)
        np.save(release / "gtea" / "features" / f"S{number}.npy", np.zeros((5, length), np.float32))
    for split in range(1, 5):
        write(release / "gtea" / "splits" / f"train.split{split}.bundle", "S1.txt", "S3.txt")
        write(release / "gtea" / "splits" / f"test.split{split}.bundle", "S2.txt")
    outcome = read("GTEA")
    assert outcome.labels().keys() == {"S1", "S2"}
    outcome.require_problems({release / "gtea" / "features" / "S3.npy": "a column for each label, found (5, 4)"})
    assert [path.name for path in sorted(outcome.dataset.root.glob("features/I3D@release/*"))] == ["S1.npy", "S2.npy"]
    assert open_splits(outcome.dataset, "official").trains == [["S1"]] * 4
    description = read_description(outcome.dataset)
    assert (description.feature_fps, description.label_fps, description.background) == (15, 15, "background")


def test_cataract101_names_wrong_rows_and_imports_the_others(read, release):
    phases = (f"{number};{name}" for number, name in enumerate(("Incision", "Viscous agent injection"), 1))
    write(release / "phases.csv", "Phase;Meaning", *phases)
    write(release / "videos.csv", "VideoID;Frames;FPS;Surgeon;Experience", *(f"{n};4;25;1;1" for n in (1, 2, 3)))
    rows = ("1;1;1", "1;3;2", "2;0;1", "2;0;2", "3;9;1", "7;0;1")
    table = write(release / "annotations.csv", "VideoID;FrameNo;Phase", *rows)
    for number in (1, 2, 3):
        write(release / "videos" / f"case_{number}.mp4", "video")
    outcome = read("Cataract-101")
    assert outcome.labels() == {"1": ["unlabelled", "Incision", "Incision", "Viscous_agent_injection"]}
    outcome.require_problems(
        {
            f"{table}, line 7": "video 7 is not in videos.csv",
            f"{table}, line 5": "frame 0 after frame 0 of video 2; expected ascending frames",
            f"{table}, line 6": "frame 9 is beyond video 3 of 4 frames",
        }
    )
