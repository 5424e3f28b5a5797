"""Protocols: the answers of the official evaluators, and what each record says of itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from common.scoring.metrics import MEASURES
from common.scoring.protocols import (
    CHALLENGE,
    OVERLAP_MEASURES,
    PROTOCOLS,
    chosen_protocols,
    contributions,
    from_sums,
    methods_sentence,
    summarise,
    video_values,
)
from common.scoring.video_score import SegmentRule, VideoScore

PRINTED_DIGITS = 5e-5  # the official scorer prints four decimals
MSTCN, MSTCN_BACKGROUND, POOLED = (PROTOCOLS[name] for name in ("mstcn", "mstcn-background", "pooled"))


def expand(run_length: list[list[int]]) -> np.ndarray:
    """Labels of a run-length list `[class, length]`."""
    classes, lengths = zip(*run_length, strict=True)
    return np.repeat(classes, lengths)


def scored(true, predicted, probabilities=None, num_classes=6, **options) -> VideoScore:
    load = None if probabilities is None else lambda: probabilities
    return VideoScore(
        np.asarray(true), np.asarray(predicted), num_classes, background=0, load_probabilities=load, **options
    )


def random_video(seed: int, num_classes: int = 6, num_frames: int = 400):
    generator = np.random.default_rng(seed)
    true = np.repeat(generator.integers(0, num_classes, 20), num_frames // 20)
    predicted = np.where(generator.random(num_frames) < 0.7, true, generator.integers(0, num_classes, num_frames))
    probabilities = generator.dirichlet(np.ones(num_classes), num_frames)
    probabilities[np.arange(num_frames), predicted] += 1
    return true, predicted, probabilities / probabilities.sum(1, keepdims=True)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_perfect_prediction_scores_1_in_every_measure(protocol):
    true, _, _ = random_video(0)
    assert summarise([scored(true, true, np.eye(6)[true])], protocol) == dict.fromkeys(MEASURES, 1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_no_video_is_undefined_throughout(protocol):
    summary = summarise([], protocol)
    assert list(summary) == list(MEASURES)
    assert all(np.isnan(value) for value in summary.values())


def test_challenge_averages_over_videos_and_pooled_over_frames():
    """A perfect video of 2 frames and a wrong one of 200."""
    videos = [scored([1, 1], [1, 1]), scored([1] * 200, [2] * 200)]
    assert summarise(videos, CHALLENGE)["accuracy"] == 0.5
    for protocol in (MSTCN, MSTCN_BACKGROUND, POOLED):
        assert summarise(videos, protocol)["accuracy"] == pytest.approx(2 / 202)


def test_frame_measures_of_pooled_equal_scikit_learn_on_all_frames():
    videos = [random_video(seed) for seed in range(3)]
    true, predicted, probabilities = (np.concatenate(parts) for parts in zip(*videos, strict=True))
    summary = summarise([scored(*video) for video in videos], POOLED)
    assert summary["accuracy"] == pytest.approx((true == predicted).mean())
    assert summary["f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert summary["miou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    assert summary["pr_auc"] == pytest.approx(average_precision_score(np.eye(6)[true], probabilities, average="macro"))


def test_challenge_pr_auc_takes_the_classes_present_in_each_video():
    true, predicted, probabilities = random_video(7)
    true = np.where(true == 2, 3, true)
    present = [average_precision_score(true == k, probabilities[:, k]) for k in (0, 1, 3, 4, 5)]
    assert summarise([scored(true, predicted, probabilities)], CHALLENGE)["pr_auc"] == pytest.approx(np.mean(present))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_pr_auc_is_undefined_when_one_video_lacks_probabilities(protocol):
    true, predicted, probabilities = random_video(1)
    summary = summarise([scored(true, predicted, each) for each in (probabilities, None)], protocol)
    assert np.isnan(summary["pr_auc"])
    assert not np.isnan(summary["accuracy"])


def test_background_is_left_out_of_segments_only():
    true, predicted = np.repeat([0, 1, 0], 10), np.repeat([0, 1, 2], 10)
    kept, dropped = (summarise([scored(true, predicted)], each) for each in (MSTCN_BACKGROUND, MSTCN))
    assert kept["edit"] == pytest.approx(2 / 3)
    assert dropped["edit"] == pytest.approx(1 / 2)  # predicted 1, 2; true 1
    assert kept["accuracy"] == dropped["accuracy"] == pytest.approx(2 / 3)
    assert kept["f1_macro"] == dropped["f1_macro"]


def test_the_last_segment_ends_a_frame_early_or_where_it_ends():
    """True last segment of 2 frames counts 1; the prediction's 1 of 2 frames counts 0: no match at any threshold."""
    true, predicted = [0] * 8 + [1] * 2, [0] * 9 + [1]
    legacy, fixed = (
        scored(true, predicted).segment_score(SegmentRule(True, rule)).overlap_counts[0].tolist()
        for rule in ("legacy", "fixed")
    )
    assert legacy == [1, 1, 1]
    assert fixed == [2, 0, 0]


