"""Reports: computed from prediction files, typed numbers, marks for synthetic data and random weights, pictures."""

import json

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.kfold import make_folds, read_folds, write_folds
from common.dataset.phases import PhaseMapping, write_prediction
from common.head.experiment import load_experiment
from common.reports.caveats import remarks
from common.reports.comparison import make_report
from common.reports.pictures.style import BACKGROUND, PHASE_COLOURS, phase_colours
from common.reports.results import collect_all, collect_folds
from common.reports.text import comparison_rows, percent
from common.run_k_folds import main as run_k_folds
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE

HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]
WORDS = ["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu", *HEAD]


@pytest.fixture
def compared(made):
    """Two runs of one encoder, on two folds."""
    run_k_folds(WORDS)
    run_k_folds([*WORDS, "--seed", "7"])
    return made


def test_rows_are_computed_from_prediction_files_not_from_records(compared):
    before = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)
    experiment = load_experiment(compared.config(num_epochs=2, split="1"))
    for name, labels in experiment.test_labels.items():
        ids = [experiment.mapping.ids[label] for label in labels.read_text().split()]
        write_prediction(experiment.results / f"{name}.txt", ids, experiment.mapping)
    after = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)
    assert before.values("accuracy")[0] < 1
    assert after.values("accuracy")[0] == 1
    assert after.values("accuracy")[1] == before.values("accuracy")[1]


def test_mean_and_std_over_folds_use_ddof_1(compared):
    result = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)
    first, second = result.values("accuracy")
    assert result.mean("accuracy") == pytest.approx((first + second) / 2)
    assert result.std("accuracy") == pytest.approx(abs(first - second) / 2**0.5)


def test_every_run_is_a_row_best_first(compared):
    results = collect_all(compared.dataset, 2)
    assert {result.name for result in results} == {"ColorHistogram", "ColorHistogram (seed7)"}
    means = [result.mean("accuracy") for result in results]
    assert means == sorted(means, reverse=True)


def test_an_incomplete_encoder_is_left_out_with_a_warning(compared, caplog):
    (load_experiment(compared.config(num_epochs=2, split="2", seed=7)).results / "run.json").unlink()
    assert [result.name for result in collect_all(compared.dataset, 2)] == ["ColorHistogram"]
    assert "no finished run of fold 2" in caplog.text


def test_runs_on_other_folds_are_not_compared(compared):
    old = read_folds(compared.dataset)
    new = next(folds for seed in range(99) if (folds := make_folds(old[0] + old[1], 2, seed=seed)) != old)
    write_folds(compared.dataset, new, seed=0, stratify="prefix", patients={})
    with pytest.raises(UserError, match="was run on other folds"):
        collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)


def test_a_video_of_both_parts_is_scored_against_the_labels_of_the_part_that_was_predicted(compared):
    """Its labels for validation are all one phase: scored against them, a fold's run would look bad."""
    before = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2).values("accuracy")
    for video in read_folds(compared.dataset)[0]:
        text = (compared.dataset.ground_truth / f"{video}.txt").read_text()
        (compared.dataset.ground_truth_val / f"{video}.txt").write_text("wash\n" * len(text.split()))
    after = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2).values("accuracy")
    assert after.tolist() == before.tolist()


def test_a_patient_who_is_learned_from_and_tested_is_named_in_red(compared):
    def alarms() -> list[str]:
        report = make_report(compared.dataset, collect_all(compared.dataset, 2), [CHALLENGE])
        return [str(remark) for remark in report.warnings if "atient" in str(remark)]

    first, second = (fold[0] for fold in read_folds(compared.dataset))
    assert alarms() == []
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\n{second}.mp4,p1\n")
    assert alarms() == [f"Patients: patient p1 is in 2 test folds (fold 1: {first}; fold 2: {second})."]
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\nnobody,p1\n")
    assert "line 3: no video 'nobody'" in alarms()[0]
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\nBL_8,p1\n")  # not of these splits
    assert alarms() == []


def test_nothing_to_compare_says_what_to_run(made):
    with pytest.raises(UserError, match=r"no finished runs on made.*run_k_folds"):
        collect_all(made.dataset, 2)


def test_remarks_name_synthetic_data_random_weights_and_unequal_heads(compared):
    results = collect_all(compared.dataset, 2)
    plain = " ".join(map(str, remarks(results)))
    assert "Synthetic" not in plain
    assert "random" not in plain
    assert "ddof 1" in plain
    for split in results[0].splits:
        split.record["synthetic"] = True
        split.record["features"]["random_weights"] = True
        split.record["config"]["num_epochs"] = 99
    marked = " ".join(map(str, remarks(results)))
    assert "Synthetic data" in marked
    assert "untrained encoders" in marked
    assert "num_epochs differs" in marked
    assert [remark.alarming for remark in remarks(results) if "differs" in str(remark)] == [True]
    assert results[0].name.endswith("random weights)")


def test_remarks_say_of_each_row_whether_it_is_online_and_what_is_not_as_it_seems(compared):
    results = collect_all(compared.dataset, 2)
    first, second = (result.name for result in results)
    assert "Offline recognition;" in " ".join(map(str, remarks(results)))
    results[1].splits[0].record["config"]["causal"] = True
    results[1].splits[0].record["look_ahead_seconds"] = 1.28
    results[0].splits[1].record["damaged_videos"] = {"BL_2": "60 frames promised, 50 decoded"}
    marked = {str(remark): remark.alarming for remark in remarks(results)}
    assert f"Online recognition: {second}; offline: all others;" in " ".join(marked)
    assert marked[f"Not online although the head is: features look ahead: {second} by 1.28 s."]
    assert marked["Damaged videos were scored as they decode: BL_2."]
    assert first not in next(text for text in marked if "look ahead" in text)


def test_the_sample_set_is_recorded_as_synthetic(made):
    (made.dataset.root / "sample.json").write_text("{}")
    run_k_folds([*WORDS, "--only", "1"])
    record = json.loads((load_experiment(made.config()).results / "run.json").read_text())
    assert record["synthetic"] is True


def test_percent_shows_undefined_as_undefined():
    assert percent(float("nan")) == "n/a"
    assert percent(0.1236) == "12.36"
    assert percent(0.5, 0.01) == "50.00 ± 1.00"


def test_comparison_rows_follow_the_measures(compared):
    rows = comparison_rows(collect_all(compared.dataset, 2))
    assert rows[0] == ["Encoder", *MEASURES.values()]
    assert len(rows) == 3


def test_a_phase_always_has_the_same_colour_and_background_is_grey():
    mapping = PhaseMapping(("background", "a", "b"))
    assert phase_colours(mapping)[0] == BACKGROUND
    assert phase_colours(mapping)[1:] == list(PHASE_COLOURS[:2])
    assert phase_colours(PhaseMapping(("a", "idle"), "idle")) == [PHASE_COLOURS[0], BACKGROUND]
    nineteen = phase_colours(PhaseMapping(("background", *map(str, range(18)))))
    assert len(set(nineteen)) == 19
