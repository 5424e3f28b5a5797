"""Releases of masks: palettes, polygons, joined classes, lists by group; what is unknown or missing is named, the rest goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.dataset.description import read_description
from common.dataset.masks import masked_images, read_mask
from common.dataset.phases import read_mapping
from common.dataset.split_lists import open_splits
from common.scoring.masks import OWN_RULES, MaskScores, confusion

UNLABELLED = 255


def save(path: Path, values, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def picture(path: Path, height: int = 2, width: int = 3) -> Path:
    return save(path, np.zeros((height, width, 3)))


def ids_of(outcome) -> dict[str, list[list[int]]]:
    """The written masks by `<group>/<image>`."""
    classes = read_mapping(outcome.dataset.mapping).names
    images = masked_images(outcome.dataset)
    return {one.key: read_mask(one.mask, classes).tolist() for of_group in images.values() for one in of_group}


# --- the miniatures -----------------------------------------------------------------------------------------------


@pytest.fixture
def miniature(reference_data, release) -> Callable[[str], dict]:
    """`miniature(name)`: copies a miniature to the release's folder and gives what it must become."""

    def copy(name: str) -> dict:
        folder = reference_data / "cases" / "tasks" / name
        shutil.copytree(folder, release, dirs_exist_ok=True)
        return json.loads((folder / "expected.json").read_text())

    return copy


def pixels(mask: list[list[int]]) -> dict[str, int]:
    values, counts = np.unique(mask, return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}


@pytest.mark.parametrize("task", ["1", "2", "3"])
def test_cadis_becomes_what_is_expected(task, read, miniature, reference_data):
    expected = miniature("CaDIS")
    outcome = read("CaDIS", "--task", task)
    assert (outcome.code, outcome.problems) == (0, [])
    masks = ids_of(outcome)
    assert {f"{key.partition('/')[2]}.png" for key in masks} == expected["frames"].keys()
    for key, mask in masks.items():
        group, _, name = key.partition("/")
        wanted = expected["frames"][f"{name}.png"]
        assert (group, pixels(mask)) == (wanted["video"], wanted[f"pixels_task{task}"])
    lists = open_splits(outcome.dataset, "official")
    assert {part: lists.videos(part, 1) for part in ("train", "val", "test")} == expected["splits"]
    description = read_description(outcome.dataset)
    assert (description.task, description.own_rule, description.background) == ("segmentation", "cadis", None)
    # measured as its own users do, and with undefined classes left out
    classes = read_mapping(outcome.dataset.mapping).names
    folder = reference_data / "cases" / "tasks" / "CaDIS" / "predictions" / f"task{task}"
    tested = masked_images(outcome.dataset)["Video02"]
    matrices = [
        confusion(np.array(masks[one.key], np.uint8), read_mask(folder / f"{one.name}.png", classes), len(classes))
        for one in tested
    ]
    scores = MaskScores(classes, [one.key for one in tested], ["Video02"] * len(tested), np.stack(matrices))
    wanted = expected["test_scores"][f"task{task}"]
    assert OWN_RULES["cadis"].measure(scores) == pytest.approx(wanted["authors_miou"], abs=1e-6)
    by_class = [np.nan if value is None else value for value in wanted["iou_undefined_is_null"]]
    np.testing.assert_allclose(scores.by_class("iou_pooled"), by_class, atol=1e-9)
    mean, count = scores.mean("iou_pooled")
    assert (mean, count) == (pytest.approx(wanted["miou_over_defined"], abs=1e-9), wanted["classes_defined"])


def test_cataract_1k_becomes_what_is_expected(read, miniature):
    expected = miniature("Cataract1K-seg")
    outcome = read("Cataract-1K-seg")
    assert (outcome.code, outcome.problems) == (0, [])
    found = {f"{key}.png": {"pixels": pixels(mask)} for key, mask in ids_of(outcome).items()}
    assert found == expected["frames"]
    assert list(read_mapping(outcome.dataset.mapping).names) == expected["classes"]
    lists = open_splits(outcome.dataset, "official")  # its fold 1 is not there, and splits have no gaps
    assert lists.tests == [fold["test"] for fold in expected["folds"].values()]
    assert "1 x polygon called cornea1: painted nowhere" in outcome.printed


