"""Frames of a camera or a stream, as they arrive: whatever FFmpeg opens, without an end that could be known beforehand."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from common.base.runtime import UserError, counted, first_line, printable
from common.video.decode import to_rgb
from common.video.timeline import strictly_increasing

log = logging.getLogger(__name__)

OPEN_SECONDS, SILENT_SECONDS = 10.0, 10.0  # without an answer, without a frame: what is there no longer sends
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
# what FFmpeg may open by itself while it reads a stream: no file of this machine because a play list names one
PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,srt,udp,tcp,tls,http,https,httpproxy,crypto"


class StreamError(UserError):
    """A camera or stream that broke off, or has ended."""


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One frame: `image` `(H, W, 3)` uint8 RGB, its time in the stream, and when it was here (`time.monotonic`)."""

    image: np.ndarray
    seconds: float | None
    arrived: float

    def at(self, seconds: float | None) -> LiveFrame:
        """The same picture at another time."""
        return replace(self, seconds=seconds)


@dataclass(frozen=True)
class LiveSource:
    """A camera by its number, or an address; `input_format` is FFmpeg's name of a device or container, where it must be told."""

    address: str
    input_format: str | None = None

    def __str__(self) -> str:
        return f"camera {self.address}" if self.is_camera else printable(self.address)

    @property
    def is_camera(self) -> bool:
        return self.address.isdecimal() and self.input_format is None

    def frames(self) -> Iterator[LiveFrame]:
        """Frames in order of presentation, at strictly rising times from 0 on (a stream's own clock begins anywhere), until the source
        ends or fails.

        It ends by `StreamError`: nobody asked for the end, and a stream that broke off looks like one that was ended. Raises
        `UserError` where no frame comes at all.
        """
        start = None
        for frame in strictly_increasing(self._decoded(), None, Counter()):
            start = frame.seconds if start is None else start
            yield frame.at(frame.seconds - start)

    def _decoded(self) -> Iterator[LiveFrame]:
        import av

        name, input_format = self.address, self.input_format
        options = {}
        if self.is_camera:
            input_format, template = CAMERAS.get(sys.platform, CAMERAS["linux"])
            name = template.format(name)
        elif "://" in name:
            options["protocol_whitelist"] = PROTOCOLS
        if name.startswith(("rtsp://", "rtsps://")):
            options["rtsp_transport"] = "tcp"  # over UDP a lost packet smears the picture until the next key frame
        count, errors = 0, 0
        try:
            with av.open(
                name, format=input_format, options=options, timeout=(OPEN_SECONDS, SILENT_SECONDS)
            ) as container:
                if not container.streams.video:
                    raise UserError(f"{self}: no video in it; expected a camera or a stream of video")
                stream = container.streams.video[0]
                stream.thread_type = "SLICE"  # by frames a decoder would be as many frames late as it has threads
                for packet in container.demux(stream):
                    try:
                        pictures = packet.decode()
                    except av.FFmpegError:
                        errors += 1  # a stream joined in the middle begins with what cannot be decoded
                        continue
                    for picture in pictures:
                        yield LiveFrame(to_rgb(picture), picture.time, time.monotonic())
                        count += 1
        except UserError:
            raise
        except Exception as error:  # as with files: FFmpeg and PyAV fail in ways that no list holds
            reason = getattr(error, "strerror", None) or first_line(error)
            if isinstance(error, av.error.ExitError):  # what FFmpeg calls it when its time is up
                reason = f"silent for {SILENT_SECONDS if count else OPEN_SECONDS:g} s"
            if not count:
                raise UserError(
                    f"{self}: cannot be opened ({reason}); expected a camera's number or an address that FFmpeg opens, "
                    "with --input_format where it must be told what that is"
                ) from error
            raise StreamError(f"{self}: broke off after {counted(count, 'frame')} ({reason})") from error
        finally:
            if errors:
                log.warning("%s: %s that could not be decoded", self, counted(errors, "packet"))
        if not count:
            raise UserError(f"{self}: ended before its first frame; expected a camera or a stream of video")
        raise StreamError(f"{self}: ended after {counted(count, 'frame')}")
