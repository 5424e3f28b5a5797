"""The scorer's command line: printed as the official one, JSON at full precision, bad input by name."""

import json
import math
import re

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.phases import read_mapping, write_prediction
from common.evaluation import main

TRUE = {"a": [0, 0, 1, 1, 1, 2, 2, 2, 0, 0], "b": [0, 1, 1, 2, 2, 2, 2, 0, 0, 0]}
PREDICTED = {"a": [0, 0, 1, 1, 2, 2, 2, 2, 0, 0], "b": [0, 1, 1, 1, 2, 2, 2, 2, 0, 0]}


@pytest.fixture
def folders(tmp_path):
    mapping_path = tmp_path / "mapping.txt"
    mapping_path.write_text("0 background\n1 incision\n2 wash\n")
    mapping = read_mapping(mapping_path)
    for name in TRUE:
        write_prediction(tmp_path / "predicted" / f"{name}.txt", PREDICTED[name], mapping)
        labels = tmp_path / "true" / f"{name}.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("".join(f"{mapping.names[phase]}\n" for phase in TRUE[name]))
    return tmp_path


def run(folders, *options):
    words = [folders / "true", folders / "predicted", "--mapping_path", folders / "mapping.txt", *options]
    return main([str(word) for word in words])


def test_printed_as_the_official_scorer_with_undefined_marked(folders, capsys):
    assert run(folders) == 0
    lines = capsys.readouterr().out.splitlines()
    # a: 9 of 10 frames, b: 8 of 10; every segment order is right
    assert lines[0] == "Average Accuracy: 0.8500"
    assert lines[1].startswith("Average F1 Score: 0.")
    assert lines[2] == "Average Edit Score: 1.0000"
    assert lines[3] == "Average PR AUC: n/a"
    assert lines[4] == "Average F1@10: 1.0000"


def test_json_has_full_precision_and_null_where_undefined(folders):
    run(folders, "--json", folders / "scores.json")
    scores = json.loads((folders / "scores.json").read_text())["challenge"]
    assert set(scores) == {"accuracy", "f1_macro", "edit", "pr_auc", "f1@10", "f1@25", "f1@50", "miou"}
    assert scores["accuracy"] == pytest.approx(0.85, abs=1e-12)
    # a: background 1, incision 4/5, wash 6/7; b: background 6/7, incision 4/5, wash 6/8
    assert scores["f1_macro"] == pytest.approx(np.mean([1, 4 / 5, 6 / 7, 6 / 7, 4 / 5, 6 / 8]), abs=1e-12)
    assert scores["pr_auc"] is None


def test_perfect_probabilities_give_pr_auc_one_also_where_a_class_is_absent(folders):
    (folders / "true" / "b.txt").write_text("background\n" * 5 + "wash\n" * 5)
    for name, true in {"a": TRUE["a"], "b": [0] * 5 + [2] * 5}.items():
        (folders / "probabilities").mkdir(exist_ok=True)
        np.save(folders / "probabilities" / f"{name}.npy", np.eye(3)[true])
    run(folders, "--probability_path", folders / "probabilities", "--json", folders / "scores.json")
    assert json.loads((folders / "scores.json").read_text())["challenge"]["pr_auc"] == 1.0


def test_pr_auc_needs_probabilities_of_every_video(folders, caplog):
    np.save(folders / "predicted" / "a.npy", np.eye(3)[TRUE["a"]])
    run(folders, "--json", folders / "scores.json")
    assert json.loads((folders / "scores.json").read_text())["challenge"]["pr_auc"] is None
    assert "no PR-AUC: 1 videos have no probabilities, for example b" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((10, 4)), r"a\.npy: expected shape \(10, 3\)"),
        (np.full((10, 3), -2.0), "expected probabilities between 0 and 1"),
        (np.full((10, 3), math.nan), "expected probabilities between 0 and 1"),
    ],
)
def test_unsuitable_probabilities_are_named(folders, values, message):
    np.save(folders / "predicted" / "a.npy", values)
    with pytest.raises(UserError, match=message):
        run(folders)


def test_another_length_is_an_error_with_both_counts(folders):
    (folders / "predicted" / "b.txt").write_text("background\n" * 9)
    with pytest.raises(UserError, match=r"b\.txt: 9 frames, but 10 labels"):
        run(folders)


def test_a_missing_prediction_is_named(folders):
    (folders / "predicted" / "b.txt").unlink()
    with pytest.raises(UserError, match=r"b\.txt: no such label file"):
        run(folders)


def test_a_folder_without_labels_is_named(folders):
    with pytest.raises(UserError, match="nothing: no label files"):
        main([str(folders / "nothing"), str(folders / "predicted")])


def test_a_prediction_of_another_data_set_names_the_unknown_phase(folders):
    (folders / "predicted" / "a.txt").write_text("background\n" * 5 + "cut_tomato\n" * 5)
    with pytest.raises(UserError, match=r"a\.txt, line 6: unknown phase 'cut_tomato'"):
        run(folders)