def test_cholecseg8k_becomes_what_is_expected(read, miniature):
    expected = miniature("CholecSeg8k")
    outcome = read("CholecSeg8k")
    assert (outcome.code, outcome.problems) == (0, [])
    masks = ids_of(outcome)
    for place, frame in expected["frames"].items():
        clip, name = place.split("/")[1:]
        key = f"{frame['video']}/{clip}_frame_{int(name.split('_')[1]):06d}"
        assert pixels(masks.pop(key)) == frame["pixels"]
    assert masks == {}
    order = [one.name for one in masked_images(outcome.dataset)["video01"]]
    assert order[:3] == [f"video01_00080_frame_{number:06d}" for number in (80, 99, 159)]
    assert open_splits(outcome.dataset, "endovit").tests == [["video12"]]
    assert read_description(outcome.dataset).background == "Black_Background"


# --- CaDIS --------------------------------------------------------------------------------------------------------


def cadis_frame(release: Path, video: int, values, name: str = "frame000010") -> Path:
    folder = release / "CADIS" / "segmentation" / f"Video{video:02d}"
    ids = np.asarray(values)
    picture(folder / "Images" / f"Video{video}_{name}.png", *ids.shape)
    return save(folder / "Labels" / f"Video{video}_{name}.png", ids)


def test_cadis_joins_and_ignores_by_task(read, release):
    cadis_frame(release, 1, [[0, 6, 7, 8, 25, 35]])
    cadis_frame(release, 2, [[0, 6, 7, 8, 25, 35]])
    assert ids_of(read("CaDIS", "--task", "1", output="one"))["Video01/Video1_frame000010"] == [[0, 6, 7, 7, 7, 7]]
    both_ignored = [UNLABELLED, UNLABELLED]
    assert ids_of(read("CaDIS", "--task", "2", output="two"))["Video01/Video1_frame000010"] == [[0, 6, 7, 7, *both_ignored]]  # fmt: skip
    assert ids_of(read("CaDIS", "--task", "3", output="three"))["Video01/Video1_frame000010"] == [[0, 6, 7, 8, *both_ignored]]  # fmt: skip


def test_cadis_asks_which_task(command, release, workspace):
    cadis_frame(release, 1, [[0, 1]])
    for words, message in (([], "--task: expected one of 1, 2, 3"), (["--task", "4"], "CaDIS has 1, 2, 3")):
        with pytest.raises(Exception, match=message):
            command.main(["CaDIS", str(release), "--output", "made", *words])


def test_cadis_frames_with_something_wrong_are_named_and_the_others_go_on(read, release):
    cadis_frame(release, 1, [[0, 1, 2]])
    unknown = cadis_frame(release, 2, [[0, 36, 36]])
    smaller = cadis_frame(release, 3, [[0, 1, 2]])
    picture(smaller.parents[1] / "Images" / smaller.name, 1, 2)
    no_image = cadis_frame(release, 4, [[0, 1, 2]])
    (no_image.parents[1] / "Images" / no_image.name).unlink()
    coloured = cadis_frame(release, 5, [[0, 1, 2]])
    save(coloured, [[[0, 0, 0], [9, 0, 0], [0, 0, 0]]])
    cut = cadis_frame(release, 6, [[0, 1, 2]])
    cut.write_bytes(cut.read_bytes()[:40])
    outcome = read("CaDIS", "--task", "1")
    assert outcome.code == 1
    outcome.require_problems(
        {
            unknown: "unknown value 36 in 2 pixels, the first at row 0, column 1",
            smaller: "expected a mask of the size of",
            no_image.parents[1] / "Images" / no_image.name: "no such file",
            coloured: "found the colour (9, 0, 0) at row 0, column 1",
            cut: "damaged or missing image",
        }
    )
    assert list(ids_of(outcome)) == ["Video01/Video1_frame000010"]


def test_an_image_without_a_label_is_named(read, release):
    label = cadis_frame(release, 1, [[0, 1, 2]])
    picture(label.parents[1] / "Images" / "Video1_frame000020.png")
    outcome = read("CaDIS", "--task", "1")
    outcome.require_problems({label.parent: "no label of Video1_frame000020.png"})


