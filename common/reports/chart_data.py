"""The content of charts that are drawn twice, as a picture (matplotlib) and on the page (plotly)."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.dataset.segments import Segments, find_segments
from common.reports.comparison import Report
from common.reports.costs import COSTS
from common.reports.failure_atlas import video_accuracies
from common.reports.leaderboard import HEADLINE, Cell
from common.reports.text import SAVED_TITLE
from common.scoring.intervals import Interval
from common.scoring.metrics import MEASURES
from common.scoring.video_score import VideoScore

EFFICIENCY_MEASURES = ("accuracy", "f1_macro", "edit", "f1@50")
WAITING_MEASURES = (HEADLINE, "edit")
TRUTH = "truth"
NUM_SHOWN = 12  # videos that ribbons are drawn large of


class CostPanel(NamedTuple):
    """Accuracy against one kind of cost."""

    label: str
    points: dict[str, tuple[float, float]]
    """Encoder -> (cost, accuracy in percent), where the cost is known."""
    front: list[str]
    """Encoders that no cheaper one beats, by rising cost."""


def cost_panels(report: Report) -> list[CostPanel]:
    """A panel per kind of cost, without points where no encoder's cost is known."""
    panels = []
    for kind, label in COSTS.items():
        known = {name: costs[kind] for name, costs in report.costs.items() if not math.isnan(costs[kind])}
        points = {name: (value, 100 * report.board.cells[name][HEADLINE].mean) for name, value in known.items()}
        panels.append(CostPanel(label, points, pareto_front(points)))
    return panels


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (name -> (cost, value)) that no point of equal or lower cost exceeds, by rising cost."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front


def efficiency_panels(report: Report) -> tuple[dict[str, dict[str, np.ndarray]], list[int]]:
    """Measures against the number of training videos, and the counts of videos that the axis names.

    The former is title of each of `EFFICIENCY_MEASURES` -> encoder -> `(4, points)`: videos, then in percent the mean, and how
    far the standard deviation over folds reaches below and above it. Last, where it is known, the time saved by predictions,
    with its 95 % interval over videos.
    """
    panels = {}
    for measure in EFFICIENCY_MEASURES:
        panels[MEASURES[measure]] = {
            name: np.array([(point.num_videos, *_with_spread(*point.values[measure])) for point in points]).T
            for name, points in report.efficiency.items()
        }
    if report.pays:
        panels[SAVED_TITLE] = {
            name: np.array([(point.num_videos, *_with_interval(point.saved["as stated"])) for point in points]).T
            for name, points in report.efficiency.items()
        }
    ticks = {round(point.num_videos) for points in report.efficiency.values() for point in points}
    return panels, sorted(ticks)


def _with_spread(mean: float, std: float) -> tuple[float, float, float]:
    return 100 * mean, 100 * std, 100 * std


def _with_interval(found: Interval) -> tuple[float, float, float]:
    return 100 * found.estimate, 100 * (found.estimate - found.low), 100 * (found.high - found.estimate)


def acquisition_panels(report: Report) -> tuple[dict[str, dict[str, np.ndarray]], list[int]]:
    """Accuracy and the time saved against the number of videos learned from, by encoder and rule, and the numbers on the axis.

    Curves as in `efficiency_panels`, with intervals over folds and draws.
    """
    panels = {MEASURES[HEADLINE]: "accuracy", SAVED_TITLE: "saved"}
    found: dict[str, dict[str, np.ndarray]] = {title: {} for title in panels}
    for trial in report.trials:
        for title, key in panels.items():
            for rule, cells in getattr(trial, key).items():
                label = rule if len(report.trials) == 1 else f"{trial.name}: {rule}"
                rows = [(number, *_with_interval(cell)) for number, cell in zip(trial.num_videos, cells, strict=True)]
                found[title][label] = np.array(rows).T
    drawn = {
        title: curves
        for title, curves in found.items()
        if any(np.isfinite(curve[1]).any() for curve in curves.values())
    }
    return drawn, sorted({number for trial in report.trials for number in trial.num_videos})


class SpacingCurve(NamedTuple):
    """The headline measure against the seconds that a window spans, percent, with its 95 % interval over videos."""

    seconds: np.ndarray
    means: np.ndarray
    below: np.ndarray
    """From the interval's lower end to the mean; 0 where there is no interval."""
    above: np.ndarray
    names: list[str]


def spacing_panel(report: Report) -> dict[str, SpacingCurve]:
    """A curve for each encoder with windows of several lengths in time."""
    curves = {}
    for name, points in report.spacing.items():
        means, below, above = _with_ends([point.cells[HEADLINE] for point in points])
        seconds = np.array([point.window.seconds for point in points])
        curves[name] = SpacingCurve(seconds, means, below, above, [str(point.window) for point in points])
    return curves