def test_a_dropped_background_at_the_end_leaves_the_segment_before_it_whole():
    true, predicted = [1, 1, 0, 0], [2, 1, 0, 0]
    for rule in ("legacy", "fixed"):
        counts = scored(true, predicted).segment_score(SegmentRule(False, rule)).overlap_counts
        assert counts[2].tolist() == [1, 1, 0]  # intersection 1 of 2 frames reaches 50 %


def test_a_video_of_background_alone_has_nothing_to_score_without_it():
    """Undefined, not perfect; a predicted segment where none is true is wrong, and so is the other way round."""
    summary = summarise([scored([0] * 9, [0] * 9)], MSTCN)
    assert np.isnan(summary["edit"])
    assert np.isnan(summary["f1@10"])
    assert summary["accuracy"] == 1
    assert summarise([scored([0] * 9, [0] * 9)], MSTCN_BACKGROUND)["edit"] == 1
    assert summarise([scored([0] * 9, [1] * 9)], MSTCN)["edit"] == 0
    assert summarise([scored([1] * 9, [0] * 9)], MSTCN)["edit"] == 0


def test_macro_measures_are_means_over_the_true_and_the_predicted_classes():
    video = scored([0] * 50 + [1] * 50, [0] * 50 + [1] * 49 + [2], num_classes=19)
    assert summarise([video], CHALLENGE)["f1_macro"] == pytest.approx((1 + 98 / 99) / 3)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_a_summary_is_its_videos_contributions_added_up(protocol):
    """What intervals resample is what the table shows."""
    videos = [scored(*random_video(seed)) for seed in range(4)]
    summary = summarise(videos, protocol)
    for measure in MEASURES:
        added = contributions(videos, measure, protocol)
        if added is not None:
            assert from_sums(measure, added.sum(axis=0), protocol) == pytest.approx(summary[measure])


def test_values_of_one_video_are_its_summary():
    video = scored(*random_video(3))
    for protocol in PROTOCOLS.values():
        assert video_values(video, protocol) == pytest.approx(summarise([video], protocol))


def test_sentences_tell_the_protocols_apart():
    sentences = {name: methods_sentence(protocol, "background") for name, protocol in PROTOCOLS.items()}
    assert len(set(sentences.values())) == len(PROTOCOLS)
    for name, sentence in sentences.items():
        assert sentence.startswith(f"Protocol {name}: ")
        assert all(word in sentence for word in ("Macro F1", "mIoU", "PR-AUC", "background", "last segment"))
    assert "left out of Edit and F1@k" in sentences["mstcn"]
    assert "where it ends" in sentences["pooled"]
    assert "one frame early, as in the MS-TCN evaluation code of sj-li/MS-TCN2" in sentences["mstcn"]


def test_the_fixed_rule_names_the_code_that_has_it():
    (fixed,) = chosen_protocols(["mstcn"], "fixed")
    sentence = methods_sentence(fixed, "background")
    assert "where it ends, as in the MS-TCN evaluation code of yabufarha/ms-tcn" in sentence
    assert "yabufarha/ms-tcn" in fixed.origin
    assert "sj-li" not in sentence + fixed.origin
    (legacy,) = chosen_protocols(["mstcn"])
    assert "sj-li/MS-TCN2" in legacy.origin
    assert chosen_protocols(["challenge"], "fixed")[0].origin == CHALLENGE.origin


