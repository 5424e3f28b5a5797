"""Probes on made features: what is learned, what is chosen and where, what is undefined, what is refused, what is written."""

import json

import numpy as np
import pytest

import generate_k_folds
from common import probe as command
from common.base import paths
from common.base.runtime import UserError
from common.dataset.task_labels import TaskClip
from common.tasks.config import ProbeConfig
from common.tasks.inputs import OpenedFeatures, rows_of_clips
from common.tasks.logistic import DEFAULT_C, Examples, choose_c, fit_probe
from common.tasks.probe import MAJORITY, run_probe
from common.tasks.scores import POOLED, TOP1, Answers, score_clips, score_presence
from tests.common.conftest import FEATURE_DIM, MadeDataset

NAN = float("nan")


@pytest.fixture
def dataset(workspace) -> MadeDataset:
    root = workspace / "data" / "task"
    root.mkdir()
    return MadeDataset(paths.Dataset(root))


def tools(made: MadeDataset, num_videos: int = 12, *, num_test: int = 6, length: int = 40) -> list[str]:
    """Videos of frames that have a hook, scissors or both, which two feature dimensions tell; a clip is seen nowhere."""
    random, lines = np.random.default_rng(3), ["video,frame,hook,scissors,clip"]
    names = [f"v{number}" for number in range(num_videos)]
    for name in names:
        present = random.random((length, 2)) < (0.5, 0.2)
        rows = random.normal(0, 0.5, (length, FEATURE_DIM))
        rows[:, :2] += 2 * present
        made.write_features(name, rows)
        lines += [f"{name},{frame},{int(hook)},{int(scissors)},0" for frame, (hook, scissors) in enumerate(present)]
    made.dataset.presence.write_text("\n".join(lines) + "\n")
    made.dataset.description.write_text("task: multilabel\n")
    for part, videos in (("train", names[num_test:]), ("test", names[:num_test])):
        path = made.dataset.bundle(part, 1, "A")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{video}.txt\n" for video in videos))
    return names


CONFIG = ProbeConfig(dataset="task", model="ColorHistogram", splits="A")


def test_tools_that_features_tell_are_found(dataset):
    tools(dataset)
    summary = run_probe(CONFIG)
    found = summary.measures[POOLED]
    assert found.value > 0.95
    assert (found.classes, found.of) == (2, 3)
    assert found.low < found.value < found.high or found.low <= found.value
    assert summary.floors[MAJORITY][POOLED].value < 0.5
    assert any("nothing to learn of clip" in note for note in summary.notes)
    assert (summary.units, summary.num_units, summary.splits) == ("videos", 6, "A")


def test_c_is_chosen_on_training_videos_alone(dataset):
    names = tools(dataset)
    (learned,) = run_probe(CONFIG).further["learned"]
    assert set(learned["kept_aside"]) < set(learned["train"]) == set(names[6:])
    assert set(learned["test"]) == set(names[:6])
    assert f"{learned['c']:g}" in learned["candidates"]


def test_what_is_tested_changes_nothing_that_is_learned(dataset):
    """Other labels of the test videos: the same C, the same answers."""
    tools(dataset)
    folder = paths.model("ColorHistogram").results("task", "splits=A")
    first = run_probe(CONFIG)
    answers = np.load(folder / "split_1" / "v0.npy")
    lines = dataset.dataset.presence.read_text().splitlines()
    turned = [
        line[:-5] + line[-5:].translate(str.maketrans("01", "10")) if line.startswith("v0,") else line for line in lines
    ]
    dataset.dataset.presence.write_text("\n".join(turned))
    second = run_probe(CONFIG)
    assert second.inputs_hash != first.inputs_hash
    assert second.further["learned"][0]["candidates"] == first.further["learned"][0]["candidates"]
    np.testing.assert_array_equal(np.load(folder / "split_1" / "v0.npy"), answers)


def test_a_finished_probe_is_not_run_again(dataset, caplog):
    tools(dataset)
    record = paths.model("ColorHistogram").results("task", "splits=A") / paths.TASK_RECORD
    first = run_probe(CONFIG)
    written = record.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        assert run_probe(CONFIG) == first
    assert record.stat().st_mtime_ns == written
    assert "finished already" in caplog.text
    record.write_text(record.read_text()[:100])
    assert run_probe(CONFIG).measures == first.measures


def test_few_tested_videos_have_no_interval_and_are_listed(dataset, capsys):
    tools(dataset, num_test=4)
    summary = run_probe(CONFIG)
    assert summary.measures[POOLED].low is None
    assert list(summary.further["per_unit"]) == ["v0", "v1", "v2", "v3"]
    command.main(["--dataset", "task", "--model", "ColorHistogram", "--splits", "A"])
    printed = capsys.readouterr().out
    assert "fewer than 5 videos are tested; each is listed" in printed
    assert "v3: mean AP" in printed
    assert "2 of 3 classes" in printed


