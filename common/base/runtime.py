"""The machine as every command needs it: errors and their words, logging, progress, a background thread, devices.

Nothing here imports torch at module level: commands that only read text files start without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import io
import logging
import platform
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import torch

LISTED = 8  # names spelled out before "and n more"
SHOWN = 100  # characters of a found value or name: a message stays a line, whatever a file holds
RECORDED_PACKAGES = ("numpy", "torch", "torchvision", "transformers", "timm", "av", "scikit-learn")
ItemT = TypeVar("ItemT")


class UserError(Exception):
    """Something the person at the keyboard can put right: shown as one message, without a traceback."""


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit: 0 = done, 1 = `UserError` (printed), 130 = interrupted, else main's own code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a name's characters shows their codes
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"error: {describe_os_error(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: finished files are kept; run the same command again to resume", file=sys.stderr)
        sys.exit(130)


def describe_os_error(error: OSError) -> str:
    """One line for a failed file operation: what, where, and for a full disk what to do."""
    place = f" ({error.filename})" if error.filename else ""
    hint = ""
    if error.errno in {28, 122}:  # ENOSPC, EDQUOT
        hint = "; free some space and run the same command again: finished files are kept, nothing half-written is used"
    return f"{error.strerror or error}{place}{hint}"


def first_line(error: object) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def shortened(text: str) -> str:
    """The first `SHOWN` characters of a text, and how many it has where these are not all."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def shown(value: object) -> str:
    """A found value as a message quotes it: its `repr`, shortened."""
    if isinstance(value, str) and len(value) > SHOWN:
        return f"{value[:SHOWN]!r}... ({len(value):,} characters)"
    return shortened(repr(value))


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
    """A progress bar with rate and time left on stderr; silent when stderr is not a terminal."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    return tqdm(iterable, total=total, desc=description, unit=f" {unit}", disable=quiet, dynamic_ncols=True)


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


def git_state(root: Path) -> dict[str, Any]:
    """`{"commit": hex or None, "dirty": bool or None}` of the checkout at `root` (None where there is no git)."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


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


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by all of `parts`, such as `(seed, "dropout", epoch)`: the same at any restart."""
    import torch

    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


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
