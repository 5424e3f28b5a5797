"""Decoding of real video files into colour-correct, upright RGB frames, in order of presentation.

PyAV is the default decoder: it is part of the installation, reads every codec of the samples, and converts colours
exactly as FFmpeg does. The others are imported only where they are asked for, and each has a limit that its function
names.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.base.runtime import UserError
from common.video.probe import VideoError, declared_bytes, probe, video_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: `image` `(H, W, 3)` uint8 RGB, full range, upright; `seconds` its presentation time."""

    image: np.ndarray
    seconds: float


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
    # the bare promises, not `promised_frames`: a header that contradicts itself shows a file to be whole as well
    if info.header_frames:
        lacks_frames = count < info.header_frames
    elif info.seconds and info.fps:
        # the last frame is shown for a whole period; half of one more for rounded times
        lacks_frames = last + 1.5 / info.fps < info.seconds
    else:
        lacks_frames = True
    if lacks_frames:
        raise VideoError(path, f"the file is cut off: its header promises {missing:,} bytes more", count)
    log.warning("%s: %s bytes shorter than its header says, but all frames are there", path, f"{missing:,}")


def _use_pyav(name: str) -> str:
    return f"{name} reads fewer formats than the default: try --decoder pyav, or copy the file again"


def decode_pyav(path: Path) -> Iterator[Frame]:
    """PyAV (FFmpeg inside its wheel): sequential, in constant memory, colour tags and rotation honoured."""
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            stream = video_stream(path, container)
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            cut_off = False
            for packet in container.demux(stream):
                # only the last packet with content tells: the empty one after it flushes the decoder, and a corrupt
                # packet before it is a damaged place that decoding gets over
                cut_off = packet.is_corrupt if packet.size else cut_off
                for frame in packet.decode():
                    # raw streams have no times: their frames count at the stream's rate
                    yield Frame(to_rgb(frame), count / rate if frame.time is None else frame.time)
                    count += 1
            if cut_off:
                raise VideoError(path, "the file ends in the middle of a frame", count)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error, count) from error


def to_rgb(frame) -> np.ndarray:
    """RGB of a PyAV frame under its own colour matrix and range, turned upright.

    Untagged matrices count as BT.601 and untagged ranges as limited, as in FFmpeg.
    """
    from av.video.reformatter import ColorRange, Colorspace

    unspecified = {0, 2}  # RGB and "unspecified" in the matrix coefficients of ITU-T H.273
    matrix = Colorspace.ITU601 if frame.colorspace in unspecified else frame.colorspace
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=Colorspace.ITU601,  # RGB has no matrix: not used, but asked for
        src_color_range=frame.color_range or ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    image = converted.to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as rot90 counts; 90 and -270 are one
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def decode_opencv(path: Path) -> Iterator[Frame]:
    """OpenCV: rotation honoured; times count from the first frame.

    Its limits: AV1 gives no frame, interlaced MPEG-2 gives garbage, a damaged frame ends the video without an error,
    and before version 5 colour tags are ignored (BT.709 is read as BT.601, up to 17 levels off).
    """
    cv2 = _library("opencv")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise VideoError(path, "OpenCV cannot open it", advice=_use_pyav("OpenCV"))
        count = 0
        while True:
            there, image = capture.read()
            if not there:
                break
            # asked for after `read`, the position is the time of the frame just read
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            count += 1
        if not count:
            advice = "use --decoder pyav (OpenCV has no AV1 decoder, for one)"
            raise VideoError(path, "OpenCV opens the file but decodes none of its frames", advice=advice)
    finally:
        capture.release()


def decode_decord(path: Path) -> Iterator[Frame]:
    """decord, read in order by `next()`: its seeking can return wrong frames where the rate varies.

    Its limits: no AV1, no MPEG-TS, and it keeps what it decodes: 7.6 GB after 18,000 frames. The only known way to make
    it let go is `seek(0)`, which would start the video again: long videos need another decoder.
    """
    decord = _library("decord")
    count = 0
    try:
        reader = decord.VideoReader(str(path))
        while True:
            try:
                image = reader.next().asnumpy()
            except StopIteration:
                return
            if image.shape[2] != 3:  # rows of a turned, narrow picture keep their padding and are misread as pixels
                raise VideoError(path, "decord misreads this rotated picture", count, advice="use --decoder pyav")
            yield Frame(image, float(reader.get_frame_timestamp(count)[0]))
            count += 1
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(path, _first_line(error), count, advice=_use_pyav("decord")) from error


def decode_torchcodec(path: Path) -> Iterator[Frame]:
    """torchcodec on the CPU, in order, in exact mode: it reads the whole file once before the first frame.

    Its limits: it needs FFmpeg's shared libraries on the machine and a torch of its own release; no MPEG-TS.
    """
    decoders = _library("torchcodec")
    count = 0
    try:
        reader = decoders.VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact", num_ffmpeg_threads=0)
        for count in range(len(reader)):
            frame = reader.get_frame_at(count)
            yield Frame(frame.data.numpy(), float(frame.pts_seconds))
    except (RuntimeError, ValueError, IndexError) as error:
        if "libtorchcodec" in str(error):
            raise UserError(_NO_FFMPEG) from error
        raise VideoError(path, _first_line(error), count, advice=_use_pyav("torchcodec")) from error


DECODERS: dict[str, Callable[[Path], Iterator[Frame]]] = {
    "pyav": decode_pyav,
    "opencv": decode_opencv,
    "decord": decode_decord,
    "torchcodec": decode_torchcodec,
}
# the packages that can provide a decoder, the one to install first
_PACKAGES = {
    "pyav": ("av",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "decord": ("decord", "eva-decord"),
    "torchcodec": ("torchcodec",),
}
_MODULES = {"pyav": "av", "opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec.decoders"}
_HINTS = {
    "opencv": "; the headless package needs no libGL",
    "decord": "; it has wheels for x86-64 Linux and Windows only",
    "torchcodec": "; it also needs FFmpeg's shared libraries (Debian: apt-get install libavcodec59 libavformat59 "
    "libavfilter8 libavdevice59, or the package ffmpeg; conda: conda install ffmpeg)",
}
_NO_FFMPEG = (
    "--decoder torchcodec: torchcodec is installed but does not load: it needs FFmpeg's shared libraries (install the "
    "package ffmpeg with apt-get or conda) and the release that goes with this torch; or use --decoder pyav"
)


def _library(decoder: str):
    """The module of a decoder. Raises `UserError` that says what to install."""
    try:
        return importlib.import_module(_MODULES[decoder])
    except RuntimeError as error:  # older torchcodec loads FFmpeg when it is imported
        raise UserError(_NO_FFMPEG if decoder == "torchcodec" else f"--decoder {decoder}: {error}") from error
    except (ImportError, OSError) as error:
        raise _not_installed(decoder, error) from error


def _not_installed(decoder: str, error: object) -> UserError:
    return UserError(
        f"--decoder {decoder}: not installed ({_first_line(error)}); run: pip install {_PACKAGES[decoder][0]}"
        f"{_HINTS.get(decoder, '')}; or use --decoder pyav"
    )


def decoder_version(decoder: str) -> str:
    """`package version` of the package behind a decoder, for the sidecar.

    Raises `UserError` that says what to install when there is none.
    """
    for package in _PACKAGES[decoder]:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    raise _not_installed(decoder, "no such package")


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
