"""Weight files on the disk: which files of a folder hold tensors, and their content, read without running code.

A file is told by its first bytes, never by its name: a page saved as `.pth` is named as a page, a safetensors file under
another suffix is read.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zipfile
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from common.base.entries import visible
from common.base.files import misfit, read_json, require_regular, sha256_of_json
from common.base.runtime import UserError, describe_os_error, listed, shortened, shown

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor

INDEX_SUFFIX = ".index.json"
LONGEST_NAME = 250  # of a file: longer ones no system stores
# written by training beside the weights in one folder
BESIDE_WEIGHTS = re.compile(r"optim|scheduler|scaler|rng_state|random_states|training_args|trainer_state|adapter_")
FIRST_BYTES = 1024
# files that are often saved under the name of a weight file, by their first bytes
MAGIC = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\x89HDF": "an HDF5 file (of Keras): PyTorch weights are needed",
    b"\x93NUMPY": "a numpy array: PyTorch weights are needed",
    b"GGUF": "a GGUF file of a language model: PyTorch weights are needed",
    b"\x89PNG": "a picture: fetch the weights again",
    b"\xff\xd8\xff": "a picture: fetch the weights again",
    b"%PDF": "a PDF document: fetch the weights again",
}
# what torch raises for damaged files, whose bytes it takes for instructions
READ_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError, OSError, MemoryError)
READ_ERRORS += (ArithmeticError, BufferError, ImportError, struct.error)
REFUSAL = "not a weight file that can be read safely ({reason}); fetch it again or convert it to safetensors"
CONTROL_BYTES = set(range(32)) - set(b"\t\n\r\f")  # of no text
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


# --- folders ------------------------------------------------------------------------------------------------------


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of a weight file or folder: safetensors before others, shards by the index.

    Raises `UserError` when a folder has none, lacks a shard, has an index that names files outside it, or is a
    checkpoint in parts that only the program that wrote it can join.
    """
    if not path.is_dir():
        return [path]
    _refuse_distributed(path)
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{stem}{INDEX_SUFFIX}"
        if index.is_file():
            return _shards(index)
        if (path / stem).is_file():
            return [path / stem]
    for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.ckpt"):
        found = [file for file in visible(path, pattern) if file.is_file() and not BESIDE_WEIGHTS.search(file.name)]
        if len(found) == 1:
            return found
    there = listed([entry.name + "/" * entry.is_dir() for entry in visible(path)], most=5) or "nothing"
    raise UserError(
        f"{path}: expected model.safetensors (or its shards and index), or one weight file; found neither "
        f"(in it: {there}); name the file itself"
    )


def _refuse_distributed(folder: Path) -> None:
    if visible(folder, "*.distcp"):
        raise UserError(
            f"{folder}: a checkpoint in parts (torch.distributed.checkpoint, FSDP); join it first: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pth"
        )
    if visible(folder, "zero_pp_rank_*_model_states.pt") or (folder / "zero_to_fp32.py").is_file():
        raise UserError(
            f"{folder}: a DeepSpeed checkpoint in parts; join it first with the zero_to_fp32.py that lies beside it, or "
            "name the one file mp_rank_00_model_states.pt where that is whole"
        )


def _shards(index: Path) -> list[Path]:
    folder, content = index.parent, read_json(index, "copy the index again")
    wrong = misfit(content, {"weight_map": {str: str}})
    if wrong or not content["weight_map"]:
        raise UserError(
            f"{index}: expected 'weight_map', the file of each tensor, and found none "
            f"({wrong or 'it is empty'}); copy the index again"
        )
    names = sorted(set(content["weight_map"].values()))
    for name in names:
        refuse_outside(name, index)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder}: {len(absent)} of {len(names)} shards are missing, first {shortened(absent[0])}; copy all"
        )
    return [folder / name for name in names]


def refuse_outside(name: str, where: Path) -> None:
    """Raise `UserError` when `name`, which the file `where` gives, is not a path inside its folder, on any system."""
    parts = PureWindowsPath(name)  # knows both separators, and drives
    if not name or parts.anchor or ".." in parts.parts:
        raise UserError(
            f"{where}: names {shown(name)}, which is outside its own folder; put all files into one folder and correct "
            "the name there"
        )
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError(f"{where}: names {shown(name)}, which no file is called; correct the name there")


def sha256_of_weights(path: Path) -> str:
    """SHA-256 of a weight file, or of a folder's one weight file, or of the JSON of its shards' hashes.

    Of a file that has not changed since this machine last hashed it, it is remembered: gigabytes are read once.
    """
    from common.base.content import known_sha256  # not needed to train on features

    hashes = {file.name: known_sha256(file) for file in weight_files(path)}
    return next(iter(hashes.values())) if len(hashes) == 1 else sha256_of_json(hashes)


# --- content ------------------------------------------------------------------------------------------------------


