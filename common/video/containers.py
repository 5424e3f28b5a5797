"""How many bytes a container's header promises: a file cut short is recognised by its size."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def declared_bytes(path: Path) -> int:
    """The size in bytes that the container says the file has; 0 where it does not say (streams, unknown formats)."""
    with path.open("rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if head == b"\x1aE\xdf\xa3":
            return _matroska_bytes(stream)
        if head == b"RIFF":
            return _riff_bytes(stream)
        return _mp4_bytes(stream)


def _matroska_bytes(stream: BinaryIO) -> int:
    """End of the Segment element (RFC 8794: an identifier, a size of variable length, the content)."""

    def size() -> int | None:
        first = stream.read(1)
        if not first or not first[0]:
            return None
        extra = 8 - first[0].bit_length()  # leading zero bits tell how many bytes follow
        value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + stream.read(extra), "big")
        return None if value == (1 << 7 * (extra + 1)) - 1 else value  # all ones: unknown, as in live recordings

    stream.seek(4)
    stream.seek(size() or 0, 1)
    if stream.read(4) != b"\x18S\x80g":
        return 0
    content = size()
    return stream.tell() + content if content else 0


def _riff_bytes(stream: BinaryIO) -> int:
    """End of the last RIFF chunk: AVI files over 1 GB have several (OpenDML)."""
    end = 0
    while len(head := stream.read(8)) == 8 and head[:4] == b"RIFF":
        length = int.from_bytes(head[4:], "little")
        if not length or length >= 0x7FFFFF00:  # never filled in
            return 0
        end = stream.tell() + length
        stream.seek(end + length % 2)
    return end


_MP4_BOXES = {
    b"ftyp",
    b"styp",
    b"moov",
    b"mdat",
    b"moof",
    b"free",
    b"skip",
    b"wide",
    b"sidx",
    b"mfra",
    b"uuid",
    b"meta",
}


def _mp4_bytes(stream: BinaryIO) -> int:
    """End of the last top-level box (ISO/IEC 14496-12); what follows an unknown one is not looked at."""
    end = 0
    while len(head := stream.read(8)) == 8 and head[4:] in _MP4_BOXES:
        length, used = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, used = int.from_bytes(stream.read(8), "big"), 16
        if length < used:  # 0: to the end of the file
            return end
        end += length
        stream.seek(end)
    return end
