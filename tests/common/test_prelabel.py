"""From a trained head to files of annotation tools, and from these back to labels of a data set."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import numpy as np
import pytest

from common.base import paths
from common.dataset.annotations.known_formats import FORMATS
from common.dataset.phases import read_labels
from common.prelabel import main
from tests.common.test_predict_video import NEW_PHASES, PHASES, built, coloured

__all__ = ["built"]  # a fixture

SECOND = np.repeat([1, 0, 2], [25, 10, 30])
PREDICTED = {"case_7": NEW_PHASES, "case_8": SECOND}
VARIABLE_GAPS = np.where(np.arange(len(SECOND)) % 5 == 4, 0.2, 0.04)


@pytest.fixture
def theatre(built, tmp_path, make_clip, monkeypatch):
    """A folder of two unlabelled videos, one of them at a variable rate, and a root with a trained head."""
    shutil.copytree(built, tmp_path / "root")
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "theatre" / "case_7.mp4", coloured(NEW_PHASES))
    make_clip(
        tmp_path / "theatre" / "case_8.mp4",
        coloured(SECOND),
        seconds=np.concatenate(([0], np.cumsum(VARIABLE_GAPS)[:-1])),
    )
    return tmp_path / "theatre"


@pytest.fixture
def bring_back(checkout, monkeypatch):
    """The import command, `bring_back(*words)`."""
    monkeypatch.syspath_prepend(str(checkout / "data"))
    spec = importlib.util.spec_from_file_location(
        "import_dataset_of_annotations", checkout / "data" / "import_dataset.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield lambda *words: module.main(["annotations", *map(str, words)])
    for name in ("import_annotations", "label_target"):
        sys.modules.pop(name, None)


def prelabel(folder, kind, *words):
    return main(
        [
            str(folder),
            "--model",
            "ColorHistogram",
            "--dataset",
            "clips",
            "--format",
            kind,
            "--device",
            "cpu",
            *map(str, words),
        ]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_handed_out_comes_back_to_the_frame(kind, theatre, bring_back, capsys, tmp_path):
    assert prelabel(theatre, kind) == 0
    untouched = ["--predictions"] if kind == "labelstudio" else []  # which nobody has annotated
    assert bring_back(tmp_path / f"theatre_{kind}", "--output", "mine", *untouched) == 0
    dataset = paths.dataset("mine")
    for name, phases in PREDICTED.items():
        back = read_labels(dataset.ground_truth / f"{name}.txt", PHASES)
        if kind == "labelstudio" and name == "case_8":  # its grid has one rate
            assert len(back) == len(phases)
        else:
            assert back.tolist() == phases.tolist()
        assert (dataset.videos / f"{name}.mp4").samefile(theatre / f"{name}.mp4")
    printed = capsys.readouterr().out
    assert "came back unchanged: case_7" in printed
    assert "problems" not in printed