def test_a_second_import_changes_nothing_and_takes_away_what_the_release_has_no_more(read, release):
    cadis_frame(release, 1, [[0, 1, 2]])
    gone = cadis_frame(release, 2, [[0, 1, 2]])
    first = read("CaDIS", "--task", "1")
    masks = sorted(first.dataset.masks.rglob("*.png"))
    times = [path.stat().st_mtime_ns for path in masks]
    read("CaDIS", "--task", "1")
    assert [path.stat().st_mtime_ns for path in masks] == times
    gone.unlink()
    (gone.parents[1] / "Images" / gone.name).unlink()
    again = read("CaDIS", "--task", "1")
    assert list(ids_of(again)) == ["Video01/Video1_frame000010"]


# --- CholecSeg8k --------------------------------------------------------------------------------------------------


def cholec_frame(release: Path, video: str = "video01", number: int = 80, values=((50, 11, 0, 255),), **kinds) -> Path:
    stem = release / video / f"{video}_00080" / f"frame_{number}_endo"
    image = picture(stem.with_suffix(".png"), *np.shape(values)[:2])
    if kinds.get("watershed", True):
        save(stem.with_name(f"{stem.name}_watershed_mask.png"), np.repeat(np.array(values)[..., None], 3, 2), kinds.get("mode"))  # fmt: skip
    return image


def test_cholecseg8k_edges_and_nothing_are_unlabelled(read, release):
    cholec_frame(release)
    cholec_frame(release, number=81, mode="RGBA")  # four files of the release have an alpha channel
    outcome = read("CholecSeg8k")
    assert ids_of(outcome) == {
        f"video01/video01_00080_frame_{number:06d}": [[0, 1, UNLABELLED, UNLABELLED]] for number in (80, 81)
    }


def test_cholecseg8k_reads_colours_where_the_watershed_mask_is_missing(read, release):
    image = cholec_frame(release, watershed=False)
    colours = [[(127, 127, 127), (210, 140, 140), (255, 255, 255), (111, 74, 0)]]
    save(image.with_name("frame_80_endo_color_mask.png"), colours)
    assert list(ids_of(read("CholecSeg8k")).values()) == [[[0, 1, UNLABELLED, 12]]]
    colours[0][1] = (210, 140, 141)
    save(image.with_name("frame_80_endo_color_mask.png"), colours)
    cholec_frame(release, number=81)
    outcome = read("CholecSeg8k")
    outcome.require_problems(
        {image.with_name("frame_80_endo_color_mask.png"): "unknown colour (210, 140, 141) at row 0"}
    )


def test_cholecseg8k_a_frame_without_any_mask_and_a_mask_without_a_frame_are_named(read, release):
    cholec_frame(release)
    bare = cholec_frame(release, number=81, watershed=False)
    cholec_frame(release, number=82).unlink()
    outcome = read("CholecSeg8k")
    outcome.require_problems(
        {
            bare.with_name("frame_81_endo_watershed_mask.png"): "no mask of frame_81_endo.png",
            release: "no image of frame_82_endo_watershed_mask.png",
        }
    )
    assert list(ids_of(outcome)) == ["video01/video01_00080_frame_000080"]


# --- Cataract-1K --------------------------------------------------------------------------------------------------


def square(title: str, left: int, top: int, right: int, bottom: int) -> dict:
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {"classTitle": title, "geometryType": "polygon", "points": {"exterior": corners, "interior": []}}


def cataract_frame(release: Path, case: int, objects: list[dict], name: str | None = None, size=(6, 8)) -> Path:
    folder = release / "Annotations" / "Images-and-Supervisely-Annotations" / f"case_{case}"
    image = picture(folder / "img" / f"{name or f'case{case}_01'}.png", *size)
    file = folder / "ann" / f"{image.name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"size": {"height": size[0], "width": size[1]}, "objects": objects}))
    return file


def test_cataract_1k_paints_cornea_pupil_lens_instruments_whatever_their_order(read, release):
    """Each covers those before it, however they stand in the file; a hole is painted too."""
    lens = square("Lens", 2, 2, 3, 3)
    lens["points"]["interior"] = [[[2, 2], [3, 2], [3, 3]]]
    objects = [lens, square("Gauge", 3, 0, 3, 5), square("Pupil", 1, 1, 5, 4), square("Cornea", 0, 0, 6, 5)]
    cataract_frame(release, 5013, objects)
    (mask,) = ids_of(read("Cataract-1K-seg")).values()
    assert mask == [
        [1, 1, 1, 4, 1, 1, 1, 0],
        [1, 2, 2, 4, 2, 2, 1, 0],
        [1, 2, 3, 4, 2, 2, 1, 0],
        [1, 2, 3, 4, 2, 2, 1, 0],
        [1, 2, 2, 4, 2, 2, 1, 0],
        [1, 1, 1, 4, 1, 1, 1, 0],
    ]


