"""Sequential decoding of real video files into colour-correct RGB frames, and probing.

Header counts and frame rates are only ever shown, never relied on: a video has the frames that decode.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from common import decoders
from common.runtime import UserError

# this module is the one that others import; `decoders` is its lower half
DECODERS = decoders.DECODERS
Frame = decoders.Frame
VideoError = decoders.VideoError
decoder_version = decoders.decoder_version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says; `header_frames`, `fps` and `seconds` may be wrong or missing (None)."""

    codec: str
    width: int
    height: int
    fps: float | None
    header_frames: int | None
    seconds: float | None


def probe(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises `VideoError` when it is not a video.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = decoders.video_stream(path, container)
            context = stream.codec_context
            fps = float(stream.average_rate) if stream.average_rate else None
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            seconds = seconds or (container.duration / av.time_base if container.duration else None)
            return VideoInfo(context.name, context.width, context.height, fps, stream.frames or None, seconds)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error


def decode(path: Path, decoder: str = "pyav") -> Iterator[Frame]:
    """Yield every frame of a video in order of presentation.

    Raises `VideoError` where decoding fails (after the frames that it gave), where the file is cut off as far as its
    container tells (MP4, Matroska, AVI; a cut MPEG stream is whole by its own rules), and when there is no frame at
    all. Raises `UserError` for a decoder that is unknown or not installed.
    """
    if decoder not in DECODERS:
        raise UserError(f"decoder {decoder!r}: unknown; known: {', '.join(DECODERS)}")
    count, last = 0, 0.0
    for frame in DECODERS[decoder](path):
        count, last = count + 1, frame.seconds
        yield frame
    if not count:
        raise VideoError(path, "no frame decodes")
    _refuse_cut_off(path, count, last)


def _refuse_cut_off(path: Path, count: int, last: float) -> None:
    """Raise `VideoError` for a file that lacks both bytes and frames that its header promises.

    Decoders end silently at the end of such a file. Headers lie, so one promise alone refuses nothing.
    """
    missing = declared_bytes(path) - path.stat().st_size
    if missing <= 0:
        return
    info = probe(path)
    if info.header_frames:
        lacks_frames = count < info.header_frames
    elif info.seconds and info.fps:
        lacks_frames = last + 1.5 / info.fps < info.seconds
    else:
        lacks_frames = True
    if lacks_frames:
        raise VideoError(path, f"the file is cut off: its header promises {missing:,} bytes more", count)
    log.warning("%s: %s bytes shorter than its header says, but all frames are there", path, f"{missing:,}")


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
