"""What a video's header says: size, rate, frames. Shown and used for estimates, never relied on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.video import decoders
from common.video.decoders import VideoError

LARGEST_DISAGREEMENT = 2.0  # between a header's frame count and its duration times its rate, before neither is believed
TYPICAL_BYTES_PER_FRAME = 4000  # where no header tells: only proportions matter


def estimate_frames(videos: Mapping[str, Path]) -> dict[str, int]:
    """Expected frames of each video, at least 1; from headers, never by decoding.

    A header that gives no count, contradicts itself or cannot be read is replaced by the file's size over the median
    bytes per frame of the other videos.
    """
    sizes = {name: path.stat().st_size for name, path in videos.items()}
    counts = {name: _frames_by_header(path) for name, path in videos.items()}
    known = [sizes[name] / count for name, count in counts.items() if count]
    bytes_per_frame = statistics.median(known) if known else TYPICAL_BYTES_PER_FRAME
    return {name: max(1, counts[name] or round(sizes[name] / bytes_per_frame)) for name in videos}


def _frames_by_header(path: Path) -> int | None:
    try:
        return believable_frames(probe(path))
    except VideoError:  # extraction reports it when its turn comes
        return None


def believable_frames(info: VideoInfo) -> int | None:
    """The frames that a header promises; None when it does not say, or says two different things."""
    by_time = info.seconds * info.fps if info.seconds and info.fps else None
    if info.header_frames is None or by_time is None:
        return info.header_frames or (round(by_time) if by_time else None)
    if 1 / LARGEST_DISAGREEMENT <= info.header_frames / by_time <= LARGEST_DISAGREEMENT:
        return info.header_frames
    return None


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says; `header_frames`, `fps` and `seconds` may be wrong or missing (None)."""

    codec: str
    width: int
    height: int
    fps: float | None
    header_frames: int | None
    seconds: float | None


def probe(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises `VideoError` when it is not a video.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = decoders.video_stream(path, container)
            context = stream.codec_context
            fps = float(stream.average_rate) if stream.average_rate else None
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            seconds = seconds or (container.duration / av.time_base if container.duration else None)
            return VideoInfo(context.name, context.width, context.height, fps, stream.frames or None, seconds)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, error) from error
