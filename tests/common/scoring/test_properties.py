"""Measures and tests of significance of drawn labels, against scikit-learn and plain definitions."""

import itertools

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import example, given
from hypothesis import strategies as st

from common.dataset.segments import edit_similarity, find_segments
from common.scoring import metrics
from common.scoring.intervals import sum_interval
from common.scoring.protocols import CHALLENGE, PROTOCOLS, video_values
from common.scoring.significance import holm, paired_permutation_test, tie_letters
from common.scoring.video_score import VideoScore

NUM_CLASSES = 4
phase_ids = st.integers(0, NUM_CLASSES - 1)
pairs = st.lists(st.tuples(phase_ids, phase_ids), min_size=1, max_size=40).map(lambda rows: np.array(rows).T)
# runs of a phase, as operations have them
run_pairs = st.lists(st.tuples(phase_ids, phase_ids, st.integers(1, 6)), min_size=1, max_size=12).map(
    lambda rows: np.repeat(np.array(rows)[:, :2], [row[2] for row in rows], axis=0).T
)
p_values = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1)), max_size=12)


def runs(labels):
    """`(label, start, end)` of each run, one frame after the other."""
    found = []
    for frame, label in enumerate(labels):
        if found and found[-1][0] == label:
            found[-1][2] = frame + 1
        else:
            found.append([label, frame, frame + 1])
    return found


def levenshtein(a, b):
    """Fewest insertions, deletions and replacements, by the table of Wagner and Fischer (1974)."""
    table = [list(range(len(b) + 1))]
    for row, left in enumerate(a, 1):
        table.append([row])
        for column, right in enumerate(b, 1):
            replaced = table[row - 1][column - 1] + (left != right)
            table[row].append(min(table[row - 1][column] + 1, table[row][column - 1] + 1, replaced))
    return table[-1][-1]


def overlap_counts(predicted, true, threshold):
    """True positives, false positives, false negatives: each prediction takes its best segment of the truth, once."""
    taken, hits = set(), 0
    for label, start, end in predicted:
        overlaps = []
        for other, begin, stop in true:
            union = max(end, stop) - min(start, begin)
            overlaps.append((min(end, stop) - max(start, begin)) / union if other == label and union else 0.0)
        best = overlaps.index(max(overlaps))
        if overlaps[best] >= threshold and best not in taken:
            taken.add(best)
            hits += 1
    return [hits, len(predicted) - hits, len(true) - hits]


@given(pairs)
def test_frame_measures_are_those_of_scikit_learn(labels):
    true, predicted = labels
    confusion = metrics.confusion_matrix(true, predicted, NUM_CLASSES)
    present = np.union1d(true, predicted)
    assert metrics.accuracy(confusion) == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
    f1 = sklearn.metrics.f1_score(true, predicted, labels=present, average="macro")
    iou = sklearn.metrics.jaccard_score(true, predicted, labels=present, average="macro")
    values = video_values(VideoScore(true, predicted, NUM_CLASSES), CHALLENGE)
    assert values["f1_macro"] == pytest.approx(f1)
    assert values["miou"] == pytest.approx(iou)
    assert np.isnan(metrics.f1_per_class(confusion)).tolist() == [k not in present for k in range(NUM_CLASSES)]


@given(run_pairs)
def test_segments_are_the_runs_and_edit_is_their_levenshtein_distance(labels):
    true, predicted = labels
    assert [list(segment) for segment in find_segments(true)] == runs(true)
    orders = [[label for label, _, _ in runs(each)] for each in (predicted, true)]
    expected = 1 - levenshtein(*orders) / max(map(len, orders))
    assert edit_similarity(find_segments(predicted), find_segments(true)) == pytest.approx(expected)


@given(run_pairs)
def test_overlap_counts_are_those_of_a_plain_loop(labels):
    true, predicted = labels
    score = VideoScore(true, predicted, NUM_CLASSES)
    counts = score.segment_score(PROTOCOLS["pooled"].segment_rule).overlap_counts
    expected = [overlap_counts(runs(predicted), runs(true), threshold) for threshold in (0.1, 0.25, 0.5)]
    assert counts.tolist() == expected


@given(run_pairs)
def test_an_equal_prediction_is_worth_one_and_no_measure_leaves_its_range(labels):
    true, predicted = labels
    perfect = video_values(VideoScore(true, true, NUM_CLASSES), PROTOCOLS["pooled"])
    assert {value for key, value in perfect.items() if key != "pr_auc"} == {1.0}
    values = video_values(VideoScore(true, predicted, NUM_CLASSES), PROTOCOLS["pooled"])
    assert all(0 <= value <= 1 for key, value in values.items() if key != "pr_auc")


