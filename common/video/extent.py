"""Extent of files: where one says that it ends, and what lies behind that; read from its bytes, without a demuxer.

Of a bare H.265 stream nothing tells where it was cut: its decoder fills the last picture with whatever comes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.video.probe import FRAMES, VideoInfo

log = logging.getLogger(__name__)


def cut_off(path: Path, info: VideoInfo, count: int, last: float) -> str | None:
    """What a file lacks at its end: bytes by its header (MP4, Matroska, AVI), if frames are missing too, or half a frame.

    Decoders end silently at the end of such a file. Headers lie, so one promise alone refuses nothing.
    """
    if info.format == FRAMES:
        return None
    if ends_in_mid_frame(path, info.format):
        return "the file ends in the middle of a frame"
    missing = declared_bytes(path) - path.stat().st_size
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


def ends_in_mid_frame(path: Path, container: str) -> bool:
    """Whether a file without a header of its length breaks off within its last unit; `container` is FFmpeg's name.

    Of transport and program streams, FLV, ASF, H.264 and MPEG, decoding tells it.
    """
    is_whole = {
        "dv": _is_whole_dv,
        "yuv4mpegpipe": _is_whole_y4m,
        "ogg": _is_whole_ogg,
        "mjpeg": _is_whole_mjpeg,
        "jpeg_pipe": _is_whole_mjpeg,
    }
    if container not in is_whole:
        return False
    with path.open("rb") as stream:
        return not is_whole[container](stream, os.fstat(stream.fileno()).st_size)


def is_followed_by_another(path: Path) -> bool:
    """Whether a second file lies behind the first in one, as `cat` leaves them, and the demuxer does not read it rightly.

    FFmpeg reads an MP4, an ASF and an FLV to the end of the first, and packets of a NUT twice where the second begins. It
    goes on in what lies behind a transport or program stream, a Matroska, an AVI or a bare stream.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
        stream.seek(0)
        if head[:4] == b"FLV\x01":
            return _is_second_flv(stream)
        if head == _ASF_HEADER:
            return _is_second_asf(stream)
        if head == _NUT_ID[:16]:
            return _is_second_nut(stream)
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


_NUT_ID = b"nut/multimedia container\0"


def _is_second_nut(stream: BinaryIO) -> bool:
    """Whether the identifier that begins a NUT file comes again; a block ends with the beginning of the next."""
    stream.seek(len(_NUT_ID))
    kept = b""
    while block := stream.read(1 << 20):
        if _NUT_ID in kept + block:
            return True
        kept = block[1 - len(_NUT_ID) :]
    return False


_DV_FRAME_BYTES = {False: 120_000, True: 144_000}  # 60 and 50 fields a second (IEC 61834-2); of HD, multiples of these


def _is_whole_dv(stream: BinaryIO, size: int) -> bool:
    is_50_fields = bool(stream.read(4)[3:4] >= b"\x80")  # the first bit behind the three of the block's name
    return size % _DV_FRAME_BYTES[is_50_fields] == 0


_Y4M_CHROMA = {"420": (2, 2), "411": (4, 1), "422": (2, 1), "444": (1, 1)}  # pixels across and down for one of colour


def _is_whole_y4m(stream: BinaryIO, size: int) -> bool:
    """Whether frames, each behind a line of its own, fill the file (the format of mjpegtools, `man yuv4mpeg`)."""
    parameters = {word[:1]: word[1:] for word in stream.readline(1000).decode("ascii", "replace").split()[1:]}
    width, height, chroma = int(parameters["W"]), int(parameters["H"]), parameters.get("C", "420")
    pixels = width * height
    if chroma[:3] in _Y4M_CHROMA:
        across, down = _Y4M_CHROMA[chroma[:3]]
        pixels += 2 * -(-width // across) * -(-height // down)
    pixels += width * height if "alpha" in chroma else 0
    is_deep = re.search(r"(p|mono)(9|1\d)$", chroma)
    end = stream.tell()
    while end < size:
        stream.seek(end)
        end += len(stream.readline(1000)) + (2 * pixels if is_deep else pixels)
    return end == size


def _is_whole_ogg(stream: BinaryIO, size: int) -> bool:
    """Whether the last page is there to its end (RFC 3533: 27 bytes, the lengths of segments, these)."""
    end = 0
    while end < size:
        stream.seek(end)
        head = stream.read(27)
        if head[:4] != b"OggS"[: len(head)]:  # what lies between pages is the demuxer's to judge
            return True
        lengths = stream.read(head[26]) if len(head) == 27 else b""
        if len(head) < 27 or len(lengths) < head[26]:
            return False
        end += 27 + len(lengths) + sum(lengths)
    return end == size


_LARGEST_JPEG = 4 << 20  # bytes


def _is_whole_mjpeg(stream: BinaryIO, size: int) -> bool:
    """Whether the last picture has its end mark (ITU-T T.81, B.1.1.3)."""
    stream.seek(max(0, size - _LARGEST_JPEG))
    tail = stream.read()
    return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xd8")
