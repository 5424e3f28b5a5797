"""The lists of videos beside the readers, and the files that hold them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from common.base.runtime import UserError
from common.dataset.importing.catalogue import known_releases, release_called
from common.dataset.importing.lists import SplitList, cut_list, read_lists


@pytest.fixture
def lists(tmp_path):
    def read(text: str):
        path = tmp_path / "lists.yaml"
        path.write_text(text)
        return read_lists(path)

    return read


HEAD = "official: null\nvideo: v{:02}\nall: 1-6\nlists:\n"
ENTRY = "  {name}:\n    standing: ours\n    source: here\n    {splits}\n"


def test_ranges_the_rest_and_joined_lists(lists):
    read = lists(
        HEAD
        + ENTRY.format(name="one", splits="splits: [{train: rest, val: 2, test: '4-5, 1'}]")
        + ENTRY.format(name="other", splits="splits: [{train: 6, test: 2}]")
        + ENTRY.format(name="both", splits="of: {train: [one, other], test: [other]}")
    )
    assert read.lists["one"].splits == [{"train": ["v03", "v06"], "val": ["v02"], "test": ["v04", "v05", "v01"]}]
    assert read.lists["both"].splits == [{"train": ["v03", "v06", "v06"], "test": ["v02"]}]
    assert read.official is None


def test_a_split_without_train_or_test_is_left_out_and_the_others_move_up():
    splits = [{"train": ["a"], "test": ["b"]}, {"train": ["a"], "test": ["x"]}, {"train": ["b"], "test": ["a", "y"]}]
    reading = SimpleNamespace(notes=[], splits={})
    cut = cut_list(SplitList("L", "official", "there", splits), reading, lambda name: [name] if name in "ab" else [])
    assert [(split["train"], split["test"]) for split in cut.splits] == [(["a"], ["b"]), (["b"], ["a"])]
    assert cut.source == "there (split 1, 3 of 3)"
    assert reading.notes == [
        "list L: 2 of 4 are not here; 1 of 3 splits left out; numbered from 1 here: split 1, 3 of 3"
    ]


def test_who_is_in_two_parts_is_a_problem():
    one = SplitList("L", "official", "there", [{"train": ["a", "b"], "val": ["c"], "test": ["b"]}])
    reading = SimpleNamespace(notes=[], problems=[], splits={})
    assert cut_list(one, reading, lambda name: [name]) is None
    assert reading.problems == ["list L, split 1: b: expected in one part, found in two; left out"]


def test_a_list_of_nothing_that_is_there_is_none_and_a_whole_one_stays_as_it_is():
    one = SplitList("L", "official", "there", [{"train": ["a"], "val": ["b"], "test": ["b"]}])
    assert cut_list(one, SimpleNamespace(notes=[], splits={}), lambda name: []) is None
    reading = SimpleNamespace(notes=[], splits={})
    cut = cut_list(one, reading, lambda name: [name])
    assert (cut.splits, cut.source, reading.notes) == ([{"train": ["a"], "val": [], "test": ["b"]}], "there", [])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("splits: [{train: 1-3, test: 3}]", "one: expected each video in one part of a split, found v03 twice"),
        ("splits: [{train: 1-3}]", "one: expected train and test, and val or not, found train"),
        ("of: {train: [two], test: [two]}", "of: expected lists with splits above this one, found two"),
    ],
)
def test_wrong_lists_are_named(lists, entry, message):
    with pytest.raises(UserError, match=rf"lists.yaml, {message}|lists.yaml, one: {message}"):
        lists(HEAD + ENTRY.format(name="one", splits=entry))


def test_every_list_has_standing_and_source_and_no_val_that_is_its_test():
    for release, lists in known_releases().values():
        assert release.ask
        assert release.licence
        for one in lists.lists.values():
            assert one.source
            assert (one.standing == "official") or one.name != lists.official
            for split in one.splits or []:
                assert set(split.get("val", [])).isdisjoint(split["test"])
                assert set(split["train"]).isdisjoint(split["test"])


def test_sizes_of_published_lists():
    """As their sources state them."""

    def sizes(release: str, name: str) -> list[list[int]]:
        splits = release_called(release)[1].lists[name].splits
        return [[len(split.get(part, [])) for part in ("train", "val", "test")] for split in splits]

    assert sizes("Cataract-101", "SurgRec") == [[71, 20, 10]]
    assert sizes("Cataracts-1K", "SurgRec") == [[39, 11, 6]]
    assert [test for _, _, test in sizes("Cataracts-1K", "PhacoSight")] == [12, 14, 15, 15]
    assert sizes("MultiBypass140", "bern") == sizes("MultiBypass140", "strasbourg") == [[40, 10, 20]] * 5
    assert sizes("MultiBypass140", "multi") == [[80, 20, 40]] * 5
    assert sizes("PmLR50", "official") == [[35, 5, 10]]
    assert sizes("Cholec80", "few_4") == [[4, 8, 32]] * 3


def test_tests_of_multibypass_overlap():
    """No k-fold: 100 test places of 60 videos in each centre, whose other ten are in no test list."""
    for centre in ("bern", "strasbourg"):
        splits = release_called("MultiBypass140")[1].lists[centre].splits
        tested = [video for split in splits for video in split["test"]]
        assert (len(tested), len(set(tested))) == (100, 60)


def test_names_meet_whatever_their_case_and_punctuation():
    for name in ("cholec80", "Cholec-80", "CHOLEC 80"):
        assert release_called(name)[0].title == "Cholec80"
    with pytest.raises(UserError, match="no reader of a release called 'Colec80'; did you mean Cholec80"):
        release_called("Colec80")
