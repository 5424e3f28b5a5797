"""Damaged variants of a small valid file, seeded: what disks, editors, transfers and strangers make of it.

Each function yields `Damage`s of the bytes of a file of its format; `damages_of` chooses by format. The same content and
seed give the same damages on every machine.
"""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.faults.archives import DEFLATED, Member, archive, bomb, member

LONG = 100_000
SOUND = "as it was"  # the name of no damage at all
CODE = "touch MARKER"  # what a file wants run by its reader
# in the place of a value of JSON, YAML or a checkpoint: another type, outside every range, or no name of a file
STRANGE_VALUES: dict[str, Any] = {
    "null": None, "a list": [], "an object": {}, "a word": "damaged", "an empty word": "", "true": True, "zero": 0,
    "negative": -7, "a huge number": 10**30, "a fraction": 0.37, "infinity": math.inf, "not a number": math.nan,
    "a way out": "../../../outside", "an absolute path": "/proc/self/environ", "control characters": "a\x1b[31m\x00b",
    "half a surrogate": "\ud800", "a long word": "x" * LONG, "nested lists": [[[[[]]]]], "a list of nulls": [None, None],
}  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A damaged file: its bytes, or with `stands_for` what is there in its place.

    `is_certain`: no reader can take it for a sound one, so that a command may not pass it over in silence.
    """

    name: str
    content: bytes = b""
    is_certain: bool = False
    stands_for: str = "file"  # or: folder, pipe, dangling link
    is_inside: bool = False  # in values alone, which nobody sees who reads the header

    @property
    def carries_code(self) -> bool:
        """Whether a reader that does what the file says makes the file `MARKER`."""
        return CODE.encode() in self.content


def damages_of(form: str, content: bytes, seed: str) -> list[Damage]:
    """All damages of a file of the format `form`, one a name."""
    source = random.Random(seed)
    found = {damage.name: damage for function in FORMS[form] for damage in function(content, source)}
    return [damage for damage in found.values() if damage.content != content or damage.stands_for != "file"]


class Marker:
    """Makes the file `MARKER` in the current folder where a reader runs the code of a pickle."""

    def __reduce__(self) -> tuple:
        import os

        return os.system, (CODE,)


# --- any file -----------------------------------------------------------------------------------------------------


def anything(content: bytes, source: random.Random) -> Iterator[Damage]:
    """What happens to files of every format."""
    size = len(content)
    yield Damage("empty")
    yield Damage("a folder", stands_for="folder", is_certain=True)
    yield Damage("a pipe", stands_for="pipe", is_certain=True)
    yield Damage("a dangling link", stands_for="dangling link")
    for share in (0.02, 0.3, 0.6, 0.95):
        yield Damage(f"cut off at {share:.0%}", content[: int(share * size)])
    yield Damage("without its last byte", content[:-1])
    yield Damage("its beginning is missing", content[size // 3 :])
    yield Damage("zeros from the middle on", content[: size // 2] + bytes(size - size // 2))
    yield Damage("only zeros", bytes(size), is_certain=True)
    yield Damage("noise", source.randbytes(size), is_certain=True)
    yield Damage("noise behind it", content + source.randbytes(64))
    yield Damage("a web page", b"<!DOCTYPE html><html><body>404 not found</body></html>\n", is_certain=True)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 12345\n" % 7
    yield Damage("a git-lfs pointer", pointer, is_certain=True)
    yield Damage("a pickle with code", pickle.dumps(Marker()), is_certain=True)
    yield Damage("a pickle of the first protocol with code", pickle.dumps(Marker(), protocol=0), is_certain=True)
    for count in (1, 1, 4, 30):
        yield Damage(f"{count} flipped bits, {source.randrange(1000)}", flipped(content, count, source))


def flipped(content: bytes, count: int, source: random.Random, *, end: int | None = None) -> bytes:
    """`content` with `count` bits flipped before the byte `end`."""
    damaged = bytearray(content)
    for _ in range(count if content else 0):
        damaged[source.randrange(min(end or len(damaged), len(damaged)))] ^= 1 << source.randrange(8)
    return bytes(damaged)


# --- text ---------------------------------------------------------------------------------------------------------


def text(content: bytes, source: random.Random) -> Iterator[Damage]:
    """What editors, encodings and other programs make of lines."""
    lines = content.decode().splitlines(keepends=True)
    number = source.randrange(len(lines))
    yield Damage("in UTF-16", content.decode().encode("utf-16"), is_certain=True)
    yield Damage("in UTF-16 without a mark", content.decode().encode("utf-16-le"), is_certain=True)
    yield Damage("in Latin-1", content[:-1] + "é".encode("latin-1") + content[-1:], is_certain=True)
    yield Damage("with a byte order mark", b"\xef\xbb\xbf" + content)
    yield Damage("lines of Windows", content.replace(b"\n", b"\r\n"))
    yield Damage("lines of an old Mac", content.replace(b"\n", b"\r"))
    yield Damage("zero bytes inside", _inserted(content, b"\0\0", source))
    yield Damage("colours of a terminal", _inserted(content, b"\x1b[31mred\x1b[0m", source))
    yield Damage("text that runs backwards", _inserted(content, "\u202egnp.exe".encode(), source))
    yield Damage("a line of a million characters", content + b"x" * 1_000_000 + b"\n")
    yield Damage("a number of 5,000 digits", content + b"9" * 5000 + b" name\n")
    yield Damage("100,000 lines", content + b"".join(b"%d name_%d\n" % (n, n) for n in range(LONG)))
    yield Damage("blank lines only", b"\n \n\t\n\n")
    yield Damage("a line is missing", _joined([*lines[:number], *lines[number + 1 :]]))
    yield Damage("a line twice", _joined([*lines[: number + 1], *lines[number:]]))
    yield Damage(
        "a line of something else", _joined([*lines[:number], "*** ; , \" ' { [ %s {0} ***\n", *lines[number:]])
    )
    yield Damage("a line that leads elsewhere", _joined([*lines[:number], "../../outside.txt\n", *lines[number:]]))


def _inserted(content: bytes, what: bytes, source: random.Random) -> bytes:
    place = source.randrange(len(content))
    return content[:place] + what + content[place:]


def _joined(lines: list[str]) -> bytes:
    return "".join(lines).encode()


def csv(content: bytes, source: random.Random) -> Iterator[Damage]:
    """What spreadsheets make of a table."""
    head, *rows = content.decode().splitlines()
    body = "\n".join(rows)
    yield Damage("another head", f"a,b,c\n{body}\n".encode(), is_certain=True)
    yield Damage("no head", f"{body}\n".encode(), is_certain=True)
    yield Damage("a quote that never ends", f'{head}\n"{body}\n'.encode())
    yield Damage("a cell of a million characters", f"{head}\n{'x' * 1_000_000},1\n{body}\n".encode(), is_certain=True)
    yield Damage("short rows", (f"{head}\n" + "\n".join(row.split(",")[0] for row in rows) + "\n").encode())
    yield Damage("long rows", (f"{head}\n" + "\n".join(f"{row},x,y,z" for row in rows) + "\n").encode())
    yield Damage("a formula", f"{head}\n=HYPERLINK(1),=1+1\n{body}\n".encode(), is_certain=True, is_inside=True)
    yield Damage("the head twice", f"{head}\n{head}\n{body}\n".encode())
    yield Damage("semicolons", content.replace(b",", b";"))


# --- JSON and YAML ------------------------------------------------------------------------------------------------


def json_text(content: bytes, source: random.Random) -> Iterator[Damage]:
    """JSON that is none, or of another shape."""
    for name, whole in (("null", "null"), ("an empty object", "{}"), ("an empty list", "[]"), ("a number", "7"),
                        ("a word", '"word"'), ("an object of nothing known", '{"damaged": 1}'),
                        ("infinity", "Infinity"), ("a number of 5,000 digits", "9" * 5000)):  # fmt: skip
        yield Damage(f"JSON: {name}", whole.encode(), is_certain=True)
    for count in (5000, LONG):
        yield Damage(f"JSON: {count:,} brackets", b"[" * count + b"]" * count, is_certain=True)
        yield Damage(f"JSON: {count:,} objects", b'{"a":' * count + b"1" + b"}" * count, is_certain=True)
    record = json.loads(content)
    if not isinstance(record, dict):
        return
    twice = json.dumps(record).removesuffix("}")
    first = next(iter(record))
    yield Damage("JSON: a key twice", f"{twice}, {json.dumps(first)}: 1}}".encode(), is_certain=True)
    yield Damage("JSON: without commas", content.replace(b",", b""), is_certain=b"," in content)
    for name, changed in changed_records(record, source):
        yield Damage(f"JSON: {name}", json.dumps(changed).encode())


def changed_records(record: dict[str, Any], source: random.Random, most: int = 60) -> Iterator[tuple[str, Any]]:
    """Copies of a nested record in which one key is missing, or has a strange value; `most` of all that there are."""
    places = list(_places(record))
    choices = [(place, None) for place in places] + [(place, kind) for place in places for kind in STRANGE_VALUES]
    for place, kind in source.sample(choices, min(most, len(choices))):
        changed = copy.deepcopy(record)
        parent = changed
        for part in place[:-1]:
            parent = parent[part]
        if kind is None:
            del parent[place[-1]]
        else:
            parent[place[-1]] = STRANGE_VALUES[kind]
        where = ".".join(map(str, place))
        yield (f"{where} is missing" if kind is None else f"{where} is {kind}"), changed


def _places(value: Any, way: tuple = ()) -> Iterator[tuple]:
    """Ways to the values in nested objects, and to the first entries of lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in list(entries)[:12]:
        yield (*way, key)
        yield from _places(inner, (*way, key))


