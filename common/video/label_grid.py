"""Labels at a rate of their own: the decoded frame that each of them belongs to."""

import math
from dataclasses import dataclass

import numpy as np

from common.video.timeline import EQUALLY_NEAR_SECONDS, nearest_in_time


@dataclass(frozen=True)
class LabelGrid:
    """`label_fps` labels a second from the first frame on, or one for every `label_every`-th decoded frame.

    Neither: one a decoded frame.
    """

    label_fps: float | None = None
    label_every: int | None = None

    def __str__(self) -> str:
        if self.label_fps is not None:
            return f"label_fps {self.label_fps:g}"
        return f"label_every {self.label_every or 1}"

    @property
    def is_every_frame(self) -> bool:
        return self.label_fps is None and self.label_every in (None, 1)

    def frames(self, seconds: np.ndarray) -> np.ndarray:
        """The decoded frame of each label that a frame reaches, `(num_labels,)`, of frames at the rising `seconds` `(T,)`.

        Label k lies at k / `label_fps` after the first frame and takes the frame nearest in time, of two equally near
        the earlier. The last frame reaches half of the gap before it beyond its time, as when frames are sampled.
        """
        if self.label_fps is None:
            return np.arange(0, len(seconds), self.label_every or 1)
        gap = float(seconds[-1] - seconds[-2]) if len(seconds) > 1 else 0.0
        reach = float(seconds[-1] - seconds[0]) + gap / 2 + EQUALLY_NEAR_SECONDS
        # the product rounds; one point more or less is settled by the comparison
        points = np.arange(math.floor(reach * self.label_fps) + 2) / self.label_fps
        return nearest_in_time(seconds, seconds[0] + points[points <= reach])

    def count(self, num_frames: int, fps: float | None) -> int | None:
        """Labels that a video of `num_frames` at a constant rate reaches; None where the rate is needed and unknown."""
        if self.label_fps is not None and not fps:
            return None
        return len(self.frames(np.arange(num_frames) / (fps or 1)))

    def rate(self, fps: float | None) -> float | None:
        """Labels a second of a video of `fps` decoded frames a second; None where that is not known."""
        if self.label_fps is not None:
            return self.label_fps
        return fps and fps / (self.label_every or 1)


EVERY_FRAME = LabelGrid()
