"""Atomic writes, checked reading of JSON and YAML, links, hashes."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.base.files import (
    atomic_path,
    link_file,
    map_array,
    read_json,
    read_yaml,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from common.base.runtime import UserError


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "result.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert names(path.parent) == ["result.txt"]


def test_temporary_file_is_hidden_beside_the_target_and_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "table.xlsx") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".xlsx"


def test_whoever_has_the_old_file_open_reads_it_to_its_end(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_content_reaches_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    """Else a power cut can leave an empty file under the name of a finished one."""
    path, flushed = tmp_path / "result.txt", []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append((os.fstat(handle).st_ino, path.exists())))
    write_text(path, "content")
    assert flushed == [(path.stat().st_ino, False)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def writing_fails():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        writing_fails()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_failure_without_an_old_file_leaves_none(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "result.txt"):
        raise ValueError("stop")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    code = "import pathlib, sys; from common.base.files import write_text; write_text(pathlib.Path(sys.argv[1]), 'x')"
    path = tmp_path / "result.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, umask=umask)
    assert path.stat().st_mode & 0o777 == mode


def test_text_has_unix_line_ends_and_utf8(tmp_path):
    write_text(tmp_path / "t.txt", "a\nµ\n")
    assert (tmp_path / "t.txt").read_bytes() == b"a\n\xc2\xb5\n"


def test_json_reads_back(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"x": "µ"}}
    write_json(tmp_path / "r.json", content)
    assert read_json(tmp_path / "r.json") == content
    assert list(json.loads((tmp_path / "r.json").read_text())) == ["b", "a"]


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json: not a readable JSON file"):
        read_json(path)


def test_link_is_relative_so_a_moved_tree_stays_whole(tmp_path):
    source = tmp_path / "tree" / "a" / "labels.txt"
    source.parent.mkdir(parents=True)
    source.write_text("labels")
    link_file(source, tmp_path / "tree" / "b" / "c" / "labels.txt")
    moved = (tmp_path / "tree").rename(tmp_path / "moved")
    assert (moved / "b" / "c" / "labels.txt").read_text() == "labels"


def test_where_links_are_not_allowed_the_file_is_copied(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "symbolic links need a privilege")

    (tmp_path / "a.txt").write_text("labels")
    monkeypatch.setattr("pathlib.Path.symlink_to", refused)
    link_file(tmp_path / "a.txt", tmp_path / "b.txt")
    assert not (tmp_path / "b.txt").is_symlink()
    assert (tmp_path / "b.txt").read_text() == "labels"


def test_file_hash_is_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256_of_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_json_hash_knows_content_not_key_order():
    assert sha256_of_json({"a": 1, "b": [1, 2]}) == sha256_of_json({"b": [1, 2], "a": 1})
    assert sha256_of_json({"a": 1, "b": [1, 2]}) != sha256_of_json({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize(
    ("text", "complaint"), [("a: [1", "not readable as YAML"), ("- 1\n", "found list"), ("", "found NoneType")]
)
def test_damaged_yaml_is_named(yaml_file, text, complaint):
    with pytest.raises(UserError, match=rf"run\.yaml: .*{complaint}"):
        read_yaml(Path(yaml_file(text)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"rate: 1\ncount: 2\nrate: 3\n", "line 3: the key 'rate' is there twice"),
        (b"inner: {size: 1, size: 2}", "line 1: the key 'size' is there twice"),
        (b"yes: 1\non: 2\n", "line 2: the key True is there twice"),
        (b"name: &a [1]\ncount: *a\n", r"line 2: an alias \(\*\)"),
        (b"a: &a {b: *a}", r"an alias \(\*\)"),
        (b"? [a]\n: 1\n", "line 1: a key must be a single word"),
        (b"name: 2024-02-31", "not readable as YAML"),
        (b"[" * 5000, "not readable as YAML"),
        (b"name: a\n\tcount: 1\n", "line 2"),
        ("name: a".encode("utf-16"), "UTF-16"),
        (b"name: caf\xe9", "line 1: no text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0", "no text"),
    ],
)
def test_what_yaml_would_pass_over_or_choke_on_is_one_line_that_names_the_place(tmp_path, content, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_folder_in_place_of_yaml_is_named(tmp_path):
    with pytest.raises(UserError, match="expected a file, found a folder"):
        read_yaml(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbfrate: 1\r\n")
    assert read_yaml(tmp_path / "run.yaml") == {"rate": 1}


def test_absent_yaml_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such configuration file"):
        read_yaml(tmp_path / "none.yaml")


def test_yaml_cannot_make_python_objects(yaml_file):
    with pytest.raises(UserError, match="not readable as YAML"):
        read_yaml(Path(yaml_file("name: !!python/object/apply:os.getcwd []")))


@pytest.mark.parametrize("is_longer", [True, False])
def test_an_array_of_other_bytes_than_its_header_promises_is_refused(tmp_path, is_longer):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(6))
    assert map_array(path, "make it again").tolist() == [0, 1, 2, 3, 4, 5]
    path.write_bytes(path.read_bytes() + b"0" if is_longer else path.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        map_array(path, "make it again")
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("; make it again")
