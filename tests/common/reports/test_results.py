"""Reports: computed from prediction files, typed numbers, marks for synthetic data and random weights, pictures."""

import json

import pytest

from common import kfold_summary
from common.base import paths
from common.base.runtime import UserError
from common.dataset.kfold import make_folds, read_folds, write_folds
from common.dataset.phases import PhaseMapping, write_prediction
from common.head.experiment import load_experiment
from common.reports.caveats import remarks
from common.reports.comparison import make_report
from common.reports.pictures.style import BACKGROUND, PHASE_COLOURS, phase_colours
from common.reports.results import collect_all, collect_folds, collect_one, collect_runs, collect_split
from common.reports.text import comparison_rows, percent
from common.run_k_folds import main as run_k_folds
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE
from common.train import main as train_main

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
    results = collect_all(compared.dataset, 2).results
    assert {result.name for result in results} == {"ColorHistogram", "ColorHistogram (seed7)"}
    means = [result.mean("accuracy") for result in results]
    assert means == sorted(means, reverse=True)


def test_an_incomplete_encoder_is_left_out_with_a_warning(compared, caplog):
    (load_experiment(compared.config(num_epochs=2, split="2", seed=7)).results / "run.json").unlink()
    assert [result.name for result in collect_all(compared.dataset, 2).results] == ["ColorHistogram"]
    assert "no finished run of fold 2" in caplog.text


def test_runs_on_other_folds_are_not_compared(compared):
    old = read_folds(compared.dataset)
    new = next(folds for seed in range(99) if (folds := make_folds(old[0] + old[1], 2, seed=seed)) != old)
    write_folds(compared.dataset, new, seed=0, stratify="prefix", patients={})
    with pytest.raises(UserError, match="was run on other folds"):
        collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)


def run_folder(compared, fold: int = 1, **changes):
    """The results of one fold of a run of `compared`."""
    return load_experiment(compared.config(num_epochs=2, split=str(fold), **changes)).results


def change_record(folder, **changes) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def said(results) -> str:
    """What is red, but for heads of two epochs that did not learn."""
    red = [str(remark) for remark in remarks(results) if remark.alarming]
    return " ".join(text for text in red if not text.startswith("Did not learn"))


def test_a_run_on_other_folds_is_left_out_of_every_collection_and_named(compared):
    model = paths.model("ColorHistogram")
    change_record(run_folder(compared, seed=7), folds_hash="of other folds")
    for found in (collect_all(compared.dataset, 2), collect_split(compared.dataset, "1")):
        assert [result.name for result in found.results] == ["ColorHistogram"]
        (reason,) = found.left_out
        assert "seed7" in reason
        assert "other folds" in reason
    every = collect_runs(model, compared.dataset)
    assert [len(result.splits) for result in every.results] == [2, 1]
    with pytest.raises(UserError, match=r"seed7.*other folds"):
        collect_one(model, compared.dataset, "1", run="seed7")


def test_a_validation_run_on_other_videos_is_left_out(made, caplog):
    for seed in ("1", "2"):
        words = ["--dataset", "made", "--model", "ColorHistogram", "--split", "val", "--device", "cpu", "--seed", seed]
        train_main([*words, *HEAD])
        train_main([*words, *HEAD, "--action", "predict"])
    folder = run_folder(made, seed=1).parent / "split_val"
    record = json.loads((folder / "run.json").read_text())
    change_record(folder, videos=record["videos"][:1])
    found = collect_split(made.dataset, "val")
    assert [result.run for result in found.results] == ["seed2"]
    assert f"other videos than {made.dataset.root} has in split val now ({record['videos'][1]})" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "run.json").write_text("{"),
        lambda folder: (folder / "run.json").write_text("[]"),
        lambda folder: change_record(folder, features={"identity": None}),
        lambda folder: change_record(folder, history=[{"epoch": 1}]),
        lambda folder: change_record(folder, videos=[]),
        lambda folder: next(folder.glob("*.txt")).write_text("no phase at all"),
        lambda folder: next(folder.glob("*.txt")).unlink(),
        lambda folder: next(folder.glob("*.npy")).write_bytes(b"cut"),
    ],
)
def test_one_damaged_run_is_left_out_and_the_others_are_reported(compared, damage):
    folder = run_folder(compared, seed=7)
    damage(folder)
    for found in (collect_all(compared.dataset, 2), collect_split(compared.dataset, "1")):
        assert [result.name for result in found.results] == ["ColorHistogram"]
        assert [str(folder) in reason for reason in found.left_out] == [True]
        report = make_report(compared.dataset, found.results, [CHALLENGE], left_out=found.left_out)
        assert f"Left out: {found.left_out[0]}." in map(str, report.remarks)
    every = collect_runs(paths.model("ColorHistogram"), compared.dataset)
    assert "of 2 folds, the numbers of ColorHistogram (seed7) over 2 only" in said(every.results)


def test_a_run_that_learned_from_other_labels_is_named(compared):
    assert said(collect_all(compared.dataset, 2).results) == ""
    change_record(run_folder(compared, 2), labels_hash=None)  # of an earlier version: unknown
    assert said(collect_all(compared.dataset, 2).results) == ""
    path = compared.dataset.ground_truth / f"{read_folds(compared.dataset)[1][0]}.txt"
    path.write_text("\r\n".join(path.read_text().split()))  # the same labels in another form
    assert said(collect_all(compared.dataset, 2).results) == ""
    path.write_text(path.read_text().replace("wash", "suture", 1))
    for results in (collect_all(compared.dataset, 2).results, collect_split(compared.dataset, "1").results):
        assert "Labels have changed since these runs" in said(results)
        assert "ColorHistogram (seed7)" in said(results)


