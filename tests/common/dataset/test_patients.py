"""`patients.csv`: videos matched however they are written; every line that matches nothing is named."""

import pytest

from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.kfold import make_folds, read_folds, write_folds
from common.dataset.patients import pieces_of_recordings, read_patients, require_whole_patients


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Four labelled videos, one for validation, and one without labels."""
    dataset = Dataset(tmp_path)
    for folder, names in (
        (dataset.ground_truth, ("BL_1", "BL_2", "BL_3", "SD.4")),
        (dataset.ground_truth_val, ("BL_8",)),
    ):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.txt").write_text("a\n")
    dataset.videos.mkdir()
    (dataset.videos / "BL_9.mp4").write_bytes(b"")
    return dataset


def write(dataset: Dataset, text: str) -> Dataset:
    dataset.patients.write_bytes(text.encode())
    return dataset


def test_absent_patients_file_is_no_patients(dataset):
    assert read_patients(dataset) == {}


@pytest.mark.parametrize(
    "text",
    [
        "video,patient\nBL_1,p1\nSD.4,p2\n",
        "patient,video\np1,BL_1\np2,SD.4\n",
        "\ufeffVideo , Patient\r\n BL_1 , p1 \r\nSD.4,p2\r\n",
        "video;patient\nBL_1;p1\nSD.4;p2\n",
        "video\tage\tpatient\nBL_1\t70\tp1\nSD.4\t71\tp2\n",
        'video,patient\n"BL_1","p1"\n"SD.4", "p2"\n',
        "video,patient\nBL_1.mp4,p1\nSD.4.MTS,p2\n",
        "video,patient\nvideos/BL_1.txt,p1\nC:\\videos\\SD.4.avi,p2\n",
        "video,patient\nbl_1.MP4,p1\nsd.4,p2\n",
        "video,patient\nBL_1,p1\n\n,\nBL_1.mp4,p1\nSD.4,p2\n",
        "video,patient\nBL_1,p1\nBL_2,\nBL_3,n/a\nBL_8\nSD.4,p2\n",
    ],
)
def test_videos_are_matched_however_they_are_written(dataset, text):
    assert read_patients(write(dataset, text)) == {"BL_1": "p1", "SD.4": "p2"}


def test_videos_for_validation_and_without_labels_have_patients_too(dataset):
    text = "video,patient\nBL_8,p1\nBL_9.mp4,p2\n"
    assert read_patients(write(dataset, text)) == {"BL_8": "p1", "BL_9": "p2"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("video,patient\nBL_1,p1\nBL_1O,p1\n", "line 3: no video 'BL_1O' in "),
        ("video,patient\n,p1\n", "line 2: no video '' in "),
        ("video,patient\nBL_1,p1\n\nBL_1.mp4,p2\n", "line 4: BL_1 of patient 'p2', but of 'p1' in line 2"),
        ("case,person\n1,2\n", "line 1: expected the columns video,patient, found 'case,person'"),
        ("", "line 1: expected the columns video,patient"),
        ("BL_1,p1\nBL_2,p2\n", "line 1: expected the columns video,patient"),
    ],
)
def test_a_line_that_cannot_be_matched_is_named(dataset, text, complaint):
    with pytest.raises(UserError) as error:
        read_patients(write(dataset, text))
    assert f"patients.csv, {complaint}" in str(error.value)


def test_many_wrong_lines_are_summed_up(dataset):
    with pytest.raises(UserError, match=r"line 6: no video 'X_4' in .*; 95 lines more; "):
        read_patients(write(dataset, "video,patient\n" + "".join(f"X_{n},p\n" for n in range(100))))


def test_a_file_in_utf_16_is_named(dataset):
    dataset.patients.write_bytes("video,patient\nBL_1,p1\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"patients\.csv, line 1: text in UTF-16"):
        read_patients(dataset)


def test_folds_older_than_the_file_are_held_against_it(dataset):
    folds = make_folds(["BL_1", "BL_2", "BL_3", "SD.4"], 2)
    write_folds(dataset, folds, seed=42, stratify="prefix", patients={})
    (first, second), (third, _) = read_folds(dataset)
    write(dataset, f"video,patient\n{first},p1\n{second},p1\n")
    require_whole_patients(dataset, read_folds(dataset))
    write(dataset, f"video,patient\n{first},p1\n{third},p1\n")
    with pytest.raises(UserError) as error:
        require_whole_patients(dataset, read_folds(dataset))
    assert f"patient p1 is in 2 test folds (fold 1: {first}; fold 2: {third})" in str(error.value)
    assert "make the folds again: python generate_k_folds.py" in str(error.value)


def test_the_advice_asks_for_no_more_folds_than_there_are_patients(dataset):
    folds = make_folds(["BL_1", "BL_2", "BL_3", "SD.4"], 4)
    write_folds(dataset, folds, seed=42, stratify="prefix", patients={})
    write(dataset, "video,patient\nBL_1,p1\nBL_2,p1\nBL_3,p1\n")
    with pytest.raises(UserError, match=r"python generate_k_folds\.py .* 2$"):
        require_whole_patients(dataset, read_folds(dataset))


@pytest.mark.parametrize(
    ("videos", "expected"),
    [
        (["case7_1", "case7_2", "case8_1"], {"case7": ["case7_1", "case7_2"]}),
        (["rgb-01-1", "rgb-01-2", "rgb-02-1"], {"rgb-01": ["rgb-01-1", "rgb-01-2"]}),
        ([f"P3 part {piece}" for piece in (1, 2, 10)], {"P3 part": ["P3 part 1", "P3 part 10", "P3 part 2"]}),
        ([f"video{number:02}" for number in range(80)], {}),  # a numbering
        ([f"{kind}_{number:03}" for kind in ("BL", "BN", "SD") for number in range(5)], {}),
        ([f"set155_{kind}_{number}" for kind in ("BL", "SD") for number in range(5)], {}),  # a number that all share
        (["2021", "2022", "one", "two"], {}),
        (["case7_1", "case8_1", "case9_1"], {}),  # one piece of each
    ],
)
def test_pieces_of_one_recording_by_their_names(videos, expected):
    assert pieces_of_recordings(videos, {}) == expected


def test_pieces_whose_recording_is_stated_are_not_named():
    videos = ["case7_1", "case7_2", "case8_1", "case8_2"]
    assert pieces_of_recordings(videos, {"case7_1": "7", "case7_2": "7"}) == {"case8": ["case8_1", "case8_2"]}
