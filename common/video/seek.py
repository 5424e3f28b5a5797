"""An open video from which frames are taken by time.

What is read is what decoding from the first frame gives: it starts at a keyframe that is shown at or before the first
frame wanted, and what the decoder shows before that keyframe is dropped (pictures of an open group, which lean on
frames that were not read). Where no such keyframe is found, decoding starts with the first frame.

Where times are mended (AVI with B-frames, joined recordings), only decoding from the first frame tells them: such a
file is not searched. A folder of numbered images is a video whose images are opened one by one.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from common.video.decode import packet_seconds, read_image, to_rgb, with_stored_times
from common.video.preprocess import fitted
from common.video.probe import VideoError, choose_stream, images_of, probe
from common.video.timeline import DEFAULT_FPS, EQUALLY_NEAR_SECONDS, TimedT, strictly_increasing

log = logging.getLogger(__name__)

SEARCHABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "avi", "asf", "flv")
"""Containers whose time stamps do not depend on where reading begins. MPEG program streams stamp some frames only."""
STEPS_BACK_SECONDS = (0.0, 1.0, 4.0, 16.0, 64.0)
"""Demuxers look for decoding times, or land between keyframes: the next try starts so much earlier."""

NOT_SEARCHABLE = (
    "this kind of file cannot be searched by time, so every clip is decoded from the first frame; wrap it again with "
    "ffmpeg -i FILE -c copy FILE.mkv"
)
SKIPPING_CODECS = ("h264",)
"""Where frames that no other leans on are marked for certain: leaving them out halves the way to a wanted frame."""


class TimedPicture(NamedTuple):
    """A decoded frame that is not yet RGB."""

    seconds: float | None
    picture: av.VideoFrame

    def at(self, seconds: float | None) -> TimedPicture:
        """The same picture at another time."""
        return TimedPicture(seconds, self.picture)


class FrameTime(NamedTuple):
    """When a frame is shown, without the frame."""

    seconds: float | None

    def at(self, seconds: float | None) -> FrameTime:
        """Another time."""
        return FrameTime(seconds)


class Stamp(NamedTuple):
    """When a frame will be shown."""

    seconds: float
    ticks: int


class OpenVideo:
    """An open video; its methods raise what PyAV raises, and `VideoError` for a damaged file."""

    def __init__(self, path: Path):
        self.path = path
        self._info = probe(path)
        self._open()
        has_times = self._info.has_presentation_times and not self._info.has_false_times
        self.is_searchable = self._info.format in SEARCHABLE_FORMATS and has_times and self._is_steady()

    def _open(self) -> None:
        self._container = av.open(str(self.path), metadata_errors="replace")
        self._stream, _ = choose_stream(self.path, self._container)
        self._stream.codec_context.thread_count = 1
        start = self._stream.start_time
        self._start_seconds = 0.0 if start is None else float(start * self._stream.time_base)
        self._is_fresh = True

    def _is_steady(self) -> bool:
        """Whether time only goes forward: transport streams can be joined of several, and have no index that tells.

        The whole file is read for it, without decoding.
        """
        if self._info.format != "mpegts":
            return True
        self._is_fresh = False
        last = -math.inf
        for packet in self._container.demux(self._stream):
            if packet.dts is not None:
                if packet.dts < last:
                    return False
                last = packet.dts
        return True

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """The frames `(T, H, W, 3)` nearest to the times `(T,)`; see `ClipReader.read`."""
        order = np.argsort(seconds, kind="stable")
        wanted = seconds[order]
        images: np.ndarray | None = None
        shown = image = None
        for place, frame in zip(order, _nearest(self.frames_around(wanted), wanted), strict=False):
            if frame is not shown:  # times may lie so close that one frame is nearest to several
                shown, image = frame, to_rgb(frame.picture)
            if images is None:
                images = np.empty((len(seconds), *image.shape), np.uint8)
            images[place] = fitted(image, images.shape[1:3])
        if images is None:
            raise VideoError(self.path, "no frame decodes")
        return images

    def span(self) -> tuple[float, float]:
        """Presentation times of the first and the last frame that decode.

        The header's duration only tells where to look for the last.
        """
        first = last = next(self.frames_around(np.array([-math.inf])), None)
        if first is None:
            raise VideoError(self.path, "no frame decodes")
        ticks = self._stream.duration
        header_seconds = self._seconds(ticks) if ticks else (self._container.duration or 0) / av.time_base
        for frame in self.frames_around(np.array([self._start_seconds + header_seconds])):
            last = frame
        return first.seconds, last.seconds

    def frames_around(self, wanted: np.ndarray) -> Iterator[TimedPicture]:
        """Frames in order of presentation: those nearest to the ascending times `wanted`, some others, all later."""
        first_wanted = float(wanted[0])
        for step_back in STEPS_BACK_SECONDS if self.is_searchable else ():
            if first_wanted - step_back <= self._start_seconds:
                break
            frames = self._frames_from_keyframe(first_wanted - step_back, wanted)
            first = next(frames, None)
            if first is not None:
                yield first
                yield from frames
                return
        # from the first frame on, out of a file of which nothing was read yet
        if not self._is_fresh:
            self.close()
            self._open()
        self._is_fresh = False
        frames = with_stored_times(self.path, self._info, self._decode(self._container.demux(self._stream)))
        yield from strictly_increasing(frames, self._info.fps, Counter())

    def _frames_from_keyframe(self, seconds: float, wanted: np.ndarray) -> Iterator[TimedPicture]:
        """The same after a search for `seconds`; nothing unless it led to a keyframe before the first wanted."""
        self._is_fresh = False
        try:
            self._container.seek(int(seconds / self._stream.time_base + 1e-6), stream=self._stream)
        except av.error.FFmpegError:  # a format without an index
            return
        packets = self._container.demux(self._stream)
        from_keyframe = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
        # read without decoding, to know whether this was the keyframe before the first wanted, and what can be left out
        ahead = list(self._packets_until(wanted[-1], from_keyframe))
        if not ahead or ahead[0].pts is None or self._seconds(ahead[0].pts) > wanted[0] + EQUALLY_NEAR_SECONDS:
            return
        needed = self._needed(ahead, wanted)
        frames = self._decode(itertools.chain(ahead, packets), needed)
        first = next(frames, None)
        if first is not None and first.picture.pts == min(needed):  # else it leans on what was not read
            yield first
            yield from frames

    def _packets_until(self, seconds: float, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """Packets as they are decoded, until no later one can be shown before the first shown after `seconds`."""
        shown_after = math.inf
        for packet in packets:
            yield packet
            if packet.dts is None or self._seconds(packet.dts) >= shown_after:
                return
            if packet.pts is not None and self._seconds(packet.pts) >= seconds:
                shown_after = min(shown_after, self._seconds(packet.pts))

    def _needed(self, ahead: list[av.Packet], wanted: np.ndarray) -> set[int]:
        """Time stamps of the frames nearest to the times wanted; all from the keyframe on where that is not certain."""
        ahead = [packet for packet in ahead if packet.size]
        # frames that are stored after the keyframe but shown before it lean on what was not read
        stamps = sorted({packet.pts for packet in ahead if packet.pts is not None and packet.pts >= ahead[0].pts})
        is_certain = all(packet.pts is not None and packet.dts is not None for packet in ahead)
        if not is_certain or self._stream.codec_context.name not in SKIPPING_CODECS:
            return set(stamps)
        return {stamp.ticks for stamp in _nearest((Stamp(self._seconds(ticks), ticks) for ticks in stamps), wanted)}

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._stream.time_base)

    def _decode(self, packets: Iterable[av.Packet], needed: set[int] | None = None) -> Iterator[TimedPicture]:
        """Decoded frames, from the first of the time stamps `needed` on.

        Before the last of them, others may be missing: those that no frame leans on are not decoded.
        """
        first, last = (min(needed), max(needed)) if needed else (-math.inf, -math.inf)
        cut_off = False
        for packet in packets:
            cut_off = packet.is_corrupt if packet.size else cut_off  # the last packet, of no bytes, flushes the decoder
            is_needed = not needed or packet.pts is None or packet.pts in needed or packet.pts > last
            self._stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            for frame in packet.decode():
                if frame.pts is None or frame.pts >= first:
                    yield TimedPicture(frame.time, frame)
        if cut_off:
            raise VideoError(self.path, "the file ends in the middle of a frame")


class OpenImages:
    """A folder of numbered images, `fps` a second (default: 25), with the methods of `OpenVideo`."""

    is_searchable = True

    def __init__(self, path: Path, fps: float | None = None):
        self.path, self.fps, self._files = path, fps or DEFAULT_FPS, images_of(path)

    def close(self) -> None:
        """Nothing stays open."""

    @property
    def num_frames(self) -> int:
        """The images of the folder."""
        return len(self._files)

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """The images `(T, H, W, 3)` nearest to the times `(T,)`; of two equally near the earlier."""
        numbers = np.ceil(seconds * self.fps - 0.5 - EQUALLY_NEAR_SECONDS).clip(0, len(self._files) - 1).astype(int)
        images = {number: self._read(number) for number in sorted(set(numbers.tolist()))}
        size = images[numbers[0]].shape[:2]
        return np.stack([fitted(images[number], size) for number in numbers.tolist()])

    def span(self) -> tuple[float, float]:
        """Times of the first and the last image."""
        self._read(0)
        return 0.0, (len(self._files) - 1) / self.fps

    def _read(self, number: int) -> np.ndarray:
        try:
            return read_image(self._files[number])
        except Exception as error:  # whatever a damaged image raises
            raise VideoError(self.path, f"{self._files[number].name}: {error}") from error


def open_to_seek(path: Path, frames_fps: float | None = None) -> OpenVideo | OpenImages:
    """A video to take frames from by time; `frames_fps` is the rate of a folder of images. Raises `VideoError`."""
    try:
        return OpenImages(path, frames_fps) if path.is_dir() else OpenVideo(path)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error


def stored_seconds(path: Path, frames_fps: float | None = None) -> np.ndarray:
    """Times of a video's frames `(T,)`, strictly increasing, as `decode` gives them of a whole file.

    The file is read to its end, and decoded only where it has no times that can be relied on; else frames that would not
    decode are counted too. Raises `VideoError` when it is not a video.
    """
    video = open_to_seek(path, frames_fps)
    try:
        if isinstance(video, OpenImages):
            return np.arange(video.num_frames) / video.fps
        if not video.is_searchable:  # its times are mended on the way
            return np.array([frame.seconds for frame in video.frames_around(np.array([-math.inf]))])
        packets_a_frame = probe(path).packets_a_frame or 1
        seconds = sorted(itertools.islice(packet_seconds(path), 0, None, packets_a_frame))
        return np.array([moment.seconds for moment in strictly_increasing(map(FrameTime, seconds), None, Counter())])
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error
    finally:
        video.close()


def span_of(path: Path, frames_fps: float | None = None) -> tuple[float, float]:
    """Times of the first and the last frame of a video that decode. Raises `VideoError`."""
    video = open_to_seek(path, frames_fps)
    try:
        if not video.is_searchable:
            log.warning("%s: %s", path, NOT_SEARCHABLE)
        return video.span()
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error
    finally:
        video.close()


def _nearest(frames: Iterable[TimedT], seconds: np.ndarray) -> Iterator[TimedT]:
    """The frame nearest to each of the ascending times `(T,)`; no more are decoded than that needs."""
    times = iter(seconds.tolist())
    wanted = next(times)
    before: TimedT | None = None
    for frame in frames:
        while frame.seconds >= wanted:
            is_nearer = before is None or frame.seconds - wanted < wanted - before.seconds - EQUALLY_NEAR_SECONDS
            yield frame if is_nearer else before
            wanted = next(times, None)
            if wanted is None:
                return
        before = frame
    if before is not None:
        yield before
        yield from (before for _ in times)
