"""From an import to scores on the lists of the field: a release with labels at each rate, and one of features alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import evaluation, run_k_folds
from common.base import paths
from common.dataset.split_lists import open_splits
from common.features.config import ExtractionConfig
from common.features.extract import extract

CHECKOUT = Path(__file__).resolve().parents[4]
MINIATURES = (CHECKOUT / os.environ.get("REFERENCE_DATA", "../shared")).resolve() / "cases" / "releases"
HEAD = ["--device", "cpu", "--num_epochs", "1", "--num_layers_PG", "3", "--num_layers_R", "2", "--num_R", "1",
        "--num_f_maps", "8"]  # fmt: skip
# a label: the release, the options of its import, a list
RATES = {
    "a decoded frame": ("cholec80", ["--native_rate"], "A"),
    "every 25th frame": ("cholec80", [], "A"),
    "an image": ("pmlr50", [], "official"),
    "a second": ("autolaparo", [], "official"),
    "every sixth frame": ("sar_rarp50", [], "official"),
    "a feature": ("50salads", [], "official"),
}

pytestmark = pytest.mark.skipif(not MINIATURES.is_dir(), reason="no miniatures of releases in the reference data")


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_from_the_release_to_scores(rate, command, workspace, tmp_path, capsys):
    name, options, splits = RATES[rate]
    release = tmp_path / "release"
    shutil.copytree(MINIATURES / name / "release", release, copy_function=shutil.copyfile)
    words = [sys.executable, str(MINIATURES / "make_media.py"), str(MINIATURES / name), str(release)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    assert command.main([name, str(release), "--output", "made", *options]) == 0
    dataset = paths.dataset("made")
    model, more = "ColorHistogram", []
    if rate == "a feature":
        model, more = "I3D", ["--variant", "release", "--features_dim", "2048", "--sample_rate", "2"]
    else:
        assert extract(paths.model(model), ExtractionConfig(dataset="made"), device="cpu").exit_code == 0
    capsys.readouterr()
    assert run_k_folds.main(["--dataset", "made", "--model", model, "--splits", splits, *HEAD, *more]) == 0

    expected = json.loads((MINIATURES / name / "expected.json").read_text(encoding="utf-8"))
    lists = open_splits(dataset, splits)
    run = "-".join([f"splits={lists.name}", *more[1:2]])
    for number in range(1, len(lists) + 1):
        folder = paths.model(model).split_results("made", number, run)
        for video in lists.videos("test", number):
            entry = expected["videos"][video]
            count = entry["num_labels"] if options or name != "cholec80" else entry["num_labels_at_1_fps"]
            assert np.load(folder / f"{video}.npy").shape == (count, len(expected["mapping"]))
        scores = ["--splits", splits, "--split", str(number), "--json", str(tmp_path / "scores.json")]
        assert evaluation.main([str(dataset.ground_truth), str(folder), *scores]) == 0
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        found = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["challenge"]
        assert found["accuracy"] == pytest.approx(record["metrics"]["challenge"]["accuracy"])
