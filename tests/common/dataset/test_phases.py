"""Phase mapping, ground-truth files, prediction files."""

from pathlib import Path

import numpy as np
import pytest

from common.base.entries import CHALLENGE_HEADER
from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping, read_labels, read_mapping, require_labels, write_prediction

MAPPING = PhaseMapping(("background", "peritomy", "cautery"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_mapping_file_of_the_repository_holds_the_19_phases_of_the_study(checkout):
    mapping = read_mapping(checkout / "mapping.txt")
    assert mapping.num_classes == 19
    assert (mapping.names[0], mapping.names[7], mapping.names[18]) == (
        "background",
        "AB_injection_and_wash",
        "tunnel_suture",
    )
    assert mapping.ids["OVD_IOL_insertion"] == 15


def test_mapping_ids_may_come_in_any_order_with_blank_lines(tmp_path):
    mapping = read_mapping(write(tmp_path / "mapping.txt", "2 c\n\n0 a\n1 b\n"))
    assert mapping.names == ("a", "b", "c")


def test_mapping_with_a_byte_order_mark_is_read(tmp_path):
    assert read_mapping(write(tmp_path / "mapping.txt", "\ufeff0 a\n1 b\n")).names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 a\n1 b c\n", "line 2: expected 'ID NAME', found '1 b c'; a name has no blanks: 'b_c'"),
        ("zero a\n", "line 1: expected 'ID NAME'"),
        ("-1 a\n", "line 1: expected 'ID NAME'"),
        ("0 a\n0 b\n", "line 2: '0 b' repeats"),
        ("0 a\n1 a\n", "line 2: '1 a' repeats"),
        ("0 a\n2 b\n", "without gaps"),
        ("1 a\n2 b\n", "without gaps"),
        ("", "without gaps"),
    ],
)
def test_malformed_mapping_is_refused_with_file_and_place(tmp_path, text, complaint):
    path = write(tmp_path / "mapping.txt", text)
    with pytest.raises(UserError) as error:
        read_mapping(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)


def test_absent_mapping_names_the_file(tmp_path):
    with pytest.raises(UserError, match="no mapping file"):
        read_mapping(tmp_path / "mapping.txt")


@pytest.mark.parametrize(
    "text",
    [
        "background\nperitomy\nperitomy\ncautery\n",
        "background\nperitomy\nperitomy\ncautery",
        "background\r\nperitomy\r\nperitomy\r\ncautery\r\n",
        "\ufeffbackground\nperitomy\nperitomy\ncautery\n",
        f"{CHALLENGE_HEADER}\nbackground peritomy peritomy cautery\n",
        f"{CHALLENGE_HEADER}\nbackground peritomy peritomy cautery",
        f"{CHALLENGE_HEADER}\r\nbackground peritomy peritomy cautery\r\n",
    ],
    ids=[
        "lines",
        "no final newline",
        "windows",
        "byte order mark",
        "challenge",
        "challenge, cut",
        "challenge, windows",
    ],
)
def test_both_label_forms_are_read(tmp_path, text):
    path = tmp_path / "BL_0001.txt"
    path.write_bytes(text.encode())
    labels = read_labels(path, MAPPING)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 1, 2]


def test_unknown_label_names_file_line_label_and_nearest_known(tmp_path):
    path = write(tmp_path / "BL_0001.txt", "background\nperitomy\nCautary\n")
    with pytest.raises(UserError) as error:
        read_labels(path, MAPPING)
    assert f"{path}, line 3: unknown phase 'Cautary'" in str(error.value)
    assert "nearest known name: 'cautery'" in str(error.value)


def test_unknown_label_without_a_near_name_lists_the_known_ones(tmp_path):
    path = write(tmp_path / "BL_0001.txt", "xyz\n")
    with pytest.raises(UserError, match="known: background, peritomy, cautery"):
        read_labels(path, MAPPING)


def test_an_id_in_place_of_a_name_is_named_as_that(tmp_path):
    path = write(tmp_path / "BL_0001.txt", "1\n1\n2\n")
    with pytest.raises(UserError, match="unknown phase '1'; labels are names, not ids: 1 is 'peritomy'"):
        read_labels(path, MAPPING)


def test_a_huge_word_is_shown_in_a_line(tmp_path):
    for name, text in (
        ("a", "x" * 10_000_000),
        ("b", "x " * 1_000_000),
        ("c", f"{CHALLENGE_HEADER}\n{'x' * 10_000_000}"),
    ):
        with pytest.raises(UserError) as error:
            read_labels(write(tmp_path / f"{name}.txt", text), MAPPING)
        assert len(str(error.value)) < 500 + len(str(tmp_path))
        assert "characters)" in str(error.value)


def test_unknown_label_is_found_in_the_challenge_form(tmp_path):
    path = write(tmp_path / "BL_0001.txt", f"{CHALLENGE_HEADER}\nbackground tunnnel\n")
    with pytest.raises(UserError, match="line 2: unknown phase 'tunnnel'"):
        read_labels(path, MAPPING)


@pytest.mark.parametrize("text", ["", "\n\n", f"{CHALLENGE_HEADER}\n\n"])
def test_empty_label_file_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="the label file is empty"):
        read_labels(write(tmp_path / "BL_0001.txt", text), MAPPING)


def test_absent_label_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such label file"):
        read_labels(tmp_path / "BL_0001.txt", MAPPING)


def test_prediction_is_the_challenge_header_and_one_line_of_names(tmp_path):
    path = tmp_path / "BL_0001.txt"
    write_prediction(path, np.array([0, 2, 2]), MAPPING)
    assert path.read_bytes() == b"### Frame level recognition: ###\nbackground cautery cautery\n"


def test_written_prediction_reads_back(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, 500)
    write_prediction(tmp_path / "v.txt", ids, MAPPING)
    assert np.array_equal(read_labels(tmp_path / "v.txt", MAPPING), ids)


def test_required_labels_of_a_folder_without_any_are_an_error(tmp_path):
    with pytest.raises(UserError, match="no label files"):
        require_labels(tmp_path)
