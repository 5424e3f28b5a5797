"""One function per video decoder: the frames of a file, in order of presentation, upright, one a decoded frame.

PyAV is the default: it is part of the installation, reads every codec of the samples, and converts colours exactly as
FFmpeg does. The others are imported only where they are asked for, and each has a limit that its function names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.base.runtime import UserError


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: `image` `(H, W, 3)` uint8 RGB, full range, upright; `seconds` its presentation time."""

    image: np.ndarray
    seconds: float


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
                cut_off = packet.is_corrupt if packet.size else cut_off
                for frame in packet.decode():
                    yield Frame(to_rgb(frame), count / rate if frame.time is None else frame.time)
                    count += 1
            if cut_off:
                raise VideoError(path, "the file ends in the middle of a frame", count)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error, count) from error


def video_stream(path: Path, container):
    """The first video stream of an opened PyAV container. Raises `VideoError` when there is none."""
    if not container.streams.video:
        raise VideoError(path, "no video stream in the file")
    return container.streams.video[0]


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
        dst_colorspace=Colorspace.ITU601,
        src_color_range=frame.color_range or ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    image = converted.to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def decode_opencv(path: Path) -> Iterator[Frame]:
    """OpenCV: rotation honoured; times count from the first frame.

    Its limits: AV1 gives no frame, interlaced MPEG-2 gives garbage, a damaged frame ends the video without an error, and
    before version 5 colour tags are ignored (BT.709 is read as BT.601, up to 17 levels off).
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
