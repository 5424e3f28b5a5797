"""Frames of videos at given times, out of a bounded number of decoders that stay open."""

import os
from collections import OrderedDict
from pathlib import Path

import av
import numpy as np

from common.dataset.description import frames_fps_of
from common.video.probe import VideoError
from common.video.seek import OpenImages, OpenVideo, open_to_seek
from pretrain.video_data.packed import OpenPacked, is_shard

Opened = OpenVideo | OpenImages | OpenPacked
PACKED_FOR_ONE = 8  # that stay open in place of a video: an open file and a table against a decoder with its pictures


class ClipReader:
    """Reads frames by time, of videos and of packed ones, and keeps up to `open_videos` open, those used last.

    Of packed ones it is eight times as many.

    Every process has decoders of its own, also after a fork. They run in one thread each: processes share the cores.
    """

    def __init__(self, open_videos: int = 8):
        if open_videos < 1:
            raise ValueError(f"open_videos must be at least 1, found {open_videos}")
        self.open_videos = open_videos
        self._videos: OrderedDict[Path, Opened] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {"open_videos": self.open_videos}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        """The decoded frames `(T, H, W, 3)` uint8 RGB nearest to the presentation times `(T,)`, in any order.

        Of two equally near frames the earlier; before the first frame it is the first, after the last the last. Raises
        `VideoError` when the video cannot be opened, or decoded as far as that. Of a packed video (the path of its shard)
        times are rounded to the grid of its frames.
        """
        path, seconds = Path(path), np.asarray(seconds, dtype=np.float64)
        try:
            return self._opened(path).nearest(seconds)
        except (av.error.FFmpegError, OSError) as error:
            self._close(path)  # a decoder that failed is in no state to be asked again
            raise VideoError(path, error) from error
        except VideoError:
            self._close(path)
            raise

    def close(self) -> None:
        """Close all videos."""
        for path in list(self._videos):
            self._close(path)

    def _opened(self, path: Path) -> Opened:
        if self._process != os.getpid():  # a forked process shares the file positions of its parent
            self._videos, self._process = OrderedDict(), os.getpid()
        if path not in self._videos:
            # the first in the dictionary was used longest ago
            while len(self._videos) >= self.open_videos * (PACKED_FOR_ONE if is_shard(path) else 1):
                self._close(next(iter(self._videos)))
            self._videos[path] = _open(path)
        self._videos.move_to_end(path)
        return self._videos[path]

    def _close(self, path: Path) -> None:
        if video := self._videos.pop(path, None):
            video.close()


def _open(path: Path) -> Opened:
    if is_shard(path):
        return OpenPacked(path)
    return open_to_seek(path, frames_fps_of(path) if path.is_dir() else None)
