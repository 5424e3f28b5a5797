"""`common.status`: what stands where, by the records alone."""

import json
import os
import shutil
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

import compute_results
from common import extract_features, run_k_folds, status
from common.base import paths
from common.base.entries import warn_once
from common.base.runtime import UserError
from common.reports.status.standing import read_standing
from common.reports.status.standing_text import file_size, next_steps, settings_as_flags, standing_text
from tests.common.conftest import FOLD_WORDS, SMALL_HEAD

SETTINGS = [word for name, value in SMALL_HEAD.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def ran(made):
    """Both folds of `ColorHistogram` finished."""
    run_k_folds.main([*FOLD_WORDS, *SETTINGS, "--no_floors"])
    return made


def the_run(dataset):
    (encoder,) = read_standing(dataset).encoders
    (run,) = encoder.runs
    return run


def later(path, seconds=60):
    os.utime(path, (time.time() + seconds,) * 2)


def test_the_table_counts_videos_folds_and_disk(ran):
    (encoder,) = read_standing(ran.dataset).encoders
    assert encoder.name == "ColorHistogram"
    assert len(encoder.extracted) == 8  # six videos and two for validation; there is no videos/ to count
    (run,) = encoder.runs
    assert (run.run, run.num_folds, run.done, run.missing, run.stale, run.damaged) == (None, 2, [1, 2], [], {}, {})
    model = paths.model("ColorHistogram")
    folders = [ran.features, model.results("made"), model.root / "checkpoints"]
    assert encoder.disk_bytes == sum(
        path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
    )
    text = standing_text(read_standing(ran.dataset))
    assert "made: 8 videos, 8 labelled, 2 folds" in text
    assert text.count("2/2") == 1
    assert "out of date\n" not in text.partition("next")[0].partition("---")[2]


def test_finished_folds_lead_to_the_comparison(ran):
    steps = list(next_steps(read_standing(ran.dataset)))
    assert steps[0] == "python compute_results.py --dataset made --compare-kfold 2"


def test_each_list_of_splits_has_a_comparison_of_its_own(ran):
    found = read_standing(ran.dataset)
    run = the_run(ran.dataset)
    official = replace(run, config=run.config | {"splits": "official"})
    steps = list(next_steps(replace(found, encoders=[replace(found.encoders[0], runs=[run, official])])))
    assert steps[:2] == [
        "python compute_results.py --dataset made --compare-kfold 2",
        "python compute_results.py --dataset made --splits official --compare-kfold",
    ]


@pytest.mark.slow
def test_a_comparison_leads_to_its_page_until_another_fold_ends(ran):
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    assert next(next_steps(read_standing(ran.dataset))).startswith(f"look at {paths.comparison_results()}")
    later(run_record(1))
    assert next(next_steps(read_standing(ran.dataset))).startswith("python compute_results.py")


def test_a_label_that_was_changed_makes_every_fold_stale(ran):
    later(ran.dataset.ground_truth / "BL_1.txt")
    assert the_run(ran.dataset).stale == {1: "labels changed since", 2: "labels changed since"}


def test_features_made_again_make_the_folds_stale_that_tested_them(ran):
    tested = json.loads(run_record(1).read_text())["videos"][0]
    later(ran.features / f"{tested}.npy")
    assert the_run(ran.dataset).stale == {1: "features made since"}


def test_other_folds_are_noticed(ran):
    record = json.loads(run_record(2).read_text())
    run_record(2).write_text(json.dumps(record | {"folds_hash": "0" * 64}))
    assert the_run(ran.dataset).stale == {2: "other folds than there are now"}


def test_a_fold_with_other_settings_is_noticed_and_run_again_by_force(ran):
    record = json.loads(run_record(2).read_text())
    run_record(2).write_text(json.dumps(record | {"config": record["config"] | {"num_epochs": 7}}))
    run = the_run(ran.dataset)
    assert run.stale == {2: "other settings than the other folds"}
    assert any(step.endswith("--force") for step in next_steps(read_standing(ran.dataset)))


def test_a_damaged_record_is_told_and_the_other_fold_stays(ran):
    run_record(1).write_text("{")
    run = the_run(ran.dataset)
    assert run.done == [2]
    assert str(run_record(1)) in run.damaged[1]


def test_the_command_that_finishes_a_run_repeats_its_settings(ran):
    run_record(2).unlink()
    (command, *_) = next_steps(read_standing(ran.dataset))
    assert command.startswith("python -m common.run_k_folds --model ColorHistogram --dataset made --folds 2")
    words = command.split()[3:]
    run_k_folds.main([*words, "--device", "cpu", "--no_floors"])
    assert the_run(ran.dataset).stale == {}
    assert the_run(ran.dataset).done == [1, 2]


def test_flags_repeat_a_head_of_its_own(made):
    config = made.config(head="gru", head_options={"hidden": 32}, causal=True, adaptive_mse=False)
    words = settings_as_flags(asdict(config))
    assert words[-2:] == ["--head", "gru"]
    assert "--causal" in words
    assert "--no-adaptive_mse" in words
    assert "hidden=32" in words


def test_a_fold_that_failed_is_told_until_it_succeeds(made, monkeypatch):
    label = made.dataset.ground_truth / "BL_1.txt"
    text = label.read_text()
    (made.features / "BL_1.npy").rename(made.features / "BL_1.away")
    with pytest.raises(UserError):
        run_k_folds.main([*FOLD_WORDS, *SETTINGS, "--no_floors"])
    what, failure = read_standing(made.dataset).encoders[0].last_error
    assert what == "split_1"
    assert "no features for this video" in failure.message
    assert "no features for this video" in standing_text(read_standing(made.dataset))
    (made.features / "BL_1.away").rename(made.features / "BL_1.npy")
    run_k_folds.main([*FOLD_WORDS, *SETTINGS, "--no_floors"])
    assert read_standing(made.dataset).encoders[0].last_error is None
    assert label.read_text() == text


def test_weights_that_are_missing_and_a_video_that_does_not_decode_are_told(made, make_clip, solid):
    made.dataset.videos.mkdir()
    make_clip(made.dataset.videos / "BL_1.mp4", solid((9, 9, 9), 5))
    (made.dataset.videos / "broken.mp4").write_bytes(b"no video")
    words = ["--dataset", "made", "--weights", "/nowhere/weights.pt", "--model", "Base"]
    with pytest.raises(UserError):
        extract_features.main(words)
    found = {encoder.name: encoder for encoder in read_standing(made.dataset).encoders}
    assert "/nowhere/weights.pt" in found["Base"].last_error[1].message
    extract_features.main(["--dataset", "made", "--model", "ColorHistogram", "--variant", "new", "--device", "cpu"])
    found = {encoder.name: encoder for encoder in read_standing(made.dataset).encoders}
    new = found["ColorHistogram@new"]
    assert (new.extracted, list(new.quarantined)) == (["BL_1"], ["broken"])
    assert any("broken" in step and "--accept_damaged" in step for step in next_steps(read_standing(made.dataset)))


def test_without_folds_the_first_step_makes_them(made):
    shutil.rmtree(made.dataset.splits)
    found = read_standing(made.dataset)
    assert (found.num_folds, found.encoders[0].runs) == (0, [])
    assert next(next_steps(found)).startswith(f"python generate_k_folds.py {made.dataset.root}")


@pytest.mark.slow
def test_the_page_of_another_data_set_is_not_taken_for_this_ones(ran):
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    page = paths.comparison_results() / "report.html"
    assert next(next_steps(read_standing(ran.dataset))).startswith(f"look at {page}")
    page.write_text(page.read_text(encoding="utf-8").replace('content="made"', 'content="other"', 1), encoding="utf-8")
    assert next(next_steps(read_standing(ran.dataset))) == (
        f"python compute_results.py --dataset made --compare-kfold 2    # {page} is of other now"
    )


def test_several_data_sets_are_shown_one_after_the_other(made, capsys):
    shutil.copytree(made.dataset.root, made.dataset.root.with_name("second"))
    assert status.main([]) == 0
    shown = capsys.readouterr().out
    assert shown.index("made: 8 videos") < shown.index("second: 8 videos")


def test_a_data_set_of_another_task_does_not_hide_the_others(made, capsys):
    other = made.dataset.root.with_name("masks")
    other.mkdir()
    (other / "dataset.yaml").write_text("task: segmentation\n")
    assert status.main([]) == 0
    shown = capsys.readouterr().out
    assert "made: 8 videos" in shown
    assert "masks: " in shown
    assert "its task is segmentation" in shown


def test_the_only_data_set_is_the_default_and_is_named(made, capsys, caplog):
    warn_once.cache_clear()  # another test may have heard it
    assert status.main([]) == 0
    assert capsys.readouterr().out.startswith("made: 8 videos")
    assert "data set made: the only one in data/" in caplog.text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1400, "1.4 kB"), (123_456_789, "123 MB"), (5e13, "50.0 TB")]
)
def test_sizes_are_read_at_a_glance(num_bytes, text):
    assert file_size(num_bytes) == text


