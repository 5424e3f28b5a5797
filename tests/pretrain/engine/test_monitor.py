"""Health measures on features whose values are known by hand, and what the monitor makes of them."""

import math

import pytest
import torch

from pretrain.engine.monitor import PATIENCE, HealthMonitor, effective_rank, feature_health


def orthogonal(count: int) -> torch.Tensor:
    """+e_i and -e_i: unit vectors of mean 0."""
    return torch.cat([torch.eye(count), -torch.eye(count)])


def near(point: torch.Tensor, spread: float) -> torch.Tensor:
    return point + spread * orthogonal(point.shape[-1])


def test_evenly_spread_directions_have_every_measure_at_its_best():
    features = orthogonal(4)
    found = feature_health(features, features)
    # of the 56 ordered pairs of 8 vectors, 8 have cosine -1, the others 0
    assert found["mean_cosine"] == pytest.approx(-8 / 56)
    assert found["cosine_distance"] == pytest.approx(1 + 8 / 56)
    assert found["feature_std"] == pytest.approx(1)
    assert found["effective_rank"] == pytest.approx(4)
    assert found["drift"] == pytest.approx(0)


def test_equal_features_have_no_variety():
    features = torch.ones(6, 3)
    found = feature_health(features, -features)
    assert found["feature_std"] == pytest.approx(0, abs=1e-12)
    assert found["mean_cosine"] == pytest.approx(1)
    assert found["effective_rank"] == 0
    assert found["drift"] == pytest.approx(2)


def test_scale_and_a_common_rotation_change_nothing_but_the_drift():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 5, generator=generator).double()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator).double())
    one, other = feature_health(features, features), feature_health(3 * features @ rotation, features)
    for name in ("mean_cosine", "effective_rank"):
        assert other[name] == pytest.approx(one[name])
    assert other["drift"] > 0.1


def test_effective_rank_is_the_exponential_of_the_singular_values_entropy():
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.ones(3))) == pytest.approx(1, abs=1e-4)


def test_features_without_value_give_nan():
    features = torch.ones(3, 2)
    features[1, 1] = math.inf
    assert all(math.isnan(value) for value in feature_health(features, torch.ones(3, 2)).values())


@pytest.fixture
def monitor() -> HealthMonitor:
    monitor = HealthMonitor()
    monitor.check(0, near(torch.ones(4), 1.0))
    return monitor


def test_a_collapse_takes_several_bad_checks_running(monitor):
    collapsed, healthy = near(torch.ones(4), 0.01), near(torch.ones(4), 1.0)
    for step, features in enumerate([collapsed, collapsed, healthy, collapsed, collapsed], 1):
        monitor.check(step, features)
        assert not monitor.has_collapsed
    assert monitor.last_good == 3
    monitor.check(6, collapsed)
    assert PATIENCE == monitor.bad_running == 3
    assert monitor.has_collapsed


def test_features_along_one_line_have_collapsed_too():
    """Samples far from each other, but of effective rank 1."""
    monitor = HealthMonitor()
    monitor.check(0, near(torch.ones(8), 1.0))
    line = torch.linspace(-1, 1, 16)[:, None] * torch.ones(8)
    for step in range(PATIENCE):
        found = monitor.check(step + 1, line)
    assert found["health/effective_rank"] == pytest.approx(1, abs=1e-3)
    assert found["health/cosine_distance"] > 1
    assert monitor.has_collapsed


def test_features_without_value_count_as_collapsed(monitor):
    for step in range(PATIENCE):
        monitor.check(step + 1, torch.full((8, 4), math.nan))
    assert monitor.has_collapsed


def test_samples_that_resemble_each_other_from_the_start_are_no_collapse():
    monitor = HealthMonitor()
    for step in range(5):
        found = monitor.check(step, near(torch.ones(4), 0.01))
    assert found["health/mean_cosine"] > 0.999
    assert monitor.bad_running == 0


def test_the_stop_can_be_turned_off():
    monitor = HealthMonitor(stop_on_collapse=False)
    for step, spread in enumerate([1, 0, 0, 0, 0]):
        monitor.check(step, near(torch.ones(4), spread))
    assert monitor.bad_running == 4
    assert not monitor.has_collapsed


def test_a_loss_of_variety_is_said_early(monitor, caplog):
    monitor.check(1, near(torch.ones(4), 1.0))
    assert not caplog.text
    monitor.check(2, near(torch.ones(4), 0.5))
    assert "step 2: the features are losing variety (cosine_distance" in caplog.text
    assert monitor.bad_running == 0


def test_a_teacher_that_becomes_certain_is_said(monitor, caplog):
    for step, entropy in enumerate([5.0, 2.0, 0.5]):
        found = monitor.check(step, near(torch.ones(4), 1.0), {"monitor/teacher_entropy": entropy})
        assert ("teacher_entropy 0.5, at the start 5" in caplog.text) == (step == 2)
    assert found["health/teacher_entropy"] == 0.5


def test_a_restored_monitor_goes_on_where_the_other_was(monitor):
    monitor.check(1, near(torch.ones(4), 0))
    monitor.is_best(1, 0.5)
    other = HealthMonitor()
    other.restore(monitor.state)
    for each in (monitor, other):
        each.check(2, near(torch.ones(4), 0))
    assert other.bad_running == monitor.bad_running == 2
    assert torch.equal(other.start, monitor.start)
    assert not other.is_best(3, 0.4)


def test_the_best_score_is_the_first_of_the_highest(monitor):
    assert [monitor.is_best(step, score) for step, score in enumerate([0.1, math.nan, 0.3, 0.3, 0.2])] == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert (monitor.best_step, monitor.best_score) == (2, 0.3)
