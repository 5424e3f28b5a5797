"""Overlap of predicted masks with true ones: Dice and IoU of each class, pooled over images and as means over images.

A class that is in neither truth nor prediction is undefined (NaN) and in no mean, whose number of classes is always told:
libraries say 0, 1 or -1 for it. Pixels that are ignored in the truth count nowhere, not as false positives either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.scoring.intervals import Interval, sum_interval

IGNORED_PIXEL = 255
LEAST_GROUPS = 5  # of fewer an interval says nothing: each is listed instead
TRUE_POSITIVES, TRUTH, PREDICTED = range(3)  # rows of `overlaps`


def confusion(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true class (rows) and predicted class, `(C, C)` int64, of two masks of one size `(H, W)`.

    Raises `ValueError` for masks of different sizes.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"expected masks of one size, found {truth.shape} and {prediction.shape}")
    counted = truth != IGNORED_PIXEL
    cells = num_classes * truth[counted].astype(np.int64) + prediction[counted]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def overlaps(confusions: np.ndarray) -> np.ndarray:
    """True positives, true and predicted pixels of each class `(..., 3, C)`, of confusion matrices `(..., C, C)`."""
    parts = np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(axis=-1), confusions.sum(axis=-2)
    return np.stack(parts, axis=-2)


def dice(counts: np.ndarray) -> np.ndarray:
    """2 TP / (T + P) of each class `(..., C)`, of `overlaps` `(..., 3, C)`; NaN where it is in neither mask."""
    with np.errstate(invalid="ignore"):
        return 2 * counts[..., TRUE_POSITIVES, :] / (counts[..., TRUTH, :] + counts[..., PREDICTED, :])


def iou(counts: np.ndarray) -> np.ndarray:
    """TP / (T + P - TP) of each class `(..., C)`, as `dice`."""
    shared = counts[..., TRUE_POSITIVES, :]
    with np.errstate(invalid="ignore"):
        return shared / (counts[..., TRUTH, :] + counts[..., PREDICTED, :] - shared)


OVERLAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"dice": dice, "iou": iou}
# of every table: how each class is measured, and over what
MASK_MEASURES = {
    "dice_pooled": "Dice, pooled",
    "iou_pooled": "IoU, pooled",
    "dice_images": "Dice, mean over images",
    "iou_images": "IoU, mean over images",
}
MASK_HEADLINE = "iou_pooled"


@dataclass(frozen=True, eq=False)
class MaskScores:
    """Confusion matrices `(N, C, C)` of N images, their names and groups (videos, cases), and the names of the classes."""

    classes: tuple[str, ...]
    images: Sequence[str]
    groups: Sequence[str]
    confusions: np.ndarray

    @cached_property
    def counts(self) -> np.ndarray:
        """`overlaps` of each image `(N, 3, C)`."""
        return overlaps(self.confusions)

    def joined(self, other: "MaskScores") -> "MaskScores":
        """These images and those of another part of the same data set."""
        return MaskScores(
            self.classes,
            [*self.images, *other.images],
            [*self.groups, *other.groups],
            np.concatenate([self.confusions, other.confusions]),
        )

    def of_group(self, group: str) -> "MaskScores":
        """The images of one group."""
        kept = [place for place, name in enumerate(self.groups) if name == group]
        return MaskScores(
            self.classes, [self.images[k] for k in kept], [self.groups[k] for k in kept], self.confusions[kept]
        )

    def by_class(self, measure: str) -> np.ndarray:
        """A measure of `MASK_MEASURES` of each class `(C,)`; NaN where no image has it."""
        per_image, of_sums = self._summed(measure)
        return of_sums(per_image.sum(axis=0)[None])[0]

    def mean(self, measure: str, left_out: int | None = None) -> tuple[float, int]:
        """Mean over the classes that are defined, and how many these are; NaN for none. `left_out`: a class, the background."""
        values = np.delete(self.by_class(measure), [] if left_out is None else [left_out])
        defined = values[~np.isnan(values)]
        return (float(defined.mean()) if len(defined) else float("nan")), len(defined)

    def interval(self, measure: str, left_out: int | None = None) -> Interval:
        """The mean with its 95 % interval over groups; without bounds for fewer than `LEAST_GROUPS`."""
        per_image, of_sums = self._summed(measure)
        estimate, _ = self.mean(measure, left_out)
        if len(set(self.groups)) < LEAST_GROUPS:
            return Interval(estimate, float("nan"), float("nan"))

        def statistic(sums: np.ndarray) -> np.ndarray:
            values = np.delete(of_sums(sums), [] if left_out is None else [left_out], axis=1)
            defined = ~np.isnan(values)
            return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)

        return sum_interval(per_image, statistic, groups=list(self.groups))

    def image_means(self, overlap: str = "dice", left_out: int | None = None) -> np.ndarray:
        """Of each image the mean over its own classes `(N,)`, to tell good ones from bad; NaN for one without any."""
        values = OVERLAPS[overlap](self.counts)
        values = np.delete(values, [] if left_out is None else [left_out], axis=1)
        defined = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)

    def _summed(self, measure: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """What is summed over images, `(N, k, C)`, and what makes of sums `(draws, k, C)` values of classes `(draws, C)`."""
        overlap, _, way = measure.partition("_")
        if way == "pooled":
            return self.counts, OVERLAPS[overlap]
        values = OVERLAPS[overlap](self.counts)
        defined = ~np.isnan(values)

        def means(sums: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                return sums[:, 0] / sums[:, 1]

        return np.stack([np.where(defined, values, 0), defined], axis=1), means


def _cadis(scores: MaskScores) -> float:
    return float(np.nan_to_num(scores.by_class("iou_pooled")).mean())


def _sar_rarp50(scores: MaskScores) -> float:
    values = iou(scores.counts)[:, 1:]
    by_image = np.where(np.isnan(values), 1.0, values).mean(axis=1)
    groups = np.array(scores.groups)
    return float(np.mean([by_image[groups == group].mean() for group in dict.fromkeys(scores.groups)]))


@dataclass(frozen=True)
class OwnRule:
    """How the users of one data set measure it, which is named beside the measures of all: words, and the number."""

    words: str
    measure: Callable[[MaskScores], float]


# by the name that `own_rule` in dataset.yaml has
OWN_RULES: Mapping[str, OwnRule] = {
    # RViMLab/MICCAI2021_Cataract_semantic_segmentation@b24ea3b
    "cadis": OwnRule("mean IoU of one confusion matrix over all pixels and all classes, an undefined one as 0", _cadis),
    # surgical-vision/SAR_RARP50-evaluation@519280b, without its surface Dice
    "sar-rarp50": OwnRule(
        "IoU of each image over the classes but 0, one that is in neither mask as 1; mean over images, then over videos",
        _sar_rarp50,
    ),
}