@given(pairs, st.data())
def test_average_precision_is_the_step_sum_over_the_recall(labels, data):
    true = labels[0]
    levels = st.lists(st.integers(0, 4), min_size=NUM_CLASSES, max_size=NUM_CLASSES)
    probabilities = np.array([data.draw(levels) for _ in true]) / 4  # ties among them
    found = metrics.average_precision_per_class(true, probabilities)
    for phase in range(NUM_CLASSES):
        is_true, score = true == phase, probabilities[:, phase]
        if not is_true.any():
            assert np.isnan(found[phase])
            continue
        total, recall = 0.0, 0.0
        for threshold in sorted(set(score.tolist()), reverse=True):
            hits = (is_true & (score >= threshold)).sum()
            total += (hits / is_true.sum() - recall) * hits / (score >= threshold).sum()
            recall = hits / is_true.sum()
        assert found[phase] == pytest.approx(total)


@given(
    st.integers(1, 300), st.integers(2, 9), st.integers(1, 50), st.sampled_from(("f2", "f4", "f8")), st.integers(0, 99)
)
def test_average_precision_is_that_of_scikit_learn(num_frames, num_classes, num_levels, dtype, seed):
    random = np.random.default_rng(seed)
    true = random.integers(0, num_classes, num_frames).astype(np.int16)
    # few levels, so that many probabilities tie; some classes have no frame where frames are few
    probabilities = (random.integers(0, num_levels + 1, (num_frames, num_classes)) / num_levels).astype(dtype)
    found = metrics.average_precision_per_class(true, probabilities)
    for phase in range(num_classes):
        if (true == phase).any():
            expected = sklearn.metrics.average_precision_score(true == phase, probabilities[:, phase].astype(float))
            assert found[phase] == pytest.approx(expected, rel=0, abs=1e-12)
        else:
            assert np.isnan(found[phase])


@given(pairs, st.data())
def test_calibration_bins_hold_every_frame_once(labels, data):
    true = labels[0]
    confidence = np.array([data.draw(st.integers(0, 2 * metrics.NUM_BINS)) for _ in true]) / (2 * metrics.NUM_BINS)
    probabilities = np.stack([confidence, np.zeros_like(confidence)], axis=1)
    bins = metrics.calibration_bins(true, probabilities)
    edges = np.arange(metrics.NUM_BINS + 1) / metrics.NUM_BINS  # open below, closed above
    above = confidence[:, None] > edges[:-1] + 1e-9
    expected = (above & (confidence[:, None] <= edges[1:] + 1e-9)).sum(axis=0)
    expected[0] += np.count_nonzero(confidence == 0)
    assert bins[:, 0].tolist() == expected.tolist()
    assert bins[:, 1].sum() == pytest.approx(confidence.sum())
    assert bins[:, 2].sum() == np.count_nonzero(true == 0)


@given(p_values)
def test_holm_is_its_definition(values):
    defined = sorted(value for value in values if not np.isnan(value))
    adjusted = holm(values)
    assert np.isnan(adjusted).tolist() == np.isnan(np.array(values, dtype=float)).tolist()
    for value, found in zip(values, adjusted, strict=True):
        if not np.isnan(value):
            steps = [(len(defined) - rank) * other for rank, other in enumerate(defined) if other <= value]
            assert found == pytest.approx(min(1.0, max(steps)))


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=8))
def test_the_exact_permutation_test_tries_every_assignment_of_signs(differences):
    differences = np.array(differences) / 8
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
    expected = np.mean(np.array(sums) >= abs(differences.sum()))
    assert paired_permutation_test(differences, np.zeros(len(differences))) == pytest.approx(expected)


@given(st.integers(1, 7), st.data())
def test_encoders_share_a_letter_exactly_where_they_do_not_differ(count, data):
    adjusted = np.ones((count, count))
    for a, b in itertools.combinations(range(count), 2):
        adjusted[a, b] = adjusted[b, a] = data.draw(st.sampled_from([0.01, 0.05, 0.2, float("nan")]))
    names = [f"encoder {number}" for number in range(count)]
    letters = tie_letters(names, adjusted)
    for a, b in itertools.combinations(range(count), 2):
        assert bool(set(letters[names[a]]) & set(letters[names[b]])) == (not adjusted[a, b] < 0.05)
    assert "a" in letters[names[0]]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
@example([0.0, 2e-150])
def test_an_interval_holds_numbers_in_order_and_within_the_data(values):
    values = np.array(values)
    moments = np.stack([values, np.ones(len(values))], axis=1)
    interval = sum_interval(moments, lambda sums: sums[:, 0] / sums[:, 1], draws=200)
    assert interval.estimate == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= interval.low <= interval.high <= values.max() + 1e-9
