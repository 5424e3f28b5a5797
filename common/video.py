"""Sequential decoding of real video files into colour-correct RGB frames, and probing.

Header counts and frame rates are only ever shown, never relied on: a video has the frames that decode.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.runtime import UserError


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: `image` `(H, W, 3)` uint8 RGB, full range, upright; `seconds` its presentation time."""

    image: np.ndarray
    seconds: float


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says; `header_frames` and `fps` may be wrong or missing (None)."""

    codec: str
    width: int
    height: int
    fps: float | None
    header_frames: int | None


class VideoError(UserError):
    """A video that cannot be read to its end; `frames_given` frames came before the failure."""

    def __init__(self, path: Path, reason: object, frames_given: int = 0):
        reason = getattr(reason, "strerror", None) or reason  # without FFmpeg's number and a second path
        super().__init__(
            f"{path}: cannot be decoded after {frames_given} frames ({reason}); "
            "expected a whole video file: copy it again or re-encode it"
        )
        self.path, self.reason, self.frames_given = path, str(reason), frames_given


def probe(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises `VideoError` when it is not a video.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            context = stream.codec_context
            fps = float(stream.average_rate) if stream.average_rate else None
            return VideoInfo(context.name, context.width, context.height, fps, stream.frames or None)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error


def decode(path: Path, decoder: str = "pyav") -> Iterator[Frame]:
    """Yield every frame of a video in order of presentation.

    Raises `VideoError` where decoding fails (after the frames that it gave), also when there is no frame at all.
    """
    count = 0
    for frame in DECODERS[decoder](path):
        count += 1
        yield frame
    if not count:
        raise VideoError(path, "no frame decodes")


def _decode_pyav(path: Path) -> Iterator[Frame]:
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            cut_off = False
            for packet in container.demux(stream):
                cut_off = packet.is_corrupt if packet.size else cut_off
                for frame in packet.decode():
                    yield Frame(_rgb(frame), count / rate if frame.time is None else frame.time)
                    count += 1
            if cut_off:
                raise VideoError(path, "the file ends in the middle of a frame", count)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error, count) from error


def _video_stream(path: Path, container):
    if not container.streams.video:
        raise VideoError(path, "no video stream in the file")
    return container.streams.video[0]


def _rgb(frame) -> np.ndarray:
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


DECODERS: dict[str, Callable[[Path], Iterator[Frame]]] = {"pyav": _decode_pyav}
DECODER_PACKAGES = {"pyav": "av"}


def decoder_version(decoder: str) -> str:
    """`name version` of the package behind a decoder, for the sidecar."""
    package = DECODER_PACKAGES[decoder]
    return f"{package} {importlib.metadata.version(package)}"