def test_unlabelled_frames_are_neither_learned_from_nor_scored(dataset):
    """Emptied labels are what a class of fewer frames has: the same answers as without those rows."""
    tools(dataset)
    lines = dataset.dataset.presence.read_text().splitlines()
    emptied = [
        line if index % 3 or not index else ",".join([*line.split(",")[:2], "", "", ""])
        for index, line in enumerate(lines)
    ]
    dataset.dataset.presence.write_text("\n".join(emptied))
    first = run_probe(CONFIG)
    kept = [line for index, line in enumerate(lines) if index % 3 or not index]
    dataset.dataset.presence.write_text("\n".join(kept))
    second = run_probe(CONFIG)
    assert first.measures[POOLED].value == pytest.approx(second.measures[POOLED].value, abs=0.02)
    assert first.further["per_class"]["positives"] == second.further["per_class"]["positives"]


# --- clips --------------------------------------------------------------------------------------------------------


def clips(made: MadeDataset, *, groups: bool = True) -> None:
    """Two clips of 20 frames (25 a second) in each of 16 videos; the class is in a feature dimension."""
    random, lines = np.random.default_rng(5), ["clip,group,label,split,video,start,end"]
    for number in range(16):
        rows = np.zeros((40, FEATURE_DIM))
        rows[:, :4] = random.normal(0, 0.3, (40, 4))
        for part in (0, 1):
            kind = (number + part) % 3
            rows[20 * part : 20 * part + 20, kind] += 1
            group = f"g{number}" if groups else ""
            split = "test" if number < 6 else "train"
            lines.append(f"c{number}_{part},{group},kind {kind},{split},w{number},{0.8 * part:g},{0.8 * part + 0.8:g}")
        made.write_features(f"w{number}", rows)
    made.dataset.clips.write_text("\n".join(lines) + "\n")
    made.dataset.description.write_text("task: clips\n")


def test_clips_that_features_tell_are_found(dataset, capsys):
    clips(dataset)
    command.main(["--dataset", "task", "--model", "ColorHistogram"])
    (record,) = paths.model("ColorHistogram").results("task").glob(paths.TASK_RECORD)
    content = json.loads(record.read_text())
    assert content["measures"][TOP1]["value"] == 1.0
    assert content["measures"]["share of the largest class"]["value"] == pytest.approx(4 / 12)
    assert (content["units"], content["num_units"]) == ("groups", 6)
    predictions = (record.parent / "split_1" / paths.TASK_PREDICTIONS).read_text().splitlines()
    assert predictions[0] == "clip,label,answer,kind 0,kind 1,kind 2"
    assert len(predictions) == 13
    assert "share of the largest class" in capsys.readouterr().out


def test_without_groups_intervals_are_over_clips_and_that_is_said(dataset):
    clips(dataset, groups=False)
    summary = run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))
    assert (summary.units, summary.num_units) == ("clips", 12)
    assert any("intervals are over clips" in note for note in summary.notes)


def test_a_clip_is_the_mean_of_the_sampled_frames_in_it(dataset):
    """Ten frames a second, every second one sampled, their first feature the frame's number: [0.2 s, 0.6 s) has 2 and 4."""
    rows = np.zeros((5, FEATURE_DIM))
    rows[:, 0] = [0, 2, 4, 6, 8]
    dataset.write_features("v", rows, sampled=np.array([0, 2, 4, 6, 8]), fps=10, num_frames=10)
    features = OpenedFeatures(dataset.features, FEATURE_DIM)
    features.open_all(["v"])
    parts = [TaskClip("a", "x", None, None, "v", 0.2, 0.6), TaskClip("b", "x", None, None, "v", 0.5, 0.55)]
    assert rows_of_clips([*parts, TaskClip("v", "x", None, None, None, 0, float("inf"))], features)[:, 0].tolist() == [
        3,
        4,
        4,
    ]
    with pytest.raises(UserError, match=r"late: begins at 5 s, but .* last frame is at 0\.9 s"):
        rows_of_clips([TaskClip("late", "x", None, None, "v", 5, 6)], features)


def test_a_group_on_both_sides_is_refused(dataset):
    clips(dataset)
    text = dataset.dataset.clips.read_text()
    dataset.dataset.clips.write_text(text.replace("c0_1,g0,kind 1,test", "c0_1,g0,kind 1,train"))
    with pytest.raises(UserError, match=r"clips\.csv: 1 group with clips in train and in test \(g0\)"):
        run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))


