"""The machine as every command needs it: errors, logging, progress, atomic files, hashes, git state, devices.

Nothing here imports torch at module level: commands that only read text files start without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch

NUM_BLOCKS, BLOCK_BYTES = 64, 1 << 16  # of a fingerprint
RECORDED_PACKAGES = ("numpy", "torch", "torchvision", "transformers", "timm", "av", "scikit-learn")


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


def progress(iterable: Iterable | None = None, *, total: int | None = None, description: str = "", unit: str = "it"):
    """A progress bar with rate and time left on stderr; silent when stderr is not a terminal."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    return tqdm(iterable, total=total, desc=description, unit=f" {unit}", disable=quiet, dynamic_ncols=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, in its folder.

    On success it replaces `path`, else it is removed. A reader therefore sees the old file, the whole new one, or none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Flush `temporary` to the disk and give it its final name, with the permissions of an ordinary new file."""
    with open(temporary, "rb+") as stream:
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically, with `\\n` line ends on every system."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; every end of a line becomes `\\n`.

    Raises `UserError` naming file and line for UTF-16, another encoding, and what is no text.
    """
    content = Path(path).read_bytes()
    wanted = "expected plain text in UTF-8; save it again as that"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f'{path}, line 1: text in UTF-16 ("Unicode" in some editors), {wanted}')
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: no text in UTF-8 ({error.reason}), {wanted}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: zero bytes (UTF-16, or no text), {wanted}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN is refused because it is not JSON."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable JSON file ({error}); delete it and run the command that wrote it"
        ) from error


def lacking(record: Any, keys: Mapping[str, type]) -> str:
    """Those of `keys` that a JSON record has not, or not with a value of its type, in words; empty when it has all."""
    if not isinstance(record, dict):
        return "not an object"
    wrong = [key for key, kind in keys.items() if not isinstance(record.get(key), kind)]
    return f"without a proper {', '.join(wrong)}" if wrong else ""


def link_file(source: Path, target: Path) -> None:
    """Make `target` a relative symbolic link to `source`; where links are not allowed (Windows), a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: no relative path between Windows drives
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def video_fingerprint(path: Path) -> str:
    """Hex SHA-256 of a file's size and of 64 blocks of 64 KiB spread evenly over it; small files are read whole.

    Equal files have equal fingerprints, under any name. Another encoding of the same picture has another one. That of a
    folder of images is of their names and sizes, and of 64 of them as files.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        images = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
        spread = sorted(
            {(len(images) - 1) * block // (NUM_BLOCKS - 1) for block in range(NUM_BLOCKS)} if images else ()
        )
        content = [video_fingerprint(images[index]) for index in spread]
        return sha256_of_json([[[image.name, image.stat().st_size] for image in images], content])
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    digest = hashlib.sha256(f"{status.st_size}:".encode())
    with open(path, "rb") as stream:
        if status.st_size <= NUM_BLOCKS * BLOCK_BYTES:
            digest.update(stream.read())
        else:  # evenly spread, so that the first and the last block are among them
            for block in range(NUM_BLOCKS):
                stream.seek((status.st_size - BLOCK_BYTES) * block // (NUM_BLOCKS - 1))
                digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def video_bytes(path: Path) -> int:
    """Size of a video file, or of the images in a folder together."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())


def cached_fingerprint(path: Path) -> str:
    """`video_fingerprint`, computed once in a run for a file that does not change."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):  # whose images may change without it
        return video_fingerprint(path)
    return _fingerprint(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.cache
def _fingerprint(path: Path, size_bytes: int, modified_ns: int) -> str:
    return video_fingerprint(path)


def sha256_of_json(content: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON: equal for equal content, whatever the key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


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


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it takes its place at once, else it is removed.

    After a kill call `restore_folder` first.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.iterdir():
            publish(file, file)  # flushed, and readable for all
        former = _former(folder)
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Undo what a kill inside `atomic_folder` left: nothing half-written stays, a folder put aside comes back."""
    shutil.rmtree(folder.with_name(f".{folder.name}.partial"), ignore_errors=True)
    former = _former(folder)
    if former.exists() and not folder.exists():
        former.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")
