"""Folds: made, written, read, verified; subsets of a training list: nested, stratified, the same whoever asks."""

import random
import re
import unicodedata
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from common.base import paths
from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.kfold import (
    folds_hash,
    make_folds,
    nested_subset,
    prefix_stratum,
    read_bundle,
    read_folds,
    stratified_order,
    verify_folds,
    write_folds,
)
from common.dataset.patients import read_patients

VIDEOS = [f"BL_{n:04d}" for n in range(60)] + [f"BN_{n:04d}" for n in range(33)] + [f"SD_{n:04d}" for n in range(7)]


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Eight labelled videos in two prefixes, with three folds on disk."""
    dataset = Dataset(tmp_path / "data" / "Mini")
    dataset.ground_truth.mkdir(parents=True)
    for video in ("BL_1", "BL_2", "BL_3", "BL_4", "BL_5", "SD_1", "SD_2", "SD_3"):
        (dataset.ground_truth / f"{video}.txt").write_text(f"labels of {video}\n")
    write(dataset, 3)
    return dataset


def write(
    dataset: Dataset, num_folds: int, patients: dict[str, str] | None = None, *, force: bool = False
) -> list[list[str]]:
    videos = list(paths.label_paths(dataset.ground_truth))
    folds = make_folds(videos, num_folds, patients=patients)
    write_folds(dataset, folds, seed=42, stratify="prefix", patients=patients or {}, force=force)
    return folds


@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
def test_folds_cover_every_video_exactly_once(num_folds):
    folds = make_folds(VIDEOS, num_folds)
    assert len(folds) == num_folds
    assert Counter(video for fold in folds for video in fold) == Counter(VIDEOS)


@pytest.mark.parametrize("num_folds", [2, 3, 4, 5, 7, 10])
@pytest.mark.parametrize("seed", range(5))
def test_folds_differ_by_at_most_one_video_in_each_prefix_and_in_total(num_folds, seed):
    folds = make_folds(VIDEOS, num_folds, seed=seed)
    per_prefix = [Counter(prefix_stratum(video) for video in fold) for fold in folds]
    for prefix in ("BL", "BN", "SD"):
        sizes = [counter[prefix] for counter in per_prefix]
        assert max(sizes) - min(sizes) <= 1
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_do_not_depend_on_the_order_of_the_names():
    shuffled = random.Random(3).sample(VIDEOS, len(VIDEOS))
    assert make_folds(shuffled, 5) == make_folds(VIDEOS, 5)


def test_folds_of_the_default_seed_never_change():
    """Carried in the suite: a fold that moves would make published numbers incomparable."""
    assert folds_hash(make_folds(VIDEOS, 5))[:16] == "ddb01e2ea1d37fd2"


def test_seed_changes_the_folds():
    assert make_folds(VIDEOS, 5, seed=1) != make_folds(VIDEOS, 5, seed=2)


def test_without_stratification_only_the_total_is_balanced():
    folds = make_folds(VIDEOS, 7, stratify="none")
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert folds != make_folds(VIDEOS, 7, stratify="prefix")


def test_names_without_a_prefix_are_one_stratum():
    folds = make_folds([f"video{n}" for n in range(11)], 3)
    assert sorted(map(len, folds)) == [3, 4, 4]


def test_a_patients_videos_stay_together():
    patients = {video: f"patient{index // 3}" for index, video in enumerate(VIDEOS)}
    folds = make_folds(VIDEOS, 5, patients=patients)
    homes = {}
    for number, fold in enumerate(folds):
        for video in fold:
            homes.setdefault(patients[video], set()).add(number)
    assert all(len(home) == 1 for home in homes.values())
    assert Counter(video for fold in folds for video in fold) == Counter(VIDEOS)


def test_folds_with_patients_do_not_depend_on_the_order_of_the_names():
    """Patients whose videos have two prefixes included."""
    names = [f"{prefix}_{n}" for n in range(12) for prefix in ("BL", "SD")]
    patients = {name: name.partition("_")[2] for name in names}
    expected = make_folds(names, 5, patients=patients)
    assert all(make_folds(random.Random(n).sample(names, 24), 5, patients=patients) == expected for n in range(10))


def test_videos_without_a_patient_are_dealt_on_their_own():
    folds = make_folds(["a_1", "a_2", "a_3", "a_4"], 2, patients={"a_1": "p", "a_2": "p"})
    assert sorted(folds) == [["a_1", "a_2"], ["a_3", "a_4"]]


def test_single_videos_even_out_the_strata_that_patients_of_several_have_left_uneven():
    """One patient has 3 videos of BL, one has 2 of SD: the 3 further videos of BL go beside the latter, those of SD not."""
    patients = {"BL_1": "p", "BL_2": "p", "BL_3": "p", "SD_1": "q", "SD_2": "q"}
    folds = make_folds([f"BL_{n}" for n in range(1, 7)] + [f"SD_{n}" for n in range(1, 5)], 2, patients=patients)
    assert folds == [["BL_1", "BL_2", "BL_3", "SD_3", "SD_4"], ["BL_4", "BL_5", "BL_6", "SD_1", "SD_2"]]


@pytest.mark.parametrize("num_folds", [0, 1, 4])
def test_impossible_number_of_folds_is_refused(num_folds):
    with pytest.raises(UserError, match="folds need at least 2 folds and as many patients; found 3"):
        make_folds(["a_1", "a_2", "a_3"], num_folds)


def test_fewer_patients_than_folds_are_refused():
    with pytest.raises(UserError, match="found 2 in 4 videos"):
        make_folds(["a", "b", "c", "d"], 3, patients={"a": "p", "b": "p", "c": "q", "d": "q"})


def test_repeated_name_is_refused():
    with pytest.raises(UserError, match="named twice"):
        make_folds(["a_1", "a_1", "a_2"], 2)


def test_bundles_hold_one_video_txt_a_line_numbered_from_1(dataset):
    folds = read_folds(dataset)
    for number, fold in enumerate(folds, 1):
        text = (dataset.splits / f"test.split{number}.bundle").read_bytes()
        assert text == "".join(f"{video}.txt\n" for video in fold).encode()
    assert not (dataset.splits / "test.split0.bundle").exists()


def test_train_bundle_is_the_rest_of_the_ground_truth(dataset):
    for number, fold in enumerate(read_folds(dataset), 1):
        train = read_bundle(dataset.bundle("train", number))
        assert sorted(train + fold) == sorted(path.stem for path in dataset.ground_truth.glob("*.txt"))


def test_ground_truth_split_holds_the_labels_of_the_test_fold(dataset):
    for number, fold in enumerate(read_folds(dataset), 1):
        files = {path.name: path.read_text() for path in (dataset.root / f"groundTruth_split_{number}").iterdir()}
        assert files == {f"{video}.txt": f"labels of {video}\n" for video in fold}


def test_ground_truth_split_survives_a_move_of_the_data_set(dataset, tmp_path):
    moved = dataset.root.rename(tmp_path / "elsewhere")
    assert all(path.read_text().startswith("labels of") for path in moved.glob("groundTruth_split_*/*.txt"))


def test_fewer_folds_remove_those_of_before(dataset):
    write(dataset, 2)
    assert len(read_folds(dataset)) == 2
    left = [path.name for pattern in ("splits/*3*", "groundTruth_split_3") for path in dataset.root.glob(pattern)]
    assert left == []


def test_making_folds_again_keeps_the_original_labels(dataset):
    write(dataset, 3)
    write(dataset, 2)
    assert (dataset.ground_truth / "BL_1.txt").read_text() == "labels of BL_1\n"


def snapshot(dataset: Dataset) -> dict[str, bytes]:
    return {
        str(path.relative_to(dataset.root)): path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()
    }


def make_foreign(dataset: Dataset, change: str) -> None:
    """Make the folds somebody else's in one of the ways in which that happens."""
    if change == "no record":  # published lists, or those of the study's own script
        dataset.folds_record.unlink()
    elif change == "record of something else":
        dataset.folds_record.write_text('["folds"]')
    elif change == "list changed":
        dataset.bundle("test", 1).write_text("BL_1.txt\n")
    elif change == "training list changed":
        dataset.bundle("train", 1).write_text("BL_1.txt\n")
    elif change == "list added":
        dataset.bundle("test", 7).write_text("BL_1.txt\n")
    elif change == "unreadable list":
        dataset.bundle("test", 1).write_bytes(b"\xff\xfe\0")
    else:
        (dataset.ground_truth_split(2) / "notes.md").write_text("mine")