def test_any_number_of_protocols_at_once(folders, capsys):
    run(folders, "--protocol", "challenge", "mstcn", "pooled", "--json", folders / "scores.json")
    scores = json.loads((folders / "scores.json").read_text())
    assert list(scores) == ["challenge", "mstcn", "pooled"]
    assert scores["mstcn"]["accuracy"] == pytest.approx(17 / 20)
    printed = capsys.readouterr().out
    assert "mstcn (percent)\nAccuracy: 85.0000" in printed
    assert "Protocol pooled: " in printed


def test_the_rule_of_the_last_segment_can_be_replaced(folders):
    for name, true, predicted in (("a", [0] * 8 + [1] * 2, [0] * 9 + [1]), ("b", [0] * 10, [0] * 10)):
        (folders / "true" / f"{name}.txt").write_text("".join(f"{['background', 'incision'][i]}\n" for i in true))
        (folders / "predicted" / f"{name}.txt").write_text(
            "".join(f"{['background', 'incision'][i]}\n" for i in predicted)
        )
    values = {}
    for rule in ("legacy", "fixed"):
        run(folders, "--protocol", "mstcn-background", "--segments", rule, "--json", folders / "scores.json")
        values[rule] = json.loads((folders / "scores.json").read_text())["mstcn-background"]["f1@10"]
    assert values == {"legacy": pytest.approx(4 / 6), "fixed": 1.0}


def test_details_show_further_measures_and_every_phase(folders, capsys):
    run(folders, "--details", "--fps", "1", "--relaxed_seconds", "1", "--json", folders / "scores.json")
    details = json.loads((folders / "scores.json").read_text())["details"]
    assert details["relaxed_accuracy"] == 1.0
    assert details["phases"]["incision"]["recall"] == pytest.approx(4 / 5)
    assert details["phases"]["wash"]["frames"] == 7
    assert details["calibration_error"] is None
    printed = capsys.readouterr().out
    assert "boundaries relaxed by ±1 s, mean over videos: 100.00 %" in printed
    assert "Expected calibration error, 15 bins, all frames: n/a" in printed


@pytest.fixture
def idle(tmp_path):
    """A data set whose background is called `idle`: one phase with it on both sides, predicted without."""
    dataset = tmp_path / "data" / "set"
    (dataset / "groundTruth").mkdir(parents=True)
    (dataset / "mapping.txt").write_text("0 idle\n1 cut\n")
    (dataset / "groundTruth" / "v.txt").write_text("idle\n" * 10 + "cut\n" * 50 + "idle\n" * 10)
    (dataset / "predicted").mkdir()
    (dataset / "predicted" / "v.txt").write_text("cut\n" * 70)
    return dataset


def mstcn(dataset, capsys, *options, labels="groundTruth") -> tuple[float, str]:
    """Edit, and what is said of the background."""
    main([str(dataset / labels), str(dataset / "predicted"), "--protocol", "mstcn", *map(str, options)])
    printed = capsys.readouterr().out
    return float(re.search(r"Edit: ([\d.]+)", printed)[1]), re.search(r"\. ([^.]* counted[^;]*);", printed)[1]


def test_the_mapping_is_that_of_the_data_set_of_the_labels(idle, capsys, tmp_path):
    assert mstcn(idle, capsys)[0] == pytest.approx(100 / 3, abs=1e-4)
    (tmp_path / "labels").symlink_to(idle / "groundTruth")
    main([str(tmp_path / "labels"), str(idle / "predicted")])
    (idle / "groundTruth").rename(idle / "groundTruth_split_1")
    assert mstcn(idle, capsys, labels="groundTruth_split_1")[0] == pytest.approx(100 / 3, abs=1e-4)


def test_a_background_by_another_name_is_left_out_where_it_is_named(idle, capsys):
    assert mstcn(idle, capsys)[1].startswith("No class counts as background")
    score, said = mstcn(idle, capsys, "--background", "idle")
    assert (score, said.startswith("Class idle is left out of Edit")) == (100, True)
    (idle / "dataset.yaml").write_text("background: idle\n")
    assert mstcn(idle, capsys) == (score, said)
    assert "Class cut is left out" in mstcn(idle, capsys, "--background", "cut")[1]
    (idle / "mapping.txt").write_text("0 background\n1 cut\n2 idle\n")
    (idle / "dataset.yaml").write_text("background: null\n")
    assert mstcn(idle, capsys)[1].startswith("No class counts as background")


def test_a_background_that_is_no_phase_is_refused(idle, capsys):
    with pytest.raises(UserError, match=r"--background idel: expected a phase of .*; nearest known name: 'idle'"):
        mstcn(idle, capsys, "--background", "idel")


def test_an_unknown_protocol_is_refused_with_the_known_ones(folders, capsys):
    with pytest.raises(SystemExit):
        run(folders, "--protocol", "officer")
    assert "mstcn-background" in capsys.readouterr().err
