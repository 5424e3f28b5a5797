"""Decoding of real videos into colour-correct, upright RGB frames, in order of presentation, at strictly rising times.

PyAV is the default decoder: it is part of the installation, reads every codec of the samples, and converts colours
exactly as FFmpeg does. The others (`other_decoders`) are imported only where they are asked for. A folder of numbered
images is read as a video too, whichever decoder is asked for.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.base.runtime import UserError, counted, first_line
from common.video.probe import (
    FRAMES,
    VideoError,
    VideoInfo,
    choose_stream,
    display_matrix,
    images_of,
    indexed_frames,
    lost_frames,
    open_container,
    packets_a_frame,
    probe,
)
from common.video.timeline import DEFAULT_FPS, Frame, ShownT, strictly_increasing

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

# the packages that can provide a decoder, the one to install first
PACKAGES = {
    "pyav": ("av",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "decord": ("decord", "eva-decord"),
    "torchcodec": ("torchcodec",),
}
DECODERS = tuple(PACKAGES)
NVDEC = "nvdec"  # torchcodec on an NVIDIA GPU: fast, and its colours are not exactly those of the others, so not for features
_HINTS = {
    "opencv": "; the headless package needs no libGL",
    "decord": "; it has wheels for x86-64 Linux and Windows only",
    "torchcodec": "; it also needs FFmpeg's shared libraries (Debian: apt-get install libavcodec59 libavformat59 "
    "libavfilter8 libavdevice59, or the package ffmpeg; conda: conda install ffmpeg)",
}
USE_PYAV = "use --decoder pyav"
ACCEPT = "copy it again, or take it as it is with --accept_damaged, which marks its features"
ANOTHER_BEHIND = "a second video lies behind the first in one file, and is not read, or wrongly"
JOIN = "join the parts with ffmpeg -f concat, or take the first alone with --accept_damaged, which marks its features"
# matrix coefficients of ITU-T H.273 that FFmpeg's scaler has a table for; 0 and 2 are RGB and "unspecified"
KNOWN_MATRICES = {1, 4, 5, 6, 7, 9, 10}
UNTAGGED_MATRICES = {0, 2}
MPEG_VIDEO = ("mpeg1video", "mpeg2video")
SEQUENCE_HEADER_WITHIN = 64  # bytes of a packet


@dataclass
class DecodingRecord:
    """What came out of a video, for its sidecar; whole when its last frame was given."""

    promised: int | None = None
    """Frames by the index of the file; None for containers whose header is an estimate."""
    estimated: int | None = None
    """Frames by the header, where it says anything."""
    decoded: int = 0
    errors: int = 0
    """Places that did not decode."""
    first_error: str | None = None
    mended: Counter[str] = field(default_factory=Counter)
    """Times that were not strictly increasing, by kind."""
    notes: list[str] = field(default_factory=list)
    """What else a reader should know: streams that were not read, colours that no table has."""
    damage: str | None = None
    """Why the video counts as damaged although it was accepted."""

    def add_error(self, error: object) -> None:
        """Count a place that does not decode."""
        self.errors += 1
        self.first_error = self.first_error or str(getattr(error, "strerror", None) or error)

    def note(self, text: str) -> None:
        """Keep a remark once."""
        if text not in self.notes:
            self.notes.append(text)

    def to_json(self) -> dict[str, Any]:
        """The record as it stands in a sidecar."""
        return {
            "promised_frames": self.promised,
            "header_frames": self.estimated,
            "decode_errors": self.errors,
            "times_mended": dict(self.mended),
            "notes": self.notes,
            "damage": self.damage,
        }


class Decoding:
    """One video to be decoded once: iterate over it for its frames, then read `record`.

    Frames come in order of presentation. `frames_fps` is the rate of a folder of images (default: 25, noted).

    Iterating raises `VideoError` after the frames that decode: for a damaged video (decode errors, fewer frames than
    its index promises, bytes cut off), unless `accept_damaged`, for one without any frame, and for one that the decoder
    is known to get wrong. Raises `UserError` for a decoder that is unknown or not installed.
    """

    def __init__(
        self, path: Path, decoder: str = "pyav", *, accept_damaged: bool = False, frames_fps: float | None = None
    ):
        if decoder not in (*DECODERS, NVDEC):
            raise UserError(f"decoder {decoder!r}: unknown; known: {', '.join(DECODERS)}")
        require_decoder(decoder)
        self.path, self.decoder, self.accept_damaged, self.frames_fps = path, decoder, accept_damaged, frames_fps
        self.record = DecodingRecord()

    def __iter__(self) -> Iterator[Frame]:
        record, info = self.record, probe(self.path)
        last = 0.0
        try:
            for frame in strictly_increasing(self._frames(info), info.fps, record.mended):
                record.decoded, last = record.decoded + 1, frame.seconds
                yield frame
            if (
                self.decoder not in ("pyav", NVDEC) and info.format != FRAMES
            ):  # on the CPU it would take longer than all else
                self._compare_with_pyav()
        except VideoError as error:
            if error.promised is not None or not record.decoded or not info.indexed_frames:
                raise
            promised = info.indexed_frames
            reason = f"{promised} frames promised, {record.decoded} decoded; {error.reason}"
            raise VideoError(self.path, reason, record.decoded, advice=error.advice, promised=promised) from error
        if not record.decoded:
            reason = f"no frame decodes: {record.first_error}" if record.first_error else "no frame decodes"
            raise VideoError(self.path, reason)
        self._judge(info, last)
        if record.mended:
            if info.fps is None and info.format != FRAMES:
                record.note(
                    f"the rate of the video is unknown: {DEFAULT_FPS:g} frames a second assumed where times are not"
                )
            kinds = ", ".join(f"{count} {kind}" for kind, count in record.mended.items())
            log.warning("%s: times of frames were mended: %s", self.path, kinds)

    def _frames(self, info: VideoInfo) -> Iterator[Frame]:
        """The frames with the times that the file has."""
        if info.format == FRAMES:
            return decode_images(self.path, self.frames_fps, self.record)
        if info.other_streams:
            remark = f"stream {info.stream} is read, not {', '.join(info.other_streams)}"
            self.record.note(remark)
            log.warning("%s: several videos in one file: %s", self.path, remark)
        if self.decoder == "pyav":
            frames = decode_pyav(self.path, self.record)
        else:
            # imported here: it imports what no other decoder needs
            from common.video import other_decoders

            frames = other_decoders.DECODERS[self.decoder](self.path, info)
        return with_stored_times(self.path, info, frames)

    def _compare_with_pyav(self) -> None:
        """Decode once more for the errors, which no other decoder tells: it fills in what is missing, or ends there.

        Raises `VideoError` where the decoder gave another number of frames.
        """
        record, pyav = self.record, DecodingRecord()
        there = sum(1 for _ in _pictures(self.path, pyav))
        record.errors, record.first_error = pyav.errors, pyav.first_error
        if record.decoded != there:
            reason = f"{self.decoder} gives {record.decoded} of {there} frames that decode, without a word"
            raise VideoError(self.path, reason, record.decoded, advice=USE_PYAV)

    def _judge(self, info: VideoInfo, last: float) -> None:
        """Compare what came out with what the file promises. Raises `VideoError` for a damaged video."""
        # imported here: only the end of a video asks for the bytes of its file
        from common.video.extent import cut_off, is_followed_by_another

        record = self.record
        if info.format == FRAMES:
            record.promised = info.header_frames
        else:
            # asked for again: the index of a fragmented file grows while it is read
            with open_container(self.path) as container:
                stream, _ = choose_stream(self.path, container)
                record.promised = indexed_frames(container, stream, info.packets_a_frame)
                # the header of an MP4 does not say that it holds fields
                if lost_frames(record.promised, record.decoded) and packets_a_frame(self.path) == 2:
                    record.promised = indexed_frames(container, stream, 2)
        record.estimated = info.promised_frames
        errors = f"{counted(record.errors, 'decode error')}, the first: {record.first_error}" if record.errors else None
        lacking, cut = lost_frames(record.promised, record.decoded), cut_off(self.path, info, record.decoded, last)
        behind = ANOTHER_BEHIND if info.format != FRAMES and is_followed_by_another(self.path) else None
        if not (errors or lacking or cut or behind):
            if record.promised is None and (fewer := lost_frames(record.estimated, record.decoded)):
                log.warning("%s: %s, by a header that is an estimate", self.path, fewer)
            return
        numbers = f"{record.promised} frames promised, {record.decoded} decoded" if record.promised else None
        damage = "; ".join(filter(None, (numbers, cut, behind, errors)))
        if not self.accept_damaged:
            reason, advice = f"damaged: {damage}", JOIN if behind else ACCEPT
            raise VideoError(self.path, reason, record.decoded, advice=advice, promised=record.promised)
        record.damage = damage
        log.warning("%s: damaged, and taken as it is: %s", self.path, damage)


def decode(path: Path, decoder: str = "pyav") -> Iterator[Frame]:
    """Frames of a video in order of presentation; raises as `Decoding` does."""
    yield from Decoding(path, decoder)


def with_stored_times(path: Path, info: VideoInfo, frames: Iterator[ShownT]) -> Iterator[ShownT]:
    """The frames with the times that the file really has, which PyAV does not tell in every container."""
    if info.has_false_times:
        return (frame.at(None) for frame in frames)
    if info.has_presentation_times:
        return frames
    if info.packets_a_frame is None:
        reason = "fields and whole frames alternate, and nothing says when they are shown"
        raise VideoError(path, reason, advice="wrap the original recording as MP4, Matroska or MPEG-TS instead")
    return _timed_in_order_of_decoding(path, info.packets_a_frame, frames)


def _timed_in_order_of_decoding(path: Path, packets_a_frame: int, frames: Iterator[ShownT]) -> Iterator[ShownT]:
    """Give the i-th frame shown the i-th of the times that are stored in order of decoding.

    Files without presentation times store one a frame, and show the frames in that order but for a constant delay. The
    packets are read a second time, beside the frames, without decoding.
    """
    times = itertools.islice(packet_seconds(path), 0, None, packets_a_frame)
    for frame in frames:
        yield frame.at(next(times, None))


def packet_seconds(path: Path) -> Iterator[float | None]:
    """The times that a file stores, one a packet, in order of decoding; None where it stores none."""
    with open_container(path) as container:
        stream, _ = choose_stream(path, container)
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                # AVI: PyAV guesses presentation times, wrongly; elsewhere the decoding times are the guess
                ticks = packet.dts if container.format.name == "avi" else packet.pts
                yield None if ticks is None else float(ticks * packet.time_base)


def decode_pyav(path: Path, record: DecodingRecord) -> Iterator[Frame]:
    """PyAV (FFmpeg inside its wheel): sequential, in constant memory, colour tags and display matrix honoured."""
    for picture in _pictures(path, record):
        if picture.colorspace not in KNOWN_MATRICES | UNTAGGED_MATRICES:
            record.note(f"colour matrix {picture.colorspace} is unknown: read as BT.601")
        yield Frame(to_rgb(picture), picture.time)


def _pictures(path: Path, record: DecodingRecord) -> Iterator[av.VideoFrame]:
    """All pictures of a video, not yet RGB; what does not decode is counted in `record`, and decoding goes on behind it."""
    with open_container(path) as container:
        stream, _ = choose_stream(path, container)
        stream.thread_type = "AUTO"
        context, size = stream.codec_context, None
        for packet in _packets(container, stream, record):
            try:
                decoded = []
                if context.name in MPEG_VIDEO and (stated := _mpeg_size(packet)):
                    # at another size FFmpeg would drop the last picture, which it holds back until the next one
                    if size not in (None, stated):
                        decoded = context.decode(None)
                        context.flush_buffers()
                    size = stated
                decoded += packet.decode()
            except Exception as error:  # as with `open_container`: whatever it is, it is this packet's
                record.add_error(error)
                continue
            for picture in decoded:
                if picture.is_corrupt:  # FFmpeg fills what is missing from the pictures around it
                    record.add_error("a picture of which a part is missing")
                yield picture


def _mpeg_size(packet: av.Packet) -> bytes | None:
    """Width and height as a sequence header has them (ISO/IEC 13818-2, 6.2.2.1), where a packet begins with one."""
    content = bytes(packet)[:SEQUENCE_HEADER_WITHIN]
    place = content.find(b"\0\0\1\xb3")
    return content[place + 4 : place + 7] if place >= 0 else None


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, record: DecodingRecord
) -> Iterator[av.Packet]:
    """Packets of a stream to its end, or to where the file cannot be read further, which counts as an error."""
    packets = container.demux(stream)
    is_cut = False
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except Exception as error:  # see `decode_pyav`
            record.add_error(error)
            break
        # only the last packet with content tells: the empty one after it flushes the decoder, and a corrupt packet
        # before it is a joint, or a damaged place that decoding gets over
        is_cut = packet.is_corrupt if packet.size else is_cut
        yield packet
    if is_cut:
        record.add_error("the file ends in the middle of a frame")


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """RGB of a PyAV frame under its own colour matrix and range, turned and mirrored as it is shown.

    Untagged and unknown matrices count as BT.601 and untagged ranges as limited, as in FFmpeg.
    """
    from av.video.reformatter import ColorRange, Colorspace

    matrix = frame.colorspace if frame.colorspace in KNOWN_MATRICES else Colorspace.ITU601
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=Colorspace.ITU601,  # RGB has no matrix: not used, but asked for
        src_color_range=frame.color_range or ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return _upright(converted.to_ndarray(), display_matrix(frame))


def _upright(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    if matrix is None:
        return image
    a, b, c, d = matrix
    if b or c:  # the axes change places: x is made of y, and y of x
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:, ::-1] if a < 0 else image
    image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)


def decode_images(folder: Path, fps: float | None, record: DecodingRecord) -> Iterator[Frame]:
    """The numbered images of a folder in their order, `fps` a second; one that cannot be read is counted, not given."""
    if not fps:
        record.note(f"the rate of the images is unknown: {DEFAULT_FPS:g} a second assumed")
    for index, path in enumerate(images_of(folder)):
        try:
            image = read_image(path)
        except Exception as error:  # a damaged image is one frame that does not decode
            record.add_error(f"{path.name}: {error}")
            continue
        yield Frame(image, index / (fps or DEFAULT_FPS))


def read_image(path: Path) -> np.ndarray:
    """An image file as `(H, W, 3)` uint8 RGB, turned as its EXIF data says."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=("JPEG", "PNG", "BMP", "TIFF", "WEBP")) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":  # 16 bits of grey: Pillow would cut them off at 255
            levels = np.asarray(image, dtype=np.float64)
            return np.repeat((levels / 257).round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def require_decoder(decoder: str) -> None:
    """Raise `UserError` that says what to install where the package behind a decoder does not load."""
    modules = {"pyav": "av", "opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec.decoders"}
    modules[NVDEC] = modules["torchcodec"]
    try:
        importlib.import_module(modules[decoder])
    except RuntimeError as error:  # older torchcodec loads FFmpeg when it is imported
        raise UserError(f"--decoder {decoder}: {first_line(error)}{_HINTS.get(decoder, '')}") from error
    except (ImportError, OSError) as error:
        raise _not_installed(decoder, error) from error


def _not_installed(decoder: str, error: object) -> UserError:
    return UserError(
        f"--decoder {decoder}: not installed ({first_line(error)}); run: pip install {PACKAGES.get(decoder, ('torchcodec',))[0]}"
        f"{_HINTS.get(decoder, '')}; or use --decoder pyav"
    )


def decoder_version(decoder: str) -> str:
    """`package version` of the package behind a decoder, for the sidecar.

    Raises `UserError` that says what to install when there is none.
    """
    for package in PACKAGES[decoder]:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    raise _not_installed(decoder, "no such package")
