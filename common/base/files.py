"""Files as every command reads and writes them: whole or not at all, checked as they are read, known by their hashes.

Writing is atomic; text, JSON, YAML and arrays are read here alone, so that a damaged file is an error that names it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.runtime import UserError, first_line, listed, naming_target, shortened, shown

if TYPE_CHECKING:
    import numpy as np

STEM_CHARACTERS = 40  # of a temporary name: no longer than file systems take, whatever the script
NUM_BLOCKS, BLOCK_BYTES = 64, 1 << 16  # of a fingerprint
MOST_TEXT_BYTES = 1 << 28  # no text file of a data set comes near
KINDS_IN_WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "an object",
    type(None): "null",
}  # fmt: skip
ARRAY_MAGIC = b"\x93NUMPY"
# files under the name of an array, by their first bytes
NO_ARRAYS = {b"PK": "an archive of arrays, .npz", b"\x80": "a pickle, which nobody opens"}
# what numpy raises for damaged headers, which it takes for expressions of Python
HEADER_ERRORS = (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, in its folder.

    On success it replaces `path`, else it is removed. A reader therefore sees the old file, the whole new one, or none.
    """
    temporary, handle = new_temporary(path)
    try:
        with naming_target(path):
            yield temporary
            publish(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values for `torch.load`, atomically.

    Raises `OSError` for a full disk and the like, which torch tells by a `RuntimeError` of its own.
    """
    import torch

    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as stream:
                torch.save(content, stream)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None


def new_temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path` with its suffix, and an open handle, which says until it is closed that it is in use.

    Those of the same suffix in the folder that killed processes left are removed first.
    """
    path = Path(path)
    with naming_target(path):
        return _new_temporary(path)


def _new_temporary(path: Path) -> tuple[Path, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    end = f".partial{path.suffix}"
    remove_abandoned(path.parent.resolve(), end)
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:STEM_CHARACTERS]}.", suffix=end, dir=path.parent)
        if os.name == "nt":  # which renames no open file, and has no need of locks here
            os.close(handle)
            return Path(name), os.open(os.devnull, os.O_RDONLY)
        from common.base import locks

        with contextlib.suppress(OSError):  # a file system without locks: then its age tells
            locks.lock(handle)
        if locks.is_still(Path(name), handle):  # nobody took it for abandoned before it was locked
            return Path(name), handle
        os.close(handle)


@functools.cache
def remove_abandoned(folder: Path, end: str) -> None:
    """Remove temporary files with this end of their name that no process has in use, once in a run."""
    from common.base import locks

    with contextlib.suppress(OSError):  # a folder of another user, which writing will tell
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(end):
                with contextlib.suppress(OSError):
                    if locks.is_abandoned(folder / name):
                        (folder / name).unlink()


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


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it takes its place at once, else it is removed.

    After a kill call `restore_folder` first.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with naming_target(folder):
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


def link_file(source: Path, target: Path) -> None:
    """Make `target` a relative symbolic link to `source`; where links are not allowed (Windows), a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: no relative path between Windows drives
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically, with `\\n` line ends on every system."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN is refused because it is not JSON."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; every end of a line becomes `\\n`.

    Raises `UserError` naming file and line for UTF-16, another encoding, and what is no text, no file, or too large.
    """
    content = _content(Path(path))
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


def _content(path: Path) -> bytes:
    """The bytes of a regular file: a pipe would be waited for, a device never end."""
    try:
        require_regular(path)
        if (size := path.stat().st_size) > MOST_TEXT_BYTES:
            raise UserError(f"{path}: expected a text file, found {size:,} bytes; name another file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def require_regular(path: Path) -> None:
    """Raise `UserError` for a folder, a pipe or a device, and `OSError` for nothing at all."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise UserError(f"{path}: expected a file, found {found}; move it away, or name another")


def read_json(path: Path, advice: str = "delete it and run the command that wrote it") -> Any:
    """Read a JSON file. Raises `UserError` as `parse_json` does, and for what is no text file."""
    return parse_json(read_text(path), str(path), advice)


def parse_json(text: str, where: str, advice: str) -> Any:
    """A value of JSON as the standard has it (RFC 8259), with each key once, finite numbers, whole characters.

    Raises `UserError` in one line that begins with `where`, names the place in the text and ends with `advice`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"the key {shown(key)} is there twice")
            content[key] = value
        return content

    def finite(word: str) -> float:
        number = float(word)
        if not math.isfinite(number):
            raise ValueError(f"{shown(word)} is no finite number")
        return number

    def whole(word: str) -> int:
        if not math.isfinite(float(word)):
            raise ValueError(f"a whole number of {len(word)} digits")
        return int(word)

    # every whole number is looked at only where one may be beyond what a float holds: lists of them are long
    parse_int = whole if re.search(r"\d{309}", text) else None
    try:
        content = json.loads(
            text, object_pairs_hook=once, parse_float=finite, parse_int=parse_int, parse_constant=finite
        )
        if "\\ud" in text.lower():  # half of a pair of surrogates is no character, and cannot be written again
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: not a readable JSON file (half a character, \\u without its pair); {advice}"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where}: not a readable JSON file (brackets in each other without end); {advice}") from error
    except ValueError as error:  # of `json`: with line and column; of Python: a number of thousands of digits
        reason = shortened(str(error)).partition("; use sys")[0]
        raise UserError(f"{where}: not a readable JSON file ({reason}); {advice}") from error
    return content


