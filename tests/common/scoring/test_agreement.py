"""Agreement of two annotators, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from common.scoring.agreement import rater_agreement


def test_kappa_is_that_of_scikit_learn():
    random = np.random.default_rng(1)
    one = random.integers(0, 4, 300)
    other = np.where(random.random(300) < 0.7, one, random.integers(0, 4, 300))
    found = rater_agreement(one, other, 4, np.arange(301) / 25)
    assert found.accuracy == pytest.approx((one == other).mean())
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other))


def test_boundaries_apart_by_hand():
    """Boundaries at 2 and 6 s, and at 3 s: distances 1 and 3 from the one side, 1 from the other."""
    one, other = np.repeat([0, 1, 0], [2, 4, 4]), np.repeat([0, 1], [3, 7])
    assert rater_agreement(one, other, 2, np.arange(11.0)).boundary_seconds == pytest.approx(5 / 3)


def test_what_is_not_defined_is_nan():
    same = np.zeros(5, dtype=int)
    found = rater_agreement(same, same, 2, np.arange(6.0))
    assert found.accuracy == 1
    assert np.isnan([found.kappa, found.boundary_seconds]).all()
