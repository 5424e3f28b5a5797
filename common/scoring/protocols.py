"""Named ways to add up scores over videos. Evaluators disagree: a number means little without its protocol.

Each protocol is a record. `summarise` applies it, `methods_sentence` says it in words for a paper.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from common.base.options import CommandParser
from common.scoring import metrics
from common.scoring.metrics import MEASURES, OVERLAP_PERCENTS
from common.scoring.video_score import SegmentRule, VideoScore

FRAME_MEASURES = ("accuracy", "f1_macro", "miou")
OVERLAP_MEASURES = tuple(f"f1@{percent}" for percent in OVERLAP_PERCENTS)


@dataclass(frozen=True)
class Protocol:
    """One way to take measures: `pooled` ones once from all videos' counts, the others as means over videos.

    Macro F1 and mIoU are means over the classes that are true or predicted.
    """

    name: str
    origin: str
    pooled: frozenset[str]
    segment_rule: SegmentRule
    scale: int = 1
    """Of what the original evaluator prints: fractions of 1, or percent."""


# the evaluation code of MS-TCN, by the frame at which it ends a video's last segment
LAST_SEGMENT_CODE = {
    "legacy": "the MS-TCN evaluation code of sj-li/MS-TCN2",
    "fixed": "the MS-TCN evaluation code of yabufarha/ms-tcn",
}
_MSTCN_POOLED = frozenset({"accuracy", "f1_macro", "pr_auc", "miou", *OVERLAP_MEASURES})
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="challenge",
            origin="the SICS-155 challenge's scorer (MedVisBonn/SICS155_challenge), which has no F1@k and mIoU",
            pooled=frozenset(OVERLAP_MEASURES),
            segment_rule=SegmentRule(background=True, last_segment="legacy"),
        ),
        Protocol(
            name="mstcn",
            origin=f"{LAST_SEGMENT_CODE['legacy']}, which has no macro F1, PR-AUC and mIoU",
            pooled=_MSTCN_POOLED,
            segment_rule=SegmentRule(background=False, last_segment="legacy"),
            scale=100,
        ),
        Protocol(
            name="mstcn-background",
            origin=f"{LAST_SEGMENT_CODE['legacy']} with no class left out",
            pooled=_MSTCN_POOLED,
            segment_rule=SegmentRule(background=True, last_segment="legacy"),
            scale=100,
        ),
        Protocol(
            name="pooled",
            origin="no evaluator of the field: one confusion matrix over all frames of all videos",
            pooled=_MSTCN_POOLED,
            segment_rule=SegmentRule(background=True, last_segment="fixed"),
        ),
    )
}
CHALLENGE = PROTOCOLS["challenge"]


def frame_measure(measure: str, confusion: np.ndarray) -> np.ndarray:
    """A measure of `FRAME_MEASURES` `(...)` from frame counts `(..., num_classes, num_classes)`."""
    if measure == "accuracy":
        return metrics.accuracy(confusion)
    per_class = {"f1_macro": metrics.f1_per_class, "miou": metrics.jaccard_per_class}[measure](confusion)
    return metrics.mean_of_defined(per_class)  # NaN: neither true nor predicted


def way_to_take(measure: str, protocol: Protocol, *, of_one_video: bool = False) -> tuple[Hashable, ...]:
    """All of a protocol that a measure depends on: where it is equal, so is the measure of the same videos."""
    rule = protocol.segment_rule if measure == "edit" or measure in OVERLAP_MEASURES else None
    return measure, rule, not of_one_video and measure in protocol.pooled


def values_of_videos(scores: Sequence[VideoScore], measure: str, protocol: Protocol) -> np.ndarray:
    """A measure of each video `(videos,)`, as a fraction of 1; NaN where undefined."""
    if measure in FRAME_MEASURES:
        return frame_measure(measure, np.stack([score.confusion for score in scores]))
    if measure == "pr_auc":
        undefined = np.full(scores[0].num_classes, np.nan)
        precisions = [undefined if (of_one := score.average_precision) is None else of_one for score in scores]
        return metrics.mean_of_defined(np.stack(precisions))
    segments = [score.segment_score(protocol.segment_rule) for score in scores]
    if measure == "edit":
        return np.array([each.edit for each in segments])
    where = OVERLAP_MEASURES.index(measure)
    return metrics.segmental_f1(np.stack([each.overlap_counts[where] for each in segments]))


def video_values(score: VideoScore, protocol: Protocol) -> dict[str, float]:
    """Every measure of a single video, as fractions of 1; NaN where undefined."""
    return {measure: float(values_of_videos([score], measure, protocol)[0]) for measure in MEASURES}


def contributions(scores: Sequence[VideoScore], measure: str, protocol: Protocol) -> np.ndarray | None:
    """The part of each video in the sums `(videos, ...)` that `from_sums` turns into the measure.

    None for a pooled PR-AUC, which ranks all frames together and is no function of sums.
    """
    if measure not in protocol.pooled:
        values = values_of_videos(scores, measure, protocol)
        return np.stack([values, np.ones(len(values))], axis=1)
    if measure == "pr_auc":
        return None
    if measure in FRAME_MEASURES:
        return np.stack([score.confusion for score in scores])
    where = OVERLAP_MEASURES.index(measure)
    return np.stack([score.segment_score(protocol.segment_rule).overlap_counts[where] for score in scores])


def from_sums(measure: str, sums: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The measure `(...)` of summed contributions `(..., shape of one video's)`."""
    if measure not in protocol.pooled:
        return sums[..., 0] / sums[..., 1]
    if measure in FRAME_MEASURES:
        return frame_measure(measure, sums)
    return metrics.segmental_f1(sums)


