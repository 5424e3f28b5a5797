"""Releases that have images in place of videos: what is missing, damaged or unknown is named, the other videos go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from common.dataset.description import read_description
from common.dataset.patients import read_patients
from common.dataset.split_lists import open_splits


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_images(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())


# --- PmLR50 -------------------------------------------------------------------------------------------------------


def pmlr50_video(release: Path, video: str, ids: str, suffix: str = ".jpg", digits: int = 8) -> Path:
    """A video of PmLR50 with the phase ids `ids`, one an image."""
    write_images(release / "frames" / video, (f"{image:0{digits}}{suffix}" for image in range(len(ids))))
    rows = (f"{image}\t{phase}" for image, phase in enumerate(ids))
    return write(release / "phase_annotations" / f"{video}.txt", "Frame\tPhase", *rows)


def test_pmlr50_links_whole_folders_and_reads_blanks_for_tabs(read, release):
    pmlr50_video(release, "01", "0012")
    table = pmlr50_video(release, "02", "34", ".png", 5)  # images as the authors' page has them
    table.write_text(table.read_text().replace("\t", "  "))
    write(release / "blocking_annotations" / "01.txt", "Frame\tBlocking", "0\t1")
    outcome = read("PmLR50")
    assert (outcome.code, outcome.problems) == (0, [])
    assert outcome.labels() == {
        "01": ["Preparation_stage"] * 2 + ["Knotting_of_the_Foley_catheter", "Procedure_of_the_liver_resection"],
        "02": ["Release_of_the_Foley_catheter", "Postprocessing_stage"],
    }
    assert (outcome.dataset.videos / "01").is_symlink()
    assert outcome.images("02") == ["00000.png", "00001.png"]
    assert read_description(outcome.dataset).frames_fps == 1


def test_pmlr50_what_is_wrong_in_a_video_is_named_and_the_others_go_on(read, release):
    pmlr50_video(release, "01", "00")
    pmlr50_video(release, "02", "01").unlink()
    unknown = pmlr50_video(release, "03", "07")
    row_lacks = pmlr50_video(release, "04", "0123")
    row_lacks.write_text(row_lacks.read_text().replace("2\t2\n", ""))
    damaged = pmlr50_video(release, "05", "00")
    damaged.write_text(damaged.read_text().replace("1\t0", "1"))
    write(release / "phase_annotations" / "06.txt", "Frame\tPhase", "0\t0")
    outcome = read("PmLR50")
    assert outcome.code == 1
    assert list(outcome.labels()) == ["01"]
    outcome.require_problems(
        {
            release / "frames" / "02": "no labels of 02",
            f"{unknown}, line 3": "unknown phase '7'; expected a number from 0 to 4",
            f"{row_lacks}, line 4": "expected the label of 2, found '3'",
            f"{damaged}, line 3": "expected 2 cells, found 1",
            release / "phase_annotations" / "06.txt": "no video",
        }
    )


def test_an_image_that_is_missing_takes_its_label_with_it(read, release):
    pmlr50_video(release, "01", "0123")
    (release / "frames" / "01" / "00000002.jpg").unlink()
    outcome = read("PmLR50")
    assert outcome.code == 0  # a release may lack single images
    assert "01 without 00000002.jpg; their labels are left out" in outcome.printed
    assert outcome.images("01") == ["00000000.jpg", "00000001.jpg", "00000003.jpg"]
    assert outcome.labels()["01"][-1] == "Release_of_the_Foley_catheter"
    assert len(outcome.labels()["01"]) == 3


def test_a_copy_that_lacks_many_images_is_a_problem(read, release):
    table = pmlr50_video(release, "01", "0123")
    for number in (1, 3):
        (release / "frames" / "01" / f"0000000{number}.jpg").unlink()
    outcome = read("PmLR50")
    assert outcome.code == 1
    outcome.require_problems({table: "01 without 00000001.jpg, 00000003.jpg; their labels are left out"})


def test_an_image_more_or_less_changes_how_a_video_is_linked(read, release):
    """From the folder as a whole to its images and back, and nothing in the release changes."""
    pmlr50_video(release, "01", "012")
    folder = release / "frames" / "01"
    (folder / "00000003.jpg").symlink_to(folder / "00000000.jpg")  # an image without a label, itself a link
    for extra in (True, False, True):
        if not extra:
            (folder / "00000003.jpg").unlink()
        elif not (folder / "00000003.jpg").is_symlink():
            (folder / "00000003.jpg").symlink_to(folder / "00000000.jpg")
        before = sorted(folder.iterdir())
        outcome = read("PmLR50")
        assert (outcome.code, outcome.problems) == (0, [])
        assert outcome.images("01") == ["00000000.jpg", "00000001.jpg", "00000002.jpg"]
        assert (outcome.dataset.videos / "01").is_symlink() is not extra
        assert sorted(folder.iterdir()) == before


# --- EgoSurgery-Phase ---------------------------------------------------------------------------------------------


def test_egosurgery_joins_parts_with_their_images_by_name(read, release):
    write_images(release / "images" / "01", ["01_1_0001.jpg", "01_1_0002.jpg", "01_2_0001.jpg", "01_2_0003.jpg"])
    write_images(release / "images" / "05", ["05_1_0001.jpg"])
    write_images(release / "images" / "06", ["06_1_0001.jpg"])
    folder = release / "annotations" / "phase"
    write(folder / "01_1.csv", "Frame,Phase", "01_1_0001,Design", "01_1_0002,incision")
    write(folder / "01_2.csv", "Frame,Phase", "01_2_0001,Closure", "01_2_0002,Closure", "01_2_0003,DRESSING")
    write(folder / "05_1.csv", "Frame,Phase", "05_1_0001,closure")
    write(folder / "06_1.csv", "Frame,Phase", "06_1_0001,irrigation")
    write_images(release / "images" / "07", ["07_1_0001.jpg"])
    outcome = read("EgoSurgery")
    assert outcome.labels() == {
        "01_1": ["design", "incision"],
        "01_2": ["closure", "dressing"],
        "05_1": ["closure"],
        "06_1": ["irrigation"],
    }
    assert outcome.images("01_2") == ["01_2_0001.jpg", "01_2_0003.jpg"]
    outcome.require_problems(
        {release / "images" / "07": "no labels of 07", folder / "01_2.csv": "01_2 without 01_2_0002.jpg"}
    )
    assert read_patients(outcome.dataset) == {"01_1": "01", "01_2": "01", "05_1": "05", "06_1": "06"}
    splits = open_splits(outcome.dataset, "published")  # a list of operations, each with all of its parts
    assert (splits.trains, dict(splits.vals), splits.tests) == ([["01_1", "01_2"]], {1: ["05_1"]}, [["06_1"]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("01_1_0002", "no value for Phase"),
        ("01_1_0002,lunch", "unknown phase 'lunch'"),
        ("01_1_0001,design", "found 01_1_0001 again"),
        (",design", "found none again"),
    ],
)
def test_egosurgery_names_a_damaged_row_and_imports_the_others(read, release, row, message):
    write_images(release / "images" / "01", ["01_1_0001.jpg", "01_1_0002.jpg", "01_2_0001.jpg"])
    damaged = write(release / "annotations" / "phase" / "01_1.csv", "Frame,Phase", "01_1_0001,design", row)
    write(release / "annotations" / "phase" / "01_2.csv", "Frame,Phase", "01_2_0001,closure")
    outcome = read("EgoSurgery")
    outcome.require_problems({f"{damaged}, line 3": message})
    assert outcome.code == 1
    assert outcome.labels() == {"01_2": ["closure"]}


# --- PSI-AVA ------------------------------------------------------------------------------------------------------


def psi_ava_row(case: str, image: int, step: int, phase: int) -> str:
    return f"{case},{image},{image + 1},0.0,0.0,0.0,0.0,0,-1,-1,0,{step},{phase}"


@pytest.fixture
def psi_ava(release: Path) -> Path:
    """Two cases of PSI-AVA, three images each; the folder with the dense tables."""
    folder = release / "outputs" / "data_annotations" / "psi-ava_extended" / "fold1" / "annotations"
    write(folder / "train.csv", *(psi_ava_row("CASE001", image, 2, 1) for image in range(3)))
    write(folder / "val.csv", *(psi_ava_row("CASE002", image, 8, 6) for image in range(1, 4)))
    write(folder / "train_preds.csv", psi_ava_row("CASE001", 0, 0, 0))
    for case in ("CASE001", "CASE002"):
        write_images(release / "keyframes" / case, (f"{image:05}.jpg" for image in range(4)))
    return folder


def test_psi_ava_takes_the_images_that_have_labels(read, psi_ava):
    outcome = read("PSI-AVA")
    assert outcome.code == 0
    assert outcome.labels() == {"CASE001": ["LPAI"] * 3, "CASE002": ["Vesículas_Seminales"] * 3}
    assert outcome.images("CASE001") == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert outcome.images("CASE002") == ["00001.jpg", "00002.jpg", "00003.jpg"]
    assert open_splits(outcome.dataset, "official").trains == [["CASE001"], ["CASE002"]]


def test_psi_ava_steps_share_what_the_phases_have(read, psi_ava):
    read("PSI-AVA")
    outcome = read("PSI-AVA", "--level", "steps", "--features_of", "made", output="steps")
    assert outcome.code == 0
    assert not outcome.dataset.videos.exists()
    assert outcome.labels()["CASE001"] == ["Diseccion_Ganglios_Iliacos"] * 3
    description = read_description(outcome.dataset)
    assert (description.features_of, description.background) == ("made", "Tiempo_muerto")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("CASE002,2,3,0.0", "expected 13 cells, found 4"),
        (psi_ava_row("CASE002", 2, 8, 11), "unknown phase '11'"),
        (psi_ava_row("CASE002", 1, 8, 5), "image 1 is Id_Cuello_Vesical here, above Vesículas_Seminales"),
        (psi_ava_row("CASE002", 2, 8, 6).replace(",2,", ",two,"), "expected the number of an image, found 'two'"),
    ],
)
def test_psi_ava_names_a_damaged_row_and_imports_the_other_cases(read, psi_ava, row, message):
    write(psi_ava / "val.csv", psi_ava_row("CASE002", 1, 8, 6), row)
    outcome = read("PSI-AVA")
    outcome.require_problems({f"{psi_ava / 'val.csv'}, line 2": message})
    assert outcome.code == 1
    assert list(outcome.labels()) == ["CASE001"]


def test_psi_ava_without_one_table_or_a_row_says_so(read, psi_ava, release):
    (psi_ava / "val.csv").unlink()
    write(psi_ava / "train.csv", psi_ava_row("CASE001", 0, 2, 1), psi_ava_row("CASE001", 2, 2, 1))
    outcome = read("PSI-AVA")
    assert outcome.labels() == {"CASE001": ["LPAI", "unlabelled", "LPAI"]}
    outcome.require_problems(
        {
            release: "psi-ava_extended/fold1/annotations/val.csv, found none",
            release / "keyframes" / "CASE002": "no labels of CASE002",
            psi_ava / "train.csv": "CASE001: no label of 00001",
        }
    )


# --- GraSP --------------------------------------------------------------------------------------------------------


def grasp_json(cases: dict[str, list[int]]) -> dict:
    """Annotations of GraSP with the phase ids of each case."""
    phases = [{"id": 0, "name": "Idle"}, {"id": 1, "name": "Pedicle Control"}]
    numbered = [(case, image, phase) for case, ids in cases.items() for image, phase in enumerate(ids)]
    return {
        "phases_categories": phases,
        "steps_categories": [{"id": 0, "name": "Idle"}],
        "images": [{"id": 7 + k, "file_name": f"{case}/{n:05}.jpg"} for k, (case, n, _) in enumerate(numbered)],
        "annotations": [{"image_id": 7 + k, "phases": p, "steps": 0} for k, (_, _, p) in enumerate(numbered)][::-1],
    }


@pytest.fixture
def grasp(release: Path) -> Callable[..., Path]:
    """`grasp(part, cases)`: write the annotations of a part and its images; the path of the file."""

    def add(part: str, cases: dict[str, list[int]]) -> Path:
        for case, ids in cases.items():
            write_images(release / "GraSP_1fps" / "frames" / case, (f"{n:05}.jpg" for n in range(len(ids))))
        path = release / "GraSP_1fps" / "annotations" / f"grasp_long-term_{part}.json"
        return write(path, json.dumps(grasp_json(cases)))

    return add


def test_grasp_takes_phases_and_lists_from_its_files(read, grasp):
    grasp("train", {"CASE001": [0, 1, 1], "CASE002": [1]})
    grasp("test", {"CASE041": [1, 0]})
    grasp("fold1", {"CASE001": [0, 1, 1]})
    grasp("fold2", {"CASE002": [1]})
    outcome = read("GraSP")
    assert outcome.code == 0
    assert outcome.labels() == {
        "CASE001": ["Idle", "Pedicle_Control", "Pedicle_Control"],
        "CASE002": ["Pedicle_Control"],
        "CASE041": ["Pedicle_Control", "Idle"],
    }
    official, folds = open_splits(outcome.dataset, "official"), open_splits(outcome.dataset, "folds")
    assert (official.trains, official.tests) == ([["CASE001", "CASE002"]], [["CASE041"]])
    assert (folds.trains, folds.tests) == ([["CASE001"], ["CASE002"]], [["CASE002"], ["CASE001"]])
    description = read_description(outcome.dataset)
    assert description.background == "Idle"
    assert description.ids == {"CASE001": "psiava/1", "CASE002": "psiava/2", "CASE041": "grasp/41"}  # train is PSI-AVA


def test_grasp_steps_are_those_of_the_images_that_the_phases_have(read, grasp, release):
    grasp("train", {"CASE001": [0, 1, 1, 0, 0]})
    grasp("test", {"CASE041": [1, 0]})
    frames = release / "GraSP_1fps" / "frames"
    (frames / "CASE001" / "00001.jpg").unlink()
    assert read("GraSP").labels()["CASE001"] == ["Idle", "Pedicle_Control", "Idle", "Idle"]
    steps = ("--level", "steps", "--features_of", "made")
    assert read("GraSP", *steps, output="steps").labels() == {"CASE001": ["Idle"] * 4, "CASE041": ["Idle"] * 2}

    frames.rename(release / "moved")  # the phases' data set has the images: steps need none
    outcome = read("GraSP", *steps, output="others")
    assert outcome.code == 0
    assert list(outcome.labels()) == ["CASE001", "CASE041"]


def test_grasp_an_unknown_id_leaves_out_one_case_a_damaged_file_its_own(read, grasp):
    train, test = grasp("train", {"CASE001": [0, 5], "CASE002": [1]}), grasp("test", {"CASE041": [1, 0]})
    outcome = read("GraSP")
    outcome.require_problems({f"{train}, annotations[1]": "unknown phase '5'"})
    assert list(outcome.labels()) == ["CASE002", "CASE041"]

    test.write_text(test.read_text()[:-40])
    outcome = read("GraSP")
    assert any(problem.startswith(f"{test}: not a readable JSON file") for problem in outcome.problems)
    assert list(outcome.labels()) == ["CASE002"]


def test_grasp_files_of_two_versions_are_refused_by_name(read, grasp):
    grasp("train", {"CASE001": [0, 1]})
    test = grasp("test", {"CASE041": [1]})
    test.write_text(test.read_text().replace("Pedicle Control", "Pedicles"))
    outcome = read("GraSP")
    assert any(problem.startswith(f"{test}: names phases Idle, Pedicles") for problem in outcome.problems)
    assert list(outcome.labels()) == ["CASE001"]


# --- CholecT50 ----------------------------------------------------------------------------------------------------


def cholect50_video(release: Path, video: str, phases: list[list[int]]) -> Path:
    """A video of CholecT50: for each image the phases of its instances."""
    annotations = {str(image): [[-1] * 14 + [phase] for phase in ids] for image, ids in enumerate(phases)}
    write_images(release / "videos" / video, (f"{image:06}.png" for image in range(len(phases))))
    return write(release / "labels" / f"{video}.json", json.dumps({"video": 1, "annotations": annotations}))


def test_cholect50_sorts_images_as_numbers_and_leaves_those_without_an_instance_unlabelled(read, release):
    cholect50_video(release, "VID01", [[0]] * 9 + [[], [1, 1], [-1]])
    outcome = read("CholecT50")
    assert outcome.code == 0
    assert (outcome.dataset.videos / "VID01").is_symlink()
    expected = ["preparation"] * 9 + ["unlabelled", "carlot-triangle-dissection", "unlabelled"]
    assert outcome.labels() == {"VID01": expected}
    assert read_description(outcome.dataset).ignored == ("unlabelled",)


def test_cholect50_knows_its_videos_of_cholec80(read, release):
    for video in ("VID80", "VID92"):
        cholect50_video(release, video, [[0]])
    assert read_description(read("CholecT50").dataset).ids == {"VID80": "cholec80/80", "VID92": "cholect50/92"}


def test_cholect50_names_what_is_wrong_and_imports_the_others(read, release):
    cholect50_video(release, "VID01", [[0]])
    two_phases = cholect50_video(release, "VID02", [[0], [0, 1]])
    unknown = cholect50_video(release, "VID04", [[7]])
    short = cholect50_video(release, "VID05", [[0]])
    short.write_text(json.dumps({"annotations": {"0": [[0, 0]]}}))
    other = cholect50_video(release, "VID06", [[0]])
    other.write_text("[]")
    outcome = read("CholecT50")
    assert outcome.code == 1
    assert list(outcome.labels()) == ["VID01"]
    outcome.require_problems(
        {
            f"{two_phases}, annotations.1": "expected one phase an image, found 0, 1",
            f"{unknown}, annotations.0": "unknown phase '7'; expected a number from 0 to 6",
            f"{short}, annotations.0": "expected 15 values of each instance, the phase last",
            other: "not labels of CholecT50 (expected an object, found []); take the file of the release again",
        }
    )
