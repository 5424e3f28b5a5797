"""Probing: what a video promises before it is decoded: its stream, size, rate, frames.

Headers lie: their numbers are shown, and used for estimates and for the sizes of shares, but a video has the frames
that decode. A video is a file, or a folder of numbered images.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import stat
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.base.entries import frame_files
from common.base.runtime import UserError
from common.video.timeline import is_plausible_fps

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

LARGEST_DISAGREEMENT = 2.0  # between a header's frame count and its duration times its rate, before one is not believed
TYPICAL_BYTES_PER_FRAME = 4000  # where no header tells: only proportions matter
INDEXED_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"  # its index lists every sample: the only promise that is kept to the frame
PACKETS_LOOKED_AT = 64  # to learn whether a stream says when its frames are shown: far more than decoders reorder
PACKETS_READ_ON = 10_000  # behind these where none of them is out of order: minutes of a still opening
MOST_OUT_OF_ORDER = 64  # frames
MOSTLY_FRAMES, MOSTLY_FIELDS = 0.9, 0.55  # pictures a packet
PICTURE_CODECS = {"mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegxl"}
# frames that may be missing before a video counts as damaged: a decoder may drop those that lean on what was cut away
LOST_FRAMES, LOST_SHARE = 2, 0.005
FRAMES = "images"
"""The format of a folder of numbered images."""


class VideoError(UserError):
    """A video that cannot be read to its end; `frames_given` frames came before the failure, of `promised` if known."""

    ADVICE = "expected a whole video file: copy it again or re-encode it"

    def __init__(
        self, path: Path, reason: object, frames_given: int = 0, *, advice: str = ADVICE, promised: int | None = None
    ):
        reason = getattr(reason, "strerror", None) or reason  # without FFmpeg's number and a second path
        super().__init__(f"{path}: cannot be decoded after {frames_given} frames ({reason}); {advice}")
        self.path, self.reason, self.frames_given, self.advice = path, str(reason), frames_given, advice
        self.promised = promised

    def __reduce__(self):
        """Errors cross from decoder processes whole."""
        rebuild = partial(VideoError, advice=self.advice, promised=self.promised)
        return rebuild, (self.path, self.reason, self.frames_given)


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video; `header_frames`, `fps` and `seconds` may be wrong or missing (None)."""

    codec: str
    width: int
    height: int
    fps: float | None
    """The stream's own rate; None where the header has none that a camera can have."""
    header_frames: int | None
    seconds: float | None
    format: str = ""
    """FFmpeg's name of the container; `FRAMES` for a folder of images."""
    stream: int = 0
    """Index of the stream that is read, among all of the file."""
    is_first_video: bool = True
    """Whether it is the first video stream: some decoders take no other."""
    other_streams: tuple[str, ...] = ()
    """Further real video streams, which are not read."""
    is_interlaced: bool = False
    has_presentation_times: bool = True
    """False where only the order of decoding is stored (AVI), or written in place of presentation times."""
    has_false_times: bool = False
    """Whether times contradict the index: where a writer never set durations, FFmpeg takes each frame for the whole."""
    packets_a_frame: int | None = 1
    """2 where each field of an interlaced picture is stored alone; None where some are and others not."""
    indexed_frames: int | None = None
    """Samples in the index of an MP4 or MOV less those that its edit list hides; None for other containers."""
    stated_fps: float | None = None
    """The header's rate as it stands there, believable or not."""

    @property
    def promised_frames(self) -> int | None:
        """The frames that the header promises; None when it does not say, or says two different things.

        Matroska has no count: its duration and rate give one. A rate that varies leaves a count and a duration apart
        by less than `LARGEST_DISAGREEMENT` times; beyond that one of them was never filled in.
        """
        if self.indexed_frames:
            return self.indexed_frames
        by_time = self.seconds * self.fps if self.seconds and self.fps else None
        if self.header_frames is None or by_time is None:
            return self.header_frames or (round(by_time) if by_time else None)
        return self.header_frames if _agree(self.header_frames, by_time) else None


