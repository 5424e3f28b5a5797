"""What every command needs: exit codes, atomic files, hashes, git state, devices, generators."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch

from common.base.runtime import (
    UserError,
    atomic_path,
    describe_os_error,
    generator,
    git_state,
    keep_freed_memory,
    link_file,
    peak_memory_bytes,
    progress,
    read_json,
    run_main,
    select_device,
    sha256_of_file,
    sha256_of_json,
    versions,
    write_json,
    write_text,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- exit codes ---------------------------------------------------------------------------------------------------


def raiser(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda: None, 0),
        (lambda: 0, 0),
        (lambda: 3, 3),
        (raiser(UserError("no such fold")), 1),
        (raiser(OSError(errno.ENOSPC, "No space left on device", "/data/x.npy")), 1),
        (raiser(KeyboardInterrupt()), 130),
    ],
    ids=["nothing", "zero", "its own code", "user error", "full disk", "interrupted"],
)
def test_exit_code_of_a_command(main, code):
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert stopped.value.code == code


def test_user_error_is_one_line_on_stderr(capsys):
    with pytest.raises(SystemExit):
        run_main(raiser(UserError("no such fold")))
    assert capsys.readouterr() == ("", "error: no such fold\n")


def test_full_disk_names_the_file_and_what_to_do(capsys):
    with pytest.raises(SystemExit):
        run_main(raiser(OSError(errno.ENOSPC, "No space left on device", "/data/x.npy")))
    said = capsys.readouterr().err
    assert "No space left on device (/data/x.npy)" in said
    assert "free some space" in said


def test_other_file_errors_give_no_advice_about_space():
    assert describe_os_error(PermissionError(errno.EACCES, "Permission denied", "/x")) == "Permission denied (/x)"


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("of a library, without number or file")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error), match=str(error)):
        run_main(raiser(error))


def test_a_command_that_fails_shows_no_traceback():
    code = "from common.base.runtime import *\ndef main(): raise UserError('no such fold')\nrun_main(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: no such fold\n")


def test_progress_is_silent_without_a_terminal(capsys):
    assert list(progress(range(3), description="frames")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


# --- atomic files -------------------------------------------------------------------------------------------------


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
    code = "import pathlib, sys; from common.base.runtime import write_text; write_text(pathlib.Path(sys.argv[1]), 'x')"
    path = tmp_path / "result.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, umask=umask)
    assert path.stat().st_mode & 0o777 == mode


def test_text_has_unix_line_ends_and_utf8(tmp_path):
    write_text(tmp_path / "t.txt", "a\nµ\n")
    assert (tmp_path / "t.txt").read_bytes() == b"a\n\xc2\xb5\n"


# --- JSON, links, hashes ------------------------------------------------------------------------------------------


def test_json_reads_back(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"x": "µ"}}
    write_json(tmp_path / "r.json", content)
    assert read_json(tmp_path / "r.json") == content
    assert list(json.loads((tmp_path / "r.json").read_text())) == ["b", "a"]


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}"])
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


# --- where and with what it ran -----------------------------------------------------------------------------------


@pytest.fixture
def checkout_of_one_file(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath=/dev/null"]
        words = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "--no-gpg-sign", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD")


def test_git_state_of_a_clean_checkout(checkout_of_one_file):
    folder, commit = checkout_of_one_file
    assert git_state(folder) == {"commit": commit, "dirty": False}


def test_git_state_of_a_changed_checkout_is_dirty(checkout_of_one_file):
    folder, commit = checkout_of_one_file
    (folder / "file").write_text("2")
    assert git_state(folder) == {"commit": commit, "dirty": True}


def test_files_git_does_not_know_are_not_a_change(checkout_of_one_file):
    folder, _ = checkout_of_one_file
    (folder / "result").write_text("x")
    assert git_state(folder)["dirty"] is False


def test_git_state_without_a_checkout_is_unknown(tmp_path):
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


def test_git_state_without_git_is_unknown(checkout_of_one_file, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout_of_one_file[0]) == {"commit": None, "dirty": None}


def test_versions_name_python_and_the_packages_that_change_numbers():
    found = versions()
    assert found["torch"] == torch.__version__.split("+")[0]
    assert found["python"] == sys.version.split()[0]
    assert {"numpy", "torchvision", "timm", "av"} <= found.keys()


def test_peak_memory_is_plausible():
    assert 2e7 < peak_memory_bytes() < 1e12


def test_keeping_freed_memory_may_be_asked_for_twice():
    keep_freed_memory()
    keep_freed_memory()


# --- devices ------------------------------------------------------------------------------------------------------


def machine(monkeypatch, *, cuda: int = 0, mps: bool = False) -> None:
    """Pretend that this machine has `cuda` CUDA devices, or Apple's MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("have", "best"), [({"cuda": 2, "mps": True}, "cuda"), ({"cuda": 1}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")]
)
def test_auto_takes_the_best_device(monkeypatch, have, best):
    machine(monkeypatch, **have)
    assert select_device("auto").type == best
    assert select_device().type == best


@pytest.mark.parametrize(
    ("have", "name"), [({}, "cpu"), ({"cuda": 2}, "cuda"), ({"cuda": 2}, "cuda:1"), ({"cuda": 2}, "cpu")]
)
def test_named_device_is_taken(monkeypatch, have, name):
    machine(monkeypatch, **have)
    assert str(select_device(name)) == name


@pytest.mark.parametrize(
    ("have", "name", "complaint"),
    [
        ({}, "cuda", "this machine has no usable CUDA device"),
        ({}, "cuda:0", "this machine has no usable CUDA device"),
        ({"cuda": 2}, "cuda:2", "there are only 2 CUDA devices"),
        ({}, "mps", "MPS is not available here"),
        ({}, "gpu", "not a device"),
        ({}, "cpu:x", "not a device"),
    ],
)
def test_absent_device_is_an_error_not_a_fallback(monkeypatch, have, name, complaint):
    machine(monkeypatch, **have)
    with pytest.raises(UserError, match=f"--device {name}: {complaint}"):
        select_device(name)


# --- generators ---------------------------------------------------------------------------------------------------


def draw(*parts) -> list[float]:
    return torch.rand(8, generator=generator(*parts)).tolist()


def test_generator_is_decided_by_its_parts():
    assert draw(42, "dropout", 3) == draw(42, "dropout", 3)


@pytest.mark.parametrize("other", [(43, "dropout", 3), (42, "order", 3), (42, "dropout", 4), (42, "dropout"), ()])
def test_generators_of_other_parts_are_independent(other):
    assert draw(42, "dropout", 3) != draw(*other)


def test_neighbouring_parts_do_not_run_together():
    assert draw(1, 23) != draw(12, 3)
    assert draw("1") != draw(1)


def test_generators_of_neighbouring_seeds_are_uncorrelated():
    first, second = (torch.rand(20_000, generator=generator(seed)) for seed in (1, 2))
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1].item()) < 0.03  # 4 standard deviations


def test_generator_neither_reads_nor_moves_the_global_one():
    torch.manual_seed(0)
    first = draw(42)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert draw(42) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_generator_is_the_same_in_another_process():
    code = "import torch; from common.base.runtime import generator; print(torch.rand(8, generator=generator(42, 'x')).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == draw(42, "x")