class WaitingCurve(NamedTuple):
    """A measure against the delay, percent, with its 95 % interval over videos; `places` are those of the delays on the axis."""

    places: list[int]
    means: np.ndarray
    below: np.ndarray
    above: np.ndarray
    names: list[str]


def waiting_panels(report: Report) -> tuple[dict[str, dict[str, WaitingCurve]], list[str]]:
    """Title of each of `WAITING_MEASURES` -> encoder -> curve, and the delays along the axis.

    These stand side by side, whatever lies between them: offline is at no number of seconds.
    """
    delays = sorted({(point.seconds, point.label) for points in report.waiting.values() for point in points})
    places = {seconds: place for place, (seconds, _) in enumerate(delays)}
    panels: dict[str, dict[str, WaitingCurve]] = {}
    for measure in WAITING_MEASURES:
        panels[MEASURES[measure]] = {}
        for name, points in report.waiting.items():
            means, below, above = _with_ends([point.cells[measure] for point in points])
            curve = WaitingCurve(
                [places[point.seconds] for point in points], means, below, above, [p.name for p in points]
            )
            panels[MEASURES[measure]][name] = curve
    return panels, [label for _, label in delays]


def _with_ends(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means in percent, and how far their intervals reach below and above; 0 where there is no interval."""
    means = 100 * np.array([cell.mean for cell in cells])
    ends = 100 * np.array([(cell.interval.low, cell.interval.high) for cell in cells]).T
    # the mean over folds may lie outside an interval around the mean over videos
    below, above = np.nan_to_num(np.maximum([means - ends[0], ends[1] - means], 0))
    return means, below, above


class PhaseMap(NamedTuple):
    """F1 of each phase over all test frames, percent: `(encoders, num_classes)`, NaN for a phase without a frame."""

    values: np.ndarray
    lowest: int
    """Where the colours begin: rare phases differ most, and good ones too little when colours begin at 0."""
    shares: list[float]
    """Of the true frames, percent `(num_classes,)`."""


def phase_map(report: Report) -> PhaseMap:
    """F1 of each phase by each encoder, the best encoder first."""
    values = 100 * np.array([result.phase_scores["f1"] for result in report.results])
    frames = report.results[0].phase_scores["frames"]
    # the initial 90 keeps ten percent of scale where all phases are nearly perfect
    return PhaseMap(values, 10 * math.floor(np.nanmin(values, initial=90) / 10), (100 * frames / frames.sum()).tolist())


class Ribbon(NamedTuple):
    """A row along the time of a video, in frames: its phases, and where they are wrong (`(start, end)`)."""

    label: str
    segments: Segments | tuple[()]
    wrong: list[tuple[int, int]]
    score: VideoScore | None
    """None, and no segments, where the encoder does not have the video."""


def score_ribbons(scores: Mapping[str, VideoScore | None]) -> list[Ribbon]:
    """The truth of a video, then the prediction of each of its `scores`, label -> score."""
    first = next(score for score in scores.values() if score is not None)
    ribbons = [Ribbon(TRUTH, first.segments[1], [], first)]
    for label, score in scores.items():
        if score is None:
            ribbons.append(Ribbon(label, (), [], None))
        else:
            wrong = [(start, end) for is_wrong, start, end in find_segments(score.is_wrong) if is_wrong]
            ribbons.append(Ribbon(label, score.segments[0], wrong, score))
    return ribbons


def worst_to_best(report: Report, count: int) -> list[str]:
    """At most `count` videos at even steps through the order by mean accuracy over encoders, the worst first."""
    order = sorted(video_accuracies(report.results), key=lambda video: video.mean)
    places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    return [order[place].name for place in places]


def shown_videos(report: Report, *, all_ribbons: bool = False) -> list[str]:
    """The videos whose ribbons are drawn large, by name: `NUM_SHOWN` from the worst to the best, or all."""
    chosen = set(worst_to_best(report, NUM_SHOWN))
    return [video.name for video in video_accuracies(report.results) if all_ribbons or video.name in chosen]


def video_ribbons(report: Report, video: str) -> list[Ribbon]:
    """The truth of a video, then every encoder's prediction, labelled with its accuracy in this video."""
    scores = {}
    for result in report.results:
        score = result.scores.get(video)
        accuracy = "n/a" if score is None else f"{100 * score.accuracy:.0f} %"
        scores[f"{result.name}  {accuracy}"] = score
    return score_ribbons(scores)
