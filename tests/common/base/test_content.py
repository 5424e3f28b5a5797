"""Hashes that a machine remembers: read once, again after every change, and never trusted when damaged."""

import os
import time

import pytest

from common.base import content, paths
from common.base.content import known_sha256
from common.base.files import sha256_of_file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own."""
    monkeypatch.setenv("SICS155_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """The files that were read for their hashes, in order."""
    names = []
    monkeypatch.setattr(content, "sha256_of_file", lambda path: (names.append(path.name), sha256_of_file(path))[1])
    return names


def old_file(path, text):
    """A file that was written an hour ago."""
    path.write_text(text)
    os.utime(path, (time.time() - 3600,) * 2)
    return path


def test_an_unchanged_file_is_read_once(tmp_path, cache, reads):
    path = old_file(tmp_path / "a.npy", "features")
    assert known_sha256(path) == known_sha256(path) == sha256_of_file(path)
    assert reads == ["a.npy"]


@pytest.mark.parametrize("text", ["features, longer", "FEATURES"])
def test_a_changed_file_is_read_again(tmp_path, cache, reads, text):
    path = old_file(tmp_path / "a.npy", "features")
    before = known_sha256(path)
    path.write_text(text)
    assert known_sha256(path) == sha256_of_file(path) != before


def test_another_file_of_the_same_size_and_time_is_read(tmp_path, cache, reads):
    """As a copy by `cp -p` over it: the inode tells."""
    path = old_file(tmp_path / "a.npy", "features")
    known_sha256(path)
    status = path.stat()
    other = tmp_path / "other"
    other.write_text("FEATURES")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert known_sha256(path) == sha256_of_file(path)


def test_a_file_of_this_moment_is_not_remembered(tmp_path, cache, reads):
    """It may change again without another time of change."""
    path = tmp_path / "a.npy"
    path.write_text("features")
    known_sha256(path)
    known_sha256(path)
    assert reads == ["a.npy", "a.npy"]


@pytest.mark.parametrize("damage", ["", "{}", "[]", "null", '{"sha256": 7}', "\0"])
def test_a_damaged_memory_is_none(tmp_path, cache, reads, damage):
    path = old_file(tmp_path / "a.npy", "features")
    known_sha256(path)
    (note,) = (cache / "sha256").iterdir()
    note.write_text(damage)
    assert known_sha256(path) == sha256_of_file(path)
    assert reads == ["a.npy", "a.npy"]


def test_without_a_cache_folder_the_file_is_read_every_time(tmp_path, cache, reads):
    path = old_file(tmp_path / "a.npy", "features")
    cache.write_text("a file in its place")
    assert known_sha256(path) == known_sha256(path) == sha256_of_file(path)
    assert reads == ["a.npy", "a.npy"]


def test_a_user_without_a_home_is_no_error(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(paths, "user_cache", no_home)
    path = old_file(tmp_path / "a.npy", "features")
    assert known_sha256(path) == sha256_of_file(path)