def test_the_sentence_says_what_was_really_left_out():
    assert "Class SIL is left out of Edit and F1@k" in methods_sentence(MSTCN, "SIL")
    assert "Class SIL is counted in Edit and F1@k" in methods_sentence(MSTCN_BACKGROUND, "SIL")
    for protocol in PROTOCOLS.values():
        assert "No class counts as background: every class is counted in Edit" in methods_sentence(protocol, None)


# Carried in the suite, so that it proves the same without the reference data: the first golden case, as
# (true, predicted) run-length lists "class x frames", with the numbers that the two official evaluators give it.
CARRIED_VIDEOS = (
    (
        "12x82 10x124 12x43 6x37 12x59 6x71 0x66 6x42 8x18 9x18",
        "12x8 18x4 12x62 10x23 8x8 10x16 0x24 10x52 11x37 12x7 6x20 5x27 12x27 18x36 6x25 3x3 6x23 11x10 0x36 16x35 6x17 8x12 6x4 8x18 9x6 14x6 9x6 12x8",
    ),
    (
        "17x162 1x56 17x43 10x133 7x31 13x63 8x250 13x55 16x21",
        "17x18 16x34 17x34 6x8 17x64 1x15 13x26 1x27 17x3 11x39 10x49 16x28 10x45 7x14 14x13 10x35 13x32 8x33 7x28 8x66 4x21 8x59 14x25 10x7 0x1 10x9 8x1 13x54 9x26",
    ),
    (
        "0x10 17x29 6x21 0x33 17x28 8x25 6x52 9x51 15x108 8x158 6x163 15x97 0x48 14x93",
        "14x7 0x10 17x17 11x23 0x43 17x28 8x25 7x37 6x15 9x4 10x16 7x16 10x5 9x10 15x12 1x16 15x80 8x1 7x18 8x23 5x3 8x65 1x12 8x4 6x7 8x25 6x14 8x32 6x24 18x3 6x90 2x27 17x8 15x40 8x15 15x7 0x48 14x20 6x21 14x39 18x6",
    ),
)
CARRIED_CHALLENGE = {"accuracy": 0.594, "f1_macro": 0.2988, "edit": 0.3167}
CARRIED_MSTCN = {
    "mstcn": {"accuracy": 59.8253, "edit": 29.8342, "f1@10": 41.3223, "f1@25": 38.0165, "f1@50": 11.5702},
    "mstcn-background": {"accuracy": 59.8253, "edit": 31.6693, "f1@10": 44.2748, "f1@25": 39.6947, "f1@50": 13.7405},
}


