"""Entries of a folder: what is a video or a label file, what it is called, what is left out and named."""

import logging
import os
import re
import unicodedata
from pathlib import Path

import pytest

from common.base import paths
from common.base.entries import (
    frame_files,
    is_frame_folder,
    list_labels,
    list_videos,
    on_disk,
    reason_against,
    same_name,
    video_name_of,
    visible,
)
from common.base.runtime import UserError

RECORDED = ("mts", "M2TS", "vob", "mxf", "flv", "3gp", "asf", "wmv", "m2v", "dv", "h264", "265", "MOD", "tod", "mjpeg")
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller_é") for form in ("NFC", "NFD"))


def touch(folder: Path, *names: str) -> Path:
    """Empty files; names with a `/` lie in folders of their own."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# --- videos -------------------------------------------------------------------------------------------------------


def test_videos_are_found_by_name_whatever_the_case_of_their_suffix(tmp_path):
    touch(tmp_path, "b.MP4", "a.avi", ".c.mp4", "._a.avi", "d.mkv")
    assert list(paths.find_videos(tmp_path)) == ["a", "b", "d"]


@pytest.mark.parametrize("suffix", RECORDED)
def test_what_recorders_write_is_a_video(tmp_path, suffix):
    touch(tmp_path, f"camera.{suffix}")
    assert list(paths.find_videos(tmp_path)) == ["camera"]


def test_a_folder_of_numbered_images_is_a_video_named_like_the_folder(tmp_path):
    touch(tmp_path, "case.1/000001.jpg", "case_2.mp4/1.PNG", "b.avi")
    found = paths.find_videos(tmp_path)
    assert found == {"b": tmp_path / "b.avi", "case.1": tmp_path / "case.1", "case_2": tmp_path / "case_2.mp4"}


def test_videos_of_an_absent_folder_are_none(tmp_path):
    assert paths.find_videos(tmp_path / "nothing") == {}


def test_no_videos_say_what_is_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no video files here; expected files with \.mp4, .* numbered images \(\.jpg"):
        paths.require_videos(tmp_path)


@pytest.mark.parametrize(
    "twins",
    [("a.avi", "a.mp4"), ("a.avi", "A.mkv"), ("a.mp4", "a/1.jpg"), (f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4"), ("straße.mp4", "STRASSE.mp4")],
)  # fmt: skip
def test_two_videos_of_one_name_are_an_error_that_names_both(tmp_path, twins):
    touch(tmp_path, *twins)
    with pytest.raises(UserError) as error:
        paths.find_videos(tmp_path)
    assert all(name.partition("/")[0] in str(error.value) for name in twins)


def test_a_name_is_composed_and_its_path_is_the_disks(tmp_path):
    touch(tmp_path, f"{DECOMPOSED}.mp4")
    assert paths.find_videos(tmp_path) == {COMPOSED: tmp_path / f"{DECOMPOSED}.mp4"}


def test_what_nobody_can_open_yet_stays_in_the_list(tmp_path):
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.avi")
    assert list(paths.find_videos(tmp_path)) == ["gone", "pipe"]


def test_what_is_left_out_is_named_once_with_the_reason(tmp_path, caplog):
    touch(tmp_path, "a.mp4", "notes.txt", "more/deep.mp4", "NUL.mp4", ".DS_Store", "._a.mp4")
    for _ in range(2):
        assert list(paths.find_videos(tmp_path)) == ["a"]
    (warning,) = warnings(caplog)
    assert warning.startswith(f"{tmp_path}: 3 left out: ")
    assert "notes.txt (no suffix of videos)" in warning
    assert "more (folders, but not of numbered images)" in warning
    assert "NUL.mp4 (the name of a device on Windows; rename it)" in warning


def test_many_that_are_left_out_are_counted(tmp_path, caplog):
    touch(tmp_path, *(f"{index:02}.csv" for index in range(30)))
    paths.find_videos(tmp_path)
    (warning,) = warnings(caplog)
    assert "30 left out: 00.csv, 01.csv" in warning
    assert "and 22 more" in warning
    assert "29.csv" not in warning


def test_the_audits_list_has_all_of_one_name_and_warns_of_nothing(tmp_path, caplog):
    touch(tmp_path, "a.avi", "a.mp4", "notes.txt")
    listing = list_videos(tmp_path)
    assert listing.files == {"a": [tmp_path / "a.avi", tmp_path / "a.mp4"]}
    assert listing.first == {"a": tmp_path / "a.avi"}
    assert listing.left_out == {"no suffix of videos": ["notes.txt"]}
    assert warnings(caplog) == []


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["case 7", "Fall_Ä", "白内障", "a.b", "console", "com10", "nullipara", "a'b&c;d", "🎥"]
)
def test_any_unicode_is_a_name(name):
    assert reason_against(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a:b", "a :"), ("a\\b", r"a \\"), ("a?", r"a \?"), ('"a"', 'a "'), ("a|b", r"a \|"), ("<a", "a <"), ("a*", r"a \*"),
        ("a\nb", "control character"), ("a\x7f", "control character"), ("a\u2028b", "control character"),
        ("a\udce9", "no valid text"),
        ("a.", "at the end"), ("a ", "at the end"), ("a\u3000", "at the end"),
        (" a", "at the beginning"), ("\u3000a", "at the beginning"),
        ("..", "two dots"), ("a..b", "two dots"), (".a", "leading dot"),
        ("con", "device"), ("Nul", "device"), ("COM1", "device"), ("lpt¹", "device"), ("aux.left.eye", "device"),
    ],
)  # fmt: skip
def test_names_that_some_system_cannot_store(name, reason):
    assert re.search(reason, reason_against(name))


def test_bytes_that_are_no_text_leave_a_video_out(tmp_path, caplog):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))).touch()
    assert paths.find_videos(touch(tmp_path, "a.mp4")).keys() == {"a"}
    (warning,) = warnings(caplog)
    assert r"caf\udce9.mp4 (the name is no valid text; rename it)" in warning
    warning.encode()  # can be shown anywhere


def test_one_key_for_what_some_disk_takes_for_one_name():
    assert same_name(COMPOSED) == same_name(DECOMPOSED.upper())
    assert same_name("a") != same_name("b")


def test_the_name_of_a_video_given_by_its_path(tmp_path):
    touch(tmp_path, "case.1/1.jpg")
    assert video_name_of(tmp_path / "case.1") == "case.1"
    assert video_name_of(tmp_path / "x.y.MP4") == "x.y"
    assert video_name_of(tmp_path / f"{DECOMPOSED}.dat") == COMPOSED


def test_a_file_is_found_under_the_form_that_its_folder_has(tmp_path):
    touch(tmp_path, f"{DECOMPOSED}.npy")
    assert on_disk(tmp_path / f"{COMPOSED}.npy") == tmp_path / f"{DECOMPOSED}.npy"
    touch(tmp_path, f"{COMPOSED}.npy")
    assert on_disk(tmp_path / f"{COMPOSED}.npy") == tmp_path / f"{COMPOSED}.npy"
    assert on_disk(tmp_path / "é.npy") == tmp_path / "é.npy"
    assert on_disk(tmp_path / "no" / "é.npy") == tmp_path / "no" / "é.npy"


# --- label files --------------------------------------------------------------------------------------------------


def test_label_files_are_found_by_video(tmp_path, caplog):
    touch(tmp_path, "b.TXT", f"{DECOMPOSED}.txt", ".a.partial.txt", "._b.TXT", "a.npy", "CON.txt")
    assert paths.label_paths(tmp_path) == {COMPOSED: tmp_path / f"{DECOMPOSED}.txt", "b": tmp_path / "b.TXT"}
    (warning,) = warnings(caplog)
    assert "a.npy (no .txt files)" in warning
    assert "CON.txt (the name of a device on Windows; rename it)" in warning


def test_two_label_files_of_one_video_are_an_error(tmp_path):
    touch(tmp_path, "a.txt", "A.TXT")
    with pytest.raises(UserError, match=r"two label files are called 'A': A\.TXT and a\.txt in"):
        paths.label_paths(tmp_path)
    assert list_labels(tmp_path).files == {"A": [tmp_path / "A.TXT", tmp_path / "a.txt"]}


def test_label_files_of_an_absent_folder_are_none(tmp_path):
    assert paths.label_paths(tmp_path / "nothing") == {}


# --- folders below, hidden entries --------------------------------------------------------------------------------


def test_videos_below_are_called_by_their_path_and_folders_of_images_are_one(tmp_path, caplog):
    touch(tmp_path, "a.mp4", "2019/a.MTS", "2019/frames/1.jpg", "2019/frames/2.jpg", ".trash/b.mp4", "2019/._a.MTS")
    touch(tmp_path, "2019/readme.txt", "2019/PRN.mp4")
    (tmp_path / "2019" / "round").symlink_to(tmp_path)
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    found = paths.videos_below(tmp_path)
    assert list(found) == ["2019/a", "2019/frames", "a", "gone"]
    assert found["2019/frames"] == tmp_path / "2019" / "frames"
    (warning,) = warnings(caplog)
    assert all(name in warning for name in ("2019/readme.txt", "2019/PRN.mp4", "2019/round"))


def test_two_videos_of_one_name_below_a_folder(tmp_path):
    touch(tmp_path, "x/a.mp4", "x/A.avi", "y/a.mp4")
    with pytest.raises(UserError, match=r"two videos are called 'x/A': x/A\.avi and x/a\.mp4 in"):
        paths.videos_below(tmp_path)


def test_hidden_entries_are_no_files(tmp_path):
    touch(tmp_path, "b.npy", "a.npy", "._a.npy", ".x/c.npy", "y/d.npy", "y/._d.npy")
    assert visible(tmp_path, "*.npy") == [tmp_path / "a.npy", tmp_path / "b.npy"]
    assert visible(tmp_path, "**/*.npy") == [tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "y" / "d.npy"]
    assert visible(tmp_path / "nothing") == []


# --- folders of images --------------------------------------------------------------------------------------------


def names_of(files: list[Path]) -> list[str]:
    return [path.name for path in files]


@pytest.mark.parametrize(
    "names",
    [
        ["000000.jpg", "000001.jpg"],
        ["1.png", "2.PNG", "10.png"],
        ["case_3_frame9.jpeg", "case_3_frame10.jpeg"],
        ["9.bmp", "010.tif", "11.tiff", "12.webp"],
        ["frame (1).jpg", "frame (2).jpg", "frame (10).jpg"],
    ],
)
def test_images_come_in_the_order_of_their_numbers(tmp_path, names):
    touch(tmp_path, *names, "._1.jpg", ".hidden.jpg", "notes.txt")
    assert is_frame_folder(tmp_path)
    assert names_of(frame_files(tmp_path)) == names


def test_two_images_of_one_number_are_an_error_that_names_both(tmp_path):
    touch(tmp_path, "1.jpg", "01.png", "2.jpg")
    with pytest.raises(UserError, match=r"one image a number, found 01\.png and 1\.jpg"):
        frame_files(tmp_path)


def test_an_image_without_a_number_is_an_error_that_names_it(tmp_path):
    touch(tmp_path, "1.jpg", "cover.jpg", "poster.jpg")
    with pytest.raises(UserError, match=r"names end with their number .*, found cover\.jpg"):
        frame_files(tmp_path)


def test_what_is_no_folder_of_images(tmp_path):
    touch(tmp_path, "clip.mp4", "empty/notes.txt", "photos/cover.jpg", "hidden/._1.jpg")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert not any(map(is_frame_folder, [*tmp_path.iterdir(), tmp_path / "nothing"]))
    for folder in ("empty", "nothing"):
        with pytest.raises(UserError, match=folder):
            frame_files(tmp_path / folder)


def test_recordings_from_the_field(reference_data):
    folder = reference_data / "cases" / "video"
    if not folder.is_dir():
        pytest.skip("no recordings there")
    found = paths.find_videos(folder)
    assert found["camera"] == folder / "camera.mts"
    assert names_of(frame_files(found["frames"])) == [f"{number:05}.jpg" for number in range(1, 20)]
