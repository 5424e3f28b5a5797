"""Label files: the two forms that are read; every other is refused by line, with a way to labels."""

from pathlib import Path

import pytest

from common.base.entries import CHALLENGE_HEADER
from common.base.runtime import UserError
from common.dataset.label_forms import NotLabels, frame_names
from common.dataset.phases import PhaseMapping, read_labels

KNOWN = ("background", "cut", "wash", "tunnel_suture", "1", "2")


def names_in(text: str) -> list[str]:
    return frame_names(Path("v.txt"), text, KNOWN)[0]


@pytest.mark.parametrize(
    "text",
    [
        "cut\nwash\n",
        "cut\nwash",
        " cut \n\twash\n\n \n",
        f"{CHALLENGE_HEADER}\ncut wash\n",
        f"{CHALLENGE_HEADER}\ncut wash\n\n",
        f"{CHALLENGE_HEADER}\ncut\nwash\n",
        "### frame level recognition ###\ncut  wash",
    ],
)
def test_the_two_forms_are_read(text):
    assert names_in(text) == ["cut", "wash"]


def test_every_name_has_its_line():
    assert list(frame_names(Path("v.txt"), "cut\nwash\n", KNOWN)[1]) == [1, 2]
    assert list(frame_names(Path("v.txt"), f"{CHALLENGE_HEADER}\ncut wash", KNOWN)[1]) == [2, 2]
    assert list(frame_names(Path("v.txt"), f"{CHALLENGE_HEADER}\ncut\nwash", KNOWN)[1]) == [2, 3]


@pytest.mark.parametrize(
    ("text", "line", "found", "advice"),
    [
        ("cut\n\nwash\n", 2, "a blank line", "give the frame a name"),
        ("\ncut\n", 1, "a blank line", "give the frame a name"),
        ("cut\n \t\nwash\n", 2, "a blank line", "give the frame a name"),
        (f"{CHALLENGE_HEADER}\n\ncut wash\n", 2, "a blank line", "give the frame a name"),
        ("1 1\n2 1\n3 2\n", 1, "2 words on a line, found '1 1'", "one phase name a line"),
        ("cut wash\ncut wash\n", 1, "2 words on a line", "one phase name a line"),
        ("cut cut wash\n", 1, "3 words on a line", f"put the line {CHALLENGE_HEADER!r} above"),
        (f"{CHALLENGE_HEADER}\ncut cut\nwash wash\n", 2, "2 words on a line", "one phase name a line"),
        ("cut\ntunnel suture\n", 2, "2 words on a line", "write 'tunnel_suture'"),
        ("Frame\tPhase\n0\tcut\n", 1, "a table with tabs, found 'Frame\\tPhase'", "keep column 2 alone"),
        ("0,cut\n30,cut\n", 1, "a table with commas", "keep column 2 alone"),
        ("start;end;phase\n0;100;cut\n", 1, "a table with semicolons", "no importer here reads it"),
        ("0 100 cut\n101 200 wash\n", 1, "3 words on a line", "no importer here reads it"),
        ("VideoID;FrameNo;Phase\n269;0;1\n", 1, "semicolons", "pretrain/cataract101/import_annotations.py"),
        ("caseId,comment,frame,endFrame,sec,endSec\n", 1, "commas", "pretrain/cataracts1k/import_annotations.py"),
        ('{"0": "cut",\n"1": "wash"}', 1, "JSON in place of labels", "no importer here reads it"),
        ('[\n"cut"\n]', 1, "JSON in place of labels", "no importer here reads it"),
        ("<?xml version='1.0'?>\n", 1, "XML or HTML in place of labels", "no importer here reads it"),
        ("# labelled by A\ncut\n", 1, "a header or comment", "take it out"),
        ("#bundle\ncut\n", 1, "a header or comment", "take it out"),
        ("cut\n# end\n", 2, "a header or comment", "take it out"),
        (f"cut\n{CHALLENGE_HEADER}\nwash\n", 2, "stands alone in line 1", "one phase name a line"),
        (f"{CHALLENGE_HEADER} cut wash\n", 1, "stands alone in line 1", "one phase name a line"),
        ("Frame level recognition\ncut\n", 1, "3 words on a line", "one phase name a line"),
    ],
)
def test_another_form_is_refused_by_line(text, line, found, advice):
    with pytest.raises(NotLabels) as error:
        names_in(text)
    assert error.value.line == line
    assert found in error.value.found
    assert advice in error.value.advice
    assert str(error.value) == f"{error.value.found}; {error.value.advice}"


def test_a_known_name_is_never_taken_for_another_form():
    odd = ("[idle]", "#1", "a,b", "{x}", "<none>")
    text = "".join(f"{name}\n" for name in odd)
    assert frame_names(Path("v.txt"), text, odd)[0] == list(odd)
    assert frame_names(Path("v.txt"), text + "a,c\n", odd)[0][-1] == "a,c"  # a typing error, and no table


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("cut\n".encode("utf-16"), "line 1: text in UTF-16"),
        ("cut\n".encode("utf-16-le"), "line 1: zero bytes"),
        ("cut\nwäsche\n".encode("latin-1"), "line 2: no text in UTF-8"),
    ],
)
def test_another_encoding_is_named_with_its_line(tmp_path, content, complaint):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"v.txt, {complaint}.*save it again"):
        read_labels(path, PhaseMapping(KNOWN))


def test_line_ends_of_every_system_are_one_label_each(tmp_path):
    path = tmp_path / "v.txt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"cut{end}wash{end}".encode())
        assert read_labels(path, PhaseMapping(KNOWN)).tolist() == [1, 2]
