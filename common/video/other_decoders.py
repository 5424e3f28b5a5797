"""The decoders beside PyAV: OpenCV, decord, torchcodec. Each refuses what it is known to get wrong, naming the video.

What they refuse was found by decoding numbered frames in many containers; PyAV gave every frame of all of them. What
they lose or fill in at damaged places, `Decoding` finds by PyAV.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from common.base.children import end_with_parent, leave_signals_to_parent
from common.base.paths import CHECKOUT
from common.base.runtime import UserError, first_line
from common.video.probe import VideoError, VideoInfo, choose_stream, display_matrix, is_mirrored, open_container
from common.video.timeline import LATEST_START_SECONDS, LONGEST_STEP_SECONDS, SHORTEST_STEP_SECONDS, Frame

if TYPE_CHECKING:
    import av

USE_PYAV = "use --decoder pyav"
FIRST_FRAMES = 8  # that are asked whether they are interlaced
BLACK_LEVEL = 24  # no picture is wholly darker: limited range has black at 16, and codecs are a few levels off
PROGRAM_STREAMS = ("mpegts", "mpeg")
OPEN_GROUP_CODECS = ("h264", "hevc", "mpeg2video")
PALETTES = ("pal8", "bgr8", "rgb8", "rgb4_byte", "bgr4_byte")


def decode_opencv(path: Path, info: VideoInfo) -> Iterator[Frame]:
    """OpenCV: rotation honoured; times count from the first frame.

    Refuses interlaced video (black or garbage), mirrored pictures (turned instead) and another than the first stream. No
    AV1; before version 5 colour tags are ignored (BT.709 is read as BT.601, up to 17 levels off).
    """
    import cv2

    if not info.is_first_video:
        raise _refusal(path, "OpenCV reads the first video stream only, which is a picture or not the default one")
    if info.is_interlaced or _first_frames(path, lambda frame: frame.interlaced_frame):
        raise _refusal(path, "OpenCV gives wrong pictures of interlaced video")
    _refuse_mirrored(path, "OpenCV")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count, brightest = 0, 0
    try:
        if not capture.isOpened():
            raise VideoError(path, "OpenCV cannot open it", advice=_reads_fewer("OpenCV"))
        while True:
            there, image = capture.read()
            if not there:
                break
            brightest = max(brightest, int(image.max())) if brightest <= BLACK_LEVEL else brightest
            # asked for after `read`, the position is the time of the frame just read
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            count += 1
    finally:
        capture.release()
    if not count:
        reason = "OpenCV opens the file but decodes none of its frames"
        raise VideoError(path, reason, advice=f"{USE_PYAV} (OpenCV has no AV1 decoder, for one)")
    if brightest <= BLACK_LEVEL and _any_frame(path, lambda frame: frame.to_ndarray(format="gray").max() > BLACK_LEVEL):
        raise _refusal(path, "OpenCV gives only black pictures", count)


def decode_decord(path: Path, info: VideoInfo) -> Iterator[Frame]:
    """decord, read in order by `next()`, in a process of its own: on some files it aborts its process.

    Refuses MPEG transport and program streams, ASF without presentation times, frames before the start of an edit list, streams that
    begin with pictures of an open group, times that step back or are absurd, pictures with a palette (the first comes
    again and again), mirrored pictures and files with several video streams; narrow pictures that are turned are refused while they are read. No AV1; it keeps what it decodes: 7.6 GB
    after 18,000 frames.
    """
    if info.other_streams or not info.is_first_video:
        raise _refusal(path, "decord chooses among several video streams by rules of its own")
    if info.format in PROGRAM_STREAMS:
        raise _refusal(path, "decord gives wrong frames of MPEG transport and program streams")
    _refuse_mirrored(path, "decord")
    if _any_frame(path, lambda frame: frame.format.name in PALETTES, 1):
        raise _refusal(path, "decord gives wrong pictures of a video with a palette")
    if reason := _wrong_in_decord(path, info):
        raise _refusal(path, reason)
    yield from _frames_of_process(path)


def decode_torchcodec(path: Path, info: VideoInfo, device: str = "cpu") -> Iterator[Frame]:
    """torchcodec, in order, in exact mode: it reads the whole file once before the first frame. `device`: cpu, or cuda (NVDEC).

    Refuses MPEG transport and program streams and files without presentation times, whose last frames it loses, and
    mirrored pictures. It needs FFmpeg's shared libraries on the machine and a torch of its own release.
    """
    from torchcodec import decoders

    if info.format in PROGRAM_STREAMS or not info.has_presentation_times:
        raise _refusal(path, "torchcodec loses frames of MPEG streams and of files without presentation times")
    _refuse_mirrored(path, "torchcodec")
    count = 0
    try:
        reader = decoders.VideoDecoder(
            str(path), stream_index=info.stream, dimension_order="NHWC", seek_mode="exact", num_ffmpeg_threads=0,
            device=device,
        )  # fmt: skip
        for count in range(len(reader)):
            frame = reader.get_frame_at(count)
            yield Frame(frame.data.cpu().numpy(), float(frame.pts_seconds))
    except (RuntimeError, ValueError, IndexError) as error:
        if "libtorchcodec" in str(error):
            raise UserError(
                "--decoder torchcodec: torchcodec is installed but does not load: it needs FFmpeg's shared libraries "
                "(install the package ffmpeg with apt-get or conda) and the release that goes with this torch; or "
                f"{USE_PYAV}"
            ) from error
        raise VideoError(path, first_line(error), count, advice=_reads_fewer("torchcodec")) from error


DECODERS: dict[str, Callable[[Path, VideoInfo], Iterator[Frame]]] = {
    "opencv": decode_opencv,
    "decord": decode_decord,
    "torchcodec": decode_torchcodec,
    "nvdec": partial(decode_torchcodec, device="cuda"),
}


def _refusal(path: Path, reason: str, frames_given: int = 0) -> VideoError:
    return VideoError(path, reason, frames_given, advice=USE_PYAV)


def _reads_fewer(name: str) -> str:
    return f"{name} reads fewer formats than the default: try --decoder pyav, or copy the file again"


def _any_frame(path: Path, is_such: Callable, most: int | None = None) -> bool:
    """Whether PyAV gives a frame that `is_such`, among the first `most`."""
    with open_container(path) as container:
        stream, _ = choose_stream(path, container)
        for count, frame in enumerate(container.decode(stream)):
            if most is not None and count == most:
                return False
            if is_such(frame):
                return True
    return False


def _first_frames(path: Path, is_such: Callable) -> bool:
    return _any_frame(path, is_such, FIRST_FRAMES)


def _refuse_mirrored(path: Path, name: str) -> None:
    """Raise `VideoError` where the display matrix mirrors, which FFmpeg's users take for a turn by half."""
    if _any_frame(path, lambda frame: is_mirrored(display_matrix(frame)), 1):
        raise _refusal(path, f"{name} turns this mirrored picture")