def yaml_text(content: bytes, source: random.Random) -> Iterator[Damage]:
    """YAML that runs code, grows without end, or says something twice."""
    import yaml

    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    first = content.decode().splitlines()[-1].partition(":")[0]
    for name, added in (
        ("a bomb of aliases", bomb), ("a list inside itself", "a: &a [*a]\n"),
        ("a merge", f"base: &base {{x: 1}}\n{first}:\n  <<: *base\n"), ("a key twice", f"{first}: 1\n{first}: 2\n"),
        ("a call", f'{first}: !!python/object/apply:os.system ["{CODE}"]\n'),
        ("an object", f"{first}: !!python/object/new:os.system [{CODE}]\n"),
        ("a name of Python", f"{first}: !!python/name:os.system\n"), ("a tab", f"{first}:\n\t- 1\n"),
        ("a set", f"{first}: !!set {{a, b}}\n"), ("bytes", f"{first}: !!binary aGVsbG8=\n"),
        ("a date", f"{first}: 2024-02-31\n"), ("two documents", f"---\n{first}: 1\n---\n{first}: 2\n"),
        ("brackets", f"{first}: {'[' * 5000}\n"), ("a list as a key", "? [a, b]\n: 1\n"),
        ("an unknown key", "damaged_key: 1\n"), ("an unclosed quote", f'{first}: "x\n'), ("an anchor alone", "*nothing\n"),
        ("a number of 5,000 digits", f"{first}: {'9' * 5000}\n"), ("text alone", "just words"),
    ):  # fmt: skip
        yield Damage(f"YAML: {name}", content + added.encode() if name == "an unknown key" else added.encode(), True)
    for whole in ("null", "[]", "{}", "7", "~"):
        yield Damage(f"YAML: {whole}", whole.encode())
    record = yaml.safe_load(content)
    for name, changed in changed_records(record, source, 40):
        yield Damage(f"YAML: {name}", yaml.safe_dump(changed, sort_keys=False).encode("utf-8", "surrogatepass"))