def probe(path: Path) -> VideoInfo:
    """Read a video's header, without decoding. Raises `VideoError`, and nothing else, when it is not a video."""
    if os.path.isdir(path):  # not `Path.is_dir`, which raises where a link leads into a folder without rights
        return _probe_images(path)
    with open_container(path) as container:
        stream, others = choose_stream(path, container)
        context = stream.codec_context
        seconds = float(stream.duration * stream.time_base) if stream.duration else None
        # Matroska keeps one duration for the whole file, in PyAV's own unit
        seconds = seconds or (container.duration / 1_000_000 if container.duration else None)
        # FFmpeg's average comes from the times
        stated = (stream.average_rate, stream.guessed_rate, context.framerate)
        rates = [float(rate) for rate in stated if rate]
        by_index = stream.frames / seconds if is_indexed(container) and stream.frames and seconds else None
        fields = packets_a_frame(path) if context.field_order > 1 else 1
        if container.format.name == "avi" and fields:
            rates = [rate / fields for rate in rates]  # of packets
        has_false_times = bool(by_index and rates and not _agree(rates[0], by_index))
        if by_index and (has_false_times or not rates):
            rates.insert(0, by_index)
        return VideoInfo(
            codec=context.name,
            width=context.width,
            height=context.height,
            fps=next(filter(is_plausible_fps, rates), None),
            header_frames=_whole_frames(stream.frames, fields),
            seconds=seconds,
            format=container.format.name,
            stream=stream.index,
            is_first_video=stream.index == container.streams.video[0].index,
            other_streams=tuple(_describe(other) for other in others),
            is_interlaced=context.field_order > 1,  # 0 unknown, 1 progressive, else the order of the fields
            has_false_times=has_false_times,
            packets_a_frame=fields,
            indexed_frames=indexed_frames(container, stream, fields),
            stated_fps=rates[0] if rates else None,
            has_presentation_times=_has_presentation_times(container, stream),  # reads on: the last question
        )


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A file opened by PyAV. Raises `VideoError` for all that goes wrong with it, inside the block too.

    Damaged headers make FFmpeg's and PyAV's code fail in ways that no list holds: whatever is raised is this video's
    fault, and must not stop the others.
    """
    import av

    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise VideoError(path, "not a regular file", advice="expected a video file or a folder of numbered images")
        if not path.stat().st_size:
            raise VideoError(path, "Invalid data: the file is empty (0 bytes)", advice="copy the recording again")
        # names and comments in any encoding: they are not needed
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except UserError:
        raise
    except FileNotFoundError as error:
        reason = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else error
        raise VideoError(path, reason, advice="put the video back, or remove the link or its name") from error
    except PermissionError as error:
        raise VideoError(path, error, advice="get the right to read it, and to look into its folder") from error
    except Exception as error:
        raise VideoError(path, error) from error


def choose_stream(path: Path, container: InputContainer) -> tuple[VideoStream, list[VideoStream]]:
    """The video stream to read, and further real ones: the file's default one, else the first; never a cover picture.

    Raises `VideoError` when there is none that FFmpeg can decode.
    """
    from av.stream import Disposition

    if not container.streams.video:
        raise VideoError(path, "no video stream in the file")
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        raise VideoError(path, "the header names no codec that is known")
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

    def is_picture(stream: VideoStream) -> bool:
        # not every writer marks a cover: a track of one sample, or of still pictures without a count, is one as well
        is_still = stream.frames == 1 or (not stream.frames and stream.codec_context.name in PICTURE_CODECS)
        return bool(stream.disposition & pictures) or is_still

    real = [stream for stream in streams if not is_picture(stream)] or streams[:1]
    chosen = next((stream for stream in real if stream.disposition & Disposition.default), real[0])
    return chosen, [stream for stream in real if stream is not chosen]


def _agree(one: float, other: float) -> bool:
    return 1 / LARGEST_DISAGREEMENT <= one / other <= LARGEST_DISAGREEMENT


def _describe(stream: VideoStream) -> str:
    context = stream.codec_context
    return f"stream {stream.index} ({context.name}, {context.width} x {context.height})"


def is_indexed(container: InputContainer) -> bool:
    """Whether a file is an MP4 or MOV, whose index lists every frame."""
    return container.format.name == INDEXED_FORMAT


def indexed_frames(container: InputContainer, stream: VideoStream, packets_a_frame: int | None) -> int | None:
    """Frames that the index of an MP4 or MOV promises: its samples less those that an edit list hides; else None.

    A file that was trimmed without encoding keeps what the first frames lean on, and hides it.
    """
    if not is_indexed(container):
        return None
    return _whole_frames(sum(not entry.is_discard for entry in stream.index_entries), packets_a_frame)


def _whole_frames(packets: int, packets_a_frame: int | None) -> int | None:
    return packets // packets_a_frame or None if packets_a_frame else None


def packets_a_frame(path: Path) -> int | None:
    """How many of the first packets make a picture: 1, 2 (fields), or None where that changes; decodes them.

    Packets that do not decode are left out: this is found when the whole file is decoded.
    """
    packets, pictures, are_interlaced = 0, 0, False
    with contextlib.suppress(VideoError), open_container(path) as container:
        stream, _ = choose_stream(path, container)
        for packet in itertools.islice(container.demux(stream), PACKETS_LOOKED_AT):
            with contextlib.suppress(Exception):
                decoded = packet.decode()
                packets, pictures = packets + bool(packet.size), pictures + len(decoded)
                are_interlaced |= any(picture.interlaced_frame for picture in decoded)
        pictures += len(stream.codec_context.decode(None))
    share = pictures / packets if packets else 1
    # a few pictures may lean on what was cut away
    if not are_interlaced or share > MOSTLY_FRAMES:
        return 1
    return 2 if share < MOSTLY_FIELDS else None


def lost_frames(promised: int | None, decoded: int) -> str | None:
    """Both numbers, where a video has fewer frames than were promised by more than decoders leave out; else None."""
    if promised is None or promised - decoded <= max(LOST_FRAMES, LOST_SHARE * promised):
        return None
    return f"{promised} frames promised, {decoded} decoded"


def _has_presentation_times(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the file says when its frames are shown, not only in which order they are decoded.

    AVI never does, which matters for all codecs but those that store each frame alone. Elsewhere times that fall in order of
    decoding tell nothing until the codec has stored a frame out of order: those of presentation step back in the file there,
    others (a copied AVI, most ASF) when the frames are shown. A still opening has none out of order, so that it is read on.
    """
    is_avi, reorders = container.format.name == "avi", bool(stream.codec_context.reorder_depth)
    if not is_avi and not reorders:
        return True
    packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
    first = list(itertools.islice(packets, PACKETS_LOOKED_AT))
    if is_avi:
        return not reorders and all(packet.pts == packet.dts for packet in first)
    known = [packet.pts for packet in first if packet.pts is not None]
    if len(known) < 3 or _steps_back(known):
        return True
    if _steps_back(_shown_pts(first)):
        return False
    with contextlib.suppress(Exception):  # a place that cannot be read is told when the whole file is decoded
        further = (packet.pts for packet in itertools.islice(packets, PACKETS_READ_ON) if packet.pts is not None)
        # no codec stores a frame further out of order than so many: what steps back more is a cut or another file behind it
        frame = statistics.median(later - earlier for earlier, later in itertools.pairwise(known))
        steps_back = _steps_back(itertools.chain(known[-1:], further), at_most=MOST_OUT_OF_ORDER * frame)
        return steps_back or next(packets, None) is not None  # nothing told in minutes
    return True