def naive_segments(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """MS-TCN's segments: (label, start, end), the last one ending a frame early."""
    found, start = [], 0
    for t in range(1, len(labels)):
        if labels[t] != labels[t - 1]:
            found.append((labels[t - 1], start, t))
            start = t
    return [*found, (labels[-1], start, len(labels) - 1)]


def naive_f1(videos: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> float:
    hits = false_positives = false_negatives = 0
    for true, predicted in videos:
        references, used = naive_segments(true), set()
        for label, start, end in naive_segments(predicted):
            overlaps = []
            for other, other_start, other_end in references:
                shared = min(end, other_end) - max(start, other_start)
                joined = max(end, other_end) - min(start, other_start)
                overlaps.append(shared / joined if label == other else 0.0)
            best = max(range(len(overlaps)), key=overlaps.__getitem__)
            if overlaps[best] >= threshold and best not in used:
                hits += 1
                used.add(best)
            else:
                false_positives += 1
        false_negatives += len(references) - len(used)
    precision, recall = hits / (hits + false_positives), hits / (hits + false_negatives)
    return 2 * precision * recall / (precision + recall)


def carried_videos() -> list[VideoScore]:
    def labels(text: str) -> np.ndarray:
        return expand([[int(number) for number in run.split("x")] for run in text.split()])

    return [scored(labels(true), labels(predicted), num_classes=19) for true, predicted in CARRIED_VIDEOS]


def test_carried_golden_case_scores_as_the_official_challenge_scorer():
    summary = summarise(carried_videos(), CHALLENGE)
    for key, value in CARRIED_CHALLENGE.items():
        assert summary[key] == pytest.approx(value, abs=PRINTED_DIGITS)


@pytest.mark.parametrize("name", CARRIED_MSTCN)
def test_carried_golden_case_scores_as_the_mstcn_evaluation(name):
    summary = summarise(carried_videos(), PROTOCOLS[name])
    for key, percent in CARRIED_MSTCN[name].items():
        assert 100 * summary[key] == pytest.approx(percent, abs=PRINTED_DIGITS)


@pytest.mark.parametrize("seed", range(8))
def test_f1_at_k_equals_a_naive_restatement(seed):
    videos = [random_video(seed * 10 + n)[:2] for n in range(3)]
    summary = summarise([scored(*video) for video in videos], CHALLENGE)
    for percent in (10, 25, 50):
        assert summary[f"f1@{percent}"] == pytest.approx(naive_f1(videos, percent / 100))


def golden_case(reference_data, index: int, *, with_probabilities: bool = False) -> tuple[dict, list[VideoScore]]:
    """What the official scorers say of a golden case, and our scores of its videos."""
    case = json.loads((reference_data / "golden" / "scorer_cases.json").read_text())[index]
    videos = []
    with np.load(reference_data / "golden" / "scorer_probabilities.npz") as arrays:
        for number, video in enumerate(case["videos"]):
            probabilities = arrays[f"case{index}_video{number}"] if with_probabilities else None
            labels = expand(video["ground_truth_rle"]), expand(video["prediction_rle"])
            videos.append(scored(*labels, probabilities, num_classes=19))
    return case, videos


@pytest.mark.parametrize("index", range(4))
def test_golden_case_scores_as_the_official_challenge_scorer(reference_data, index):
    case, videos = golden_case(reference_data, index)
    summary = summarise(videos, CHALLENGE)
    for key, printed in (("accuracy", "Accuracy"), ("f1_macro", "F1 Score"), ("edit", "Edit Score")):
        assert summary[key] == pytest.approx(case["challenge"][printed], abs=PRINTED_DIGITS)


@pytest.mark.parametrize("index", [1, 3])
def test_golden_pr_auc_equals_the_official_one_where_every_class_is_present(reference_data, index):
    case, videos = golden_case(reference_data, index, with_probabilities=True)
    official = case["challenge_with_probabilities"]
    assert summarise(videos, CHALLENGE)["pr_auc"] == pytest.approx(official["PR AUC"], abs=PRINTED_DIGITS)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    ("name", "golden"), [("mstcn", "mstcn_background_excluded"), ("mstcn-background", "mstcn_background_kept")]
)
def test_golden_case_scores_as_the_mstcn_evaluation(reference_data, index, name, golden):
    case, videos = golden_case(reference_data, index)
    summary = summarise(videos, PROTOCOLS[name])
    for key in ("accuracy", "edit", *OVERLAP_MEASURES):
        assert 100 * summary[key] == pytest.approx(case[golden]["acc" if key == "accuracy" else key], abs=1e-9)


@pytest.mark.parametrize("model", ["DilatedTCN_B3_L5", "ED-TCN_L2_C15", "SVM", "tCNN_C36"])
@pytest.mark.parametrize(
    ("protocol", "golden"), [(MSTCN, "recomputed"), (MSTCN_BACKGROUND, "recomputed_background_kept")]
)
def test_published_50salads_predictions_score_the_same_in_both_averagings(reference_data, model, protocol, golden):
    name = f"mid_video_{model}"
    numbers = json.loads((reference_data / "golden" / "tcn_50salads_mid.json").read_text())[name][golden]
    with np.load(reference_data / "golden" / "tcn_50salads_mid.npz") as arrays:
        videos = [
            scored(arrays[key], arrays[key.replace("ground_truth", "prediction")], num_classes=32)
            for key in arrays
            if key.startswith(f"{name}/ground_truth/")
        ]
    assert len(videos) == 50
    (fixed,) = chosen_protocols([protocol.name], "fixed")
    pooled, means = summarise(videos, fixed), summarise(videos, replace(fixed, pooled=frozenset()))
    expected = {"acc_pooled": pooled["accuracy"], "acc_mean_of_videos": means["accuracy"], "edit": pooled["edit"]}
    for key, value in expected.items():
        assert 100 * value == pytest.approx(numbers[key], abs=1e-6)
    assert [100 * pooled[key] for key in OVERLAP_MEASURES] == pytest.approx(numbers["f1_pooled"], abs=1e-6)
    assert [100 * means[key] for key in OVERLAP_MEASURES] == pytest.approx(numbers["f1_mean_of_videos"], abs=1e-6)
