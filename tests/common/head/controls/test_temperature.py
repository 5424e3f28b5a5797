"""Temperature: found where it is known, no phase changes, the calibration afterwards is in record and report."""

import json

import numpy as np
import pytest

from common.base import paths
from common.head.controls.temperature import fit_temperature, tempered
from common.reports.results import collect_all
from common.run_k_folds import main
from common.scoring.further_measures import TEMPERED
from tests.common.conftest import FOLD_WORDS

WORDS = [*FOLD_WORDS, "--head", "linear", "--no_floors", "--num_epochs", "3"]


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_the_phases_were_drawn_with_is_found(true_temperature):
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (40_000, 5))
    told = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = tempered(told, true_temperature)
    phases = (true.cumsum(axis=1) > random.random((len(true), 1))).argmax(axis=1)
    assert fit_temperature(told.astype(np.float32), phases) == pytest.approx(true_temperature, rel=0.05)


def test_tempering_keeps_the_order_and_sums_to_1_also_where_float32_has_0():
    likely = np.array([[1.0, 0.0, 0.0], [0.7, 0.2, 0.1]], dtype=np.float32)
    softer = tempered(likely, 2.0)
    assert softer.sum(axis=1) == pytest.approx(1)
    assert softer.argmax(axis=1).tolist() == [0, 0]
    assert softer[1] == pytest.approx(np.sqrt(likely[1]) / np.sqrt(likely[1]).sum())
    assert tempered(likely, 1.0) == pytest.approx(likely, abs=1e-6)


def test_a_run_records_its_temperature_once_and_the_report_shows_the_calibration_after_it(made):
    main(WORDS)
    plain = collect_all(made.dataset, 2).results[0]
    assert np.isnan(plain.further[TEMPERED])
    main([*WORDS, "--temperature"])  # of finished folds too
    folder = paths.model("ColorHistogram").results(made.dataset.name, "head=linear")
    records = [json.loads((folder / f"split_{k}" / paths.RUN_RECORD).read_text()) for k in (1, 2)]
    for record in records:
        assert record["temperature"]["value"] > 0
        assert set(record["temperature"]["held_out"]).isdisjoint(record["videos"])
    result = collect_all(made.dataset, 2).results[0]
    assert result.mean("accuracy") == plain.mean("accuracy")
    assert 0 <= result.further[TEMPERED] <= 1
    assert np.sum([record["temperature"]["bins"] for record in records], axis=(0, 1))[0] == result.confusion.sum()
    before = [path.stat().st_mtime_ns for path in folder.rglob(paths.RUN_RECORD)]
    main([*WORDS, "--temperature"])
    assert [path.stat().st_mtime_ns for path in folder.rglob(paths.RUN_RECORD)] == before
    assert not list(paths.model("ColorHistogram").root.rglob("*aside*"))
