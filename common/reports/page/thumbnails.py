"""A row of small frames for each video of the page, so that a surgeon sees what a phase looked like.

They lie evenly over the time of the ribbons above them, and are remembered in the user's cache folder: to find twelve frames
in a long video takes seconds.
"""

import base64
import contextlib
import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.base import paths
from common.base.files import atomic_path, video_bytes
from common.base.runtime import UserError, progress
from common.dataset.description import features_owner, frames_fps_of
from common.reports.comparison import Report
from common.video.preprocess import fitted

log = logging.getLogger(__name__)

NUM_FRAMES = 12
FRAME_WIDTH = 100  # pixels; twelve are as wide as a ribbon
MOST_HEIGHT = 120  # of a frame, however tall the video
JPEG_QUALITY = 55  # a row takes some 15 kB


def frame_strips(report: Report, videos: Sequence[str]) -> dict[str, str]:
    """Rows of frames as addresses (`data:image/jpeg`) that the page holds itself, by video.

    A video without a file here, without a frame rate or that cannot be read has none.
    """
    try:
        files = paths.find_videos(features_owner(report.dataset).videos)
    except UserError as error:  # two files of one name: nobody knows which
        log.warning("no frames of videos in the page: %s", error)
        return {}
    scores = report.results[0].scores
    known = {name: scores[name] for name in videos if name in files and name in scores and scores[name].fps}
    strips = {}
    for name, score in progress(known.items(), description="frames of videos", unit="videos"):
        try:
            strips[name] = _remembered(files[name], score.num_frames / score.fps)
        except (UserError, OSError) as error:
            log.warning("no frames of %s in the page: %s", name, error)
    return {name: f"data:image/jpeg;base64,{base64.b64encode(row).decode()}" for name, row in strips.items()}


def _remembered(video: Path, seconds: float) -> bytes:
    """`frame_strip`, from the user's cache folder where this file was looked at before."""
    status = video.stat()
    facts = (
        str(video.resolve()),
        video_bytes(video),
        status.st_mtime_ns,
        seconds,
        NUM_FRAMES,
        FRAME_WIDTH,
        JPEG_QUALITY,
    )
    note = None
    with contextlib.suppress(RuntimeError):  # a user without a home
        note = paths.user_cache() / "thumbnails" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.jpg"
    with contextlib.suppress(OSError):
        if note and note.is_file():
            return note.read_bytes()
    row = frame_strip(video, seconds)
    if note:
        with contextlib.suppress(OSError), atomic_path(note) as temporary:  # a home folder that is full, or read-only
            temporary.write_bytes(row)
    return row


def frame_strip(video: Path, seconds: float) -> bytes:
    """A JPEG of `NUM_FRAMES` frames side by side: those in the middle of equal parts of the first `seconds`.

    Raises `VideoError` for a video that cannot be read.
    """
    import av

    from common.video.probe import VideoError
    from common.video.seek import open_to_seek

    times = (np.arange(NUM_FRAMES) + 0.5) * seconds / NUM_FRAMES
    opened = open_to_seek(video, frames_fps_of(video) if video.is_dir() else None)
    # a search for each, or once through a file that cannot be searched
    parts = np.split(times, NUM_FRAMES) if opened.is_searchable else [times]
    with contextlib.closing(opened):
        try:
            images = [image for part in parts for image in opened.nearest(part)]
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(video, error) from error
    size = images[0].shape[:2]
    height = min(MOST_HEIGHT, max(1, round(FRAME_WIDTH * size[0] / size[1])))
    small = [Image.fromarray(fitted(image, size)).resize((FRAME_WIDTH, height)) for image in images]
    row = Image.fromarray(np.concatenate([np.asarray(image) for image in small], axis=1))
    written = io.BytesIO()
    row.save(written, "JPEG", quality=JPEG_QUALITY)
    return written.getvalue()
