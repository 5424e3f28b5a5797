"""Named lists of splits: read, verified, the official one by its alias, beside the generated folds."""

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.kfold import make_folds, write_folds
from common.dataset.patients import shared_patients
from common.dataset.split_lists import list_names, open_splits

VIDEOS = [f"{letter}_{number}" for letter in "AB" for number in range(1, 6)]


@pytest.fixture
def dataset(workspace):
    made = paths.Dataset(workspace / "data" / "made")
    made.ground_truth.mkdir(parents=True)
    made.mapping.write_text("0 a\n")
    for video in VIDEOS:
        (made.ground_truth / f"{video}.txt").write_text("a\n")
    return made


def write_list(dataset: paths.Dataset, name: str, **bundles: list[str]) -> None:
    """`train1=[...]` becomes splits/<name>/train.split1.bundle."""
    folder = dataset.split_list(name)
    folder.mkdir(parents=True, exist_ok=True)
    for key, videos in bundles.items():
        text = "#bundle\r\n" + "".join(f"videos/{video}.mp4\r\n" for video in videos)
        (folder / f"{key[:-1]}.split{key[-1]}.bundle").write_text(text)


def describe(dataset: paths.Dataset, text: str) -> None:
    dataset.split_lists.write_text(text)


def test_published_lists_may_test_a_video_twice_and_leave_others_out(dataset):
    write_list(
        dataset, "owners", train1=["A_1", "A_2"], val1=["A_3"], test1=["B_1", "B_2"], train2=["A_1"], test2=["B_2"]
    )
    lists = open_splits(dataset, "owners")
    assert (len(lists), lists.name, lists.noun) == (2, "owners", "splits")
    assert lists.videos("test", 2) == ["B_2"]
    assert lists.videos("val", 1) == ["A_3"]
    assert lists.count(None) == 2
    assert lists.tests_overlap
    with pytest.raises(UserError, match=r"val\.split2\.bundle: no such list; split 2 has no videos for validation"):
        lists.videos("val", 2)
    with pytest.raises(UserError, match=r"split 3: .*owners has splits 1 to 2"):
        lists.videos("train", 3)


def test_without_a_name_they_are_the_generated_folds(dataset):
    write_folds(dataset, make_folds(VIDEOS, 2), seed=42, stratify="prefix", patients={})
    write_list(dataset, "owners", train1=["A_1"], test1=["B_1"])
    lists = open_splits(dataset)
    assert (lists.name, lists.noun, len(lists), lists.count(None)) == (None, "folds", 2, 5)
    assert not lists.tests_overlap
    assert sorted(lists.tests[0] + lists.trains[0]) == VIDEOS
    assert list_names(dataset) == ["owners"]


def test_making_folds_leaves_named_lists_alone(dataset):
    write_list(dataset, "owners", train1=["A_1"], test1=["B_1"])
    before = open_splits(dataset, "owners").hash
    for num_folds in (2, 3):
        write_folds(dataset, make_folds(VIDEOS, num_folds), seed=42, stratify="prefix", patients={}, force=True)
    assert open_splits(dataset, "owners").hash == before


def test_the_identity_is_of_what_is_learned_from_and_scored_on(dataset):
    write_list(dataset, "owners", train1=["A_1", "A_2"], test1=["B_1"])
    first = open_splits(dataset, "owners").hash
    write_list(dataset, "owners", train1=["A_2", "A_1"], val1=["A_5"])
    assert open_splits(dataset, "owners").hash == first
    write_list(dataset, "owners", train1=["A_1"])
    assert open_splits(dataset, "owners").hash != first


def test_official_is_what_the_release_calls_so(dataset):
    for name in ("A", "B"):
        write_list(dataset, name, train1=["A_1"], test1=["B_1"])
    with pytest.raises(UserError, match=r"no official list of splits; there are: A, B; choose one with --splits NAME"):
        open_splits(dataset, "official")
    describe(
        dataset, "official: null\nlists:\n  A: {standing: convention, source: a paper}\n  B: {standing: one paper's}\n"
    )
    with pytest.raises(UserError, match=r"there are: A \(convention\), B \(one paper's\)"):
        open_splits(dataset, "official")
    describe(dataset, "official: B\nlists:\n  B: {standing: official, source: the owners}\n")
    assert open_splits(dataset, "official").name == "B"


@pytest.mark.parametrize(
    ("bundles", "expected"),
    [
        ({"train1": ["A_1"]}, r"owners: expected a train and a test list for split 1, 2 and so on, found none"),
        ({"train1": ["A_1"], "test1": ["B_1"], "test2": ["B_2"]}, r"found train\.split1"),
        ({"train2": ["A_1"], "test2": ["B_1"]}, r"found test\.split2"),
        ({"train1": ["A_1"], "test1": ["B_1"], "val2": ["B_2"]}, r"val\.split2\.bundle: there is no test list of this split"),
        ({"train1": ["A_1", "B_1"], "test1": ["B_1"]}, r"test\.split1\.bundle: 'B_1' is in the train list of this split too"),
        ({"train1": ["A_1"], "val1": ["B_1"], "test1": ["B_1"]}, r"'B_1' is in the val list of this split too"),
        ({"train1": ["A_1"], "test1": ["C_1"]}, r"test\.split1\.bundle: 'C_1' has no labels in .*groundTruth"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(dataset, bundles, expected):
    write_list(dataset, "owners", **bundles)
    with pytest.raises(UserError, match=expected):
        open_splits(dataset, "owners")


@pytest.mark.parametrize("name", ["../else", "a/b", ".", ""])
def test_a_name_that_leads_elsewhere_is_no_list(dataset, name):
    with pytest.raises(UserError):
        open_splits(dataset, name)


def test_a_damaged_record_of_lists_is_named(dataset):
    write_list(dataset, "owners", train1=["A_1"], test1=["B_1"])
    describe(dataset, "lists: [owners]\n")
    with pytest.raises(UserError, match=r"lists\.yaml: not a record of lists"):
        open_splits(dataset, "official")
    describe(dataset, "offical: owners\nlists: {owners: {standing: ours, form: a table}}\n")
    with pytest.raises(UserError, match=r"lists\.yaml: .*unknown lists\.owners\.form, offical"):
        open_splits(dataset, "owners")


def test_patients_on_both_sides_of_a_published_split_are_named(dataset):
    dataset.patients.write_text("video,patient\nA_1,p\nB_1,p\nA_2,q\nB_2,r\n")
    write_list(dataset, "owners", train1=["A_1", "A_2"], test1=["B_1"], train2=["A_2"], test2=["B_2"])
    lists = open_splits(dataset, "owners")
    assert shared_patients(dataset, lists, 1) == "1 patient (p)"
    assert shared_patients(dataset, lists, 2) == ""
