"""What the importers of annotated releases share; the rest of it is seen at work in their own tests."""

import pytest

from pretrain.annotations.importing import video_name


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
