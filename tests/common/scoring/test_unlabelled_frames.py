"""Cataract-101 as it was released: its videos begin with frames that have no phase, and scores leave them out."""

import csv

import numpy as np
import pytest

from common.dataset.phases import IGNORED, PhaseMapping, read_labels, write_prediction
from common.scoring.folder import score_folder
from common.scoring.protocols import PROTOCOLS, summarise

HEAD_FRAMES = 29_237  # in all, before the first rows of 97 of the 101 videos


@pytest.fixture(scope="module")
def release(reference_data, tmp_path_factory):
    """Label files of all 101 videos by name, and their phases with -1 where there is none."""
    folder = reference_data / "data" / "cataract101"

    def rows(name):
        return list(csv.DictReader((folder / name).open(), delimiter=";"))

    mapping = PhaseMapping(
        tuple(row["Meaning"].replace(" ", "_") for row in rows("phases.csv")), None, ignored=("unlabelled",)
    )
    truth = {row["VideoID"]: np.full(int(row["Frames"]), -1) for row in rows("videos.csv")}
    for row in rows("annotations.csv"):
        truth[row["VideoID"]][int(row["FrameNo"]) :] = int(row["Phase"]) - 1  # a later row writes over it
    labels = tmp_path_factory.mktemp("labels")
    names = [*mapping.names, "unlabelled"]  # -1 is the last
    for video, phases in truth.items():
        (labels / f"{video}.txt").write_text("\n".join(names[phase] for phase in phases) + "\n")
    return mapping, {video: labels / f"{video}.txt" for video in truth}, truth


def score(release, predictions, folder):
    mapping, labels, _ = release
    for video, phases in predictions.items():
        write_prediction(folder / f"{video}.txt", phases, mapping)
    return list(score_folder(labels, folder, mapping, folder).values())


@pytest.mark.slow
def test_a_perfect_prediction_is_perfect_whatever_it_says_of_the_head(release, tmp_path):
    _, labels, truth = release
    assert sum((read_labels(path, release[0]) == IGNORED).sum() for path in labels.values()) == HEAD_FRAMES
    scores = score(release, {video: np.maximum(phases, 0) for video, phases in truth.items()}, tmp_path)
    assert sum(each.confusion.sum() for each in scores) == sum(map(len, truth.values())) - HEAD_FRAMES
    for name in ("pooled", "mstcn-background"):  # nobody's last segment is cut off whole
        summary = summarise(scores, PROTOCOLS[name])
        assert {key: value for key, value in summary.items() if key != "pr_auc"} == dict.fromkeys(
            set(summary) - {"pr_auc"}, 1.0
        )


def naive(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, list[float]]:
    """Accuracy, edit and F1@10/25/50 of one video by plain loops over the frames from the first label on."""
    start = int((truth >= 0).argmax())
    truth, predicted = truth[start:].tolist(), predicted[start:].tolist()

    def segments(labels):
        found = []
        for frame, label in enumerate(labels):
            if found and found[-1][0] == label:
                found[-1][2] = frame + 1
            else:
                found.append([label, frame, frame + 1])
        return found

    a, b = segments(predicted), segments(truth)
    distance = list(range(len(b) + 1))
    for row, (label, _, _) in enumerate(a, 1):
        diagonal, distance[0] = distance[0], row
        for column, (other, _, _) in enumerate(b, 1):
            diagonal, distance[column] = (
                distance[column],
                min(distance[column] + 1, distance[column - 1] + 1, diagonal + (label != other)),
            )
    counts = []
    for threshold in (0.1, 0.25, 0.5):
        used, hits = set(), 0
        for label, first, last in a:
            overlaps = [
                (min(last, end) - max(first, begin)) / (max(last, end) - min(first, begin)) if other == label else 0
                for other, begin, end in b
            ]
            best = int(np.argmax(overlaps))
            if overlaps[best] >= threshold and best not in used:
                used.add(best)
                hits += 1
        counts.append((hits, len(a), len(b)))
    accuracy = sum(x == y for x, y in zip(truth, predicted, strict=True)) / len(truth)
    return accuracy, 1 - distance[-1] / max(len(a), len(b)), counts


@pytest.mark.slow
def test_half_right_scores_as_plain_loops_say(release, tmp_path):
    _, _, truth = release
    random = np.random.default_rng(0)
    predictions = {}
    for video, phases in truth.items():
        wrong = np.repeat(random.random(len(phases) // 250 + 1) < 0.5, 250)[: len(phases)]  # stretches of ten seconds
        predictions[video] = np.where(wrong, (np.maximum(phases, 0) + 1) % 10, np.maximum(phases, 0))
    summary = summarise(score(release, predictions, tmp_path), PROTOCOLS["pooled"])
    found = {video: naive(truth[video], predictions[video]) for video in truth}
    right = sum(f[0] * (truth[video] >= 0).sum() for video, f in found.items())
    assert summary["accuracy"] == pytest.approx(right / sum((each >= 0).sum() for each in truth.values()), abs=1e-12)
    assert 0.4 < summary["accuracy"] < 0.6
    assert summary["edit"] == pytest.approx(np.mean([f[1] for f in found.values()]), abs=1e-12)
    for place, key in enumerate(("f1@10", "f1@25", "f1@50")):
        hits, predicted, true = np.sum([f[2][place] for f in found.values()], axis=0)
        assert summary[key] == pytest.approx(2 * hits / (predicted + true), abs=1e-12)