def _steps_back(times: Iterable[int], *, at_most: float = math.inf) -> bool:
    """Whether a time is followed by an earlier one, by so much at most."""
    return any(0 < earlier - later <= at_most for earlier, later in itertools.pairwise(times))


def _shown_pts(packets: Iterable[Packet]) -> Iterator[int]:
    """The stored time of each frame of the first packets, in the order in which they are shown; decodes them."""
    for packet in packets:
        with contextlib.suppress(Exception):  # what does not decode is told when the whole file is decoded
            yield from (frame.pts for frame in packet.decode() if frame.pts is not None)


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """`(a, b, c, d)` of a frame's display matrix, of which only signs and zeros matter; None without one.

    A pixel (x, y) is shown at (a x + c y, b x + d y), y downwards (ISO/IEC 14496-12, 6.2.2). Matrices between two
    quarter turns count as the nearer one.
    """
    from av.sidedata.sidedata import SideDataContainer, Type

    # not `frame.side_data`, which ties the frame to itself: with its pixels and the threads of its conversion it would then
    # wait for the garbage collector
    stored = SideDataContainer(frame).get(Type.DISPLAYMATRIX)
    if stored is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(stored), np.int32)[:9].tolist()
    keeps_axes = abs(a) + abs(d) >= abs(b) + abs(c)
    return (a, 0, 0, d) if keeps_axes else (0, b, c, 0)


def is_mirrored(matrix: tuple[int, int, int, int] | None) -> bool:
    """Whether a display matrix mirrors, which most decoders take for a turn."""
    return matrix is not None and matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0


def images_of(folder: Path) -> list[Path]:
    """Images of a folder in the order of their numbers. Raises `VideoError` where they cannot be told apart or listed.

    What `frame_files` refuses is the fault of this video alone, and must not stop the others.
    """
    try:
        return frame_files(folder)
    except UserError as error:
        reason, _, advice = str(error).removeprefix(f"{folder}: ").partition("; ")
        raise VideoError(folder, reason, advice=advice or "expected 000001.jpg, 000002.jpg, ...") from error


def _probe_images(folder: Path) -> VideoInfo:
    """The size of the first image, and how many there are."""
    from PIL import Image

    files = images_of(folder)
    try:
        with Image.open(files[0]) as image:
            return VideoInfo(str(image.format).lower(), *image.size, None, len(files), None, format=FRAMES)
    except Exception as error:  # see `open_container`
        raise VideoError(folder, f"{files[0].name}: {error}") from error


def probe_all(videos: Mapping[str, Path]) -> dict[str, VideoInfo | None]:
    """The header of each video; None where it cannot be read, which who decodes it reports when its turn comes."""
    headers: dict[str, VideoInfo | None] = {}
    for name, path in videos.items():
        try:
            headers[name] = probe(path)
        except VideoError:
            headers[name] = None
    return headers


def estimate_frames(
    videos: Mapping[str, Path], headers: Mapping[str, VideoInfo | None] | None = None
) -> dict[str, int]:
    """Expected frames of each video, at least 1; from headers (read here unless given), never by decoding.

    A header that promises nothing or cannot be read is replaced by the file's size over the median bytes per frame of
    the other videos.
    """
    headers = probe_all(videos) if headers is None else headers
    counts = {name: info.promised_frames if info else None for name, info in headers.items()}
    sizes = {}
    for name, path in videos.items():
        try:
            sizes[name] = path.stat().st_size
        except OSError:  # a broken link, a place without rights: it has its turn, and its error, later
            sizes[name] = 0
    known = [sizes[name] / count for name, count in counts.items() if count]
    bytes_per_frame = statistics.median(known) if known else TYPICAL_BYTES_PER_FRAME
    return {name: max(1, counts[name] or round(sizes[name] / bytes_per_frame)) for name in videos}