def misfit(value: Any, shape: Any, place: str = "") -> str:
    """The first place where a value of JSON is not of a shape, with what is expected and found; empty where it is.

    A shape is a type or several (`str | None`), a mapping of keys to shapes (`"key?"`: may be absent or null; others
    may be there too), `[shape]` for a list of it, and `{str: shape}` for a mapping of any keys. Whole numbers are numbers
    (`float`); truth values and infinity are none.
    """
    if isinstance(shape, dict) and isinstance(value, dict):
        if str in shape:
            entries = [(key, value[key], shape[str]) for key in value]
        else:
            known = {key.removesuffix("?"): inner for key, inner in shape.items()}
            absent = [key for key in shape if key not in value and not key.endswith("?")]
            if absent:
                return f"{place and f'{place}: '}{listed(absent)} missing"
            optional = {key.removesuffix("?") for key in shape if key.endswith("?")}
            entries = [
                (key, value[key], inner)
                for key, inner in known.items()
                if key in value and not (key in optional and value[key] is None)
            ]
        places = ((f"{place}.{shortened(str(key))}" if place else shortened(str(key)), *rest) for key, *rest in entries)
        return next(filter(None, (misfit(inner, wanted, where) for where, inner, wanted in places)), "")
    if isinstance(shape, list) and isinstance(value, list):
        if isinstance(shape[0], type) and set(map(type, value)) <= {shape[0], *([int] if shape[0] is float else [])}:
            return ""  # lists of times and of frames are long
        found = (misfit(inner, shape[0], f"{place}[{index}]") for index, inner in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(shape, dict | list):
        return _not_as_expected(place, "an object" if isinstance(shape, dict) else "a list", value)
    kinds = typing.get_args(shape) or (shape,)
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, float):
        fits = float in kinds and math.isfinite(value)
    else:
        fits = isinstance(value, kinds) or (isinstance(value, int) and float in kinds)
    return "" if fits else _not_as_expected(place, " or ".join(KINDS_IN_WORDS[kind] for kind in kinds), value)


def _not_as_expected(place: str, expected: str, value: Any) -> str:
    return f"{place and f'{place}: '}expected {expected}, found {shown(value)}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises `UserError` in one line, naming the file and the place in it, when it is missing, damaged, not a mapping, or
    says something twice.
    """
    import yaml

    if not os.path.exists(path):
        raise UserError(f"{path}: no such configuration file")
    try:
        content = yaml.load(read_text(path), _loader())
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: not readable as YAML ({place}{shortened(problem or error.reason)})") from error
    except RecursionError as error:
        raise UserError(f"{path}: not readable as YAML (brackets in each other without end)") from error
    except (ValueError, TypeError, LookupError) as error:  # 2024-02-31 is no date; what a tag such as !!int cannot take
        raise UserError(f"{path}: not readable as YAML ({shortened(str(error))})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    return content


@functools.cache
def _loader() -> type:
    """The safe loader of YAML, which besides refuses what can say two things, or grow without end."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):  # a few lines of them stand for gigabytes
                mark = self.peek_event().start_mark
                raise yaml.constructor.ConstructorError(None, None, "an alias (*); write the value again", mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node, deep=False):
            """As the safe loader's, which takes the last value of a key that is there twice."""
            seen = set()
            for key_node, _ in node.value:
                is_word = isinstance(key_node, yaml.ScalarNode)
                key = self.construct_object(key_node) if is_word else None
                if not is_word or key in seen:
                    problem = f"the key {shown(key)} is there twice" if is_word else "a key must be a single word"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def map_array(path: Path, advice: str) -> np.ndarray:
    """The array of a `.npy` file, mapped from the disk and read-only.

    Raises `UserError` naming the file and ending with `advice` for another kind of file, a damaged header, other than
    real numbers, no number at all, and fewer or more bytes than the header promises.
    """
    import numpy as np
    from numpy.lib import format as npy

    try:
        require_regular(path)
        with path.open(
            "rb"
        ) as stream:  # once, which a disk of a network answers slowly: numpy's own function opens twice
            start, size = stream.read(len(ARRAY_MAGIC)), os.fstat(stream.fileno()).st_size
            if start != ARRAY_MAGIC:
                found = next(
                    (what for magic, what in NO_ARRAYS.items() if start.startswith(magic)), "it does not begin as one"
                )
                raise UserError(f"{path}: truncated or not a .npy array ({found if size else 'it is empty'}); {advice}")
            stream.seek(0)
            version = npy.read_magic(stream)
            # versions 2 and 3 differ in how names of columns are written, which no array of numbers has
            headers = {(1, 0): npy.read_array_header_1_0, **dict.fromkeys([(2, 0), (3, 0)], npy.read_array_header_2_0)}
            if version not in headers:
                raise ValueError(f"its version {version[0]}.{version[1]} is unknown")
            shape, is_fortran, dtype = headers[version](stream)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            if dtype.kind not in "fiu":
                raise UserError(f"{path}: expected real numbers, found {shortened(str(dtype))}; {advice}")
            order = "F" if is_fortran else "C"
            array = np.memmap(stream, dtype, mode="r", offset=stream.tell(), shape=shape, order=order)
    except HEADER_ERRORS as error:
        raise UserError(f"{path}: truncated or not a .npy array ({shortened(first_line(error))}); {advice}") from error
    except EOFError as error:
        raise UserError(f"{path}: truncated or not a .npy array (it ends too early); {advice}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from error
    if array.offset + array.nbytes != size:
        raise UserError(f"{path}: {size:,} bytes, but its header promises {array.offset + array.nbytes:,}; {advice}")
    return array


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON: equal for equal content, whatever the key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


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
