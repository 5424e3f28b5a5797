"""Logistic regression on standardised features, its C chosen inside the training part: what a probe learns.

Of several classes that may be present together each has a regression of its own, with both of its answers weighted alike:
what that adds to the logits is taken off again. A class that training shows in one way only is answered by that.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.base.runtime import UserError
from common.head.controls.inner import hold_out
from common.scoring.metrics import accuracy, confusion_matrix, mean_of_defined
from common.scoring.task_measures import average_precisions, unweighted_logits

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# of C; of equally good ones the first: the middle, then rather too little regularisation than too much
CANDIDATES = (0.03, 1.0, 0.001)
DEFAULT_C = CANDIDATES[0]  # where there is nothing to choose on
MOST_ITERATIONS = 300
ALWAYS = 30.0  # the logit of a class that training shows in one way only: a probability that rounds to 0 or 1


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learned from: features `(n, feature_dim)`, targets, and the name of each row's unit (video or clip).

    Targets are `(n, num_classes)` 0, 1 or NaN of several classes, or `(n,)` class numbers of one.
    """

    rows: np.ndarray
    targets: np.ndarray
    units: np.ndarray

    def of_units(self, names: Sequence[str], *, inside: bool = True) -> Examples:
        """The rows of the named units, or with `inside` False those of the others."""
        kept = np.isin(self.units, list(names)) == inside
        return Examples(self.rows[kept], self.targets[kept], self.units[kept])


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe: `logits(rows)` `(n, num_classes)` of rows `(n, feature_dim)`."""

    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    """`(feature_dim, num_classes)`."""
    intercepts: np.ndarray
    learned: tuple[bool, ...]
    """Whether each class has something that was learned: both answers in training."""

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return ((rows - self.mean) / self.scale) @ self.coefficients + self.intercepts


@dataclass(frozen=True)
class Chosen:
    """The C that was chosen, the score of each candidate on the units kept aside, and which these were (none: too few)."""

    c: float
    scores: Mapping[float, float]
    aside: tuple[str, ...]


def choose_c(examples: Examples, num_classes: int, groups: Mapping[str, str], *, seed: int) -> Chosen:
    """The candidate that answers a fifth of the training units best, whole groups of them kept aside; of equal ones the first.

    By mean average precision of several classes, by accuracy of one. Where the training part is too small to keep any aside,
    or nothing is defined on them, it is `DEFAULT_C`.
    """
    names = list(dict.fromkeys(examples.units.tolist()))
    try:
        aside = tuple(hold_out(names, groups, seed=seed))
    except UserError:  # nothing would be left
        return Chosen(DEFAULT_C, {}, ())
    inner, held = examples.of_units(aside, inside=False), examples.of_units(aside)
    scores = {c: inner_score(fit_probe(inner, num_classes, c), held, num_classes) for c in CANDIDATES}
    if np.isnan(list(scores.values())).all():
        return Chosen(DEFAULT_C, {}, aside)
    return Chosen(max(CANDIDATES, key=lambda c: np.nan_to_num(scores[c], nan=-1.0)), scores, aside)


def inner_score(probe: Probe, held: Examples, num_classes: int) -> float:
    """What candidates are compared by, on the units kept aside; NaN where no class of theirs has a positive."""
    logits = probe.logits(held.rows)
    if held.targets.ndim == 2:
        return float(mean_of_defined(average_precisions(held.targets, logits)))
    return float(accuracy(confusion_matrix(held.targets, logits.argmax(axis=1), num_classes)))


def fit_probe(examples: Examples, num_classes: int, c: float) -> Probe:
    """Fit to all examples; features are standardised by their own mean and deviation (1 where one does not vary)."""
    mean, deviation = examples.rows.mean(axis=0, dtype=np.float64), examples.rows.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > np.finfo(np.float32).eps * np.maximum(1, np.abs(mean)), deviation, 1.0)
    rows = (examples.rows - mean) / scale
    fit = _fit_presence if examples.targets.ndim == 2 else _fit_classes
    coefficients, intercepts, learned = fit(rows, examples.targets, num_classes, c)
    return Probe(mean, scale, coefficients, intercepts, learned)


def _fit_presence(
    rows: np.ndarray, targets: np.ndarray, num_classes: int, c: float
) -> tuple[np.ndarray, np.ndarray, tuple[bool, ...]]:
    """A regression for each class, of the rows that are labelled for it."""
    coefficients, intercepts = np.zeros((rows.shape[1], num_classes)), np.zeros(num_classes)
    learned = []
    for place, target in enumerate(targets.T):
        labelled = ~np.isnan(target)
        num_positive, num_negative = int((target == 1).sum()), int((target == 0).sum())
        learned.append(bool(num_positive and num_negative))
        if not learned[-1]:
            intercepts[place] = ALWAYS if num_positive else -ALWAYS
            continue
        model = _fitted(rows[labelled], target[labelled], c, balanced=True)
        coefficients[:, place] = model.coef_[0]
        # balanced weights are n / (2 n_positive) and n / (2 n_negative): their ratio is the weight of a positive
        intercepts[place] = unweighted_logits(model.intercept_[0], num_negative / num_positive)
    return coefficients, intercepts, tuple(learned)


def _fit_classes(
    rows: np.ndarray, targets: np.ndarray, num_classes: int, c: float
) -> tuple[np.ndarray, np.ndarray, tuple[bool, ...]]:
    """One regression of all classes; one without an example is never answered."""
    coefficients, intercepts = np.zeros((rows.shape[1], num_classes)), np.full(num_classes, -ALWAYS)
    found = np.unique(targets)
    learned = tuple(bool(place in found) for place in range(num_classes))
    if len(found) == 1:
        intercepts[found] = ALWAYS
        return coefficients, intercepts, learned
    model = _fitted(rows, targets, c, balanced=False)
    weights, offsets = model.coef_, model.intercept_
    if len(found) == 2:  # scikit-learn keeps the second's logit against the first's alone
        weights, offsets = np.stack([-weights[0], weights[0]]) / 2, np.array([-offsets[0], offsets[0]]) / 2
    coefficients[:, found] = weights.T
    # the logits of those found add up to 0, so that the highest is never below it: the others are out of reach
    intercepts[found] = offsets
    return coefficients, intercepts, learned


def _fitted(rows: np.ndarray, target: np.ndarray, c: float, *, balanced: bool) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression  # takes a second, which --help has not

    model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS, class_weight="balanced" if balanced else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe needs no last digit: the iterations end where they end
        return model.fit(rows, target)