@pytest.mark.parametrize(
    "change",
    ["no record", "record of something else", "list changed", "training list changed", "list added", "unreadable list",
     "a file among the labels"],
)  # fmt: skip
def test_what_somebody_else_made_is_replaced_by_force_alone(dataset, change):
    make_foreign(dataset, change)
    before = snapshot(dataset)
    with pytest.raises(UserError, match=r"move them elsewhere, or give --force"):
        write(dataset, 2)
    assert snapshot(dataset) == before
    write(dataset, 2, force=True)
    assert len(read_folds(dataset)) == 2
    assert write(dataset, 3)  # and from then on they are ours


def test_only_lists_and_folders_of_folds_are_ever_removed(dataset):
    others = ["splits/val.split1.bundle", "splits/test.split1.bundle.old", "splits/official/test.split1.bundle",
              "groundTruth_split_official/keep.txt", "groundTruth_split_1_old/keep.txt", "splits/notes.txt"]  # fmt: skip
    for name in others:
        (dataset.root / name).parent.mkdir(exist_ok=True)
        (dataset.root / name).write_text("a\n")
    write(dataset, 2)
    write(dataset, 3, force=True)
    assert all((dataset.root / name).read_text() == "a\n" for name in others)
    assert len(read_folds(dataset)) == 3


