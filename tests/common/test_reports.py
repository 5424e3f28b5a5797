"""Reports: computed from prediction files, typed numbers, marks for synthetic data and random weights, pictures."""

import json

import numpy as np
import openpyxl
import pandas as pd
import pytest
from PIL import Image

import compute_results
from common import export_to_excel, paths
from common.experiment import load_experiment
from common.kfold import make_folds, read_folds, write_folds
from common.metrics import MEASURES
from common.phases import read_mapping, write_prediction
from common.reports import plots, workbook
from common.reports.collect import collect_all, collect_folds, remarks
from common.reports.palette import BACKGROUND, PHASE_COLOURS, phase_colours
from common.reports.tables import comparison_rows, format_table, percent
from common.run_k_folds import main as run_k_folds
from common.runtime import UserError

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


def test_compare_kfold_writes_workbook_chart_and_table_and_says_where(compared, capsys):
    assert compute_results.main(["--dataset", "made", "--compare-kfold", "2"]) == 0
    printed = capsys.readouterr().out
    for name in ("kfold_comparison.xlsx", "kfold_comparison_chart.png", "kfold_comparison_table.png"):
        assert f"wrote {paths.comparison_results() / name}" in printed
    for name in ("kfold_comparison_chart.png", "kfold_comparison_table.png"):
        pixels = np.asarray(Image.open(paths.comparison_results() / name).convert("L"))
        assert pixels.std() > 5, "the picture is empty"


def test_the_workbook_holds_numbers_with_the_best_marked_and_a_frozen_header(compared):
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    results = collect_all(compared.dataset, 2)
    book = openpyxl.load_workbook(paths.comparison_results() / "kfold_comparison.xlsx")
    assert book.sheetnames == ["comparison", "splits", "videos", "runs", "notes"]
    sheet = book["comparison"]
    assert sheet.freeze_panes == "B2"
    header = [cell.value for cell in sheet[1]]
    column = header.index("Accuracy mean %")
    values = [row[column].value for row in sheet.iter_rows(min_row=2)]
    assert values == pytest.approx([100 * result.mean("accuracy") for result in results])
    best = [row[column].font.bold for row in sheet.iter_rows(min_row=2)]
    assert best == [True, False]
    assert book["videos"].max_row == 1 + 2 * 6
    assert all(isinstance(row[4].value, float) for row in book["videos"].iter_rows(min_row=2))


def test_model_comparison_of_one_split(compared, capsys):
    compute_results.main(["--dataset", "made", "--split", "2"])
    book = openpyxl.load_workbook(paths.comparison_results() / "model_comparison.xlsx")
    assert {row[1].value for row in book["splits"].iter_rows(min_row=2)} == {"2"}
    assert "one split" in capsys.readouterr().out


def test_plots_of_one_model_and_split(compared):
    compute_results.main(["--dataset", "made", "--model", "ColorHistogram", "--split", "1"])
    names = {path.name for path in paths.model("ColorHistogram").visualizations.iterdir()}
    assert names == {"made_split_1_ribbons.png", "made_split_1_confusion.png"}


def test_export_to_excel_has_every_run(compared, capsys):
    export_to_excel.main(["--dataset", "made", "--model", "ColorHistogram"])
    path = paths.model("ColorHistogram").workbook
    assert capsys.readouterr().out.strip() == str(path)
    encoders = {row[0].value for row in openpyxl.load_workbook(path)["splits"].iter_rows(min_row=2)}
    assert encoders == {"ColorHistogram", "ColorHistogram (seed7)"}


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


def test_nothing_to_compare_says_what_to_run(made):
    with pytest.raises(UserError, match=r"no finished runs on made.*run_k_folds"):
        collect_all(made.dataset, 2)


def test_remarks_name_synthetic_data_random_weights_and_unequal_heads(compared):
    results = collect_all(compared.dataset, 2)
    plain = " ".join(remarks(results))
    assert "Synthetic" not in plain
    assert "random" not in plain
    assert "ddof 1" in plain
    for split in results[0].splits:
        split.record["synthetic"] = True
        split.record["features"]["random_weights"] = True
        split.record["config"]["num_epochs"] = 99
    marked = " ".join(remarks(results))
    assert "Synthetic data" in marked
    assert "untrained encoders" in marked
    assert "num_epochs differs" in marked
    assert results[0].name.endswith("random weights)")


def test_the_sample_set_is_recorded_as_synthetic(made):
    (made.dataset.root / "sample.json").write_text("{}")
    run_k_folds([*WORDS, "--only", "1"])
    record = json.loads((load_experiment(made.config()).results / "run.json").read_text())
    assert record["synthetic"] is True


def test_percent_shows_undefined_as_undefined():
    assert percent(float("nan")) == "n/a"
    assert percent(0.1236) == "12.36"
    assert percent(0.5, 0.01) == "50.00 ± 1.00"


def test_text_table_is_aligned():
    lines = format_table([["Encoder", "A"], ["x", "1.00"], ["longer name", "12.00"]]).splitlines()
    assert lines[2] == "x             1.00"
    assert lines[3] == "longer name  12.00"


def test_comparison_rows_follow_the_measures(compared):
    rows = comparison_rows(collect_all(compared.dataset, 2))
    assert rows[0] == ["Encoder", *MEASURES.values()]
    assert len(rows) == 3


def test_a_phase_always_has_the_same_colour_and_background_is_grey():
    names = ["background", "a", "b"]
    assert phase_colours(names)[0] == BACKGROUND
    assert phase_colours(names)[1:] == list(PHASE_COLOURS[:2])
    nineteen = phase_colours(["background", *map(str, range(18))])
    assert len(set(nineteen)) == 19


def test_an_undefined_measure_is_written_as_such_in_excel(tmp_path):
    table = pd.DataFrame({"Encoder": ["a", "b"], "PR-AUC mean %": [float("nan"), 12.5]})
    path = workbook.save_workbook({"t": table}, tmp_path / "t.xlsx", mark_best={"t": ["PR-AUC mean %"]})
    sheet = openpyxl.load_workbook(path)["t"]
    assert [sheet["B2"].value, sheet["B3"].value] == ["n/a", 12.5]
    assert sheet["B3"].font.bold


def test_ribbons_in_minutes_only_where_every_frame_rate_is_known(tmp_path, made):
    mapping = read_mapping(made.dataset.mapping)
    ribbons = {"v": [("truth", np.array([0, 1, 1, 2])), ("predicted", np.array([0, 1, 2, 2]))]}
    for fps in (10.0, None):
        path = plots.ribbon_plot(ribbons, {"v": fps}, mapping, "title", tmp_path / f"{fps}.png")
        assert path.stat().st_size > 5000
