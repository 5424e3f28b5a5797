"""Measures of predictions against the truth: frame level, per class, segment counts, calibration. No torch.

Functions of counts take any leading dimensions, so that all draws of a bootstrap are scored at once. A measure that is
not defined (no segment, no probabilities, a class that is neither true nor predicted) is NaN here and is shown as
`n/a`; it never becomes 0.
"""

import warnings

import numpy as np

OVERLAP_PERCENTS = (10, 25, 50)
NUM_BINS = 15  # of the calibration error (Guo et al., ICML 2017)

# key in files -> name in tables; every table and chart keeps this order
MEASURES = {
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "edit": "Edit",
    "pr_auc": "PR-AUC",
    "f1@10": "F1@10",
    "f1@25": "F1@25",
    "f1@50": "F1@50",
    "miou": "mIoU",
}


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Frame counts `(num_classes, num_classes)`: row = true phase, column = predicted phase."""
    # int64 first: a narrow type of labels would overflow in the product
    pairs = np.asarray(true, dtype=np.int64) * num_classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient, NaN where the denominator is 0."""
    result = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)


def _hits(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)


def mean_of_defined(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean along an axis of the values that are not NaN; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where nothing is defined
        return np.nanmean(np.asarray(values, dtype=float), axis=axis)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of frames whose phase is correct `(...)`, of counts `(..., num_classes, num_classes)`."""
    return _ratio(_hits(confusion).sum(-1), confusion.sum((-2, -1)))


def precision_per_class(confusion: np.ndarray) -> np.ndarray:
    """Share of a class's predicted frames that are correct `(..., num_classes)`; NaN for a class never predicted."""
    return _ratio(_hits(confusion), confusion.sum(-2))


def recall_per_class(confusion: np.ndarray) -> np.ndarray:
    """Share of a class's true frames that are found `(..., num_classes)`; NaN for a class without a true frame."""
    return _ratio(_hits(confusion), confusion.sum(-1))


def f1_per_class(confusion: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN) of each class `(..., num_classes)`; NaN for a class neither true nor predicted."""
    return _ratio(2 * _hits(confusion), confusion.sum(-2) + confusion.sum(-1))


def jaccard_per_class(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class `(..., num_classes)`; NaN for a class neither true nor predicted."""
    hits = _hits(confusion)
    return _ratio(hits, confusion.sum(-2) + confusion.sum(-1) - hits)


def jaccard_micro(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of all frames together `(...)`: TP / (2 frames - TP)."""
    hits = _hits(confusion).sum(-1)
    return _ratio(hits, 2 * confusion.sum((-2, -1)) - hits)


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that have a true frame `(...)` (scikit-learn's `balanced_accuracy_score`)."""
    return mean_of_defined(recall_per_class(confusion))


def average_precision_per_class(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """One-vs-rest average precision of each class `(num_classes,)`; NaN for a class without a true frame.

    `true` is `(T,)`, `probabilities` `(T, num_classes)`. The step-wise sum over recall of scikit-learn: recall rises at
    the probabilities of true frames alone, so it is the mean over these of the precision at the threshold there.
    """
    num_frames, num_classes = probabilities.shape
    columns = np.ascontiguousarray(probabilities.T)
    result = np.full(num_classes, np.nan)
    counts = np.bincount(true, minlength=num_classes)
    # the frames of each class, one class after the other
    frames = np.split(np.argsort(true, kind="stable"), np.cumsum(counts)[:-1])
    for class_id in np.flatnonzero(counts):
        own, ranked = np.sort(columns[class_id, frames[class_id]]), np.sort(columns[class_id])
        # of equal probabilities all are above the threshold: what is below it ends left of them
        below = np.arange(len(own))
        below[1:][own[1:] == own[:-1]] = 0
        hits = len(own) - np.maximum.accumulate(below)
        result[class_id] = np.mean(hits / (num_frames - np.searchsorted(ranked, own)))
    return result


def segmental_f1(counts: np.ndarray) -> np.ndarray:
    """F1 `(...)` of segment counts `(..., 3)` (true positives, false positives, false negatives); NaN without any."""
    hits, false_positives, false_negatives = np.moveaxis(np.asarray(counts), -1, 0)
    return _ratio(2 * hits, 2 * hits + false_positives + false_negatives)


def calibration_bins(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Frames, sum of confidences, correct frames `(NUM_BINS, 3)` in bins of equal width of the highest probability."""
    confidence = probabilities.max(axis=1)
    # of equal ones the first is predicted, as by argmax, which takes three times as long
    predicted = np.zeros(len(probabilities), dtype=np.intp)
    for class_id in reversed(range(probabilities.shape[1])):
        predicted[probabilities[:, class_id] == confidence] = class_id
    # bins are open below and closed above, as in Guo et al.; a confidence of 0 goes to the first one
    where = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    weights = (None, confidence, predicted == true)
    return np.stack([np.bincount(where, weights=each, minlength=NUM_BINS) for each in weights], axis=1)


def calibration_error(bins: np.ndarray) -> np.ndarray:
    """Expected calibration error `(...)` of bins `(..., NUM_BINS, 3)`: mean gap of confidence and accuracy."""
    # |mean confidence - accuracy| of a bin, times its frames, is this difference of sums
    gaps = np.abs(bins[..., 1] - bins[..., 2]).sum(-1)
    return _ratio(gaps, bins[..., 0].sum(-1))