def test_a_group_on_both_sides_of_a_published_split_is_told_and_each_clip_stays_in_its_part(dataset):
    clips(dataset)
    text = dataset.dataset.clips.read_text()
    dataset.dataset.clips.write_text(text.replace("c0_1,g0,kind 1,test", "c0_1,g0,kind 1,train"))
    dataset.dataset.import_record.write_text("{}")
    summary = run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))
    assert any("published split has 1 group with clips in train and in test (g0)" in note for note in summary.notes)
    (learned,) = summary.further["learned"]
    assert "c0_1" in learned["train"]
    assert "c0_1" not in learned["test"]
    assert (learned["rows"], summary.num_units) == (21, 6)


def test_clips_without_a_split_are_tested_in_generated_folds_by_group(dataset):
    clips(dataset)
    text = dataset.dataset.clips.read_text()
    dataset.dataset.clips.write_text(text.replace(",test,", ",,").replace(",train,", ",,"))
    with pytest.raises(UserError, match="make folds first"):
        run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))
    generate_k_folds.main([str(dataset.dataset.root), "4"])
    summary = run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))
    assert (summary.num_splits, summary.num_units, summary.units) == (4, 16, "groups")
    for learned in summary.further["learned"]:
        assert set(learned["train"]).isdisjoint(learned["test"])
        assert learned["rows"] == 2 * len(learned["train"])


def test_a_table_holds_results_of_one_list_alone(dataset, capsys):
    clips(dataset)
    for part in ("train", "test"):
        path = dataset.dataset.bundle(part, 1, "own")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"g{number}\n" for number in (range(8) if part == "test" else range(8, 16))))
    words = ["--dataset", "task", "--model", "ColorHistogram"]
    command.main([*words, "--splits", "own"])
    capsys.readouterr()
    command.main(words)
    table = capsys.readouterr().out.rpartition("95 % interval")[2]
    assert len([line for line in table.splitlines() if line.startswith("ColorHistogram")]) == 1


def test_clips_of_a_validation_part_are_neither_learned_from_nor_tested(dataset):
    clips(dataset)
    text = dataset.dataset.clips.read_text()
    dataset.dataset.clips.write_text(text.replace("c9_1,g9,kind 1,train", "c9_1,g9,kind 1,val"))
    (learned,) = run_probe(ProbeConfig(dataset="task", model="ColorHistogram")).further["learned"]
    assert learned["rows"] == 19
    assert "c9_1" not in [*learned["train"], *learned["test"]]


# --- learning -----------------------------------------------------------------------------------------------------


def test_balanced_weights_are_taken_off_again():
    """Two features that say nothing: the answer is the share of positives, not a half."""
    random = np.random.default_rng(0)
    rows, targets = random.normal(size=(4000, 2)), (random.random((4000, 1)) < 0.1).astype(float)
    probe = fit_probe(Examples(rows, targets, np.repeat("v", 4000)), 1, 1.0)
    likely = 1 / (1 + np.exp(-probe.logits(rows)))
    assert likely.mean() == pytest.approx(targets.mean(), abs=0.01)


