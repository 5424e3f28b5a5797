"""Does the order of encoders hold: conditions and their names, agreement, places that change beyond chance, changes by scale."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from common.base import paths
from common.head.config import TrainConfig
from common.reports.caveats import Remark, remarks
from common.reports.leaderboard import make_leaderboard
from common.reports.results import EncoderResult, SplitResult
from common.reports.robustness.factors import holding
from common.scoring.protocols import CHALLENGE
from common.scoring.video_score import VideoScore

NUM_VIDEOS, NUM_FRAMES = 24, 200
VIDEOS = [f"video{number:02}" for number in range(NUM_VIDEOS)]


def row(
    encoder: str, accuracy: float, *, spread: float = 0.02, seed: int = 0, decode: str = "argmax", **config
) -> EncoderResult:
    """A run of one split whose accuracy varies from video to video about a mean."""
    random = np.random.default_rng([seed, int(1000 * accuracy)])
    scores = {}
    for name in VIDEOS:
        true = np.repeat([0, 1], NUM_FRAMES // 2).astype(np.int16)
        wrong = round(NUM_FRAMES * np.clip(1 - accuracy + random.normal(0, spread), 0, 1))
        predicted = true.copy()
        predicted[:wrong] = 1 - predicted[:wrong]
        scores[name] = VideoScore(true, predicted, 2)
    own = TrainConfig(model=encoder, **config)
    record = {
        "synthetic": False, "split": "1", "run": own.run_name, "seed": own.seed, "phases": ["a", "b"], "config": asdict(own),
        "folds_hash": None, "videos": VIDEOS, "fps": {}, "history": None, "decode": decode,
        "features": {"identity": None, "random_weights": False, "num_parameters": None}, "versions": {},
        "train_seconds": None, "git": {"commit": None, "dirty": None}, "unreached_labels": {},
    }  # fmt: skip
    return EncoderResult(paths.Model(Path(encoder)), own.decoded_name(decode), [SplitResult(record, scores)])


def of(*results: EncoderResult):
    return holding(make_leaderboard(results, CHALLENGE))


def test_of_one_setting_there_is_nothing_to_say():
    assert of(row("A", 0.8), row("B", 0.7)) is None
    assert of(row("A", 0.8), row("B", 0.7, head="gru")) is None  # no encoder has both


def test_conditions_are_called_by_what_tells_them_apart_the_studys_first():
    held = of(
        row("A", 0.8, head="gru"),
        row("A", 0.7),
        row("A", 0.75, head="tecno", standardise="train"),
        row("A", 0.6, lr=0.01, run="fast"),
    )
    assert [each.label for each in held.conditions] == [
        "MS-TCN++, lr 0.0005", "MS-TCN++, lr 0.01", "GRU, lr 0.0005", "TeCNO, standardised, lr 0.0005",
    ]  # fmt: skip
    assert of(row("A", 0.8), row("A", 0.7, decode="viterbi")).conditions[1].label == "MS-TCN++, viterbi"
    several = of(row("A", 0.8, head="gru"), row("A", 0.7, head="gru", head_options={"hidden": 64}))
    assert [each.label for each in several.conditions] == ["GRU", "GRU (hidden 64)"]


def test_encoders_that_change_places_beyond_chance_are_named():
    held = of(row("A", 0.9), row("B", 0.7), row("A", 0.6, head="gru"), row("B", 0.8, head="gru"))
    said = (
        "The order of the encoders depends on the head: A is better than B with MS-TCN++, and worse with GRU, both beyond "
        "chance (95 % intervals over videos)."
    )
    assert held.remarks == [Remark(said, alarming=True)]


def test_only_the_factor_that_makes_encoders_change_places_alarms():
    held = of(
        row("A", 0.9), row("B", 0.7), row("A", 0.6, head="gru"), row("B", 0.8, head="gru"),
        row("A", 0.91, standardise="train"), row("B", 0.71, standardise="train"),
    )  # fmt: skip
    assert [(remark.alarming, remark.text.split(":")[0]) for remark in held.remarks] == [
        (True, "The order of the encoders depends on the head"),
        (False, "The order of the encoders does not depend on the scale of the features."),
    ]


def test_a_change_of_places_within_chance_is_called_so():
    near = row("A", 0.82, spread=0.1, seed=3), row("B", 0.78, spread=0.1, seed=53)
    with_gru = row("A", 0.70, spread=0.1, seed=103, head="gru"), row("B", 0.73, spread=0.1, seed=153, head="gru")
    held = of(*near, *with_gru)
    assert held.remarks == [
        Remark("The order of the encoders changes with the head, but no two change places beyond chance.")
    ]


def test_the_same_order_does_not_depend():
    held = of(row("A", 0.9), row("B", 0.7), row("A", 0.8, standardise="train"), row("B", 0.6, standardise="train"))
    assert held.remarks == [Remark("The order of the encoders does not depend on the scale of the features.")]


def test_tau_is_kendalls_and_its_interval_holds_it():
    names, plain, gru = "ABCDE", (0.9, 0.8, 0.7, 0.6, 0.5), (0.8, 0.9, 0.7, 0.5, 0.6)
    held = of(
        *(row(name, value) for name, value in zip(names, plain, strict=True)),
        *(row(name, value, head="gru") for name, value in zip(names, gru, strict=True)),
    )
    tau = held.tau("GRU", "MS-TCN++")
    assert tau.estimate == pytest.approx(kendalltau(plain, gru).statistic)
    assert tau.low <= tau.estimate <= tau.high
    assert held.agreements[0].num_encoders == 5


def test_of_two_encoders_there_is_no_tau():
    held = of(row("A", 0.9), row("B", 0.7), row("A", 0.8, head="gru"), row("B", 0.6, head="gru"))
    assert np.isnan(held.tau("GRU", "MS-TCN++").estimate)


def test_the_scale_check_says_by_how_much_each_encoder_changes():
    rows = row("A", 0.9), row("B", 0.3), row("A", 0.91, standardise="train"), row("B", 0.7, standardise="train")
    held = of(*rows)
    change = {each.encoder: each for each in held.changes}
    assert (change["B"].first, change["B"].second) == ("MS-TCN++", "MS-TCN++, standardised")
    assert change["B"].difference.estimate == pytest.approx(rows[3].mean("accuracy") - rows[1].mean("accuracy"))
    assert 0.38 < change["B"].difference.low < change["B"].difference.high < 0.42
    assert of(row("A", 0.9), row("A", 0.8, head="gru")).changes == []  # of heads there is no natural first


def test_ranks_are_among_the_encoders_of_one_setting():
    rows = row("A", 0.9), row("B", 0.7), row("A", 0.5, head="gru"), row("B", 0.6, head="gru")
    board = make_leaderboard(rows, CHALLENGE)
    assert holding(board).ranks(board) == {("A", "MS-TCN++"): 1, ("B", "MS-TCN++"): 2, ("A", "GRU"): 2, ("B", "GRU"): 1}


def test_only_an_incomplete_crossing_is_no_like_for_like_comparison():
    crossed = row("A", 0.9), row("B", 0.7), row("A", 0.5, head="gru"), row("B", 0.6, head="gru")
    assert not any("like-for-like" in str(line) for line in remarks(crossed))
    assert any("like-for-like comparison: rows differ in head" in str(line) for line in remarks(crossed[:3]))
