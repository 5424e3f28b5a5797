"""Sequential decoding of real video files into colour-correct RGB frames, and probing.

Header counts and frame rates are only ever shown, never relied on: a video has the frames that decode.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from common.base.runtime import UserError
from common.video.containers import declared_bytes
from common.video.decoders import DECODERS, Frame, VideoError
from common.video.headers import probe

log = logging.getLogger(__name__)


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
