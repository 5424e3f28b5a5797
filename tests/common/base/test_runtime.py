"""What every command needs: exit codes, words of messages, background work, git state, devices, generators."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from common.base import runtime
from common.base.runtime import (
    UserError,
    counted,
    describe_os_error,
    generator,
    git_state,
    keep_freed_memory,
    listed,
    naming,
    peak_memory_bytes,
    prefetch,
    progress,
    run_main,
    select_device,
    shown,
    versions,
)

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
    assert describe_os_error(PermissionError(errno.EACCES, "Permission denied", "/x")) == (
        "Permission denied (/x); ask its owner for the right to it, or use another folder"
    )


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


def test_off_a_terminal_long_work_is_told_a_line_at_a_time(capsys, monkeypatch):
    monkeypatch.setattr(runtime, "LINE_SECONDS", 0.05)
    with progress(total=1_200, description="Base SICS155 split 1", unit="epochs") as bar:
        for epoch in range(4):
            time.sleep(0.06)
            bar.set_postfix(loss=f"{epoch}.5", refresh=False)
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    line = r"Base SICS155 split 1: (\d) of 1,200 epochs, [\d:]+ left, 00:00 so far, loss=(\d)\.5"
    found = [re.fullmatch(line, each) for each in lines]
    assert len(found) >= 3
    assert all(found), lines
    assert all(int(each[1]) == int(each[2]) + 1 for each in found)  # the loss of the epoch that was done last


def test_work_of_unknown_length_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(runtime, "LINE_SECONDS", 0.01)
    for _ in progress(iter(range(3)), description="read", unit="files"):
        time.sleep(0.02)
    assert capsys.readouterr().err.splitlines()[0].startswith("read: 1 files, 00:00 so far")


def test_a_bar_inside_another_leaves_no_signs_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(runtime, "LINE_SECONDS", 0.01)
    for _ in progress(range(2), description="videos", unit="video"):
        for _ in progress(range(3), description="decode", unit="frame"):
            time.sleep(0.02)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() and line for line in lines), lines
    assert lines[0].startswith("decode: 1 of 3 frames, ")


def piped(code: str, command: str) -> tuple[int, str]:
    """The exit code of a command whose output goes to another, and what is on stderr."""
    words = f"set -o pipefail; {sys.executable} -c '{code}' | {command}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no pipes of this kind")
@pytest.mark.parametrize(
    "body", ["for i in range(200_000): print(i)", "print(1, flush=True); time.sleep(0.3); print(2); sys.exit(0)"]
)
def test_a_reader_who_has_enough_is_no_error(body):
    code = f"import sys, time\nfrom common.base.runtime import *\ndef main():\n    {body}\nrun_main(main)"
    assert piped(code, "head -n 1 >/dev/null") == (141, "")


def test_a_pipe_that_is_read_to_its_end_is_a_success():
    code = "from common.base.runtime import *\ndef main(): print(1)\nrun_main(main)"
    assert piped(code, "cat >/dev/null") == (0, "")


def on_a_terminal(code: str) -> str:
    """What a program shows to a person."""
    import pty

    shown_text, (ours, theirs) = b"", pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    while True:
        try:
            part = os.read(ours, 1024)
        except OSError:  # closed at the other end
            break
        if not part:
            break
        shown_text += part
    process.wait()
    os.close(ours)
    return shown_text.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no such terminals")
@pytest.mark.parametrize(("seconds", "shows"), [(0.6, True), (0.0, False)])
def test_slow_imports_are_told_at_a_terminal(tmp_path, seconds, shows):
    (tmp_path / "slow_library.py").write_text(f"import time\ntime.sleep({seconds})\n")
    code = (
        f"import sys, time\nsys.path.insert(0, {str(tmp_path)!r})\nfrom common.base import runtime\n"
        "runtime.LOADING_SECONDS = 0.3\nruntime._say_loading()\nimport slow_library\ntime.sleep(0.6)"
    )
    assert ("loading ..." in on_a_terminal(code)) == shows


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


@pytest.mark.slow
def test_generator_is_the_same_in_another_process():
    code = "import torch; from common.base.runtime import generator; print(torch.rand(8, generator=generator(42, 'x')).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == draw(42, "x")


# --- words of messages ----------------------------------------------------------------------------------------------


def test_long_lists_are_shortened():
    assert listed([str(number) for number in range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert listed([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed(["a", "x" * 1_000]) == f"a, {'x' * 100}... (1,000 characters)"


def test_found_values_are_shown_in_a_line():
    assert (shown("two\nlines"), shown(3.5), shown(["a"])) == (r"'two\nlines'", "3.5", "['a']")
    assert shown("x" * 10_000_000) == f"'{'x' * 100}'... (10,000,000 characters)"
    assert len(shown(list(range(10_000)))) < 150


def test_nouns_are_counted():
    assert [counted(count, "video") for count in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]


def test_an_error_is_given_its_file_once():
    path = Path("data/mapping.txt")
    assert naming(path, UserError("ids must run from 0")) == f"{path}: ids must run from 0"
    assert naming(path, UserError(f"{path}, line 2: no")) == f"{path}, line 2: no"


# --- background work ------------------------------------------------------------------------------------------------


def threads() -> int:
    return threading.active_count()


def wait_until(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_items_come_in_order_each_once(depth):
    assert list(prefetch(iter(range(20)), depth)) == list(range(20))


def test_no_items_give_none():
    assert list(prefetch([])) == []


def test_none_and_false_are_items_like_others():
    assert list(prefetch([None, False, 0])) == [None, False, 0]


def test_items_are_made_ahead_up_to_the_depth_and_no_further():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    loop = prefetch(items(), depth=3)
    assert next(loop) == 0
    # one used, three waiting, one in the thread's hand
    assert wait_until(lambda: len(made) == 5)
    time.sleep(0.2)
    assert len(made) == 5
    loop.close()


def test_items_are_made_in_another_thread():
    names = list(prefetch(threading.current_thread().name for _ in range(2)))
    assert threading.current_thread().name not in names


def test_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("damaged")

    got = []
    with pytest.raises(ValueError, match="damaged"):
        got.extend(prefetch(items()))
    loop = prefetch(items())
    assert [next(loop), next(loop)] == [1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(loop)


def test_error_before_the_first_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(prefetch(1 // number for number in (0, 1)))


def test_an_interrupt_in_the_thread_reaches_the_loop():
    def items():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(prefetch(items()))


def test_leaving_the_loop_early_stops_the_thread():
    before = threads()
    for number in prefetch(iter(range(1_000_000)), depth=1):
        if number == 3:
            break
    assert wait_until(lambda: threads() == before)


def test_an_error_in_the_loop_stops_the_thread():
    before = threads()
    loop = prefetch(iter(range(1_000_000)), depth=1)

    def consume():
        for _ in loop:
            raise RuntimeError("consumer")

    with pytest.raises(RuntimeError, match="consumer"):
        consume()
    loop.close()
    assert threads() == before


def test_a_finished_loop_leaves_no_thread():
    before = threads()
    list(prefetch(range(5)))
    assert threads() == before
