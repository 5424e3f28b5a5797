"""What the importers of annotated releases share; the rest of it is seen at work in their own tests."""

import pytest

from common.base.runtime import UserError
from pretrain.annotations.importing import find_release_videos, video_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("269", "case_269"),
        ("case_269", "case_269"),
        ("Case-0269", "case_269"),
        ("case 269 ", "case_269"),
        ("x269", "x269"),
    ],
)
def test_names_of_videos(text, name):
    assert video_name(text) == name


@pytest.fixture
def release(tmp_path):
    """Two videos beside frames that were taken out of them and annotated, and what systems leave behind."""
    for name in (
        "videos/case269.mp4", "videos/part/Case-270.MTS", "videos/._case269.mp4", "videos/case269/1.png",
        "masks/case_270/img/1.png", "masks/case_269/img/1.png", "notes.txt", ".trash/case_270.mp4",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_videos_of_a_release_are_its_files_at_any_depth(release, capsys):
    videos = release / "videos"
    assert find_release_videos(release) == {
        "case_269": videos / "case269.mp4",
        "case_270": videos / "part" / "Case-270.MTS",
    }
    assert capsys.readouterr().out == ""


def test_a_video_with_an_unusable_name_is_named(release, capsys):
    (release / "videos" / "aux.mp4").touch()
    assert len(find_release_videos(release)) == 2
    assert "left out: videos/aux.mp4 (the name of a device on Windows; rename it)" in capsys.readouterr().out


def test_two_videos_of_one_case_are_an_error(release):
    (release / "videos" / "case_0269.avi").touch()
    with pytest.raises(UserError, match=r"two videos of case_269: .*case269\.mp4 and .*case_0269\.avi"):
        find_release_videos(release)