def test_a_linked_folder_of_labels_is_unlinked_not_emptied(dataset, tmp_path):
    elsewhere = dataset.ground_truth_split(1).rename(tmp_path / "elsewhere")
    dataset.ground_truth_split(1).symlink_to(elsewhere)
    write(dataset, 2)
    assert list(elsewhere.glob("*.txt"))


def test_interrupted_folds_are_not_used_and_made_again(dataset, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr("common.dataset.kfold.link_file", stop)
        with pytest.raises(KeyboardInterrupt):
            write(dataset, 2)
    with pytest.raises(UserError, match="interrupted; make the folds again"):
        read_folds(dataset)
    write(dataset, 2)
    assert len(read_folds(dataset)) == 2


def test_advice_is_what_the_command_then_accepts(dataset):
    """Folds of another state of the labels are made again at once; lists of somebody else must be moved first."""
    (dataset.ground_truth / "BL_9.txt").write_text("labels\n")
    with pytest.raises(UserError, match=r"disagree on BL_9; make the folds again: python generate_k_folds\.py .* 3$"):
        read_folds(dataset)
    dataset.folds_record.unlink()
    with pytest.raises(UserError) as error:
        read_folds(dataset)
    named = re.search(r"elsewhere \((.*)\) and make folds", str(error.value))[1].split(", ")
    for name in named:
        found = next(path for path in (dataset.root / name, dataset.splits / name) if path.exists())
        found.rename(found.with_name(f"moved_{name}"))
    write(dataset, 3)


def test_written_folds_read_back(dataset):
    folds = write(dataset, 4)
    assert read_folds(dataset) == folds


def test_absent_folds_say_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"generate_k_folds\.py"):
        read_folds(Dataset(tmp_path))


@pytest.mark.parametrize("text", ["", "\n", "a.txt\na.txt\n", "#bundle\n", "a.txt\nb.txt\n/other/a.mp4\n"])
def test_empty_or_repeating_bundle_is_refused(tmp_path, text):
    path = tmp_path / "test.split1.bundle"
    path.write_text(text)
    with pytest.raises(UserError, match="each once"):
        read_bundle(path)


def test_bundle_lines_may_lack_the_suffix(tmp_path):
    path = tmp_path / "test.split1.bundle"
    path.write_text("a.txt\r\nb\r\n\r\n")
    assert read_bundle(path) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "#bundle\na.txt\nb.1.txt\n",
        "\n#BUNDLE \na.txt\nb.1.txt\n",
        "/data/groundTruth/a.txt\n./groundTruth/b.1.txt\n",
        "C:\\data\\a.txt\nD:b.1.txt\n".replace("D:", "D:\\"),
        "a.mp4\nb.1.MKV\n",
        "a.mts\nb.1\n",
        "\ufeffa.txt\r\nb.1.txt\r\n",
        "  a.txt\n\tb.1.txt  ",
    ],
)
def test_bundles_as_they_circulate_are_read(tmp_path, text):
    path = tmp_path / "test.split1.bundle"
    path.write_bytes(text.encode())
    assert read_bundle(path) == ["a", "b.1"]