# --- arrays -------------------------------------------------------------------------------------------------------


def npy(content: bytes, source: random.Random) -> Iterator[Damage]:
    """Arrays of other kinds and shapes, and headers that lie."""
    array = np.load(io.BytesIO(content))
    words = np.full(array.shape, "word")
    objects = np.full(array.shape, None, dtype=object)
    objects.flat[0] = Marker()
    others = {
        "of objects that run code": objects, "of words": words, "of complex numbers": array.astype(complex),
        "of truth values": array.astype(bool), "of dates": array.astype("int64").astype("datetime64[s]"),
        "of records": np.zeros(array.shape, [("a", "f4"), ("b", "i8")]), "of bytes": array.astype("S4"),
        "of void": np.zeros(array.shape, "V4"), "a single number": array.flat[0], "flat": array.ravel(),
        "of three dimensions": array[None], "of no row": array[:0], "of no column": array[:, :0], "turned": array.T,
        "a row short": array[:-1], "a column short": array[:, :-1], "of whole numbers": (100 * array).astype(np.int16),
        "in half precision": array.astype(np.float16), "of the other byte order": array.astype(">f4"),
        "in C order": np.ascontiguousarray(array), "with NaN": _with(array, np.nan), "with infinity": _with(array, np.inf),
        "huge values": array * 1e30, "negative": -array - 1,
    }  # fmt: skip
    certain = {
        "of objects that run code", "of words", "of complex numbers", "of truth values", "of dates", "of records",
        "of bytes", "of void", "a single number", "flat", "of three dimensions", "of no row", "of no column",
        "a row short", "a column short", "with NaN", "with infinity",
    }  # fmt: skip
    for name, other in others.items():
        stream = io.BytesIO()
        np.save(stream, other, allow_pickle=True)
        yield Damage(f"array {name}", stream.getvalue(), name in certain, is_inside=name.startswith("with "))
    stream = io.BytesIO()
    np.savez(stream, features=array)
    yield Damage("an npz archive", stream.getvalue(), is_certain=True)
    stream = io.BytesIO()
    np.savez(stream, features=objects)
    yield Damage("an npz archive of objects that run code", stream.getvalue(), is_certain=True)
    old, (rows, columns) = str(array.shape).encode(), array.shape
    for shape in (
        (rows, 10**12),
        (10**9, 10**9),
        (-1, columns),
        (rows, -5),
        (rows, columns + 1),
        ("a", "b"),
        (2**63, 1),
    ):
        header = content.replace(old, str(shape).encode()[: len(old) + 12], 1)
        yield Damage(f"header of shape {shape}", header, is_certain=True)
    yield Damage("header of a call", content.replace(b"False", b"f()  ", 1).replace(b"True", b"f() ", 1))
    yield Damage("header of version 9", content[:6] + b"\x09\x00" + content[8:], is_certain=True)
    yield Damage("header of 65,535 bytes", content[:8] + b"\xff\xff" + content[10:], is_certain=True)
    for number in range(6):
        yield Damage(f"flipped bits in the header {number}", flipped(content, 3, source, end=128))