def test_cataract_1k_what_is_wrong_in_an_annotation_is_named_and_the_others_go_on(read, release):
    good = square("Cornea", 0, 0, 3, 3)
    cataract_frame(release, 5013, [good])
    title = cataract_frame(release, 5014, [good, square("Corneaa", 0, 0, 1, 1)])
    bitmap = cataract_frame(release, 5015, [good | {"geometryType": "bitmap"}])
    points = cataract_frame(release, 5016, [good])
    points.write_text(points.read_text().replace("[0, 0]", "[0]"))
    size = cataract_frame(release, 5017, [good])
    size.write_text(size.read_text().replace('"height": 6', '"height": 5'))
    damaged = cataract_frame(release, 5032, [good])
    damaged.write_text(damaged.read_text()[:-9])
    no_image = cataract_frame(release, 5051, [good])
    (no_image.parents[1] / "img" / no_image.stem).unlink()
    outcome = read("Cataract-1K-seg")
    assert outcome.code == 1
    outcome.require_problems(
        {
            f"{title}, object 1": "unknown title 'Corneaa'; nearest known title: 'Cornea'",
            f"{bitmap}, object 0": "expected a polygon, found 'bitmap'",
            f"{points}, object 0": "expected points of x and y",
            size: "expected a mask of the size of",
            damaged: "not a readable JSON file",
            no_image.parents[1] / "img" / no_image.stem: "no image of",
        }
    )
    assert list(ids_of(outcome)) == ["case_5013/case5013_01"]


def test_cataract_1k_takes_folds_from_the_release_else_from_its_owners(read, release):
    for case in (5013, 5063, 5315):
        cataract_frame(release, case, [square("Cornea", 0, 0, 3, 3)], name=f"case_{case}3_01" if case == 5315 else None)
    bundles = {
        path.name: path.read_text().split() for path in (read("Cataract-1K-seg").dataset.splits / "official").iterdir()
    }
    assert bundles["test.split2.bundle"] == ["case_5063.txt"]
    assert bundles["train.split2.bundle"] == ["case_5013.txt", "case_5315.txt"]
    folder = release / "TrainIDs_SemanticSegmentation_FiveFold" / "TrainIDs_Cataract_1k_Anatomy_Instruments"
    folder.mkdir(parents=True)
    for part, cases in (("train", ["5013/img/case5013_01", "5063/img/x"]), ("test", ["5315/img/case_53153_01"])):
        rows = [f"{row},/cluster/any/case_{case}.png,/cluster/masks/{case}.png" for row, case in enumerate(cases)]
        (folder / f"Cat1k_anatomy_instrument_0_{part}.csv").write_text("\n".join([",imgs,masks", *rows, ""]))
    lists = open_splits(read("Cataract-1K-seg").dataset, "official")
    assert (lists.trains, lists.tests) == ([["case_5013", "case_5063"]], [["case_5315"]])


def test_cataract_1k_a_list_that_names_no_case_is_named_with_its_line(read, release):
    cataract_frame(release, 5013, [square("Cornea", 0, 0, 3, 3)])
    folder = release / "TrainIDs"
    folder.mkdir()
    (folder / "Cat1k_anatomy_instrument_0_train.csv").write_text(",imgs,masks\n0,case_5013/img/a.png,b\n1,nothing,b\n")
    outcome = read("Cataract-1K-seg")
    outcome.require_problems({f"{folder / 'Cat1k_anatomy_instrument_0_train.csv'}, line 3": "of a case_<number>"})


def test_names_of_classes_keep_their_spelling_in_the_description(read, release):
    cadis_frame(release, 1, [[0, 1, 2]])
    names = read_description(read("CaDIS", "--task", "1").dataset).release_names
    assert names["Surgical_Tape"] == "Surgical Tape"
