"""Rows of the benchmarks' table on made seconds: ratios of turns, intervals, verdicts, and what a page says."""

import pytest

from common.base.runtime import UserError
from tests.benchmarks.bench import refuse_other_checkouts
from tests.benchmarks.bench_table import Row, document, seconds
from tests.benchmarks.growth import exponent

RECORD = {
    "date": "2030-01-02", "command": "bench", "repeats": 2, "versions": {"python": "3.12.0"}, "git": {"commit": "0123456789abcdef", "dirty": True},
    "machine": {"processor": "Made CPU", "cores": 2, "memory_gb": 24.6, "load": 0.5, "gpu": None}, "growth": "", "scripts": {},
}  # fmt: skip


def row(ours, theirs, limit=None):
    return Row("a step", "plain", tuple(ours), tuple(theirs), limit)


def test_a_peer_that_python_cannot_read_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "model.py").write_text("class Model:\n    pass\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"found no batch_gen\.py"):
        refuse_other_checkouts(tmp_path)
    (tmp_path / "batch_gen.py").write_text("class Batches:\nMS    def read(self): pass\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"batch_gen\.py: line 2 is no Python; check out another commit"):
        refuse_other_checkouts(tmp_path)


def test_a_ratio_is_that_of_its_own_turn():
    """The machine was ten times slower in the second turn, for both."""
    assert row([1, 10, 2], [2, 20, 4]).ratios.tolist() == [0.5, 0.5, 0.5]
    assert row([1, 10, 2], [2, 20, 4]).interval == (0.5, 0.5)
    assert row([1, 10, 9], [2, 10, 10]).ratio == pytest.approx(0.9)


def test_an_interval_lies_within_the_turns_and_is_the_same_each_time():
    measured = row([1.0, 1.2, 1.1, 0.9, 1.3], [2.0] * 5)
    low, high = measured.interval
    assert 0.45 <= low <= measured.ratio <= high <= 0.65
    assert measured.interval == (low, high)
    assert low < high
    assert row([1.0], [2.0]).interval is None


@pytest.mark.parametrize(
    ("ours", "limit", "verdict"),
    [([1, 1, 1], None, ""), ([1, 1, 1], 0.5, "held"), ([1, 1, 1], 0.4, "missed"), ([0.6, 1, 1.4], 0.5, "unclear")],
)
def test_a_limit_is_held_missed_or_within_the_spread(ours, limit, verdict):
    assert row(ours, [2, 2, 2], limit).verdict == verdict


def test_a_single_turn_is_judged_by_its_ratio():
    assert [row([1], [2], limit).verdict for limit in (0.5, 0.49)] == ["held", "missed"]


@pytest.mark.parametrize(
    ("value", "text"), [(123.4, "123 s"), (12.34, "12.3 s"), (0.04123, "0.0412 s"), (0.0, "0.00 s"), (1.0, "1.00 s")]
)
def test_durations_have_three_digits(value, text):
    assert seconds(value) == text


def test_the_page_names_machine_versions_commit_and_rows():
    page = document(RECORD | {"growth": "audit 0.99"}, [row([1, 1], [2, 2], 0.5)])
    assert "Measured 2030-01-02 by `make bench` on Made CPU, 2 cores, 25 GB, no GPU" in page
    assert "Commit 0123456789ab with uncommitted changes; python 3.12.0." in page
    assert "| a step | 1.00 s | 2.00 s (plain) | 0.50 | 0.50 to 0.50 | 0.50 | held |" in page
    assert "```text\naudit 0.99\n```" in page  # of a block without a language the documents' test runs every line
    assert "Growth" not in document(RECORD, [])


def test_the_exponent_is_free_of_a_fixed_start():
    """3 s of imports, then 0.1 n^p seconds."""
    for power in (1.0, 2.0):
        assert exponent([3 + 0.1 * n**power for n in (1, 4, 16)]) == pytest.approx(power)
    assert exponent([3.0, 3.1, 3.2]) is None  # noise: the work is too little to tell
    assert exponent([3.0, 2.9, 9.0]) is None
    assert exponent([0.35, 0.55, 2.07]) is None  # a twentieth of a second more or less would decide