def test_a_large_benchmark_is_told_within_two_seconds(ran):
    """155 videos, 20 encoders: sidecars and records are those of the small run, many times."""
    names = [f"BL_{number}" for number in range(155)]
    for name in names:
        ran.write_labels(name, np.zeros(3, int))
    rows = (ran.features / "BL_1.npy").read_bytes(), (ran.features / "BL_1.json").read_bytes()
    record, model = run_record(1).read_bytes(), paths.model("ColorHistogram")
    for number in range(20):
        root = model.root.with_name(f"Encoder{number}")
        root.mkdir()
        (root / "config.yaml").write_text(model.config.read_text())
        folder = ran.dataset.features(root.name)
        folder.mkdir()
        for name in names:
            (folder / f"{name}.npy").write_bytes(rows[0])
            (folder / f"{name}.json").write_bytes(rows[1])
        for split in range(1, 6):
            path = paths.Model(root).split_results("made", split) / paths.RUN_RECORD
            path.parent.mkdir(parents=True)
            path.write_bytes(record)
    began = time.process_time()  # of this process: the machine may be busy
    assert len(read_standing(ran.dataset).encoders) == 21
    assert time.process_time() - began < 2


def run_record(split):
    return paths.model("ColorHistogram").split_results("made", split) / paths.RUN_RECORD
