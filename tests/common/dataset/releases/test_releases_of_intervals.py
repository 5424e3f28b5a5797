"""Releases of intervals: whose frame a label is, gaps, overlaps, ends beyond the video, and what is wrong in a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

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


@pytest.fixture
def film(command, monkeypatch) -> Callable[..., Path]:
    """`film(path, num_frames, fps)`: a video of a few bytes that counts as so long."""
    extents: dict[Path, Extent] = {}
    monkeypatch.setattr(command, "promised", extents.__getitem__)

    def make(path: Path, num_frames: int, fps: float) -> Path:
        extents[write(path, "video")] = Extent(num_frames, fps)
        return path

    return make


def runs(labels: list[str]) -> list[tuple[str, int]]:
    """Labels as `(name, how many)`."""
    return [(name, len(list(same))) for name, same in groupby(labels)]


# --- Cataracts-1K -------------------------------------------------------------------------------------------------


def cataract1k_case(release: Path, case: int, *rows: str) -> Path:
    name = f"case_{case}"
    head = "caseId,comment,frame,endFrame,sec,endSec"
    return write(release / "annotations" / name / f"{name}_annotations_phases.csv", head, *rows)


def test_cataracts1k_goes_by_seconds_and_is_idle_between_phases(read, release, film):
    """Frames of case 2 are those of 240 a second, as in case_4863."""
    for case, rate in ((1, 60), (2, 240)):
        cataract1k_case(
            release,
            case,
            f"{case},Incision,{rate},{2 * rate},1.0,2.0",
            f"{case},Capsule Polishing,{3 * rate},{3 * rate},3.0,3.0",
            f"{case},phacoemulsification,{3 * rate},{9 * rate},3.0,9.0",
        )
        film(release / "videos" / f"case_{case}.mp4", 600 if case == 1 else 200, 60)
    film(release / "videos" / "case_9.mp4", 10, 60)
    outcome = read("Cataracts-1K")
    labels = outcome.labels()
    head = [("unlabelled", 60), ("Incision", 60), ("idle", 60)]
    assert runs(labels["case_1"]) == [*head, ("Phacoemulsification", 360), ("unlabelled", 60)]
    assert runs(labels["case_2"]) == [*head, ("Phacoemulsification", 20)]
    assert "case_1_annotations_phases.csv, line 3: Capsule Pulishing without duration, left out" in outcome.printed
    assert "1 video without phase annotations, not imported" in outcome.printed
    description = read_description(outcome.dataset)
    assert (outcome.code, description.background, description.ignored) == (0, "idle", ("unlabelled",))


def test_cataracts1k_names_wrong_rows_and_imports_the_others(read, release, film):
    row = "{case},Incision,0,60,0,1"
    tables = {case: cataract1k_case(release, case, row.format(case=case)) for case in range(1, 6)}
    for case in range(1, 5):
        film(release / "videos" / f"case_{case}.mp4", 60, 60)
    cataract1k_case(release, 2, "2,Incison,0,60,0,1")
    cataract1k_case(release, 3, row.format(case=3), "3,Incision,60,0,1,0")
    cataract1k_case(release, 4, "4,Incision,0,60,0,soon")
    outcome = read("Cataracts-1K")
    assert outcome.labels().keys() == {"case_1"}
    outcome.require_problems(
        {
            f"{tables[2]}, line 2": "unknown phase 'Incison'; nearest known phase: 'Incision'",
            f"{tables[3]}, line 3": "ends at 0, before it starts at 1",
            f"{tables[4]}, line 2": "endSec must be a number from 0, found 'soon'",
            tables[5]: "labels of case_5, but no video; --videos DIR names another folder",
        }
    )


# --- OphNet2024 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ophnet(release) -> Callable[..., Path]:
    def make(*rows: str) -> Path:
        table = release / "annotation" / "OphNet2024_loca_challenge_phase.csv"
        return write(table, "video_id,start,end,split,surgery_id,phase_id\r", *(f"{row}\r" for row in rows))

    return make


def test_ophnet_the_later_start_wins_gaps_do_not_count_ends_are_cut(read, release, film, ophnet):
    ophnet(
        "case_1,0.5,2,train,0,3",
        "case_1,1.5,2.5,train,0,51",
        "case_1,3,99,train,0,0",
        "case_2,0,1,val,0,3",
        "case_3,0,1,test,0,3",
    )
    for case, frames in ((1, 40), (2, 10), (3, 10)):
        film(release / "OphNet2024_all" / f"case_{case}.mp4", frames, 10)
    outcome = read("OphNet2024")
    expected = [("unlabelled", 5), ("3", 10), ("51", 10), ("unlabelled", 5), ("0", 10)]
    assert runs(outcome.labels()["case_1"]) == expected
    official = open_splits(outcome.dataset, "official")
    assert [official.videos(part, 1) for part in ("train", "val", "test")] == [["case_1"], ["case_2"], ["case_3"]]


def test_ophnet_names_of_phases_come_from_a_table(read, release, film, ophnet, tmp_path):
    ophnet("case_1,0,1,train,0,51")
    film(release / "OphNet2024_all" / "case_1.mp4", 2, 2)
    names = write(tmp_path / "names.csv", "id,name", *(f"{number},phase {number}" for number in range(52)))
    outcome = read("OphNet2024", "--names", str(names))
    assert outcome.labels() == {"case_1": ["phase_51"] * 2}
    assert read_description(outcome.dataset).release_names["phase_51"] == "phase 51"
    write(names, "id,name", "0,a")
    with pytest.raises(UserError, match=r"names.csv: expected a name for each id from 0 to 51, found none for 1"):
        read("OphNet2024", "--names", str(names))


def test_ophnet_names_wrong_rows_and_imports_the_others(read, release, film, ophnet):
    table = ophnet("case_1,0,1,train,0,52", "case_2,0,1,train,0,1", "case_2,1,2,val,0,1", "case_3,0,1,test,0,1")
    for case in (1, 2, 3):
        film(release / "OphNet2024_all" / f"case_{case}.mp4", 2, 2)
    outcome = read("OphNet2024")
    assert outcome.labels().keys() == {"case_3"}
    outcome.require_problems(
        {
            f"{table}, line 2": "unknown phase '52'; expected a number from 0 to 51",
            f"{table}, line 4": "case_2 in 'val'; expected train, val or test, one for a video",
        }
    )


def test_a_rate_that_varies_is_measured_by_decoding(read, release, ophnet, make_clip, solid):
    """Ten frames in the first second, ten more two a second: the header knows the mean rate alone."""
    ophnet("case_1,0,1,train,0,1", "case_1,1,9,train,0,2")
    seconds = [0.1 * frame for frame in range(10)] + [1 + 0.5 * frame for frame in range(10)]
    make_clip(release / "OphNet2024_all" / "case_1.mp4", solid((90, 20, 20), 20), seconds=seconds)
    outcome = read("OphNet2024", "--exact")
    assert runs(outcome.labels()["case_1"]) == [("1", 10), ("2", 10)]


# --- MultiBypass140 -----------------------------------------------------------------------------------------------


@pytest.fixture
def multibypass(release, film) -> Callable[..., Path]:
    """`multibypass(video, rows, num_frames)`: rows `(start, end, name)` in milliseconds of phases, one step for all."""
    write(release / "tables" / "step.csv", "id, name", "0, s0_null", "1, s1_cut")

    def make(video: str, rows: list[tuple[int, int, str]], num_frames: int = 150) -> Path:
        centre, folder = ("bern", "BernBypass70") if video.startswith("BBP") else ("strasbourg", "StrasBypass70")
        film(release / folder / "videos" / f"{video}.mp4", num_frames, 25)
        phases = [{"start": start, "end": end, "label_name": name, "label_id": 0} for start, end, name in rows]
        steps = [{"start": 0, "end": 2000, "label_name": "s1_cut", "label_id": 1}]
        path = release / "labels" / centre / "labels_by70" / f"{video}.mp4.json"
        return write(path, json.dumps({"phases": phases, "steps": steps}))

    return make


def test_multibypass_seconds_go_by_the_floor_of_both_ends(read, multibypass):
    multibypass("BBP01", [(0, 2900, "out_of_body"), (1999, 3001, "preparation"), (3001, 4999, "omentum_division")])
    multibypass("SBP01", [(0, 1400, "preparation"), (1400, 1900, "disassembling"), (1900, 4000, "severe_index")], 126)
    outcome = read("MultiBypass140")
    assert outcome.labels() == {
        "BBP01": ["unlabelled", "preparation", "preparation", "omentum_division", "unlabelled", "unlabelled"],
        # a label a second: the frame at 5.00 s reaches the sixth. 1.4 to 1.9 s lies within one second
        "SBP01": ["preparation", *["unlabelled"] * 5],
    }
    assert outcome.dataset.groups.read_text() == "video,group\nBBP01,bern\nSBP01,strasbourg\n"
    assert read_description(outcome.dataset).label_fps == 1


def test_multibypass_steps_are_a_data_set_of_their_own_that_shares_the_videos(command, release, workspace, multibypass):
    multibypass("BBP01", [(0, 3000, "preparation")], 75)
    assert command.main(["MultiBypass140", str(release), "--no_probe"]) == 0
    assert command.main(["MultiBypass140", str(release), "--no_probe", "--level", "steps"]) == 0
    steps = workspace / "data" / "MultiBypass140-steps"
    assert (steps / "groundTruth" / "BBP01.txt").read_text().split() == ["s1_cut", "s1_cut", "unlabelled"]
    assert (steps / "mapping.txt").read_text() == "0 s0_null\n1 s1_cut\n"
    assert "features_of: MultiBypass140\n" in (steps / "dataset.yaml").read_text()
    assert not (steps / "videos").exists()


def test_multibypass_names_damaged_files_and_never_opens_a_pickle(read, release, multibypass):
    multibypass("BBP01", [(0, 3000, "preparation")])
    damaged = write(multibypass("BBP02", []), '{"phases": [')
    shape = write(multibypass("BBP03", []), '{"phases": [{"start": "0", "end": 1, "label_name": "preparation"}]}')
    unknown = multibypass("BBP04", [(0, 3000, "preperation")])
    write(release / "labels" / "bern" / "labels_by70_splits" / "labels" / "test" / "1fps_0.pickle", "cos\nsystem")
    outcome = read("MultiBypass140")
    assert outcome.labels().keys() == {"BBP01"}
    outcome.require_problems(
        {
            damaged: "not a readable JSON file",
            shape: "phases[0].start: expected a number, found '0'",
            f"{unknown}, phases[0]": "unknown phase 'preperation'; nearest known phase: 'preparation'",
        }
    )


# --- JIGSAWS ------------------------------------------------------------------------------------------------------


def jigsaws_trial(release: Path, film: Callable[..., Path], task: str, trial: str, *lines: str) -> Path:
    film(release / task / "video" / f"{task}_{trial}_capture1.avi", 12, 30)
    film(release / task / "video" / f"{task}_{trial}_capture2.avi", 12, 30)
    table = write(release / task / "transcriptions" / f"{task}_{trial}.txt")
    table.write_bytes("".join(f"{line} \r\n" for line in lines).encode())
    return table


def test_jigsaws_counts_from_one_with_both_ends_inside(read, release, film):
    jigsaws_trial(release, film, "Suturing", "B001", "3 5 G1", "6 10 G11")
    jigsaws_trial(release, film, "Suturing", "C001", "1 12 G2")
    jigsaws_trial(release, film, "Knot_Tying", "B001", "1 12 G15")
    outcome = read("JIGSAWS-Suturing")
    assert runs(outcome.labels()["Suturing_B001"]) == [("unlabelled", 2), ("G1", 3), ("G11", 5), ("unlabelled", 2)]
    assert read_patients(outcome.dataset) == {"Suturing_B001": "B", "Suturing_C001": "C"}
    assert open_splits(outcome.dataset, "user_out").tests == [["Suturing_B001"], ["Suturing_C001"]]
    assert "G7" not in outcome.dataset.mapping.read_text()


def test_jigsaws_names_wrong_lines_and_videos_without_a_transcription(read, release, film):
    tables = {trial: jigsaws_trial(release, film, "Suturing", trial, "1 12 G2") for trial in ("B001", "C001", "D001")}
    write(tables["C001"], "1 5 G7")
    write(tables["D001"], "1 5 G1", "5 G1")
    without = film(release / "Suturing" / "video" / "Suturing_H002_capture1.avi", 12, 30)
    outcome = read("JIGSAWS")
    assert outcome.labels().keys() == {"Suturing_B001"}
    outcome.require_problems(
        {
            without: "no labels of Suturing_H002",
            f"{tables['C001']}, line 1": "unknown phase 'G7'",
            f"{tables['D001']}, line 2": "expected 'first last G<n>', frames from 1, found '5 G1'",
        }
    )