def test_a_line_that_only_looks_like_a_head_is_a_video(tmp_path):
    path = tmp_path / "test.split1.bundle"
    path.write_text("#1.txt\n#bundle\n")
    assert read_bundle(path) == ["#1", "#bundle"]


def test_a_bundle_in_utf_16_is_named(tmp_path):
    path = tmp_path / "test.split1.bundle"
    path.write_bytes("a.txt\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"test\.split1\.bundle, line 1: text in UTF-16"):
        read_bundle(path)


def test_lists_numbered_from_0_are_named(dataset):
    for part in ("train", "test"):
        dataset.bundle(part, 3).rename(dataset.bundle(part, 0))
    with pytest.raises(UserError, match="test lists with the numbers 0, 1, 2; expected 1, 2 and so on"):
        read_folds(dataset)


def test_video_in_two_test_folds_is_named(dataset):
    folds = read_folds(dataset)
    with pytest.raises(UserError, match=f"in more than one test fold: {folds[0][0]};"):
        verify_folds(dataset, [folds[0], [*folds[1], folds[0][0]], folds[2]])


def test_video_without_labels_is_named(dataset):
    dataset.ground_truth.joinpath("BL_3.txt").unlink()
    with pytest.raises(UserError, match="disagree on BL_3"):
        read_folds(dataset)


def test_labelled_video_in_no_fold_is_named(dataset):
    dataset.ground_truth.joinpath("BL_9.txt").write_text("new\n")
    with pytest.raises(UserError, match="disagree on BL_9"):
        read_folds(dataset)


def test_test_video_in_the_training_list_is_refused(dataset):
    path = dataset.bundle("train", 2)
    path.write_text(path.read_text() + f"{read_folds(dataset)[1][0]}.txt\n")
    with pytest.raises(UserError, match=r"train\.split2\.bundle: not the videos outside test fold 2"):
        read_folds(dataset)


def test_patient_in_two_folds_is_named(dataset):
    write(dataset, 3, patients={"BL_1": "ann", "BL_2": "ann"})
    folds = read_folds(dataset)
    home = next(index for index, fold in enumerate(folds) if "BL_1" in fold)
    other = (home + 1) % 3
    folds[home].remove("BL_1")
    folds[other].append("BL_1")
    for number, fold in enumerate(folds, 1):
        rest = [video for each in folds if each is not fold for video in each]
        dataset.bundle("train", number).write_text("".join(f"{video}.txt\n" for video in rest))
    with pytest.raises(UserError, match="patient ann is in folds"):
        verify_folds(dataset, folds)


def test_folds_hash_knows_sets_not_line_order():
    assert folds_hash([["a", "b"], ["c"]]) == folds_hash([["b", "a"], ["c"]])
    assert folds_hash([["a", "b"], ["c"]]) != folds_hash([["a"], ["b", "c"]])


# --- subsets -------------------------------------------------------------------------------------------------------


FRACTIONS = (0.001, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def training_list(seed: int) -> list[str]:
    """Up to nine prefixes of very unequal size, in no order."""
    draw = random.Random(seed)
    sizes = [draw.randint(1, draw.choice([1, 4, 60])) for _ in range(draw.randint(1, 9))]
    videos = [f"P{prefix}_{number}" for prefix, size in enumerate(sizes) for number in range(size)]
    draw.shuffle(videos)
    return videos


LISTS = [training_list(seed) for seed in range(60)]


def test_three_prefixes_by_hand():
    """4, 2 and 1 videos: every beginning is as near to 4:2:1 as whole videos can be."""
    videos = ["BL_1", "BL_2", "BL_3", "BL_4", "BN_1", "BN_2", "SD_1"]
    prefixes = [prefix_stratum(video) for video in stratified_order(videos)]
    assert prefixes == ["BL", "BN", "BL", "BL", "SD", "BN", "BL"]


def test_a_smaller_subset_is_part_of_a_larger_one():
    for videos in LISTS:
        subsets = [set(nested_subset(videos, fraction)) for fraction in FRACTIONS]
        assert all(small <= large for small, large in pairwise(subsets))


def test_a_subset_has_the_rounded_size_and_at_least_one_video():
    videos = [f"BL_{number}" for number in range(37)]
    sizes = [len(nested_subset(videos, fraction)) for fraction in FRACTIONS]
    assert sizes == [1, 2, 4, 9, 18, 28, 33, 37]


def test_every_beginning_is_within_one_video_of_each_prefixs_exact_share():
    """By Tijdeman's bound even a little less than one: 1/2 for two prefixes, 3/4 for three."""
    for videos in LISTS:
        whole, taken = Counter(map(prefix_stratum, videos)), Counter()
        bound = 1 - Fraction(1, max(2 * len(whole) - 2, 1))
        for length, video in enumerate(stratified_order(videos), 1):
            taken[prefix_stratum(video)] += 1
            shares = {prefix: Fraction(length * size, len(videos)) for prefix, size in whole.items()}
            assert all(abs(taken[prefix] - share) <= bound for prefix, share in shares.items())


def test_the_whole_list_stays_as_it_is():
    assert all(nested_subset(videos, 1.0) == videos for videos in LISTS)


def test_a_subset_keeps_the_order_of_its_list():
    videos = LISTS[3]
    subset = nested_subset(videos, 0.5)
    assert subset == sorted(subset, key=videos.index)


def test_the_choice_does_not_depend_on_the_order_of_the_list():
    for videos in LISTS:
        assert stratified_order(videos) == stratified_order(sorted(videos))


def test_the_choice_is_the_same_in_every_process_and_version():
    """Hashes of names, not a random generator or Python's `hash`: these names are typed from an earlier process."""
    videos = [f"{prefix}_{number}" for prefix in ("BL", "SD") for number in range(1, 11)]
    assert nested_subset(videos, 0.25) == ["BL_3", "BL_4", "BL_6", "SD_2", "SD_6"]


def test_another_seed_and_another_list_draw_other_videos():
    videos = [f"BL_{number:02}" for number in range(60)]
    first = nested_subset(videos, 0.5)
    assert first != nested_subset(videos, 0.5, seed=7)
    assert set(first) - {"BL_59"} != set(nested_subset(videos[:-1], 0.5)) - {"BL_59"}


@pytest.mark.parametrize("videos", [["case1", "case2", "case3", "case4"], ["BL_1"]])
def test_names_without_prefixes_and_single_videos_have_subsets_too(videos):
    assert len(nested_subset(videos, 0.5)) == max(1, len(videos) // 2)


def test_every_video_is_as_likely_to_come_first():
    """Over many seeds, so that the order within a prefix is no order of names."""
    videos = [f"BL_{number}" for number in range(4)]
    firsts = Counter(stratified_order(videos, seed=seed)[0] for seed in range(800))
    assert min(firsts[video] for video in videos) > 150


# --- names as disks and systems have them -------------------------------------------------------------------------


def test_hidden_files_of_a_system_are_in_no_fold(dataset):
    for path in (dataset.ground_truth / "._BL_1.txt", dataset.splits / "._test.split1.bundle"):
        path.write_bytes(b"\x00\x05\x16\x07")
    assert len(read_folds(dataset)) == 3
    write(dataset, 2, patients={})
    assert sorted(video for fold in read_folds(dataset) for video in fold) == sorted(
        paths.label_paths(dataset.ground_truth)
    )


def test_folds_and_patients_know_a_video_however_its_accents_are_encoded(dataset):
    composed, decomposed = (unicodedata.normalize(form, "BL_é") for form in ("NFC", "NFD"))
    (dataset.ground_truth / "BL_1.txt").rename(dataset.ground_truth / f"{decomposed}.TXT")
    dataset.patients.write_text(f"video,patient\n{decomposed},p1\nBL_2,p1\n", encoding="utf-8")
    patients = read_patients(dataset)
    folds = make_folds(list(paths.label_paths(dataset.ground_truth)), 3, patients=patients)
    write_folds(dataset, folds, seed=42, stratify="prefix", patients=patients)
    together = next(fold for fold in read_folds(dataset) if composed in fold)
    assert "BL_2" in together
    copy = dataset.ground_truth_split(1 + folds.index(together)) / f"{composed}.txt"
    assert copy.read_text() == "labels of BL_1\n"
