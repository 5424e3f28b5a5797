"""Agreement of two annotators of one video: frames, chance taken off, and how far boundaries lie apart."""

from dataclasses import dataclass

import numpy as np

from common.dataset.segments import find_segments
from common.scoring.metrics import accuracy, confusion_matrix


@dataclass(frozen=True)
class RaterAgreement:
    """Share of frames with the same phase, Cohen's kappa, and the mean distance of boundaries in seconds.

    kappa is NaN where both have one and the same phase throughout, the distance where one has no boundary.
    """

    accuracy: float
    kappa: float
    boundary_seconds: float


def rater_agreement(one: np.ndarray, other: np.ndarray, num_classes: int, edges: np.ndarray) -> RaterAgreement:
    """Agreement of two label sequences `(T,)` of ids on frames between `edges` `(T + 1,)` in seconds.

    Kappa: (p - e) / (1 - e), with p the share of equal frames and e the one that the shares of phases give by chance
    (Cohen, Educational and Psychological Measurement 1960). A boundary's distance is that to the nearest one of the other
    annotator; the mean is over the boundaries of both.
    """
    confusion = confusion_matrix(one, other, num_classes)
    shares = confusion / confusion.sum()
    same, chance = float(accuracy(confusion)), float(shares.sum(0) @ shares.sum(1))
    marks = [edges[find_segments(labels).starts[1:]] for labels in (one, other)]
    distance = np.abs(marks[0][:, None] - marks[1])
    apart = float(np.concatenate([distance.min(1), distance.min(0)]).mean()) if distance.size else float("nan")
    return RaterAgreement(same, (same - chance) / (1 - chance) if chance < 1 else float("nan"), apart)