def _wrong_in_decord(path: Path, info: VideoInfo) -> str | None:
    """The reason that decord cannot be trusted with a file, by its packets; None where it can."""
    with open_container(path) as container:
        stream, _ = choose_stream(path, container)
        if info.format == "asf" and not info.has_presentation_times:
            return "decord gives wrong frames of ASF files without presentation times"
        packets = [packet for packet in container.demux(stream) if packet.size]
        if any(packet.is_discard for packet in packets):
            return "decord shows frames that lie before the start of this trimmed file"
        if not info.has_presentation_times and _loses_first_pictures(stream, packets):
            return _OPEN_GROUP
        # AVI: PyAV guesses presentation times, wrongly
        ticks = [packet.dts if info.format == "avi" else packet.pts for packet in packets]
        times = [None if at is None else float(at * stream.time_base) for at in ticks]
    known = np.array(sorted(time for time in times if time is not None))
    if len(known) == len(times) and any(time < times[0] for time in times[: 2 * FIRST_FRAMES]):
        return _OPEN_GROUP
    if len(known) < len(times) or np.diff(known).min(initial=1) < SHORTEST_STEP_SECONDS:
        return "decord needs a time of its own for every frame"
    limit = max(LONGEST_STEP_SECONDS, 100 / (info.fps or 25))
    if abs(known).max(initial=0) > LATEST_START_SECONDS or np.diff(known).max(initial=0) > limit:
        return "decord aborts on times as absurd as in this file"
    return None


_OPEN_GROUP = "decord miscounts a file that begins with pictures of an open group"


def _loses_first_pictures(stream: av.VideoStream, packets: list[av.Packet]) -> bool:
    """Whether the first packets hold pictures that do not decode, because they lean on what was cut away."""
    if stream.codec_context.name not in OPEN_GROUP_CODECS:
        return False
    first = packets[: 2 * FIRST_FRAMES]
    pictures = [picture for packet in first for picture in packet.decode()] + stream.decode(None)
    return len(pictures) < len(first)


# --- decord in a process of its own: frames come through a pipe as a header and the bytes of the picture ------------

_HEADER = struct.Struct("<IId")  # height, width, seconds; height 0: an error text of `width` bytes, or the end
_MISREAD = "decord misreads this rotated picture"


def _frames_of_process(path: Path) -> Iterator[Frame]:
    """The frames that `_serve` sends. Raises `VideoError` for its error, and for a process that died."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "common.video.other_decoders", str(path)],
        stdin=subprocess.PIPE,  # ends with this process, however it ends, and the other one with it
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    count = 0
    try:
        while len(header := process.stdout.read(_HEADER.size)) == _HEADER.size:
            height, width, seconds = _HEADER.unpack(header)
            if not height:
                if not width:
                    return
                reason = process.stdout.read(width).decode()
                advice = USE_PYAV if reason == _MISREAD else _reads_fewer("decord")
                raise VideoError(path, reason, count, advice=advice)
            pixels = process.stdout.read(height * width * 3)
            if len(pixels) < height * width * 3:
                break
            yield Frame(np.frombuffer(bytearray(pixels), np.uint8).reshape(height, width, 3), seconds)
            count += 1
        raise VideoError(path, f"decord's process died, exit code {process.wait()}", count, advice=USE_PYAV)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _serve(path: str, output: IO[bytes]) -> None:
    """Body of that process."""
    import decord

    count = 0
    try:
        reader = decord.VideoReader(path)
        while True:
            try:
                image = reader.next().asnumpy()
            except StopIteration:
                break
            if image.shape[2] != 3:  # rows of a turned, narrow picture keep their padding and are misread as pixels
                raise RuntimeError(_MISREAD)
            seconds = float(reader.get_frame_timestamp(count)[0])
            output.write(_HEADER.pack(image.shape[0], image.shape[1], seconds))
            output.write(np.ascontiguousarray(image))
            count += 1
        reason = b""
    except (decord.DECORDError, RuntimeError) as error:
        reason = first_line(error).encode()
    output.write(_HEADER.pack(0, len(reason), 0.0) + reason)
    output.flush()


if __name__ == "__main__":
    leave_signals_to_parent()
    end_with_parent(partial(os.read, 0, 1))
    # what libraries print must not get between the frames
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.argv[1], own)