def summarise(scores: Sequence[VideoScore], protocol: Protocol) -> dict[str, float]:
    """The measures of `MEASURES` over a set of videos, as fractions of 1."""
    scores = list(scores)
    return {measure: summary_value(scores, measure, protocol) for measure in MEASURES}


def summary_value(scores: Sequence[VideoScore], measure: str, protocol: Protocol) -> float:
    """A measure over a set of videos, as a fraction of 1.

    A mean over videos is NaN when any video's value is: a mean over fewer videos would not be comparable.
    """
    if not scores:
        return float("nan")
    added = contributions(scores, measure, protocol)
    if added is None:
        return _pooled_pr_auc(tuple(scores))
    return float(from_sums(measure, added.sum(axis=0), protocol))


@lru_cache(maxsize=2)  # several protocols ask for it, and it sorts every frame once for each class
def _pooled_pr_auc(scores: tuple[VideoScore, ...]) -> float:
    """Macro mean over the true classes of the average precision over all frames; NaN unless all have probabilities.

    Reads the probabilities of all videos, whose own counts are taken on the way.
    """
    if any(score.load_probabilities is None for score in scores):
        return float("nan")
    true = np.concatenate([score.true[score.counts] for score in scores])
    probabilities = np.concatenate([score.probabilities_that_count() for score in scores])
    return float(metrics.mean_of_defined(metrics.average_precision_per_class(true, probabilities)))


def methods_sentence(protocol: Protocol, background: str | None) -> str:
    """The protocol in words, for a paper's methods section; `background` is the data set's, None where it has none."""

    def named(measures: Sequence[str]) -> str:
        names = [MEASURES[measure] for measure in measures]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    pooled = [measure for measure in MEASURES if measure in protocol.pooled]
    means = [measure for measure in MEASURES if measure not in protocol.pooled]
    groups = ((pooled, "from the counts of all test videos pooled"), (means, "per video and then averaged"))
    (first, how), *others = [(named(measures), words) for measures, words in groups if measures]
    macro_pooled = bool({"f1_macro", "miou"} & protocol.pooled)
    where = "anywhere in the test videos" if macro_pooled else "in the video"
    unit = "all frames pooled" if "pr_auc" in protocol.pooled else "each video"
    rule = protocol.segment_rule
    last = "one frame early" if rule.last_segment == "legacy" else "where it ends"
    if background is None:
        counted = "No class counts as background: every class is counted in Edit, F1@k and every frame measure"
    else:
        part = "counted in" if rule.background else "left out of"
        counted = f"Class {background} is {part} Edit and F1@k and counted in every frame measure"
    return (
        f"Protocol {protocol.name}: {first} are computed {how}"
        + "".join(f", {names} {words}" for names, words in others)
        + f". Macro F1 and mIoU (Jaccard index) are means over the classes that are true or predicted {where}; "
        f"PR-AUC is the mean one-vs-rest average precision over the true classes of {unit}. "
        f"{counted}; for F1@k a video's last segment ends {last}, as in {LAST_SEGMENT_CODE[rule.last_segment]}."
    )


def add_protocol_options(parser: CommandParser) -> None:
    """`--protocol` and `--segments`."""
    output = parser.groups["output"]
    output.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=[CHALLENGE.name],
        metavar="NAME",
        help=f"one or more of {', '.join(PROTOCOLS)} (default: {CHALLENGE.name})",
    )
    output.add_argument(
        "--segments",
        choices=("legacy", "fixed"),
        help="F1@k: end a video's last segment a frame early as the MS-TCN code does, or where it ends "
        "(default: the protocol's)",
    )


def chosen_protocols(names: Sequence[str], last_segment: str | None = None) -> list[Protocol]:
    """The protocols by name, each once, with another rule for the last segment where one is given."""
    chosen = [PROTOCOLS[name] for name in dict.fromkeys(names)]
    if last_segment is None:
        return chosen
    return [
        replace(
            protocol,
            segment_rule=protocol.segment_rule._replace(last_segment=last_segment),
            origin=protocol.origin.replace(
                LAST_SEGMENT_CODE[protocol.segment_rule.last_segment], LAST_SEGMENT_CODE[last_segment]
            ),
        )
        for protocol in chosen
    ]