def _with(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.astype(np.float32)
    changed.flat[array.size // 2] = value
    return changed


# --- checkpoints and weights --------------------------------------------------------------------------------------


def torch_file(content: bytes, source: random.Random) -> Iterator[Damage]:
    """Files of torch with code, without parts, of other values."""
    import torch

    original = torch.load(io.BytesIO(content), weights_only=True)
    around: dict[str, Any] = {"itself": None}
    around["itself"] = around
    others: dict[str, Any] = {
        "code alone": Marker(), "code inside": dict(original) | {"extra": Marker()}, "nothing": None, "a list": [],
        "an empty mapping": {}, "a number": 7, "a tensor": torch.zeros(3), "a mapping inside itself": around,
        "numbers as keys": {1: torch.zeros(2), None: torch.zeros(2)}, "words as values": {"a": "b"},
    }  # fmt: skip
    for name, value in others.items():
        yield Damage(f"torch: {name}", _saved(value), is_certain=True)
        yield Damage(f"torch: {name}, old form", _saved(value, zipped=False), is_certain=True)
    yield Damage("the old form", _saved(original, zipped=False))
    for name, changed in changed_records(original, source, 40):
        yield Damage(f"torch: {name}", _saved(changed))
    for kind, change in TENSORS.items():
        yield Damage(f"torch: tensors {kind}", _saved(_with_tensors(original, change)), kind not in {"doubled"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for name in source.sample(sorted(members), min(3, len(members))):
        yield Damage(f"without the member {name}", _zipped({key: members[key] for key in members if key != name}))
        yield Damage(f"the member {name} is empty", _zipped(members | {name: b""}))
    pickled = next(name for name in members if name.endswith("data.pkl"))
    for number in range(12):
        damaged = members | {pickled: flipped(members[pickled], 1 + number % 3, source)}
        yield Damage(f"flipped bits in its pickle {number}", _zipped(damaged))
    for number in range(4):
        yield Damage(f"flipped bits in its directory {number}", content[:-400] + flipped(content[-400:], 2, source))


def _saved(value: Any, *, zipped: bool = True) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    return archive(member(name, content) for name, content in members.items())


def _with_tensors(value: Any, change: Callable) -> Any:
    import torch

    if isinstance(value, dict):
        return {key: _with_tensors(inner, change) for key, inner in value.items()}
    return change(value) if isinstance(value, torch.Tensor) and value.ndim > 1 and value.is_floating_point() else value


TENSORS: dict[str, Callable] = {
    "of another shape": lambda tensor: tensor[:-1],
    "flat": lambda tensor: tensor.reshape(-1),
    "without values": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
    "of whole numbers": lambda tensor: tensor.long(),
    "of complex numbers": lambda tensor: tensor.to(dtype=__import__("torch").complex64),
    "with NaN": lambda tensor: tensor * math.nan,
    "expanded": lambda tensor: tensor[:1].expand(tensor.shape[0] + 1, *tensor.shape[1:]),
    "doubled": lambda tensor: tensor.double(),
    "lists": lambda tensor: [1, 2, 3],
}


def safetensors(content: bytes, source: random.Random) -> Iterator[Damage]:
    """Headers of safetensors that lie, and tensors of other kinds."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = next(key for key in header if key != "__metadata__")
    entry = header[name]

    def packed(changed: Any) -> bytes:
        written = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return struct.pack("<Q", len(written)) + written + data

    for size in (0, 2**62, 2**64 - 1, length - 1, length + 8):
        yield Damage(f"header of {size} bytes", struct.pack("<Q", size) + content[8:], is_certain=True)
    for kind, changes in {
        "unknown numbers": {"dtype": "F3"}, "code as numbers": {"dtype": "__import__"}, "a negative shape": {"shape": [-1]},
        "another shape": {"shape": [1, 1]}, "a huge shape": {"shape": [2**40, 2**40]}, "no shape": {"shape": None},
        "offsets beyond its end": {"data_offsets": [0, len(data) + 8]}, "offsets that go back": {"data_offsets": [8, 0]},
        "offsets below zero": {"data_offsets": [-8, 8]},
    }.items():  # fmt: skip
        yield Damage(f"safetensors: {kind}", packed(header | {name: entry | changes}), is_certain=True)
    without = {key: value for key, value in header.items() if key != name}
    yield Damage("safetensors: a tensor is missing", packed(without), is_certain=True)
    yield Damage("safetensors: a tensor under another name", packed(without | {"../outside": entry}), is_certain=True)
    yield Damage("safetensors: no tensor", packed({}), is_certain=True)
    yield Damage("safetensors: a list", packed([]), is_certain=True)
    yield Damage("safetensors: brackets", packed(b"[" * 5000), is_certain=True)
    yield Damage("safetensors: strange metadata", packed(header | {"__metadata__": {"format": 7}}))
    yield Damage("safetensors: a key twice", packed(json.dumps(header)[:-1].encode() + b',"%s":{}}' % name.encode()))
    yield Damage("a file of torch with code", _saved(Marker()), is_certain=True)
    for number in range(6):
        yield Damage(f"flipped bits in the header {number}", flipped(content, 2, source, end=8 + length))


# --- archives ---------------------------------------------------------------------------------------------------


def zip_file(content: bytes, source: random.Random) -> Iterator[Damage]:
    """Archives with members that are missing, of other content, without end, or that lead elsewhere."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        members = {name: member(name, opened.read(name)) for name in opened.namelist()}

    def changed(name: str, other: Member) -> bytes:
        return archive((members | {name: other}).values())

    ends = (".json", ".npy", ".txt")
    index, array, text = (next(name for name in members if name.endswith(end)) for end in ends)
    for name in (index, array, text):
        sound = members[name]
        others = {
            "is empty": member(name, b""), "says it is longer": replace(sound, size=sound.size + 100),
            "unpacks without end": bomb(name), "unpacks further than it says": replace(bomb(name), size=900),
            "is encrypted": replace(sound, flags=1), "is packed in an unknown way": replace(sound, method=99),
            "has a wrong checksum": replace(sound, checksum=7), "is no compressed data": replace(sound, method=DEFLATED),
        }  # fmt: skip
        yield Damage(f"without {name}", archive(members[key] for key in members if key != name), is_certain=True)
        for what, other in others.items():
            yield Damage(f"{name} {what}", changed(name, other), is_certain=True)
        yield Damage(f"{name} has a bit flipped", changed(name, member(name, flipped(sound.stored, 1, source))))
    for name in ("../outside.txt", "/outside.txt", "..\\outside.txt", "a/../../outside.txt", f"../{text}"):
        yield Damage(f"with a member {name}", archive([*members.values(), member(name, b"outside")]))
    elsewhere = (replace(each, name=f"../outside/{each.name}") for each in members.values())
    yield Damage("all members lead elsewhere", archive(elsewhere), is_certain=True)
    yield Damage("a member twice", archive([*members.values(), members[index]]))
    objects = io.BytesIO()
    np.save(objects, np.array([[Marker()]], dtype=object), allow_pickle=True)
    yield Damage("an array that runs code", changed(array, member(array, objects.getvalue())), is_certain=True)
    for damage in source.sample(list(json_text(members[index].stored, source)), 40):
        yield Damage(damage.name, changed(index, member(index, damage.content)), damage.is_certain)
    for number in range(6):
        yield Damage(f"flipped bits in its directory {number}", content[:-400] + flipped(content[-400:], 2, source))


# --- videos -------------------------------------------------------------------------------------------------------


def video(content: bytes, source: random.Random) -> Iterator[Damage]:
    """Bits and blocks of a container that are wrong, missing or in another place."""
    size = len(content)
    for number in range(10):
        yield Damage(f"flipped bits at the beginning {number}", flipped(content, 3, source, end=600))
        yield Damage(f"flipped bits anywhere {number}", flipped(content, 20, source))
        yield Damage(f"flipped bits at the end {number}", content[:-600] + flipped(content[-600:], 3, source))
    for number in range(4):
        start, end = sorted(source.sample(range(size), 2))
        end = min(end, start + size // 4)
        yield Damage(f"a block of zeros {number}", content[:start] + bytes(end - start) + content[end:])
        yield Damage(f"a block is missing {number}", content[:start] + content[end:])
        yield Damage(f"a block of noise {number}", content[:start] + source.randbytes(end - start) + content[end:])
    half = size // 2
    yield Damage("its halves swapped", content[half:] + content[:half])


FORMS: dict[str, tuple[Callable[[bytes, random.Random], Iterator[Damage]], ...]] = {
    "text": (anything, text),
    "csv": (anything, text, csv),
    "json": (anything, json_text),
    "yaml": (anything, text, yaml_text),
    "npy": (anything, npy),
    "torch": (anything, torch_file),
    "safetensors": (anything, safetensors),
    "video": (anything, video),
    "zip": (anything, zip_file),
}
