"""Disks that are full or read-only, videos that vanish, a clock that goes back: one line, and a second run ends it."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import COMMANDS, make_root

EXTRACT = COMMANDS["extract"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MB of one's own, where there are rights to make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, free: int) -> Path:
    """Leave so many bytes of a disk."""
    path = folder / "full"
    status = os.statvfs(folder)
    path.write_bytes(b"0" * max(0, status.f_bavail * status.f_frsize - free))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "run_k_folds", "finetune", "pretrain"])
def test_a_full_disk_is_one_line_and_a_second_run_ends_it(small_disk, tmp_path, name):
    root = make_root(small_disk / "root").with_input_of(name)
    filling = fill(small_disk, free=8192)
    last = root.run(COMMANDS[name], code=1).splitlines()[-1]
    assert last.startswith("error: "), last
    assert "No space left on device" in last
    assert str(root.path) in last
    assert "free some space" in last
    filling.unlink()
    root.run(COMMANDS[name])
    assert [path for path in root.leftovers() if ".partial" in path.name] == []


@pytest.mark.slow
def test_a_disk_that_can_only_be_read_is_one_line(small_disk):
    root = make_root(small_disk / "root")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = root.run(EXTRACT, code=1).splitlines()[-1]
    assert "Read-only file system" in said
    assert "use another folder" in said


@contextlib.contextmanager
def without_rights(folder: Path):
    """Nobody may write into `folder` meanwhile: root, whom no rights stop, neither."""
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("root may write everywhere here")
    yield
    subprocess.run(["chattr", "-i", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "run_k_folds", "report", "pretrain"])
def test_a_folder_without_rights_is_one_line(root, name):
    targets = {
        "extract": "data/mini", "run_k_folds": "models/ColorHistogram", "report": "comparison_results",
        "pretrain": "pretrain",
    }  # fmt: skip
    folder = root.with_input_of(name).path / targets[name]
    folder.mkdir(exist_ok=True)
    with without_rights(folder):
        last = root.run(COMMANDS[name], code=1).splitlines()[-1]
    assert last.startswith("error: "), last
    assert str(folder) in last
    assert "Permission denied" in last or "Operation not permitted" in last
    assert "ask its owner for the right to it, or use another folder" in last


@pytest.mark.slow
def test_a_video_that_vanishes_costs_itself_alone(root):
    """One video is gone between the listing and its turn; another is replaced by a link to nowhere."""
    videos = sorted((root.path / "data" / "mini" / "videos").iterdir())
    videos[2].unlink()
    videos[2].symlink_to("nowhere.mp4")
    said = root.run(EXTRACT, code=1)
    assert f"{len(videos) - 1} extracted, 0 already there, 1 failed" in said
    assert videos[2].stem in said.splitlines()[-1]
    assert len(root.content("data/mini/features/*/*.npy")) == len(videos) - 1


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(root):
    """Features that seem to be of tomorrow are as finished as others."""
    root.run(EXTRACT)
    expected = root.content("data/mini/features/*/*.npy")
    for path in root.features.iterdir():
        os.utime(path, (4e9, 4e9))
    assert "0 extracted, 8 already there, 0 failed" in root.run(EXTRACT)
    assert root.content("data/mini/features/*/*.npy") == expected