def test_a_class_seen_in_one_way_only_is_answered_by_that():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    targets = np.stack([np.ones(20), np.zeros(20), np.full(20, NAN)], axis=1)
    probe = fit_probe(Examples(rows, targets, np.repeat("v", 20)), 3, 1.0)
    assert probe.learned == (False, False, False)
    assert (probe.logits(rows)[0] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize("found", [(2,), (0, 2), (0, 1, 2)])
def test_a_class_without_an_example_is_never_answered(found):
    random = np.random.default_rng(1)
    targets = np.array([found[index % len(found)] for index in range(60)])
    rows = random.normal(0, 0.1, (60, 4)) + np.eye(4)[targets]
    answered = fit_probe(Examples(rows, targets, np.repeat("v", 60)), 4, 1.0).logits(rows).argmax(axis=1)
    np.testing.assert_array_equal(answered, targets)


def test_c_is_the_middle_one_where_nothing_can_be_kept_aside():
    rows = np.random.default_rng(0).normal(size=(8, 2))
    chosen = choose_c(Examples(rows, np.arange(8) % 2, np.repeat(["a", "b"], 4)), 2, {}, seed=1)
    assert (chosen.c, chosen.aside) == (DEFAULT_C, ())


# --- scores -------------------------------------------------------------------------------------------------------


def test_patients_are_what_intervals_draw():
    """Six videos of two patients: two units, so no interval."""
    truth = np.tile([[1.0], [0.0]], (6, 1))
    answers = Answers(truth, truth * 2 - 1, np.repeat([f"v{n}" for n in range(6)], 2), np.array([0.5]))
    assert score_presence([answers], {}).num_units == 6
    scores = score_presence([answers], {f"v{n}": f"p{n % 2}" for n in range(6)})
    assert (scores.num_units, scores.measures[POOLED].low, list(scores.per_unit)) == (2, None, ["p0", "p1"])


def test_splits_of_a_list_are_scored_each_for_itself():
    """Right in one split, wrong in the other: top-1 is the mean of 1 and 0, whatever their sizes."""
    right, wrong = (np.eye(2)[np.array(answer)] for answer in ([0, 1, 1, 0], [0]))
    splits = [
        Answers(np.array([0, 1, 1, 0]), right, np.array(list("abcd")), np.array([0.5, 0.5])),
        Answers(np.array([1]), wrong, np.array(["e"]), np.array([0.5, 0.5])),
    ]
    assert score_clips(splits, {}).measures[TOP1].value == 0.5


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,frame\nv0,0\n", r"labels\.csv, line 1: expected columns of classes"),
        ("video,hook\nv0,0\n", r"labels\.csv, line 1: expected the column frame"),
        ("video,frame,hook,Hook\nv0,0,1,1\n", r"line 1: expected each class once"),
        ("video,frame,hook,\nv0,0,1,1\n", r"line 1: column 4 has no name"),
        ("video,frame,hook\nv0,0,2\n", r"line 2: hook: expected 0, 1 or nothing \(unlabelled\), found '2'"),
        ("video,frame,hook\nv0,0.5,1\n", r"line 2: frame: expected the number of a decoded frame"),
        ("video,frame,hook\nv0,-1,1\n", r"line 2: frame: expected"),
        ("video,frame,hook\nv0,0,1\nv0,0,1\n", r"line 3: frame 0 of v0 again"),
        ("video,frame,hook\nv0,0\n", r"line 2: expected 3 cells as in line 1, found 2"),
        ("video,frame,hook\n", r"labels\.csv: no label in it"),
        ("video,frame,hook\nv0,0,1\nV0,1,1\n", r"two videos are called 'v0' and 'V0'"),
        ("video,frame,hook\n../x,0,1\n..,0,1\n", r"line 3: video: expected the name of a video"),
        ("video,frame,hook,frame\nv0,0,1,1\n", r"line 1: expected each column once, found frame several times"),
        ("video,frame,hook\nv0,0,1\nv6,0,\n", r"labels\.csv: expected labels of what is learned from, found none in v6"),
        ("video,frame,hook\nv0,4000,1\nv6,0,1\n", r"labels\.csv: v0: frame 4000 is labelled, but .* is of 40 decoded frames"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_labels_is_named(dataset, text, message):
    tools(dataset)
    dataset.dataset.presence.write_text(text)
    for part, video in (("train", "v6"), ("test", "v0")):
        dataset.dataset.bundle(part, 1, "A").write_text(f"{video}.txt\n")
    with pytest.raises(UserError, match=message):
        run_probe(CONFIG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,group\na,b\n", r"clips\.csv, line 1: expected the column label"),
        ("clip,label\na,\n", r"line 2: label: expected the class of a"),
        ("clip,label\na,x\na,y\n", r"line 3: clip 'a' again"),
        ("clip,label,split\na,x,dev\n", r"line 2: split: expected train, val, test or nothing, found 'dev'"),
        ("clip,label,video,start,end\na,x,v,1,\n", r"line 2: expected video, start and end, or none of them"),
        ("clip,label,video,start,end\na,x,v,2,1\n", r"line 2: a ends at 1 s, where it starts at 2 s"),
        ("clip,label,video,start,end\na,x,v,one,2\n", r"line 2: start: expected seconds from 0, found 'one'"),
        ("clip,label,Label\na,x,y\n", r"line 1: expected each column once, found label several times"),
        ("clip,label\n", r"clips\.csv: no clip in it"),
        ("clip,label,split\na,x,train\n", r"split: expected clips to learn from and to test, found none of test"),
        ("clip,label,split\na,x,train\nb,y,test\n", r"a\.npy: no features for this video"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_clips_is_named(dataset, text, message):
    dataset.dataset.description.write_text("task: clips\n")
    dataset.dataset.clips.write_text(text)
    with pytest.raises(UserError, match=message):
        run_probe(ProbeConfig(dataset="task", model="ColorHistogram"))


def test_a_data_set_of_phases_and_a_measure_that_there_is_not_are_refused(dataset):
    tools(dataset)
    dataset.dataset.description.write_text("task: multilabel\nmeasure: dice\n")
    with pytest.raises(
        UserError, match=r"measure: expected one of pooled_ap, video_ap, roc_area for multilabel, found 'dice'"
    ):
        run_probe(CONFIG)
    dataset.dataset.description.write_text("label_fps: 1\n")
    with pytest.raises(UserError, match=r"task: expected multilabel or clips, found none \(phases\)"):
        run_probe(CONFIG)
