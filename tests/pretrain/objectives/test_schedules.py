"""Schedules: the values at their boundaries, and the published rules."""

import math

import numpy as np
import pytest

from pretrain.objectives.schedules import (
    Constant,
    Cosine,
    Linear,
    Warmup,
    gram_weight,
    legacy_warmup_cosine,
    linearly_scaled,
    square_root_scaled,
    teacher_temperature,
    truncated_cooldown,
    truncated_cosine,
    truncated_linear,
    warmup_cosine,
)


def values(schedule, num_steps: int) -> list[float]:
    return [schedule(step) for step in range(num_steps)]


def test_constant_never_changes():
    assert values(Constant(0.04), 3) == [0.04, 0.04, 0.04]


def test_line_reaches_its_end_after_its_steps_and_stays():
    assert values(Linear(1.0, 3.0, 4), 7) == [1, 1.5, 2, 2.5, 3, 3, 3]


def test_a_line_of_no_steps_is_at_its_end_at_once():
    assert Linear(1.0, 3.0, 0)(0) == 3


def test_cosine_has_its_end_at_its_last_step_or_one_step_later():
    closed, open_ended = Cosine(1.0, 0.0, 5), Cosine(1.0, 0.0, 4, reaches_end=False)
    half = math.sqrt(0.5) / 2
    expected = [1, 0.5 + half, 0.5, 0.5 - half, 0, 0]
    assert values(closed, 6) == pytest.approx(expected, abs=1e-12)
    assert values(open_ended, 6) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("steps", [0, 1])
def test_the_shortest_cosines_have_no_division_by_zero(steps):
    assert values(Cosine(1.0, 0.5, steps), 3)[1:] == [0.5, 0.5]


# --- compositions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warmup", "cosine", "total"), [(10, None, 50), (10, 25, 50), (0, 20, 30), (5, 1, 8), (1, None, 4)]
)
def test_warmup_cosine_is_line_without_endpoint_then_cosine_with_endpoint_then_constant(warmup, cosine, total):
    """Element by element the concatenation that the recipe is defined by."""
    start, peak, end = 1e-6, 1e-3, 1e-5
    schedule = warmup_cosine(start, peak, end, warmup_steps=warmup, total_steps=total, cosine_steps=cosine)
    num_cosine = cosine or total - warmup
    line = np.linspace(start, peak, warmup, endpoint=False)
    curve = end + (peak - end) * (1 + np.cos(np.linspace(0, np.pi, num_cosine))) / 2
    rest = np.full(total - warmup - num_cosine, end)
    assert values(schedule, total) == pytest.approx(np.concatenate([line, curve, rest]), rel=1e-12)


def test_boundaries_of_warmup_cosine():
    schedule = warmup_cosine(0.0, 1.0, 0.1, warmup_steps=4, total_steps=20, cosine_steps=10)
    assert [schedule(step) for step in (0, 3, 4, 13, 14, 100)] == pytest.approx([0, 0.75, 1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(("warmup", "total"), [(10, 50), (0, 20), (1, 6)])
def test_legacy_warmup_cosine_includes_the_peak_and_stops_short_of_the_end(warmup, total):
    start, peak, end = 0.0, 2.0, 0.5
    schedule = legacy_warmup_cosine(start, peak, end, warmup_steps=warmup, total_steps=total)
    line = np.linspace(start, peak, warmup)
    curve = end + (peak - end) * (1 + np.cos(np.pi * np.arange(total - warmup) / (total - warmup))) / 2
    assert values(schedule, total) == pytest.approx(np.concatenate([line, curve]), rel=1e-12)


def test_boundaries_of_legacy_warmup_cosine():
    schedule = legacy_warmup_cosine(0.0, 1.0, 0.1, warmup_steps=5, total_steps=20)
    assert [schedule(step) for step in (0, 4, 5, 20)] == pytest.approx([0, 1, 1, 0.1])
    assert schedule(6) < 1
    assert 0.1 < schedule(19) < 0.12


def test_truncated_cosine_stops_at_its_value_of_four_fifths():
    schedule = truncated_cosine(1e-4, 6e-4, 1e-6, warmup_steps=0, total_steps=1000)
    at_end = 1e-6 + (6e-4 - 1e-6) * (1 + math.cos(math.pi * 0.8)) / 2
    assert schedule(0) == 6e-4
    assert schedule(1000) == pytest.approx(at_end)
    assert schedule(1250) == 1e-6


def test_truncated_cosine_counts_the_warmup_in_its_horizon():
    schedule = truncated_cosine(0.0, 1.0, 0.0, warmup_steps=250, total_steps=1000)
    assert [schedule(0), schedule(125), schedule(250)] == [0, 0.5, 1]
    assert schedule(750) == pytest.approx(0.5)


def test_cooldown_is_planned_for_longer_than_it_runs():
    schedule = truncated_cooldown(0.0, 5.25e-4, 1e-6, warmup_steps=0, total_steps=12000)
    assert schedule(0) == 5.25e-4
    assert schedule(12000) == pytest.approx(5.25e-4 - 0.8 * 5.24e-4)  # 1.06e-4
    assert schedule(15000) == 1e-6
    assert truncated_cooldown(0.0, 1.0, 0.0, warmup_steps=25, total_steps=100)(75) == pytest.approx(0.5)


def test_truncated_linear_momentum():
    schedule = truncated_linear(0.9, 1.0, total_steps=80)
    assert [schedule(0), schedule(50), schedule(80), schedule(100)] == pytest.approx([0.9, 0.95, 0.98, 1.0])


def test_warmup_to_a_constant_is_vjepa2s_learning_rate():
    schedule = Warmup(1e-4, 12000, Constant(5.25e-4))
    assert [schedule(step) for step in (0, 6000, 12000, 10**6)] == pytest.approx([1e-4, 3.125e-4, 5.25e-4, 5.25e-4])


def test_a_rise_from_zero_that_stays_is_a_cosine_without_warmup():
    """DINOv3's high-resolution stage: 0 to the peak along a cosine, then flat."""
    schedule = warmup_cosine(0.0, 0.0, 1.25e-5, warmup_steps=0, total_steps=300, cosine_steps=101)
    assert [schedule(0), schedule(50), schedule(100), schedule(299)] == pytest.approx([0, 0.625e-5, 1.25e-5, 1.25e-5])


def test_teacher_temperature_rises_in_a_line_and_stays():
    schedule = teacher_temperature(30)
    assert [schedule(step) for step in (0, 15, 30, 100)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(0)(0) == 0.07


def test_gram_weight_is_zero_until_it_starts():
    schedule = gram_weight(100, 11)
    assert [schedule(step) for step in (0, 99, 100, 105, 110, 500)] == pytest.approx([0, 0, 0, 1, 2, 2])


# --- scaling rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "factor"), [(64, 1), (256, 2), (1024, 4)])
def test_square_root_scaling(batch, factor):
    assert square_root_scaled(1e-3, batch) == pytest.approx(factor * 1e-3)


def test_linear_scaling():
    assert linearly_scaled(1.5e-4, 2048) == pytest.approx(1.2e-3)
