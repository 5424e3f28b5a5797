"""Extent of files: where one says that it ends, and what lies behind that; read from its bytes, without a demuxer."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.video.probe import FRAMES, VideoInfo

log = logging.getLogger(__name__)


def cut_off(path: Path, info: VideoInfo, count: int, last: float) -> str | None:
    """The bytes that a file lacks by its header (MP4, Matroska, AVI), if frames are missing too.

    Decoders end silently at the end of such a file. Headers lie, so one promise alone refuses nothing.
    """
    missing = 0 if info.format == FRAMES else declared_bytes(path) - path.stat().st_size
    if missing <= 0:
        return None
    # the bare promises, not `promised_frames`: a header that contradicts itself shows a file to be whole as well
    if info.header_frames:
        lacks_frames = count < (info.indexed_frames or info.header_frames)
    elif info.seconds and info.fps:
        # the last frame is shown for a whole period; half of one more for rounded times
        lacks_frames = last + 1.5 / info.fps < info.seconds
    else:
        lacks_frames = True
    if lacks_frames:
        return f"the file is cut off: its header promises {missing:,} bytes more"
    log.warning("%s: %s bytes shorter than its header says, but all frames are there", path, f"{missing:,}")
    return None


def declared_bytes(path: Path) -> int:
    """Bytes that the container says the file has: one cut short is recognised by them. 0 where it does not say."""
    with path.open("rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if head == b"\x1aE\xdf\xa3":
            return _matroska_bytes(stream)
        if head == b"RIFF":
            return _riff_bytes(stream)
        return max((end for _, _, end in _mp4_boxes(stream)), default=0)


def is_followed_by_another(path: Path) -> bool:
    """Whether a second file lies behind the first in one, as `cat` leaves them, and the demuxer stops before it.

    FFmpeg reads an MP4, an ASF and an FLV to the end of the first. It goes on in what lies behind a transport or program
    stream, a Matroska, an AVI or a bare stream.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
        stream.seek(0)
        if head[:4] == b"FLV\x01":
            return _is_second_flv(stream)
        if head == _ASF_HEADER:
            return _is_second_asf(stream)
        return _is_second_mp4(stream)


def _matroska_bytes(stream: BinaryIO) -> int:
    """End of the Segment element (RFC 8794: an identifier, a size of variable length, the content)."""

    def size() -> int | None:
        first = stream.read(1)
        if not first or not first[0]:
            return None
        extra = 8 - first[0].bit_length()  # leading zero bits tell how many bytes follow
        value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + stream.read(extra), "big")
        return None if value == (1 << 7 * (extra + 1)) - 1 else value  # all ones: unknown, as in live recordings

    stream.seek(4)  # behind the identifier of the EBML header
    stream.seek(size() or 0, 1)  # over the header's content
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
        stream.seek(end + length % 2)  # chunks start at even places
    return end


_MP4_BOXES = frozenset(b"ftyp styp moov mdat moof free skip wide sidx mfra uuid meta".split())


def _mp4_boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Top-level boxes `(name, begin, end)` (ISO/IEC 14496-12); what follows an unknown one is not looked at.

    The end of one that reaches to the end of the file is 0.
    """
    end, size = 0, os.fstat(stream.fileno()).st_size
    while end < size and len(head := stream.read(8)) == 8 and head[4:] in _MP4_BOXES:
        begin, length, used = end, int.from_bytes(head[:4], "big"), 8
        if length == 1:  # the size does not fit 32 bits: 64 follow
            length, used = int.from_bytes(stream.read(8), "big"), 16
        if length < used:
            yield head[4:], begin, 0
            return
        end += length
        yield head[4:], begin, end
        stream.seek(min(end, size))  # damaged lengths are beyond what a system can seek to


def _is_second_mp4(stream: BinaryIO) -> bool:
    """Whether there are two movies, of which FFmpeg takes the first; fragments repeat theirs, and are all read."""
    movies = [(begin, end) for name, begin, end in _mp4_boxes(stream) if name == b"moov" and end]
    return any(stream.seek(begin) >= 0 and b"mvex" not in stream.read(end - begin) for begin, end in movies[1:])


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def _is_second_asf(stream: BinaryIO) -> bool:
    """Whether the header object comes twice among the top-level objects (an identifier of 16 bytes, a size of 8)."""
    place, size = 0, os.fstat(stream.fileno()).st_size
    while len(head := stream.read(24)) == 24:
        if place and head[:16] == _ASF_HEADER:
            return True
        length = int.from_bytes(head[16:], "little")
        if length < 24:  # a live recording, whose length was never filled in
            return False
        place = min(place + length, size)
        stream.seek(place)
    return False


def _is_second_flv(stream: BinaryIO) -> bool:
    """Whether a file's header stands where a tag is expected (11 bytes, the content, 4 bytes with the size again)."""
    stream.seek(13)
    while len(head := stream.read(11)) == 11:
        if head[:4] == b"FLV\x01":
            return True
        if head[0] & 0x1F not in (8, 9, 18):  # no sound, picture or data
            return False
        stream.seek(int.from_bytes(head[1:4], "big") + 4, 1)
    return False