def test_folds_of_other_settings_or_features_are_named(compared):
    folder = run_folder(compared, 2)
    record = json.loads((folder / "run.json").read_text())
    identity = record["features"]["identity"] | {"weights": {"source": "hub:x", "sha256": "ab" * 32}}
    change_record(folder, config=record["config"] | {"lr": 0.5}, features=record["features"] | {"identity": identity})
    text = said([collect_folds(paths.model("ColorHistogram"), compared.dataset, 2)])
    assert "Folds of ColorHistogram differ in lr (fold 1: 0.0005; fold 2: 0.5)." in text
    assert "differ in weights of the features (fold 1: none; fold 2: abab" in text
    assert "seed" not in text
    assert "rows differ in lr (" in said(collect_all(compared.dataset, 2).results)


def test_a_setting_that_an_earlier_version_did_not_record_was_at_its_default(compared):
    folder = run_folder(compared, seed=7)
    config = json.loads((folder / "run.json").read_text())["config"]
    change_record(folder, config={key: value for key, value in config.items() if key != "precision"})
    assert said(collect_all(compared.dataset, 2).results) == ""


def test_fewer_folds_than_there_are_are_said_to_be_and_more_are_refused(compared):
    model = paths.model("ColorHistogram")
    alone = collect_folds(model, compared.dataset, 1)
    assert "of 2 folds, the numbers of ColorHistogram over 1 only" in said([alone])
    assert "Unfinished" not in said([collect_folds(model, compared.dataset, 2)])
    for count in (0, 3):
        with pytest.raises(UserError, match=rf"{count} folds: .* has 2"):
            collect_folds(model, compared.dataset, count)
        with pytest.raises(UserError, match=rf"{count} folds: .* has 2"):
            collect_all(compared.dataset, count)


def test_models_and_runs_can_be_chosen(compared):
    models = [paths.model("ColorHistogram")]
    for runs, found in ((["default"], ["ColorHistogram"]), (["seed7"], ["ColorHistogram (seed7)"])):
        assert [each.name for each in collect_all(compared.dataset, 2, models=models, runs=runs).results] == found
        assert [each.name for each in collect_split(compared.dataset, "2", runs=runs).results] == found
    with pytest.raises(UserError, match=r"--runs causal: no finished run on made is called so; .* default, seed7"):
        collect_all(compared.dataset, 2, runs=["causal"])
    with pytest.raises(UserError, match="--models Base: no finished run on made"):
        collect_split(compared.dataset, "1", models=[paths.model("Base")])


def test_a_video_of_both_parts_is_scored_against_the_labels_of_the_part_that_was_predicted(compared):
    """Its labels for validation are all one phase: scored against them, a fold's run would look bad."""
    before = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2).values("accuracy")
    for video in read_folds(compared.dataset)[0]:
        text = (compared.dataset.ground_truth / f"{video}.txt").read_text()
        (compared.dataset.ground_truth_val / f"{video}.txt").write_text("wash\n" * len(text.split()))
    after = collect_folds(paths.model("ColorHistogram"), compared.dataset, 2).values("accuracy")
    assert after.tolist() == before.tolist()


def test_a_patient_who_is_learned_from_and_tested_is_named_in_red(compared, capsys):
    def alarms() -> list[str]:
        report = make_report(compared.dataset, collect_all(compared.dataset, 2).results, [CHALLENGE])
        return [str(remark) for remark in report.warnings if "atient" in str(remark)]

    first, second = (fold[0] for fold in read_folds(compared.dataset))
    assert alarms() == []
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\n{second}.mp4,p1\n")
    assert alarms() == [f"Patients: patient p1 is in 2 test folds (fold 1: {first}; fold 2: {second})."]
    kfold_summary.main(["--dataset", "made", "--model", "ColorHistogram", "--folds", "2"])
    assert alarms()[0] in capsys.readouterr().out
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\nnobody,p1\n")
    assert "line 3: no video 'nobody'" in alarms()[0]
    compared.dataset.patients.write_text(f"video,patient\n{first},p1\nBL_8,p1\n")  # not of these splits
    assert alarms() == []


def test_nothing_to_compare_says_what_to_run(made):
    with pytest.raises(UserError, match=r"no finished runs on made.*run_k_folds"):
        collect_all(made.dataset, 2)


def test_remarks_name_synthetic_data_random_weights_and_unequal_heads(compared):
    results = collect_all(compared.dataset, 2).results
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
    assert "rows differ in num_epochs (" in marked
    assert [remark.alarming for remark in remarks(results) if "rows differ" in str(remark)] == [True]
    assert results[0].name.endswith("random weights)")


def test_remarks_say_of_each_row_whether_it_is_online_and_what_is_not_as_it_seems(compared):
    results = collect_all(compared.dataset, 2).results
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
    rows = comparison_rows(collect_all(compared.dataset, 2).results)
    assert rows[0] == ["Encoder", *MEASURES.values(), "Time saved"]
    assert len(rows) == 3


def test_a_phase_always_has_the_same_colour_and_background_is_grey():
    mapping = PhaseMapping(("background", "a", "b"))
    assert phase_colours(mapping)[0] == BACKGROUND
    assert phase_colours(mapping)[1:] == list(PHASE_COLOURS[:2])
    assert phase_colours(PhaseMapping(("a", "idle"), "idle")) == [PHASE_COLOURS[0], BACKGROUND]
    nineteen = phase_colours(PhaseMapping(("background", *map(str, range(18)))))
    assert len(set(nineteen)) == 19
