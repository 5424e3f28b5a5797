"""The machine as every command needs it: errors and their words, logging, progress, a background thread, devices.

Nothing here imports torch at module level: commands that only read text files start without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import errno
import functools
import hashlib
import importlib.metadata
import io
import logging
import math
import os
import platform
import queue
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from types import FrameType

    import torch

LISTED = 8  # names spelled out before "and n more"
LONGEST_PATH = 600  # characters that a message shows of one
SHOWN = 100  # characters of a found value or name: a message stays a line, whatever a file holds
RECORDED_PACKAGES = ("numpy", "torch", "torchvision", "transformers", "timm", "av", "scikit-learn")
TERMINATING = ("SIGTERM", "SIGHUP")
INTERRUPTING = ("SIGINT", *TERMINATING)
INTERRUPTED = "interrupted: finished files are kept; run the same command again to resume"
LINE_SECONDS = 60.0  # from one line of progress to the next where there is no terminal
LOADING_SECONDS = 2.0  # after which a person wonders whether a command has started
ItemT = TypeVar("ItemT")


class UserError(Exception):
    """Something the person at the keyboard can put right: shown as one message, without a traceback."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks the command to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _raise_interrupted(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):  # an exception there can meet C++ that ends the process with a trace of its own
        _exit_at_once(number, frame)
    _handle_signals(signal.SIG_IGN, TERMINATING)  # a scheduler may send it again, while temporary files are removed
    raise Interrupted(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether what runs in `frame` was called by an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _exit_at_once(number: int, frame: object) -> None:
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(128 + number)


def _handle_signals(handler: Any, names: Iterable[str] = INTERRUPTING) -> None:
    for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # one that is ignored from the start stays so: nohup, a background job of a script
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _raise_again(unraisable: Any) -> None:
    """Python shows and forgets what is raised inside a finaliser; an interruption is to be heard all the same."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    number = unraisable.exc_value.number
    signal.signal(number, _raise_interrupted)
    threading.Timer(0.01, signal.raise_signal, [number]).start()


def _say_loading() -> None:
    """Tell a person at a terminal who sees nothing yet that libraries are being read: from a cold disk that takes long."""

    def say() -> None:
        if _is_importing(sys._current_frames().get(main_thread)):
            print("loading ...", file=sys.stderr, flush=True)

    if sys.stderr.isatty():
        main_thread = threading.main_thread().ident
        timer = threading.Timer(LOADING_SECONDS, say)
        timer.daemon = True
        timer.start()


def _is_command() -> bool:
    """Whether the program that is starting is one of this checkout: not another's that imports it, nor a child."""
    main, processes = sys.modules.get("__main__"), sys.modules.get("multiprocessing.process")
    if main is None or (processes and processes.parent_process()):
        return False
    if main.__spec__ is not None:  # python -m
        return main.__spec__.name.startswith(("common.", "pretrain."))
    script, checkout = Path(getattr(main, "__file__", None) or "/").resolve(), Path(__file__).resolve().parents[2]
    return script.is_relative_to(checkout) and not script.is_relative_to(sys.prefix)


if _is_command() and threading.current_thread() is threading.main_thread():
    _handle_signals(_exit_at_once)  # it is importing: there is nothing to tidy up yet, and a traceback tells nothing
    _say_loading()


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit with main's own code (0 = done), or, with one message:

    1 = `UserError` or a failed file operation; 128 + its number = ended by a signal (129 SIGHUP, 130 SIGINT, 143
    SIGTERM), after tidying up, or by a pipe that nobody reads (141 SIGPIPE), with no message.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a name's characters shows their codes
            stream.reconfigure(errors="backslashreplace")
    _handle_signals(_raise_interrupted)
    sys.unraisablehook = _raise_again
    try:
        try:
            sys.exit(main() or 0)
        except SystemExit:
            sys.stdout.flush()  # here, where a reader who has left is no error
            raise
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        _leave_without_reader(error)
        if error.filename is None and error.errno is None:
            raise
        print(f"error: {describe_os_error(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT))


def _leave_without_reader(error: OSError) -> None:
    """Exit as every other tool does when whoever reads its output (`| head`) has what it wants; else return."""
    if not isinstance(error, BrokenPipeError) or os.name == "nt":
        return
    waiting = select.poll()  # a pipe to a child may have broken as well: that is for a message
    waiting.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in waiting.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(128 + signal.SIGPIPE)


def describe_os_error(error: OSError) -> str:
    """One line for a failed file operation: what, where, and for a full disk what to do."""
    place = f" ({shortened_path(error.filename)})" if error.filename else ""
    hint = ""
    if error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", None)}:
        hint = "; free some space and run the same command again: finished files are kept, nothing half-written is used"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        hint = "; ask its owner for the right to it, or use another folder"
    elif error.errno == errno.EROFS:
        hint = "; this disk can only be read: use another folder (SICS155_ROOT=FOLDER moves data, models and results)"
    return f"{error.strerror or error}{place}{hint}"


@contextlib.contextmanager
def naming_target(path: Path) -> Iterator[None]:
    """Let failed file operations name `path`, and not a temporary file beside it, or none."""
    try:
        yield
    except OSError as error:
        is_beside = error.filename is None or os.path.dirname(os.fspath(error.filename)) == str(path.parent)
        if error.errno is None or not is_beside:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def first_line(error: object) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def printable(text: str) -> str:
    """A text for messages: what cannot be shown, or be seen, is spelled as in Python (`\\udce9`, `\\n`, `\\xa0`)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shortened(text: str) -> str:
    """The first `SHOWN` characters of a text, printable, and how many it has where these are not all."""
    return printable(text) if len(text) <= SHOWN else f"{printable(text[:SHOWN])}... ({len(text):,} characters)"


def shortened_path(path: object) -> str:
    """A path, printable; one of thousands of characters without its middle."""
    text = printable(str(path))
    return text if len(text) <= LONGEST_PATH else f"{text[: LONGEST_PATH // 2]}...{text[-LONGEST_PATH // 2 :]}"


def shown(value: object) -> str:
    """A found value as a message quotes it: its `repr`, shortened."""
    if isinstance(value, str) and len(value) > SHOWN:
        return f"{value[:SHOWN]!r}... ({len(value):,} characters)"
    return shortened(repr(value))


def nearest_name(text: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name most like a misspelt one, at least `cutoff` by `difflib`'s ratio; None where none is."""
    return next(iter(difflib.get_close_matches(text[:SHOWN], known, n=1, cutoff=cutoff)), None)


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """`a, b, c`, shortened to `most` names and a count."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shortened, names[:most])) + more


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def naming(path: Path, error: Exception) -> str:
    """The text of an error, with the file in front where it does not name it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def progress(iterable: Iterable | None = None, *, total: int | None = None, description: str = "", unit: str = "it"):
    """A progress bar with rate and time left on stderr; where that is no terminal (SLURM) a line every minute.

    Processes that a command started are silent: their bars would write over its own.
    """
    from tqdm import tqdm

    processes = sys.modules.get("multiprocessing.process")
    quiet = bool(processes and processes.parent_process())
    if sys.stderr.isatty() or quiet:
        return tqdm(iterable, total=total, desc=description, unit=f" {unit}", disable=quiet, dynamic_ncols=True)
    has_total = total is not None or hasattr(iterable, "__len__")
    units = unit if unit.endswith("s") else f"{unit}s"
    done = f"{{n:,}} of {{total:,}} {units}, {{remaining}} left" if has_total else f"{{n:,}} {units}"
    title = "{desc}: " if description else ""
    line = {"bar_format": f"{title}{done}, {{elapsed}} so far{{postfix}}", "file": _Lines(), "leave": False}
    seconds = {"mininterval": LINE_SECONDS, "maxinterval": math.inf, "delay": LINE_SECONDS, "miniters": 1}
    return tqdm(iterable, total=total, desc=description, **line, **seconds)


class _Lines(io.TextIOBase):
    """What tqdm writes over and over in one line, as lines of a log."""

    def write(self, text: str) -> int:
        # a bar beside another goes up a line again
        if shown_text := text.replace("\x1b[A", "").strip():
            print(shown_text, file=sys.stderr, flush=True)
        return len(text)


def prefetch(items: Iterable[ItemT], depth: int = 2) -> Iterator[ItemT]:
    """Yield `items` in order, at most `depth` of them computed ahead in one background thread.

    An exception in the thread is raised here, after the items before it. Leaving the loop early stops the thread. The
    thread must not draw from a shared random generator: the order of draws would depend on its speed.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # handed to the consumer, which raises it
            put((end, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()


@functools.cache  # a command runs the code that it loaded at its start, however many records it writes
def git_state(root: Path) -> dict[str, Any]:
    """`{"commit": hex or None, "dirty": bool or None}` of the checkout at `root` (None where there is no git)."""
    words = ["status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no"]
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    # `# branch.oid HEX` and other lines of the branch, then a line for each changed file; before the first commit `(initial)`
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", done.stdout, re.MULTILINE)
    if done.returncode or commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit[1], "dirty": any(not line.startswith("#") for line in done.stdout.splitlines())}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def select_device(name: str = "auto") -> torch.device:
    """The named torch device; `auto` takes CUDA, then Apple's MPS, then the CPU. An absent device is an error."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: not a device (use auto, cpu, cuda, cuda:0 ...)") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no usable CUDA device; use --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are only {torch.cuda.device_count()} CUDA devices (numbered from 0)")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: MPS is not available here; use --device cpu or auto")
    return device


def choose_algorithms(*, deterministic: bool) -> None:
    """Have torch use algorithms that give the same bits at every run on a machine, or on a GPU the fastest, whose sums may differ.

    An operation that has no such algorithm is an error of torch that names it.
    """
    import torch

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # that would be a pass over everything that is written anyway
    )


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by all of `parts`, such as `(seed, "dropout", epoch)`: the same at any restart."""
    import torch

    return reseed(torch.Generator(device), *parts)


def reseed(generator: torch.Generator, *parts: int | str) -> torch.Generator:
    """Put a generator to the start of what `generator(*parts)` draws, and return it."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for reuse.

    Large tensors are otherwise given back to the kernel after each layer and faulted in again, which costs up to
    half of the CPU time of a convolutional network. Does nothing on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    for option, value in ((m_mmap_threshold, 1 << 30), (m_top_pad, 0), (m_trim_threshold, 2**31 - 1)):
        mallopt(option, value)


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far, in bytes (None on Windows, which has no getrusage)."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU that computes in it, else fp32."""
    import torch

    if name != "auto":
        return name

    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def device_name(device: torch.device) -> str:
    """A device and what decides its last digits: the GPU's model, or the CPU's vector instructions."""
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type
