"""Zip archives whose headers say what they are told to, sizes, checksums and methods included.

Layout of headers: APPNOTE.TXT of PKWARE, 4.3.7 local file header, 4.3.12 central directory, 4.3.16 its end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

STORED, DEFLATED = 0, 8
MEGABYTE = 1 << 20
BOMB_MEGABYTES = 512


@dataclass(frozen=True)
class Member:
    """A file of an archive: its bytes as they stand there, and what headers say of it."""

    name: str
    stored: bytes
    size: int
    checksum: int
    method: int = STORED
    flags: int = 0


def member(name: str, content: bytes) -> Member:
    """A sound one."""
    return Member(name, content, len(content), zlib.crc32(content))


@cache
def bomb(name: str) -> Member:
    """Half a gigabyte of blanks in as many kilobytes, with the right checksum."""
    blanks = b" " * MEGABYTE
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)  # after which nothing refers to what was before
    checksum = 0
    for _ in range(BOMB_MEGABYTES):
        checksum = zlib.crc32(blanks, checksum)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return Member(name, packed * BOMB_MEGABYTES + end, BOMB_MEGABYTES * MEGABYTE, checksum, DEFLATED)


def archive(members: Iterable[Member]) -> bytes:
    """The bytes of an archive."""
    files, directory, count = b"", b"", 0
    for each in members:
        name = each.name.encode()
        head = struct.pack("<5H3L2H", 20, each.flags, each.method, 0, 33, each.checksum, len(each.stored), each.size,
                           len(name), 0)  # fmt: skip
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + head + struct.pack("<3H2L", 0, 0, 0, 0, len(files)) + name
        files += b"PK\x03\x04" + head + name + each.stored
        count += 1
    end = struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(files), 0)
    return files + directory + b"PK\x05\x06" + end
