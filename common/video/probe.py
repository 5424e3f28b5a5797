"""Probing: what a video file promises before it is decoded: size, rate, frames, bytes.

Headers lie: their numbers are shown, and used for estimates and for the sizes of shares, but a video has the frames
that decode.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from common.base.runtime import UserError

LARGEST_DISAGREEMENT = 2.0  # between a header's frame count and its duration times its rate, before neither is believed
TYPICAL_BYTES_PER_FRAME = 4000  # where no header tells: only proportions matter


class VideoError(UserError):
    """A video that cannot be read to its end; `frames_given` frames came before the failure."""

    ADVICE = "expected a whole video file: copy it again or re-encode it"

    def __init__(self, path: Path, reason: object, frames_given: int = 0, *, advice: str = ADVICE):
        reason = getattr(reason, "strerror", None) or reason  # without FFmpeg's number and a second path
        super().__init__(f"{path}: cannot be decoded after {frames_given} frames ({reason}); {advice}")
        self.path, self.reason, self.frames_given, self.advice = path, str(reason), frames_given, advice

    def __reduce__(self):
        """Errors cross from decoder processes whole."""
        return partial(VideoError, advice=self.advice), (self.path, self.reason, self.frames_given)


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video; `header_frames`, `fps` and `seconds` may be wrong or missing (None)."""

    codec: str
    width: int
    height: int
    fps: float | None
    header_frames: int | None
    seconds: float | None

    @property
    def promised_frames(self) -> int | None:
        """The frames that the header promises; None when it does not say, or says two different things.

        Matroska has no count: its duration and rate give one. A rate that varies leaves a count and a duration apart
        by less than `LARGEST_DISAGREEMENT` times; beyond that one of them was never filled in.
        """
        by_time = self.seconds * self.fps if self.seconds and self.fps else None
        if self.header_frames is None or by_time is None:
            return self.header_frames or (round(by_time) if by_time else None)
        agrees = 1 / LARGEST_DISAGREEMENT <= self.header_frames / by_time <= LARGEST_DISAGREEMENT
        return self.header_frames if agrees else None


def probe(path: Path) -> VideoInfo:
    """Read a video's header, without decoding. Raises `VideoError` when it is not a video."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = video_stream(path, container)
            context = stream.codec_context
            fps = float(stream.average_rate) if stream.average_rate else None
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            # Matroska keeps one duration for the whole file, in PyAV's own unit
            seconds = seconds or (container.duration / av.time_base if container.duration else None)
            return VideoInfo(context.name, context.width, context.height, fps, stream.frames or None, seconds)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error


def video_stream(path: Path, container):
    """The first video stream of an opened PyAV container. Raises `VideoError` when there is none."""
    if not container.streams.video:
        raise VideoError(path, "no video stream in the file")
    return container.streams.video[0]


def estimate_frames(videos: Mapping[str, Path]) -> dict[str, int]:
    """Expected frames of each video, at least 1; from headers, never by decoding.

    A header that promises nothing or cannot be read is replaced by the file's size over the median bytes per frame of
    the other videos.
    """
    sizes, counts = {}, {}
    for name, path in videos.items():
        sizes[name] = path.stat().st_size if path.exists() else 0  # a broken link has its turn, and its error, later
        try:
            counts[name] = probe(path).promised_frames
        except VideoError:  # extraction reports it when its turn comes
            counts[name] = None
    known = [sizes[name] / count for name, count in counts.items() if count]
    bytes_per_frame = statistics.median(known) if known else TYPICAL_BYTES_PER_FRAME
    return {name: max(1, counts[name] or round(sizes[name] / bytes_per_frame)) for name in videos}


def declared_bytes(path: Path) -> int:
    """Bytes that the container says the file has: one cut short is recognised by them. 0 where it does not say."""
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


def _mp4_bytes(stream: BinaryIO) -> int:
    """End of the last top-level box (ISO/IEC 14496-12); what follows an unknown one is not looked at."""
    end = 0
    while len(head := stream.read(8)) == 8 and head[4:] in _MP4_BOXES:
        length, used = int.from_bytes(head[:4], "big"), 8
        if length == 1:  # the size does not fit 32 bits: 64 follow
            length, used = int.from_bytes(stream.read(8), "big"), 16
        if length < used:  # 0: to the end of the file
            return end
        end += length
        stream.seek(end)
    return end
