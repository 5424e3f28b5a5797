"""Decoding: counts and paths against every enumerated case, ties, frames that do not count, and runs beside the plain ones."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from common import run_k_folds
from common.base.runtime import UserError
from common.dataset.phases import IGNORED, read_predictions
from common.head.experiment import load_experiment
from common.head.networks.viterbi import count_transitions, most_probable_path
from common.head.prediction import predict
from common.head.run_record import is_finished, read_run_record
from common.head.training import train


def score(path: tuple[int, ...], log_p: np.ndarray, transitions) -> float:
    """The score of a path, by the sum that it is defined as."""
    total = np.log(transitions.start[path[0]]) + sum(log_p[t, c] for t, c in enumerate(path))
    for last, this in itertools.pairwise(path):
        leave = transitions.leave[last]
        total += np.log(1 - leave) if last == this else np.log(leave) + np.log(transitions.change[last, this])
    return total


def test_counts_and_paths_of_every_reference_case(reference_data):
    cases = json.loads((reference_data / "golden" / "viterbi_reference.json").read_text())["cases"]
    assert len(cases) == 6
    for case in cases:
        counted = count_transitions([np.array(labels) for labels in case["training_labels"]], case["num_classes"])
        for name in ("leave", "change", "start"):
            assert getattr(counted, name) == pytest.approx(np.array(case[name]), abs=1e-12), (case["name"], name)
        log_p = np.log(np.array(case["probabilities"]))
        path = most_probable_path(log_p, counted)
        assert path.tolist() == case["expected_path"], case["name"]
        assert score(tuple(path), log_p, counted) == pytest.approx(case["expected_score"], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_best_of_all(seed):
    random = np.random.default_rng(seed)
    counted = count_transitions([np.repeat(random.permutation(3), random.integers(1, 6, 3)) for _ in range(3)], 3)
    log_p = np.log(random.dirichlet(np.ones(3), size=7))
    best = max(itertools.product(range(3), repeat=7), key=lambda path: score(path, log_p, counted))
    assert tuple(most_probable_path(log_p, counted)) == best


def test_of_equal_paths_the_lowest_phase_from_the_last_frame_back():
    counted = count_transitions([np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])], 2)
    assert most_probable_path(np.log(np.full((6, 2), 0.5)), counted).tolist() == [0] * 6


def test_frames_that_do_not_count_cut_segments_and_hide_changes():
    gap = count_transitions([np.array([IGNORED, 0, 0, IGNORED, 0, 1, IGNORED, 2])], 3)
    # phase 0: 2 segments in 3 frames, 1 and 2: one frame each; n = 4, f = 5; the one change is 0 to 1
    assert gap.leave == pytest.approx([(2 + 4 / 6) / 4, (1 + 4 / 6) / 2, (1 + 4 / 6) / 2])
    assert gap.change[0] == pytest.approx([0, 1.5 / 2, 0.5 / 2])
    assert gap.start == pytest.approx([(1 + 1 / 3) / 2, 1 / 6, 1 / 6])


def test_a_video_without_a_label_that_counts_is_no_video():
    labels = np.array([0, 1, 1])
    alone, beside = (count_transitions(each, 2) for each in ([labels], [labels, np.full(4, IGNORED)]))
    assert np.array_equal(alone.start, beside.start)


def test_a_decoded_run_lies_beside_the_plain_one_with_its_probabilities(made):
    words = ["--dataset", "made", "--model", "ColorHistogram", "--device", "cpu", "--folds", "2", "--num_epochs", "2"]
    words += ["--head", "linear", "--decode", "viterbi"]
    run_k_folds.main(words)
    plain = load_experiment(made.config(num_epochs=2, head="linear"))
    decoded = replace(plain, decode="viterbi")
    assert decoded.results.parent.name == "head=linear-viterbi"
    assert read_run_record(plain.results / "run.json")["decode"] == "argmax"
    assert read_run_record(decoded.results / "run.json")["decode"] == "viterbi"
    segments = {}
    for name in plain.test_labels:
        probabilities = [(each.results / f"{name}.npy").read_bytes() for each in (plain, decoded)]
        assert probabilities[0] == probabilities[1]
        phases = [read_predictions(each.results / f"{name}.txt", plain.mapping) for each in (plain, decoded)]
        assert (phases[0] == np.load(plain.results / f"{name}.npy").argmax(axis=1)).all()
        segments[name] = [np.count_nonzero(np.diff(each)) for each in phases]
    assert sum(decoded for _, decoded in segments.values()) < sum(plain for plain, _ in segments.values())
    written = (decoded.results / "run.json").stat().st_mtime_ns
    run_k_folds.main(words)  # finished: not decoded again
    assert (decoded.results / "run.json").stat().st_mtime_ns == written


def test_a_plain_run_of_the_name_of_a_decoded_one_is_no_decoded_one(made):
    plain = load_experiment(made.config(num_epochs=1, head="linear", run="a"))
    train(plain, device="cpu")
    predict(replace(plain, decode="viterbi"), device="cpu")
    with pytest.raises(UserError, match=r"decode: viterbi -> argmax.*--run NAME"):
        is_finished(load_experiment(made.config(num_epochs=1, head="linear", run="a-viterbi")))
