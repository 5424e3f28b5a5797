"""One operation at a time: how long its phases took, what is unusual in their order, where the encoder hesitates.

What is usual is taken from the true labels of all videos; the order of one video is compared with the other videos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.base.runtime import progress
from common.checks.orders import PhaseOrders
from common.dataset.segments import Segments
from common.reports.results import EncoderResult
from common.scoring.video_score import VideoScore

LEAST_OTHERS = 5  # videos to compare with, below which nothing is called unusual
RARE = 0.1  # the share of other videos below which something is unusual
USUAL_RANGE = (0.1, 0.5, 0.9)  # quantiles of the durations
NUM_DOUBTFUL = 5  # changes of a video that are listed


@dataclass(frozen=True)
class PhaseDuration:
    """Time spent in a phase, all its segments together; 0 where a video does not have it."""

    phase: int
    true: float
    predicted: float
    usual: tuple[float, float, float]
    """Quantiles 10, 50 and 90 % of the true durations in the videos that have the phase; NaN without one."""
    num_videos: int

    @property
    def lies(self) -> str:
        """Where the true duration lies: `short` and `long` are outside the usual range; empty where not to be told."""
        low, _, high = self.usual
        if not self.true or self.num_videos <= LEAST_OTHERS:
            return ""
        return "short" if self.true < low else "long" if self.true > high else "usual"


@dataclass(frozen=True)
class Change:
    """A change from one phase to another, at `time`."""

    first: int
    second: int
    time: float


@dataclass(frozen=True)
class DoubtfulChange:
    """A predicted change; `confidence` is the mean highest probability within `CHANGE_SECONDS` of it."""

    change: Change
    confidence: float
    off: float
    """Time from the nearest true change, positive where the prediction is late; NaN where no change is true."""


@dataclass(frozen=True)
class OddCount:
    """A phase that occurs `times` times: 0 for one that nearly all others have, else more often than in nearly all."""

    phase: int
    times: int
    num_alike: int
    """Other videos without the phase, or with it as often."""


@dataclass(frozen=True)
class Course:
    """The unusual in an order of phases, compared with the true orders of the other videos."""

    unseen: list[Change]
    """Changes that no other video has."""
    skipped: list[OddCount]
    repeated: list[OddCount]

    @property
    def is_usual(self) -> bool:
        return not (self.unseen or self.skipped or self.repeated)


@dataclass(frozen=True, eq=False)
class CaseSheet:
    """One video; times in seconds, or in frames where the cohort's frame rates are not all known."""

    video: str
    score: VideoScore
    rate: float
    """Frames per unit of time."""
    durations: list[PhaseDuration]
    true_course: Course | None
    """None where there are too few other videos, as in `predicted_course`."""
    predicted_course: Course | None
    doubtful: list[DoubtfulChange]
    """The least confident first; empty without probabilities."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Scored videos, and what is usual in their true labels."""

    scores: Mapping[str, VideoScore]

    @property
    def in_seconds(self) -> bool:
        return all(score.fps for score in self.scores.values())

    def rate(self, video: str) -> float:
        """Frames a second, or 1 where frame rates are unknown."""
        return float(self.scores[video].fps) if self.in_seconds else 1.0

    @cached_property
    def durations(self) -> np.ndarray:
        """True time in each phase `(videos, num_classes)`."""
        return np.array([score.confusion.sum(1) / self.rate(name) for name, score in self.scores.items()])

    @cached_property
    def orders(self) -> PhaseOrders:
        """The true orders of phases."""
        scores = list(self.scores.values())
        return PhaseOrders([score.segments[1] for score in scores], scores[0].num_classes)


def case_sheets(result: EncoderResult) -> list[CaseSheet]:
    """A sheet for each video of an encoder, by name."""
    cohort = Cohort(dict(sorted(result.scores.items())))
    names = progress(list(cohort.scores), description="case sheets", unit="videos")
    return [_sheet(cohort, place, video) for place, video in enumerate(names)]


def _sheet(cohort: Cohort, place: int, video: str) -> CaseSheet:
    score, rate = cohort.scores[video], cohort.rate(video)
    predicted, true = score.segments
    return CaseSheet(
        video=video,
        score=score,
        rate=rate,
        durations=phase_durations(cohort, place, video),
        true_course=course(true, cohort, place, rate),
        predicted_course=course(predicted, cohort, place, rate),
        doubtful=doubtful_changes(score, rate),
    )


def phase_durations(cohort: Cohort, place: int, video: str) -> list[PhaseDuration]:
    """Every phase that is true in the video or predicted, in the order of the mapping."""
    score = cohort.scores[video]
    predicted = score.confusion.sum(axis=0) / cohort.rate(video)
    found = []
    for phase in np.flatnonzero(score.confusion.sum(axis=0) + score.confusion.sum(axis=1)).tolist():
        having = cohort.durations[:, phase][cohort.durations[:, phase] > 0]
        usual = tuple(np.quantile(having, USUAL_RANGE).tolist()) if having.size else (float("nan"),) * 3
        true = float(cohort.durations[place, phase])
        found.append(PhaseDuration(phase, true, float(predicted[phase]), usual, len(having)))
    return found


def course(segments: Segments, cohort: Cohort, place: int, rate: float) -> Course | None:
    """The unusual in the segments of the video at `place`; None with fewer than `LEAST_OTHERS` other videos.

    A phase is skipped, or repeated, when fewer than a share `RARE` of the other videos lack it, or have it as often.
    """
    if len(cohort.scores) - 1 < LEAST_OTHERS:
        return None
    unseen = [
        Change(before, phase, int(segments.starts[index]) / rate)
        for index, before, phase in cohort.orders.unseen_changes(segments, place)
        if 0 < index < len(segments)  # how a video begins and ends is not judged here
    ]
    elsewhere = np.delete(cohort.orders.counts, place, axis=0)
    skipped, repeated = [], []
    for phase, times in enumerate(np.bincount(segments.labels, minlength=elsewhere.shape[1]).tolist()):
        num_alike = int(np.sum(elsewhere[:, phase] >= times if times else elsewhere[:, phase] == 0))
        if num_alike < RARE * len(elsewhere) and times != 1:
            (repeated if times else skipped).append(OddCount(phase, times, num_alike))
    return Course(unseen, skipped, repeated)


def doubtful_changes(score: VideoScore, rate: float) -> list[DoubtfulChange]:
    """The `NUM_DOUBTFUL` predicted changes of the lowest confidence; none without probabilities."""
    if score.from_probabilities is None:
        return []
    confidences = score.from_probabilities.at_changes.tolist()
    predicted, true = score.segments
    found = []
    for index, start in enumerate(predicted.starts[1:].tolist(), 1):
        change = Change(int(predicted.labels[index - 1]), int(predicted.labels[index]), start / rate)
        offs = start - true.starts[1:]
        off = float(offs[np.abs(offs).argmin()]) / rate if offs.size else float("nan")
        found.append(DoubtfulChange(change, confidences[index - 1], off))
    return sorted(found, key=lambda doubt: doubt.confidence)[:NUM_DOUBTFUL]
