"""Length, rate and fingerprint of each video of a corpus, found once and kept in an index file.

Looking into a thousand videos takes minutes, so it is done in several processes; a video is looked into again only when
its size or its time of change differs.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.base.entries import is_frame_folder
from common.base.files import misfit, read_json, video_bytes, video_fingerprint, write_json
from common.base.runtime import UserError, progress
from common.dataset.description import frames_fps_of
from common.video.probe import VideoError, probe
from common.video.seek import span_of
from common.video.timeline import DEFAULT_FPS
from pretrain.video_data.processes import KILLED, MOST_PROCESSES, in_processes_of_their_own

log = logging.getLogger(__name__)

FORMAT = 1
# the shape of what an index says of a video
RECORD = {
    "duration_seconds": float, "fps": float | None, "num_frames": int | None, "size_bytes": int, "fingerprint": str,
    "start_seconds": float, "modified_ns": int,
}  # fmt: skip


@dataclass(frozen=True)
class VideoEntry:
    """A video whose first and last frames decode."""

    path: Path
    name: str
    """Path below the corpus without suffix: `case_0012`, or `2019/case_0012`."""
    duration_seconds: float
    """From the first frame to the end of the last, by their presentation times."""
    fps: float | None
    """Of the header, which may be wrong, as `num_frames` may."""
    num_frames: int | None
    size_bytes: int
    fingerprint: str
    start_seconds: float = 0.0
    """Presentation time of the first frame."""


def probe_video(path: Path) -> VideoEntry:
    """Look into a video: decode its first and last frames, read blocks of its content.

    Raises `VideoError` when it cannot be read.
    """
    info = probe(path)
    frames_fps = frames_fps_of(path) if path.is_dir() else None
    first, last = span_of(path, frames_fps)
    fps = info.fps or frames_fps or (DEFAULT_FPS if path.is_dir() else None)
    return VideoEntry(
        path=path,
        name=path.stem,
        duration_seconds=last - first + (1 / fps if fps else 0.0),
        fps=fps,
        num_frames=info.header_frames,
        size_bytes=video_bytes(path),
        fingerprint=video_fingerprint(path),
        start_seconds=first,
    )


def probe_videos(videos: Sequence[Path], index: Path, num_processes: int | None = None) -> dict[Path, VideoEntry]:
    """The readable ones of `videos` with what is known of them; the others are named in warnings.

    The file `index` is read and, with what is new, written; an interruption loses nothing that was found. New videos
    are looked into by `num_processes` (default: one a core, at most 8; 0: this one), of which a decoder may kill some.
    """
    states, failed = {}, []
    for path in videos:
        if not (path.is_file() or is_frame_folder(path)):  # a pipe would be waited for
            failed.append(path)
            log.warning("left out: %s", VideoError(path, "a link to nothing, or not a file"))
            continue
        state = path.stat()
        states[path] = {"size_bytes": video_bytes(path), "modified_ns": state.st_mtime_ns}
        if path.is_dir():  # whose length in time is told by a file that may change
            states[path]["fps"] = frames_fps_of(path) or DEFAULT_FPS
    records = _read_index(index)
    # one whose size or time of change is not that of its record has changed since
    new = [path for path in states if not states[path].items() <= records.get(str(path), {}).items()]
    if num_processes is None:
        num_processes = min(MOST_PROCESSES, os.cpu_count() or 1)
    try:
        with progress(total=len(new), description="videos", unit="video") as bar:
            for path, found in in_processes_of_their_own(_probe, new, num_processes, _killed):
                bar.update()
                if isinstance(found, VideoError):
                    failed.append(path)
                    log.warning("left out: %s", found)
                else:
                    known = dataclasses.asdict(found)
                    del known["path"], known["name"]  # by which it is found again
                    records[str(path)] = states[path] | known
    finally:  # what was found before an interruption is kept
        if new:
            write_json(index, {"format": FORMAT, "videos": records})
    if failed:
        log.warning("left out %d of %d videos, which cannot be read", len(failed), len(videos))
    return {path: _entry(path, records[str(path)]) for path in videos if path not in failed}


def _read_index(index: Path) -> dict[str, dict[str, Any]]:
    """What is known of videos by their paths; nothing of an index of another format, or a damaged one, which is said."""
    if not os.path.lexists(index):
        return {}
    try:
        content = read_json(index)
        wrong = misfit(content, {"format": int})
        if not wrong and content["format"] != FORMAT:
            return {}
        wrong = wrong or misfit(content, {"format": int, "videos": {str: RECORD}})
    except UserError as error:
        wrong = str(error)
    if wrong:
        log.warning("%s: cannot be used (%s); all videos are looked into again", index, wrong)
    return {} if wrong else content["videos"]


def _entry(path: Path, record: dict[str, Any]) -> VideoEntry:
    values = {key: record[key] for key in RECORD if key != "modified_ns"}
    return VideoEntry(path=path, name=path.stem, **values)


def _probe(path: Path) -> VideoEntry | VideoError:
    try:
        return probe_video(path)
    except VideoError as error:
        return error


def _killed(path: Path) -> VideoError:
    return VideoError(path, KILLED)
