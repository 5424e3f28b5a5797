"""Features of labelled frames and of clips: a row of features for each label, checked as a head's inputs are."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.base.runtime import UserError, listed, progress
from common.dataset.phases import allowed_difference
from common.dataset.task_labels import FrameLabels, TaskClip
from common.features.files import FeatureFile, identity_differences, open_features

log = logging.getLogger(__name__)


class OpenedFeatures:
    """Feature files of a folder by video, opened once, all made in the same way."""

    def __init__(self, folder: Path, feature_dim: int | None, *, verify: bool = True):
        self.folder, self.feature_dim, self.verify = folder, feature_dim, verify
        self._files: dict[str, FeatureFile] = {}

    def open_all(self, videos: Iterable[str]) -> None:
        """Open and check the features of videos.

        Raises `UserError` naming the file that is missing, unsuitable, not what was written, or made in another way.
        """
        for video in progress(list(dict.fromkeys(videos)), description="check features", unit="files"):
            if video in self._files:
                continue
            file = open_features(self.folder / f"{video}.npy", self.feature_dim)
            if self.verify:
                file.verify()
            first = next(iter(self._files.values()), file)
            if len(file.array) != len(first.array) or identity_differences(file.identity(), first.identity()):
                raise UserError(
                    f"{file.path} and {first.path} were made in different ways (see their .json); extract both again with the "
                    "same options and --force"
                )
            self._files[video] = file

    def __getitem__(self, video: str) -> FeatureFile:
        return self._files[video]

    @property
    def any_file(self) -> FeatureFile:
        """One of them, by which all were made alike."""
        return next(iter(self._files.values()))

    def digests(self, videos: Iterable[str]) -> dict[str, str]:
        """Identity of the features of each video."""
        return {video: self[video].digest() for video in videos}


def frames_reached(labels: Mapping[str, FrameLabels], features: OpenedFeatures, source: Path) -> dict[str, FrameLabels]:
    """Labels of frames that their videos have; those past the end are left out, with one warning.

    Raises `UserError` naming the file of the labels, `source`, and the video where more are than labels of it could be.
    """
    found, trimmed = {}, []
    for video, of_video in labels.items():
        num_frames = features[video].timeline.num_frames
        beyond = int(of_video.frames[-1]) + 1 - num_frames
        is_reached = of_video.frames < num_frames
        if beyond > allowed_difference(num_frames) or not is_reached.any():
            raise UserError(
                f"{source}: {video}: frame {of_video.frames[-1]} is labelled, but {features[video].path} is of {num_frames} decoded frames "
                "(from 0); labels of another video or at another frame rate, or a video cut short"
            )
        if beyond > 0:
            trimmed.append(f"{video} ({np.count_nonzero(~is_reached)})")
        found[video] = FrameLabels(of_video.frames[is_reached], of_video.present[is_reached])
    if trimmed:
        log.warning("labelled frames past the end of their video, left out: %s", listed(trimmed))
    return found


def rows_of_frames(file: FeatureFile, frames: np.ndarray) -> np.ndarray:
    """The features `(n, feature_dim)` float32 that stand for decoded `frames` `(n,)`: of the sampled frame nearest in time.

    Raises `UserError` naming the file where one is not finite.
    """
    rows = np.asarray(file.array.T[file.timeline.nearest_sample(frames)], dtype=np.float32)
    if not np.isfinite(rows).all():
        raise UserError(f"{file.path}: a feature is NaN or infinite; extract this video again with --force")
    return rows


def video_of(clip: TaskClip) -> str:
    """The video whose features a clip takes: its own file, or what it is a part of."""
    return clip.video or clip.name


def rows_of_clips(clips: Sequence[TaskClip], features: OpenedFeatures) -> np.ndarray:
    """The mean feature of each clip `(num_clips, feature_dim)` float64, over the sampled frames in it.

    A clip that is shorter than the gap between two samples takes the one nearest to its middle. Raises `UserError` for one
    that begins after its video has ended, and for a part of a video whose features do not say their times.
    """
    means = []
    for clip in clips:
        file = features[video_of(clip)]
        timeline = file.timeline
        if clip.video and file.sidecar is None:
            raise UserError(
                f"{file.path}: {clip.name} is a part of this video in seconds, but features without a sidecar (.json) do not say "
                "when their frames are; extract the features here"
            )
        seconds = timeline.seconds - timeline.seconds[0]
        if clip.start > seconds[-1]:
            raise UserError(
                f"{clip.name}: begins at {clip.start:g} s, but {file.path} is of a video whose last frame is at "
                f"{seconds[-1]:g} s; correct its row in clips.csv"
            )
        frames = np.flatnonzero((seconds >= clip.start) & (seconds < clip.end))
        sampled = np.intersect1d(frames, timeline.sampled, assume_unique=True)
        if not len(sampled):
            middle = (clip.start + min(clip.end, seconds[-1])) / 2
            sampled = np.array([int(np.abs(seconds - middle).argmin())])
        means.append(rows_of_frames(file, sampled).mean(axis=0, dtype=np.float64))
    return np.stack(means)