class _Unread:
    """Stands for a value beside the weights that nobody needs: what the file wants called is not called."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Numbers and arrays of numpy, and the command line, as training code keeps them beside the weights. The unpickler gets
# `_Unread` under these names, so that neither numpy nor argparse sees a byte of the file.
UNREAD = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
)


def read_content(path: Path, refusal: str = REFUSAL, *, lazy: bool = False, uses_values: bool = True) -> Any:
    """What a weight file holds, on the CPU; of a folder the tensors of all its files, by name.

    `lazy` leaves the tensors' values on the disk until they are used, as far as the format allows; they change with the
    file then, so that what is kept needs copies. Who `uses_values` is warned of damaged ones, for which all are read.
    Raises `UserError` naming the file and the reason when it is no weight file, damaged, or needs code to be read;
    `refusal` is the sentence for it, with a place for the `{reason}`.
    """
    files = weight_files(path)
    if len(files) == 1:
        return _read_file(files[0], refusal, lazy=lazy, uses_values=uses_values)
    state: dict[str, Tensor] = {}
    for file in files:
        part = _read_file(file, refusal, lazy=lazy, uses_values=uses_values)
        if not isinstance(part, dict):
            raise _unreadable(file, refusal, f"a part with tensors by name is expected, it holds {type(part).__name__}")
        state |= part
    return state


def _read_file(path: Path, refusal: str, *, lazy: bool, uses_values: bool) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        require_regular(path)
        reason = _why_unreadable(path)
    except OSError as error:
        reason = describe_os_error(error)
    if reason:
        raise _unreadable(path, refusal, reason)
    try:
        if _is_safetensors(path):
            return load_file(path)  # maps the file, and reads no value before it is used
        # torch goes by the suffix .safetensors where it is given a path, which only a mapped file needs
        mapped = lazy and zipfile.is_zipfile(path) and path.suffix != ".safetensors"
        with (
            open(path, "rb") as stream,
            torch.serialization.safe_globals([(_Unread, name) for name in UNREAD]),
            warnings.catch_warnings(action="ignore"),  # of pickles that are refused below anyway
        ):
            if uses_values and zipfile.is_zipfile(path):
                _warn_of_damage(path)
            if mapped:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                if _stored_bytes(content) == _member_bytes(path):
                    return content
            # what does not add up is read as a whole, where torch misses values that are not there
            return torch.load(stream, map_location="cpu", weights_only=True)
    except EOFError as error:
        raise _unreadable(path, refusal, "it ends too early") from error
    except (*READ_ERRORS, pickle.UnpicklingError, SafetensorError) as error:
        raise _unreadable(path, refusal, _why_not_read(error)) from error


def _warn_of_damage(path: Path) -> None:
    """Hold the members of an archive to their checksums, which torch does not look at.

    No error: `torch.serialization.set_crc32_options(False)` writes files with other ones.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        log.warning(
            "%s: the content of %s is not what its checksum is of: a damaged copy? Compare the file's SHA-256 with that "
            "of its source, or fetch it again",
            path,
            damaged,
        )


def _member_bytes(path: Path) -> Counter[int]:
    """Sizes of the members of an archive of torch that hold values as they are: packed ones are not to be mapped."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if "/data/" in info.filename and info.file_size]
    return Counter(info.file_size for info in members if info.compress_type == zipfile.ZIP_STORED)


def _stored_bytes(content: Any) -> Counter[int]:
    """Sizes of the storages of all tensors in nested dictionaries, lists and tuples, each counted once."""
    import torch

    storages: dict[int, int] = {}
    waiting, seen = [content], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:  # a mapping may hold itself
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            storages[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, (list, tuple)):
            waiting += each
    return Counter(size for size in storages.values() if size)


def _unreadable(path: Path, refusal: str, reason: str) -> UserError:
    return UserError(f"{path}: {refusal.format(reason=reason)}")


def _why_unreadable(path: Path) -> str | None:
    """What a file is instead of weights, and what helps; None: it looks like weights."""
    with open(path, "rb") as stream:
        start = stream.read(FIRST_BYTES)
    if not start:
        return "it is empty"
    if start.startswith(LFS_POINTER):
        return "it is a git-lfs pointer, which stands for the file: run git lfs pull where it comes from"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--", b"<script")):
        return "it is a web page (HTML): the address gives a page to look at; use the link to the file itself"
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            return f"it is {what}"
    if start.startswith(b"PK"):
        return _why_no_torch_archive(path)
    if _is_safetensors(path) or start[0] == 0x80:  # every pickle of protocol 2 and later begins so
        return None
    if len(start) > 262 and start[257:262] == b"ustar":
        return "it is a tar archive: unpack it first"
    if path.name.endswith(INDEX_SUFFIX):
        return "it is the index of a folder of weights: name the folder"
    if set(start) & CONTROL_BYTES:
        broken = "the header of safetensors is damaged, or the file is cut off"
        return broken if path.suffix == ".safetensors" else "it begins like no known format"
    first_line = start.decode("utf-8", "replace").strip().partition("\n")[0]
    return f"it is a text file, which begins with {shown(first_line)}"


def _why_no_torch_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "it is cut off: a zip archive without its end"
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return "it is a TorchScript archive, a program with its weights: save the state_dict() of the network instead"
    if "data.pkl" in inside:
        return None
    return f"it is a zip archive of something else, first {names[0] if names else 'nothing'}: unpack it first"


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, the header, its end inside the file."""
    with open(path, "rb") as stream:
        start = stream.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and 8 + length <= path.stat().st_size


def _why_not_read(error: Exception) -> str:
    said = str(error).rpartition("WeightsUnpickler error: ")[2]
    blocked = re.search(r"GLOBAL (\S+)|<(?:class|function|built-in function) '?([\w.]+)", said)
    if blocked:
        name = blocked[1] or blocked[2]
        return f"building it needs {name}, and no code of a file is run; save the network's state_dict() alone"
    if "DTensor" in said:
        return "it holds DTensors, parts of a distributed training; save the full state_dict"
    if "Unsupported operand" in said:
        return "it is a pickle that torch.save did not write; save the network's state_dict() with it"
    return in_one_line(said)


def in_one_line(error: Exception | str) -> str:
    """What an error of a library says, without its advice, colours and line breaks."""
    lines = ANSI_ESCAPE.sub("", str(error)).strip().splitlines()
    return shortened(lines[0].strip()) if lines else "no reason given"
